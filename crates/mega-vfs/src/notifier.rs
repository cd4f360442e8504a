//! The notifier thread: the only place that tells the kernel to drop what it caches.
//!
//! The kernel may call back into the file system while it handles a notification, so this never
//! happens on a request's thread and never under a lock.

use std::ffi::OsStr;
use std::sync::mpsc;
use std::sync::{Arc, PoisonError};

use crate::Vfs;
use crate::state::Invalidation;
use crate::types::KernelNotifier;

impl Vfs {
    /// Starts telling `notifier` about remote changes. The thread ends with the file system.
    pub fn set_notifier(&self, notifier: Arc<dyn KernelNotifier>) {
        let (sender, receiver) = mpsc::channel();
        *self
            .shared
            .notices
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(sender);
        let spawned = std::thread::Builder::new()
            .name("notifier".to_owned())
            .spawn(move || {
                while let Ok(invalidation) = receiver.recv() {
                    match invalidation {
                        Invalidation::Entry { parent, name } => {
                            notifier.entry(parent, OsStr::new(&name));
                        }
                        Invalidation::Inode(ino) => notifier.inode(ino),
                    }
                }
            });
        if let Err(error) = spawned {
            tracing::error!(%error, "no notifier thread: remote changes show late");
        }
    }
}
