//! Decrypting node rows into directories, and what every node is called there.
//!
//! Owns: the name policy (escapes, synthesised names, duplicate suffixes), the decryption of node
//! rows into [`Node`]s, the in-memory [`Directory`] with stable readdir cookies, and the application
//! of action packets to the stored truth ([`truth`]).
//! Promises: every node is reachable under exactly one spelling in its directory, and a spelling
//! once given does not change because another node came or went.
//! Never: talks to the network, names kernel types, or holds the whole tree in memory.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod directory;
pub mod naming;
pub mod node;
pub mod spelling;
pub mod truth;

pub use directory::{Child, Directory, Entry, NewSuffix};
pub use node::{Decryptor, Facts, Node};
pub use spelling::StoredName;
