//! Key wrapping: AES-ECB, every 16-byte block by itself (protocol/03 sections 3 to 5).

use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes128Enc, Block};
use zeroize::Zeroize;

use crate::keys::equal_in_constant_time;
use crate::{CryptoError, MasterKey, NodeKey, PasswordKey, ShareKey};

/// Encrypts every whole block in place; trailing bytes short of a block stay as they are.
pub fn ecb_encrypt(key: &[u8; 16], data: &mut [u8]) {
    Aes128Enc::new(key.into()).encrypt_blocks(Block::slice_as_chunks_mut(data).0);
}

/// Decrypts every whole block in place; trailing bytes short of a block stay as they are.
pub fn ecb_decrypt(key: &[u8; 16], data: &mut [u8]) {
    ecb_decrypt_with(&Aes128::new(key.into()), data);
}

/// [`ecb_decrypt`] with a key schedule made before.
pub(crate) fn ecb_decrypt_with(cipher: &impl AesDecrypt, data: &mut [u8]) {
    cipher.decrypt_blocks(Block::slice_as_chunks_mut(data).0);
}

/// Any AES that decrypts.
pub(crate) trait AesDecrypt:
    BlockCipherDecrypt<BlockSize = aes::cipher::consts::U16>
{
}

impl<T: BlockCipherDecrypt<BlockSize = aes::cipher::consts::U16>> AesDecrypt for T {}

/// A key that wraps node keys: the master key, or the key of a share or folder link.
pub trait WrapKey {
    /// The AES key used for wrapping.
    fn wrapping_key(&self) -> &[u8; 16];

    /// The node key as it goes into `k`: 16 bytes for a folder, 32 for a file.
    fn wrap_node_key(&self, key: &NodeKey) -> Vec<u8> {
        let mut wrapped = key.as_bytes().to_vec();
        ecb_encrypt(self.wrapping_key(), &mut wrapped);
        wrapped
    }

    /// The inverse. The result proves nothing: a wrong wrapping key gives a wrong node key, which
    /// shows when the attributes do not decrypt. Fails only on a wrong length.
    fn unwrap_node_key(&self, wrapped: &[u8], is_folder: bool) -> Result<NodeKey, CryptoError> {
        let mut bytes = wrapped.to_vec();
        ecb_decrypt(self.wrapping_key(), &mut bytes);
        let key = NodeKey::from_slice(&bytes, is_folder);
        bytes.zeroize();
        key
    }
}

impl WrapKey for MasterKey {
    fn wrapping_key(&self) -> &[u8; 16] {
        self.as_bytes()
    }
}

impl WrapKey for ShareKey {
    fn wrapping_key(&self) -> &[u8; 16] {
        self.as_bytes()
    }
}

impl MasterKey {
    /// Unwraps a share key (`ok`, or a short `sk`; protocol/03 section 5).
    pub fn unwrap_share_key(&self, wrapped: &[u8]) -> Result<ShareKey, CryptoError> {
        let mut key = *ShareKey::from_slice(wrapped)?.as_bytes();
        ecb_decrypt(self.as_bytes(), &mut key);
        Ok(ShareKey::from_bytes(key))
    }

    /// Wraps a share key for `ok`.
    pub fn wrap_share_key(&self, key: &ShareKey) -> [u8; 16] {
        let mut wrapped = *key.as_bytes();
        ecb_encrypt(self.as_bytes(), &mut wrapped);
        wrapped
    }
}

impl PasswordKey {
    /// Unwraps the master key of a login reply. Whether the password was right shows in the
    /// checks of the RSA key or of the `tsid` only.
    pub fn unwrap_master_key(&self, wrapped: &[u8]) -> Result<MasterKey, CryptoError> {
        let mut key = *MasterKey::from_slice(wrapped)?.as_bytes();
        ecb_decrypt(self.as_bytes(), &mut key);
        Ok(MasterKey::from_bytes(key))
    }
}

/// The proof `ha` that an `ok` entry was made by the owner: `ECB(MK, handle || handle)`, with the
/// handle as its 8 characters. Fails unless the handle has 8 bytes.
pub fn share_handle_auth(master: &MasterKey, handle: &str) -> Result<[u8; 16], CryptoError> {
    let handle: [u8; 8] = handle
        .as_bytes()
        .try_into()
        .map_err(|_| CryptoError::Length {
            what: "share handle",
            expected: 8,
            got: handle.len(),
        })?;
    let mut auth = [0; 16];
    auth[..8].copy_from_slice(&handle);
    auth[8..].copy_from_slice(&handle);
    ecb_encrypt(master.as_bytes(), &mut auth);
    Ok(auth)
}

/// Whether `ha` proves the handle; an entry without this proof is to be ignored.
pub fn verify_share_handle_auth(master: &MasterKey, handle: &str, ha: &[u8]) -> bool {
    share_handle_auth(master, handle).is_ok_and(|auth| equal_in_constant_time(&auth, ha))
}
