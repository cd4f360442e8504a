//! How far an upload is, for whoever shows it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Counters of one upload; written by the pipeline, read by anybody.
#[derive(Debug, Default)]
pub struct UploadProgress {
    total: AtomicU64,
    acknowledged: AtomicU64,
    restarts: AtomicU32,
}

impl UploadProgress {
    /// Counters at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes to upload; 0 before the upload began.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Bytes the server has acknowledged in the present attempt.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// How often the upload was lost and begun again with a new key.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Whole per cent acknowledged; an empty file is at 100 once begun.
    #[must_use]
    pub fn percent(&self) -> u8 {
        let (done, total) = (self.acknowledged(), self.total());
        let percent = if total == 0 {
            100
        } else {
            u128::from(done) * 100 / u128::from(total)
        };
        u8::try_from(percent.min(100)).unwrap_or(100)
    }

    pub(crate) fn begin(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        self.acknowledged.store(0, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.acknowledged.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn finish(&self) {
        self.acknowledged.store(self.total(), Ordering::Relaxed);
    }

    pub(crate) fn restarted(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }
}
