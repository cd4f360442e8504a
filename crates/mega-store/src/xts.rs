//! XTS-AES-128 (IEEE 1619) over whole staging units, several blocks at a time.
//!
//! The crates that offer XTS call AES block by block, which leaves three quarters of an AES unit
//! idle. Here a unit's tweaks are computed first and its blocks handed to the cipher together. Units
//! are multiples of the block size, so there is no ciphertext stealing.

use aes::Aes128;
use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit, consts::U16};
use zeroize::Zeroizing;

/// Bytes of one data unit.
pub const STAGING_UNIT: usize = 4096;

/// Blocks worked on at once: enough to hide the latency of AES, small enough for the stack.
const BATCH: usize = STAGING_UNIT / 16;

type Block = Array<u8, U16>;

/// A random key pair and the maths over it.
pub(crate) struct Xts {
    data: Aes128,
    tweak: Aes128,
}

impl std::fmt::Debug for Xts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Xts")
    }
}

/// The two halves of the key as they are stored (wrapped).
pub(crate) type XtsKey = Zeroizing<[u8; 32]>;

impl Xts {
    pub(crate) fn new(key: &XtsKey) -> Self {
        let (data, tweak) = key.split_at(16);
        let cipher = |half: &[u8]| {
            let mut bytes = Zeroizing::new([0_u8; 16]);
            bytes.copy_from_slice(half);
            Aes128::new(&Array::from(*bytes))
        };
        Self {
            data: cipher(data),
            tweak: cipher(tweak),
        }
    }

    /// Encrypts consecutive units in place; the first has number `first`. A tail shorter than a
    /// unit is treated as a short unit of whole blocks.
    pub(crate) fn encrypt(&self, units: &mut [u8], first: u64) {
        self.run(units, first, |cipher, blocks| cipher.encrypt_blocks(blocks));
    }

    /// Decrypts consecutive units in place; the first has number `first`.
    pub(crate) fn decrypt(&self, units: &mut [u8], first: u64) {
        self.run(units, first, |cipher, blocks| cipher.decrypt_blocks(blocks));
    }

    fn run(&self, units: &mut [u8], first: u64, aes: impl Fn(&Aes128, &mut [Block])) {
        let mut tweaks = [0_u128; BATCH];
        for (number, unit) in (first..).zip(units.chunks_mut(STAGING_UNIT)) {
            let mut start = Block::from(u128::from(number).to_le_bytes());
            self.tweak.encrypt_block(&mut start);
            let mut tweak = u128::from_le_bytes(start.0);
            let (blocks, tail) = Block::slice_as_chunks_mut(unit);
            debug_assert!(tail.is_empty(), "units are whole blocks");
            for batch in blocks.chunks_mut(BATCH) {
                for (block, keep) in batch.iter_mut().zip(&mut tweaks) {
                    *keep = tweak;
                    xor(block, tweak);
                    tweak = double(tweak);
                }
                aes(&self.data, batch);
                for (block, keep) in batch.iter_mut().zip(&tweaks) {
                    xor(block, *keep);
                }
            }
        }
    }
}

fn xor(block: &mut Block, tweak: u128) {
    *block = Array((u128::from_le_bytes(block.0) ^ tweak).to_le_bytes());
}

/// Multiplication by x in GF(2^128), little-endian.
const fn double(tweak: u128) -> u128 {
    (tweak << 1) ^ ((tweak >> 127) * 0x87)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(data: [u8; 16], tweak: [u8; 16]) -> XtsKey {
        let mut key = [0; 32];
        key[..16].copy_from_slice(&data);
        key[16..].copy_from_slice(&tweak);
        Zeroizing::new(key)
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    /// IEEE 1619-2007, annex B, vectors 1, 2 and 3.
    #[test]
    fn short_vectors_of_the_standard() {
        let cases = [
            (
                key([0; 16], [0; 16]),
                0_u64,
                [0_u8; 32],
                "917cf69ebd68b2ec9b9fe9a3eadda692cd43d2f59598ed858c02c2652fbf922e",
            ),
            (
                key([0x11; 16], [0x22; 16]),
                0x33_3333_3333,
                [0x44; 32],
                "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0",
            ),
            (
                key(
                    hex("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0").try_into().unwrap(),
                    [0x22; 16],
                ),
                0x33_3333_3333,
                [0x44; 32],
                "af85336b597afc1a900b2eb21ec949d292df4c047e0b21532186a5971a227a89",
            ),
        ];
        for (key, number, plain, expected) in cases {
            let mut unit = plain;
            let xts = Xts::new(&key);
            xts.encrypt(&mut unit, number);
            assert_eq!(unit.to_vec(), hex(expected));
            xts.decrypt(&mut unit, number);
            assert_eq!(unit, plain);
        }
    }

    /// IEEE 1619-2007, annex B, vector 4 (512 bytes 00..ff twice, unit 0): its first and last blocks.
    #[test]
    fn long_vector_of_the_standard() {
        let xts = Xts::new(&key(
            hex("27182818284590452353602874713526").try_into().unwrap(),
            hex("31415926535897932384626433832795").try_into().unwrap(),
        ));
        let mut unit: Vec<u8> = (0..512_u16).map(|at| at.to_le_bytes()[0]).collect();
        let plain = unit.clone();
        xts.encrypt(&mut unit, 0);
        assert_eq!(
            unit[..32],
            hex("27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c")
        );
        xts.decrypt(&mut unit, 0);
        assert_eq!(unit, plain);
    }

    /// The same bytes by the definition, one block after the other.
    #[test]
    fn batches_equal_single_blocks() {
        let xts = Xts::new(&key([1; 16], [2; 16]));
        let plain: Vec<u8> = (0..3 * STAGING_UNIT)
            .map(|at| (at * 7 % 251) as u8)
            .collect();
        let mut units = plain.clone();
        xts.encrypt(&mut units, 1 << 40);
        let mut expected = plain.clone();
        for (number, unit) in (1_u64 << 40..).zip(expected.chunks_mut(STAGING_UNIT)) {
            let mut tweak = Block::from(u128::from(number).to_le_bytes());
            xts.tweak.encrypt_block(&mut tweak);
            let mut tweak = u128::from_le_bytes(tweak.0);
            for bytes in unit.chunks_mut(16) {
                let mut block = Block::try_from(&*bytes).unwrap();
                xor(&mut block, tweak);
                xts.data.encrypt_block(&mut block);
                xor(&mut block, tweak);
                bytes.copy_from_slice(&block);
                tweak = double(tweak);
            }
        }
        assert!(units == expected);
        // Each unit stands alone.
        xts.decrypt(&mut units[STAGING_UNIT..2 * STAGING_UNIT], (1 << 40) + 1);
        assert!(units[STAGING_UNIT..2 * STAGING_UNIT] == plain[STAGING_UNIT..2 * STAGING_UNIT]);
    }
}
