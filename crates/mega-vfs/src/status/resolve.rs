//! What a user can do about changes that wait or were refused: push them now, try again, let go.
//!
//! All of it edits rows and wakes the pusher; nothing here talks to the server. A change that is on
//! its way is left alone.

use std::collections::HashSet;

use mega_store::{ChangeRow, ChangeState, LayerRow, Subject};

use crate::Vfs;
use crate::aside::is_set_aside;
use crate::changes::is_settled;
use crate::ops::drop_staging;
use crate::state::{Invalidation, State};
use crate::status::Where;
use crate::types::now_ms;

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Mega has everything of it, or it does not exist.
    #[error("'{0}' has no change that is not on Mega. 'megamount status' lists those that have")]
    NoChange(String),
    /// It is being sent.
    #[error("'{0}' is on its way to Mega right now. Try again in a moment")]
    OnItsWay(String),
    /// A program is using it.
    #[error("'{0}' is open in a program. Close it first")]
    Open(String),
    /// A power cut may have taken bytes of it.
    #[error(
        "'{0}' may have lost bytes when the power went, so it is not uploaded. 'megamount export' saves \
         what is left of it, and 'megamount discard' brings back what Mega has"
    )]
    SetAside(String),
    /// A power cut has taken all that was here of it.
    #[error(
        "nothing of '{0}' was left on the disk when the power went. 'megamount discard' brings back what \
         Mega has"
    )]
    Lost(String),
    /// There are no new bytes.
    #[error("'{0}' has no new content: only its name or attributes differ from what Mega has")]
    NoContent(String),
    /// Nothing may be changed.
    #[error("the mount is read-only")]
    ReadOnly,
    /// The local state failed.
    #[error("the local state failed: {0}")]
    Local(rustix::io::Errno),
}

impl From<rustix::io::Errno> for ResolveError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Local(errno)
    }
}

/// What discarding takes away, and what has to be told.
#[derive(Default)]
struct Discard {
    dropped: Vec<Subject>,
    /// Rows that lose only their place.
    put_back: Vec<ChangeRow>,
    staging: Vec<LayerRow>,
    parents: HashSet<Subject>,
    told: Vec<Invalidation>,
}

impl Vfs {
    /// Everything that waits is pushed now, without the write-back delay and the pauses after
    /// failures; files that are open for writing are not. Returns the moment, for the mark of
    /// [`Vfs::snapshot`]: all is pushed when no change before it is left.
    pub fn flush_queue(&self) -> i64 {
        let shared = &self.shared;
        shared.commit_open_files();
        let now = now_ms();
        shared.lock().changes.hasten(now);
        shared.wake.notify_one();
        now
    }

    /// Tries parked changes again, and waiting ones at once: all of them, or those of `path` and
    /// below. Returns how many. What a power cut may have damaged stays as it is.
    ///
    /// # Errors
    /// [`ResolveError::NoChange`] when there are none of that path; [`ResolveError::SetAside`] when there
    /// are only damaged ones.
    pub fn retry(&self, path: Option<&str>) -> Result<usize, ResolveError> {
        if self.shared.config.read_only {
            return Err(ResolveError::ReadOnly);
        }
        let chosen = match path {
            Some(path) => {
                let below = format!("{path}/");
                self.changes_where(|at| at == path || at.starts_with(&below))
            }
            None => self.subjects(),
        };
        if let Some(path) = path.filter(|_| chosen.is_empty()) {
            return Err(ResolveError::NoChange(path.to_owned()));
        }
        let now = now_ms();
        let mut state = self.shared.lock();
        let mut rows = Vec::new();
        let mut count = 0;
        let mut aside = None;
        for subject in chosen {
            let Some(row) = state.changes.get(subject) else {
                continue;
            };
            if is_set_aside(row) {
                aside = Some(subject);
                continue;
            }
            match &row.state {
                ChangeState::Parked { .. } => {
                    let mut row = row.clone();
                    row.state = ChangeState::Pending { due_ms: now };
                    rows.push(row);
                    count += 1;
                }
                ChangeState::Pending { due_ms } if *due_ms > now => {
                    State::set_due(&mut state, subject, now);
                    count += 1;
                }
                ChangeState::Pending { .. } | ChangeState::Pushing { .. } => {}
            }
        }
        if let (Some(_), Some(subject), 0) = (path, aside, count) {
            let path = state.locate(subject).path().to_owned();
            return Err(ResolveError::SetAside(path));
        }
        state.commit(rows, &[])?;
        drop(state);
        self.shared.wake.notify_one();
        Ok(count)
    }

    /// Forgets the changes of `path`: the file or folder is again what Mega has, and what was made
    /// here is gone. When it took over the name of something else, that comes back too. Returns the
    /// paths.
    ///
    /// # Errors
    /// [`ResolveError`]; nothing was forgotten then.
    pub fn discard(&self, path: &str) -> Result<Vec<String>, ResolveError> {
        if self.shared.config.read_only {
            return Err(ResolveError::ReadOnly);
        }
        let subject = self.change_at(path)?;
        let mut guard = self.shared.lock();
        let state = &mut *guard;
        let mut plan = Discard::default();
        state.plan_discard(subject, &mut plan)?;
        let paths = plan
            .dropped
            .iter()
            .map(|subject| state.locate(*subject).path().to_owned())
            .collect();
        state.commit(plan.put_back, &plan.dropped)?;
        state.changes.unstall();
        for parent in &plan.parents {
            state.forget_dir(*parent);
        }
        for subject in &plan.dropped {
            tracing::warn!(target: "megamount::journal", ?subject, "change discarded by the user");
        }
        drop(guard);
        drop_staging(&self.shared.store, &plan.staging);
        self.shared.notify(plan.told);
        self.shared.wake.notify_one();
        Ok(paths)
    }

    /// The change at exactly this path; a parked one before others.
    pub(crate) fn change_at(&self, path: &str) -> Result<Subject, ResolveError> {
        let found = self.changes_where(|at| at == path);
        let state = self.shared.lock();
        let is_parked = |subject: &&Subject| {
            let row = state.changes.get(**subject);
            row.is_some_and(|row| matches!(row.state, ChangeState::Parked { .. }))
        };
        let is_there = |subject: &&Subject| {
            let row = state.changes.get(**subject);
            row.is_some_and(|row| !row.removed)
        };
        found
            .iter()
            .find(is_parked)
            .or_else(|| found.iter().find(is_there))
            .or_else(|| found.first())
            .copied()
            .ok_or_else(|| ResolveError::NoChange(path.to_owned()))
    }

    fn subjects(&self) -> Vec<Subject> {
        let state = self.shared.lock();
        state.changes.iter().map(|row| row.subject).collect()
    }

    /// The changes in the mount whose path is chosen. The lock is taken anew for each.
    fn changes_where(&self, chosen: impl Fn(&str) -> bool) -> Vec<Subject> {
        let mut subjects = self.subjects();
        subjects.retain(|subject| match self.shared.lock().locate(*subject) {
            Where::Inside(path) => chosen(&path),
            Where::Outside(_) => false,
        });
        subjects
    }
}

impl State {
    fn plan_discard(&mut self, subject: Subject, plan: &mut Discard) -> Result<(), ResolveError> {
        let Some(row) = self.changes.get(subject).cloned() else {
            return Ok(());
        };
        if plan.dropped.contains(&subject) {
            return Ok(());
        }
        let path = self.locate(subject).path().to_owned();
        if self.changes.is_in_flight(subject) {
            return Err(ResolveError::OnItsWay(path));
        }
        if let Some(ino) = self.inodes.known_ino(subject) {
            if self.files.contains_key(&ino) {
                return Err(ResolveError::Open(path));
            }
            plan.told.push(Invalidation::Inode(ino));
        }
        self.tell_places(&row, plan);
        plan.dropped.push(subject);
        let content = row.content.iter();
        plan.staging
            .extend(content.flat_map(|content| content.layers.clone()));
        if let Some(handle) = row.replaces {
            let replaced = Subject::Node(handle);
            if self.changes.get(replaced).is_some_and(|row| row.removed) {
                self.plan_discard(replaced, plan)?;
            }
        }
        if matches!(subject, Subject::Node(_)) {
            return Ok(());
        }
        // A folder that was never on Mega goes with what was made in it; what was moved into it goes
        // back to where it came from.
        let inside: Vec<_> = self.changes.placed_in(subject).cloned().collect();
        for mut child in inside {
            if matches!(child.subject, Subject::Local(_)) {
                self.plan_discard(child.subject, plan)?;
                continue;
            }
            if self.changes.is_in_flight(child.subject) {
                let path = self.locate(child.subject).path().to_owned();
                return Err(ResolveError::OnItsWay(path));
            }
            self.tell_places(&child, plan);
            child.place = None;
            child.replaces = None;
            if is_settled(&child) {
                plan.dropped.push(child.subject);
            } else {
                plan.put_back.push(child);
            }
        }
        plan.parents.insert(subject);
        Ok(())
    }

    /// Notes the directories that show the row now or will show it, and the names to ask again.
    fn tell_places(&self, row: &ChangeRow, plan: &mut Discard) {
        let wanted = row.place.as_ref().map(|place| place.parent);
        let served = row
            .subject
            .node()
            .and_then(|handle| self.node_row(handle).ok().flatten());
        let served_name = served.as_ref().map(|row| self.stored_of(row));
        let served_parent = served.and_then(|row| row.parent).map(Subject::Node);
        for parent in [wanted, served_parent].into_iter().flatten() {
            plan.parents.insert(parent);
            let Some(ino) = self.inodes.known_ino(parent) else {
                continue;
            };
            let shown = self.dirs.peek(&parent).and_then(|dir| dir.of(row.subject));
            let shown = shown.map(|entry| entry.spelling.to_string());
            let served = served_name
                .as_ref()
                .map(|name| self.config.naming.spell(name, row.subject));
            for name in [shown, served].into_iter().flatten() {
                plan.told.push(Invalidation::Entry { parent: ino, name });
            }
        }
    }
}
