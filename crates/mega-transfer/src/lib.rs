//! Moving content: "I need these bytes", "upload this sealed file", as bounded, parallel, verified work.
//!
//! Owns the read pipeline ([`Downloads`], [`RemoteFile`]) and the upload pipeline ([`Uploads`]).
//! Promises: memory stays within one [`MemoryBudget`] shared by all transfers; every wait ends;
//! content that does not match its MAC is never returned as good; no key encrypts two contents; what
//! was uploaded is in the cache. Never knows names, inodes or when something is due. Called by mega-vfs.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

mod budget;
mod download;
mod error;
mod limits;
mod piece;
mod runtime;
mod upload;

pub use budget::{MemoryBudget, SMALLEST_BUDGET};
pub use download::{Downloads, ReadCursor, RemoteFile, RemoteSource};
pub use error::TransferError;
pub use limits::{TransferLimits, Verify};
pub use mega_api::Retry;
pub use upload::{
    Resumable, ResumeRecord, SealedSource, UploadJournal, UploadProgress, Uploaded, Uploads,
};
