//! Eight CBC-MAC chains at once, with or without CTR over the same bytes.
//!
//! Chunks are dealt to eight lanes, the longest first. All lanes advance together by one stripe,
//! the largest length every busy lane still has (at most [`STRIPE`]); a lane whose chunk is done
//! takes the next chunk, so lanes stay full until there are fewer chunks than lanes. A stripe is
//! encrypted or decrypted right beside its MAC while it is in the first-level cache.
//!
//! An idle lane hashes the bytes of a busy one and its state is thrown away: eight blocks in
//! flight cost hardly more than one.

use aes::cipher::consts::U16;
use aes::cipher::typenum::Unsigned;
use aes::cipher::{
    BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, ParBlocks,
};
use aes::{Aes128Enc, Block};

use super::ContentCipher;
use crate::ChunkMac;

/// Chains at once: enough to cover the latency of AES on every processor with AES instructions.
const LANES: usize = 8;

/// Bytes each lane advances at a time: eight of them fit the first-level cache, and the work to
/// start a stripe is below one percent.
const STRIPE: usize = 2048;

/// What happens to the bytes of a chunk beside their MAC.
pub(super) trait Treatment<B> {
    /// Before the MAC reads a stripe.
    fn before(&self, cipher: &ContentCipher, offset: u64, stripe: &mut B);
    /// After the MAC has read a stripe.
    fn after(&self, cipher: &ContentCipher, offset: u64, stripe: &mut B);
}

/// Leaves the bytes alone.
#[derive(Clone, Copy)]
pub(super) struct MacOnly;

impl Treatment<&[u8]> for MacOnly {
    fn before(&self, _: &ContentCipher, _: u64, _: &mut &[u8]) {}
    fn after(&self, _: &ContentCipher, _: u64, _: &mut &[u8]) {}
}

/// Encrypts after the MAC or decrypts before it, so that the MAC always sees plaintext.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    Encrypt,
    Decrypt,
}

impl Treatment<&mut [u8]> for Pass {
    fn before(&self, cipher: &ContentCipher, offset: u64, stripe: &mut &mut [u8]) {
        if *self == Self::Decrypt {
            cipher.apply_aligned(offset, stripe);
        }
    }

    fn after(&self, cipher: &ContentCipher, offset: u64, stripe: &mut &mut [u8]) {
        if *self == Self::Encrypt {
            cipher.apply_aligned(offset, stripe);
        }
    }
}

/// A slice that can be cut at its front.
pub(super) trait Cut: AsRef<[u8]> + Default {
    /// Takes the first `length` bytes off.
    fn cut(&mut self, length: usize) -> Self;
}

impl Cut for &[u8] {
    fn cut(&mut self, length: usize) -> Self {
        let (head, tail) = self.split_at(length.min(self.len()));
        *self = tail;
        head
    }
}

impl Cut for &mut [u8] {
    fn cut(&mut self, length: usize) -> Self {
        let whole = core::mem::take(self);
        let length = length.min(whole.len());
        let (head, tail) = whole.split_at_mut(length);
        *self = tail;
        head
    }
}

/// A chunk on its way through a lane.
struct Lane<B> {
    /// Position of the chunk in the result.
    index: usize,
    /// Offset of `rest` in the file.
    offset: u64,
    /// What the chain has not seen yet.
    rest: B,
}

/// Runs all chunks, given as (offset in the file, bytes), and gives their MACs in that order.
pub(super) fn run<B: Cut>(
    cipher: &ContentCipher,
    chunks: impl Iterator<Item = (u64, B)>,
    treatment: impl Treatment<B>,
) -> Vec<ChunkMac> {
    let mut waiting: Vec<Lane<B>> = chunks
        .enumerate()
        .map(|(index, (offset, rest))| Lane {
            index,
            offset,
            rest,
        })
        .collect();
    let start = Block::from(cipher.mac_start());
    let mut macs = vec![start; waiting.len()];
    // Longest first, so that the lanes end together; taken from the back.
    waiting.sort_by_key(|lane| lane.rest.as_ref().len());

    let mut lanes: [Option<Lane<B>>; LANES] = Default::default();
    let mut states = [start; LANES];
    loop {
        for (lane, state) in lanes.iter_mut().zip(&mut states) {
            if lane.is_none() {
                *lane = waiting.pop();
                *state = start;
            }
        }
        // Whole blocks only; a chunk's partial last block is finished below.
        let step = lanes
            .iter()
            .flatten()
            .map(|lane| lane.rest.as_ref().len() & !15)
            .min();
        let Some(step) = step.map(|step| step.min(STRIPE)) else {
            break;
        };
        if step > 0 {
            advance(cipher, &mut lanes, &mut states, step, &treatment);
        }
        for (slot, state) in lanes.iter_mut().zip(&mut states) {
            let Some(mut lane) = slot.take_if(|lane| lane.rest.as_ref().len() < 16) else {
                continue;
            };
            finish(cipher, &mut lane, state, &treatment);
            if let Some(mac) = macs.get_mut(lane.index) {
                *mac = *state;
            }
        }
    }
    macs.into_iter()
        .map(|mac| ChunkMac::from_bytes(mac.into()))
        .collect()
}

/// Moves every busy lane on by `step` bytes, whole blocks.
fn advance<B: Cut>(
    cipher: &ContentCipher,
    lanes: &mut [Option<Lane<B>>; LANES],
    states: &mut [Block; LANES],
    step: usize,
    treatment: &impl Treatment<B>,
) {
    let mut stripes: [(u64, B); LANES] = core::array::from_fn(|_| Default::default());
    for (lane, stripe) in lanes.iter_mut().zip(&mut stripes) {
        if let Some(lane) = lane {
            *stripe = (lane.offset, lane.rest.cut(step));
            treatment.before(cipher, stripe.0, &mut stripe.1);
            lane.offset += step as u64;
        }
    }
    let mut busy = stripes
        .iter()
        .map(|stripe| stripe.1.as_ref())
        .filter(|s| !s.is_empty());
    if let (Some(only), None) = (busy.next(), busy.next()) {
        for (state, stripe) in states.iter_mut().zip(&stripes) {
            if !stripe.1.as_ref().is_empty() {
                chain(&cipher.aes, state, only);
            }
        }
    } else {
        let spare = stripes
            .iter()
            .map(|stripe| stripe.1.as_ref())
            .find(|s| !s.is_empty());
        let sources = core::array::from_fn(|index| match stripes.get(index) {
            Some((_, stripe)) if !stripe.as_ref().is_empty() => stripe.as_ref(),
            _ => spare.unwrap_or_default(),
        });
        cipher.aes.encrypt_with_backend(Chains { states, sources });
    }
    for (offset, stripe) in &mut stripes {
        if !stripe.as_ref().is_empty() {
            treatment.after(cipher, *offset, stripe);
        }
    }
}

/// The last bytes of a chunk, fewer than 16: padded with zeros for the MAC.
fn finish<B: Cut>(
    cipher: &ContentCipher,
    lane: &mut Lane<B>,
    state: &mut Block,
    treatment: &impl Treatment<B>,
) {
    let mut tail = lane.rest.cut(16);
    if tail.as_ref().is_empty() {
        return;
    }
    treatment.before(cipher, lane.offset, &mut tail);
    absorb_tail(&cipher.aes, state, tail.as_ref());
    treatment.after(cipher, lane.offset, &mut tail);
}

fn absorb_tail(aes: &Aes128Enc, state: &mut Block, tail: &[u8]) {
    for (byte, plain) in state.iter_mut().zip(tail) {
        *byte ^= plain;
    }
    aes.encrypt_block(state);
}

/// One chain over one chunk, from the state given.
pub(super) fn serial_mac(aes: &Aes128Enc, state: &mut [u8; 16], plain: &[u8]) {
    let mut block = Block::from(*state);
    chain(aes, &mut block, plain);
    let tail = plain.as_chunks::<16>().1;
    if !tail.is_empty() {
        absorb_tail(aes, &mut block, tail);
    }
    *state = block.into();
}

/// One chain over whole blocks; a partial last block is left out.
fn chain(aes: &Aes128Enc, state: &mut Block, plain: &[u8]) {
    struct Chain<'a> {
        state: &'a mut Block,
        plain: &'a [[u8; 16]],
    }
    impl BlockSizeUser for Chain<'_> {
        type BlockSize = U16;
    }
    impl BlockCipherEncClosure for Chain<'_> {
        #[inline(always)]
        fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
            let mut state = *self.state;
            for block in self.plain {
                xor(&mut state, block);
                backend.encrypt_block_inplace(&mut state);
            }
            *self.state = state;
        }
    }
    aes.encrypt_with_backend(Chain {
        state,
        plain: plain.as_chunks().0,
    });
}

#[inline(always)]
fn xor(state: &mut Block, block: &[u8; 16]) {
    // By way of an array: this form becomes one vector instruction.
    let mut bytes: [u8; 16] = (*state).into();
    for (byte, plain) in bytes.iter_mut().zip(block) {
        *byte ^= plain;
    }
    *state = bytes.into();
}

/// Eight chains over eight slices of the same length, inside the cipher's own feature detection.
struct Chains<'a, 's> {
    states: &'a mut [Block; LANES],
    sources: [&'s [u8]; LANES],
}

impl BlockSizeUser for Chains<'_, '_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Chains<'_, '_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        let [a, b, c, d, e, f, g, h] = self.sources.map(|source| source.as_chunks::<16>().0);
        let mut states = *self.states;
        let rows = a.iter().zip(b).zip(c).zip(d).zip(e).zip(f).zip(g).zip(h);
        for (((((((a, b), c), d), e), f), g), h) in rows {
            for (state, block) in states.iter_mut().zip([a, b, c, d, e, f, g, h]) {
                xor(state, block);
            }
            if B::ParBlocksSize::USIZE == LANES {
                let mut blocks = ParBlocks::<B>::default();
                blocks.copy_from_slice(&states);
                backend.encrypt_par_blocks_inplace(&mut blocks);
                states.copy_from_slice(&blocks);
            } else {
                // Wider backends take 30 or more blocks at a time. The eight are independent, so
                // the processor overlaps them by itself.
                for state in &mut states {
                    backend.encrypt_block_inplace(state);
                }
            }
        }
        *self.states = states;
    }
}
