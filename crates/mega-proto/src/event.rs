//! The server-to-client channel: what a poll answers (`protocol/05`).
//!
//! A packet that cannot be read becomes [`ActionPacket::Malformed`]; the position still advances.

use serde::Deserialize;
use serde_json::Value;

use crate::error_code::ErrorCode;
use crate::handle::{NodeHandle, PublicHandle, UserHandle};
use crate::liberal::{LooseInt, LooseParsed, LooseText};
use crate::node::RawNode;
use crate::opaque::Seqno;
use crate::tree::{ShareTarget, User};

/// One packet: who caused it, and what happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// `i`: the client id given with the command that caused it.
    pub i: Option<String>,
    /// `st`: the sequence tag.
    pub st: Option<String>,
    /// What happened.
    pub action: ActionPacket,
}

/// One change in the account (`protocol/05` section 5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionPacket {
    /// `t`: nodes are new, have moved here, were copied, or became versions. Upsert each.
    Nodes {
        /// Those of `f`, then those of `f2`. Unreadable ones are left out.
        nodes: Vec<RawNode>,
        /// Users that the nodes name, of `u`.
        users: Vec<User>,
        /// As [`Packet::i`].
        client_id: Option<String>,
    },
    /// `u`: attributes, owner or time of one node.
    Attributes {
        /// `n`.
        node: NodeHandle,
        /// `at`, base64 as served.
        attrs: Option<String>,
        /// `u`.
        owner: Option<UserHandle>,
        /// `ts`.
        ts: Option<i64>,
    },
    /// `d`: a subtree is gone.
    Delete {
        /// `n`.
        node: NodeHandle,
        /// `m:1`: the first half of a move; a `t` with the same node follows.
        moved: bool,
    },
    /// `s` or `s2`: a share began, changed or ended.
    Share {
        /// `n`, the shared folder.
        node: NodeHandle,
        /// `o`, who shares it.
        owner: Option<UserHandle>,
        /// `u`, with whom.
        target: Option<ShareTarget>,
        /// `r`; `None` means that the share has ended.
        access: Option<i64>,
        /// `ts`.
        ts: Option<i64>,
        /// `k`, the share key wrapped for the recipient.
        key: Option<String>,
        /// `ok`, the share key wrapped for the owner.
        owner_key: Option<String>,
        /// `ha`, the proof of `ok`.
        ha: Option<String>,
    },
    /// `ph`: a public link began, changed or ended.
    Link {
        /// `h`.
        node: NodeHandle,
        /// `ph`.
        public: Option<PublicHandle>,
        /// `d:1`.
        deleted: bool,
        /// `down`.
        is_down: bool,
        /// `ets`.
        expires: Option<i64>,
    },
    /// `k` with `n` and `k`: nodes got another key string.
    Key {
        /// Each node with its `k`, as served.
        keys: Vec<(NodeHandle, String)>,
    },
    /// `ua`: attributes of a user.
    UserAttributes {
        /// `u`.
        user: Option<UserHandle>,
        /// `ua`, the names.
        names: Vec<String>,
        /// `v`, the versions, in the order of the names.
        versions: Vec<String>,
    },
    /// `c`: users, and whether they are contacts.
    Contacts {
        /// `u`.
        users: Vec<User>,
    },
    /// `pk`: share keys wait to be fetched.
    PendingKeys,
    /// The plan or the quota changed (`psts`, `psts_v2`, `pses`, `ftr`, `sqac`, `ub`).
    QuotaChanged,
    /// `fa`: the references to thumbnails.
    FileAttributes {
        /// `n`.
        node: NodeHandle,
        /// `fa`.
        fa: String,
    },
    /// A type that does not concern a file system; carries its name.
    Other(String),
    /// Not readable: a bare number, or a packet of a known type without what it needs.
    Malformed,
}

/// A poll's reply object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventReply {
    /// `a`, to be applied in this order.
    pub packets: Vec<Packet>,
    /// `sn`: the position after them.
    pub sn: Option<Seqno>,
    /// `ir`: more is there already; the state is not current yet.
    pub more: bool,
    /// `w`: where to wait.
    pub wait_url: Option<String>,
}

/// What a poll answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventBody {
    /// `0`: nothing yet, ask again.
    KeepAlive,
    /// A reply object.
    Reply(EventReply),
}

/// Why a poll's body is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The service answered with a number.
    #[error("{0}")]
    Refused(ErrorCode),
    /// Not a reply at all.
    #[error("the event reply could not be read")]
    Malformed,
}

/// Reads the body of a poll.
///
/// # Errors
/// [`EventError::Refused`] for `-N`, `[-N]` and `{"err":-N}`; an empty body counts as -3 (`protocol/01` section 4).
pub fn decode(body: &[u8]) -> Result<EventBody, EventError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(EventError::Refused(ErrorCode::Again));
    }
    let value: Value = serde_json::from_slice(body).map_err(|_| EventError::Malformed)?;
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(0) => Ok(EventBody::KeepAlive),
            Some(code) if code < 0 => Err(EventError::Refused(ErrorCode::from_code(code))),
            _ => Err(EventError::Malformed),
        },
        Value::Array(list) => match list.first().and_then(Value::as_i64) {
            Some(code) if code < 0 && list.len() == 1 => {
                Err(EventError::Refused(ErrorCode::from_code(code)))
            }
            _ => Err(EventError::Malformed),
        },
        Value::Object(mut members) => {
            if let Some(code) = members.get("err").and_then(Value::as_i64) {
                return Err(EventError::Refused(ErrorCode::from_code(code)));
            }
            let loose = |value: Option<&Value>| {
                value
                    .and_then(|value| LooseText::deserialize(value).ok())
                    .and_then(LooseText::filled)
            };
            let sn = loose(members.get("sn")).map(Seqno);
            let wait_url = loose(members.get("w"));
            let more = is_set(members.get("ir"));
            let packets = match members.remove("a") {
                Some(Value::Array(list)) => list.iter().map(packet).collect(),
                _ => Vec::new(),
            };
            Ok(EventBody::Reply(EventReply {
                packets,
                sn,
                more,
                wait_url,
            }))
        }
        Value::Null | Value::Bool(_) | Value::String(_) => Err(EventError::Malformed),
    }
}

fn is_set(value: Option<&Value>) -> bool {
    value
        .and_then(|value| LooseInt::deserialize(value).ok())
        .is_some_and(LooseInt::is_set)
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Members {
    a: LooseText,
    at: LooseText,
    d: LooseInt,
    down: LooseInt,
    ets: LooseInt,
    fa: LooseText,
    h: LooseParsed<NodeHandle>,
    ha: LooseText,
    i: LooseText,
    k: Value,
    m: LooseInt,
    n: Value,
    o: LooseParsed<UserHandle>,
    ok: LooseText,
    ph: LooseParsed<PublicHandle>,
    r: LooseInt,
    st: LooseText,
    t: Value,
    ts: LooseInt,
    u: Value,
    ua: Value,
    v: Value,
}

impl Members {
    fn node(&self) -> Option<NodeHandle> {
        self.n.as_str()?.parse().ok()
    }
}

fn packet(value: &Value) -> Packet {
    let members = value
        .is_object()
        .then(|| Members::deserialize(value).ok())
        .flatten();
    let Some(mut members) = members else {
        return Packet {
            i: None,
            st: None,
            action: ActionPacket::Malformed,
        };
    };
    let i = std::mem::take(&mut members.i).filled();
    let st = std::mem::take(&mut members.st).filled();
    let action = action(members, i.as_ref()).unwrap_or(ActionPacket::Malformed);
    Packet { i, st, action }
}

fn action(members: Members, client_id: Option<&String>) -> Option<ActionPacket> {
    let name = members.a.0.clone()?;
    Some(match name.as_str() {
        "t" => ActionPacket::Nodes {
            nodes: nodes(&members.t)?,
            users: users(members.t.get("u")),
            client_id: client_id.cloned(),
        },
        "u" => ActionPacket::Attributes {
            node: members.node()?,
            attrs: members.at.filled(),
            owner: members.u.as_str().and_then(|text| text.parse().ok()),
            ts: members.ts.0,
        },
        "d" => ActionPacket::Delete {
            node: members.node()?,
            moved: members.m.is_set(),
        },
        "s" | "s2" => ActionPacket::Share {
            node: members.node()?,
            key: members
                .k
                .as_str()
                .filter(|key| !key.is_empty())
                .map(str::to_owned),
            owner: members.o.0,
            target: members.u.as_str().and_then(|text| text.parse().ok()),
            access: members.r.0,
            ts: members.ts.0,
            owner_key: members.ok.filled(),
            ha: members.ha.filled(),
        },
        "ph" => ActionPacket::Link {
            node: members.h.0?,
            public: members.ph.0,
            deleted: members.d.is_set(),
            is_down: members.down.is_set(),
            expires: members.ets.0,
        },
        "k" => ActionPacket::Key {
            keys: keys(&members.n, &members.k),
        },
        "ua" => ActionPacket::UserAttributes {
            user: members.u.as_str().and_then(|text| text.parse().ok()),
            names: texts(&members.ua),
            versions: texts(&members.v),
        },
        "fa" => ActionPacket::FileAttributes {
            node: members.node()?,
            fa: members.fa.0.unwrap_or_default(),
        },
        "c" => ActionPacket::Contacts {
            users: users(Some(&members.u)),
        },
        "pk" => ActionPacket::PendingKeys,
        "psts" | "psts_v2" | "pses" | "ftr" | "sqac" | "ub" => ActionPacket::QuotaChanged,
        _ => ActionPacket::Other(name),
    })
}

/// The nodes of `{"f":[..],"f2":[..]}`; `None` if it is no object.
fn nodes(value: &Value) -> Option<Vec<RawNode>> {
    let members = value.as_object()?;
    let lists = ["f", "f2"]
        .into_iter()
        .filter_map(|name| members.get(name)?.as_array());
    Some(lists.flatten().filter_map(RawNode::from_value).collect())
}

fn users(value: Option<&Value>) -> Vec<User> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(User::from_value).collect()
}

/// Pairs of handle and key; both are single values or lists.
fn keys(handles: &Value, keys: &Value) -> Vec<(NodeHandle, String)> {
    texts(handles)
        .iter()
        .zip(texts(keys))
        .filter_map(|(handle, key)| Some((handle.parse().ok()?, key)))
        .collect()
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(list) => list
            .iter()
            .map(|item| {
                LooseText::deserialize(item)
                    .ok()
                    .and_then(|text| text.0)
                    .unwrap_or_default()
            })
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> EventReply {
        match decode(text.as_bytes()).unwrap() {
            EventBody::Reply(reply) => reply,
            EventBody::KeepAlive => panic!("keep-alive"),
        }
    }

    #[test]
    fn a_move_of_the_reference_transcript() {
        let reply = reply(
            r#"{"a":[{"a":"d","i":"fB9IUdlBvJ","n":"AQIAAABq","m":1,"ou":"Kbocb5Q6ti4"},
                {"a":"t","i":"fB9IUdlBvJ","st":"!a","t":{"f":[{"h":"AQIAAABq","t":0},{"h":1}],
                 "f2":[{"h":"AQIAAABr","p":"AQIAAABq","t":0}]},"ou":"Kbocb5Q6ti4"}],"ir":1,"sn":"AAAAAAAAAAM"}"#,
        );
        assert!(reply.more);
        assert_eq!(reply.sn, Some(Seqno::from("AAAAAAAAAAM")));
        let node = "AQIAAABq".parse().unwrap();
        assert_eq!(
            reply.packets[0].action,
            ActionPacket::Delete { node, moved: true }
        );
        assert_eq!(reply.packets[1].st.as_deref(), Some("!a"));
        let ActionPacket::Nodes {
            nodes, client_id, ..
        } = &reply.packets[1].action
        else {
            panic!()
        };
        assert_eq!(
            nodes
                .iter()
                .map(|n| n.handle.to_string())
                .collect::<Vec<_>>(),
            ["AQIAAABq", "AQIAAABr"]
        );
        assert_eq!(client_id.as_deref(), Some("fB9IUdlBvJ"));
    }

    #[test]
    fn a_waiting_reply_and_a_keep_alive() {
        let reply = reply(r#"{"w":"http://host/w/0","sn":"AAAAAAAAAAA"}"#);
        assert_eq!(reply.wait_url.as_deref(), Some("http://host/w/0"));
        assert!(reply.packets.is_empty() && !reply.more);
        assert_eq!(decode(b"0"), Ok(EventBody::KeepAlive));
    }

    #[test]
    fn errors_in_every_form() {
        for (body, code) in [
            ("-6", -6),
            ("[-15]", -15),
            ("{\"err\":-16}", -16),
            ("", -3),
            (" \n", -3),
        ] {
            let expected = EventError::Refused(ErrorCode::from_code(code));
            assert_eq!(decode(body.as_bytes()), Err(expected), "{body}");
        }
        for body in ["<html>", "null", "[1,2]", "\"x\"", "{\"a\":", "5", "[]"] {
            assert_eq!(
                decode(body.as_bytes()),
                Err(EventError::Malformed),
                "{body}"
            );
        }
    }

    #[test]
    fn every_known_type_and_odd_ones() {
        let reply = reply(
            r#"{"a":[-3,{"a":"u","n":"AQIAAABq","at":"QUJD","u":"Kbocb5Q6ti4","ts":"5"},
             {"a":"s2","n":"AQIAAABq","o":"Kbocb5Q6ti4","u":"EXP","r":0,"ts":1},
             {"a":"s2","n":"AQIAAABq","u":"Kbocb5Q6ti4"},
             {"a":"ph","h":"AQIAAABq","ph":"AQIAAABr","n":1,"ts":3},
             {"a":"k","n":["AQIAAABq","bad"],"k":["x","y"]},
             {"a":"ua","u":"Kbocb5Q6ti4","ua":["^!keys"],"v":["w"]},
             {"a":"pk"},{"a":"sqac","gb":5},{"a":"fa","n":"AQIAAABq","fa":"0*x"},{"a":"mcc"},
             {"a":"d"},{"a":5},{},"x",null,[],{"a":"t","t":[]}],"sn":"x"}"#,
        );
        let names: Vec<String> = reply
            .packets
            .iter()
            .map(|p| {
                format!("{:?}", p.action)
                    .split([' ', '(', '{'])
                    .next()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        assert_eq!(
            names,
            [
                "Malformed",
                "Attributes",
                "Share",
                "Share",
                "Link",
                "Key",
                "UserAttributes",
                "PendingKeys",
                "QuotaChanged",
                "FileAttributes",
                "Other",
                "Malformed",
                "Other",
                "Malformed",
                "Malformed",
                "Malformed",
                "Malformed",
                "Malformed"
            ]
        );
        let ActionPacket::Share { access, target, .. } = &reply.packets[3].action else {
            panic!()
        };
        assert!(access.is_none() && matches!(target, Some(ShareTarget::User(_))));
        let ActionPacket::Key { keys } = &reply.packets[5].action else {
            panic!()
        };
        assert_eq!(keys.len(), 1);
    }
}
