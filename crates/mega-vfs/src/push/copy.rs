//! A file that shows the whole content of another node becomes a copy on the server: one command, no
//! bytes (protocol/04 section 8: `p` with the source's handle, its node key, attributes of our own).

use mega_crypto::{NodeKey, WrapKey as _};
use mega_proto::command::{Entry, EntrySource};
use mega_proto::{NodeHandle, NodeKind, b64};
use mega_store::{ChangeRow, Subject};

use super::attributes::{apply_wishes, set_content_time};
use super::cross_keys::keys_of;
use super::journal::{CopyNote, Put, PutNote};
use super::{Pusher, Step};
use crate::errno::store_errno;
use crate::shared::Shared;
use crate::state::State;
use crate::types::OpResult;

impl State {
    /// The node whose copy the row is: all of its bytes, none of our own.
    pub(super) fn copy_source(&self, row: &ChangeRow) -> Option<NodeHandle> {
        let content = row.content.as_ref()?;
        let source = content.base?;
        if row.removed || !content.layers.is_empty() || Subject::Node(source) == row.subject {
            return None;
        }
        let node = self.node_row(source).ok()??;
        let is_whole = node.kind == NodeKind::File && node.size == content.size && node.size > 0;
        is_whole.then_some(source)
    }
}

impl Shared {
    /// Writes a copy down and makes it a step; `None` when it cannot be one any more.
    pub(super) fn freeze_copy(
        &self,
        pusher: &mut Pusher,
        subject: Subject,
    ) -> OpResult<Option<Step>> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let step = self.plan_copy(state, subject);
        if !matches!(step, Ok(Some(_))) {
            // It is uploaded then, which also shows what is wrong.
            pusher.no_copy.insert(subject);
            state.changes.set_in_flight(subject, false);
        }
        step
    }

    fn plan_copy(&self, state: &mut State, subject: Subject) -> OpResult<Option<Step>> {
        let Ok(master) = self.master_key() else {
            return Ok(None);
        };
        let Some(row) = state.changes.get(subject).cloned() else {
            return Ok(None);
        };
        let (Some(source), Some((parent, over))) =
            (state.copy_source(&row), state.upload_parent(&row))
        else {
            return Ok(None);
        };
        let Some((_, opened)) = state.node(source)? else {
            return Ok(None);
        };
        let (Some(key @ NodeKey::File(_)), Some(theirs)) = (opened.key, opened.attributes) else {
            return Ok(None);
        };
        let mut attributes = state.inherited_attributes(&row, over);
        apply_wishes(&mut attributes, &row);
        // The bytes are the same, so is their checksum.
        let crc = theirs
            .fingerprint()
            .map(|theirs| theirs.crc)
            .or_else(|| key.as_bytes().get(..16)?.try_into().ok());
        set_content_time(&mut attributes, &row, crc.unwrap_or_default());
        let Ok(attrs) = attributes.encrypt(&key.attr_key()) else {
            return Ok(None);
        };
        let wrapped = b64::encode(&master.wrap_node_key(&key));
        let (over, dooms) = state.versions_in(parent).split(over);
        let cr = state.cross_keys(parent, std::iter::once((source.to_string(), &key)));
        let note = PutNote {
            shared_keys: keys_of(cr.as_ref(), 0),
            key: wrapped.clone(),
            attrs: b64::encode(&attrs),
            parent,
            over,
            dooms,
            copy: Some(CopyNote::of(source, &self.store)?),
            ..PutNote::of_row(&row, self.store.seqno().ok().flatten())
        };
        let attempt = self
            .store
            .next_attempt_id()
            .map_err(|error| store_errno(&error))?;
        let put = Put {
            attempt,
            subject,
            note,
        };
        let Some(journal) = put.row() else {
            return Ok(None);
        };
        self.store
            .write(|tx| tx.put_attempt(&journal))
            .map_err(|error| store_errno(&error))?;
        state.changes.begin_doubt(&put);
        let entry = Entry {
            source: EntrySource::Node(source),
            kind: 0,
            attrs: put.note.attrs.clone(),
            key: wrapped,
            fa: None,
            parent: None,
            over,
        };
        Ok(Some(Step::File {
            put: Box::new(put),
            entry,
            cr,
            finished: None,
        }))
    }
}
