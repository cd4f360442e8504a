//! Keys of local files, derived from the master key so that nothing local is readable without it.

use core::fmt;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::MasterKey;
use crate::keys::equal_in_constant_time;

/// A 32-byte key of one local purpose.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct LocalKey([u8; 32]);

impl LocalKey {
    /// The key's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for LocalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalKey")
    }
}

impl PartialEq for LocalKey {
    fn eq(&self, other: &Self) -> bool {
        equal_in_constant_time(&self.0, &other.0)
    }
}

impl Eq for LocalKey {}

/// HKDF-SHA256 of the master key, with `info` = `megamount/<purpose>/v1`.
///
/// Different purposes or salts give unrelated keys; the salt is stored in the clear.
pub fn derive_local_key(master: &MasterKey, salt: &[u8], purpose: &str) -> LocalKey {
    let hkdf = Hkdf::<Sha256>::new(Some(salt), master.as_bytes());
    let info: [&[u8]; 3] = [b"megamount/", purpose.as_bytes(), b"/v1"];
    let mut key = LocalKey([0; 32]);
    hkdf.expand_multi_info(&info, &mut key.0)
        .expect("32 bytes are one SHA-256 output, HKDF gives up to 255");
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purpose_and_salt_separate_keys() {
        let master = MasterKey::from_bytes([7; 16]);
        let key = derive_local_key(&master, b"salt", "staging");
        assert_eq!(key, derive_local_key(&master, b"salt", "staging"));
        assert_ne!(key, derive_local_key(&master, b"salt", "state"));
        assert_ne!(key, derive_local_key(&master, b"tlas", "staging"));
        assert_ne!(
            key,
            derive_local_key(&MasterKey::from_bytes([8; 16]), b"salt", "staging")
        );
    }

    #[test]
    fn an_empty_salt_is_as_good_as_none() {
        let master = MasterKey::from_bytes([7; 16]);
        assert_ne!(
            derive_local_key(&master, b"", "a"),
            derive_local_key(&master, b"", "b")
        );
    }
}
