//! Prepares the directory that is going to be listed next while a tree is walked.
//!
//! Programs that read a whole tree (`find`, `du`, `rsync`, `ls -R`) go down before they go on, in the order of
//! the listings. Owns which directory that order has next, how often it was right, and one directory that another
//! core has built meanwhile. Promises that such a directory is what would be built at the moment it is taken:
//! nothing was written since it was read, and nothing local changes it. Never: takes anything into the view by
//! itself.

use std::sync::Arc;

use mega_proto::NodeKind;
use mega_store::{NodeRow, Store, StoreError, Subject};
use mega_tree::directory::NewSuffix;
use mega_tree::node::Shape;
use mega_tree::{Child, Decryptor, Directory};

use crate::shared::Shared;
use crate::state::State;

/// Directories in a row that were foreseen before one is prepared.
const STEPS: u32 = 2;
/// Entries that are passed over in search of the next directory.
const LOOK: usize = 4096;
/// Larger directories are not kept ready: nobody may come for them.
const LARGEST: usize = 10_000;
/// Levels that are gone up in search of it.
const UP: usize = 64;

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    expected: Option<Subject>,
    hits: u32,
    is_busy: bool,
    /// Counts what makes everything prepared worthless.
    epoch: u64,
    prepared: Option<Prepared>,
}

#[derive(Debug)]
struct Prepared {
    subject: Subject,
    /// As the store counts its transactions.
    version: u64,
    directory: Directory,
    assigned: Vec<NewSuffix>,
}

impl Ahead {
    /// What was prepared is no longer what would be built, for reasons that the store does not know.
    pub(crate) fn forget(&mut self) {
        self.epoch += 1;
        self.prepared = None;
    }

    /// The directory `opened` was loaded, and after it comes `next`: whether that is to be prepared.
    fn note(&mut self, opened: Subject, next: Option<Subject>) -> bool {
        self.hits = if self.expected == Some(opened) {
            self.hits.saturating_add(1)
        } else {
            0
        };
        self.expected = next;
        next.is_some() && self.hits >= STEPS && !self.is_busy
    }

    fn take(&mut self, subject: Subject) -> Option<Prepared> {
        self.prepared.take_if(|ready| ready.subject == subject)
    }
}

/// The children of a node in the order of arrival, but those that `is_shown` leaves out.
pub(crate) fn children(
    store: &Store,
    decryptor: &Decryptor,
    parent: mega_proto::NodeHandle,
    is_shown: impl Fn(&NodeRow) -> bool,
) -> Result<Vec<Child>, StoreError> {
    let mut arrived = Vec::new();
    store.each_child(parent, |row| {
        if !matches!(row.kind, NodeKind::File | NodeKind::Folder) || !is_shown(&row) {
            return;
        }
        let (stored, facts) = decryptor.list(&row);
        let child = Child {
            subject: Subject::Node(row.handle),
            stored,
            suffix: row.suffix,
            facts,
        };
        arrived.push((row.arrival, row.ts, row.handle, child));
    })?;
    arrived.sort_unstable_by_key(|(arrival, ts, handle, _)| (*arrival, *ts, *handle));
    Ok(arrived.into_iter().map(|(_, _, _, child)| child).collect())
}

impl State {
    /// A directory that was prepared, if it is still what would be built.
    pub(crate) fn take_prepared(
        &mut self,
        subject: Subject,
    ) -> Option<(Directory, Vec<NewSuffix>)> {
        let ready = self.ahead.take(subject)?;
        let is_true = self.is_unchanged() && self.store.version() == Some(ready.version);
        is_true.then_some((ready.directory, ready.assigned))
    }

    fn is_unchanged(&self) -> bool {
        self.changes.len() == 0 && self.changes.doomed().next().is_none()
    }

    /// The directory `opened` is being listed: which one is to be prepared meanwhile.
    pub(crate) fn look_ahead(&mut self, opened: Subject) -> Option<Subject> {
        let next = self.next_directory(opened);
        if let Some((next, parent)) = next {
            self.parents.get_mut().put(next, parent);
        }
        let next = next.map(|(next, _)| next);
        if !self.ahead.note(opened, next) || !self.is_unchanged() {
            return None;
        }
        // The mounted folder is built in another way: a name is reserved in it.
        next.filter(|next| !self.dirs.contains(next) && *next != self.root)
    }

    /// The directory that comes after this one when all are listed, the inner ones first, and where it is.
    fn next_directory(&self, opened: Subject) -> Option<(Subject, Subject)> {
        let (mut at, mut after) = (opened, 0);
        for _ in 0..UP {
            let directory = self.dirs.peek(&at)?;
            let folder = match directory.folders() {
                0 => None,
                _ => directory
                    .after(after)
                    .take(LOOK)
                    .find(|entry| entry.facts.shape == Shape::Directory),
            };
            if let Some(folder) = folder {
                return Some((folder.subject, at));
            }
            let parent = self.parent(at).ok()??;
            after = self.dirs.peek(&parent)?.of(at)?.cookie;
            at = parent;
        }
        None
    }
}

impl Shared {
    /// Prepares a directory, on another thread.
    pub(crate) fn prepare(self: &Arc<Self>, subject: Subject) {
        let Subject::Node(handle) = subject else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (epoch, naming) = {
            let mut state = self.lock();
            state.ahead.is_busy = true;
            (state.ahead.epoch, state.naming_in(subject))
        };
        let shared = Arc::clone(self);
        runtime.spawn_blocking(move || {
            let built = shared.store.version().and_then(|version| {
                let children = children(&shared.store, &shared.decryptor, handle, |_| true).ok()?;
                if children.len() > LARGEST {
                    return None;
                }
                let (directory, assigned) = Directory::build_as(children, naming, None);
                Some(Prepared {
                    subject,
                    version,
                    directory,
                    assigned,
                })
            });
            let mut state = shared.lock();
            state.ahead.is_busy = false;
            if state.ahead.epoch == epoch {
                state.ahead.prepared = built;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_walk_that_is_foreseen_is_prepared_for() {
        let node = |number| Subject::Node(mega_proto::NodeHandle::from_u48(number));
        let mut ahead = Ahead::default();
        assert!(!ahead.note(node(1), Some(node(2))));
        assert!(!ahead.note(node(2), Some(node(3))), "one could be chance");
        assert!(ahead.note(node(3), Some(node(4))));
        assert!(!ahead.note(node(7), Some(node(8))), "somewhere else");
        assert!(!ahead.note(node(8), Some(node(9))));
        assert!(ahead.note(node(9), Some(node(10))));
        assert!(!ahead.note(node(10), None), "the end");
    }
}
