//! Which bytes go when others need the room.
//!
//! First whole blobs nobody has open, least recently used first; then, if that is not enough, parts
//! of blobs in use (a file larger than the cache). Pinned blobs never. The order for each: the row
//! stops claiming the bytes, then the bytes go.

use std::sync::Arc;

use mega_proto::NodeHandle;

use super::blob::Blob;
use super::budget::Claim;
use super::{Shared, table};
use crate::db::lock;
use crate::error::StoreError;

/// Blobs cleared in one transaction, and looked at in one read.
const BATCH: u32 = 64;
/// Rows looked at before giving up on finding idle blobs.
const LOOK: u32 = 4096;
/// Room made beyond what is needed, so that evictions come seldom: a part of the bound, at most this.
const EXTRA: u64 = 64 << 20;

impl Shared {
    /// Claims room for a write, evicting what must go. `None`: there is none to be had.
    pub(super) fn make_room_for(self: &Arc<Self>, bytes: u64) -> Option<Claim<'_>> {
        if let Some(claim) = self.budget.claim(bytes) {
            return Some(claim);
        }
        if bytes > self.budget.limit() {
            return None;
        }
        let _turn = lock(&self.evicting);
        for _ in 0..3 {
            // Somebody else may have made room while this thread waited.
            if let Some(claim) = self.budget.claim(bytes) {
                return Some(claim);
            }
            let extra = (self.budget.limit() / 32).min(EXTRA);
            if self.evict_now(bytes + extra) == 0 {
                break;
            }
        }
        self.budget.claim(bytes)
    }

    /// Evicts about `bytes`; says how many went.
    pub(super) fn evict(self: &Arc<Self>, bytes: u64) -> u64 {
        let _turn = lock(&self.evicting);
        self.evict_now(bytes)
    }

    fn evict_now(self: &Arc<Self>, bytes: u64) -> u64 {
        let outcome = self.evict_idle(bytes).and_then(|freed| {
            if freed > 0 {
                Ok(freed)
            } else {
                self.trim_used(bytes)
            }
        });
        outcome.unwrap_or_else(|error| {
            tracing::warn!(%error, "no room could be made in the cache");
            0
        })
    }

    fn evict_idle(self: &Arc<Self>, bytes: u64) -> Result<u64, StoreError> {
        // Blobs that were just written must be found too. A full disk has given its reserve back by
        // the second attempt.
        match self.flush() {
            Err(StoreError::DiskFull) => self.flush()?,
            other => other?,
        }
        let (mut freed, mut skip) = (0, 0);
        while freed < bytes && skip < LOOK {
            let oldest = self.db.read(|db| table::oldest(db, skip, BATCH))?;
            let is_last = oldest.len() < BATCH as usize;
            let (mut victims, mut expected) = (Vec::new(), 0);
            for (handle, size) in oldest {
                if freed + expected >= bytes {
                    break;
                }
                if let Some(blob) = self.idle(handle, size)? {
                    expected += blob.bytes();
                    victims.push(blob);
                } else {
                    skip += 1;
                }
            }
            // Rows of cleared blobs hold no bytes, so the next read does not meet them again.
            freed += self.clear(&victims)?;
            if is_last {
                break;
            }
        }
        Ok(freed)
    }

    /// The blob, if nobody else has it and nothing pins it.
    fn idle(
        self: &Arc<Self>,
        handle: NodeHandle,
        size: u64,
    ) -> Result<Option<Arc<Blob>>, StoreError> {
        if let Some(blob) = self.live(handle) {
            let table = lock(&self.table);
            let own = table.own_references(handle) + 1;
            let is_idle = Arc::strong_count(&blob) <= own && !blob.is_pinned();
            drop(table);
            return Ok(is_idle.then_some(blob));
        }
        self.open(handle, size).map(Some)
    }

    /// Takes all content of these blobs away. The bytes that went.
    pub(super) fn clear(&self, blobs: &[Arc<Blob>]) -> Result<u64, StoreError> {
        if blobs.is_empty() {
            return Ok(0);
        }
        blobs.iter().for_each(|blob| blob.set_clearing(true));
        let begin = || {
            self.db
                .write(|db| blobs.iter().try_for_each(|blob| blob.begin_clear(db)))
        };
        // A full disk has just given its reserve back: once more.
        let begun = match begin() {
            Err(StoreError::DiskFull) => begin(),
            other => other,
        };
        let mut freed = 0;
        let mut outcome = begun;
        if outcome.is_ok() {
            for blob in blobs {
                match blob.finish_clear() {
                    Ok(bytes) => freed += bytes,
                    Err(error) => outcome = Err(error),
                }
            }
        }
        for blob in blobs {
            if outcome.is_err() {
                blob.unregister();
            }
            blob.set_clearing(false);
        }
        outcome.map(|()| freed)
    }

    fn trim_used(&self, bytes: u64) -> Result<u64, StoreError> {
        let mut used: Vec<Arc<Blob>> = {
            let table = lock(&self.table);
            table
                .live
                .values()
                .filter_map(std::sync::Weak::upgrade)
                .collect()
        };
        used.retain(|blob| !blob.is_pinned());
        used.sort_by_key(|blob| blob.last_use());
        let mut freed = 0;
        for blob in used {
            if freed >= bytes {
                break;
            }
            freed += blob.trim(bytes - freed)?;
        }
        Ok(freed)
    }

    pub(super) fn forget(self: &Arc<Self>, handle: NodeHandle) -> Result<(), StoreError> {
        if self.memory.is_some() {
            return Ok(());
        }
        let Some(row) = self.db.read(|db| table::load(db, handle))? else {
            return Ok(());
        };
        let _turn = lock(&self.evicting);
        match self.idle(handle, row.size)? {
            Some(blob) => self.clear(&[blob]).map(|_| ()),
            None => Ok(()),
        }
    }
}
