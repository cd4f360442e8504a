//! Directories whose listing the kernel has whole and may show again.
//!
//! Owns the answer to "may this `opendir` be served from what the kernel kept?". Promises that it is yes only
//! while nothing was added to the directory, taken out or renamed since the listing was begun, and while the
//! attributes that came with the listing are still good: a kept listing brings none, and a look-up for each entry
//! is several times slower than a listing that does. Every change of a directory comes through
//! [`Listed::forget`], whoever made it and whether or not the directory is loaded.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;

/// Directories that are remembered at a time: some hundred bytes each.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1 << 16).unwrap();

#[derive(Debug)]
struct Listing {
    /// The handle that it was made through.
    fh: u64,
    /// When it was begun; the attributes in it are no older.
    begun: Instant,
    is_whole: bool,
}

/// See the module's description. Directories go by their inode number.
#[derive(Debug)]
pub(crate) struct Listed {
    by_ino: LruCache<u64, Listing>,
    /// How long a whole listing counts.
    lifetime: Duration,
}

impl Listed {
    /// `attr_ttl` is how long the kernel believes attributes.
    pub(crate) fn new(attr_ttl: Duration) -> Self {
        Self {
            by_ino: LruCache::new(REMEMBERED),
            // What is listed at the end of it is still looked at.
            lifetime: attr_ttl / 2,
        }
    }

    /// Whether the kernel has a listing that is true now and can be shown instead of a new one.
    pub(crate) fn is_kept(&mut self, ino: u64) -> bool {
        self.by_ino
            .get(&ino)
            .is_some_and(|listing| listing.is_whole && listing.begun.elapsed() < self.lifetime)
    }

    /// A listing is begun through `fh`; what the kernel has from before goes.
    pub(crate) fn begin(&mut self, ino: u64, fh: u64) {
        let listing = Listing {
            fh,
            begun: Instant::now(),
            is_whole: false,
        };
        self.by_ino.put(ino, listing);
    }

    /// The listing through `fh` has come to its end.
    pub(crate) fn complete(&mut self, ino: u64, fh: u64) {
        if let Some(listing) = self.by_ino.peek_mut(&ino)
            && listing.fh == fh
        {
            listing.is_whole = true;
        }
    }

    /// The directory is not what it was, or the kernel has lost what came with the listing, or never had it.
    pub(crate) fn forget(&mut self, ino: u64) {
        self.by_ino.pop(&ino);
    }

    /// Nothing is known about any directory.
    pub(crate) fn forget_all(&mut self) {
        self.by_ino.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn only_a_listing_that_was_read_to_its_end_is_kept() {
        let mut listed = Listed::new(LONG);
        listed.begin(7, 1);
        assert!(!listed.is_kept(7));
        listed.complete(7, 1);
        assert!(listed.is_kept(7));
        assert!(!listed.is_kept(8));
        listed.begin(7, 2);
        assert!(!listed.is_kept(7), "a new one");
        listed.complete(7, 1);
        assert!(!listed.is_kept(7), "another's end");
    }

    #[test]
    fn a_change_while_it_is_read_spoils_it() {
        let mut listed = Listed::new(LONG);
        listed.begin(7, 1);
        listed.forget(7);
        listed.complete(7, 1);
        assert!(!listed.is_kept(7));
        listed.begin(7, 2);
        listed.complete(7, 2);
        listed.forget_all();
        assert!(!listed.is_kept(7));
    }

    #[test]
    fn it_counts_for_as_long_as_its_attributes_are_believed() {
        let mut listed = Listed::new(Duration::ZERO);
        listed.begin(7, 1);
        listed.complete(7, 1);
        assert!(!listed.is_kept(7));
    }
}
