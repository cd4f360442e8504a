//! The transfer pipelines against the emulator, which shares no code with them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    missing_docs
)]

mod faults;
mod quota;
mod read;
mod striped;
mod support;
mod upload;
mod upload_faults;
mod upload_identity;
mod upload_resume;
mod upload_small;
mod verify;
