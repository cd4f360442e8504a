//! Everything the Mega protocol computes from bytes to bytes, and nothing else.
//!
//! Owns: keys as types by role, key wrapping, node attributes, the file fingerprint, chunk
//! boundaries, content encryption and its MACs, login key derivation, RSA, hashcash, the CloudRAID
//! layout, rclone's password obscuring, and keys of local files derived from the master key.
//!
//! Promises: no input of any length or content panics; keys are zeroed when dropped and print as
//! their type name; randomness comes from the operating system only.
//!
//! Never: does I/O, knows an inode, a path, a request or a clock, or spawns anything but the
//! threads of [`Challenge::solve`], which it joins.
//!
//! References of the form "protocol/04 section 3" point into the protocol description.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

mod account_keys;
mod attributes;
mod b64;
mod chunks;
mod content;
mod error;
mod fingerprint;
mod hashcash;
mod key_ring;
mod keys;
mod link;
mod local;
mod login;
mod mac;
mod obscure;
pub mod raid;
mod rsa;
mod wrap;

pub use account_keys::AccountKeys;
pub use attributes::{Attributes, Listing, decrypt_listing};
pub use chunks::{MAX_CHUNK, chunk_count, chunk_index_at, chunk_range, chunk_start};
pub use content::ContentCipher;
pub use error::CryptoError;
pub use fingerprint::{Fingerprint, FingerprintBuilder};
pub use hashcash::Challenge;
pub use key_ring::{KeyRing, KeySource, ResolvedKey};
pub use keys::{
    AttrKey, ChunkMac, ContentKey, FileKey, FolderKey, MasterKey, MetaMac, NodeKey, Nonce,
    PasswordKey, ShareKey, UploadKey,
};
pub use link::LinkKey;
pub use local::{LocalKey, derive_local_key};
pub use login::{
    V2Keys, derive_v2, normalise_email, password_key_v1, password_key_v1_utf8, session_user,
    user_hash_v1, verify_tsid,
};
pub use mac::{MacVerdict, MetaMacFold, meta_mac, upload_checksum, verify_meta_mac};
pub use obscure::{Secret, obscure, obscure_with_iv, reveal};
pub use rsa::RsaPrivateKey;
pub use wrap::{WrapKey, ecb_decrypt, ecb_encrypt, share_handle_auth, verify_share_handle_auth};
