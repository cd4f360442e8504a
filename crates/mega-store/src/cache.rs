//! What the server gave: ciphertext by node, in sparse files, bounded, safe against `kill -9`.
//!
//! A blob is one node's content, cut into units of [`UNIT`] bytes. A unit is present when its bit is
//! set; bits are set after the bytes are written, reach the database in batches
//! ([`BlobCache::flush_maps`]) and leave it before the bytes do. So the recorded map may lack units
//! and never has too many (I3).
//!
//! *Active* rows: before the first write to a blob its row says `active`, so that after a crash the
//! few files that may hold more than their map are known and cut back; the bound then holds again.
//! Once a blob has been idle for a flush its row is *settled* (not active).
//!
//! *Power cuts*: [`BlobCache::sync`] records which units were on stable storage. When the boot id has
//! changed only those are believed, and only where the file really has data.
//!
//! The bound is enforced before each write; what does not fit and cannot be made to fit is not kept,
//! and the write says so. Pinned blobs (something dirty lies over them) are never evicted.
//!
//! Lock order: `evicting`, `loading`, the database's writer, `table`, a blob's own locks. Nothing here
//! may be called from inside a write transaction of the store.

mod blob;
mod budget;
mod eviction;
mod memory;
mod pending;
mod recovery;
mod table;
mod unit_map;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use lru::LruCache;
use mega_proto::NodeHandle;

pub use blob::{Blob, BlobPin};
pub use pending::{DIRECT_ALIGNMENT, DIRECT_FROM, PendingBlob};
pub(crate) use recovery::{after_crash, after_power_loss};

use crate::db::{Db, lock};
use crate::durable;
use crate::error::StoreError;
use crate::open_files::OpenFiles;
use budget::Budget;
use memory::MemoryUnits;

/// Bytes of one unit: 128 KiB, what the kernel reads at once and the first chunk's size.
pub const UNIT: u64 = 128 << 10;

/// Blobs kept open after their last user, so that a file read again costs no look-up.
const RECENT: usize = 64;

/// The cache. Cheap to clone; all clones are the same cache.
#[derive(Debug, Clone)]
pub struct BlobCache {
    shared: Arc<Shared>,
}

/// How the cache is configured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CacheOptions {
    pub(crate) limit: u64,
    pub(crate) min_free: u8,
    pub(crate) on: bool,
}

#[derive(Debug)]
struct Shared {
    db: Arc<Db>,
    dir: PathBuf,
    /// Most bytes on disk.
    limit: u64,
    budget: Budget,
    /// `Some`: the cache is off.
    memory: Option<Mutex<MemoryUnits>>,
    table: Mutex<Table>,
    /// One eviction at a time.
    evicting: Mutex<()>,
    /// One blob is brought to memory at a time, so that there is never a second object for it.
    loading: Mutex<()>,
    next_epoch: AtomicU64,
    open_files: OpenFiles<NodeHandle>,
    open_pending: OpenFiles<u64>,
    /// The store is gone; blobs that somebody still has keep nothing any more.
    closed: AtomicBool,
}

/// Blobs in memory.
#[derive(Debug)]
struct Table {
    /// Every blob somebody has.
    live: HashMap<NodeHandle, Weak<Blob>>,
    /// The last ones used.
    recent: LruCache<NodeHandle, Arc<Blob>>,
    /// Those whose row is behind or active.
    unsettled: HashMap<NodeHandle, Arc<Blob>>,
}

impl Table {
    /// References that are the cache's own.
    fn own_references(&self, handle: NodeHandle) -> usize {
        usize::from(self.recent.contains(&handle))
            + usize::from(self.unsettled.contains_key(&handle))
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Disk space of a unit of this length.
const fn on_disk(length: u64) -> u64 {
    length.next_multiple_of(4096)
}

fn blob_path(dir: &Path, handle: NodeHandle) -> PathBuf {
    let [.., last] = handle.0;
    dir.join(format!("{last:02x}")).join(handle.to_string())
}

impl Shared {
    fn path(&self, handle: NodeHandle) -> PathBuf {
        blob_path(&self.dir, handle)
    }

    fn new_epoch(&self) -> u64 {
        self.next_epoch.fetch_add(1, Ordering::Relaxed)
    }

    fn live(&self, handle: NodeHandle) -> Option<Arc<Blob>> {
        lock(&self.table).live.get(&handle).and_then(Weak::upgrade)
    }

    fn open(self: &Arc<Self>, handle: NodeHandle, size: u64) -> Result<Arc<Blob>, StoreError> {
        let _turn = match self.live(handle) {
            Some(blob) => return blob.of_size(size),
            None => lock(&self.loading),
        };
        if let Some(blob) = self.live(handle) {
            return blob.of_size(size);
        }
        let made = Blob::load(Arc::clone(self), handle, size)?;
        let mut table = lock(&self.table);
        table.live.insert(handle, Arc::downgrade(&made));
        let pushed_out = table.recent.push(handle, Arc::clone(&made));
        drop(table);
        // Not under the lock: it may be the last reference.
        drop(pushed_out);
        Ok(made)
    }
}

impl BlobCache {
    pub(crate) fn new(dir: &Path, db: Arc<Db>, options: CacheOptions) -> Result<Self, StoreError> {
        let used = db.read(table::total)?;
        let limit = options.limit;
        let shared = Shared {
            budget: Budget::new(dir.to_path_buf(), limit, options.min_free, used),
            dir: dir.to_path_buf(),
            limit,
            memory: (!options.on).then(|| Mutex::new(MemoryUnits::new())),
            table: Mutex::new(Table {
                live: HashMap::new(),
                recent: LruCache::new(NonZeroUsize::new(RECENT).unwrap_or(NonZeroUsize::MIN)),
                unsettled: HashMap::new(),
            }),
            evicting: Mutex::new(()),
            loading: Mutex::new(()),
            // Above every epoch of earlier runs, as long as the clock moves forward at all.
            next_epoch: AtomicU64::new(now_ms() << 20),
            open_files: OpenFiles::new(),
            open_pending: OpenFiles::new(),
            closed: AtomicBool::new(false),
            db,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// The blob of a node whose content has `size` bytes. The same object for everybody.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn open(&self, handle: NodeHandle, size: u64) -> Result<Arc<Blob>, StoreError> {
        self.shared.open(handle, size)
    }

    /// A place for ciphertext whose node does not exist yet (an upload in progress).
    ///
    /// # Errors
    /// If no random name can be made.
    pub fn begin_adopt(&self, size: u64) -> Result<PendingBlob, StoreError> {
        PendingBlob::begin(Arc::clone(&self.shared), size)
    }

    /// The upload's node exists: what was written becomes its blob. Content the cache already has
    /// for it wins.
    ///
    /// # Errors
    /// If the database or the file cannot be written; the ciphertext is then dropped.
    pub fn adopt(&self, pending: PendingBlob, handle: NodeHandle) -> Result<Arc<Blob>, StoreError> {
        pending.adopt(handle)
    }

    /// Most bytes the cache may have on disk: reading ahead further than this is in vain.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.shared.limit
    }

    /// Disk space in use (memory, with the cache off), in bytes.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        match &self.shared.memory {
            Some(memory) => lock(memory).bytes() as u64,
            None => self.shared.budget.used(),
        }
    }

    /// Records the units that came since the last call and keeps the database's log short; the owner
    /// calls it about once a second from a thread that may wait for the disk.
    ///
    /// # Errors
    /// If the database cannot be written; the units are recorded by a later call.
    pub fn flush_maps(&self) -> Result<(), StoreError> {
        self.shared.flush()?;
        self.shared.db.maintain()
    }

    /// Brings the cache to stable storage and records what is there, so that it survives a power cut.
    /// Waits for the whole file system (`syncfs`): call it every few minutes and at the end.
    ///
    /// # Errors
    /// If the database cannot be written. A failed `syncfs` only means that nothing is recorded.
    pub fn sync(&self) -> Result<(), StoreError> {
        let shared = &self.shared;
        if shared.memory.is_some() {
            return Ok(());
        }
        shared.flush()?;
        let rows = shared.db.read(table::unsynced)?;
        if rows.is_empty() {
            return Ok(());
        }
        let synced = std::fs::File::open(&shared.dir)
            .and_then(|dir| rustix::fs::syncfs(dir).map_err(Into::into));
        if let Err(error) = synced {
            tracing::warn!(%error, "the cache could not be synced");
            return Ok(());
        }
        shared.db.write(|db| {
            rows.iter()
                .try_for_each(|(row, _)| table::mark_synced(db, row))
        })
    }

    /// The node is gone for good: its blob goes too, unless somebody uses it.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn forget(&self, handle: NodeHandle) -> Result<(), StoreError> {
        self.shared.forget(handle)
    }

    /// Throws out about `bytes` of clean cache because the disk is needed. Whether any went.
    pub(crate) fn give_up(&self, bytes: u64) -> bool {
        self.shared.memory.is_none() && self.shared.evict(bytes) > 0
    }

    /// Records everything and lets go of all blobs; the cache is not used afterwards.
    pub(crate) fn close(&self) {
        for _ in 0..2 {
            if let Err(error) = self.shared.flush() {
                tracing::warn!(%error, "the cache's last units were not recorded");
            }
        }
        self.shared.closed.store(true, Ordering::Release);
        let mut table = lock(&self.shared.table);
        let (recent, unsettled) = (
            std::mem::replace(&mut table.recent, LruCache::new(NonZeroUsize::MIN)),
            std::mem::take(&mut table.unsettled),
        );
        drop(table);
        drop((recent, unsettled));
    }
}

impl Shared {
    /// Writes the rows of unsettled blobs; those that were idle since the last time are settled.
    fn flush(&self) -> Result<(), StoreError> {
        let unsettled: Vec<Arc<Blob>> = lock(&self.table).unsettled.values().cloned().collect();
        if unsettled.is_empty() {
            lock(&self.table)
                .live
                .retain(|_, blob| blob.strong_count() > 0);
            return Ok(());
        }
        let mut settled = Vec::new();
        // Short transactions: writers of names wait for these.
        for some in unsettled.chunks(128) {
            let outcome = self.db.write(|db| {
                for blob in some {
                    if blob.record(db)? == blob::Recorded::Settled {
                        settled.push(blob.handle());
                    }
                }
                Ok(())
            });
            if outcome.is_err() {
                some.iter().for_each(|blob| blob.mark_behind());
                return outcome;
            }
        }
        let mut table = lock(&self.table);
        let mut dropped = Vec::new();
        for handle in settled {
            // Registered again meanwhile: it stays.
            if table
                .unsettled
                .get(&handle)
                .is_some_and(|blob| blob.is_settled())
            {
                dropped.push(table.unsettled.remove(&handle));
            }
        }
        table.live.retain(|_, blob| blob.strong_count() > 0);
        drop(table);
        drop(dropped);
        Ok(())
    }

    /// Removes a file of a blob.
    fn unlink(&self, handle: NodeHandle) -> Result<(), StoreError> {
        self.open_files.take(&handle);
        durable::remove_if_there(&self.path(handle))
    }
}

#[cfg(test)]
mod tests;
