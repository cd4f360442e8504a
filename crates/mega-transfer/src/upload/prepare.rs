//! From plaintext to a piece that can be posted: read, fingerprint, MAC, encrypt, check value, cache.
//!
//! Runs on a blocking thread. What the whole upload gathers from its pieces lives in [`Gathered`].

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use mega_api::ChunkPost;
use mega_crypto::{ContentCipher, FingerprintBuilder, UploadKey, upload_checksum};
use mega_store::{DIRECT_FROM, PendingBlob, Store};

use super::SealedSource;
use super::attempt::Setback;
use super::ledger::Ledger;
use crate::budget::Buffer;
use crate::error::TransferError;

/// What an attempt knows beside its address.
pub(super) struct Gathered {
    key: UploadKey,
    cipher: ContentCipher,
    // All three innermost: nothing else is taken while one is held.
    ledger: Mutex<Ledger>,
    fingerprint: Mutex<FingerprintBuilder>,
    tee: Mutex<Tee>,
    /// The checksum part of the fingerprint where it was computed apart from the pieces.
    crc: OnceLock<[u8; 16]>,
}

/// The ciphertext on its way to the cache.
enum Tee {
    NotBegun,
    Kept(Arc<PendingBlob>),
    Declined,
}

impl Gathered {
    pub(super) fn new(key: UploadKey, ledger: Ledger, size: u64, crc: Option<[u8; 16]>) -> Self {
        Self {
            cipher: ContentCipher::new(key.content_key(), key.nonce()),
            key,
            ledger: Mutex::new(ledger),
            fingerprint: Mutex::new(FingerprintBuilder::new(size)),
            tee: Mutex::new(Tee::NotBegun),
            crc: crc.map_or_else(OnceLock::new, OnceLock::from),
        }
    }

    /// Fills `buffer` with the piece for `range`, which starts and ends on chunk boundaries or at the end.
    pub(super) fn prepare(
        &self,
        source: &dyn SealedSource,
        store: &Store,
        range: &Range<u64>,
        mut buffer: Buffer,
    ) -> Result<ChunkPost, Setback> {
        let data = buffer.bytes_mut();
        if !data.is_empty() {
            let read = source.read_at(range.start, data);
            read.map_err(|error| TransferError::Source(Arc::new(error)))?;
        }
        if self.crc.get().is_none() {
            lock(&self.fingerprint).feed(range.start, data);
        }
        let macs = self.cipher.encrypt_chunks(range.start, data);
        // Before the ciphertext goes anywhere: one key encrypts one content (I4).
        self.ledger()
            .prepared(range.start, macs)
            .map_err(|_| Setback::Changed)?;
        let checksum = upload_checksum(data);
        if !Self::is_kept_apart(source.size()) {
            self.tee(source.size(), store, range.start, data);
        }
        Ok(ChunkPost {
            offset: range.start,
            body: Bytes::from_owner(buffer),
            checksum,
            taken: Arc::default(),
        })
    }

    /// Whether keeping the ciphertext waits for the disk: it is then done beside posting, with
    /// [`tee`](Self::tee).
    pub(super) fn is_kept_apart(size: u64) -> bool {
        size >= DIRECT_FROM
    }

    /// The ciphertext goes to the cache as well, until the cache declines: it may be off or full.
    pub(super) fn tee(&self, size: u64, store: &Store, offset: u64, ciphertext: &[u8]) {
        let pending = {
            let mut tee = lock(&self.tee);
            if matches!(*tee, Tee::NotBegun) {
                *tee = match store.cache().begin_adopt(size) {
                    Ok(pending) => Tee::Kept(Arc::new(pending)),
                    Err(error) => {
                        tracing::debug!(%error, "upload is not cached");
                        Tee::Declined
                    }
                };
            }
            match &*tee {
                Tee::Kept(pending) => Arc::clone(pending),
                Tee::NotBegun | Tee::Declined => return,
            }
        };
        let kept = pending.write(offset, ciphertext);
        if !matches!(kept, Ok(true)) {
            if let Err(error) = kept {
                tracing::debug!(%error, "the cache declined an upload");
            }
            *lock(&self.tee) = Tee::Declined;
        }
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    pub(super) fn key(&self) -> &UploadKey {
        &self.key
    }

    /// The checksum part of the fingerprint, once every piece was prepared; it does not depend on the time.
    pub(super) fn fingerprint_crc(&self) -> [u8; 16] {
        match self.crc.get() {
            Some(crc) => *crc,
            None => lock(&self.fingerprint).finish(0).crc,
        }
    }

    /// The same before that, from the source.
    pub(super) fn early_crc(&self, source: &dyn SealedSource) -> io::Result<[u8; 16]> {
        if let Some(crc) = self.crc.get() {
            return Ok(*crc);
        }
        let crc = crc_of(source)?;
        Ok(*self.crc.get_or_init(|| crc))
    }

    /// The cached ciphertext, unless the cache declined, once nobody writes to it any more.
    pub(super) fn take_blob(&self) -> Option<PendingBlob> {
        match std::mem::replace(&mut *lock(&self.tee), Tee::Declined) {
            Tee::Kept(pending) => Arc::into_inner(pending),
            Tee::NotBegun | Tee::Declined => None,
        }
    }
}

/// The checksum part of a source's fingerprint; reads about 8 KiB of it.
pub(super) fn crc_of(source: &dyn SealedSource) -> io::Result<[u8; 16]> {
    let size = source.size();
    let mut builder = FingerprintBuilder::new(size);
    for window in FingerprintBuilder::windows(size) {
        let mut data = vec![0; usize::try_from(window.end - window.start).unwrap_or(usize::MAX)];
        source.read_at(window.start, &mut data)?;
        builder.feed(window.start, &data);
    }
    Ok(builder.finish(0).crc)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
