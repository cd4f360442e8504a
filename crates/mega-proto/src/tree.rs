//! What the reply to `f` is made of (`protocol/03` section 1), element by element.

use serde::Deserialize;
use std::str::FromStr;

use crate::handle::{HandleError, NodeHandle, PublicHandle, UserHandle};
use crate::liberal::{LooseInt, LooseParsed, LooseText};
use crate::node::RawNode;

/// One element of the tree's reply, in the order of arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeItem {
    /// From `f` or `f2`.
    Node(RawNode),
    /// From `ok` or `ok0`.
    OwnShareKey(OwnShareKey),
    /// From `s` or `ps`.
    Share(Share),
    /// From `ph`.
    Link(Link),
    /// From `u`.
    User(User),
}

/// The wrapped key of a folder of ours that is shared (`ok`, `ok0`; `protocol/03` section 5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnShareKey {
    /// `h`, the shared folder.
    pub handle: NodeHandle,
    /// `ha`, its proof, base64.
    pub ha: String,
    /// `k`, the share key under the master key, base64.
    pub key: String,
}

/// Who a folder is shared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShareTarget {
    /// Everybody who has the link (`EXP`).
    Export,
    /// One user.
    User(UserHandle),
}

impl FromStr for ShareTarget {
    type Err = HandleError;

    fn from_str(text: &str) -> Result<Self, HandleError> {
        if text == "EXP" {
            return Ok(Self::Export);
        }
        text.parse().map(Self::User)
    }
}

/// An outgoing share (`s`), or a pending one (`ps`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// `h`, the shared folder.
    pub handle: NodeHandle,
    /// `u`; `None` for a pending share, which names a contact request instead.
    pub target: Option<ShareTarget>,
    /// `r`, the level: 0 read, 1 write, 2 full.
    pub access: Option<i64>,
    /// `ts`, seconds since 1970.
    pub ts: i64,
}

/// A public link of ours (`ph`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// `h`, the exported node.
    pub handle: NodeHandle,
    /// `ph`, the name in the link.
    pub public: PublicHandle,
    /// `ts`, seconds since 1970.
    pub ts: i64,
    /// `ets`, when it expires, seconds since 1970.
    pub expires: Option<i64>,
    /// `down`: taken down by the service.
    pub is_down: bool,
}

/// A user we know of (`u`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// `u`.
    pub handle: UserHandle,
    /// `c`: 0 hidden, 1 contact, 2 ourselves, 3 blocked.
    pub visibility: Option<i64>,
    /// `m`, the e-mail address.
    pub email: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Members {
    h: LooseParsed<NodeHandle>,
    ha: LooseText,
    k: LooseText,
    ph: LooseParsed<PublicHandle>,
    r: LooseInt,
    ts: LooseInt,
    ets: LooseInt,
    down: LooseInt,
    c: LooseInt,
    m: LooseText,
    u: LooseText,
}

fn members(value: &serde_json::Value) -> Option<Members> {
    // A list would be taken as the members in order, which is not meant.
    value
        .is_object()
        .then(|| Members::deserialize(value).ok())
        .flatten()
}

impl OwnShareKey {
    /// Reads an element of `ok`; `None` if it lacks the handle or the key.
    #[must_use]
    pub fn from_value(value: &serde_json::Value) -> Option<Self> {
        let found = members(value)?;
        let ha = found.ha.0.unwrap_or_default();
        Some(Self {
            handle: found.h.0?,
            ha,
            key: found.k.filled()?,
        })
    }
}

impl Share {
    /// Reads an element of `s` or `ps`; `None` without a handle.
    #[must_use]
    pub fn from_value(value: &serde_json::Value) -> Option<Self> {
        let found = members(value)?;
        Some(Self {
            handle: found.h.0?,
            target: found.u.0.and_then(|text| text.parse().ok()),
            access: found.r.0,
            ts: found.ts.0.unwrap_or(0),
        })
    }
}

impl Link {
    /// Reads an element of `ph`; `None` without its two handles.
    #[must_use]
    pub fn from_value(value: &serde_json::Value) -> Option<Self> {
        let found = members(value)?;
        Some(Self {
            handle: found.h.0?,
            public: found.ph.0?,
            ts: found.ts.0.unwrap_or(0),
            expires: found.ets.0,
            is_down: found.down.is_set(),
        })
    }
}

impl User {
    /// Reads an element of `u`; `None` without a handle.
    #[must_use]
    pub fn from_value(value: &serde_json::Value) -> Option<Self> {
        let found = members(value)?;
        Some(Self {
            handle: found.u.0?.parse().ok()?,
            visibility: found.c.0,
            email: found.m.filled(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn elements_decode_or_are_skipped() {
        let key = OwnShareKey::from_value(&json!({"h":"AQIAAABl","ha":"x","k":"y"})).unwrap();
        assert_eq!((key.ha.as_str(), key.key.as_str()), ("x", "y"));
        assert_eq!(OwnShareKey::from_value(&json!({"h":"AQIAAABl"})), None);
        let share = Share::from_value(&json!({"h":"AQIAAABl","u":"EXP","r":"2","ts":5})).unwrap();
        assert_eq!(
            (share.target, share.access),
            (Some(ShareTarget::Export), Some(2))
        );
        let link = json!({"h":"AQIAAABl","ph":"AQIAAABm","ts":1,"down":true,"ets":9});
        let link = Link::from_value(&link).unwrap();
        assert!(link.is_down && link.expires == Some(9));
        let user = User::from_value(&json!({"u":"Kbocb5Q6ti4","c":2,"m":"a@b.c","+puCu255":{}}));
        assert_eq!(user.unwrap().email.as_deref(), Some("a@b.c"));
        for odd in [json!(1), json!([]), json!("x"), json!({"u":5}), json!(null)] {
            assert_eq!(User::from_value(&odd), None);
            assert_eq!(Link::from_value(&odd), None);
        }
    }
}
