//! What all parts of one mount share, and the few things that span the content and the state lock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use mega_api::Api;
use mega_proto::{NodeHandle, NodeKind};
use mega_store::{ChangeRow, ChangeState, Store, Subject};
use mega_transfer::{Downloads, RemoteSource, Uploads};
use mega_tree::Decryptor;
use rustix::io::Errno;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::aside::is_set_aside;
use crate::changes::{MTIME, row_mtime, set_attribute};
use crate::dot_mega::StatusSource;
use crate::errno::store_errno;
use crate::file::{Base, Content, FileNode, Layer};
use crate::lost_base::kept;
use crate::ops::Space;
use crate::remote::currency::Currency;
use crate::state::{Invalidation, State};
use crate::status::Monitor;
use crate::types::{OpResult, Timestamp, VfsConfig};

pub(crate) struct Shared {
    pub(crate) store: Arc<Store>,
    pub(crate) api: Api,
    pub(crate) config: Arc<VfsConfig>,
    pub(crate) decryptor: Arc<Decryptor>,
    pub(crate) downloads: Downloads,
    pub(crate) uploads: Uploads,
    /// After any file content lock, before none.
    pub(crate) state: Mutex<State>,
    /// Wakes the pusher.
    pub(crate) wake: Notify,
    /// Held from sending our changes until they are confirmed; packets that carry our own client id
    /// wait for it, so that they never overtake the reply.
    pub(crate) gate: tokio::sync::Mutex<()>,
    /// Asks for the share keys that the server keeps apart from the tree.
    pub(crate) keys_wanted: Notify,
    /// How far the event channel is current.
    pub(crate) currency: Currency,
    pub(crate) is_channel_up: AtomicBool,
    /// The event task is to fetch the whole tree.
    pub(crate) is_tree_wanted: AtomicBool,
    pub(crate) notices: Mutex<Option<Sender<Invalidation>>>,
    /// What the parts of the mount tell whoever watches it.
    pub(crate) monitor: Monitor,
    /// What `.mega/status` shows.
    pub(crate) status_source: OnceLock<StatusSource>,
    /// How much more the account has room for.
    pub(crate) space: Space,
    pub(crate) stop: CancellationToken,
    /// No more operations are taken.
    pub(crate) is_closing: AtomicBool,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands invalidations to the notifier thread. Call without any lock held.
    pub(crate) fn notify(&self, invalidations: Vec<Invalidation>) {
        let sender = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = sender.as_ref() {
            for invalidation in invalidations {
                // The receiver only goes away when the mount ends.
                let _ = sender.send(invalidation);
            }
        }
    }

    pub(crate) fn check_writable(&self) -> OpResult<()> {
        if self.config.read_only {
            return Err(Errno::ROFS);
        }
        Ok(())
    }

    /// The shared content of a file, made when nobody has it open yet.
    pub(crate) fn file(&self, state: &mut State, subject: Subject) -> OpResult<Arc<FileNode>> {
        let ino = state.ino(subject)?;
        if let Some(file) = state.shared_file(ino) {
            return Ok(Arc::clone(file));
        }
        let content = self.load_content(state, subject)?;
        let mtime = match state.changes.get(subject).and_then(row_mtime) {
            Some(mtime) => mtime,
            None => {
                let facts = state.facts(subject)?;
                Timestamp {
                    secs: facts.mtime,
                    nanos: facts.mtime_nanos,
                }
            }
        };
        let file = Arc::new(FileNode::new(ino, content, mtime));
        state.files.insert(ino, Arc::clone(&file));
        Ok(file)
    }

    /// Locks the shared content of an inode and hands it to `f`. Between finding the content and
    /// locking it the last user may have let it go; then it is found anew, so that no inode ever has
    /// two contents.
    pub(crate) fn with_content<T>(
        &self,
        ino: u64,
        f: impl FnOnce(&Arc<FileNode>, &mut Content) -> OpResult<T>,
    ) -> OpResult<T> {
        loop {
            let file = {
                let mut state = self.lock();
                let subject = state.subject(ino)?;
                self.file(&mut state, subject)?
            };
            let mut content = file.lock();
            if !content.is_detached {
                return f(&file, &mut content);
            }
        }
    }

    fn load_content(&self, state: &State, subject: Subject) -> OpResult<Content> {
        if state.changes.get(subject).is_some_and(is_set_aside) {
            return Err(Errno::IO);
        }
        self.load_content_as_it_is(state, subject)
    }

    /// The content of a row, damaged or not.
    pub(crate) fn load_content_as_it_is(
        &self,
        state: &State,
        subject: Subject,
    ) -> OpResult<Content> {
        self.content_of(state, subject, state.changes.get(subject))
    }

    fn content_of(
        &self,
        state: &State,
        subject: Subject,
        row: Option<&ChangeRow>,
    ) -> OpResult<Content> {
        let row = row.and_then(|row| row.content.as_ref());
        let base_handle = match (row, subject) {
            (Some(row), _) => row.base,
            (None, Subject::Node(handle)) => Some(handle),
            (None, Subject::Local(_)) => return Err(Errno::STALE),
        };
        let base = match base_handle {
            Some(handle) => self.open_base(state, subject, handle)?,
            None => None,
        };
        let is_base_lost = base.is_none() && base_handle.is_some();
        if is_base_lost && row.is_none() {
            return Err(Errno::STALE);
        }
        let mut layers = Vec::new();
        // The row was written before they were sealed.
        let doubted = state.changes.doubted_layers(subject);
        if let Some(row) = row {
            for (index, layer) in row.layers.iter().enumerate() {
                let file = self
                    .store
                    .open_layer(layer)
                    .map_err(|error| store_errno(&error))?;
                layers.push(Layer {
                    file,
                    sealed: layer.sealed || doubted.is_some_and(|count| index < count),
                });
            }
        }
        let size = row.map_or_else(|| base.as_ref().map_or(0, |base| base.size), |row| row.size);
        Ok(Content {
            size,
            generation: row.map_or(0, |row| row.generation),
            is_dirty: row.is_some(),
            is_uncommitted: false,
            base,
            is_base_lost,
            layers,
            attempt: None,
            is_doubted: doubted.is_some(),
            writers: 0,
            openers: 0,
            is_unlinked: false,
            is_detached: false,
        })
    }

    /// The content of a node that `subject` shows; `None` when the node is gone and nothing was kept.
    pub(crate) fn open_base(
        &self,
        state: &State,
        subject: Subject,
        handle: NodeHandle,
    ) -> OpResult<Option<Base>> {
        let known = match state.node(handle)? {
            Some(known) => Some(known),
            None => {
                let row = state.changes.get(subject);
                let kept = row.and_then(|row| kept(row, handle));
                kept.map(|row| {
                    let node = state.decryptor.open(&row);
                    (row, node)
                })
            }
        };
        let Some((row, node)) = known else {
            return Ok(None);
        };
        if row.kind != NodeKind::File {
            return Err(Errno::ISDIR);
        }
        let key = node.file_key().ok_or(Errno::ACCESS)?.clone();
        let remote = self.downloads.open(RemoteSource {
            handle,
            size: row.size,
            key,
        });
        Ok(Some(Base {
            handle,
            size: row.size,
            remote,
        }))
    }

    /// Writes a file's content row, so that it survives the end of this process.
    pub(crate) fn commit_content(&self, file: &FileNode, content: &mut Content) -> OpResult<()> {
        if !content.is_uncommitted || content.is_unlinked {
            return Ok(());
        }
        let mut state = self.lock();
        let subject = state.subject(file.ino)?;
        let mut row = state.row_for_edit(subject, NodeKind::File);
        let is_new = row.content.is_none();
        row.content = Some(content.row());
        set_attribute(&mut row, MTIME, Value::String(file.mtime().to_text()));
        if !matches!(row.state, ChangeState::Pushing { .. }) {
            row.state = ChangeState::Pending {
                due_ms: state.rewrite_due(&row),
            };
        }
        state.commit(vec![row], &[])?;
        content.is_uncommitted = false;
        if is_new {
            state.settle_new_content(subject)?;
        }
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Brings the row in line with layers that have got bytes of the base: the content is the same.
    pub(crate) fn commit_layers(&self, file: &FileNode, content: &mut Content) -> OpResult<()> {
        if content.is_uncommitted || content.is_unlinked {
            return self.commit_content(file, content);
        }
        let mut state = self.lock();
        let subject = state.subject(file.ino)?;
        let Some(mut row) = state.changes.get(subject).cloned() else {
            return Ok(());
        };
        if row.content.is_some() {
            row.content = Some(content.row());
            state.commit(vec![row], &[])?;
        }
        Ok(())
    }

    /// The content of a file that is gone, row and all, for those who have found it and not opened it yet. Its
    /// bytes do not outlive this process.
    pub(crate) fn orphan(&self, state: &State, ino: u64, row: &ChangeRow) -> OpResult<FileNode> {
        let mut content = self.content_of(state, row.subject, Some(row))?;
        content.is_unlinked = true;
        for layer in &content.layers {
            crate::ops::hide(&layer.file);
        }
        let mtime = row_mtime(row).unwrap_or(Timestamp {
            secs: row.since_ms / 1000,
            nanos: 0,
        });
        let size = content.size;
        let file = FileNode::new(ino, content, mtime);
        tracing::trace!(ino, size, "kept until the kernel forgets it");
        file.publish(&file.lock());
        Ok(file)
    }

    /// Drops references of the kernel, and what was kept for their sake.
    pub(crate) fn forget(&self, ino: u64, count: u64) {
        let mut state = self.lock();
        if !state.inodes.forget(ino, count) {
            return;
        }
        let Some(file) = state.files.get(&ino).cloned() else {
            state.inodes.unbind(ino);
            return;
        };
        drop(state);
        if file.is_orphan() {
            self.let_go(&file, &mut file.lock());
        }
    }

    /// Drops a file's shared content when nobody uses it any more.
    pub(crate) fn let_go(&self, file: &Arc<FileNode>, content: &mut Content) {
        if content.openers > 0 || content.attempt.is_some() {
            return;
        }
        let mut state = self.lock();
        if content.is_unlinked {
            let subject = state.subject(file.ino);
            let is_local = matches!(subject, Ok(Subject::Local(_)));
            if let Ok(subject @ Subject::Local(_)) = subject
                && state.changes.get(subject).is_some()
                && !state.changes.is_in_flight(subject)
                && let Err(errno) = state.commit(Vec::new(), &[subject])
            {
                tracing::warn!(%errno, "row of a removed file stays behind");
            }
            if is_local && state.inodes.is_known(file.ino) {
                // Whoever has looked it up and not opened it yet finds it.
                return;
            }
            for layer in content.layers.drain(..) {
                if let Err(error) = layer.file.delete() {
                    tracing::warn!(%error, "staging file of a removed file stays behind");
                }
            }
        }
        if !content.is_uncommitted || content.is_unlinked {
            if let Ok(Subject::Node(handle)) = state.subject(file.ino) {
                state.lost.remove(&handle);
            }
            content.is_detached = true;
            if state
                .files
                .get(&file.ino)
                .is_some_and(|known| Arc::ptr_eq(known, file))
            {
                state.files.remove(&file.ino);
            }
            if !state.inodes.is_known(file.ino) {
                state.inodes.unbind(file.ino);
            }
        }
    }

    pub(crate) fn check_open(&self) -> OpResult<()> {
        if self.is_closing.load(Ordering::Acquire) {
            return Err(Errno::SHUTDOWN);
        }
        Ok(())
    }
}
