//! A bounded number of open files, whatever the number of things that have one.
//!
//! Thousands of dirty or cached files must not mean thousands of descriptors. Files are opened when
//! needed and closed when others are needed more; whoever uses one meanwhile keeps it by its `Arc`.

use std::fs::File;
use std::hash::Hash;
use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use lru::LruCache;

use crate::db::lock;

/// Files kept open by one such set; a process may usually have 1024 in all.
const KEPT: usize = 128;

/// Open files by key, the least recently used closed first.
#[derive(Debug)]
pub(crate) struct OpenFiles<K: Hash + Eq> {
    files: Mutex<LruCache<K, Arc<File>>>,
}

impl<K: Hash + Eq> OpenFiles<K> {
    pub(crate) fn new() -> Self {
        let kept = NonZeroUsize::new(KEPT).unwrap_or(NonZeroUsize::MIN);
        Self {
            files: Mutex::new(LruCache::new(kept)),
        }
    }

    /// The file of `key`, opened by `open` if it is not. Two threads may open it both; they must get
    /// the same file then.
    pub(crate) fn get(
        &self,
        key: K,
        open: impl FnOnce() -> io::Result<File>,
    ) -> io::Result<Arc<File>> {
        if let Some(file) = lock(&self.files).get(&key) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(open()?);
        self.put(key, Arc::clone(&file));
        Ok(file)
    }

    /// Keeps an open file.
    pub(crate) fn put(&self, key: K, file: Arc<File>) {
        let pushed_out = lock(&self.files).push(key, file);
        // Closing may take long on some file systems: not under the lock.
        drop(pushed_out);
    }

    /// Closes the file of `key`, or hands it over.
    pub(crate) fn take(&self, key: &K) -> Option<Arc<File>> {
        lock(&self.files).pop(key)
    }
}
