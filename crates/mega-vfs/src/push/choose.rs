//! Which files are uploaded next, and under what folder their nodes are put.

use std::sync::Arc;

use mega_crypto::{Attributes, MasterKey, NodeKey, WrapKey};
use mega_proto::command::{Entry, EntrySource};
use mega_proto::{NodeHandle, NodeKind, b64};
use mega_store::{ChangeRow, Subject};
use tokio::task::JoinSet;

use super::attributes::apply_wishes;
use super::cross_keys::keys_of;
use super::journal::{CopyNote, Put, PutNote};
use super::upload::OnServer;
use super::{Finished, Pusher, Step, upload};
use crate::catalog::is_partial_row;
use crate::changes::Queue;
use crate::shared::Shared;
use crate::state::State;
use crate::types::Versions;

/// Most commands in one request.
const BATCH: usize = 300;
/// Uploads of files of one chunk at a time, beside the large ones: more than there are connections, so
/// that addresses and nodes come in large batches.
const SMALL_UPLOADS: usize = 128;
/// One chunk, bytes.
const SMALL: u64 = 128 * 1024;
/// Rows looked at without letting go of the lock.
const SLICE: usize = 2_000;
/// When to look again at a file that is still open for writing, ms.
const WRITTEN_MS: i64 = 1_000;

impl Shared {
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
            let may_wait = now - row.since_ms < max_age && !is_stopping;
            if is_partial_row(row) || (is_being_written && may_wait) {
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
    pub(super) fn freeze_file(
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
        let (over, dooms) = state.versions_in(parent).split(over);
        let name = match &copy {
            Some(copy) => copy.source.to_string(),
            None => token.clone(),
        };
        let cr = state.cross_keys(parent, std::iter::once((name, &key)));
        let note = PutNote {
            shared_keys: keys_of(cr.as_ref(), 0),
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
            state.changes.begin_doubt(&put);
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
    /// What becomes of content that is replaced in a folder: where nothing can be thrown away it is kept.
    pub(super) fn versions_in(&self, folder: NodeHandle) -> Versions {
        if self.is_in_share(folder) {
            return Versions::Keep;
        }
        self.config.versions
    }

    /// Where new content is put: the folder, and the file it becomes a version of. `None` while it can be put
    /// nowhere.
    pub(crate) fn upload_parent(
        &self,
        row: &ChangeRow,
    ) -> Option<(NodeHandle, Option<NodeHandle>)> {
        let (parent, over) = self.place_to_put(row)?;
        (!self.lacks_key(parent)).then_some((parent, over))
    }

    fn place_to_put(&self, row: &ChangeRow) -> Option<(NodeHandle, Option<NodeHandle>)> {
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
}
