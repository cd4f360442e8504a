//! One write transaction.
#![expect(
    missing_docs,
    clippy::missing_errors_doc,
    unused_variables,
    reason = "signatures first"
)]

use std::marker::PhantomData;

use mega_proto::{NodeHandle, Seqno};

use crate::error::StoreError;
use crate::rows::{AttemptRow, ChangeRow, NodeRow, ShareKind, ShareRow};
use crate::store::unbuilt;
use crate::subject::{AttemptId, LocalId, Subject};

#[derive(Debug)]
pub struct Tx<'a> {
    marker: PhantomData<&'a ()>,
}

impl Tx<'_> {
    pub fn node(&self, handle: NodeHandle) -> Result<Option<NodeRow>, StoreError> {
        unbuilt()
    }
    pub fn children(&self, parent: NodeHandle) -> Result<Vec<NodeRow>, StoreError> {
        unbuilt()
    }
    pub fn change(&self, subject: Subject) -> Result<Option<ChangeRow>, StoreError> {
        unbuilt()
    }
    /// Writes everything of `row` but `arrival`.
    pub fn upsert_node(&mut self, row: &NodeRow) -> Result<(), StoreError> {
        unbuilt()
    }
    pub fn set_attrs(
        &mut self,
        handle: NodeHandle,
        attrs: impl AsRef<[u8]>,
    ) -> Result<(), StoreError> {
        unbuilt()
    }
    pub fn set_parent(&mut self, handle: NodeHandle, parent: NodeHandle) -> Result<(), StoreError> {
        unbuilt()
    }
    pub fn set_key(&mut self, handle: NodeHandle, key: &str) -> Result<(), StoreError> {
        unbuilt()
    }
    pub fn set_suffix(
        &mut self,
        handle: NodeHandle,
        suffix: Option<u32>,
    ) -> Result<(), StoreError> {
        unbuilt()
    }
    /// Deletes `handle` and all below it, versions too; says which went, parents first.
    pub fn delete_subtree(&mut self, handle: NodeHandle) -> Result<Vec<NodeHandle>, StoreError> {
        unbuilt()
    }
    pub fn set_seqno(&mut self, sn: &Seqno) -> Result<(), StoreError> {
        unbuilt()
    }
    pub fn put_share(&mut self, share: &ShareRow) -> Result<(), StoreError> {
        unbuilt()
    }
    /// Deletes every share row of `handle` of this kind.
    pub fn delete_share(&mut self, handle: NodeHandle, kind: ShareKind) -> Result<(), StoreError> {
        unbuilt()
    }
    /// Replaces the whole row with its layers and extents.
    pub fn put_change(&mut self, row: &ChangeRow) -> Result<(), StoreError> {
        unbuilt()
    }
    pub fn delete_change(&mut self, subject: Subject) -> Result<(), StoreError> {
        unbuilt()
    }
    /// Sets `synced` if the content is still of this generation.
    pub fn mark_synced(&mut self, subject: Subject, generation: u64) -> Result<(), StoreError> {
        unbuilt()
    }
    /// Rewrites every place whose parent is `from`.
    pub fn retarget_children(&mut self, from: Subject, to: Subject) -> Result<(), StoreError> {
        unbuilt()
    }
    pub fn put_attempt(&mut self, row: &AttemptRow) -> Result<(), StoreError> {
        unbuilt()
    }
    pub fn delete_attempt(&mut self, id: AttemptId) -> Result<(), StoreError> {
        unbuilt()
    }
    pub fn put_doomed(&mut self, handle: NodeHandle) -> Result<(), StoreError> {
        unbuilt()
    }
    pub fn delete_doomed(&mut self, handle: NodeHandle) -> Result<(), StoreError> {
        unbuilt()
    }
    pub fn meta_get(&self, name: &str) -> Result<Option<String>, StoreError> {
        unbuilt()
    }
    pub fn meta_set(&mut self, name: &str, value: &str) -> Result<(), StoreError> {
        unbuilt()
    }
    pub fn next_local_id(&mut self) -> Result<LocalId, StoreError> {
        unbuilt()
    }
    pub fn next_attempt_id(&mut self) -> Result<AttemptId, StoreError> {
        unbuilt()
    }
}
