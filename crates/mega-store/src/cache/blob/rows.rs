//! What the database is told about a blob.

use std::sync::atomic::Ordering;

use rusqlite::Connection;

use super::Blob;
use crate::cache::table::{self, BlobRow};
use crate::db::lock;
use crate::error::StoreError;

/// What [`Blob::record`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cache) enum Recorded {
    Behind,
    Settled,
}

impl Blob {
    /// Says in the database that the file may get more units than the row has. `false`: the database
    /// takes no writes now.
    pub(in crate::cache) fn register(&self) -> Result<bool, StoreError> {
        if self.shared.closed.load(Ordering::Acquire) {
            return Ok(false);
        }
        if self.registered.load(Ordering::Acquire) {
            return Ok(true);
        }
        let done = self.shared.db.write(|db| {
            if self.clearing.load(Ordering::Acquire) {
                return Ok(false);
            }
            table::put(db, &self.row(true))?;
            self.registered.store(true, Ordering::Release);
            Ok(true)
        });
        match done {
            Ok(is_registered) => {
                self.keep_unsettled();
                Ok(is_registered)
            }
            Err(error) => {
                self.registered.store(false, Ordering::Release);
                match error {
                    StoreError::DiskFull | StoreError::Poisoned { .. } => Ok(false),
                    other => Err(other),
                }
            }
        }
    }

    pub(super) fn row(&self, active: bool) -> BlobRow {
        let units = self.units.snapshot();
        BlobRow {
            handle: self.handle,
            size: self.size,
            bytes: self.bytes_of(&units),
            units,
            macs: lock(&self.macs).clone(),
            verified: self.is_verified(),
            active,
            doubtful: false,
            epoch: self.epoch.load(Ordering::Acquire),
            last_use: self.last_use.load(Ordering::Relaxed),
        }
    }

    /// Writes the row. A blob without news since the last time is settled, an empty one forgotten.
    pub(in crate::cache) fn record(&self, db: &Connection) -> Result<Recorded, StoreError> {
        if self.clearing.load(Ordering::Acquire) {
            return Ok(Recorded::Behind);
        }
        self.recorded_use
            .store(self.last_use.load(Ordering::Relaxed), Ordering::Relaxed);
        if self.changed.swap(false, Ordering::AcqRel) {
            let active = self.registered.load(Ordering::Acquire);
            table::put(db, &self.row(active))?;
            return Ok(Recorded::Behind);
        }
        // Somebody is writing bytes: not idle.
        let Ok(_alone) = self.disk.try_write() else {
            return Ok(Recorded::Behind);
        };
        if self.changed.load(Ordering::Acquire) {
            return Ok(Recorded::Behind);
        }
        self.registered.store(false, Ordering::Release);
        if self.units.is_empty() && lock(&self.macs).is_empty() {
            table::delete(db, self.handle)?;
        } else {
            table::put(db, &self.row(false))?;
        }
        Ok(Recorded::Settled)
    }

    /// What [`record`](Self::record) wrote did not last.
    pub(in crate::cache) fn mark_behind(&self) {
        self.changed.store(true, Ordering::Release);
    }

    /// Nobody knows what the row says: it is written again before the next unit.
    pub(in crate::cache) fn unregister(&self) {
        self.registered.store(false, Ordering::Release);
    }
}
