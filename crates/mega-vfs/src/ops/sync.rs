//! fsync: what was written is safe before the answer, on this disk or on Mega.
//!
//! Both kinds bring bytes and rows to stable storage first. `--fsync=cloud` then makes the change due
//! at once and waits until the server has it. Such a wait has no fixed end, because a large file takes
//! its time; it ends when the server has refused (the row is parked), when the account is full, or when
//! nothing has moved for `--timeout`. Whatever it answers, the change stays queued.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mega_proto::NodeHandle;
use mega_store::{ChangeRow, ChangeState, StoreError, Subject};
use rustix::io::Errno;

use crate::Vfs;
use crate::dot_mega::Virtual;
use crate::errno::store_errno;
use crate::file::{Attempt, FileNode};
use crate::shared::Shared;
use crate::state::State;
use crate::types::{FsyncMode, OpResult};

/// How often the queue is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

impl Vfs {
    /// Where data is safe when `fsync` returns.
    #[must_use]
    pub fn fsync_mode(&self) -> FsyncMode {
        self.shared.config.fsync
    }

    /// Bytes and row on stable storage before the answer; with [`FsyncMode::Cloud`] on Mega.
    ///
    /// # Errors
    /// EBADF; EIO when stable storage cannot be reached (writing then stops for good) or Mega refused
    /// the file; EDQUOT when it waits because the account is full; ETIMEDOUT when nothing moves on its way
    /// there.
    pub async fn fsync(&self, _ino: u64, fh: u64, _data_only: bool) -> OpResult<()> {
        let handle = {
            let state = self.shared.lock();
            if state.handles.document(fh).is_some() {
                return Ok(());
            }
            state.handles.file(fh).ok_or(Errno::BADF)?
        };
        let (shared, file) = (Arc::clone(&self.shared), Arc::clone(&handle.file));
        tokio::task::spawn_blocking(move || shared.sync_file(&file))
            .await
            .map_err(|_| Errno::IO)?
            .map_err(|error| store_errno(&error))?;
        if self.shared.waits_for_cloud() {
            self.shared.until_file_is_there(&handle.file).await?;
        }
        Ok(())
    }

    /// Makes name changes durable; with [`FsyncMode::Cloud`] those of this directory are on Mega.
    ///
    /// # Errors
    /// As `fsync`.
    pub async fn fsyncdir(&self, ino: u64) -> OpResult<()> {
        if Virtual::of(ino).is_some() {
            return Ok(());
        }
        self.shared.sync_rows().await?;
        if self.shared.waits_for_cloud() {
            self.shared.until_names_are_there(ino).await?;
        }
        Ok(())
    }
}

/// How far a file is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    /// The node that holds its content.
    base: Option<NodeHandle>,
    generation: u64,
    /// Bytes fetched for the upload, compared, and acknowledged by the server.
    moved: u64,
}

/// Ends a wait in which nothing moves.
struct Patience {
    limit: Duration,
    since: Instant,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            since: Instant::now(),
        }
    }

    fn something_moved(&mut self) {
        self.since = Instant::now();
    }

    async fn wait(&self) -> OpResult<()> {
        if self.since.elapsed() >= self.limit {
            return Err(Errno::TIMEDOUT);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        Ok(())
    }
}

impl Shared {
    fn waits_for_cloud(&self) -> bool {
        self.config.fsync == FsyncMode::Cloud && !self.config.read_only
    }

    /// Makes everything committed so far durable.
    pub(crate) async fn sync_rows(self: &Arc<Self>) -> OpResult<()> {
        let shared = Arc::clone(self);
        tokio::task::spawn_blocking(move || shared.store.sync())
            .await
            .map_err(|_| Errno::IO)?
            .map(|_| ())
            .map_err(|error| store_errno(&error))
    }

    /// Staged bytes first, then the row that counts them (I2).
    fn sync_file(&self, file: &FileNode) -> Result<(), StoreError> {
        let mut content = file.lock();
        for layer in &content.layers {
            layer.file.sync_data()?;
        }
        let generation = content.generation;
        if self.commit_content(file, &mut content).is_err() {
            return Err(StoreError::NotPresent);
        }
        let is_dirty = content.is_dirty && !content.is_unlinked;
        drop(content);
        let mut state = self.lock();
        if is_dirty && let Some(subject) = state.inodes.subject(file.ino) {
            self.store.write(|tx| tx.mark_synced(subject, generation))?;
            state.changes.mark_synced(subject, generation);
        }
        drop(state);
        self.store.sync().map(|_| ())
    }

    /// Waits until everything that `file` holds now is a node on the server.
    async fn until_file_is_there(&self, file: &Arc<FileNode>) -> OpResult<()> {
        // Open for writing is no reason to wait as long as somebody waits for it.
        let _wanted = file.want();
        let mut patience = Patience::new(self.config.timeout);
        let mut last: Option<Standing> = None;
        // A put that is under way already may be of older content: then its node is not ours yet.
        let is_frozen = |file: &FileNode| {
            let content = file.lock();
            content.attempt.as_ref().is_some_and(|a| a.is_frozen)
        };
        let mut nodes_left = 1 + u32::from(is_frozen(file));
        while let Some(now) = self.standing(file)? {
            if let Some(last) = last
                && last.base != now.base
            {
                nodes_left -= 1;
                if nodes_left == 0 {
                    break;
                }
            }
            let is_new = last.is_none_or(|last| last.generation != now.generation);
            if is_new {
                self.hasten(file);
            }
            if is_new || last.is_some_and(|last| last.base != now.base || last.moved < now.moved) {
                patience.something_moved();
                last = Some(now);
            }
            patience.wait().await?;
        }
        Ok(())
    }

    /// Where a file stands; `None` when there is nothing (more) to do for it.
    fn standing(&self, file: &FileNode) -> OpResult<Option<Standing>> {
        let content = file.lock();
        if content.is_unlinked {
            return Ok(None);
        }
        let state = self.lock();
        let Some(row) = state.changes.get(state.subject(file.ino)?) else {
            return Ok(None);
        };
        state.check_not_parked(row)?;
        // An upload that is under way may still fit.
        if row.content.is_some() && content.attempt.is_none() {
            self.space.check_not_full()?;
        }
        let fetched = content
            .layers
            .first()
            .map_or(0, |layer| layer.file.extents().total());
        let sent = content.attempt.as_ref().map_or(0, Attempt::moved);
        Ok(Some(Standing {
            base: content.base.as_ref().map(|base| base.handle),
            generation: content.generation,
            moved: fetched.saturating_add(sent),
        }))
    }

    /// A file is due now, and with it the folders made here that it is in.
    fn hasten(&self, file: &FileNode) {
        let mut state = self.lock();
        let mut next = state.subject(file.ino).ok();
        while let Some(subject) = next {
            State::set_due(&mut state, subject, 0);
            next = local_parent(state.changes.get(subject));
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Waits until the names in a directory, and its own, are on the server as they are now.
    async fn until_names_are_there(&self, ino: u64) -> OpResult<()> {
        let mut left = {
            let mut state = self.lock();
            let names = state.names_to_push(ino)?;
            for subject in &names {
                State::set_due(&mut state, *subject, 0);
            }
            names
        };
        self.wake.notify_one();
        let mut patience = Patience::new(self.config.timeout);
        let mut most_sent = 0;
        loop {
            let before = left.len();
            let files = {
                let state = self.lock();
                left.retain(|subject| {
                    let row = state.changes.get(*subject);
                    row.is_some_and(|row| row.removed || row.place.is_some())
                });
                for subject in &left {
                    if let Some(row) = state.changes.get(*subject) {
                        state.check_not_parked(row)?;
                        if row.content.is_some() && !state.changes.is_in_flight(*subject) {
                            self.space.check_not_full()?;
                        }
                    }
                }
                state.open_files(&left)
            };
            if left.is_empty() {
                return Ok(());
            }
            let sent = files.iter().map(|file| file.moved()).sum();
            if left.len() < before || sent > most_sent {
                most_sent = sent;
                patience.something_moved();
            }
            patience.wait().await?;
        }
    }
}

/// The folder made here that a row wants to be in.
fn local_parent(row: Option<&ChangeRow>) -> Option<Subject> {
    let parent = row?.place.as_ref()?.parent;
    matches!(parent, Subject::Local(_)).then_some(parent)
}

impl State {
    /// EIO when a row, or a folder that has to be made before it, was refused for good.
    fn check_not_parked(&self, row: &ChangeRow) -> OpResult<()> {
        let mut next = Some(row);
        while let Some(row) = next {
            if let ChangeState::Parked { error } = &row.state {
                tracing::warn!(subject = ?row.subject, error, "fsync fails: the change is parked");
                return Err(Errno::IO);
            }
            next = local_parent(Some(row)).and_then(|parent| self.changes.get(parent));
        }
        Ok(())
    }

    /// Rows that change the names of a directory or its own. Files that are still being written are
    /// not among them.
    fn names_to_push(&self, ino: u64) -> OpResult<Vec<Subject>> {
        let directory = self.subject(ino)?;
        let mut names = Vec::new();
        for row in self.changes.iter() {
            let is_new_here = row
                .place
                .as_ref()
                .is_some_and(|place| place.parent == directory);
            let leaves_here = match row.subject {
                Subject::Node(handle) if row.removed || row.place.is_some() => {
                    let parent = self.node_row(handle)?.and_then(|node| node.parent);
                    parent.map(Subject::Node) == Some(directory)
                }
                Subject::Node(_) | Subject::Local(_) => false,
            };
            let concerns = row.subject == directory || is_new_here || leaves_here;
            if concerns && !self.is_being_written(row.subject) {
                names.push(row.subject);
            }
        }
        Ok(names)
    }

    fn open_files(&self, subjects: &[Subject]) -> Vec<Arc<FileNode>> {
        let open = subjects.iter().filter_map(|s| self.open_file(*s));
        open.cloned().collect()
    }
}
