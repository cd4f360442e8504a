//! What can be sent now.

use std::collections::HashMap;
use std::sync::Arc;

use mega_api::ApiError;
use mega_crypto::{Attributes, FolderKey, MasterKey, NodeKey, WrapKey};
use mega_proto::command::{Command, CrossKeys, Entry, EntrySource};
use mega_proto::{NodeHandle, NodeKind, b64};
use mega_store::{ChangeRow, ChangeState, Place, Subject};
use tokio::task::JoinSet;

use super::attributes::{apply_wishes, set_file_time, set_folder_time};
use super::journal::{CopyNote, Put, PutNote};
use super::upload::OnServer;
use super::{Finished, Pusher, upload};
use crate::changes::Queue;
use crate::shared::Shared;
use crate::state::State;
use crate::types::Versions;

/// Most commands in one request.
const BATCH: usize = 300;
/// Most entries in one folder tree.
const TREE: usize = 500;
/// Uploads of files of one chunk at a time, beside the large ones: more than there are connections, so
/// that addresses and nodes come in large batches.
const SMALL_UPLOADS: usize = 128;
/// One chunk, bytes.
const SMALL: u64 = 128 * 1024;
/// Rows looked at without letting go of the lock.
const SLICE: usize = 2_000;
/// When to look again at a file that is still open for writing, ms.
const WRITTEN_MS: i64 = 1_000;

/// One thing to do on the server, made of one or more commands.
pub(crate) enum Step {
    /// New folders below `parent`, in one `p`.
    Folders {
        parent: NodeHandle,
        puts: Vec<Put>,
        entries: Vec<Entry>,
        cr: Option<CrossKeys>,
    },
    /// Content that is on the server becomes a node.
    File {
        put: Box<Put>,
        entry: Entry,
        cr: Option<CrossKeys>,
        /// What was uploaded, or found there; the copy of a whole file has none.
        finished: Option<Finished>,
    },
    /// Another name, place or attribute of a node.
    Edit {
        row: ChangeRow,
        attrs: Option<Vec<u8>>,
        target: Option<NodeHandle>,
        cr: Option<CrossKeys>,
    },
    /// A node goes away; `target` is the rubbish bin, `None` deletes for good.
    Remove {
        handle: NodeHandle,
        target: Option<NodeHandle>,
    },
}

impl Step {
    pub(crate) fn commands(&self, client_id: &str) -> Vec<Command> {
        let i = client_id.to_owned();
        match self {
            Self::Folders {
                parent,
                entries,
                cr,
                ..
            } => {
                vec![Command::Put {
                    t: *parent,
                    n: entries.clone(),
                    i,
                    vb: None,
                    cr: cr.clone(),
                }]
            }
            Self::File { put, entry, cr, .. } => vec![Command::Put {
                t: put.note.parent,
                n: vec![entry.clone()],
                i,
                vb: put.note.over.map(|_| 1),
                cr: cr.clone(),
            }],
            Self::Edit {
                row,
                attrs,
                target,
                cr,
            } => {
                let Subject::Node(handle) = row.subject else {
                    return Vec::new();
                };
                let mut commands = Vec::new();
                if let Some(attrs) = attrs {
                    let at = b64::encode(attrs);
                    commands.push(Command::SetAttributes {
                        n: handle,
                        at,
                        i: i.clone(),
                    });
                }
                if let Some(target) = target {
                    commands.push(Command::Move {
                        n: handle,
                        t: *target,
                        i,
                        cr: cr.clone(),
                    });
                }
                commands
            }
            Self::Remove { handle, target } => vec![match target {
                Some(bin) => Command::Move {
                    n: *handle,
                    t: *bin,
                    i,
                    cr: None,
                },
                None => Command::Delete {
                    n: *handle,
                    i,
                    v: None,
                },
            }],
        }
    }

    pub(crate) fn subjects(&self) -> Vec<Subject> {
        match self {
            Self::Folders { puts, .. } => puts.iter().map(|put| put.subject).collect(),
            Self::File { put, .. } => vec![put.subject],
            Self::Edit { row, .. } => vec![row.subject],
            Self::Remove { handle, .. } => vec![Subject::Node(*handle)],
        }
    }
}

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
            steps.push(Step::Remove { handle, target });
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

    /// Starts uploads up to the limits.
    pub(crate) fn start_uploads(
        self: &Arc<Self>,
        pusher: &mut Pusher,
        uploads: &mut JoinSet<upload::Outcome>,
        now: i64,
    ) {
        if now < pusher.quota_pause_until {
            return;
        }
        let mut state = self.lock();
        let chosen = self.choose_uploads(&mut state, pusher, now);
        for subject in &pusher.copies {
            state.changes.set_in_flight(*subject, true);
        }
        for (subject, size) in &chosen {
            state.changes.set_in_flight(*subject, true);
            pusher.uploading.insert(*subject, *size);
        }
        drop(state);
        for (subject, _) in chosen {
            let shared = Arc::clone(self);
            let is_refused = pusher.no_copy.contains(&subject);
            uploads.spawn(async move { shared.upload(subject, is_refused).await });
        }
    }

    fn choose_uploads(
        &self,
        state: &mut State,
        pusher: &mut Pusher,
        now: i64,
    ) -> Vec<(Subject, u64)> {
        let running = pusher.uploading.values();
        let large = running.filter(|size| **size > SMALL).count();
        let mut large_left = self.config.uploads.max(1).saturating_sub(large);
        let mut small_left = SMALL_UPLOADS.saturating_sub(pusher.uploading.len() - large);
        let is_stopping = self.is_stopping();
        let max_age = i64::try_from(self.config.write_back_max.as_millis()).unwrap_or(i64::MAX);
        let mut chosen = Vec::new();
        let (mut stalled, mut written) = (Vec::new(), Vec::new());
        let queue = state.changes.queued(Queue::Contents);
        for (_, row) in queue
            .take_while(|(due, _)| is_stopping || *due <= now)
            .filter(|(due, row)| state.changes.is_ready(*due, row, now, is_stopping))
            .take(SLICE)
        {
            let Some(content) = &row.content else {
                continue;
            };
            if large_left + small_left == 0 {
                break;
            }
            if state.upload_parent(row).is_none() {
                stalled.push(row.subject);
                continue;
            }
            let is_being_written = state
                .open_file(row.subject)
                .is_some_and(|file| file.writers() > 0 && !file.is_wanted());
            if is_being_written && now - row.since_ms < max_age && !is_stopping {
                written.push(row.subject);
                continue;
            }
            if state.copy_source(row).is_some() && !pusher.no_copy.contains(&row.subject) {
                if pusher.copies.len() < BATCH {
                    pusher.copies.push(row.subject);
                }
                continue;
            }
            let left = if content.size > SMALL {
                &mut large_left
            } else {
                &mut small_left
            };
            if *left > 0 {
                *left -= 1;
                chosen.push((row.subject, content.size));
            }
        }
        for subject in stalled {
            state.changes.stall(subject);
        }
        for subject in written {
            // Its close sets the time anew.
            State::set_due(state, subject, now.saturating_add(WRITTEN_MS));
        }
        chosen
    }

    /// An upload is done: decides the node's attributes and place, and writes the attempt down. From
    /// here on it can no longer be cancelled.
    fn freeze_file(
        &self,
        master: &MasterKey,
        mut finished: Finished,
    ) -> Result<Option<Step>, rustix::io::Errno> {
        let mut content = finished.file.lock();
        if content
            .attempt
            .as_ref()
            .is_none_or(|attempt| attempt.cancel.is_cancelled())
        {
            content.attempt = None;
            self.let_go(&finished.file, &mut content);
            drop(content);
            let mut state = self.lock();
            let subject = state.changes.present_subject(finished.subject);
            state.changes.set_in_flight(subject, false);
            return Ok(None);
        }
        let mut state = self.lock();
        // A conflict may have given the file another row since the upload began.
        finished.subject = state.changes.present_subject(finished.subject);
        let row = state.changes.get(finished.subject).cloned();
        let Some(row) = row.filter(|row| !row.removed && row.content.is_some()) else {
            content.attempt = None;
            state.changes.set_in_flight(finished.subject, false);
            drop(state);
            self.let_go(&finished.file, &mut content);
            return Ok(None);
        };
        let Some((parent, over)) = state.upload_parent(&row) else {
            // The folder went away while we uploaded; another round decides.
            content.attempt = None;
            state.changes.set_in_flight(finished.subject, false);
            drop(state);
            self.let_go(&finished.file, &mut content);
            return Ok(None);
        };
        let (source, token, copy) = match &finished.bytes {
            OnServer::Sent(uploaded) => {
                let token = uploaded.token.as_str().to_owned();
                (EntrySource::Token(uploaded.token.clone()), token, None)
            }
            OnServer::Twin(twin) => {
                let is_there = state.node_row(twin.handle)?.is_some();
                let is_own = Subject::Node(twin.handle) == finished.subject;
                if is_own && is_there {
                    state.settle_unchanged(self, &mut content, &finished)?;
                }
                if is_own || !is_there {
                    // Done, or the twin has gone away: another round decides.
                    content.attempt = None;
                    state.changes.set_in_flight(finished.subject, false);
                    drop(state);
                    self.let_go(&finished.file, &mut content);
                    return Ok(None);
                }
                let note = CopyNote::of(twin.handle, &self.store)?;
                (EntrySource::Node(twin.handle), String::new(), Some(note))
            }
        };
        let mut attributes = state.inherited_attributes(&row, over);
        apply_wishes(&mut attributes, &row);
        super::attributes::set_content_time(&mut attributes, &row, finished.bytes.crc());
        let key = NodeKey::File(finished.bytes.key().clone());
        let attrs = match attributes.encrypt(&key.attr_key()) {
            Ok(attrs) => attrs,
            Err(error) => {
                tracing::error!(%error, "attributes cannot be encrypted");
                return Err(rustix::io::Errno::IO);
            }
        };
        let (over, dooms) = self.config.versions.split(over);
        let note = PutNote {
            key: b64::encode(&master.wrap_node_key(&key)),
            attrs: b64::encode(&attrs),
            token,
            parent,
            over,
            dooms,
            generation: finished.generation,
            layers: finished.layers,
            copy,
            ..PutNote::of_row(&row, self.store.seqno().ok().flatten())
        };
        let put = Put {
            attempt: self
                .store
                .next_attempt_id()
                .map_err(|e| crate::errno::store_errno(&e))?,
            subject: finished.subject,
            note,
        };
        if let Some(journal) = put.row() {
            self.store
                .write(|tx| {
                    if let Some(record) = finished.record {
                        tx.delete_attempt(record)?;
                    }
                    tx.put_attempt(&journal)
                })
                .map_err(|error| crate::errno::store_errno(&error))?;
            state.changes.begin_doubt(put.clone());
        }
        if let Some(attempt) = &mut content.attempt {
            attempt.is_frozen = true;
        }
        let entry = Entry {
            source,
            kind: 0,
            attrs: put.note.attrs.clone(),
            key: put.note.key.clone(),
            fa: None,
            parent: None,
            over,
        };
        let name = match &put.note.copy {
            Some(copy) => copy.source.to_string(),
            None => put.note.token.clone(),
        };
        let cr = state.cross_keys(parent, std::iter::once((name, &key)));
        drop(state);
        drop(content);
        Ok(Some(Step::File {
            put: Box::new(put),
            entry,
            cr,
            finished: Some(finished),
        }))
    }
}

/// What is known about removed folders while one slice is planned: ten thousand files of one folder
/// ask the same question.
#[derive(Default)]
struct Removals {
    /// Whether everything below is removed.
    whole: HashMap<NodeHandle, bool>,
}

/// A file made here and removed before it was ever sent, closed by now.
fn drop_removed_local(shared: &Shared, state: &mut State, row: &ChangeRow) {
    let is_open = state
        .inodes
        .known_ino(row.subject)
        .is_some_and(|ino| state.files.contains_key(&ino));
    if is_open {
        return;
    }
    if state.commit(Vec::new(), &[row.subject]).is_ok()
        && let Some(content) = &row.content
    {
        crate::ops::drop_staging(&shared.store, &content.layers);
    }
}

impl Versions {
    /// The node to put over, and the one to remove afterwards, when `replaced` is replaced.
    pub(super) fn split(
        self,
        replaced: Option<NodeHandle>,
    ) -> (Option<NodeHandle>, Option<NodeHandle>) {
        match self {
            Self::Keep => (replaced, None),
            Self::Replace => (None, replaced),
        }
    }
}

impl State {
    /// Where new content is put: the folder, and the file it becomes a version of.
    pub(crate) fn upload_parent(
        &self,
        row: &ChangeRow,
    ) -> Option<(NodeHandle, Option<NodeHandle>)> {
        match row.subject {
            Subject::Node(handle) => {
                // In the folder where the node is; a move comes after.
                let parent = self.node_row(handle).ok()??.parent?;
                let is_folder = self.node_row(parent).ok()??.kind != NodeKind::File;
                is_folder.then_some((parent, Some(handle)))
            }
            Subject::Local(_) => {
                let parent = row.place.as_ref()?.parent.node()?;
                self.node_row(parent).ok()??;
                if self
                    .changes
                    .get(Subject::Node(parent))
                    .is_some_and(|row| row.removed)
                {
                    return None;
                }
                let over = row.replaces.filter(|replaced| {
                    let node = self.node_row(*replaced).ok().flatten();
                    node.is_some_and(|node| {
                        node.parent == Some(parent) && node.kind == NodeKind::File
                    })
                });
                Some((parent, over))
            }
        }
    }

    /// Attributes of what is replaced, which new content carries on.
    pub(super) fn inherited_attributes(
        &self,
        row: &ChangeRow,
        over: Option<NodeHandle>,
    ) -> Attributes {
        let from = over.or(row.subject.node());
        from.and_then(|handle| self.node(handle).ok().flatten())
            .and_then(|(_, node)| node.attributes)
            .map(|mut attributes| {
                if !matches!(row.subject, Subject::Node(_)) {
                    // Another file took this name over: its kind and bits are its own.
                    for own in ["mmx", "mml", "mma"] {
                        attributes.remove(own);
                    }
                }
                attributes
            })
            .unwrap_or_default()
    }

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
        let attrs = match (node.attributes, &node.key) {
            (Some(old), Some(key)) => {
                let mut wanted = old.clone();
                apply_wishes(&mut wanted, row);
                match row.kind {
                    NodeKind::File => set_file_time(&mut wanted, row, key.as_bytes()),
                    _ => set_folder_time(&mut wanted, row),
                }
                if wanted == old {
                    None
                } else {
                    wanted.encrypt(&key.attr_key()).ok()
                }
            }
            _ => None,
        };
        let cr = target.and_then(|target| self.moved_keys(handle, target));
        Some(Step::Edit {
            row: row.clone(),
            attrs,
            target,
            cr,
        })
    }

    fn plan_removal(
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
        let hard = shared.config.hard_delete;
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
        Some(Step::Remove { handle, target })
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

    /// A folder made here with all folders made here below it, in one command.
    fn plan_folders(
        &mut self,
        shared: &Shared,
        master: &MasterKey,
        row: &ChangeRow,
    ) -> Option<Step> {
        let parent = row.place.as_ref()?.parent.node()?;
        self.node_row(parent).ok()??;
        if self
            .changes
            .get(Subject::Node(parent))
            .is_some_and(|row| row.removed)
        {
            return None;
        }
        let sn = self.store.seqno().ok().flatten();
        let mut puts = Vec::new();
        let mut entries = Vec::new();
        let mut keys = Vec::new();
        let mut waiting = vec![(row.clone(), None)];
        while let Some((row, above)) = waiting.pop() {
            if puts.len() >= TREE {
                continue;
            }
            let key = NodeKey::Folder(FolderKey::generate().ok()?);
            let mut attributes = Attributes::default();
            apply_wishes(&mut attributes, &row);
            set_folder_time(&mut attributes, &row);
            let attrs = b64::encode(&attributes.encrypt(&key.attr_key()).ok()?);
            let wrapped = b64::encode(&master.wrap_node_key(&key));
            let temporary = format!("t{:07}", puts.len());
            let note = PutNote {
                key: wrapped.clone(),
                attrs: attrs.clone(),
                parent,
                is_folder: true,
                ..PutNote::of_row(&row, sn.clone())
            };
            let attempt = self.store.next_attempt_id().ok()?;
            puts.push(Put {
                attempt,
                subject: row.subject,
                note,
            });
            keys.push((temporary.clone(), key));
            entries.push(Entry {
                source: EntrySource::Folder(temporary.clone()),
                kind: 1,
                attrs,
                key: wrapped,
                fa: None,
                parent: above,
                over: None,
            });
            for child in self.changes.placed_in(row.subject) {
                let is_new = matches!(child.subject, Subject::Local(_));
                let is_parked = matches!(child.state, ChangeState::Parked { .. });
                if is_new
                    && child.kind == NodeKind::Folder
                    && !child.removed
                    && !is_parked
                    && !self.changes.is_in_flight(child.subject)
                {
                    waiting.push((child.clone(), Some(temporary.clone())));
                }
            }
        }
        let rows: Vec<_> = puts.iter().filter_map(Put::row).collect();
        let journalled = shared.store.write(|tx| {
            for row in &rows {
                tx.put_attempt(row)?;
            }
            Ok(())
        });
        if let Err(error) = journalled {
            tracing::error!(%error, "new folders could not be journalled");
            return None;
        }
        for put in &puts {
            self.changes.begin_doubt(put.clone());
        }
        let cr = self.cross_keys(parent, keys.iter().map(|(name, key)| (name.clone(), key)));
        Some(Step::Folders {
            parent,
            puts,
            entries,
            cr,
        })
    }
}
