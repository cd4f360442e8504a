//! The store itself.
#![expect(
    missing_docs,
    clippy::missing_errors_doc,
    unused_variables,
    reason = "signatures first"
)]

use std::path::PathBuf;

use mega_proto::{NodeHandle, Seqno};

use crate::cache::BlobCache;
use crate::error::StoreError;
use crate::loader::TreeLoader;
use crate::lock::LockHolder;
use crate::rows::{AttemptRow, ChangeRow, LayerRow, NodeRow, Roots, SavedSession, ShareRow};
use crate::staging::StagingFile;
use crate::subject::{AttemptId, LocalId, Subject};
use crate::tx::Tx;

pub(crate) fn unbuilt<T>() -> Result<T, StoreError> {
    Err(StoreError::Damaged {
        what: "an unfinished program",
    })
}

/// Where the store lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatePaths {
    pub state_dir: PathBuf,
    pub cache_dir: PathBuf,
}

/// 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u8);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    pub cache_size: u64,
    pub cache_min_free: Percent,
    pub cache_on: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            cache_size: 10 << 30,
            cache_min_free: Percent(5),
            cache_on: true,
        }
    }
}

/// Proof that everything committed before it was made is on stable storage.
#[derive(Debug)]
pub struct Persisted(());

/// Whether the local disk has room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    Ample,
    Low,
}

#[derive(Debug)]
pub struct Store {
    cache: BlobCache,
}

impl Store {
    pub fn open(
        paths: &StatePaths,
        holder: &LockHolder,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        unbuilt()
    }
    pub fn session(&self) -> Result<Option<SavedSession>, StoreError> {
        unbuilt()
    }
    pub fn save_session(&self, session: &SavedSession) -> Result<(), StoreError> {
        unbuilt()
    }
    pub fn clear_session(&self) -> Result<(), StoreError> {
        unbuilt()
    }
    pub fn pin(&self, user: &str, api_origin: &str) -> Result<(), StoreError> {
        unbuilt()
    }
    pub fn seqno(&self) -> Result<Option<Seqno>, StoreError> {
        unbuilt()
    }
    pub fn roots(&self) -> Result<Option<Roots>, StoreError> {
        unbuilt()
    }
    pub fn node(&self, handle: NodeHandle) -> Result<Option<NodeRow>, StoreError> {
        unbuilt()
    }
    pub fn children(&self, handle: NodeHandle) -> Result<Vec<NodeRow>, StoreError> {
        unbuilt()
    }
    pub fn has_children(&self, handle: NodeHandle) -> Result<bool, StoreError> {
        unbuilt()
    }
    pub fn shares(&self) -> Result<Vec<ShareRow>, StoreError> {
        unbuilt()
    }
    /// Nodes whose key as served contains `part`. Reads the whole table: for recovery only.
    pub fn find_by_key(&self, part: &str) -> Result<Vec<NodeRow>, StoreError> {
        unbuilt()
    }
    pub fn meta(&self, name: &str) -> Result<Option<String>, StoreError> {
        unbuilt()
    }
    pub fn begin_load(&self) -> Result<TreeLoader, StoreError> {
        unbuilt()
    }
    pub fn write<T>(
        &self,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        unbuilt()
    }
    pub fn next_local_id(&self) -> Result<LocalId, StoreError> {
        unbuilt()
    }
    pub fn next_attempt_id(&self) -> Result<AttemptId, StoreError> {
        unbuilt()
    }
    pub fn changes(&self) -> Result<Vec<ChangeRow>, StoreError> {
        unbuilt()
    }
    pub fn change(&self, subject: Subject) -> Result<Option<ChangeRow>, StoreError> {
        unbuilt()
    }
    pub fn attempts(&self) -> Result<Vec<AttemptRow>, StoreError> {
        unbuilt()
    }
    pub fn doomed(&self) -> Result<Vec<NodeHandle>, StoreError> {
        unbuilt()
    }
    pub fn unsynced_after_power_loss(&self) -> Result<Vec<Subject>, StoreError> {
        unbuilt()
    }
    pub fn new_layer(&self, floor: u64) -> StagingFile {
        StagingFile::new(floor)
    }
    pub fn open_layer(&self, row: &LayerRow) -> Result<StagingFile, StoreError> {
        unbuilt()
    }
    pub fn sync(&self) -> Result<Persisted, StoreError> {
        unbuilt()
    }
    pub fn poisoned(&self) -> Option<String> {
        None
    }
    pub fn space(&self) -> Space {
        Space::Ample
    }
    pub fn cache(&self) -> &BlobCache {
        &self.cache
    }
}
