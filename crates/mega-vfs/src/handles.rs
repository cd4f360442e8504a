//! Open handles: from `open` or `opendir` to the release.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mega_transfer::ReadCursor;

use crate::dot_mega::Inside;
use crate::file::FileNode;
use crate::types::OpenMode;

/// One `open()` of a file.
pub(crate) struct FileHandle {
    pub(crate) file: Arc<FileNode>,
    pub(crate) mode: OpenMode,
    pub(crate) cursor: ReadCursor,
    /// Whether anything was read through it.
    pub(crate) has_read: AtomicBool,
}

/// One handle number.
#[derive(Clone)]
pub(crate) enum Handle {
    File(Arc<FileHandle>),
    /// The inode of an open directory.
    Directory(u64),
    /// A directory of `.mega`, as it was when it was opened.
    Listing(Arc<[(String, Inside)]>),
    /// A document that was made for whoever opened it.
    Document(Arc<[u8]>),
}

#[derive(Default)]
pub(crate) struct Handles {
    open: HashMap<u64, Handle>,
    next: u64,
}

impl Handles {
    pub(crate) fn insert(&mut self, handle: Handle) -> u64 {
        self.next += 1;
        self.open.insert(self.next, handle);
        self.next
    }

    pub(crate) fn file(&self, fh: u64) -> Option<Arc<FileHandle>> {
        match self.open.get(&fh) {
            Some(Handle::File(handle)) => Some(Arc::clone(handle)),
            _ => None,
        }
    }

    pub(crate) fn listing(&self, fh: u64) -> Option<Arc<[(String, Inside)]>> {
        match self.open.get(&fh) {
            Some(Handle::Listing(listing)) => Some(Arc::clone(listing)),
            _ => None,
        }
    }

    pub(crate) fn document(&self, fh: u64) -> Option<Arc<[u8]>> {
        match self.open.get(&fh) {
            Some(Handle::Document(document)) => Some(Arc::clone(document)),
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, fh: u64) -> Option<Handle> {
        self.open.remove(&fh)
    }

    /// Inodes of open directories.
    pub(crate) fn directories(&self) -> impl Iterator<Item = u64> + '_ {
        self.open.values().filter_map(|handle| match handle {
            Handle::Directory(ino) => Some(*ino),
            Handle::File(_) | Handle::Listing(_) | Handle::Document(_) => None,
        })
    }

    /// All open files.
    pub(crate) fn files(&self) -> impl Iterator<Item = Arc<FileHandle>> + '_ {
        self.open.values().filter_map(|handle| match handle {
            Handle::File(handle) => Some(Arc::clone(handle)),
            Handle::Directory(_) | Handle::Listing(_) | Handle::Document(_) => None,
        })
    }
}
