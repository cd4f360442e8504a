//! What a file system operation means on a Mega account.
//!
//! Owns: inodes, handles, the overlay of local changes over the server's truth, the content of dirty
//! files, the pusher that makes the server agree, and what remote changes do to all of that.
//! Promises: names and listings never wait for the network; what was acknowledged survives `kill -9`;
//! no order of pushes leaves a name without its file. docs/SEMANTICS.md is the user's version.
//! Never: kernel library types, command lines, terminals. Called by the binary's adaptor.
//!
//! Lock order: file content (`file`), then state (`state`); no lock is held across an await,
//! and nothing is told to the kernel under one (that is the notifier thread's job).

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

mod ahead;
mod aside;
mod calendar;
mod catalog;
mod changes;
mod dot_mega;
mod errno;
mod file;
mod handles;
mod inode;
mod leftovers;
mod link;
mod links;
mod listed;
mod lookups;
mod lost_base;
mod notifier;
mod ops;
mod push;
mod remote;
mod share_keys;
mod shared;
mod start;
mod state;
mod status;
mod stop;
mod tree_load;
mod types;
mod verify;
mod walk;
mod zone;

use std::sync::{Arc, Mutex};

use tokio::task::JoinHandle;

pub use catalog::{
    Detail, Held, Item, PARTIAL_PREFIX, PARTIAL_SUFFIX, Pushed, Standing, is_partial,
};
pub use leftovers::Rubbish;
pub use links::AskError;
pub use mega_tree::naming::Naming;
pub use ops::CopyRange;
pub use start::StartError;
pub use status::{
    Change, ChangeKind, Counts, Export, Exported, LastError, Progress, Quota, ResolveError,
    SessionState, Snapshot, Stage, Where,
};
pub use stop::{Left, Status};
pub use tree_load::Loading;
pub use types::{
    Attr, DirEntry, Entry, FileKind, FsyncMode, KernelNotifier, Lookup, OpResult, OpenMode, Opened,
    OpenedDirectory, RenameMode, SetAttr, StatFs, Timestamp, Versions, VfsConfig, WriteAt,
};

pub use verify::{Verified, VerifyFile};

/// One mounted account.
pub struct Vfs {
    pub(crate) shared: Arc<shared::Shared>,
    pub(crate) tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Vfs {
    /// Says what `.mega/status` shows. It is asked from threads that may wait; only the first counts.
    pub fn show_status(&self, source: impl Fn() -> Vec<u8> + Send + Sync + 'static) {
        let _ = self.shared.status_source.set(Box::new(source));
    }
}

impl std::fmt::Debug for Vfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vfs").finish_non_exhaustive()
    }
}
