//! The client API against the emulator, which shares no code with it.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod account;
mod events;
mod login;
mod requests;
mod storage;
mod support;
mod tree;
mod wire;
