//! The real binary, run as a user runs it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod arguments;
mod bad_inputs;
mod encrypted;
mod home;
mod login;
mod mounting;
mod rclone;
mod session;
mod setup;
mod terminal;
mod units;
mod user;
