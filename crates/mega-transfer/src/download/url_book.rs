//! Download URLs that were given to us and are still good, of files open or not.
//!
//! Owns (node, URL) of the last thousand files, so that a file that is opened again, or was asked for
//! together with its siblings, costs no round trip. A URL leaves when a server has refused it, or when it
//! is old: the service gives them for hours (protocol/04 section 1), and says so to nobody.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use mega_proto::NodeHandle;

use super::origin::Origin;

/// Files remembered.
const MOST: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// How long a URL is taken to be good; trying a stale one costs a round trip.
const LIFE: Duration = Duration::from_secs(1800);

/// See the module's description.
#[derive(Debug)]
pub(crate) struct UrlBook {
    // Innermost lock: nothing else is taken while it is held.
    known: Mutex<LruCache<NodeHandle, (Arc<Origin>, Instant)>>,
}

impl Default for UrlBook {
    fn default() -> Self {
        Self {
            known: Mutex::new(LruCache::new(MOST)),
        }
    }
}

impl UrlBook {
    /// The URL of a node.
    pub(crate) fn get(&self, node: NodeHandle) -> Option<Arc<Origin>> {
        let mut known = self.lock();
        let (origin, since) = known.get(&node)?;
        if since.elapsed() < LIFE {
            return Some(Arc::clone(origin));
        }
        known.pop(&node);
        None
    }

    /// The service gave this URL just now.
    pub(crate) fn put(&self, node: NodeHandle, origin: Arc<Origin>) {
        self.lock().put(node, (origin, Instant::now()));
    }

    /// This URL is not to be used again; a newer one of the node stays.
    pub(crate) fn strike(&self, node: NodeHandle, origin: &Arc<Origin>) {
        let mut known = self.lock();
        let last = known.peek(&node);
        if last.is_some_and(|(known, _)| Arc::ptr_eq(known, origin)) {
            known.pop(&node);
        }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<NodeHandle, (Arc<Origin>, Instant)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_url_that_failed_is_struck() {
        let book = UrlBook::default();
        let node = NodeHandle::from_u48(5);
        let [old, new] =
            ["old", "new"].map(|url| Arc::new(Origin::new(vec![url.to_owned()]).unwrap()));
        book.put(node, Arc::clone(&old));
        book.put(node, Arc::clone(&new));
        book.strike(node, &old);
        assert!(Arc::ptr_eq(&book.get(node).unwrap(), &new));
        book.strike(node, &new);
        assert!(book.get(node).is_none());
    }
}
