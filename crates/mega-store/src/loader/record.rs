//! Rows as the sorter keeps them.

use mega_proto::{NodeHandle, NodeKind, UserHandle};

use super::sorter::Record;
use crate::rows::NodeRow;
use crate::truth::{handle_number, parent_number};

/// Fixed part: parent, handle, owner, size, ts (8 each), kind, flags, lengths of key and `fa` (4 each).
const FIXED: usize = 5 * 8 + 2 + 8;
const HAS_OWNER: u8 = 1;
const HAS_FA: u8 = 2;

impl Record for NodeRow {
    /// The order on disk.
    type Key = (i64, NodeHandle);

    fn key(&self) -> Self::Key {
        (parent_number(self.parent), self.handle)
    }

    fn weight(&self) -> usize {
        let fa = self.fa.as_ref().map_or(0, String::len);
        // What the allocator adds, roughly.
        size_of::<Self>() + self.key.len() + self.attrs.len() + fa + 48
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let fa = self.fa.as_deref().unwrap_or_default();
        let flags = if self.owner.is_some() { HAS_OWNER } else { 0 }
            | if self.fa.is_some() { HAS_FA } else { 0 };
        let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes();
        out.extend_from_slice(&parent_number(self.parent).to_le_bytes());
        out.extend_from_slice(&handle_number(self.handle).to_le_bytes());
        out.extend_from_slice(&self.owner.map_or([0; 8], |owner| owner.0));
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.ts.to_le_bytes());
        out.extend_from_slice(&[self.kind.code(), flags]);
        out.extend_from_slice(&length(&self.key));
        out.extend_from_slice(&length(fa));
        out.extend_from_slice(self.key.as_bytes());
        out.extend_from_slice(fa.as_bytes());
        out.extend_from_slice(&self.attrs);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (fixed, rest) = bytes.split_first_chunk::<FIXED>()?;
        let (numbers, rest_fixed) = fixed.split_first_chunk::<40>()?;
        let ([parent, handle, owner, size, ts], _) = numbers.as_chunks::<8>() else {
            return None;
        };
        let (&[kind, flags], lengths) = rest_fixed.split_first_chunk::<2>()?;
        let ([key, fa], _) = lengths.as_chunks::<4>() else {
            return None;
        };
        let length = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes) as usize;
        let (key, rest) = rest.split_at_checked(length(key))?;
        let (fa, attrs) = rest.split_at_checked(length(fa))?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let node = |bytes: &[u8; 8]| NodeHandle::from_u48(u64::from_le_bytes(*bytes));
        Some(Self {
            handle: node(handle),
            parent: (i64::from_le_bytes(*parent) >= 0).then(|| node(parent)),
            kind: NodeKind::from_code(kind.into())?,
            owner: (flags & HAS_OWNER != 0).then_some(UserHandle(*owner)),
            size: u64::from_le_bytes(*size),
            ts: i64::from_le_bytes(*ts),
            key: text(key)?,
            attrs: attrs.to_vec(),
            fa: if flags & HAS_FA != 0 {
                Some(text(fa)?)
            } else {
                None
            },
            arrival: 0,
            suffix: None,
        })
    }
}

/// Where a node is: a row of `node_parent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) handle: i64,
    pub(super) parent: i64,
}

impl Record for Position {
    type Key = i64;

    fn key(&self) -> i64 {
        self.handle
    }

    fn weight(&self) -> usize {
        size_of::<Self>()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.handle.to_le_bytes());
        out.extend_from_slice(&self.parent.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let ([handle, parent], _) = bytes.as_chunks::<8>() else {
            return None;
        };
        Some(Self {
            handle: i64::from_le_bytes(*handle),
            parent: i64::from_le_bytes(*parent),
        })
    }
}

/// A file and its size, for `node_size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OfSize {
    pub(super) size: i64,
    pub(super) handle: i64,
}

impl Record for OfSize {
    type Key = (i64, i64);

    fn key(&self) -> Self::Key {
        (self.size, self.handle)
    }

    fn weight(&self) -> usize {
        size_of::<Self>()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.handle.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let ([size, handle], _) = bytes.as_chunks::<8>() else {
            return None;
        };
        Some(Self {
            size: i64::from_le_bytes(*size),
            handle: i64::from_le_bytes(*handle),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_round_trip(
            numbers in (0_u64..1 << 48, any::<Option<[u8; 6]>>(), 0_i64..5, any::<Option<[u8; 8]>>()),
            size in any::<u64>(), ts in any::<i64>(), key in ".{0,20}",
            attrs in prop::collection::vec(any::<u8>(), 0..40), fa in any::<Option<String>>(),
        ) {
            let (handle, parent, kind, owner) = numbers;
            let row = NodeRow {
                handle: NodeHandle::from_u48(handle),
                parent: parent.map(NodeHandle),
                kind: NodeKind::from_code(kind).unwrap(),
                owner: owner.map(UserHandle),
                size, ts, key, attrs, fa,
                arrival: 0,
                suffix: None,
            };
            let mut bytes = Vec::new();
            row.encode(&mut bytes);
            prop_assert_eq!(NodeRow::decode(&bytes).unwrap(), row);
            let position = Position { handle: ts, parent: ts.wrapping_add(1) };
            let mut bytes = Vec::new();
            position.encode(&mut bytes);
            prop_assert_eq!(Position::decode(&bytes).unwrap(), position);
            let of_size = OfSize { size: ts, handle: ts.wrapping_add(1) };
            let mut bytes = Vec::new();
            of_size.encode(&mut bytes);
            prop_assert_eq!(OfSize::decode(&bytes).unwrap(), of_size);
        }

        #[test]
        fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = NodeRow::decode(&bytes);
            let _ = Position::decode(&bytes);
            let _ = OfSize::decode(&bytes);
        }
    }
}
