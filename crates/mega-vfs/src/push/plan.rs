//! What can be sent now.

use std::sync::Arc;

use mega_api::ApiError;
use mega_crypto::MasterKey;
use mega_proto::{NodeHandle, NodeKind};
use mega_store::{ChangeRow, Place, Subject};

use super::attributes::{apply_wishes, set_file_time, set_folder_time};
use super::removals::Removals;
use super::{Pusher, Step, upload};
use crate::shared::Shared;
use crate::state::State;

/// Most commands in one request.
const BATCH: usize = 300;
/// Rows looked at without letting go of the lock.
const SLICE: usize = 2_000;

impl Shared {
    pub(crate) fn master_key(&self) -> Result<MasterKey, ApiError> {
        self.api
            .session()
            .map(|session| session.master_key.clone())
            .ok_or(ApiError::NoSession)
    }

    /// Collects what is ready, marks it as in flight, and journals what creates nodes.
    pub(crate) fn plan_steps(&self, pusher: &mut Pusher, now: i64) -> Vec<Step> {
        let Ok(master) = self.master_key() else {
            return Vec::new();
        };
        let mut steps = Vec::new();
        for finished in std::mem::take(&mut pusher.finished) {
            let (subject, file) = (finished.subject, Arc::clone(&finished.file));
            match self.freeze_file(&master, finished) {
                Ok(Some(step)) => steps.push(step),
                Ok(None) => {}
                Err(errno) => {
                    tracing::error!(%errno, "a finished upload could not be journalled");
                    let mut content = file.lock();
                    content.attempt = None;
                    self.let_go(&file, &mut content);
                    drop(content);
                    let subject = self.lock().changes.present_subject(subject);
                    self.put_off(pusher, subject, &errno.to_string(), upload::Hope::Passing);
                }
            }
        }
        for subject in std::mem::take(&mut pusher.copies) {
            match self.freeze_copy(pusher, subject) {
                Ok(Some(step)) => steps.push(step),
                Ok(None) => {}
                Err(errno) => tracing::error!(%errno, "a copy could not be journalled"),
            }
        }
        if now >= pusher.doomed_at {
            self.plan_doomed(&mut steps);
        }
        // In slices, so that a long queue does not hold up those who look names up.
        while steps.len() < BATCH {
            let mut state = self.lock();
            let due = state.due_names(now, self.is_stopping(), SLICE);
            if due.is_empty() {
                break;
            }
            let mut removals = Removals::default();
            for subject in due {
                if steps.len() >= BATCH {
                    break;
                }
                if let Some(step) = self.plan_one(&mut state, &master, subject, &mut removals) {
                    for subject in step.subjects() {
                        state.changes.set_in_flight(subject, true);
                    }
                    steps.push(step);
                }
            }
            let back = state.bring_back(removals);
            drop(state);
            match back {
                Ok(told) => self.notify(told),
                Err(errno) => tracing::error!(%errno, "a removal could not be taken back"),
            }
        }
        steps
    }

    /// What has been replaced goes, once nothing shows its content any more.
    fn plan_doomed(&self, steps: &mut Vec<Step>) {
        let mut state = self.lock();
        let target = if self.config.hard_delete {
            None
        } else {
            state.roots.rubbish
        };
        let room = BATCH.saturating_sub(steps.len());
        let ready: Vec<NodeHandle> = state
            .changes
            .doomed()
            .filter(|handle| !state.changes.is_in_flight(Subject::Node(*handle)))
            .filter(|handle| !state.changes.is_base(*handle))
            .take(room)
            .collect();
        for handle in ready {
            state.changes.set_in_flight(Subject::Node(handle), true);
            let attrs = target.and_then(|_| state.binned_attributes(handle));
            steps.push(Step::Remove {
                handle,
                target,
                attrs,
            });
        }
    }

    /// The next step for one row; without one it is stalled.
    fn plan_one(
        &self,
        state: &mut State,
        master: &MasterKey,
        subject: Subject,
        removals: &mut Removals,
    ) -> Option<Step> {
        if state.changes.is_in_flight(subject) {
            // It went into the tree of a folder above.
            return None;
        }
        let row = state.changes.get(subject)?;
        let step = match (subject, row.removed, row.kind) {
            (Subject::Node(handle), true, _) => state.plan_removal(self, handle, removals),
            (Subject::Node(_), false, _) => {
                let row = row.clone();
                state.plan_edit(&row)
            }
            (Subject::Local(_), true, _) => {
                let row = row.clone();
                drop_removed_local(self, state, &row);
                None
            }
            (Subject::Local(_), false, NodeKind::Folder) => {
                let row = row.clone();
                state.plan_folders(self, master, &row)
            }
            (Subject::Local(_), false, _) => None,
        };
        if step.is_none() && state.changes.get(subject).is_some() {
            state.changes.stall(subject);
        }
        step
    }
}

/// A file made here and removed before it was ever sent, closed by now.
fn drop_removed_local(shared: &Shared, state: &mut State, row: &ChangeRow) {
    let is_open = state
        .inodes
        .known_ino(row.subject)
        .and_then(|ino| state.files.get(&ino))
        .is_some_and(|file| !file.is_orphan());
    if is_open {
        return;
    }
    if state.commit(Vec::new(), &[row.subject]).is_ok()
        && let Some(content) = &row.content
    {
        crate::ops::drop_staging(&shared.store, &content.layers);
    }
}

impl State {
    fn plan_edit(&mut self, row: &ChangeRow) -> Option<Step> {
        let handle = row.subject.node()?;
        let (node_row, node) = self.node(handle).ok()??;
        let target = match &row.place {
            Some(Place {
                parent: Subject::Node(parent),
                ..
            }) => {
                self.node_row(*parent).ok()??;
                Some(*parent).filter(|parent| Some(*parent) != node_row.parent)
            }
            Some(Place {
                parent: Subject::Local(_),
                ..
            }) => return None,
            None => None,
        };
        if target.is_some_and(|target| self.lacks_key(target)) {
            return None;
        }
        let attrs = match (node.attributes, &node.key) {
            (Some(old), Some(key)) => {
                let mut wanted = old.clone();
                apply_wishes(&mut wanted, row);
                match row.kind {
                    NodeKind::File => set_file_time(&mut wanted, row, key.as_bytes()),
                    _ => set_folder_time(&mut wanted, row),
                }
                if let (Some(target), Some(parent)) = (target, node_row.parent) {
                    self.note_origin(&mut wanted, handle, parent, target);
                }
                if wanted == old {
                    None
                } else {
                    wanted.encrypt(&key.attr_key()).ok()
                }
            }
            _ => None,
        };
        // A time that was set while its content was on its way, where only content is taken: it goes.
        let attrs = attrs.filter(|_| self.takes_attributes(handle));
        let cr = target.and_then(|target| self.moved_keys(handle, target));
        Some(Step::Edit {
            row: row.clone(),
            attrs,
            target,
            cr,
        })
    }
}
