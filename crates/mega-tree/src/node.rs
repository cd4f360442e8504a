//! Opening one node row: its key, its attributes, and what `stat` shows of it.

use std::sync::{PoisonError, RwLock};

use mega_crypto::{Attributes, FileKey, KeyRing, NodeKey, ShareKey, WrapKey as _};
use mega_proto::{NodeKind, b64};
use mega_store::NodeRow;

use crate::spelling::StoredName;

/// What a directory entry looks like to `stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// Regular file.
    #[default]
    File,
    /// Directory.
    Directory,
    /// Symbolic link (attribute `mml`, protocol/03 section 7).
    Symlink,
}

/// The facts of a node that listings need. Small: a loaded directory holds one per entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    /// File, directory or symbolic link.
    pub shape: Shape,
    /// Length in bytes; 0 for directories.
    pub size: u64,
    /// Modification time, seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds of the modification time.
    pub mtime_nanos: u32,
    /// Creation time of the node on the server, seconds since 1970.
    pub ts: i64,
    /// Executable (attribute `mmx`).
    pub executable: bool,
    /// Whether the key was found and the attributes could be read.
    pub readable: bool,
}

/// A decrypted node.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name on Mega.
    pub name: StoredName,
    /// For `stat`.
    pub facts: Facts,
    /// Its key, if one of ours opens it.
    pub key: Option<NodeKey>,
    /// All its attributes, if readable.
    pub attributes: Option<Attributes>,
}

impl Node {
    /// The key of a readable file.
    #[must_use]
    pub fn file_key(&self) -> Option<&FileKey> {
        match &self.key {
            Some(NodeKey::File(key)) => Some(key),
            _ => None,
        }
    }
}

/// Holds the keys and opens rows with them.
#[derive(Debug)]
pub struct Decryptor {
    ring: RwLock<KeyRing>,
}

impl Decryptor {
    /// Takes the keys of an account or a link.
    #[must_use]
    pub fn new(ring: KeyRing) -> Self {
        Self {
            ring: RwLock::new(ring),
        }
    }

    /// Makes the key of a share known.
    pub fn add_share(&self, handle: mega_proto::NodeHandle, key: ShareKey) {
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        ring.insert_share(&handle.to_string(), key);
    }

    /// Whether the key of any share is known.
    #[must_use]
    pub fn has_shares(&self) -> bool {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.share_handles().next().is_some()
    }

    /// A node key wrapped for those who see the share of this folder; `None` if it is not shared.
    #[must_use]
    pub fn wrap_for_share(&self, share: mega_proto::NodeHandle, key: &NodeKey) -> Option<Vec<u8>> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        let share = ring.share(&share.to_string())?;
        Some(share.wrap_node_key(key))
    }

    /// Decrypts one row. Never fails: what cannot be read is a [`StoredName::NoKey`].
    #[must_use]
    pub fn open(&self, row: &NodeRow) -> Node {
        let is_folder = row.kind != NodeKind::File;
        let (key, attributes) = if matches!(row.kind, NodeKind::File | NodeKind::Folder) {
            let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
            // The first block is all that decides whether a key fits.
            let head = b64::encode(row.attrs.get(..16).unwrap_or(&row.attrs));
            match ring.resolve(&row.key, is_folder, Some(&head)) {
                Some(resolved) => {
                    let attributes = Attributes::decrypt(&resolved.key.attr_key(), &row.attrs).ok();
                    (Some(resolved.key), attributes)
                }
                None => (None, None),
            }
        } else {
            (None, None)
        };
        let name = match (&attributes, row.kind) {
            (Some(attributes), _) => StoredName::from_attribute(attributes.name()),
            (None, _) => StoredName::NoKey,
        };
        Node {
            facts: facts(row, attributes.as_ref()),
            name,
            key,
            attributes,
        }
    }
}

fn facts(row: &NodeRow, attributes: Option<&Attributes>) -> Facts {
    let mut facts = Facts {
        shape: if row.kind == NodeKind::File {
            Shape::File
        } else {
            Shape::Directory
        },
        size: if row.kind == NodeKind::File {
            row.size
        } else {
            0
        },
        mtime: row.ts,
        mtime_nanos: 0,
        ts: row.ts,
        executable: false,
        readable: attributes.is_some(),
    };
    let Some(attributes) = attributes else {
        return facts;
    };
    let text = |name: &str| attributes.text(name);
    if row.kind == NodeKind::File {
        facts.executable = text("mmx") == Some("1");
        if text("mml") == Some("1") {
            facts.shape = Shape::Symlink;
        }
        if let Some(fingerprint) = attributes.fingerprint() {
            facts.mtime = fingerprint.mtime;
            if let (Some(c), Some(nanos)) = (text("c"), text("mmn")) {
                facts.mtime_nanos = file_nanos(c, nanos).unwrap_or(0);
            }
        }
    } else if let Some((seconds, nanos)) = text("mmn").and_then(folder_time) {
        facts.mtime = seconds;
        facts.mtime_nanos = nanos;
    }
    facts
}

/// Attribute `mmn` of a file: `<c>:<ns>`, valid only while `c` is still the one it belongs to.
fn file_nanos(c: &str, mmn: &str) -> Option<u32> {
    let (belongs_to, nanos) = mmn.rsplit_once(':')?;
    (belongs_to == c).then_some(())?;
    nanos.parse().ok().filter(|n| *n < 1_000_000_000)
}

/// Attribute `mmn` of a folder: `<seconds>.<nanoseconds>`.
fn folder_time(mmn: &str) -> Option<(i64, u32)> {
    let (seconds, nanos) = mmn.split_once('.')?;
    let nanos = nanos.parse().ok().filter(|n| *n < 1_000_000_000)?;
    Some((seconds.parse().ok()?, nanos))
}

/// Writes attribute `mmn` of a file whose fingerprint is `c`.
#[must_use]
pub fn format_file_nanos(c: &str, nanos: u32) -> String {
    format!("{c}:{nanos}")
}

/// Writes attribute `mmn` of a folder.
#[must_use]
pub fn format_folder_time(seconds: i64, nanos: u32) -> String {
    format!("{seconds}.{nanos:09}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_count_only_for_their_fingerprint() {
        let text = format_file_nanos("abc", 5);
        assert_eq!(file_nanos("abc", &text), Some(5));
        assert_eq!(file_nanos("abd", &text), None);
        assert_eq!(file_nanos("abc", "abc:1000000000"), None);
    }

    #[test]
    fn folder_times_round_trip() {
        assert_eq!(folder_time(&format_folder_time(-7, 42)), Some((-7, 42)));
        assert_eq!(folder_time("12"), None);
    }
}
