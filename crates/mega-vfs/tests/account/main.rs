//! The file system over an emulated account, operation family by operation family.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

mod content;
mod copies;
mod counts;
mod dot_mega;
mod in_shares;
mod late;
mod listing;
mod names;
mod patterns;
mod races;
mod read_faults;
mod remote;
mod restart;
mod shares;
mod status;
mod support;
mod twins;
mod walks;
