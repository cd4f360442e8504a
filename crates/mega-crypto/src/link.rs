//! The key of a public link, and what it opens (protocol/03 section 10).

use core::fmt;

use crate::local::derive_local_key;
use crate::{CryptoError, FileKey, MasterKey, ShareKey, b64};

/// Salt of the key that stands for a file link's where a folder link's own key would.
const FILE_SALT: &[u8] = b"file link";

/// The part of a public link after `#`: whoever has it reads what the link shows.
#[derive(Clone, PartialEq, Eq)]
pub enum LinkKey {
    /// Of a folder link: wraps the keys of all nodes below the folder.
    Folder(ShareKey),
    /// Of a file link: the file's own key.
    File(FileKey),
}

impl LinkKey {
    /// Reads the key of a folder link, 22 characters.
    ///
    /// # Errors
    /// [`CryptoError`] if it is no base64 or has another length.
    pub fn folder(text: &str) -> Result<Self, CryptoError> {
        ShareKey::from_slice(&b64::decode(text, "link key")?).map(Self::Folder)
    }

    /// Reads the key of a file link, 43 characters.
    ///
    /// # Errors
    /// [`CryptoError`] if it is no base64 or has another length.
    pub fn file(text: &str) -> Result<Self, CryptoError> {
        FileKey::from_slice(&b64::decode(text, "link key")?).map(Self::File)
    }

    /// What wraps the keys of the nodes that the link shows. For a file link, which wraps nothing, a key
    /// derived from the file's: its node is kept locally as one of a folder link.
    pub fn share_key(&self) -> ShareKey {
        match self {
            Self::Folder(key) => key.clone(),
            Self::File(_) => ShareKey::from_bytes(*self.local_master().as_bytes()),
        }
    }

    /// What stands for an account's master key where local keys are derived from one.
    pub fn local_master(&self) -> MasterKey {
        match self {
            Self::Folder(key) => MasterKey::from_bytes(*key.as_bytes()),
            Self::File(key) => {
                let content = MasterKey::from_bytes(*key.aes_key().as_bytes());
                let derived = derive_local_key(&content, FILE_SALT, "link");
                let mut half = [0; 16];
                for (to, from) in half.iter_mut().zip(derived.as_bytes()) {
                    *to = *from;
                }
                MasterKey::from_bytes(half)
            }
        }
    }
}

impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Folder(_) => "LinkKey::Folder",
            Self::File(_) => "LinkKey::File",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_lengths() {
        let (folder, file) = (b64::encode(&[7; 16]), b64::encode(&[7; 32]));
        assert!(LinkKey::folder(&folder).is_ok() && LinkKey::file(&file).is_ok());
        for bad in ["", "AAAA", "not base64 at all !!!!", &file] {
            assert!(LinkKey::folder(bad).is_err(), "{bad}");
        }
        assert!(LinkKey::file(&folder).is_err());
    }

    #[test]
    fn what_a_file_is_kept_under_is_not_its_key() {
        let key = FileKey::from_slice(&[9; 32]).unwrap();
        let link = LinkKey::File(key.clone());
        assert_ne!(link.share_key().as_bytes(), key.aes_key().as_bytes());
        assert_ne!(&link.share_key().as_bytes()[..], &key.as_bytes()[..16]);
        assert_eq!(link.local_master().as_bytes(), link.share_key().as_bytes());
        let other = LinkKey::File(FileKey::from_slice(&[8; 16].repeat(2)).unwrap());
        assert_eq!(other.share_key(), other.share_key());
    }

    #[test]
    fn nothing_of_it_is_printed() {
        let link = LinkKey::folder(&b64::encode(&[7; 16])).unwrap();
        assert_eq!(format!("{link:?}"), "LinkKey::Folder");
    }
}
