//! The directory `staging/` and what all its files share.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::cache::BlobCache;
use crate::db::{Db, lock};
use crate::durable;
use crate::error::StoreError;
use crate::open_files::OpenFiles;
use crate::subject::StagingId;
use crate::vault::Vault;

/// How much clean cache is thrown out when staging meets a full disk.
const ROOM: u64 = 64 << 20;

/// Shared by all staging files.
#[derive(Debug)]
pub(crate) struct StagingDir {
    path: PathBuf,
    pub(crate) db: Arc<Db>,
    pub(crate) vault: Arc<Vault>,
    cache: BlobCache,
    pub(super) open_files: OpenFiles<StagingId>,
    /// Files created so far, and how many of them have a durable directory entry. What an earlier run
    /// left counts as one, whose entry is in doubt: a kill -9 may have come before the fsync.
    created: AtomicU64,
    durable: Mutex<u64>,
}

impl StagingDir {
    pub(crate) fn new(path: PathBuf, db: Arc<Db>, vault: Arc<Vault>, cache: BlobCache) -> Self {
        let (created, durable) = (AtomicU64::new(1), Mutex::new(0));
        Self {
            path,
            db,
            vault,
            cache,
            open_files: OpenFiles::new(),
            created,
            durable,
        }
    }

    pub(crate) fn file(&self, id: StagingId) -> PathBuf {
        self.path.join(file_name(id))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses while the store is poisoned or the disk is full.
    pub(crate) fn check_writable(&self) -> Result<(), StoreError> {
        self.db.poison.check()?;
        self.db.reserve.check()
    }

    /// A new file's place in the order of creation, for [`sync_entry`](Self::sync_entry).
    pub(crate) fn note_created(&self) -> u64 {
        self.created.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The place of a file that is there already: before any that is made later.
    pub(crate) fn last_created(&self) -> u64 {
        self.created.load(Ordering::Acquire)
    }

    /// Makes the directory entry of the file with this number durable; one fsync serves all files
    /// that were created before it.
    pub(crate) fn sync_entry(&self, number: u64) -> std::io::Result<()> {
        let mut durable = lock(&self.durable);
        if *durable < number {
            let covered = self.created.load(Ordering::Acquire);
            durable::sync_dir(&self.path)?;
            *durable = covered;
        }
        Ok(())
    }

    /// The disk is full: clean cache goes before the user's writes are refused. Whether any went.
    pub(crate) fn make_room(&self) -> bool {
        let made = self.cache.give_up(ROOM);
        if made {
            self.db.reserve.refill();
        }
        made
    }
}

/// The name of a staging file.
pub(crate) fn file_name(id: StagingId) -> String {
    format!("{:016x}", id.0)
}

/// The inverse of [`file_name`].
pub(crate) fn id_of(name: &str) -> Option<StagingId> {
    let is_ours = name.len() == 16
        && name
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_ours
        .then(|| u64::from_str_radix(name, 16).ok().map(StagingId))
        .flatten()
}
