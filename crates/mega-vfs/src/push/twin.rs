//! Content that the account has already: what was written is byte for byte a file of ours, so the server
//! copies that file and nothing is sent.
//!
//! A file of the same size is a candidate, one with the same checksum in its fingerprint is looked at, and
//! one whose key gives its MAC for the local bytes is the *twin*. The modification time plays no part: the
//! copy gets its own. Only files that this account owns count: who chose a key can make two contents
//! that have the same MAC under it.
//!
//! Asking costs one look into an index, and reading the file once where a checksum agrees. Files of one
//! chunk are not looked for ([`mega_store::SMALLEST_BY_SIZE`]).
//!
//! From then on it goes the way of an upload, with the twin's handle in the place of the token: the put is
//! journalled with its [`CopyNote`](super::journal::CopyNote), found again by its attributes, and starts over
//! when the server has not executed it. A twin that is gone by then is refused, and the file uploaded.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mega_crypto::{FileKey, NodeKey};
use mega_proto::NodeHandle;
use mega_store::Subject;
use mega_transfer::{SealedSource, TransferError, Uploads};

use super::upload::Finished;
use crate::changes::is_settled;
use crate::errno::store_errno;
use crate::file::{Base, Content};
use crate::shared::Shared;
use crate::state::State;
use crate::types::{OpResult, now_ms};

/// Most files of one size whose attributes are read.
const MOST_CANDIDATES: u32 = 16;
/// Most times the local bytes are read for one file. A checksum covers small parts of a large file only:
/// all the versions of a disk image that is changed in place may have the same.
const MOST_READINGS: usize = 2;

/// A node whose content is what the file has.
#[derive(Debug)]
pub(crate) struct Twin {
    pub(crate) handle: NodeHandle,
    pub(crate) key: FileKey,
    /// The checksum part of the fingerprint.
    pub(crate) crc: [u8; 16],
}

/// Counts what is read, so that whoever waits for the file sees that something moves.
struct Counted {
    source: Arc<dyn SealedSource>,
    read: Arc<AtomicU64>,
}

impl SealedSource for Counted {
    fn size(&self) -> u64 {
        self.source.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.source.read_at(offset, buf)?;
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

impl State {
    /// Files of ours that may have the content of `subject`, its own node first.
    fn twin_candidates(
        &self,
        user: mega_proto::UserHandle,
        subject: Subject,
        size: u64,
    ) -> Vec<Twin> {
        let over = self.changes.get(subject).and_then(|row| row.replaces);
        let found = self.store.files_of_size(size, MOST_CANDIDATES);
        let found = found.unwrap_or_else(|error| {
            tracing::debug!(%error, "files of a size are not known");
            Vec::new()
        });
        let mut twins = Vec::new();
        for row in found {
            // What goes away now is no source, and the server is not asked to replace a node by its own copy.
            let is_source = row.owner == Some(user)
                && !self.changes.is_doomed(row.handle)
                && over != Some(row.handle);
            if !is_source {
                continue;
            }
            let node = self.decryptor.open(&row);
            let crc = node
                .attributes
                .and_then(|attributes| attributes.fingerprint());
            if let (Some(NodeKey::File(key)), Some(fingerprint)) = (node.key, crc) {
                twins.push(Twin {
                    handle: row.handle,
                    key,
                    crc: fingerprint.crc,
                });
            }
        }
        twins.sort_by_key(|twin| Subject::Node(twin.handle) != subject);
        twins
    }

    /// The file has again, or still, the content of its own node: only its name and attributes are left to
    /// send. The caller holds both locks, and nothing was written since the bytes were compared.
    pub(super) fn settle_unchanged(
        &mut self,
        shared: &Shared,
        content: &mut Content,
        finished: &Finished,
    ) -> OpResult<()> {
        let Some(mut row) = self.changes.get(finished.subject).cloned() else {
            return Ok(());
        };
        row.content = None;
        row.state = mega_store::ChangeState::Pending { due_ms: now_ms() };
        if is_settled(&row) {
            self.commit(Vec::new(), &[finished.subject])?;
        } else {
            self.commit(vec![row], &[])?;
        }
        if let Some(record) = finished.record {
            shared
                .store
                .write(|tx| tx.delete_attempt(record))
                .map_err(|error| store_errno(&error))?;
        }
        if let Some(handle) = finished.subject.node()
            && let Some(base) = shared.open_base(self, finished.subject, handle)?
        {
            content.base = Some(base);
            content.is_base_lost = false;
        }
        let size = content.base.as_ref().map(|Base { size, .. }| *size);
        for layer in content
            .layers
            .drain(..finished.layers.min(content.layers.len()))
        {
            if let Err(error) = layer.file.delete() {
                tracing::warn!(%error, "staging of an unchanged file stays behind");
            }
        }
        content.is_doubted = false;
        content.is_dirty = !content.layers.is_empty() || Some(content.size) != size;
        Ok(())
    }
}

impl Shared {
    /// The file of the account that has the content of `source`, which is the sealed content of `subject`.
    /// `read` counts the bytes that are read for it.
    pub(super) async fn find_twin(
        &self,
        subject: Subject,
        source: Arc<dyn SealedSource>,
        read: Arc<AtomicU64>,
    ) -> Result<Option<Twin>, TransferError> {
        let Some(session) = self.api.session() else {
            return Ok(None);
        };
        let mut twins = self
            .lock()
            .twin_candidates(session.user, subject, source.size());
        if twins.is_empty() {
            return Ok(None);
        }
        let head = Arc::clone(&source);
        let crc = tokio::task::spawn_blocking(move || Uploads::fingerprint_crc(&*head));
        let crc = crc.await.map_err(|_| TransferError::WorkerDied)??;
        twins.retain(|twin| twin.crc == crc);
        let source: Arc<dyn SealedSource> = Arc::new(Counted { source, read });
        for twin in twins.into_iter().take(MOST_READINGS) {
            if self.uploads.matches(Arc::clone(&source), &twin.key).await? {
                tracing::debug!(?subject, twin = %twin.handle, "the account has this content already");
                return Ok(Some(twin));
            }
        }
        Ok(None)
    }
}
