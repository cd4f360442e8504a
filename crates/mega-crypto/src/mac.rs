//! The meta-MAC, its tolerated deviations, and the upload checksum (protocol/04 sections 3 and 5).

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes128Enc, Block};

use crate::{ChunkMac, ContentKey, FileKey, MetaMac, chunk_count, chunk_index_at, chunk_start};

/// Old SDKs lost at most this many consecutive chunk MACs.
const OLD_SDK_RUN: usize = 64;

/// ... and the run began within this many chunks of the end.
const OLD_SDK_TAIL: usize = 96;

/// The fold of chunk MACs in file order.
#[derive(Clone)]
struct Fold {
    aes: Aes128Enc,
    state: Block,
}

impl Fold {
    fn new(key: &ContentKey) -> Self {
        Self {
            aes: Aes128Enc::new(key.as_bytes().into()),
            state: Block::default(),
        }
    }

    fn push(&mut self, mac: &[u8; 16]) {
        for (byte, other) in self.state.iter_mut().zip(mac) {
            *byte ^= other;
        }
        self.aes.encrypt_block(&mut self.state);
    }

    fn result(&self) -> MetaMac {
        let mut mac = [0; 8];
        let (words, _) = self.state.as_chunks::<4>();
        if let [a, b, c, d] = words {
            for (out, (x, y)) in mac.iter_mut().zip(a.iter().chain(c).zip(b.iter().chain(d))) {
                *out = x ^ y;
            }
        }
        MetaMac::from_bytes(mac)
    }
}

/// The meta-MAC of a file from the MACs of all its chunks in file order; zeros for an empty file.
pub fn meta_mac(key: &ContentKey, macs: &[ChunkMac]) -> MetaMac {
    let mut fold = Fold::new(key);
    for mac in macs {
        fold.push(mac.as_bytes());
    }
    fold.result()
}

/// The meta-MAC of a file whose chunk MACs are taken in file order, some now and some after a restart.
///
/// It stands for any number of chunk MACs in 16 bytes, so that the journal of an upload stays small.
#[derive(Clone)]
pub struct MetaMacFold {
    fold: Fold,
    chunks: u64,
}

impl MetaMacFold {
    /// Nothing folded yet.
    pub fn new(key: &ContentKey) -> Self {
        Self::from_journal(key, 0, [0; 16])
    }

    /// The inverse of [`Self::expose_for_journal`] after `chunks` chunks.
    pub fn from_journal(key: &ContentKey, chunks: u64, state: [u8; 16]) -> Self {
        let mut fold = Fold::new(key);
        fold.state = state.into();
        Self { fold, chunks }
    }

    /// Takes the MAC of the next chunk.
    pub fn push(&mut self, mac: &ChunkMac) {
        self.fold.push(mac.as_bytes());
        self.chunks += 1;
    }

    /// How many chunks have been folded.
    pub const fn chunks(&self) -> u64 {
        self.chunks
    }

    /// The meta-MAC of a file that ends here.
    pub fn finish(&self) -> MetaMac {
        self.fold.result()
    }

    /// What was folded so far, for the encrypted local journal and nothing else.
    pub fn expose_for_journal(&self) -> [u8; 16] {
        self.fold.state.into()
    }
}

impl core::fmt::Debug for MetaMacFold {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("MetaMacFold")
            .field("chunks", &self.chunks)
            .finish_non_exhaustive()
    }
}

/// What the comparison of a file's content with its key says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MacVerdict {
    /// The content is what the uploader encrypted.
    Match,
    /// So it is, but megajs (up to 1.3.9) added the MAC of an empty chunk at a chunk boundary.
    ToleratedMegajs,
    /// So it is, but an old SDK left out one run of chunk MACs near the end.
    ToleratedOldSdk,
    /// The file is empty: clients disagree about its MAC, so nothing was compared.
    Empty,
    /// The content is not what the uploader encrypted. Never serve it as good.
    Mismatch,
}

impl MacVerdict {
    /// Whether the content may be served.
    pub const fn is_acceptable(self) -> bool {
        match self {
            Self::Match | Self::ToleratedMegajs | Self::ToleratedOldSdk | Self::Empty => true,
            Self::Mismatch => false,
        }
    }
}

/// Compares the chunk MACs of the complete content of a file of `size` bytes with its key.
///
/// The number of MACs must be that of the size's chunks, otherwise nothing matches.
pub fn verify_meta_mac(key: &FileKey, size: u64, macs: &[ChunkMac]) -> MacVerdict {
    if size == 0 {
        return MacVerdict::Empty;
    }
    if macs.len() as u64 != chunk_count(size) {
        return MacVerdict::Mismatch;
    }
    let expected = key.meta_mac();
    let mut fold = Fold::new(&key.aes_key());
    for mac in macs {
        fold.push(mac.as_bytes());
    }
    if fold.result() == expected {
        return MacVerdict::Match;
    }
    if megajs_appends_a_chunk(size) {
        let mut start = [0; 16];
        start[..8].copy_from_slice(key.nonce().as_bytes());
        start[8..].copy_from_slice(key.nonce().as_bytes());
        fold.push(&start);
        if fold.result() == expected {
            return MacVerdict::ToleratedMegajs;
        }
    }
    if matches_without_a_run(key, macs, &expected) {
        return MacVerdict::ToleratedOldSdk;
    }
    MacVerdict::Mismatch
}

/// megajs pads to 16 bytes first and then finds itself on a chunk boundary.
fn megajs_appends_a_chunk(size: u64) -> bool {
    size.checked_next_multiple_of(16)
        .is_some_and(|end| chunk_start(chunk_index_at(end)) == end)
}

/// Whether dropping one run of 1 to 64 MACs that begins within the last 96 gives the expected
/// value. At least one MAC must remain: the MAC of nothing proves nothing.
fn matches_without_a_run(key: &FileKey, macs: &[ChunkMac], expected: &MetaMac) -> bool {
    let first = macs.len().saturating_sub(OLD_SDK_TAIL);
    let (head, tail) = macs.split_at(first);
    let mut before = Fold::new(&key.aes_key());
    for mac in head {
        before.push(mac.as_bytes());
    }
    let aes = before.aes.clone();
    for (start, mac) in tail.iter().enumerate() {
        for length in 1..=OLD_SDK_RUN.min(tail.len() - start) {
            let rest = tail.get(start + length..).unwrap_or_default();
            if first + start + rest.len() == 0 {
                continue;
            }
            let mut fold = Fold {
                aes: aes.clone(),
                state: before.state,
            };
            for mac in rest {
                fold.push(mac.as_bytes());
            }
            if fold.result() == *expected {
                return true;
            }
        }
        before.push(mac.as_bytes());
    }
    false
}

/// The check value `?d=` of one posted piece of ciphertext: byte `i mod 12` is the XOR of all
/// bytes `i`.
pub fn upload_checksum(cipher: &[u8]) -> [u8; 12] {
    // 48 is the smallest multiple of 12 that is made of whole vectors.
    let (rows, rest) = cipher.as_chunks::<48>();
    let mut wide = [0u8; 48];
    for row in rows {
        for (sum, byte) in wide.iter_mut().zip(row) {
            *sum ^= byte;
        }
    }
    let mut sum = [0; 12];
    for twelve in wide.chunks(12).chain(rest.chunks(12)) {
        for (sum, byte) in sum.iter_mut().zip(twelve) {
            *sum ^= byte;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fold_goes_on_after_the_journal() {
        let key = ContentKey::from_bytes([7; 16]);
        let macs: Vec<ChunkMac> = (0..9).map(|n| ChunkMac::from_bytes([n; 16])).collect();
        for split in 0..=macs.len() {
            let mut fold = MetaMacFold::new(&key);
            macs[..split].iter().for_each(|mac| fold.push(mac));
            let (chunks, state) = (fold.chunks(), fold.expose_for_journal());
            assert_eq!(chunks, split as u64);
            let mut fold = MetaMacFold::from_journal(&key, chunks, state);
            macs[split..].iter().for_each(|mac| fold.push(mac));
            assert_eq!(fold.finish(), meta_mac(&key, &macs));
        }
    }
}
