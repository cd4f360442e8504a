//! The local keys and the authenticated encryption of values in the database.
//!
//! Every sealed value is `nonce (24) || ciphertext || tag (16)`, XChaCha20-Poly1305 with a random
//! nonce (192 bits: no counting needed however many rows are written). The associated data names
//! the place a value belongs to, so that values cannot be moved from row to row unnoticed.
//!
//! Keys come from the master key by HKDF (`docs/STATE.md`) and live in memory only.

use std::fmt;
use std::sync::OnceLock;

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use mega_crypto::{LocalKey, MasterKey, derive_local_key};

use crate::error::StoreError;
use crate::subject::{AttemptId, StagingId, Subject};

const NONCE: usize = 24;
const TAG: usize = 16;

/// How many bytes a sealed value is longer than its content.
pub(crate) const SEAL_OVERHEAD: usize = NONCE + TAG;

/// Which place a sealed value belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Slot {
    /// `change.private` of a subject.
    Change(Subject),
    /// `extent.inline` of a subject's layer.
    Inline(Subject, u32),
    /// `attempt.body`.
    Attempt(AttemptId),
    /// The key in a staging file's header.
    StagingKey(StagingId),
}

impl Slot {
    /// A tag byte and two numbers; each slot has its own.
    fn associated_data(self) -> [u8; 13] {
        let (tag, number, part) = match self {
            Self::Change(subject) => (1, subject.to_i64().cast_unsigned(), 0),
            Self::Inline(subject, layer) => (2, subject.to_i64().cast_unsigned(), layer),
            Self::Attempt(id) => (3, id.0, 0),
            Self::StagingKey(id) => (4, id.0, 0),
        };
        let mut data = [tag; 13];
        for (to, from) in data
            .iter_mut()
            .skip(1)
            .zip(number.to_be_bytes().into_iter().chain(part.to_be_bytes()))
        {
            *to = from;
        }
        data
    }
}

struct Keys {
    check: LocalKey,
    rows: XChaCha20Poly1305,
    staging: XChaCha20Poly1305,
}

/// The keys, once [`unlock`](Vault::unlock) was called.
#[derive(Default)]
pub(crate) struct Vault {
    keys: OnceLock<Keys>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("unlocked", &self.keys.get().is_some())
            .finish()
    }
}

/// The value in `meta` that tells the right master key from another one.
pub(crate) fn check_value(master: &MasterKey, salt: &[u8]) -> LocalKey {
    derive_local_key(master, salt, "check")
}

impl Vault {
    /// Derives the keys. The caller has compared [`check_value`] with `meta`.
    pub(crate) fn unlock(&self, master: &MasterKey, salt: &[u8]) -> Result<(), StoreError> {
        let cipher = |purpose| {
            XChaCha20Poly1305::new(derive_local_key(master, salt, purpose).as_bytes().into())
        };
        let check = check_value(master, salt);
        let keys = self.keys.get_or_init(|| Keys {
            check: check.clone(),
            rows: cipher("row"),
            staging: cipher("staging"),
        });
        if keys.check == check {
            Ok(())
        } else {
            Err(StoreError::WrongKey)
        }
    }

    fn cipher(&self, slot: Slot) -> Result<&XChaCha20Poly1305, StoreError> {
        let keys = self.keys.get().ok_or(StoreError::LockedKeys)?;
        Ok(match slot {
            Slot::Change(_) | Slot::Inline(..) | Slot::Attempt(_) => &keys.rows,
            Slot::StagingKey(_) => &keys.staging,
        })
    }

    /// Encrypts `plain` for `slot`.
    pub(crate) fn seal(&self, slot: Slot, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let cipher = self.cipher(slot)?;
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce)?;
        let mut sealed = Vec::with_capacity(plain.len() + SEAL_OVERHEAD);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let (_, text) = sealed.split_at_mut(NONCE);
        let tag = cipher
            .encrypt_inout_detached(&XNonce::from(nonce), &slot.associated_data(), text.into())
            .map_err(|_| StoreError::Damaged {
                what: "a value too long to encrypt",
            })?;
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    /// Decrypts what [`seal`](Self::seal) made for the same slot.
    pub(crate) fn open(&self, slot: Slot, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        let damaged = StoreError::Damaged {
            what: "an encrypted value",
        };
        let cipher = self.cipher(slot)?;
        let Some((nonce, rest)) = sealed.split_first_chunk::<NONCE>() else {
            return Err(damaged);
        };
        let Some((text, tag)) = rest.split_last_chunk::<TAG>() else {
            return Err(damaged);
        };
        let mut plain = text.to_vec();
        cipher
            .decrypt_inout_detached(
                &XNonce::from(*nonce),
                &slot.associated_data(),
                plain.as_mut_slice().into(),
                &Tag::from(*tag),
            )
            .map_err(|_| damaged)?;
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::LocalId;

    fn vault() -> Vault {
        let vault = Vault::default();
        vault
            .unlock(&MasterKey::from_bytes([7; 16]), b"salt")
            .unwrap();
        vault
    }

    #[test]
    fn a_value_opens_only_in_its_own_slot() {
        let vault = vault();
        let here = Slot::Inline(Subject::Local(LocalId(1)), 0);
        let sealed = vault.seal(here, b"secret").unwrap();
        assert_eq!(sealed.len(), 6 + SEAL_OVERHEAD);
        assert_eq!(vault.open(here, &sealed).unwrap(), b"secret");
        for other in [
            Slot::Inline(Subject::Local(LocalId(1)), 1),
            Slot::Inline(Subject::Local(LocalId(2)), 0),
            Slot::Change(Subject::Local(LocalId(1))),
            Slot::Attempt(AttemptId(1)),
            Slot::StagingKey(StagingId(1)),
        ] {
            assert!(matches!(
                vault.open(other, &sealed),
                Err(StoreError::Damaged { .. })
            ));
        }
    }

    #[test]
    fn one_changed_bit_is_seen_and_nothing_panics() {
        let vault = vault();
        let slot = Slot::Attempt(AttemptId(5));
        let sealed = vault.seal(slot, b"abc").unwrap();
        assert_ne!(sealed, vault.seal(slot, b"abc").unwrap());
        for at in 0..sealed.len() {
            let mut broken = sealed.clone();
            broken[at] ^= 1;
            assert!(vault.open(slot, &broken).is_err());
            assert!(vault.open(slot, &sealed[..at]).is_err());
        }
    }

    #[test]
    fn locked_and_wrong_keys_are_told_apart() {
        let locked = Vault::default();
        let slot = Slot::Attempt(AttemptId(1));
        assert!(matches!(
            locked.seal(slot, b""),
            Err(StoreError::LockedKeys)
        ));
        let vault = vault();
        vault
            .unlock(&MasterKey::from_bytes([7; 16]), b"salt")
            .unwrap();
        let other = vault.unlock(&MasterKey::from_bytes([8; 16]), b"salt");
        assert!(matches!(other, Err(StoreError::WrongKey)));
    }
}
