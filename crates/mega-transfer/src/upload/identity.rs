//! Whether local bytes are the content of a node.
//!
//! A node's key names its content: encrypting the local bytes with it gives its meta-MAC or does not.
//! So content the account has already need not be sent, the server copies it. In the same way a record of
//! an upload says which bytes were sent.

use std::ops::Range;
use std::sync::Arc;

use mega_crypto::{
    ChunkMac, ContentCipher, FileKey, MacVerdict, MetaMacFold, chunk_index_at, chunk_start,
    verify_meta_mac,
};
use tokio::task::JoinSet;

use super::ledger::Ledger;
use super::record::{PieceNote, ResumeRecord};
use super::{SealedSource, Shared};
use crate::error::TransferError;
use crate::piece::piece_at;

/// Read and MACed at once: eight full chunks, what the MAC code interleaves.
const PIECE: u64 = 8 << 20;

/// Compares the whole source with the key. Reads everything, sends nothing.
pub(super) async fn matches(
    shared: &Arc<Shared>,
    source: Arc<dyn SealedSource>,
    key: &FileKey,
) -> Result<bool, TransferError> {
    let size = source.size();
    let cipher = ContentCipher::new(&key.aes_key(), &key.nonce());
    let macs = macs(shared, source, cipher, size).await?;
    Ok(match verify_meta_mac(key, size, &macs) {
        MacVerdict::Match | MacVerdict::ToleratedMegajs | MacVerdict::Empty => true,
        // A key made by an old SDK does not cover all chunks: good enough to serve what the server has,
        // not good enough to throw away bytes that exist nowhere else.
        MacVerdict::ToleratedOldSdk | MacVerdict::Mismatch => false,
    })
}

/// Whether what a record says was sent is what the source has. Numbers that are wrong or start again must
/// not lead to a file that is made of two contents.
pub(super) async fn agrees(
    shared: &Arc<Shared>,
    source: Arc<dyn SealedSource>,
    record: &ResumeRecord,
) -> Result<bool, TransferError> {
    let cipher = ContentCipher::new(record.key.content_key(), record.key.nonce());
    let macs = macs(shared, source, cipher, Ledger::resume(record).planned()).await?;
    let mut macs = macs.iter();
    let mut fold = MetaMacFold::new(record.key.content_key());
    let stored = usize::try_from(record.chunks).unwrap_or(usize::MAX);
    macs.by_ref().take(stored).for_each(|mac| fold.push(mac));
    let is_prefix_same = fold.expose_for_journal() == record.fold;
    let mut is_piece_same = |piece: &PieceNote| {
        let found = macs.by_ref().take(usize::from(piece.chunks));
        let found: Vec<&ChunkMac> = found.collect();
        piece.macs.is_empty() || found.into_iter().eq(&piece.macs)
    };
    Ok(is_prefix_same && record.pieces.iter().all(&mut is_piece_same))
}

/// The MACs of the chunks below `end`, which is a chunk boundary or the end of the file.
async fn macs(
    shared: &Arc<Shared>,
    source: Arc<dyn SealedSource>,
    cipher: ContentCipher,
    end: u64,
) -> Result<Vec<ChunkMac>, TransferError> {
    let cipher = Arc::new(cipher);
    let most = shared.limits.memory.background_size() / 4;
    let mut found: Vec<(u64, Vec<ChunkMac>)> = Vec::new();
    let mut tasks = JoinSet::new();
    let mut next = 0;
    while next < end || !tasks.is_empty() {
        while next < end && tasks.len() < shared.worker_count {
            let range = piece_at(next, end, PIECE.min(most));
            next = range.end;
            let (source, cipher) = (Arc::clone(&source), Arc::clone(&cipher));
            let work = macs_of(Arc::clone(shared), source, cipher, range);
            tasks.spawn_on(work, &shared.runtime);
        }
        if let Some(done) = tasks.join_next().await {
            found.push(done.map_err(|_| TransferError::WorkerDied)??);
        }
    }
    found.sort_by_key(|(start, _)| *start);
    Ok(found.into_iter().flat_map(|(_, macs)| macs).collect())
}

async fn macs_of(
    shared: Arc<Shared>,
    source: Arc<dyn SealedSource>,
    cipher: Arc<ContentCipher>,
    range: Range<u64>,
) -> Result<(u64, Vec<ChunkMac>), TransferError> {
    let mut buffer = shared.limits.memory.buffer(range.end - range.start).await;
    let work = move || {
        let data = buffer.bytes_mut();
        source
            .read_at(range.start, data)
            .map_err(|error| TransferError::Source(Arc::new(error)))?;
        let (first, mut rest, mut chunks) = (range.start, &*data, Vec::new());
        for index in chunk_index_at(first)..=chunk_index_at(range.end - 1) {
            let end = chunk_start(index + 1).min(range.end);
            let length = usize::try_from(end - chunk_start(index)).unwrap_or(usize::MAX);
            let (chunk, after) = rest.split_at(length.min(rest.len()));
            chunks.push(chunk);
            rest = after;
        }
        Ok((first, cipher.chunk_macs(&chunks)))
    };
    shared.work(work).await?
}
