//! Checks the complete content of a file against the meta-MAC in its key (protocol/04 section 3).
//!
//! Owns the one check a file can have running. A mismatch drops what was fetched and fetches once more
//! from a new URL; a second one condemns the file: reads fail with `Corrupt` for as long as anybody
//! holds it. Small files are checked in memory on their way to the reader, others on disk, in pieces,
//! once all their units are there. MACs are computed on blocking threads.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use mega_crypto::{ChunkMac, verify_meta_mac};
use mega_store::{Blob, UNIT};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::file::{RemoteFile, store_error};
use crate::error::TransferError;
use crate::piece::piece_at;

/// Files up to this size are checked in memory.
const IN_MEMORY: u64 = 8 << 20;
/// What is read from disk and MACed in one go: eight chunks, as many as the MAC code interleaves.
const STEP: u64 = 8 << 20;

/// Units waited for at a time while fetching a file that is checked on disk.
const FETCH: usize = 8;

/// The units of a file that was checked in memory; `None` when it is on disk.
pub(super) type Pieces = Option<Arc<[Bytes]>>;
type Outcome = Result<Pieces, TransferError>;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct WholeCheck {
    // Innermost lock: nothing else is taken while it is held.
    running: Mutex<Option<watch::Receiver<Option<Outcome>>>>,
    /// Counts arrivals of units.
    arrivals: AtomicU64,
    /// The arrivals when everything in memory was verified, plus one; 0 for never.
    verified_at: AtomicU64,
}

impl WholeCheck {
    /// A unit arrived: what memory holds is not verified as a whole any more.
    pub(super) fn memory_changed(&self) {
        self.arrivals.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether any unit came from the server since the file was opened.
    pub(super) fn has_arrivals(&self) -> bool {
        self.arrivals.load(Ordering::Acquire) > 0
    }

    /// Everything that has arrived was verified.
    pub(super) fn is_memory_verified(&self) -> bool {
        self.verified_at.load(Ordering::Acquire) == self.arrivals.load(Ordering::Acquire) + 1
    }

    fn set_memory_verified(&self, arrivals: u64) {
        self.verified_at.store(arrivals + 1, Ordering::Release);
    }
}

impl RemoteFile {
    /// Waits until the whole content is verified, fetching what is missing. Gives up when nothing
    /// moves for the timeout; the check itself goes on.
    pub(super) async fn verified(self: &Arc<Self>) -> Outcome {
        let mut running = self.start_check();
        loop {
            let mut changed = self.subscribe();
            tokio::select! {
                done = running.wait_for(Option::is_some) => {
                    let outcome = done.map_err(|_| TransferError::WorkerDied)?.clone();
                    return outcome.unwrap_or(Err(TransferError::WorkerDied));
                }
                moved = timeout(self.shared().limits.timeout, changed.changed()) => {
                    if moved.is_err() {
                        return Err(TransferError::Timeout);
                    }
                }
            }
        }
    }

    /// Starts the check unless it is running.
    pub(super) fn start_check(self: &Arc<Self>) -> watch::Receiver<Option<Outcome>> {
        let mut running = self
            .whole
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running
            .as_ref()
            .filter(|running| running.has_changed().is_ok())
        {
            return running.clone();
        }
        let (sender, receiver) = watch::channel(None);
        *running = Some(receiver.clone());
        drop(running);
        let file = Arc::clone(self);
        self.shared().runtime.spawn(async move {
            let outcome = check(&file).await;
            *file
                .whole
                .running
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = None;
            sender.send_replace(Some(outcome));
        });
        receiver
    }

    /// Every unit is on disk and everything in memory was verified: so is the blob.
    pub(super) fn adopt_verdict(&self) {
        if let Some(blob) = self.blob()
            && self.whole.is_memory_verified()
            && blob.is_complete()
        {
            blob.set_verified();
        }
    }
}

async fn check(file: &Arc<RemoteFile>) -> Outcome {
    for attempt in 0..2 {
        let (macs, pieces, arrivals) = if file.size() <= IN_MEMORY {
            in_memory(file).await?
        } else {
            let Some(blob) = file.blob().cloned() else {
                return Err(TransferError::CannotVerify);
            };
            let macs = on_disk(file, &blob).await?;
            (macs, None, file.whole.arrivals.load(Ordering::Acquire))
        };
        let verdict = verify_meta_mac(file.key(), file.size(), &macs);
        if verdict.is_acceptable() {
            tracing::debug!(node = %file.handle(), ?verdict, "content verified");
            file.whole.set_memory_verified(arrivals);
            file.adopt_verdict();
            return Ok(pieces);
        }
        if attempt == 0 {
            tracing::warn!(node = %file.handle(), "content does not match its MAC: fetching it again");
        }
        file.distrust().await?;
    }
    tracing::error!(node = %file.handle(), "content does not match its MAC, twice: reads fail");
    file.condemn();
    Err(TransferError::Corrupt)
}

async fn in_memory(file: &Arc<RemoteFile>) -> Result<(Vec<ChunkMac>, Pieces, u64), TransferError> {
    let units = 0..file.size().div_ceil(UNIT);
    // The pieces and the copy that is decrypted.
    let _memory = file.shared().limits.memory.check(2 * file.size()).await;
    let pieces: Arc<[Bytes]> = file.collect(units).await?.into();
    let arrivals = file.whole.arrivals.load(Ordering::Acquire);
    let (this, input) = (Arc::clone(file), Arc::clone(&pieces));
    let macs = file.blocking(move || {
        let mut whole = BytesMut::with_capacity(input.iter().map(Bytes::len).sum());
        input
            .iter()
            .for_each(|piece| whole.extend_from_slice(piece));
        this.cipher().decrypt_chunks(0, &mut whole)
    });
    Ok((macs.await?, Some(pieces), arrivals))
}

async fn on_disk(file: &Arc<RemoteFile>, blob: &Arc<Blob>) -> Result<Vec<ChunkMac>, TransferError> {
    let mut macs = Vec::new();
    let mut offset = 0;
    // Read-ahead of this check ends with it.
    let cancel = CancellationToken::new();
    let _ended = cancel.clone().drop_guard();
    let _reuse = file.shared().limits.memory.reuse();
    while offset < file.size() {
        let piece = piece_at(offset, file.size(), STEP);
        offset = piece.end;
        macs.append(&mut piece_macs(file, blob, piece, &cancel).await?);
        file.bump();
    }
    Ok(macs)
}

/// The MACs of the chunks in `piece`, fetched first if they are not on disk.
async fn piece_macs(
    file: &Arc<RemoteFile>,
    blob: &Arc<Blob>,
    piece: Range<u64>,
    cancel: &CancellationToken,
) -> Result<Vec<ChunkMac>, TransferError> {
    // Chunk boundaries are unit boundaries.
    let units = piece.start / UNIT..piece.end.div_ceil(UNIT);
    for _ in 0..2 {
        if !blob.missing(piece.clone()).is_empty() {
            for first in units.clone().step_by(FETCH) {
                file.launch_onwards(first * UNIT, cancel);
                let run = first..units.end.min(first + FETCH as u64);
                drop(file.collect(run).await?);
            }
            file.settled().await?;
        }
        let len = piece.end - piece.start;
        let turn = file.shared().check_turn().await;
        let mut buffer = file.shared().limits.memory.buffer(len).await;
        let (this, blob, start) = (Arc::clone(file), Arc::clone(blob), piece.start);
        let macs = file.blocking(move || {
            let _turn = turn;
            let data = buffer.bytes_mut();
            let whole = blob.read_at(start, data).map_err(store_error)?;
            Ok(whole.then(|| this.cipher().decrypt_chunks(start, data)))
        });
        if let Some(macs) = macs.await?? {
            return Ok(macs);
        }
    }
    // The cache does not keep it.
    Err(TransferError::CannotVerify)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_end_what_was_verified_in_memory() {
        let check = WholeCheck::default();
        assert!(!check.is_memory_verified());
        check.memory_changed();
        check.set_memory_verified(1);
        assert!(check.is_memory_verified());
        check.memory_changed();
        assert!(!check.is_memory_verified());
    }
}
