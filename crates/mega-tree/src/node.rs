//! Opening one node row: its key, its attributes, and what `stat` shows of it.

use std::sync::{PoisonError, RwLock};

use mega_crypto::{Attributes, FileKey, KeyRing, NodeKey, ShareKey, WrapKey as _, decrypt_listing};
use mega_proto::NodeKind;
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

    /// Forgets the key of a share that has ended.
    pub fn remove_share(&self, handle: mega_proto::NodeHandle) {
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        ring.remove_share(&handle.to_string());
    }

    /// Gives or takes the account's RSA key.
    pub fn set_rsa(&self, rsa: Option<mega_crypto::RsaPrivateKey>) {
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        ring.set_rsa(rsa);
    }

    /// The shares whose keys are known.
    #[must_use]
    pub fn share_handles(&self) -> Vec<mega_proto::NodeHandle> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.share_handles()
            .filter_map(|handle| handle.parse().ok())
            .collect()
    }

    /// Opens a share key that somebody sent us (`sk`, `k` of a share packet; protocol/03 section 5).
    #[must_use]
    pub fn open_share_key(&self, served: &str) -> Option<ShareKey> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.open_share_key(served)
    }

    /// The key of a share, if it is known.
    #[must_use]
    pub fn share(&self, handle: mega_proto::NodeHandle) -> Option<ShareKey> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.share(&handle.to_string()).cloned()
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

    /// The key of a row, proved by its attributes where it has any.
    fn key(&self, row: &NodeRow) -> Option<NodeKey> {
        if !matches!(row.kind, NodeKind::File | NodeKind::Folder) {
            return None;
        }
        let first_block = match row.attrs.first_chunk::<16>() {
            None if !row.attrs.is_empty() => return None,
            block => block,
        };
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        let is_folder = row.kind == NodeKind::Folder;
        let resolved = ring.resolve_by_block(&row.key, is_folder, first_block)?;
        Some(resolved.key)
    }

    /// Decrypts one row. Never fails: what cannot be read is a [`StoredName::NoKey`].
    #[must_use]
    pub fn open(&self, row: &NodeRow) -> Node {
        let key = self.key(row);
        let attributes = key
            .as_ref()
            .and_then(|key| Attributes::decrypt(&key.attr_key(), &row.attrs).ok());
        let name = match &attributes {
            Some(attributes) => StoredName::from_attribute(attributes.name()),
            None => StoredName::NoKey,
        };
        Node {
            facts: facts(row, attributes.as_ref()),
            name,
            key,
            attributes,
        }
    }

    /// What a listing shows of a row: name and facts of [`open`](Self::open), in a third of the time.
    #[must_use]
    pub fn list(&self, row: &NodeRow) -> (StoredName, Facts) {
        let key = self.key(row);
        let listing = key.and_then(|key| decrypt_listing(&key.attr_key(), &row.attrs).ok());
        let Some(listing) = listing else {
            return (StoredName::NoKey, facts(row, None));
        };
        if listing.has_own {
            let node = self.open(row);
            return (node.name, node.facts);
        }
        let mut facts = facts(row, None);
        facts.readable = true;
        if row.kind == NodeKind::File {
            facts.mtime = listing.mtime.unwrap_or(facts.mtime);
        }
        (StoredName::from_owned(listing.name), facts)
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
    use mega_crypto::{FingerprintBuilder, MasterKey};
    use mega_proto::{NodeHandle, b64};

    #[test]
    fn nanoseconds_count_only_for_their_fingerprint() {
        let text = format_file_nanos("abc", 5);
        assert_eq!(file_nanos("abc", &text), Some(5));
        assert_eq!(file_nanos("abd", &text), None);
        assert_eq!(file_nanos("abc", "abc:1000000000"), None);
    }

    fn row(attributes: &Attributes, kind: NodeKind) -> (Decryptor, NodeRow) {
        let master = MasterKey::from_bytes([1; 16]);
        let length = if kind == NodeKind::File { 32 } else { 16 };
        let bytes: Vec<u8> = (0..length).collect();
        let key = NodeKey::from_slice(&bytes, kind != NodeKind::File).unwrap();
        let row = NodeRow {
            handle: NodeHandle::from_u48(7),
            parent: Some(NodeHandle::from_u48(6)),
            kind,
            owner: None,
            size: 5,
            ts: 9,
            key: format!("Kbocb5Q6ti4:{}", b64::encode(&master.wrap_node_key(&key))),
            attrs: attributes.encrypt(&key.attr_key()).unwrap(),
            fa: None,
            arrival: 0,
            suffix: None,
        };
        (Decryptor::new(KeyRing::new(master, None, None)), row)
    }

    #[test]
    fn a_listing_shows_what_the_node_is() {
        let c = FingerprintBuilder::new(5).finish(1_600_000_000).to_attr();
        let nanos = format_file_nanos(&c, 42);
        for members in [
            vec![("n", "a"), ("c", c.as_str())],
            vec![("n", "a"), ("lbl", "3")],
            vec![("n", ""), ("c", "no fingerprint")],
            vec![("c", c.as_str())],
            vec![("n", "a"), ("c", c.as_str()), ("mmn", nanos.as_str())],
            vec![("n", "a"), ("mmx", "1")],
            vec![("n", "a"), ("mml", "1")],
            vec![("n", "a"), ("mmn", "77.000000005")],
        ] {
            let mut attributes = Attributes::default();
            for (name, value) in &members {
                attributes.set(name, value);
            }
            for kind in [NodeKind::File, NodeKind::Folder] {
                let (decryptor, row) = row(&attributes, kind);
                let node = decryptor.open(&row);
                assert!(node.facts.readable, "{members:?}");
                assert_eq!(decryptor.list(&row), (node.name, node.facts), "{members:?}");
            }
        }
    }

    #[test]
    fn a_listing_shows_what_cannot_be_read() {
        let (decryptor, good) = row(&Attributes::with_name("a"), NodeKind::File);
        for spoil in [
            (|row: &mut NodeRow| row.key.clear()) as fn(&mut NodeRow),
            |row| row.attrs.clear(),
            |row| row.attrs.truncate(15),
            |row| row.attrs.push(0),
            |row| row.attrs.iter_mut().for_each(|byte| *byte ^= 1),
            |row| row.kind = NodeKind::Rubbish,
        ] {
            let mut row = good.clone();
            spoil(&mut row);
            let node = decryptor.open(&row);
            assert_eq!(node.name, StoredName::NoKey);
            assert_eq!(decryptor.list(&row), (node.name, node.facts));
        }
    }

    #[test]
    fn folder_times_round_trip() {
        assert_eq!(folder_time(&format_folder_time(-7, 42)), Some((-7, 42)));
        assert_eq!(folder_time("12"), None);
    }
}
