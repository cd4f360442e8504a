//! The layers below the JSON: CBC, the word `MEGA`, padding, character set.

use std::borrow::Cow;

use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes128Enc, Block};
use zeroize::Zeroizing;

use super::WHAT;
use crate::{AttrKey, CryptoError};

const MAGIC: &[u8] = b"MEGA";

/// Whether the first block of a plaintext shows that the key was right.
fn is_plaintext(plain: &[u8]) -> bool {
    plain.starts_with(b"MEGA{\"") || plain.starts_with(b"MEGA{}")
}

/// Whether the first block of `a` decrypts to the beginning of attributes: the proof that a node
/// key is right, at the price of one block.
pub(crate) fn begins_like_attributes(key: &AttrKey, first_block: &[u8; 16]) -> bool {
    let mut block = Block::from(*first_block);
    Aes128::new(key.as_bytes().into()).decrypt_block(&mut block);
    is_plaintext(&block)
}

/// CBC with a zero IV. Fails on a partial block and on a wrong key.
pub(super) fn decrypt(key: &AttrKey, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let (cipher_blocks, rest) = Block::slice_as_chunks(blob);
    if !rest.is_empty() {
        return Err(CryptoError::NotBlocks {
            what: WHAT,
            got: blob.len(),
        });
    }
    let mut plain = Zeroizing::new(blob.to_vec());
    let (blocks, _) = Block::slice_as_chunks_mut(&mut plain);
    let aes = Aes128::new(key.as_bytes().into());
    aes.decrypt_blocks(blocks);
    for (block, previous) in blocks.iter_mut().skip(1).zip(cipher_blocks) {
        for (byte, other) in block.iter_mut().zip(previous) {
            *byte ^= other;
        }
    }
    if is_plaintext(&plain) {
        Ok(plain)
    } else {
        Err(CryptoError::WrongKey { what: WHAT })
    }
}

/// CBC with a zero IV over whole blocks.
pub(super) fn encrypt(key: &AttrKey, plain: &[u8]) -> Vec<u8> {
    let aes = Aes128Enc::new(key.as_bytes().into());
    let mut out = plain.to_vec();
    let mut previous = Block::default();
    for block in Block::slice_as_chunks_mut(&mut out).0 {
        for (byte, other) in block.iter_mut().zip(&previous) {
            *byte ^= other;
        }
        aes.encrypt_block(block);
        previous = *block;
    }
    out
}

/// The JSON text of a plaintext: behind `MEGA`, up to the first NUL, as UTF-8 or else Latin-1.
pub(super) fn object_text(plain: &[u8]) -> Result<Cow<'_, str>, CryptoError> {
    let text = plain
        .strip_prefix(MAGIC)
        .ok_or(CryptoError::WrongKey { what: WHAT })?;
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(core::str::from_utf8(text).map_or_else(
        |_| text.iter().copied().map(char::from).collect(),
        Cow::Borrowed,
    ))
}

/// The text up to its last closing brace.
pub(super) fn without_garbage(text: &str) -> &str {
    text.rfind('}')
        .and_then(|end| text.get(..=end))
        .unwrap_or(text)
}
