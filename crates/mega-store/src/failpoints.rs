//! Named points at which a test ends the process: the places between two steps that a crash could
//! fall between.
//!
//! Owns the list of points. Promises that a store nobody armed is not affected: a point then costs one
//! relaxed load, and none lies on the way of a read or a write of bytes. Never armed by the program;
//! the only callers of [`FailPoints::arm`] and [`FailPoints::hold`] are tests.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// A step that was just done, or is about to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailPoint {
    /// A transaction is about to begin: what it would say is not known to the store.
    BeforeCommit,
    /// A transaction was committed; memory does not know yet, nobody was told.
    Committed,
    /// An upload froze the layers it is going to send.
    Sealed,
    /// The server acknowledged a piece of an upload.
    PieceStored,
    /// The token is here; the journal does not know.
    Uploaded,
    /// What a request is going to put is in the journal; nothing was sent.
    Journalled,
    /// The server did it; nothing of that is known to the store.
    Answered,
    /// The node and the change row are in line; the staged bytes are still there.
    Confirmed,
    /// A staging file was removed.
    StagingDropped,
}

impl FailPoint {
    /// All points, in the order in which a new file passes them.
    pub const ALL: [Self; 9] = [
        Self::BeforeCommit,
        Self::Committed,
        Self::Sealed,
        Self::PieceStored,
        Self::Uploaded,
        Self::Journalled,
        Self::Answered,
        Self::Confirmed,
        Self::StagingDropped,
    ];
}

/// The points of one store.
#[derive(Debug, Default)]
pub struct FailPoints {
    /// Whether any of the below is set; all that is looked at otherwise.
    is_armed: AtomicBool,
    /// Point (as its place in the list, plus one) and how many more times it may be passed.
    point: AtomicU32,
    left: AtomicU64,
    is_held: AtomicBool,
}

impl FailPoints {
    /// Ends the process, without any clean-up, when `point` is reached for the `nth` time (1 is the
    /// next).
    pub fn arm(&self, point: FailPoint, nth: u64) {
        self.point.store(point as u32 + 1, Ordering::SeqCst);
        self.left.store(nth.max(1), Ordering::SeqCst);
        self.is_armed.store(true, Ordering::SeqCst);
    }

    /// How many more times the armed point has to be reached; 0 when nothing is armed.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left.load(Ordering::SeqCst)
    }

    /// Keeps changes from being pushed (`true`), or lets them go again.
    pub fn hold(&self, on: bool) {
        self.is_held.store(on, Ordering::SeqCst);
    }

    /// Whether changes are kept from being pushed.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Relaxed)
    }

    /// The caller is at `point`. Does not return when that is where the process is to end.
    pub fn reach(&self, point: FailPoint) {
        if self.is_armed.load(Ordering::Relaxed) {
            self.count(point);
        }
    }

    #[cold]
    fn count(&self, point: FailPoint) {
        if self.point.load(Ordering::SeqCst) != point as u32 + 1 {
            return;
        }
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::process::abort();
        }
    }
}
