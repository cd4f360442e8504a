//! Where the ciphertext of a file comes from: one address, or those of the six parts of a striped file.
//!
//! Owns the addresses, which are secrets, and what was learnt about the parts while they were read.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mega_api::{Api, CipherStream, StorageError};
use mega_crypto::raid::PARTS;

use super::striped;

/// See the module's description.
pub(crate) struct Origin {
    /// One, or [`PARTS`].
    urls: Vec<String>,
    /// The part that is left alone as long as five others do.
    spare: AtomicUsize,
}

impl Origin {
    /// `None`: there is no address.
    pub(crate) fn new(mut urls: Vec<String>) -> Option<Self> {
        if urls.len() != PARTS {
            urls.truncate(1);
        }
        (!urls.is_empty()).then(|| Self {
            urls,
            // The parity: what comes without it need not be computed.
            spare: AtomicUsize::new(0),
        })
    }

    pub(crate) fn is_striped(&self) -> bool {
        self.urls.len() == PARTS
    }

    /// The address of a part.
    pub(super) fn part(&self, part: usize) -> Option<&str> {
        self.urls.get(part).map(String::as_str)
    }

    pub(super) fn spare(&self) -> usize {
        self.spare.load(Ordering::Relaxed)
    }

    /// This part failed or is slow: others begin without it.
    pub(super) fn leave_out(&self, part: usize) {
        self.spare.store(part, Ordering::Relaxed);
    }

    /// Ciphertext of `range` of a file of `size` bytes, in order. A part that brings nothing while the others
    /// do is replaced long before `stall`.
    pub(crate) async fn get(
        self: &Arc<Self>,
        api: &Api,
        size: u64,
        range: Range<u64>,
        stall: Duration,
    ) -> Result<CipherStream, StorageError> {
        if self.is_striped() {
            return Ok(striped::read(api, self, size, range, stall));
        }
        api.get_range(self.part(0).unwrap_or_default(), range).await
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin")
            .field("urls", &self.urls.len())
            .field("spare", &self.spare)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_do_not_print() {
        let urls = (0..6).map(|part| format!("http://secret/{part}"));
        let origin = Origin::new(urls.collect()).unwrap();
        assert!(origin.is_striped() && !format!("{origin:?}").contains("secret"));
        let some = Origin::new(vec!["a".to_owned(), "b".to_owned()]).unwrap();
        assert!(!some.is_striped());
        assert!(Origin::new(Vec::new()).is_none());
    }
}
