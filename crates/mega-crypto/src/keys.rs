//! Keys, nonces and MACs as types by role.
//!
//! Each is a fixed number of bytes that is zeroed when dropped, prints as its type name, compares
//! in constant time and has no serialisation: a caller that stores or sends one says so by calling
//! `as_bytes`. The order "MAC first, then the key goes out" does not compile otherwise: an
//! [`UploadKey`] has no wrapped form, and only [`UploadKey::seal`] turns it into a [`FileKey`].

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::CryptoError;

/// Compares without an early exit, so that the time tells nothing about where the two differ.
pub(crate) fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |all, (x, y)| all | (x ^ y));
    a.len() == b.len() && core::hint::black_box(difference) == 0
}

/// Fills `bytes` from the operating system's generator.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), CryptoError> {
    getrandom::fill(bytes).map_err(|_| CryptoError::Randomness)
}

/// Byte-wise XOR of two 16-byte values.
fn xor16(a: &[u8; 16], b: &[u8; 16]) -> [u8; 16] {
    let mut out = *a;
    for (x, y) in out.iter_mut().zip(b) {
        *x ^= y;
    }
    out
}

macro_rules! secret_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Takes the bytes as they are.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Copies the bytes; fails with [`CryptoError::Length`] unless there are exactly
            /// [`Self::LEN`].
            pub fn from_slice(bytes: &[u8]) -> Result<Self, CryptoError> {
                match bytes.try_into() {
                    Ok(bytes) => Ok(Self(bytes)),
                    Err(_) => Err(CryptoError::Length {
                        what: stringify!($name),
                        expected: $len,
                        got: bytes.len(),
                    }),
                }
            }

            /// The bytes, for wrapping or for the wire.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                equal_in_constant_time(&self.0, &other.0)
            }
        }

        impl Eq for $name {}
    };
}

macro_rules! random_bytes {
    ($name:ident) => {
        impl $name {
            /// A new one from the operating system's randomness.
            pub fn generate() -> Result<Self, CryptoError> {
                let mut new = Self([0; Self::LEN]);
                fill_random(&mut new.0)?;
                Ok(new)
            }
        }
    };
}

secret_bytes!(
    /// The account's key: wraps all node keys and the RSA private key.
    MasterKey, 16
);
secret_bytes!(
    /// The key of a shared or exported folder, or of a folder link: wraps the keys below it.
    ShareKey, 16
);
secret_bytes!(
    /// The key of a folder node; it is the AES key of its attributes itself.
    FolderKey, 16
);
secret_bytes!(
    /// The high half of a file's CTR counter block.
    Nonce, 8
);
secret_bytes!(
    /// The condensation of all chunk MACs, the last 8 bytes of a file's key.
    MetaMac, 8
);
secret_bytes!(
    /// The CBC-MAC of one chunk's plaintext.
    ChunkMac, 16
);
secret_bytes!(
    /// What the password becomes; unwraps the master key.
    PasswordKey, 16
);
secret_bytes!(
    /// The AES key of a file's content, also called transfer key while it is uploaded.
    ContentKey, 16
);
secret_bytes!(
    /// The AES key of a node's attributes.
    AttrKey, 16
);
secret_bytes!(
    /// The 32-byte key of a file node: `(content key XOR (nonce || meta-MAC)) || nonce || meta-MAC`
    /// (protocol/03 section 3). It exists only once the whole content has been seen.
    FileKey, 32
);
random_bytes!(FolderKey);
random_bytes!(ShareKey);

impl FileKey {
    /// Composes a key from its parts; for an upload use [`UploadKey::seal`].
    pub fn from_parts(key: &ContentKey, nonce: &Nonce, mac: &MetaMac) -> Self {
        let mut tail = [0; 16];
        tail[..8].copy_from_slice(&nonce.0);
        tail[8..].copy_from_slice(&mac.0);
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&xor16(&key.0, &tail));
        bytes[16..].copy_from_slice(&tail);
        Self(bytes)
    }

    /// The AES key of content and attributes: first half XOR second half.
    pub fn aes_key(&self) -> ContentKey {
        let mut key = [0; 16];
        let (head, tail) = self.0.split_at(16);
        for (out, (x, y)) in key.iter_mut().zip(head.iter().zip(tail)) {
            *out = x ^ y;
        }
        ContentKey(key)
    }

    /// The file's nonce.
    pub fn nonce(&self) -> Nonce {
        let mut nonce = [0; 8];
        nonce.copy_from_slice(&self.0[16..24]);
        Nonce(nonce)
    }

    /// The MAC the content must have.
    pub fn meta_mac(&self) -> MetaMac {
        let mut mac = [0; 8];
        mac.copy_from_slice(&self.0[24..]);
        MetaMac(mac)
    }
}

/// The key of an upload that has no MAC yet: content key and nonce.
///
/// Never reused for other content: with CTR two contents under one key reveal each other. It can
/// only become a [`FileKey`], or be written to the local journal by the method named for that.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct UploadKey {
    key: ContentKey,
    nonce: Nonce,
}

impl UploadKey {
    /// A new key and nonce from the operating system's randomness.
    pub fn generate() -> Result<Self, CryptoError> {
        let mut bytes = [0; 24];
        fill_random(&mut bytes)?;
        let new = Self::from_journal(&bytes);
        bytes.zeroize();
        Ok(new)
    }

    /// The key the content is encrypted with.
    pub const fn content_key(&self) -> &ContentKey {
        &self.key
    }

    /// The nonce the content is encrypted with.
    pub const fn nonce(&self) -> &Nonce {
        &self.nonce
    }

    /// Key and nonce in the clear, for the encrypted local journal and nothing else.
    pub fn expose_for_journal(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&self.key.0);
        bytes[16..].copy_from_slice(&self.nonce.0);
        bytes
    }

    /// The inverse of [`Self::expose_for_journal`].
    pub fn from_journal(bytes: &[u8; 24]) -> Self {
        let mut key = [0; 16];
        let mut nonce = [0; 8];
        key.copy_from_slice(&bytes[..16]);
        nonce.copy_from_slice(&bytes[16..]);
        Self {
            key: ContentKey(key),
            nonce: Nonce(nonce),
        }
    }

    /// Completes the key with the MAC of the whole content.
    pub fn seal(&self, mac: &MetaMac) -> FileKey {
        FileKey::from_parts(&self.key, &self.nonce, mac)
    }
}

impl fmt::Debug for UploadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UploadKey")
    }
}

/// The key of a node of either kind.
#[derive(Clone, PartialEq, Eq)]
pub enum NodeKey {
    /// A folder's key, 16 bytes.
    Folder(FolderKey),
    /// A file's key, 32 bytes.
    File(FileKey),
}

impl NodeKey {
    /// Builds the kind that `is_folder` names; fails unless the length is exactly right.
    pub fn from_slice(bytes: &[u8], is_folder: bool) -> Result<Self, CryptoError> {
        if is_folder {
            FolderKey::from_slice(bytes).map(Self::Folder)
        } else {
            FileKey::from_slice(bytes).map(Self::File)
        }
    }

    /// The AES key of the node's attributes.
    pub fn attr_key(&self) -> AttrKey {
        match self {
            Self::Folder(key) => AttrKey(key.0),
            Self::File(key) => AttrKey(key.aes_key().0),
        }
    }

    /// The node key's bytes: 16 for a folder, 32 for a file.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Folder(key) => key.as_bytes(),
            Self::File(key) => key.as_bytes(),
        }
    }

    /// The file key, if this is a file's.
    pub const fn as_file(&self) -> Option<&FileKey> {
        match self {
            Self::File(key) => Some(key),
            Self::Folder(_) => None,
        }
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(key) => key.fmt(f),
            Self::File(key) => key.fmt(f),
        }
    }
}

impl From<FolderKey> for NodeKey {
    fn from(key: FolderKey) -> Self {
        Self::Folder(key)
    }
}

impl From<FileKey> for NodeKey {
    fn from(key: FileKey) -> Self {
        Self::File(key)
    }
}

impl FileKey {
    /// The AES key of the file's attributes, the same bytes as [`Self::aes_key`] in another role.
    pub fn attr_key(&self) -> AttrKey {
        AttrKey(self.aes_key().0)
    }
}

impl FolderKey {
    /// The AES key of the folder's attributes.
    pub const fn attr_key(&self) -> AttrKey {
        AttrKey(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_prints_the_type_name_only() {
        assert_eq!(
            format!("{:?}", MasterKey::from_bytes([0x41; 16])),
            "MasterKey"
        );
        assert_eq!(
            format!("{:?}", NodeKey::File(FileKey::from_bytes([0x41; 32]))),
            "FileKey"
        );
        let upload = UploadKey::from_journal(&[0x41; 24]);
        assert_eq!(format!("{upload:?}"), "UploadKey");
    }

    #[test]
    fn a_sealed_key_gives_its_parts_back() {
        let upload = UploadKey::generate().unwrap();
        let mac = MetaMac::from_bytes(*b"12345678");
        let file = upload.seal(&mac);
        assert_eq!(&file.aes_key(), upload.content_key());
        assert_eq!(&file.nonce(), upload.nonce());
        assert_eq!(file.meta_mac(), mac);
        let again = UploadKey::from_journal(&upload.expose_for_journal());
        assert_eq!(again.seal(&mac), file);
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let error = FileKey::from_slice(&[0; 16]).unwrap_err();
        assert_eq!(
            error,
            CryptoError::Length {
                what: "FileKey",
                expected: 32,
                got: 16
            }
        );
        assert!(NodeKey::from_slice(&[0; 32], true).is_err());
    }

    #[test]
    fn generated_keys_differ() {
        let (a, b) = (
            UploadKey::generate().unwrap(),
            UploadKey::generate().unwrap(),
        );
        assert_ne!(a.content_key(), b.content_key());
        assert_ne!(a.nonce(), b.nonce());
        assert_ne!(
            FolderKey::generate().unwrap(),
            FolderKey::generate().unwrap()
        );
    }
}
