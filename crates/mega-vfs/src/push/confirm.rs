//! The server did it: one transaction brings truth, change row and journal in line, then memory.

use std::sync::Arc;

use mega_proto::{ErrorCode, NodeHandle, NodeKind, RawNode};
use mega_store::{ChangeRow, ChangeState, FailPoint, NodeRow, Place, Subject};
use mega_transfer::RemoteSource;
use mega_tree::Child;
use mega_tree::spelling::suffixed;
use mega_tree::truth::row_from_raw;
use serde_json::Value;

use super::journal::Put;
use super::rest::{less_sent, remaining};
use super::send::nodes_of;
use super::upload::{Hope, OnServer};
use super::{Finished, Pusher, Step};
use crate::changes::row_suffix;
use crate::errno::store_errno;
use crate::file::Base;
use crate::shared::Shared;
use crate::state::{Invalidation, State};
use crate::types::{OpResult, now_ms};

/// Pause after the server refused to remove a replaced node, ms.
const DOOMED_PAUSE_MS: i64 = 30_000;

type CommandResult = Result<Value, ErrorCode>;

impl Shared {
    pub(crate) fn confirm(&self, pusher: &mut Pusher, step: Step, results: Vec<CommandResult>) {
        match step {
            Step::Folders { puts, .. } => match results.into_iter().next() {
                Some(Ok(reply)) => {
                    let nodes = nodes_of(&reply);
                    for put in puts {
                        self.confirm_put_in(pusher, &put, &nodes, None);
                    }
                }
                Some(Err(code)) => {
                    for put in puts {
                        self.drop_attempt(&put);
                        self.refused(pusher, put.subject, code);
                    }
                }
                None => {}
            },
            Step::File { put, finished, .. } => match results.into_iter().next() {
                Some(Ok(reply)) => {
                    let nodes = nodes_of(&reply);
                    pusher.no_copy.remove(&put.subject);
                    self.confirm_put_in(pusher, &put, &nodes, finished);
                }
                Some(Err(code)) => {
                    self.drop_attempt(&put);
                    if put.note.copy.is_some() {
                        pusher.no_copy.insert(put.subject);
                    }
                    if let Some(finished) = finished {
                        self.end_attempt(finished);
                    }
                    self.refused(pusher, put.subject, code);
                }
                None => {}
            },
            Step::Edit {
                row, attrs, target, ..
            } => {
                let refused = results
                    .iter()
                    .find_map(|result| result.as_ref().err())
                    .copied();
                let did_attrs = attrs.filter(|_| matches!(results.first(), Some(Ok(_))));
                let did_move = target.filter(|_| matches!(results.last(), Some(Ok(_))));
                let subject = row.subject;
                let is_complete = refused.is_none();
                if let Err(errno) = self.confirm_edit(&row, did_attrs, did_move, is_complete) {
                    tracing::error!(%errno, "a confirmed change could not be stored");
                }
                match refused {
                    // The node is gone, or the folder it is to go to: the events tell which, and then the
                    // change is dropped or gets new ground.
                    Some(code) => self.refused(pusher, subject, code),
                    None => self.done(pusher, subject),
                }
            }
            Step::Remove {
                handle,
                target,
                attrs,
            } => match results.last().cloned() {
                Some(Ok(_) | Err(ErrorCode::NotFound)) => {
                    let attrs = attrs.filter(|_| matches!(results.first(), Some(Ok(_))));
                    match self.confirm_removal(handle, target, attrs.as_deref()) {
                        Ok(told) => self.notify(told),
                        Err(errno) => {
                            tracing::error!(%errno, "a confirmed removal could not be stored");
                        }
                    }
                    self.done(pusher, Subject::Node(handle));
                }
                Some(Err(code)) => {
                    pusher.doomed_at = now_ms().saturating_add(DOOMED_PAUSE_MS);
                    self.refused(pusher, Subject::Node(handle), code);
                }
                None => {}
            },
        }
    }

    /// A step that turned out to be in force already.
    pub(crate) fn confirm_nothing(&self, step: &Step) {
        if let Step::Edit { row, .. } = step {
            if let Err(errno) = self.confirm_edit(row, None, None, true) {
                tracing::error!(%errno, "a settled change could not be stored");
            }
            self.lock().changes.set_in_flight(row.subject, false);
        }
    }

    fn done(&self, pusher: &mut Pusher, subject: Subject) {
        pusher.failures.remove(&subject);
        self.monitor.confirmed();
        self.lock().changes.set_in_flight(subject, false);
    }

    /// A request failed as a whole: an upload that surely was not put starts over.
    pub(crate) fn abandon(&self, step: Step, was_executed: bool) {
        match step {
            Step::Folders { puts, .. } if !was_executed => {
                for put in &puts {
                    self.drop_attempt(put);
                }
            }
            Step::File { put, finished, .. } => {
                if !was_executed {
                    self.drop_attempt(&put);
                }
                if let Some(finished) = finished {
                    if was_executed {
                        finished.file.lock().is_doubted = true;
                    }
                    self.end_attempt(finished);
                }
            }
            Step::Folders { .. } | Step::Edit { .. } | Step::Remove { .. } => {}
        }
    }

    pub(crate) fn drop_attempt(&self, put: &Put) {
        self.lock().changes.end_doubt(put);
        if let Err(error) = self.store.write(|tx| tx.delete_attempt(put.attempt)) {
            tracing::error!(%error, "an attempt could not be struck from the journal");
        }
    }

    fn end_attempt(&self, finished: Finished) {
        let mut content = finished.file.lock();
        content.attempt = None;
        self.let_go(&finished.file, &mut content);
    }

    fn confirm_put_in(
        &self,
        pusher: &mut Pusher,
        put: &Put,
        nodes: &[RawNode],
        finished: Option<Finished>,
    ) {
        let ours = nodes
            .iter()
            .find(|node| put.may_have_made(&row_from_raw(node)));
        let Some(raw) = ours else {
            tracing::error!(subject = ?put.subject, "the server's answer does not show our new node");
            if let Some(finished) = finished {
                self.end_attempt(finished);
            }
            self.put_off(
                pusher,
                put.subject,
                "the new node did not appear in the answer",
                Hope::None,
            );
            return;
        };
        match self.confirm_put(put, &row_from_raw(raw), finished) {
            Ok(()) => {
                pusher.failures.remove(&put.subject);
            }
            Err(errno) => tracing::error!(%errno, "a new node could not be stored"),
        }
        let mut state = self.lock();
        state.changes.set_in_flight(put.subject, false);
        state
            .changes
            .set_in_flight(Subject::Node(raw.handle), false);
    }

    /// The node exists: the inode is bound to it, its row shrinks to what is still wanted.
    pub(crate) fn confirm_put(
        &self,
        put: &Put,
        node: &NodeRow,
        finished: Option<Finished>,
    ) -> OpResult<()> {
        // The row may have moved on to another subject since the put was sent.
        let put = &self.lock().changes.present_form(put).unwrap_or(put).clone();
        let file = match &finished {
            Some(finished) => Some(Arc::clone(&finished.file)),
            None => self.lock().open_file(put.subject).cloned(),
        };
        let mut content = file.as_ref().map(|file| file.lock());
        let mut guard = self.lock();
        if finished.is_none() && !guard.is_shared_content(put.subject, file.as_ref()) {
            // Somebody opened it, or let it go, before the locks were held.
            drop(guard);
            drop(content);
            return self.confirm_put(put, node, None);
        }
        let state = &mut *guard;
        let old = put.subject;
        let new = Subject::Node(node.handle);
        let row = state.changes.get(old).cloned();
        let parent_before = state.parent(old)?;
        let mut rest = row.as_ref().and_then(|row| remaining(row, &put.note, node));
        let stray = match &row {
            Some(row) if !row.removed => state.stray_place(put, row, node)?,
            _ => None,
        };
        if let (Some(place), Some(row)) = (&stray, &row) {
            let rest = rest.get_or_insert_with(|| ChangeRow {
                subject: new,
                place: None,
                attributes: None,
                content: None,
                replaces: None,
                state: ChangeState::Pending { due_ms: now_ms() },
                ..row.clone()
            });
            rest.place.get_or_insert_with(|| place.clone());
        }
        // In the bin, it became no version: what it was to replace goes after it has been placed again.
        let is_binned = node.parent.is_some() && node.parent == state.roots.rubbish;
        let left_over = put.note.replaced().filter(|_| is_binned && stray.is_some());
        let left_over = match left_over {
            Some(over) if state.is_shown(over)? => Some(ChangeRow {
                subject: Subject::Node(over),
                kind: NodeKind::File,
                place: None,
                attributes: None,
                content: None,
                removed: true,
                replaces: None,
                state: ChangeState::Pending { due_ms: now_ms() },
                since_ms: now_ms(),
            }),
            _ => None,
        };
        if let (Some(left_over), Some(rest)) = (&left_over, &mut rest) {
            rest.replaces = left_over.subject.node();
        }
        let over_row = put
            .note
            .replaced()
            .filter(|over| Subject::Node(*over) != old);
        let mut node = node.clone();
        if rest.as_ref().is_none_or(|rest| rest.place.is_none()) {
            node.suffix = row.as_ref().map(row_suffix).filter(|number| *number > 0);
        }
        if let (Some(over), Some(_)) = (put.note.replaced(), row.as_ref())
            && row.as_ref().is_some_and(|row| row.place.is_none())
        {
            node.suffix = state.node_row(over)?.and_then(|row| row.suffix);
        }
        let retargeted = state.retargeted(old, new);
        // Removed while it was on its way: whoever took its name is placed before it goes.
        let heir = row
            .as_ref()
            .filter(|row| row.removed)
            .and_then(|row| state.heir_of(row, put.note.replaced()))
            .map(|heir| ChangeRow {
                replaces: Some(node.handle),
                ..heir
            });
        let is_overtaken = match put.note.replaced() {
            Some(over) => state.is_overtaken(over, node.handle)?,
            None => false,
        };
        let is_in_force = !is_overtaken && !is_binned;
        let dooms = put.note.dooms.filter(|_| is_in_force);
        self.store
            .write(|tx| {
                tx.upsert_node(&node)?;
                tx.set_suffix(node.handle, node.suffix)?;
                if let Some(over) = put.note.over
                    && is_in_force
                    && tx.node(over)?.is_some()
                {
                    tx.set_parent(over, node.handle)?;
                }
                if let Some(dooms) = dooms {
                    tx.put_doomed(dooms)?;
                }
                tx.delete_change(old)?;
                if let Some(over) = over_row {
                    tx.delete_change(Subject::Node(over))?;
                }
                for row in rest.iter().chain(&left_over).chain(&heir) {
                    tx.put_change(row)?;
                }
                tx.retarget_children(old, new)?;
                tx.delete_attempt(put.attempt)
            })
            .map_err(|error| store_errno(&error))?;
        tracing::info!(target: "megamount::journal", ?old, new = %node.handle, "placed");
        state.own.expect(node.handle, "t");
        state.changes.unstall();
        state.changes.end_doubt(put);
        if let Some(dooms) = dooms {
            state.changes.doom(dooms);
        }
        if !state.is_in_share(node.handle) {
            self.space.spent(state, node.size);
        }
        state.changes.remove(old);
        if let Some(over) = over_row
            && let Some(gone) = state.changes.remove(Subject::Node(over))
        {
            state.drop_content_of(&gone);
        }
        for row in rest.into_iter().chain(left_over).chain(heir) {
            state.changes.insert(row);
        }
        for child in retargeted {
            state.changes.insert(child);
        }
        state.rename_directory(old, new);
        state.inodes.rebind(old, new);
        let facts = state.decryptor.open(&node).facts;
        if let Some(parent) = parent_before
            && let Some(directory) = state.dirs.peek_mut(&parent)
        {
            directory.resubject(old, new, facts);
        }
        if let Some(over) = put.note.replaced() {
            state.put_over.insert(over, node.handle);
        }
        if let Some(place) = stray {
            // It is not where it was meant to be: show it where it will be.
            let shown_in = parent_before.unwrap_or(place.parent);
            state.take_out(shown_in, new);
            state.ensure_parent(place.parent)?;
            if let Some(parent) = state.parent(new)? {
                State::show(state, parent, new)?;
            }
        }
        let dropped = match (&mut content, &file) {
            (Some(content), Some(_)) => {
                let count = put.note.layers.min(content.layers.len());
                let dropped: Vec<_> = content.layers.drain(..count).collect();
                content.attempt = None;
                content.is_doubted = false;
                if let Some((_, opened)) = state.node(node.handle)?
                    && let Some(key) = opened.file_key()
                {
                    if let Some(finished) = finished
                        && let OnServer::Sent(uploaded) = finished.bytes
                        && let Some(blob) = uploaded.blob
                        && let Err(error) = self.store.cache().adopt(blob, node.handle)
                    {
                        tracing::debug!(%error, "uploaded bytes are not cached");
                    }
                    let source = RemoteSource {
                        handle: node.handle,
                        size: node.size,
                        key: key.clone(),
                    };
                    let remote = self.downloads.open(source);
                    content.base = Some(Base {
                        handle: node.handle,
                        size: node.size,
                        remote,
                    });
                    content.is_base_lost = false;
                }
                content.is_dirty = !content.layers.is_empty() || content.size != node.size;
                dropped
            }
            _ => {
                if let Some(layers) = row
                    .and_then(|row| row.content)
                    .map(|content| content.layers)
                {
                    let gone: Vec<_> = layers.into_iter().take(put.note.layers).collect();
                    crate::ops::drop_staging(&self.store, &gone);
                }
                Vec::new()
            }
        };
        drop(guard);
        self.store.failpoints().reach(FailPoint::Confirmed);
        for layer in dropped {
            if let Err(error) = layer.file.delete() {
                tracing::warn!(%error, "staging of an uploaded file stays behind");
            }
        }
        if let (Some(content), Some(file)) = (content.as_mut(), file.as_ref()) {
            if content.is_uncommitted && !content.is_unlinked && content.writers == 0 {
                self.commit_content(file, content)?;
            }
            self.let_go(file, content);
        }
        Ok(())
    }

    fn confirm_edit(
        &self,
        sent: &ChangeRow,
        attrs: Option<Vec<u8>>,
        moved_to: Option<NodeHandle>,
        is_complete: bool,
    ) -> OpResult<()> {
        let Subject::Node(handle) = sent.subject else {
            return Ok(());
        };
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(node) = state.node_row(handle)? else {
            return Ok(());
        };
        let now = state.changes.get(sent.subject).cloned();
        let rest = now.as_ref().and_then(|now| {
            if is_complete {
                less_sent(now, sent)
            } else {
                Some(now.clone())
            }
        });
        // A number may have been given since it was sent.
        let numbered = now.as_ref().filter(|now| now.place == sent.place);
        let suffix = Some(row_suffix(numbered.unwrap_or(sent))).filter(|number| *number > 0);
        let places = is_complete && sent.place.is_some();
        self.store
            .write(|tx| {
                if let Some(attrs) = &attrs {
                    tx.set_attrs(handle, attrs)?;
                }
                if let Some(parent) = moved_to
                    && node.parent != Some(parent)
                {
                    tx.set_parent(handle, parent)?;
                }
                if places {
                    tx.set_suffix(handle, suffix)?;
                }
                match &rest {
                    Some(rest) => tx.put_change(rest),
                    None => tx.delete_change(sent.subject),
                }
            })
            .map_err(|error| store_errno(&error))?;
        if attrs.is_some() {
            state.own.expect(handle, "u");
        }
        if moved_to.is_some() {
            state.own.expect(handle, "d");
            state.own.expect(handle, "t");
        }
        state.changes.unstall();
        state.changes.remove(sent.subject);
        if let Some(rest) = rest {
            state.changes.insert(rest);
        }
        if let Some((row, opened)) = state.node(handle)? {
            let parent = state
                .parent(sent.subject)?
                .or(row.parent.map(Subject::Node));
            if let Some(parent) = parent
                && let Some(directory) = state.dirs.peek_mut(&parent)
            {
                directory.set_facts(sent.subject, opened.facts);
            }
        }
        Ok(())
    }

    fn confirm_removal(
        &self,
        handle: NodeHandle,
        bin: Option<NodeHandle>,
        attrs: Option<&[u8]>,
    ) -> OpResult<Vec<Invalidation>> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let mut rows = Vec::new();
        collect_removed(state, handle, &mut rows, 0);
        let staged: Vec<_> = rows
            .iter()
            .filter_map(|subject| state.changes.get(*subject)?.content.clone())
            .flat_map(|content| content.layers)
            .collect();
        let is_open = rows
            .iter()
            .filter_map(|subject| state.inodes.known_ino(*subject))
            .any(|ino| state.files.contains_key(&ino));
        self.store
            .write(|tx| {
                if let Some(attrs) = attrs {
                    tx.set_attrs(handle, attrs)?;
                }
                match bin {
                    Some(bin) if tx.node(handle)?.is_some() => tx.set_parent(handle, bin)?,
                    Some(_) => {}
                    None => {
                        tx.delete_subtree(handle)?;
                    }
                }
                for subject in &rows {
                    tx.delete_change(*subject)?;
                }
                tx.delete_doomed(handle)
            })
            .map_err(|error| store_errno(&error))?;
        if attrs.is_some() {
            state.own.expect(handle, "u");
        }
        state.own.expect(handle, "d");
        if bin.is_some() {
            state.own.expect(handle, "t");
        }
        state.changes.unstall();
        state.changes.undoom(handle);
        for subject in rows {
            state.changes.remove(subject);
            state.forget_dir(subject);
        }
        state.forget_zones();
        if !is_open {
            crate::ops::drop_staging(&self.store, &staged);
        }
        match bin {
            Some(bin) => state.show_in_bin(bin, handle),
            None => Ok(Vec::new()),
        }
    }
}

impl State {
    /// Where a node that was just put has to go because it is not where its put said: its folder had
    /// gone and the server put it into the bin, or somebody else replaced the file first.
    fn stray_place(&self, put: &Put, row: &ChangeRow, node: &NodeRow) -> OpResult<Option<Place>> {
        if node.parent.is_some() && node.parent == self.roots.rubbish {
            tracing::warn!(target: "megamount::journal", node = %node.handle, "the target folder had gone: placed again");
            let name = self.stored_of(node);
            return Ok(Some(row.place.clone().unwrap_or(Place {
                parent: Subject::Node(put.note.parent),
                name: name.as_named().unwrap_or("recovered").to_owned(),
            })));
        }
        match put.note.replaced() {
            Some(over) if row.place.is_none() && self.is_overtaken(over, node.handle)? => {
                tracing::warn!(target: "megamount::journal", node = %node.handle, "somebody else replaced the file first: ours gets another name");
                self.conflict_place(node)
            }
            _ => Ok(None),
        }
    }

    /// What was thrown away appears in the bin, if somebody looks there.
    fn show_in_bin(&mut self, bin: NodeHandle, handle: NodeHandle) -> OpResult<Vec<Invalidation>> {
        let bin = Subject::Node(bin);
        let is_loaded = self.dirs.peek(&bin).is_some();
        if !is_loaded && self.inodes.kernel_ino(bin).is_none() {
            return Ok(Vec::new());
        }
        let Some((row, node)) = self.node(handle)? else {
            return Ok(Vec::new());
        };
        let mut told = Vec::new();
        if !is_loaded {
            // The kernel may remember that the name was free. The bin may be large: it is not loaded to find
            // out whether there is another of that name.
            let plain = self.config.naming.spell(&node.name, Subject::Node(handle));
            let name = suffixed(&plain, row.suffix.unwrap_or(0));
            self.touch_dir(bin);
            self.tell_entry(&mut told, bin, name);
            return Ok(told);
        }
        let child = Child {
            subject: Subject::Node(handle),
            stored: node.name,
            suffix: row.suffix,
            facts: node.facts,
        };
        self.show_child(&mut told, bin, child)?;
        Ok(told)
    }

    /// The row that took over the place of a removed one, which has replaced `replaced`, and replaces
    /// nothing else.
    fn heir_of(&self, removed: &ChangeRow, replaced: Option<NodeHandle>) -> Option<ChangeRow> {
        let place = removed.place.as_ref()?;
        self.changes
            .placed_in(place.parent)
            .find(|row| {
                row.subject != removed.subject
                    && !row.removed
                    && row.replaces.is_none_or(|other| Some(other) == replaced)
                    && row.place.as_ref() == Some(place)
            })
            .cloned()
    }

    /// A loaded directory goes on under the subject of its new node.
    fn rename_directory(&mut self, old: Subject, new: Subject) {
        if let Some(directory) = self.dirs.pop(&old) {
            self.dirs.put(new, directory);
        }
        if let Some(time) = self.dir_times.remove(&old) {
            self.dir_times.insert(new, time);
        }
    }
}

fn collect_removed(state: &State, handle: NodeHandle, out: &mut Vec<Subject>, depth: u32) {
    out.push(Subject::Node(handle));
    if depth > 512 {
        return;
    }
    let Ok(children) = state.store.children(handle) else {
        return;
    };
    for child in children {
        if child.kind == NodeKind::Folder {
            collect_removed(state, child.handle, out, depth + 1);
        } else {
            out.push(Subject::Node(child.handle));
        }
    }
}
