//! A node as the server describes it (`protocol/03` section 2), still encrypted.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess};

use crate::handle::{NodeHandle, UserHandle};
use crate::liberal::{LooseInt, LooseParsed, LooseText};

/// What a node is (`t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeKind {
    /// A file (0). Its parent may be a file: then it is an older version of that one.
    File,
    /// A folder (1).
    Folder,
    /// The root of the cloud drive (2).
    Root,
    /// The vault, formerly the inbox (3).
    Vault,
    /// The rubbish bin (4).
    Rubbish,
}

impl NodeKind {
    /// The kind for `t`; `None` for values no client knows.
    #[must_use]
    pub const fn from_code(code: i64) -> Option<Self> {
        match code {
            0 => Some(Self::File),
            1 => Some(Self::Folder),
            2 => Some(Self::Root),
            3 => Some(Self::Vault),
            4 => Some(Self::Rubbish),
            _ => None,
        }
    }

    /// The value of `t`, 0 to 4.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::File => 0,
            Self::Folder => 1,
            Self::Root => 2,
            Self::Vault => 3,
            Self::Rubbish => 4,
        }
    }

    /// Whether it is one of the three roots, which have neither key nor attributes.
    #[must_use]
    pub const fn is_root(self) -> bool {
        matches!(self, Self::Root | Self::Vault | Self::Rubbish)
    }
}

/// A node object of `f`, of the reply to `p` or of a packet. Nothing in it is decrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawNode {
    /// `h`.
    pub handle: NodeHandle,
    /// `p`; `None` for roots. Of an in-share's root it names a node we do not have.
    pub parent: Option<NodeHandle>,
    /// `u`, the owner.
    pub owner: Option<UserHandle>,
    /// `t`.
    pub kind: NodeKind,
    /// `a`, encrypted attributes in base64 as served; `None` also when empty.
    pub attrs: Option<String>,
    /// `k`, one or more `owner:key` separated by `/`, as served; `None` also when empty.
    pub key: Option<String>,
    /// `ts`, when the server made this node, in seconds since 1970; 0 if it does not say.
    pub ts: i64,
    /// `s`, bytes; 0 for anything but files.
    pub size: u64,
    /// `fa`, references to thumbnails.
    pub fa: Option<String>,
    /// `su`, the sharing user of an in-share's root.
    pub sharer: Option<UserHandle>,
    /// `sk`, the wrapped share key of an in-share's root (legacy).
    pub share_key: Option<String>,
    /// `r`, access level of an in-share's root: 0 read, 1 write, 2 full.
    pub access: Option<i64>,
    /// `i`, the place in the `n` list of the `p` command that made it (replies and packets only).
    pub index: Option<u64>,
}

impl RawNode {
    /// A node with only what every node has; for tests and for building one by hand.
    #[must_use]
    pub const fn new(handle: NodeHandle, parent: Option<NodeHandle>, kind: NodeKind) -> Self {
        Self {
            handle,
            parent,
            owner: None,
            kind,
            attrs: None,
            key: None,
            ts: 0,
            size: 0,
            fa: None,
            sharer: None,
            share_key: None,
            access: None,
            index: None,
        }
    }

    /// Reads one node object; `None` if it has no handle or a kind nobody knows.
    #[must_use]
    pub fn from_value(value: &serde_json::Value) -> Option<Self> {
        LooseNode::deserialize(value).ok()?.0
    }
}

/// Deserialises from any JSON value: `None` for what is not a usable node, so that one odd element
/// never fails a whole tree (`protocol/03` section 2, robustness rules).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LooseNode(pub Option<RawNode>);

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    H,
    P,
    U,
    T,
    A,
    K,
    Ts,
    S,
    Fa,
    Su,
    Sk,
    R,
    I,
    #[serde(other)]
    Other,
}

struct NodeVisitor;

impl<'de> de::Visitor<'de> for NodeVisitor {
    type Value = LooseNode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a node")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<LooseNode, M::Error> {
        let mut handle = LooseParsed::default();
        let mut kind = LooseInt::default();
        let mut node = RawNode::new(NodeHandle([0; 6]), None, NodeKind::File);
        while let Some(field) = map.next_key()? {
            match field {
                Field::H => handle = map.next_value()?,
                Field::P => node.parent = map.next_value::<LooseParsed<_>>()?.0,
                Field::U => node.owner = map.next_value::<LooseParsed<_>>()?.0,
                Field::T => kind = map.next_value()?,
                Field::A => node.attrs = map.next_value::<LooseText>()?.filled(),
                Field::K => node.key = map.next_value::<LooseText>()?.filled(),
                Field::Ts => node.ts = map.next_value::<LooseInt>()?.0.unwrap_or(0),
                Field::S => node.size = map.next_value::<LooseInt>()?.unsigned().unwrap_or(0),
                Field::Fa => node.fa = map.next_value::<LooseText>()?.filled(),
                Field::Su => node.sharer = map.next_value::<LooseParsed<_>>()?.0,
                Field::Sk => node.share_key = map.next_value::<LooseText>()?.filled(),
                Field::R => node.access = map.next_value::<LooseInt>()?.0,
                Field::I => node.index = map.next_value::<LooseInt>()?.unsigned(),
                Field::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let known = handle.0.zip(kind.0.and_then(NodeKind::from_code));
        Ok(LooseNode(known.map(|(handle, kind)| RawNode {
            handle,
            kind,
            ..node
        })))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<LooseNode, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(LooseNode(None))
    }
    fn visit_str<E: de::Error>(self, _: &str) -> Result<LooseNode, E> {
        Ok(LooseNode(None))
    }
    fn visit_i64<E: de::Error>(self, _: i64) -> Result<LooseNode, E> {
        Ok(LooseNode(None))
    }
    fn visit_u64<E: de::Error>(self, _: u64) -> Result<LooseNode, E> {
        Ok(LooseNode(None))
    }
    fn visit_f64<E: de::Error>(self, _: f64) -> Result<LooseNode, E> {
        Ok(LooseNode(None))
    }
    fn visit_bool<E: de::Error>(self, _: bool) -> Result<LooseNode, E> {
        Ok(LooseNode(None))
    }
    fn visit_unit<E: de::Error>(self) -> Result<LooseNode, E> {
        Ok(LooseNode(None))
    }
}

impl<'de> Deserialize<'de> for LooseNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<RawNode> {
        serde_json::from_str::<LooseNode>(text).unwrap().0
    }

    #[test]
    fn a_file_of_the_reference_transcript() {
        let node = read(
            r#"{"h":"AQIAAABq","p":"AQIAAABl","u":"Kbocb5Q6ti4","t":0,"a":"QUJD",
                "k":"Kbocb5Q6ti4:AAAA","ts":1795332702,"s":400000,"fh":"x","rr":{"x":[1]}}"#,
        )
        .unwrap();
        assert_eq!(node.handle, "AQIAAABq".parse().unwrap());
        assert_eq!(node.parent, Some("AQIAAABl".parse().unwrap()));
        assert_eq!(node.kind, NodeKind::File);
        assert_eq!((node.size, node.ts), (400_000, 1_795_332_702));
        assert_eq!(node.key.as_deref(), Some("Kbocb5Q6ti4:AAAA"));
    }

    #[test]
    fn a_root_has_nothing() {
        let node = read(r#"{"h":"AQIAAABl","p":"","u":"Kbocb5Q6ti4","t":2,"a":"","k":""}"#);
        let node = node.unwrap();
        assert_eq!((node.parent, node.attrs, node.key), (None, None, None));
        assert!(node.kind.is_root());
    }

    #[test]
    fn odd_types_are_taken_and_odd_nodes_skipped() {
        let node = read(
            r#"{"h":"AQIAAABl","t":"1","s":"12","ts":"7","p":5,"k":[],"h2":1,"h":"AQIAAABm"}"#,
        );
        let node = node.unwrap();
        assert_eq!((node.kind, node.size, node.ts), (NodeKind::Folder, 12, 7));
        assert_eq!(node.handle, "AQIAAABm".parse().unwrap());
        for text in [
            r#"{"h":"AQIAAABl","t":9}"#,
            r#"{"t":1}"#,
            "{}",
            "[]",
            "1",
            "\"x\"",
            "null",
            "true",
            "-1",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
