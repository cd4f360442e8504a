//! The state directory and everything that knows fsync: `state.db`, `cache/`, `staging/`, the lock.
//!
//! Promises: what [`Store::write`] committed survives `kill -9`; what [`Store::sync`] returned for
//! survives a power cut; reads never wait for the writer; names, attributes and the user's bytes are
//! encrypted before they reach the disk; a failed fsync or commit stops writing (I8); the cache stays
//! below its bound before each write. `docs/STATE.md` describes the format.
//!
//! Never: the network, inodes, the meaning of a change. Called by mega-tree, mega-transfer and
//! mega-vfs, from any thread; functions are synchronous.

#![allow(
    clippy::disallowed_methods,
    reason = "the writer that knows fsync lives here"
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

mod cache;
mod change_rows;
mod db;
mod durable;
mod error;
mod failpoints;
mod loader;
mod lock;
mod open_files;
mod poison;
mod range_set;
mod reserve;
mod rows;
mod schema;
mod session_file;
mod session_keyring;
mod staging;
mod store;
mod subject;
mod truth;
mod tx;
mod vault;
mod xts;

pub use cache::{Blob, BlobCache, BlobPin, DIRECT_ALIGNMENT, DIRECT_FROM, PendingBlob, UNIT};
pub use durable::put_in_place;
pub use error::StoreError;
pub use failpoints::{FailPoint, FailPoints};
pub use loader::{Changed, Replaced, TreeLoader};
pub use lock::LockHolder;
pub use range_set::RangeSet;
pub use rows::{
    AttemptRow, ChangeRow, ChangeState, ContentRow, LayerData, LayerRow, NodeRow, Place, Roots,
    SavedSession, ShareKind, ShareRow,
};
pub use staging::{INLINE_LIMIT, LayerReader, StagingFile};
pub use store::{Percent, Persisted, SessionPlace, Space, StatePaths, Store, StoreOptions};
pub use subject::{AttemptId, LocalId, StagingId, Subject};
pub use truth::SMALLEST_BY_SIZE;
pub use tx::Tx;
pub use xts::STAGING_UNIT;
