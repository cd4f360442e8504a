//! How much the cache may still take: its own bound and what the disk must keep free.
//!
//! Bytes are claimed before they are written, so the bound holds at every moment.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use rustix::fs::statvfs;

/// Bytes written between two looks at the file system; also how far others' writes go unnoticed.
const LOOK_EVERY: i64 = 32 << 20;

/// The count of bytes in use against both bounds.
#[derive(Debug)]
pub(super) struct Budget {
    dir: PathBuf,
    limit: u64,
    /// Per cent of the file system that stay free.
    min_free: u64,
    used: AtomicU64,
    /// What may be written before the file system is asked again.
    unasked: AtomicI64,
}

/// A successful claim; undone when dropped before [`keep`](Claim::keep).
#[derive(Debug)]
pub(super) struct Claim<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Claim<'_> {
    /// The bytes are on disk and counted from now on.
    pub(super) fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

impl Budget {
    pub(super) fn new(dir: PathBuf, limit: u64, min_free: u8, used: u64) -> Self {
        let (used, unasked) = (AtomicU64::new(used), AtomicI64::new(0));
        Self {
            dir,
            limit,
            min_free: u64::from(min_free.min(100)),
            used,
            unasked,
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    pub(super) const fn limit(&self) -> u64 {
        self.limit
    }

    /// Claims `bytes`, or says that something has to go first.
    pub(super) fn claim(&self, bytes: u64) -> Option<Claim<'_>> {
        let fits = |used: u64| used.checked_add(bytes).filter(|after| *after <= self.limit);
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, fits)
            .ok()?;
        let claim = Claim {
            budget: self,
            bytes,
        };
        self.has_free(bytes).then_some(claim)
    }

    pub(super) fn give_back(&self, bytes: u64) {
        let less = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        // Whoever waits for free disk looks again.
        if bytes > 0 {
            self.unasked.store(0, Ordering::Relaxed);
        }
    }

    /// Adds bytes that are there already.
    pub(super) fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    fn has_free(&self, bytes: u64) -> bool {
        let bytes = bytes.cast_signed();
        if self.unasked.fetch_sub(bytes, Ordering::AcqRel) >= bytes {
            return true;
        }
        // A file system that cannot be asked does not stop the cache.
        let Ok(stat) = statvfs(&self.dir) else {
            return true;
        };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let keep = stat.f_blocks.saturating_mul(stat.f_frsize) / 100 * self.min_free;
        let spare = i64::try_from(free.saturating_sub(keep)).unwrap_or(i64::MAX);
        if spare < bytes {
            return false;
        }
        self.unasked
            .store((spare - bytes).min(LOOK_EVERY), Ordering::Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_stop_at_the_bound_and_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let budget = Budget::new(dir.path().into(), 100, 0, 40);
        budget.claim(50).unwrap().keep();
        assert_eq!(budget.used(), 90);
        assert!(budget.claim(11).is_none());
        drop(budget.claim(10).unwrap());
        assert_eq!(budget.used(), 90);
        budget.give_back(90);
        assert!(budget.claim(100).is_some());
    }

    #[test]
    fn a_disk_that_must_stay_free_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let budget = Budget::new(dir.path().into(), 100, 100, 0);
        assert!(budget.claim(1).is_none());
        assert_eq!(budget.used(), 0);
    }
}
