//! Content encryption and chunk MACs (protocol/04 sections 2 and 3).
//!
//! A chunk MAC is a CBC chain, so one chunk alone is bound by the latency of AES: a block must
//! leave the cipher before the next one can enter. The chunks of a file are independent, so
//! [`lanes`] runs eight chains at once. Callers get the full speed by handing in eight or more
//! chunks of equal length together, that is 8 MiB behind the first 4.5 MiB of a file.

use core::fmt;
use core::ops::Range;

use aes::cipher::{BlockCipherEncrypt, InnerIvInit, KeyInit, StreamCipher};
use aes::{Aes128Enc, Block};
use ctr::cipher::StreamCipherCoreWrapper;
use ctr::{CtrCore, flavors};

use crate::{ChunkMac, ContentKey, Nonce, chunk_index_at, chunk_start};

mod lanes;

use lanes::Pass;

const BLOCK: u64 = 16;

/// One file's cipher: AES-CTR at any offset and the chunk MAC.
///
/// Holds the expanded key, so making one costs about a tenth of a microsecond; it can be shared
/// between threads, every method takes `&self`.
#[derive(Clone)]
pub struct ContentCipher {
    aes: Aes128Enc,
    nonce: [u8; 8],
}

impl ContentCipher {
    /// Expands the key.
    pub fn new(key: &ContentKey, nonce: &Nonce) -> Self {
        Self {
            aes: Aes128Enc::new(key.as_bytes().into()),
            nonce: *nonce.as_bytes(),
        }
    }

    /// The counter block of the 16 bytes that hold `offset`.
    fn counter(&self, offset: u64) -> Block {
        let mut counter = [0; 16];
        counter[..8].copy_from_slice(&self.nonce);
        counter[8..].copy_from_slice(&(offset / BLOCK).to_be_bytes());
        counter.into()
    }

    /// Encrypts or decrypts (the same thing) the bytes at `offset` of the file, in place. Any
    /// offset and length.
    pub fn apply(&self, offset: u64, data: &mut [u8]) {
        let skip = (offset % BLOCK) as usize;
        if skip == 0 {
            self.apply_aligned(offset, data);
            return;
        }
        let head = data.len().min(16 - skip);
        let (head, rest) = data.split_at_mut(head);
        let mut keystream = self.counter(offset);
        self.aes.encrypt_block(&mut keystream);
        for (byte, key) in head.iter_mut().zip(keystream.iter().skip(skip)) {
            *byte ^= key;
        }
        self.apply_aligned(offset.saturating_add(head.len() as u64), rest);
    }

    /// [`Self::apply`] at a multiple of 16.
    fn apply_aligned(&self, offset: u64, data: &mut [u8]) {
        if data.is_empty() {
            return;
        }
        let core = CtrCore::<_, flavors::Ctr64BE>::inner_iv_init(&self.aes, &self.counter(offset));
        // The wrapper refuses only what exceeds 2^64 blocks.
        StreamCipherCoreWrapper::from_core(core).apply_keystream(data);
    }

    /// The first state of every chain: `nonce || nonce`.
    pub(crate) fn mac_start(&self) -> [u8; 16] {
        let mut start = [0; 16];
        start[..8].copy_from_slice(&self.nonce);
        start[8..].copy_from_slice(&self.nonce);
        start
    }

    /// The MAC of one chunk's plaintext. One chain: several times slower than
    /// [`Self::chunk_macs`].
    pub fn chunk_mac(&self, plain: &[u8]) -> ChunkMac {
        let mut state = self.mac_start();
        lanes::serial_mac(&self.aes, &mut state, plain);
        ChunkMac::from_bytes(state)
    }

    /// The MACs of several chunks' plaintexts, in the order given.
    pub fn chunk_macs(&self, chunks: &[&[u8]]) -> Vec<ChunkMac> {
        lanes::run(self, chunks.iter().map(|chunk| (0, *chunk)), lanes::MacOnly)
    }

    /// Encrypts whole chunks in place and gives the MACs of their plaintexts.
    ///
    /// `data` starts at a chunk boundary, `start_offset`, and ends on one or at the end of the
    /// file: what follows the last boundary inside `data` counts as one chunk.
    pub fn encrypt_chunks(&self, start_offset: u64, data: &mut [u8]) -> Vec<ChunkMac> {
        lanes::run(self, split_chunks(start_offset, data), Pass::Encrypt)
    }

    /// Decrypts whole chunks in place and gives the MACs of their plaintexts; otherwise as
    /// [`Self::encrypt_chunks`].
    pub fn decrypt_chunks(&self, start_offset: u64, data: &mut [u8]) -> Vec<ChunkMac> {
        lanes::run(self, split_chunks(start_offset, data), Pass::Decrypt)
    }
}

impl fmt::Debug for ContentCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentCipher")
    }
}

/// Cuts `data`, which starts at `offset` of the file, at the chunk boundaries.
fn split_chunks(mut offset: u64, data: &mut [u8]) -> impl Iterator<Item = (u64, &mut [u8])> {
    debug_assert_eq!(
        chunk_start(chunk_index_at(offset)),
        offset,
        "not a chunk boundary"
    );
    let mut rest = data;
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Range { start, end } = offset..chunk_start(chunk_index_at(offset).saturating_add(1));
        let length = rest
            .len()
            .min(usize::try_from(end - start).unwrap_or(usize::MAX).max(1));
        let (chunk, tail) = core::mem::take(&mut rest).split_at_mut(length);
        rest = tail;
        offset = end;
        Some((start, chunk))
    })
}
