//! Requests whose result is not known: after a crash, or when the answer never came.
//!
//! Whatever is journalled stays *in doubt* until it is confirmed or struck. A put whose key is found on
//! a node was executed, wherever that node is now: it is adopted, before anybody sees the node as a
//! second file. The event stream tells ([`Shared::adopt_arrivals`]), or a tree that was fetched anew
//! ([`Shared::adopt_known`]). When the stream is current and the node is not there, the put was not
//! executed: a file whose token may still be good is put once more, everything else starts over.
//! Never are two nodes made from one change.

use std::collections::HashSet;
use std::time::Duration;

use mega_crypto::WrapKey as _;
use mega_proto::command::{Command, Entry, EntrySource};
use mega_proto::{ActionPacket, Packet, UploadToken, b64};
use mega_store::{AttemptRow, NodeRow, Store, StoreError, Subject};
use mega_transfer::ResumeRecord;
use mega_tree::truth::row_from_raw;

use super::journal::Put;
use super::outstanding::is_outstanding;
use super::send::nodes_of;
use crate::changes::Changes;
use crate::errno::store_errno;
use crate::shared::Shared;
use crate::types::OpResult;

/// Patience for the event stream to become current.
pub(super) const CATCH_UP: Duration = Duration::from_secs(60);

/// At a start: everything in the journal is in doubt, and stays as it is until that is resolved.
pub(crate) fn take_up_journal(store: &Store, changes: &mut Changes) -> Result<(), StoreError> {
    for row in store.attempts()? {
        if ResumeRecord::is_record(&row.body) {
            keep_or_strike(store, changes, &row)?;
            continue;
        }
        if is_outstanding(&row.body) {
            continue;
        }
        let Some(put) = Put::parse(&row) else {
            tracing::warn!(
                id = row.id.0,
                "an unreadable attempt is struck from the journal"
            );
            store.write(|tx| tx.delete_attempt(row.id))?;
            continue;
        };
        tracing::debug!(subject = ?put.subject, "a put of an earlier run is in doubt");
        changes.set_in_flight(put.subject, true);
        changes.begin_doubt(&put);
    }
    Ok(())
}

/// The record of an upload stays for the next upload of the same content, if there can be one.
fn keep_or_strike(store: &Store, changes: &Changes, row: &AttemptRow) -> Result<(), StoreError> {
    let record = ResumeRecord::from_bytes(&row.body);
    let change = changes.get(row.subject);
    let content = change.and_then(|change| change.content.as_ref());
    let is_wanted = record
        .zip(content)
        .is_some_and(|(record, content)| record.generation() == content.generation);
    if is_wanted {
        return Ok(());
    }
    store.write(|tx| tx.delete_attempt(row.id))
}

impl Shared {
    /// At a start: brings the truth up to date, repeats what was on its way, then resolves every put that is
    /// in doubt.
    pub(crate) async fn resume_queue(&self) -> Result<(), &'static str> {
        let asked = self.lock().changes.doubts();
        if !self.catch_up(CATCH_UP).await {
            return Err("the event stream is not current");
        }
        self.adopt_known()
            .map_err(|_| "the tree cannot be searched")?;
        self.repeat_outstanding(&asked).await?;
        self.recover_attempts().await
    }

    /// Resolves every put that is in doubt. `Err` says why that is not possible yet.
    pub(crate) async fn recover_attempts(&self) -> Result<(), &'static str> {
        if self.lock().changes.doubts().is_empty() {
            return Ok(());
        }
        if !self.catch_up(CATCH_UP).await {
            return Err("the event stream is not current");
        }
        self.adopt_known()
            .map_err(|_| "the tree cannot be searched")?;
        let open = self.lock().changes.doubts();
        let mut refused = Vec::new();
        for put in open {
            let has_row = self.lock().changes.get(put.subject).is_some();
            if put.note.is_folder || put.note.token.is_empty() || !has_row {
                self.withdraw(&put);
            } else if !self.put_again(&put).await? {
                refused.push(put);
                continue;
            }
            self.lock().changes.set_in_flight(put.subject, false);
        }
        if refused.is_empty() {
            return Ok(());
        }
        // The token is stale, or it was used up just now: the first request was late.
        if !self.catch_up(CATCH_UP).await {
            return Err("the event stream is not current");
        }
        let open = self.lock().changes.doubts();
        for put in open {
            if refused.iter().any(|other| other.attempt == put.attempt) {
                self.withdraw(&put);
                self.lock().changes.set_in_flight(put.subject, false);
            }
        }
        Ok(())
    }

    /// The server does not seem to have executed this put: its row starts over. Should the node come all the
    /// same, it is recognised ([`Self::adopt_arrivals`]).
    fn withdraw(&self, put: &Put) {
        self.lock().changes.withdraw(put);
        self.drop_attempt(put);
    }

    /// Packets that show a node of a put in doubt are its confirmation. Called before they are applied,
    /// so that the node is never seen beside the row that asked for it.
    pub(crate) fn adopt_arrivals(&self, packets: &[Packet]) -> OpResult<()> {
        let mut found = Vec::new();
        let mut late = Vec::new();
        {
            let mut state = self.lock();
            for packet in packets {
                let ActionPacket::Nodes { nodes, .. } = &packet.action else {
                    continue;
                };
                for raw in nodes {
                    let node = row_from_raw(raw);
                    if let Some(put) = state.changes.doubted(&node) {
                        if put.note.copy.is_none() || state.node_row(raw.handle)?.is_none() {
                            found.push((put.clone(), node));
                        }
                    } else if state.node_row(raw.handle)?.is_none()
                        && let Some(put) = state.changes.take_withdrawn(&node)
                    {
                        late.push((put, node));
                    }
                }
            }
        }
        for (put, node) in found {
            self.adopt_found(&put, &node)?;
        }
        for (put, node) in late {
            self.settle_late(&put, &node, packets)?;
        }
        Ok(())
    }

    /// A put of an earlier run was executed after we had given it up: its row is put a second time, or was.
    fn settle_late(&self, put: &Put, node: &NodeRow, packets: &[Packet]) -> OpResult<()> {
        let has_children = packets.iter().any(|packet| match &packet.action {
            ActionPacket::Nodes { nodes, .. } => {
                nodes.iter().any(|other| other.parent == Some(node.handle))
            }
            _ => false,
        });
        let is_spare = put.note.over.is_none() && (put.note.is_folder || put.note.copy.is_some());
        if has_children || !is_spare {
            tracing::warn!(target: "megamount::journal", node = %node.handle, "a late node of ours is kept beside its row");
            return Ok(());
        }
        tracing::warn!(target: "megamount::journal", node = %node.handle, "an empty folder or a copy was made twice by a late request: the second goes to the bin");
        self.store
            .write(|tx| tx.put_doomed(node.handle))
            .map_err(|error| store_errno(&error))?;
        self.lock().changes.doom(node.handle);
        Ok(())
    }

    /// Adopts what a fetched tree or an earlier run brought in. Reads the whole table of nodes, if
    /// anything is in doubt.
    pub(crate) fn adopt_known(&self) -> OpResult<()> {
        let puts = self.lock().changes.doubts();
        let keys: HashSet<&str> = puts.iter().flat_map(|put| put.note.keys()).collect();
        let nodes = self
            .store
            .find_by_keys(&keys)
            .map_err(|error| store_errno(&error))?;
        for put in &puts {
            let node = nodes.iter().find(|node| put.may_have_made_known(node));
            if let Some(node) = node {
                self.adopt_found(put, node)?;
                // The view may have had the node and the row as two entries: build it anew.
                let mut state = self.lock();
                state.forget_dir(Subject::Node(put.note.parent));
                if let Some(place) = put.note.place() {
                    state.forget_dir(place.parent);
                }
            }
        }
        Ok(())
    }

    /// As [`Self::adopt`], of a node that is known from elsewhere than the reply to its put: packets about it
    /// may come with it, or after it, and all are applied in order.
    fn adopt_found(&self, put: &Put, node: &NodeRow) -> OpResult<()> {
        self.adopt(put, node)?;
        self.lock().own.forget(node.handle);
        Ok(())
    }

    fn adopt(&self, put: &Put, node: &NodeRow) -> OpResult<()> {
        tracing::info!(target: "megamount::journal", node = %node.handle, "found the node of an unanswered request");
        if self.lock().changes.get(put.subject).is_none() {
            self.drop_attempt(put);
            return Ok(());
        }
        self.confirm_put(put, node, None)?;
        let mut state = self.lock();
        state.changes.set_in_flight(put.subject, false);
        state
            .changes
            .set_in_flight(Subject::Node(node.handle), false);
        Ok(())
    }

    /// The same token once more: it works once, so this cannot make a second node. `false`: it is used up or
    /// stale.
    async fn put_again(&self, put: &Put) -> Result<bool, &'static str> {
        let still_wanted = {
            let state = self.lock();
            state.changes.get(put.subject).is_some_and(|row| {
                !row.removed
                    && row
                        .content
                        .as_ref()
                        .is_some_and(|c| c.generation == put.note.generation)
            }) && !state.lacks_key(put.note.parent)
        };
        if !still_wanted {
            self.withdraw(put);
            return Ok(true);
        }
        let entry = Entry {
            source: EntrySource::Token(UploadToken::new(put.note.token.clone())),
            kind: 0,
            attrs: put.note.attrs.clone(),
            key: put.note.key.clone(),
            fa: None,
            parent: None,
            over: put.note.over,
        };
        let master = self.master_key().map_err(|_| "there is no session")?;
        let key = b64::decode(&put.note.key)
            .ok()
            .and_then(|wrapped| master.unwrap_node_key(&wrapped, false).ok());
        let cr = key.and_then(|key| {
            let node = std::iter::once((put.note.token.clone(), &key));
            self.lock().cross_keys(put.note.parent, node)
        });
        let command = Command::Put {
            t: put.note.parent,
            n: vec![entry],
            i: self.api.client_id().to_owned(),
            vb: put.note.over.map(|_| 1),
            cr,
        };
        let _guard = self.gate.lock().await;
        let frozen = self.api.freeze(&[command]);
        self.keep_outstanding(&frozen);
        let answer = self.api.send(&frozen).await;
        self.settle_outstanding(&answer);
        match answer {
            Ok(results) => match results.into_iter().next() {
                Some(Ok(reply)) => {
                    let nodes = nodes_of(&reply);
                    let ours = nodes
                        .iter()
                        .map(row_from_raw)
                        .find(|node| put.may_have_made(node));
                    match ours {
                        Some(node) => self
                            .adopt(put, &node)
                            .map(|()| true)
                            .map_err(|_| "the store refused"),
                        None => Err("the new node did not appear in the answer"),
                    }
                }
                Some(Err(code)) => {
                    tracing::info!(%code, "token of an unanswered request is no longer good");
                    Ok(false)
                }
                None => Err("the answer was empty"),
            },
            Err(_) => Err("the server cannot be reached"),
        }
    }
}
