//! Local changes that lost their ground: the node they edit, or the folder they are in, was removed,
//! overwritten or made by somebody else. Bytes are always kept; a mere name or attribute goes with its
//! node (the table in docs/SEMANTICS.md).

use std::collections::{HashMap, HashSet};

use mega_proto::{ActionPacket, NodeHandle, NodeKind, Packet};
use mega_store::{ChangeRow, ChangeState, NodeRow, Place, Subject};
use mega_tree::StoredName;
use mega_tree::truth::Delta;
use serde_json::{Map, Value};

use crate::aside::is_set_aside;
use crate::calendar::date;
use crate::changes::{BINNED, SUFFIX, clear_attribute, row_suffix};
use crate::errno::store_errno;
use crate::push::Put;
use crate::state::State;
use crate::types::{OpResult, Timestamp, now_ms};
use crate::zone::{is_binned, is_forever};

impl State {
    /// Local changes whose node was deleted, thrown into the bin or overwritten by somebody else.
    pub(super) fn reground(
        &mut self,
        delta: &Delta,
        after: &HashMap<NodeHandle, Option<NodeRow>>,
    ) -> OpResult<()> {
        self.keep_bases(delta)?;
        for (handle, now) in after {
            let subject = Subject::Node(*handle);
            let Some(row) = self.changes.get(subject).cloned() else {
                if now.is_none() {
                    self.remember_lost(*handle, delta);
                }
                continue;
            };
            let before = delta.touched.get(handle).and_then(Option::as_ref);
            let fate = match now {
                None => Fate::Gone,
                Some(now) => self.fate_of(now)?,
            };
            let is_new = before
                .is_none_or(|before| now.as_ref().is_none_or(|now| now.parent != before.parent));
            if fate == Fate::Present && is_new && row.removed && is_forever(&row) {
                // Somebody took it out of the bin before it was deleted: that can be done again, the
                // other could not be undone.
                self.commit(Vec::new(), &[subject])?;
                continue;
            }
            if fate == Fate::Present || !is_new {
                continue;
            }
            self.lose_ground(row, before, fate)?;
        }
        let mut gone = HashSet::new();
        for now in after.values().flatten() {
            if now.kind != NodeKind::File && self.is_gone(now.handle)? {
                gone.insert(now.handle);
            }
        }
        if !gone.is_empty() {
            self.reground_below(&gone)?;
        }
        self.recreate_folders(delta)
    }

    /// An open file was deleted: whoever has it open may still write.
    fn remember_lost(&mut self, handle: NodeHandle, delta: &Delta) {
        let is_open = self
            .inodes
            .known_ino(Subject::Node(handle))
            .is_some_and(|ino| self.files.contains_key(&ino));
        if is_open && let Some(Some(before)) = delta.touched.get(&handle) {
            self.lost.insert(handle, before.clone());
        }
    }

    /// New content was written to a node that has lost its ground since it was opened.
    pub(crate) fn settle_new_content(&mut self, subject: Subject) -> OpResult<()> {
        let (Subject::Node(handle), Some(row)) = (subject, self.changes.get(subject).cloned())
        else {
            return Ok(());
        };
        if row.removed {
            return Ok(());
        }
        let now = self.node_row(handle)?;
        let fate = match &now {
            None => Fate::Gone,
            Some(now) => match self.fate_of(now)? {
                // Perhaps we are just taking it out of the bin.
                Fate::Gone => self.fate(handle)?,
                fate => fate,
            },
        };
        if fate == Fate::Present {
            return Ok(());
        }
        let before = now.or_else(|| self.lost.remove(&handle));
        self.lose_ground(row, before.as_ref(), fate)?;
        self.recreate_folders(&Delta::default())
    }

    /// Folders were thrown into the bin: what lies below them is gone too, but no packet names it.
    fn reground_below(&mut self, gone: &HashSet<NodeHandle>) -> OpResult<()> {
        let rows: Vec<ChangeRow> = self
            .changes
            .iter()
            .filter(|row| !row.removed && matches!(row.subject, Subject::Node(_)))
            .filter(|row| !is_binned(row))
            .cloned()
            .collect();
        for row in rows {
            let Some(now) = row.subject.node().map(|handle| self.node_row(handle)) else {
                continue;
            };
            let Some(now) = now? else { continue };
            if !self.is_below(&now, gone)? {
                continue;
            }
            // It lies in something that we have taken out of there.
            if row.place.is_none() && self.is_shown(now.handle)? {
                continue;
            }
            // What was only moved out of there is taken out of the bin again.
            let is_moved_out = match row.place.as_ref().map(|place| place.parent) {
                None => false,
                Some(Subject::Local(_)) => true,
                Some(Subject::Node(parent)) => !self.is_gone(parent)?,
            };
            if row.content.is_some() || !is_moved_out {
                self.lose_ground(row, Some(&now), Fate::Gone)?;
            }
        }
        Ok(())
    }

    /// What was made here in a folder that somebody else removed brings the folder back. What we have thrown
    /// away with its folder does so only when there is no such folder any more, not even in the bin.
    fn recreate_folders(&mut self, delta: &Delta) -> OpResult<()> {
        let mut gone = Vec::new();
        for parent in self.changes.parents() {
            let Subject::Node(handle) = parent else {
                continue;
            };
            let is_there = || matches!(self.node_row(handle), Ok(Some(_)));
            let mut placed = self.changes.placed_in(parent).filter(|row| !row.removed);
            let holds = placed.any(|row| !is_binned(row) || !is_there());
            if holds && self.is_gone(handle)? && !self.changes.is_in_flight(parent) {
                gone.push(handle);
            }
        }
        for handle in gone {
            self.recreate(handle, delta, 0)?;
        }
        Ok(())
    }

    /// Whether a node lies below one of these folders, in truth.
    fn is_below(&self, row: &NodeRow, folders: &HashSet<NodeHandle>) -> OpResult<bool> {
        let mut at = row.parent;
        for _ in 0..4096 {
            let Some(handle) = at else { return Ok(false) };
            if folders.contains(&handle) {
                return Ok(true);
            }
            at = self.node_row(handle)?.and_then(|row| row.parent);
        }
        Ok(false)
    }

    /// Whether a node is where users see it.
    pub(crate) fn is_shown(&self, handle: NodeHandle) -> OpResult<bool> {
        Ok(self.fate(handle)? == Fate::Present)
    }

    fn is_gone(&self, handle: NodeHandle) -> OpResult<bool> {
        Ok(self.fate(handle)? == Fate::Gone)
    }

    /// What has become of a node, by its handle. What we have moved has not lost its ground: Mega only does not
    /// know yet where it is, and a folder that is gone comes back for what was moved into it.
    fn fate(&self, handle: NodeHandle) -> OpResult<Fate> {
        let Some(row) = self.node_row(handle)? else {
            return Ok(Fate::Gone);
        };
        if self.is_moved(Subject::Node(handle)) {
            return Ok(Fate::Present);
        }
        self.fate_of(&row)
    }

    /// Whether we have moved or renamed it, and Mega does not know yet; or it is only here.
    pub(crate) fn is_moved(&self, subject: Subject) -> bool {
        let change = self.changes.get(subject);
        change.is_some_and(|change| change.place.is_some())
    }

    /// Makes a local folder in the place of one that is gone, and of the ones above it.
    fn recreate(&mut self, handle: NodeHandle, delta: &Delta, depth: u32) -> OpResult<Subject> {
        let old = Subject::Node(handle);
        if let Some(subject) = self.recreated.get(&handle)
            && self.changes.get(*subject).is_some()
        {
            return Ok(*subject);
        }
        let before = match delta.touched.get(&handle) {
            Some(Some(before)) => Some(before.clone()),
            _ => self.node_row(handle)?,
        };
        let parent = match before.as_ref().and_then(|row| row.parent) {
            Some(parent) if Some(parent) == self.roots.rubbish || depth > 512 => self.root,
            Some(parent) if self.is_gone(parent)? => self.recreate(parent, delta, depth + 1)?,
            Some(parent) => Subject::Node(parent),
            None => self.root,
        };
        let name = before.as_ref().map(|row| self.stored_of(row));
        let name = name
            .as_ref()
            .and_then(StoredName::as_named)
            .unwrap_or("recovered")
            .to_owned();
        let id = self
            .store
            .next_local_id()
            .map_err(|error| store_errno(&error))?;
        let new = Subject::Local(id);
        tracing::info!(target: "megamount::journal", folder = %handle, to = ?new, "folder made again for what is in it");
        let folder = ChangeRow {
            subject: new,
            kind: NodeKind::Folder,
            place: Some(Place { parent, name }),
            attributes: None,
            content: None,
            removed: false,
            replaces: None,
            state: ChangeState::Pending { due_ms: now_ms() },
            since_ms: now_ms(),
        };
        let mut rows = vec![folder];
        rows.extend(self.retargeted(old, new));
        for row in &mut rows {
            clear_attribute(row, BINNED);
        }
        self.commit(rows, &[])?;
        self.recreated.insert(handle, new);
        self.forget_dir(old);
        // The name is free for the new folder only when the old one has left it.
        self.take_out(parent, old);
        self.inodes.rebind(old, new);
        Self::show(self, parent, new)?;
        Ok(new)
    }

    /// The rows placed in `old`, placed in `new`; what was refused there has another chance.
    pub(crate) fn retargeted(&self, old: Subject, new: Subject) -> Vec<ChangeRow> {
        let move_over = |row: &ChangeRow| {
            let mut row = row.clone();
            if let Some(place) = &mut row.place {
                place.parent = new;
            }
            if matches!(row.state, ChangeState::Parked { .. }) && !is_set_aside(&row) {
                row.state = ChangeState::Pending { due_ms: now_ms() };
            }
            row
        };
        self.changes.placed_in(old).map(move_over).collect()
    }

    /// Drops a directory from memory; it is built anew when asked for.
    pub(crate) fn forget_dir(&mut self, subject: Subject) {
        self.forget_listing(subject);
        self.ahead.forget();
        if let Some(gone) = self.dirs.pop(&subject) {
            self.loaded_entries = self.loaded_entries.saturating_sub(gone.len() + 1);
        }
    }

    /// The same with all of them.
    pub(crate) fn forget_dirs(&mut self) {
        self.dirs.clear();
        self.ahead.forget();
        self.listed.forget_all();
        self.loaded_entries = 0;
    }

    /// Somebody else made the folder that we were about to make: ours becomes theirs.
    pub(crate) fn merge_folder(&mut self, parent: Subject, row: &NodeRow) -> OpResult<bool> {
        let StoredName::Named(name) = self.stored_of(row) else {
            return Ok(false);
        };
        let ours = self.changes.placed_in(parent).find(|ours| {
            matches!(ours.subject, Subject::Local(_))
                && ours.kind == NodeKind::Folder
                && !ours.removed
                && ours.place.as_ref().is_some_and(|place| place.name == name)
                && !self.changes.is_in_flight(ours.subject)
        });
        let Some((old, number)) = ours.map(|ours| (ours.subject, row_suffix(ours))) else {
            return Ok(false);
        };
        let new = Subject::Node(row.handle);
        tracing::info!(target: "megamount::journal", from = ?old, to = ?new, "folder made elsewhere too: merged");
        if number > 0 {
            // It is shown under ours.
            self.store
                .write(|tx| tx.set_suffix(row.handle, Some(number)))
                .map_err(|error| store_errno(&error))?;
        }
        let rows = self.retargeted(old, new);
        self.commit(rows, &[old])?;
        self.forget_dir(old);
        self.forget_dir(new);
        let facts = self.decryptor.open(row).facts;
        if let Some(directory) = self.dirs.peek_mut(&parent) {
            directory.resubject(old, new, facts);
        }
        self.inodes.rebind(old, new);
        Ok(true)
    }

    /// What has become of a node where Mega has it.
    fn fate_of(&self, row: &NodeRow) -> OpResult<Fate> {
        let Some(parent) = row.parent else {
            return Ok(Fate::Present);
        };
        if Some(parent) == self.roots.rubbish {
            return Ok(Fate::Gone);
        }
        if let Some(parent_row) = self.node_row(parent)?
            && parent_row.kind == NodeKind::File
        {
            return Ok(Fate::Overwritten);
        }
        self.fate_in(Subject::Node(parent))
    }

    /// What has become of something in this folder. Below what we have moved, out of the bin or into it, nothing
    /// has lost its ground.
    fn fate_in(&self, folder: Subject) -> OpResult<Fate> {
        let mut at = folder;
        for _ in 0..4096 {
            if self.is_moved(at) {
                return Ok(Fate::Present);
            }
            let Subject::Node(handle) = at else {
                return Ok(Fate::Present);
            };
            match self.node_row(handle)?.and_then(|row| row.parent) {
                None => return Ok(Fate::Present),
                Some(parent) if Some(parent) == self.roots.rubbish => return Ok(Fate::Gone),
                Some(parent) => at = Subject::Node(parent),
            }
        }
        Ok(Fate::Gone)
    }

    /// New content is kept as a new file; a mere name or attribute goes with the node.
    fn lose_ground(
        &mut self,
        row: ChangeRow,
        before: Option<&NodeRow>,
        fate: Fate,
    ) -> OpResult<()> {
        let old = row.subject;
        let keeps = row.content.is_some() && !row.removed;
        if !keeps {
            tracing::info!(target: "megamount::journal", subject = ?old, "change dropped: its node is gone");
            if let Some(place) = &row.place {
                let parent = place.parent;
                self.take_out(parent, old);
            }
            self.commit(Vec::new(), &[old])?;
            self.drop_content_of(&row);
            return Ok(());
        }
        let place = match (&row.place, before) {
            (Some(place), _) => Some(place.clone()),
            (None, Some(before)) => self.place_of(before)?,
            (None, None) => None,
        };
        let mut place = place.unwrap_or(Place {
            parent: self.root,
            name: "recovered".to_owned(),
        });
        if fate == Fate::Overwritten {
            place.name = conflict_name(&place.name);
        }
        let id = self
            .store
            .next_local_id()
            .map_err(|error| store_errno(&error))?;
        let new = Subject::Local(id);
        let parent = place.parent;
        tracing::info!(target: "megamount::journal", from = ?old, to = ?new, "local content kept as a new file");
        self.take_out(parent, old);
        let mut moved = ChangeRow {
            subject: new,
            place: Some(place),
            state: ChangeState::Pending { due_ms: now_ms() },
            ..row
        };
        if fate == Fate::Overwritten {
            clear_attribute(&mut moved, SUFFIX);
        }
        if let Some(before) = before {
            self.inherit(&mut moved, before);
        }
        // An upload or a put that is under way makes the node of the new row.
        let puts = self.changes.hand_over(old, new);
        if !puts.is_empty() {
            self.store
                .write(|tx| {
                    puts.iter()
                        .filter_map(Put::row)
                        .try_for_each(|row| tx.put_attempt(&row))
                })
                .map_err(|error| store_errno(&error))?;
        }
        self.commit(vec![moved], &[old])?;
        // Taken out of the bin and then written: what it was stays there, and is shown there again.
        if let Some(before) = old.node().map(|handle| self.node_row(handle))
            && let Some(folder) = before?.and_then(|row| row.parent)
        {
            self.forget_dir(Subject::Node(folder));
        }
        self.inodes.rebind(old, new);
        Self::show(self, parent, new)?;
        Ok(())
    }

    /// New content keeps what its file was: executable bit, extended attributes, members we do not know.
    fn inherit(&self, row: &mut ChangeRow, before: &NodeRow) {
        let Some(attributes) = self.decryptor.open(before).attributes else {
            return;
        };
        let Ok(members) = serde_json::from_str::<Map<String, Value>>(&attributes.to_json()) else {
            return;
        };
        let wishes = row.attributes.get_or_insert_default();
        for (name, value) in members {
            // The name is the row's, and the rest of these tell about the old bytes.
            if !matches!(name.as_str(), "n" | "c" | "c0" | "d" | "mmn") {
                wishes.entry(name).or_insert(value);
            }
        }
    }

    /// Staged bytes of a row that is gone; while its file is open they live until its release.
    pub(crate) fn drop_content_of(&self, row: &ChangeRow) {
        let is_open = self
            .inodes
            .known_ino(row.subject)
            .is_some_and(|ino| self.files.contains_key(&ino));
        if let Some(content) = &row.content
            && !is_open
        {
            crate::ops::drop_staging(&self.store, &content.layers);
        }
    }

    /// Folder and name of a node; for an old version those of the file it belongs to.
    fn place_of(&self, row: &NodeRow) -> OpResult<Option<Place>> {
        let name = self.stored_of(row);
        let name = name.as_named().unwrap_or("recovered").to_owned();
        let mut at = row.parent;
        for _ in 0..4096 {
            let Some(parent) = at else { return Ok(None) };
            match self.node_row(parent)? {
                Some(above) if above.kind == NodeKind::File => at = above.parent,
                _ => {
                    let parent = Subject::Node(parent);
                    return Ok(Some(Place { parent, name }));
                }
            }
        }
        Ok(None)
    }

    /// Our new version of `over` came too late: somebody else's is the head, ours a file beside it.
    pub(crate) fn is_overtaken(&self, over: NodeHandle, ours: NodeHandle) -> OpResult<bool> {
        let parent = self.node_row(over)?.and_then(|row| row.parent);
        let Some(parent) = parent.filter(|parent| *parent != ours) else {
            return Ok(false);
        };
        Ok(self
            .node_row(parent)?
            .is_some_and(|row| row.kind == NodeKind::File))
    }

    /// The place of a file that lost such a race: its folder, under the conflict name.
    pub(crate) fn conflict_place(&self, ours: &NodeRow) -> OpResult<Option<Place>> {
        Ok(self.place_of(ours)?.map(|place| Place {
            name: conflict_name(&place.name),
            ..place
        }))
    }

    /// A packet tells that a version of ours lost its race after it was confirmed: it gets out of the way.
    pub(super) fn settle_race(&mut self, over: NodeHandle, now: &NodeRow) -> OpResult<()> {
        let Some(ours) = self.put_over.get(&over).copied() else {
            return Ok(());
        };
        if now.parent == Some(ours) || !self.is_overtaken(over, ours)? {
            return Ok(());
        }
        self.put_over.remove(&over);
        let Some(node) = self.node_row(ours)? else {
            return Ok(());
        };
        let subject = Subject::Node(ours);
        let mut row = self.row_for_edit(subject, NodeKind::File);
        if row.removed || row.place.is_some() || self.fate_of(&node)? != Fate::Present {
            return Ok(());
        }
        let Some(place) = self.conflict_place(&node)? else {
            return Ok(());
        };
        tracing::warn!(target: "megamount::journal", node = %ours, "somebody else replaced the file first: ours gets another name");
        let parent = place.parent;
        row.place = Some(place);
        self.take_out(parent, subject);
        self.commit(vec![row], &[])?;
        Self::show(self, parent, subject)?;
        Ok(())
    }

    /// Once our own packet has come, whoever was first is known.
    pub(super) fn forget_races(&mut self, packets: &[Packet]) {
        if self.put_over.is_empty() {
            return;
        }
        for packet in packets {
            if let ActionPacket::Nodes { nodes, .. } = &packet.action
                && self.own.is_own(packet)
            {
                self.put_over
                    .retain(|_, ours| !nodes.iter().any(|node| node.handle == *ours));
            }
        }
    }

    /// Brings back the folder that a row is to be in, when somebody else removed it.
    pub(crate) fn ensure_parent(&mut self, parent: Subject) -> OpResult<()> {
        if let Subject::Node(handle) = parent
            && self.is_gone(handle)?
        {
            self.recreate(handle, &Delta::default(), 0)?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Present,
    Gone,
    Overwritten,
}

/// `name (conflict DATE HOST).ext`
fn conflict_name(name: &str) -> String {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let mark = format!(" (conflict {} {host})", date(Timestamp::now().secs));
    match name.rfind('.') {
        Some(at) if at > 0 => {
            let (stem, extension) = name.split_at(at);
            format!("{stem}{mark}{extension}")
        }
        _ => format!("{name}{mark}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflict_names_keep_the_extension() {
        let name = conflict_name("report.odt");
        assert!(
            name.starts_with("report (conflict ") && name.ends_with(").odt"),
            "{name}"
        );
        assert!(conflict_name(".bashrc").starts_with(".bashrc (conflict "));
    }
}
