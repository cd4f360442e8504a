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

/// Files remembered.
const MOST: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// How long a URL is taken to be good; trying a stale one costs a round trip.
const LIFE: Duration = Duration::from_secs(1800);

/// See the module's description.
#[derive(Debug)]
pub(crate) struct UrlBook {
    // Innermost lock: nothing else is taken while it is held.
    known: Mutex<LruCache<NodeHandle, (Arc<str>, Instant)>>,
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
    pub(crate) fn get(&self, node: NodeHandle) -> Option<Arc<str>> {
        let mut known = self.lock();
        let (url, since) = known.get(&node)?;
        if since.elapsed() < LIFE {
            return Some(Arc::clone(url));
        }
        known.pop(&node);
        None
    }

    /// The service gave this URL just now.
    pub(crate) fn put(&self, node: NodeHandle, url: Arc<str>) {
        self.lock().put(node, (url, Instant::now()));
    }

    /// This URL is not to be used again; a newer one of the node stays.
    pub(crate) fn strike(&self, node: NodeHandle, url: &str) {
        let mut known = self.lock();
        if known.peek(&node).is_some_and(|(known, _)| &**known == url) {
            known.pop(&node);
        }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<NodeHandle, (Arc<str>, Instant)>> {
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
        book.put(node, "old".into());
        book.put(node, "new".into());
        book.strike(node, "old");
        assert_eq!(book.get(node).as_deref(), Some("new"));
        book.strike(node, "new");
        assert_eq!(book.get(node), None);
    }
}
