//! Taking content of a blob away, all of it or some, and giving it content that is on the disk already.
//!
//! The row stops claiming units before their bytes go (I3).

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::Connection;

use super::Blob;
use crate::cache::{UNIT, on_disk, recovery, table};
use crate::db::lock;
use crate::error::StoreError;
use crate::range_set::RangeSet;

/// Units around the place last used that [`Blob::trim`] leaves alone: 8 MiB to each side.
const NEAR: u64 = 64;

impl Blob {
    /// Throws everything out: the content was wrong or is not needed.
    ///
    /// # Errors
    /// If the database or the file cannot be written.
    pub fn drop_content(&self) -> Result<(), StoreError> {
        lock(&self.macs).clear();
        self.verified.store(false, Ordering::Release);
        self.vouched.store(false, Ordering::Release);
        if let Some(memory) = &self.shared.memory {
            lock(memory).remove(self.handle, self.units.units());
            return Ok(());
        }
        let Some(me) = self.me.upgrade() else {
            return Ok(());
        };
        self.shared.clear(&[me]).map(|_| ())
    }

    /// First half of taking everything away: the row claims nothing from here on.
    pub(in crate::cache) fn begin_clear(&self, db: &Connection) -> Result<(), StoreError> {
        self.epoch.store(self.shared.new_epoch(), Ordering::Release);
        let mut row = self.row(true);
        (row.units, row.bytes, row.verified) = (RangeSet::new(), 0, false);
        table::put(db, &row)?;
        self.registered.store(true, Ordering::Release);
        Ok(())
    }

    /// Second half: bits and file go. The disk space that came back.
    pub(in crate::cache) fn finish_clear(&self) -> Result<u64, StoreError> {
        let _alone = self.disk_alone();
        let gone = self.units.snapshot();
        for unit in gone.iter().flatten() {
            self.units.clear(unit);
        }
        self.verified.store(false, Ordering::Release);
        self.vouched.store(false, Ordering::Release);
        self.shared.unlink(self.handle)?;
        let bytes = self.bytes_of(&gone);
        self.shared.budget.give_back(bytes);
        Ok(bytes)
    }

    /// Marks that content is going; the row is not written from the bits meanwhile.
    pub(in crate::cache) fn set_clearing(&self, clearing: bool) {
        self.clearing.store(clearing, Ordering::Release);
        if !clearing {
            self.changed.store(true, Ordering::Release);
            self.keep_unsettled();
        }
    }

    /// Gives back about `bytes` from the front of a blob that is in use, away from where it is being
    /// read: a file larger than the cache streams through it.
    pub(in crate::cache) fn trim(&self, bytes: u64) -> Result<u64, StoreError> {
        let near = self.near.load(Ordering::Relaxed);
        let keep = near.saturating_sub(NEAR)..near.saturating_add(NEAR);
        let mut gone = RangeSet::new();
        let mut freed = 0;
        let present = self.units.snapshot();
        for unit in present.iter().flatten().filter(|unit| !keep.contains(unit)) {
            if freed >= bytes {
                break;
            }
            gone.insert(unit..unit + 1);
            freed += on_disk(self.unit_length(unit));
        }
        if gone.is_empty() {
            return Ok(0);
        }
        self.set_clearing(true);
        let done = self.take_away(&gone);
        self.set_clearing(false);
        done
    }

    fn take_away(&self, gone: &RangeSet) -> Result<u64, StoreError> {
        self.shared.db.write(|db| {
            self.epoch.store(self.shared.new_epoch(), Ordering::Release);
            let mut row = self.row(true);
            gone.iter().for_each(|run| row.units.remove(run));
            (row.bytes, row.verified) = (self.bytes_of(&row.units), false);
            table::put(db, &row)?;
            self.registered.store(true, Ordering::Release);
            Ok(())
        })?;
        let _alone = self.disk_alone();
        let fail = |source| StoreError::io(&self.shared.path(self.handle), source);
        let file = self.existing().map_err(fail)?;
        self.verified.store(false, Ordering::Release);
        self.vouched.store(false, Ordering::Release);
        let mut freed = 0;
        for run in gone.iter() {
            let cleared: u64 = run
                .clone()
                .filter(|unit| self.units.clear(*unit))
                .map(|unit| on_disk(self.unit_length(unit)))
                .sum();
            recovery::punch(&file, run.start * UNIT..run.end * UNIT).map_err(fail)?;
            freed += cleared;
        }
        self.shared.budget.give_back(freed);
        Ok(freed)
    }

    /// Takes over a file that holds these units, if the blob is empty. Whether it did.
    pub(in crate::cache) fn take_over(
        &self,
        file: Arc<File>,
        from: &Path,
        units: &RangeSet,
    ) -> Result<bool, StoreError> {
        if self.shared.memory.is_some() || !self.register()? {
            return Ok(false);
        }
        let _alone = self.disk_alone();
        if !self.units.is_empty() || !self.registered.load(Ordering::Acquire) {
            return Ok(false);
        }
        let path = self.shared.path(self.handle);
        let fail = |source| StoreError::io(&path, source);
        path.parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .map_err(fail)?;
        std::fs::rename(from, &path).map_err(fail)?;
        self.shared.open_files.put(self.handle, file);
        for unit in units.iter().flatten() {
            self.units.set(unit);
        }
        self.changed.store(true, Ordering::Release);
        Ok(true)
    }
}
