//! What the tables hold, as values. `docs/STATE.md` has the columns.

use std::ops::Range;

use mega_proto::{NodeHandle, NodeKind, UserHandle};
use serde_json::{Map, Value};

use crate::subject::{AttemptId, StagingId, Subject};

/// A node of the server's truth, as served (still encrypted).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// The node.
    pub handle: NodeHandle,
    /// Its parent as served; `None` for roots. A file's parent may be a file: an old version.
    pub parent: Option<NodeHandle>,
    /// What it is.
    pub kind: NodeKind,
    /// Who owns it.
    pub owner: Option<UserHandle>,
    /// Bytes of content, 0 for folders.
    pub size: u64,
    /// When the server made it, seconds since 1970.
    pub ts: i64,
    /// The member `k` as served.
    pub key: String,
    /// The attribute block, base64 removed, still encrypted.
    pub attrs: Vec<u8>,
    /// The member `fa` as served.
    pub fa: Option<String>,
    /// When the node came below its parent: 0 for all of the first load, then counting up. The store
    /// assigns it (on insertion and when the parent changes) and ignores what is passed in.
    pub arrival: u64,
    /// The number that tells this node from an equally named sibling, once assigned.
    pub suffix: Option<u32>,
}

/// The three roots of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roots {
    /// The cloud drive.
    pub cloud: NodeHandle,
    /// The vault (backups of other devices).
    pub vault: Option<NodeHandle>,
    /// The rubbish bin.
    pub rubbish: Option<NodeHandle>,
}

/// Which list a share row comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShareKind {
    /// A share key of our own (`ok`, `ok0`); `key_as_served` is `k`, `extra` is `ha`.
    OwnKey,
    /// The root of an incoming share; `key_as_served` is `sk`, `user` the sharer, `access` is `r`.
    Incoming,
    /// Somebody we share a folder with (`s`, `ps`); `user` is empty for an exported folder.
    Outgoing,
    /// A public link of ours (`ph`); `key_as_served` is the public handle, `extra` what else came.
    Link,
    /// A user we know of (`u`); `handle` is zero, `user` the user, `extra` the e-mail address.
    Contact,
}

/// A share key, a share or a link, as served. Its identity is (handle, kind, user).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareRow {
    /// The shared node.
    pub handle: NodeHandle,
    /// Where the row comes from.
    pub kind: ShareKind,
    /// The other user, where there is one.
    pub user: Option<UserHandle>,
    /// The wrapped key, or what [`ShareKind`] says.
    pub key_as_served: String,
    /// Access level, where there is one.
    pub access: Option<i64>,
    /// Other members, as [`ShareKind`] says.
    pub extra: Option<String>,
}

impl ShareRow {
    /// A row with only a key.
    #[must_use]
    pub fn new(handle: NodeHandle, kind: ShareKind, key_as_served: impl Into<String>) -> Self {
        let key_as_served = key_as_served.into();
        Self {
            handle,
            kind,
            user: None,
            key_as_served,
            access: None,
            extra: None,
        }
    }

    /// A user and their address.
    #[must_use]
    pub fn contact(user: UserHandle, address: String) -> Self {
        Self {
            user: Some(user),
            extra: Some(address),
            ..Self::new(NodeHandle::from_u48(0), ShareKind::Contact, "")
        }
    }
}

/// Where an inode should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The folder.
    pub parent: Subject,
    /// The stored (unescaped) name.
    pub name: String,
}

/// The desired state of one inode. `None` in a member means: as the truth has it.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeRow {
    /// Whose row it is.
    pub subject: Subject,
    /// File or folder.
    pub kind: NodeKind,
    /// New parent and name.
    pub place: Option<Place>,
    /// Attribute members to set over what the node has; `Value::Null` removes one.
    pub attributes: Option<Map<String, Value>>,
    /// New bytes.
    pub content: Option<ContentRow>,
    /// It should be gone.
    pub removed: bool,
    /// The node whose name it took over.
    pub replaces: Option<NodeHandle>,
    /// Where the pusher is with it.
    pub state: ChangeState,
    /// When the row began, milliseconds since 1970.
    pub since_ms: i64,
}

/// The desired content of a file: layers over a base node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentRow {
    /// The node whose bytes show where no layer has any.
    pub base: Option<NodeHandle>,
    /// The file's size in bytes.
    pub size: u64,
    /// Counts up with every change of the bytes.
    pub generation: u64,
    /// Whether the layers' staged bytes were fsynced (I2). Inline bytes need no fsync of their own.
    pub synced: bool,
    /// Bottom first.
    pub layers: Vec<LayerRow>,
}

/// One layer of staged bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerRow {
    /// Where the bytes are.
    pub data: LayerData,
    /// What lies under this layer shows only below this offset (the lowest truncation since).
    pub floor: u64,
    /// Which bytes the layer has.
    pub extents: Vec<Range<u64>>,
    /// Its bytes never change again (I4).
    pub sealed: bool,
}

/// Where a layer keeps its bytes.
#[derive(Clone, PartialEq, Eq)]
pub enum LayerData {
    /// In the row. Plaintext in memory, encrypted at rest.
    Inline(Vec<u8>),
    /// In a staging file.
    File(StagingId),
}

impl std::fmt::Debug for LayerData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inline(bytes) => write!(f, "Inline({} bytes)", bytes.len()),
            Self::File(id) => write!(f, "File({:016x})", id.0),
        }
    }
}

/// Where the pusher is with a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeState {
    /// Waits.
    Pending {
        /// Not before this time, milliseconds since 1970.
        due_ms: i64,
    },
    /// On its way.
    Pushing {
        /// By this attempt.
        attempt: AttemptId,
    },
    /// Refused for good; kept until the user decides.
    Parked {
        /// Why, for the user.
        error: String,
    },
}

/// The journal of one attempt to push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRow {
    /// The attempt.
    pub id: AttemptId,
    /// What it pushes.
    pub subject: Subject,
    /// Opaque to the store, encrypted at rest.
    pub body: Vec<u8>,
}

/// What is needed to go on without a login. Its file is the one plain secret in the directory.
#[derive(Clone, PartialEq, Eq, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct SavedSession {
    /// The session id.
    pub sid: String,
    /// The account's master key.
    pub master_key: [u8; 16],
    /// The user handle, 11 characters.
    pub user: String,
    /// The e-mail address that logged in; empty if unknown.
    pub email: String,
}

impl std::fmt::Debug for SavedSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SavedSession")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
