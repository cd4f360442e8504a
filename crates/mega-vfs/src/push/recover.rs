//! Requests whose result is not known: after a crash, or when the answer never came.
//!
//! First the event stream is brought up to date, then the truth is asked. A put whose key is found on
//! a node was executed, wherever that node is now: it is adopted. Otherwise it was not: a file whose
//! token may still be good is put once more, everything else starts over. Never are two nodes made
//! from one change.

use std::time::Duration;

use mega_proto::command::{Command, Entry, EntrySource};
use mega_proto::{NodeHandle, UploadToken};
use mega_store::Subject;
use mega_tree::truth::row_from_raw;

use super::confirm::has_key;
use super::journal::Put;
use super::send::nodes_of;
use crate::shared::Shared;

/// Patience for the event stream to become current.
const CATCH_UP: Duration = Duration::from_secs(60);

impl Shared {
    /// Resolves every journalled attempt. `Err` says why that is not possible yet.
    pub(crate) async fn recover_attempts(&self) -> Result<(), &'static str> {
        let attempts = self
            .store
            .attempts()
            .map_err(|_| "the journal cannot be read")?;
        if attempts.is_empty() {
            return Ok(());
        }
        if !self.catch_up(CATCH_UP).await {
            return Err("the event stream is not current");
        }
        for row in attempts {
            let Some(put) = Put::parse(&row) else {
                tracing::warn!(
                    id = row.id.0,
                    "an unreadable attempt is struck from the journal"
                );
                let _ = self.store.write(|tx| tx.delete_attempt(row.id));
                continue;
            };
            self.recover(&put).await?;
            self.lock().changes.set_in_flight(put.subject, false);
        }
        Ok(())
    }

    async fn recover(&self, put: &Put) -> Result<(), &'static str> {
        let found = self
            .store
            .find_by_key(&put.note.key)
            .map_err(|_| "the tree cannot be searched")?
            .into_iter()
            .find(|row| has_key(row, &put.note.key) && Subject::Node(row.handle) != put.subject);
        let has_row = self.lock().changes.get(put.subject).is_some();
        match found {
            Some(node) if has_row => {
                tracing::info!(target: "megamount::journal", node = %node.handle, "found the node of an unanswered request");
                self.confirm_put(put, &node, None)
                    .map_err(|_| "the store refused")?;
                self.refresh_after_adoption(put, node.handle);
                Ok(())
            }
            Some(_) => {
                self.drop_attempt(put);
                Ok(())
            }
            None if put.note.is_folder || put.note.token.is_empty() || !has_row => {
                self.drop_attempt(put);
                Ok(())
            }
            None => self.put_again(put).await,
        }
    }

    /// The view had the node and the row as two entries: build the directory anew.
    fn refresh_after_adoption(&self, put: &Put, node: NodeHandle) {
        let mut state = self.lock();
        let parents = [
            Some(Subject::Node(put.note.parent)),
            put.note.place().map(|p| p.parent),
        ];
        for parent in parents.into_iter().flatten() {
            state.forget_dir(parent);
        }
        tracing::debug!(%node, "directory rebuilt after adoption");
    }

    /// The same token once more: it works once, so this cannot make a second node.
    async fn put_again(&self, put: &Put) -> Result<(), &'static str> {
        let still_wanted = {
            let state = self.lock();
            state.changes.get(put.subject).is_some_and(|row| {
                !row.removed
                    && row
                        .content
                        .as_ref()
                        .is_some_and(|c| c.generation == put.note.generation)
            })
        };
        if !still_wanted {
            self.drop_attempt(put);
            return Ok(());
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
        let command = Command::Put {
            t: put.note.parent,
            n: vec![entry],
            i: self.api.client_id().to_owned(),
            vb: put.note.over.map(|_| 1),
            cr: None,
        };
        let _guard = self.gate.lock().await;
        let frozen = self.api.freeze(&[command]);
        match self.api.send(&frozen).await {
            Ok(results) => match results.into_iter().next() {
                Some(Ok(reply)) => {
                    let nodes = nodes_of(&reply);
                    let ours = nodes
                        .iter()
                        .map(row_from_raw)
                        .find(|r| has_key(r, &put.note.key));
                    match ours {
                        Some(node) => self
                            .confirm_put(put, &node, None)
                            .map_err(|_| "the store refused"),
                        None => Err("the new node did not appear in the answer"),
                    }
                }
                // The token is used up or stale: look again next time; if nothing is there, upload.
                Some(Err(code)) => {
                    tracing::info!(%code, "token of an unanswered request is no longer good");
                    self.drop_attempt(put);
                    Ok(())
                }
                None => Err("the answer was empty"),
            },
            Err(_) => Err("the server cannot be reached"),
        }
    }
}
