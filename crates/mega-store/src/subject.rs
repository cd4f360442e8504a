//! Numbers that name things in the store: change rows, layers, attempts.

use mega_proto::NodeHandle;

/// Tag of a [`LocalId`] in the 64-bit form of a [`Subject`], the bit that inode numbers use too.
const LOCAL_TAG: i64 = 1 << 61;

/// The number of something made here that the server does not know yet. Never given out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalId(pub u64);

/// The number of one layer's staging file: random, so that none is ever used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StagingId(pub u64);

/// The number of one attempt to push something. Never given out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u64);

/// What a change row is about, or a place's parent: a node of the truth or something made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A node the server knows.
    Node(NodeHandle),
    /// Made here, not confirmed yet.
    Local(LocalId),
}

impl Subject {
    /// The database form: a node is its 48-bit number, a local id carries bit 61.
    #[must_use]
    pub const fn to_i64(self) -> i64 {
        match self {
            Self::Node(handle) => handle.to_u48().cast_signed(),
            Self::Local(LocalId(id)) => (id.cast_signed() & (LOCAL_TAG - 1)) | LOCAL_TAG,
        }
    }

    /// The inverse of [`to_i64`](Self::to_i64).
    #[must_use]
    pub const fn from_i64(number: i64) -> Self {
        if number & LOCAL_TAG == 0 {
            Self::Node(NodeHandle::from_u48(number.cast_unsigned()))
        } else {
            Self::Local(LocalId((number & (LOCAL_TAG - 1)).cast_unsigned()))
        }
    }

    /// The node, if the server knows the subject.
    #[must_use]
    pub const fn node(self) -> Option<NodeHandle> {
        match self {
            Self::Node(handle) => Some(handle),
            Self::Local(_) => None,
        }
    }
}

impl From<NodeHandle> for Subject {
    fn from(handle: NodeHandle) -> Self {
        Self::Node(handle)
    }
}

impl From<LocalId> for Subject {
    fn from(id: LocalId) -> Self {
        Self::Local(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        for subject in [
            Subject::Node(NodeHandle([0xff; 6])),
            Subject::Node(NodeHandle([0; 6])),
            Subject::Local(LocalId(0)),
            Subject::Local(LocalId(77)),
            Subject::Local(LocalId((1 << 61) - 1)),
        ] {
            assert_eq!(Subject::from_i64(subject.to_i64()), subject);
            assert!(subject.to_i64() >= 0);
        }
    }
}
