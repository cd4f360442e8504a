//! Telling the kernel to drop what it remembers. Called only from mega-vfs's notifier thread: the
//! kernel may call back into the file system before a notification returns.

use std::ffi::OsStr;
use std::io;

use fuser::{INodeNo, Notifier};
use mega_vfs::KernelNotifier;
use rustix::io::Errno;

/// The kernel's side of invalidations.
#[derive(Debug)]
pub(crate) struct Notices(Notifier);

impl Notices {
    /// Notices over the channel of a session.
    pub(crate) fn new(notifier: Notifier) -> Self {
        Self(notifier)
    }
}

/// ENOENT says that the kernel did not remember it anyway.
fn check(what: &'static str, result: io::Result<()>) {
    match result {
        Err(error) if error.raw_os_error() != Some(Errno::NOENT.raw_os_error()) => {
            tracing::debug!(what, %error, "the kernel did not take a notice");
        }
        _ => {}
    }
}

impl KernelNotifier for Notices {
    fn entry(&self, parent: u64, name: &OsStr) {
        check("entry", self.0.inval_entry(INodeNo(parent), name));
    }

    fn inode(&self, ino: u64) {
        // From 0 with length 0: attributes and all pages.
        check("inode", self.0.inval_inode(INodeNo(ino), 0, 0));
    }

    fn delete(&self, parent: u64, child: u64, name: &OsStr) {
        check(
            "delete",
            self.0.delete(INodeNo(parent), INodeNo(child), name),
        );
    }
}
