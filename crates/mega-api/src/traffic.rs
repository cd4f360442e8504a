//! Counts what goes to the service and what comes from it, for whoever watches. Nothing depends on it.

use std::sync::atomic::{AtomicU64, Ordering};

/// What was said and moved since the client was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Requests to the API, repetitions and waiting for events among them.
    pub requests: u64,
    /// Of those, the ones without an answer, or with one that was no answer.
    pub failed: u64,
    /// Bytes of content that storage servers took; what was sent twice counts twice.
    pub uploaded: u64,
    /// Bytes of content that came from storage servers.
    pub downloaded: u64,
}

/// The counters of an [`Api`](crate::Api).
#[derive(Debug, Default)]
pub(crate) struct Counters {
    requests: AtomicU64,
    failed: AtomicU64,
    uploaded: AtomicU64,
    downloaded: AtomicU64,
}

impl Counters {
    pub(crate) fn requested(&self, is_answered: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.failed
            .fetch_add(u64::from(!is_answered), Ordering::Relaxed);
    }

    pub(crate) fn uploaded(&self, bytes: u64) {
        self.uploaded.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn downloaded(&self, bytes: u64) {
        self.downloaded.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn so_far(&self) -> Traffic {
        Traffic {
            requests: self.requests.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            uploaded: self.uploaded.load(Ordering::Relaxed),
            downloaded: self.downloaded.load(Ordering::Relaxed),
        }
    }
}
