//! A file that holds disk space back, so that a full disk does not stop the queue that would free it.
//!
//! States: *ample* (the file is there) -> *low* (the disk was full, the file is gone: what remains is
//! for the database, so that uploads can finish and their staging be freed; new user bytes are
//! refused) -> *ample* again once twice the reserve is free.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::durable::{private_file, remove_if_there};
use crate::error::StoreError;

/// Enough for the database to record the end of many uploads.
const RESERVE: u64 = 8 << 20;

/// The file and its state.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    low: AtomicBool,
}

impl Reserve {
    /// Makes the reserve if there is room. Never fails: a small disk simply starts low.
    pub(crate) fn open(path: PathBuf) -> Self {
        let reserve = Self {
            path,
            low: AtomicBool::new(true),
        };
        reserve.refill();
        reserve
    }

    /// Whether the disk was full and has not recovered.
    pub(crate) fn is_low(&self) -> bool {
        self.low.load(Ordering::Acquire)
    }

    /// The disk is full: gives the space back to the file system.
    pub(crate) fn release(&self) {
        if !self.low.swap(true, Ordering::AcqRel) {
            tracing::warn!("the local disk is full; new bytes are refused until there is room");
        }
        let _ = remove_if_there(&self.path);
    }

    /// Makes the reserve again once there is room for it and as much again.
    pub(crate) fn refill(&self) {
        if !self.is_low() {
            return;
        }
        let free = self.path.parent().and_then(free_bytes).unwrap_or(0);
        if free < 2 * RESERVE {
            return;
        }
        let made = private_file()
            .create(true)
            .truncate(false)
            .open(&self.path)
            .is_ok_and(|file| {
                match fallocate(&file, FallocateFlags::empty(), 0, RESERVE) {
                    Ok(()) => true,
                    // No such call on this file system: an empty reserve, but not a low disk.
                    Err(errno) => errno == rustix::io::Errno::OPNOTSUPP,
                }
            });
        self.low.store(!made, Ordering::Release);
        if !made {
            let _ = remove_if_there(&self.path);
        }
    }

    /// Refuses while low.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if self.is_low() {
            Err(StoreError::DiskFull)
        } else {
            Ok(())
        }
    }
}

/// What an unprivileged user can still write on the file system of `dir`, in bytes.
pub(crate) fn free_bytes(dir: &Path) -> Option<u64> {
    let stat = statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}
