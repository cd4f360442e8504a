//! From plaintext to a piece that can be posted: read, fingerprint, MAC, encrypt, check value, cache.
//!
//! Runs on a blocking thread. What the whole upload gathers from its pieces lives in [`Gathered`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use mega_crypto::{
    ChunkMac, ContentCipher, FingerprintBuilder, MetaMac, UploadKey, chunk_count, meta_mac,
    upload_checksum,
};
use mega_store::{PendingBlob, StoreError};

use super::SealedSource;
use crate::error::TransferError;

/// The ciphertext of one piece, kept until the server has it.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) body: Bytes,
    pub(super) checksum: [u8; 12],
}

/// What an attempt knows beside its pieces.
pub(super) struct Gathered {
    key: UploadKey,
    cipher: ContentCipher,
    size: u64,
    // Both innermost: nothing else is taken while one is held.
    macs: Mutex<BTreeMap<u64, Vec<ChunkMac>>>,
    fingerprint: Mutex<FingerprintBuilder>,
    /// Empty once the cache has declined a piece.
    pending: Mutex<Option<Arc<PendingBlob>>>,
}

impl Gathered {
    pub(super) fn new(key: UploadKey, size: u64, pending: Option<PendingBlob>) -> Self {
        Self {
            cipher: ContentCipher::new(key.content_key(), key.nonce()),
            key,
            size,
            macs: Mutex::default(),
            fingerprint: Mutex::new(FingerprintBuilder::new(size)),
            pending: Mutex::new(pending.map(Arc::new)),
        }
    }

    /// Makes the piece for `range`, which starts and ends on chunk boundaries or at the end.
    pub(super) fn prepare(
        &self,
        source: &dyn SealedSource,
        range: &Range<u64>,
    ) -> Result<Piece, TransferError> {
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut data = vec![0; len];
        if len > 0 {
            let read = source.read_at(range.start, &mut data);
            read.map_err(|error| TransferError::Source(Arc::new(error)))?;
        }
        lock(&self.fingerprint).feed(range.start, &data);
        let macs = self.cipher.encrypt_chunks(range.start, &mut data);
        let checksum = upload_checksum(&data);
        self.tee(range.start, &data);
        lock(&self.macs).insert(range.start, macs);
        Ok(Piece {
            body: data.into(),
            checksum,
        })
    }

    /// The ciphertext goes to the cache as well, until the cache declines.
    fn tee(&self, offset: u64, ciphertext: &[u8]) {
        let Some(pending) = lock(&self.pending).clone() else {
            return;
        };
        let kept = pending.write(offset, ciphertext);
        if !matches!(kept, Ok(true)) {
            if let Err(error) = kept {
                tracing::debug!(%error, "the cache declined an upload");
            }
            *lock(&self.pending) = None;
        }
    }

    /// The MAC of the whole content, if every chunk was prepared.
    pub(super) fn meta_mac(&self) -> Option<MetaMac> {
        let macs: Vec<ChunkMac> = lock(&self.macs).values().flatten().cloned().collect();
        let complete = macs.len() as u64 == chunk_count(self.size);
        complete.then(|| meta_mac(self.key.content_key(), &macs))
    }

    pub(super) fn key(&self) -> &UploadKey {
        &self.key
    }

    /// The checksum part of the fingerprint; it does not depend on the time.
    pub(super) fn fingerprint_crc(&self) -> [u8; 16] {
        lock(&self.fingerprint).finish(0).crc
    }

    /// The cached ciphertext, if all of it was kept and nobody writes to it any more.
    pub(super) fn take_blob(&self) -> Option<PendingBlob> {
        lock(&self.pending).take().and_then(Arc::into_inner)
    }
}

/// The cache may be off or full; an upload does not depend on it.
pub(super) fn optional(pending: Result<PendingBlob, StoreError>) -> Option<PendingBlob> {
    pending
        .inspect_err(|error| tracing::debug!(%error, "upload is not cached"))
        .ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
