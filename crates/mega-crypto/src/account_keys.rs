//! The container `^!keys`, in which accounts since 2022 keep the keys of shares, and the keys that others
//! leave for us on the server (protocol/03 section 6).

use core::fmt;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Nonce, Tag};
use hkdf::Hkdf;
use mega_proto::NodeHandle;
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::{CryptoError, MasterKey, ShareKey, ecb_decrypt};

/// First byte of the container.
const TYPE: u8 = 20;
const IV: usize = 12;
const TAG: usize = 16;
/// Node handle, key, flags.
const SHARE: usize = 23;

const TAG_PRIVATE_CURVE: u8 = 17;
const TAG_SHARES: u8 = 48;

/// What a client needs of `^!keys`. It is only ever read: nothing here can write one.
pub struct AccountKeys {
    curve: Option<StaticSecret>,
    shares: Vec<(NodeHandle, ShareKey)>,
}

impl fmt::Debug for AccountKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountKeys")
            .field("shares", &self.shares.len())
            .finish_non_exhaustive()
    }
}

impl AccountKeys {
    /// Opens the container as stored, base64 removed.
    ///
    /// # Errors
    /// [`CryptoError::WrongKey`] when it was made under another master key or was altered,
    /// [`CryptoError::Malformed`] when it is no such container.
    pub fn open(master: &MasterKey, container: &[u8]) -> Result<Self, CryptoError> {
        let what = "account keys";
        let malformed = CryptoError::Malformed { what };
        let Some(([TYPE, _], rest)) = container.split_first_chunk::<2>() else {
            return Err(malformed);
        };
        let Some((iv, sealed)) = rest.split_first_chunk::<IV>() else {
            return Err(malformed);
        };
        let Some((sealed, tag)) = sealed.split_last_chunk::<TAG>() else {
            return Err(malformed);
        };
        let mut key = Zeroizing::new([0; 16]);
        Hkdf::<Sha256>::new(None, master.as_bytes())
            .expand(&[1], key.as_mut())
            .expect("16 bytes are less than HKDF gives");
        let cipher = Aes128Gcm::new((&*key).into());
        let mut plain = Zeroizing::new(sealed.to_vec());
        let (iv, tag) = (Nonce::from(*iv), Tag::from(*tag));
        cipher
            .decrypt_inout_detached(&iv, &[], plain.as_mut_slice().into(), &tag)
            .map_err(|_| CryptoError::WrongKey { what })?;
        Self::parse(&plain).ok_or(malformed)
    }

    /// The records of the plaintext; those that are not known are passed over.
    fn parse(mut plain: &[u8]) -> Option<Self> {
        let mut keys = Self {
            curve: None,
            shares: Vec::new(),
        };
        while let Some(([tag, a, b, c], rest)) = plain.split_first_chunk::<4>() {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            let (value, rest) = rest.split_at_checked(length)?;
            plain = rest;
            match *tag {
                TAG_PRIVATE_CURVE => {
                    let secret = Zeroizing::new(<[u8; 32]>::try_from(value).ok()?);
                    keys.curve = Some(StaticSecret::from(*secret));
                }
                TAG_SHARES => {
                    let (entries, []) = value.as_chunks::<SHARE>() else {
                        return None;
                    };
                    keys.shares.extend(entries.iter().filter_map(share));
                }
                _ => {}
            }
        }
        plain.is_empty().then_some(keys)
    }

    /// The keys of shares, own and incoming ones, by the shared folder.
    pub fn shares(&self) -> impl Iterator<Item = (NodeHandle, &ShareKey)> {
        self.shares.iter().map(|(handle, key)| (*handle, key))
    }

    /// Opens a share key that another user left for us; `sender` is that user's public key `+puCu255`.
    /// Nothing proves it: a wrong one opens no node.
    ///
    /// # Errors
    /// [`CryptoError::Length`] for a key that is not 16 bytes, [`CryptoError::Malformed`] when the account has no
    /// curve key.
    pub fn open_pending(&self, sender: &[u8; 32], wrapped: &[u8]) -> Result<ShareKey, CryptoError> {
        let what = "curve key";
        let curve = self.curve.as_ref().ok_or(CryptoError::Malformed { what })?;
        let mut key = Zeroizing::new(*ShareKey::from_slice(wrapped)?.as_bytes());
        ecb_decrypt(&pairwise(curve, sender), key.as_mut());
        Ok(ShareKey::from_bytes(*key))
    }
}

/// The key that two users have in common.
fn pairwise(curve: &StaticSecret, other: &[u8; 32]) -> Zeroizing<[u8; 16]> {
    let common = curve.diffie_hellman(&PublicKey::from(*other));
    let mut key = Zeroizing::new([0; 16]);
    // HMAC with an empty key, then one block of output: what HKDF does.
    Hkdf::<Sha256>::new(None, common.as_bytes())
        .expand(b"strongvelope pairwise key", key.as_mut())
        .expect("16 bytes are less than HKDF gives");
    key
}

fn share(entry: &[u8; SHARE]) -> Option<(NodeHandle, ShareKey)> {
    let (handle, rest) = entry.split_first_chunk::<6>()?;
    let key = rest.first_chunk::<16>()?;
    Some((NodeHandle(*handle), ShareKey::from_bytes(*key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTAINER: &str = "14006465666768696a6b6c6d6e6feea1571279422e172db19e8c4bc884a0113c888fcaea1420a524\
        86837ce71ebd0c3e63000729adf116b4464ffb2f0d8f844120cf0d2898bdafed38cf45d8ef342be4\
        b31c50779b64bc7c48ba528673f5281d3e635ab8393b0b846e1f7117f94de7ad5665e875792f1eaf\
        f0bcbd9bca1cf52df7fe121c107d03684c81d503742095df3014e1cd9bc74d338bfc3c17e6243bf9\
        c54cbc2932d95e098b660547e49605fb6ae0a7e25a0cad9d6d1add7fedcb16af40bda2c1510226aa\
        9193a0e56065c6fb0a664e8e75ca7202de467bf26ab0d0cc";
    const SENDER: &str = "493e82fc74464a59268817623d2053c5eb8e2cc4a988b4fee179ec6b010d531d";
    const WRAPPED: &str = "d09bee3fa7be6ceb86a7943cda98c56c";

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    #[test]
    fn a_container_of_another_implementation_is_opened() {
        // Made with OpenSSL's AES-GCM and HMAC by way of Python's `cryptography` package.
        let master = MasterKey::from_bytes(std::array::from_fn(|at| at as u8));
        let keys = AccountKeys::open(&master, &hex(CONTAINER)).unwrap();
        let shares: Vec<_> = keys.shares().collect();
        assert_eq!(shares.len(), 2);
        assert_eq!(shares[0].0, NodeHandle([1, 2, 3, 4, 5, 6]));
        assert_eq!(shares[0].1.as_bytes(), &[0x11; 16]);
        assert_eq!(shares[1].0, NodeHandle([9; 6]));
        assert_eq!(shares[1].1.as_bytes(), &[0x22; 16]);
        let sender: [u8; 32] = hex(SENDER).try_into().unwrap();
        let opened = keys.open_pending(&sender, &hex(WRAPPED)).unwrap();
        assert_eq!(opened.as_bytes(), &[0x33; 16]);
        assert!(keys.open_pending(&sender, &[0; 15]).is_err());
    }

    #[test]
    fn what_is_no_container_is_refused() {
        let master = MasterKey::from_bytes(std::array::from_fn(|at| at as u8));
        let whole = hex(CONTAINER);
        for length in [0, 1, 2, 13, 14, 29, 30, whole.len() - 1] {
            assert!(AccountKeys::open(&master, &whole[..length]).is_err());
        }
        for at in [0, 2, 14, 40, whole.len() - 1] {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            assert!(AccountKeys::open(&master, &bad).is_err(), "{at}");
        }
        assert!(AccountKeys::open(&MasterKey::from_bytes([9; 16]), &whole).is_err());
    }

    #[test]
    fn records_have_the_length_they_say() {
        assert!(AccountKeys::parse(&[]).is_some());
        assert!(AccountKeys::parse(&[99, 0, 0, 1, 7]).is_some());
        assert!(AccountKeys::parse(&[99, 0, 0, 2, 7]).is_none());
        assert!(AccountKeys::parse(&[99, 0, 0]).is_none());
        assert!(AccountKeys::parse(&[TAG_SHARES, 0, 0, 1, 7]).is_none());
        assert!(AccountKeys::parse(&[TAG_PRIVATE_CURVE, 0, 0, 1, 7]).is_none());
    }
}
