//! What can be removed on the server, and in as few commands as can be. A removed folder into which somebody
//! else has put something comes back: what nobody here has seen cannot have been removed.

use std::collections::HashMap;

use mega_proto::{NodeHandle, NodeKind};
use mega_store::{NodeRow, Subject};
use mega_tree::Child;

use super::Step;
use crate::shared::Shared;
use crate::state::{Invalidation, State};
use crate::types::OpResult;
use crate::zone::is_forever;

/// What is known about removed folders while one slice is planned: ten thousand files of one folder
/// ask the same question.
#[derive(Default)]
pub(super) struct Removals {
    /// Whether everything below is removed.
    whole: HashMap<NodeHandle, bool>,
    /// Removed folders in which something is that was never removed.
    kept: Vec<NodeHandle>,
}

impl State {
    pub(super) fn plan_removal(
        &mut self,
        shared: &Shared,
        handle: NodeHandle,
        removals: &mut Removals,
    ) -> Option<Step> {
        let row = self.node_row(handle).ok()??;
        // Whoever took over the name is placed first.
        if self.changes.replacer(handle).is_some() {
            return None;
        }
        let change = self.changes.get(Subject::Node(handle));
        // Somebody may have restored meanwhile what was removed in the bin: then it goes back there.
        let is_for_good =
            change.is_some_and(is_forever) && (self.is_in_bin(handle) || self.is_in_share(handle));
        let hard = shared.config.hard_delete || is_for_good;
        // A copy of it is not on the server yet.
        if self.changes.is_base(handle) {
            return None;
        }
        if let Some(parent) = row.parent {
            let parent_goes = self
                .changes
                .get(Subject::Node(parent))
                .is_some_and(|change| change.removed);
            if parent_goes && !hard && self.all_removed(parent, removals, 0) {
                // It goes with its folder.
                return None;
            }
        }
        if row.kind != NodeKind::File && !self.can_go_whole(handle, hard, removals) {
            if self.has_others(handle) {
                removals.kept.push(handle);
            }
            return None;
        }
        let is_open = self
            .inodes
            .known_ino(Subject::Node(handle))
            .is_some_and(|ino| self.files.contains_key(&ino));
        if hard && is_open {
            // The bytes are still being read.
            return None;
        }
        let target = if hard {
            None
        } else {
            Some(self.roots.rubbish?)
        };
        let attrs = target.and_then(|_| self.binned_attributes(handle));
        Some(Step::Remove {
            handle,
            target,
            attrs,
        })
    }

    /// Whether a removed folder can be sent away as one.
    fn can_go_whole(&self, handle: NodeHandle, hard: bool, removals: &mut Removals) -> bool {
        if hard {
            return self
                .store
                .children(handle)
                .is_ok_and(|children| children.is_empty());
        }
        self.all_removed(handle, removals, 0)
    }

    /// Whether something is in a folder that nothing here is to be done with.
    fn has_others(&self, folder: NodeHandle) -> bool {
        let is_other = |child: &NodeRow| {
            self.changes.get(Subject::Node(child.handle)).is_none()
                && !self.changes.is_doomed(child.handle)
                && self.changes.doubted(child).is_none()
        };
        self.store
            .children(folder)
            .is_ok_and(|children| children.iter().any(is_other))
    }

    /// Takes the removals back that were found to be of no use, and those of the folders around them.
    pub(super) fn bring_back(&mut self, removals: Removals) -> OpResult<Vec<Invalidation>> {
        let mut told = Vec::new();
        for folder in removals.kept {
            let mut back = Vec::new();
            let mut next = Some(folder);
            while let Some(handle) = next.take() {
                let subject = Subject::Node(handle);
                let is_removed = self.changes.get(subject).is_some_and(|row| row.removed);
                if is_removed && !self.changes.is_in_flight(subject) {
                    back.push(handle);
                    next = self.node_row(handle)?.and_then(|row| row.parent);
                }
            }
            let subjects: Vec<Subject> = back.iter().copied().map(Subject::Node).collect();
            self.commit(Vec::new(), &subjects)?;
            for handle in back {
                tracing::info!(target: "megamount::journal", folder = %handle, "removal taken back: somebody has put something there");
                let Some((row, node)) = self.node(handle)? else {
                    continue;
                };
                let Some(parent) = row.parent.map(Subject::Node) else {
                    continue;
                };
                if self.inodes.kernel_ino(parent).is_some() {
                    // So that it can be told the name.
                    self.dir(parent)?;
                }
                let child = Child {
                    subject: Subject::Node(handle),
                    stored: node.name,
                    suffix: row.suffix,
                    facts: node.facts,
                };
                self.show_child(&mut told, parent, child)?;
            }
        }
        Ok(told)
    }

    /// Whether everything below a folder is removed by us, in truth and in the overlay.
    fn all_removed(&self, handle: NodeHandle, removals: &mut Removals, depth: u32) -> bool {
        if let Some(known) = removals.whole.get(&handle) {
            return *known;
        }
        let whole = self.is_all_removed(handle, removals, depth);
        removals.whole.insert(handle, whole);
        whole
    }

    fn is_all_removed(&self, handle: NodeHandle, removals: &mut Removals, depth: u32) -> bool {
        if depth > 512
            || self
                .changes
                .placed_in(Subject::Node(handle))
                .any(|row| !row.removed)
        {
            return false;
        }
        let Ok(children) = self.store.children(handle) else {
            return false;
        };
        children.iter().all(|child| {
            let removed = self
                .changes
                .get(Subject::Node(child.handle))
                .is_some_and(|row| row.removed && !self.changes.is_in_flight(row.subject))
                && self.changes.replacer(child.handle).is_none();
            removed
                && (child.kind == NodeKind::File
                    || self.all_removed(child.handle, removals, depth + 1))
        })
    }
}
