//! The commands of `/cs`, spelled exactly as the protocol has them (`protocol/02`-`04`).
//!
//! Owns their members and what kind of reply each expects. A command never prints its members: some are
//! secrets, all are ciphertext or handles.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::handle::{NodeHandle, PublicHandle};
use crate::opaque::UploadToken;

/// One command object; `a` comes first.
#[derive(Clone, Serialize, PartialEq)]
#[serde(tag = "a")]
pub enum Command {
    /// `us0`: which kind of account (`protocol/02` section 2).
    #[serde(rename = "us0")]
    Prelogin {
        /// Lower-case e-mail address.
        user: String,
    },
    /// `us`: log in (`protocol/02` section 5).
    #[serde(rename = "us")]
    Login {
        /// Lower-case e-mail address.
        user: String,
        /// The proof of the password.
        uh: String,
        /// A TOTP code.
        #[serde(skip_serializing_if = "Option::is_none")]
        mfa: Option<String>,
    },
    /// `ug`: user data (`protocol/02` section 8).
    #[serde(rename = "ug")]
    UserData {},
    /// `uq`: quota (`protocol/02` section 8).
    #[serde(rename = "uq")]
    Quota {
        /// 1: storage.
        strg: u8,
        /// 1: transfer.
        xfer: u8,
    },
    /// `sml`: end this session.
    #[serde(rename = "sml")]
    Logout {},
    /// `whyamiblocked` (`protocol/01` section 5.3).
    #[serde(rename = "whyamiblocked")]
    WhyBlocked {},
    /// `uga`: read a user attribute.
    #[serde(rename = "uga")]
    UserAttribute {
        /// A user handle or e-mail address.
        u: String,
        /// The attribute's name with its prefix.
        ua: String,
        /// 1: with its version.
        v: u8,
    },
    /// `uk`: a user's public key.
    #[serde(rename = "uk")]
    PublicKey {
        /// A user handle or e-mail address.
        u: String,
    },
    /// `pk`: share keys that wait for us (`protocol/03` section 6).
    #[serde(rename = "pk")]
    PendingKeys {
        /// Acknowledges up to here.
        #[serde(skip_serializing_if = "Option::is_none")]
        d: Option<String>,
    },
    /// `usl`: our sessions.
    #[serde(rename = "usl")]
    Sessions {
        /// 1: with the extended columns.
        x: u8,
        /// 1: with the device id.
        d: u8,
    },
    /// `f`: the whole tree (`protocol/03` section 1). Must be alone in its request.
    #[serde(rename = "f")]
    FetchNodes {
        /// 1: everything.
        c: u8,
        /// 1: recursively.
        r: u8,
        /// 1: may come from the server's cache.
        #[serde(skip_serializing_if = "Option::is_none")]
        ca: Option<u8>,
    },
    /// `p`: create nodes (`protocol/04` section 8).
    #[serde(rename = "p")]
    Put {
        /// The parent.
        t: NodeHandle,
        /// What to create.
        n: Vec<Entry>,
        /// Our client id, echoed in the packets.
        i: String,
        /// 1 forces versioning on, 0 off.
        #[serde(skip_serializing_if = "Option::is_none")]
        vb: Option<u8>,
        /// Keys for the shares above.
        #[serde(skip_serializing_if = "Option::is_none")]
        cr: Option<CrossKeys>,
    },
    /// `m`: move (`protocol/04` section 9.1).
    #[serde(rename = "m")]
    Move {
        /// The node.
        n: NodeHandle,
        /// The new parent.
        t: NodeHandle,
        /// Our client id.
        i: String,
        /// Keys for the shares above the new parent.
        #[serde(skip_serializing_if = "Option::is_none")]
        cr: Option<CrossKeys>,
    },
    /// `a`: replace the attributes (`protocol/04` section 9.2).
    #[serde(rename = "a")]
    SetAttributes {
        /// The node.
        n: NodeHandle,
        /// The whole encrypted attribute object, base64.
        at: String,
        /// Our client id.
        i: String,
    },
    /// `d`: delete for good (`protocol/04` section 9.3).
    #[serde(rename = "d")]
    Delete {
        /// The node.
        n: NodeHandle,
        /// Our client id.
        i: String,
        /// 1: only this version.
        #[serde(skip_serializing_if = "Option::is_none")]
        v: Option<u8>,
    },
    /// `l`: public link (`protocol/04` section 9.4).
    #[serde(rename = "l")]
    Export {
        /// The node.
        n: NodeHandle,
        /// Our client id.
        i: String,
        /// 1: remove the link.
        #[serde(skip_serializing_if = "Option::is_none")]
        d: Option<u8>,
        /// When it expires, seconds since 1970.
        #[serde(skip_serializing_if = "Option::is_none")]
        ets: Option<i64>,
    },
    /// `k`: keys of our own nodes wrapped anew, or keys for shares (`protocol/04` section 9.5).
    #[serde(rename = "k")]
    SetKeys {
        /// Handle, key, handle, key ...
        #[serde(skip_serializing_if = "Vec::is_empty")]
        nk: Vec<String>,
        /// Keys for shares.
        #[serde(skip_serializing_if = "Option::is_none")]
        cr: Option<CrossKeys>,
    },
    /// `s2`: share a folder with users, or with everybody who has a link (`protocol/04` section 9.6).
    #[serde(rename = "s2")]
    SetShare {
        /// The folder.
        n: NodeHandle,
        /// Each `{"u":..,"r":..}`; without `r` the share ends.
        s: Vec<Value>,
        /// The share key under the master key, base64.
        #[serde(skip_serializing_if = "Option::is_none")]
        ok: Option<String>,
        /// Its proof, base64.
        #[serde(skip_serializing_if = "Option::is_none")]
        ha: Option<String>,
        /// Our client id.
        i: String,
        /// Keys of everything below.
        #[serde(skip_serializing_if = "Option::is_none")]
        cr: Option<CrossKeys>,
    },
    /// `g`: where to download (`protocol/04` section 1).
    #[serde(rename = "g")]
    Download {
        /// 1: with an address.
        g: u8,
        /// 2: https; 0: http.
        ssl: u8,
        /// A node of ours.
        #[serde(skip_serializing_if = "Option::is_none")]
        n: Option<NodeHandle>,
        /// A public link.
        #[serde(skip_serializing_if = "Option::is_none")]
        p: Option<PublicHandle>,
        /// 2: a striped file may be answered with the addresses of its six parts (`protocol/04` section 4).
        #[serde(skip_serializing_if = "Option::is_none")]
        v: Option<u8>,
    },
    /// `u`: where to upload (`protocol/04` section 5).
    #[serde(rename = "u")]
    Upload {
        /// Bytes, final.
        s: u64,
        /// 2: https; 0: http.
        ssl: u8,
        /// 2: tokens as raw bytes.
        v: u8,
    },
    /// `dr`: empty the rubbish bin (`protocol/04` section 9.8).
    #[serde(rename = "dr")]
    EmptyRubbish {},
    /// `dv`: delete all old versions of the account (`protocol/04` section 9.8).
    #[serde(rename = "dv")]
    DeleteVersions {},
    /// A command without a variant of its own; the object must have the member `a`.
    #[serde(untagged)]
    Raw(Value),
}

/// One node to be created by `p` (`protocol/04` section 8).
#[derive(Clone, Serialize, PartialEq, Eq)]
pub struct Entry {
    /// `h` or `ph`: what it is made from.
    #[serde(flatten)]
    pub source: EntrySource,
    /// `t`: 0 file, 1 folder.
    #[serde(rename = "t")]
    pub kind: u8,
    /// `a`: encrypted attributes, base64.
    #[serde(rename = "a")]
    pub attrs: String,
    /// `k`: the node key under the master key, base64.
    #[serde(rename = "k")]
    pub key: String,
    /// `fa`: references to thumbnails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fa: Option<String>,
    /// `p`: the temporary id of a folder entry of the same request that is the parent.
    #[serde(rename = "p", skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// `ov`: the file this becomes the new version of; it must be in the target folder.
    #[serde(rename = "ov", skip_serializing_if = "Option::is_none")]
    pub over: Option<NodeHandle>,
}

/// What a new node is made from.
#[derive(Clone, PartialEq, Eq)]
pub enum EntrySource {
    /// A finished upload.
    Token(UploadToken),
    /// A copy of a node on the server.
    Node(NodeHandle),
    /// A folder, under a temporary id of 8 characters.
    Folder(String),
    /// An import from a public link (`ph`).
    Public(PublicHandle),
}

impl Serialize for EntrySource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (name, text) = match self {
            Self::Token(token) => ("h", token.as_str().to_owned()),
            Self::Node(handle) => ("h", handle.to_string()),
            Self::Folder(id) => ("h", id.clone()),
            Self::Public(handle) => ("ph", handle.to_string()),
        };
        serializer.collect_map([(name, text)])
    }
}

impl fmt::Debug for EntrySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token(..)"),
            Self::Node(handle) => write!(f, "Node({handle})"),
            Self::Folder(id) => write!(f, "Folder({id})"),
            Self::Public(handle) => write!(f, "Public({handle})"),
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// `cr`: node keys wrapped for shares (`protocol/04` section 8). The wire form is three lists.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct CrossKeys {
    /// The share roots.
    pub shares: Vec<NodeHandle>,
    /// The node ids: handles, or the entries' `h` in a `p`.
    pub nodes: Vec<String>,
    /// Index of the share, index of the node, base64 of the node key under the share key.
    pub keys: Vec<(usize, usize, String)>,
}

impl Serialize for CrossKeys {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let triples: Vec<Value> = self
            .keys
            .iter()
            .flat_map(|(share, node, key)| [(*share).into(), (*node).into(), key.clone().into()])
            .collect();
        (&self.shares, &self.nodes, triples).serialize(serializer)
    }
}

impl fmt::Debug for CrossKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrossKeys")
            .field("shares", &self.shares)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({})", self.name())
    }
}

impl Command {
    /// `f` with everything. `cached` permits a slightly old answer of the server's cache.
    #[must_use]
    pub const fn fetch_nodes(cached: bool) -> Self {
        Self::FetchNodes {
            c: 1,
            r: 1,
            ca: if cached { Some(1) } else { None },
        }
    }

    /// `uq` for storage and transfer.
    #[must_use]
    pub const fn quota() -> Self {
        Self::Quota { strg: 1, xfer: 1 }
    }

    /// `uga` for one attribute, with its version.
    #[must_use]
    pub fn user_attribute(user: &str, name: &str) -> Self {
        Self::UserAttribute {
            u: user.to_owned(),
            ua: name.to_owned(),
            v: 1,
        }
    }

    /// `g` for a node of ours, with an address.
    #[must_use]
    pub const fn download(node: NodeHandle, ssl: u8) -> Self {
        Self::Download {
            g: 1,
            ssl,
            n: Some(node),
            p: None,
            v: None,
        }
    }

    /// `g` for a node of ours, with one address or those of its six parts.
    #[must_use]
    pub const fn download_parts(node: NodeHandle, ssl: u8) -> Self {
        Self::Download {
            g: 1,
            ssl,
            n: Some(node),
            p: None,
            v: Some(2),
        }
    }

    /// `g` for a public file link, with an address.
    #[must_use]
    pub const fn download_public(link: PublicHandle, ssl: u8) -> Self {
        Self::Download {
            g: 1,
            ssl,
            n: None,
            p: Some(link),
            v: None,
        }
    }

    /// `u` for a file of this many bytes; tokens come as raw bytes.
    #[must_use]
    pub const fn upload(size: u64, ssl: u8) -> Self {
        Self::Upload { s: size, ssl, v: 2 }
    }

    /// The name on the wire (`a`).
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Prelogin { .. } => "us0",
            Self::Login { .. } => "us",
            Self::UserData {} => "ug",
            Self::Quota { .. } => "uq",
            Self::Logout {} => "sml",
            Self::WhyBlocked {} => "whyamiblocked",
            Self::UserAttribute { .. } => "uga",
            Self::PublicKey { .. } => "uk",
            Self::PendingKeys { .. } => "pk",
            Self::Sessions { .. } => "usl",
            Self::FetchNodes { .. } => "f",
            Self::Put { .. } => "p",
            Self::Move { .. } => "m",
            Self::SetAttributes { .. } => "a",
            Self::Delete { .. } => "d",
            Self::Export { .. } => "l",
            Self::SetKeys { .. } => "k",
            Self::SetShare { .. } => "s2",
            Self::Download { .. } => "g",
            Self::Upload { .. } => "u",
            Self::EmptyRubbish {} => "dr",
            Self::DeleteVersions {} => "dv",
            Self::Raw(value) => value.get("a").and_then(Value::as_str).unwrap_or(""),
        }
    }

    /// What is known about the command and its reply.
    #[must_use]
    pub fn traits(&self) -> Traits {
        Traits::of(self.name())
    }
}

/// What a command of this name does and how it answers. Known from the name alone, so that a journalled
/// request needs nothing but its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// Changes nothing, so it may run beside a request that does (`protocol/01` section 2).
    pub is_read_only: bool,
    /// From v2 on, success may be `[tag, data]` (`protocol/01` section 4).
    pub may_carry_tag: bool,
    /// Data may be a bare string, which from v2 on is otherwise a tag.
    pub data_may_be_text: bool,
}

impl Traits {
    /// For the command of this name. An unknown one counts as changing state.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self {
            is_read_only: matches!(
                name,
                "us0"
                    | "ug"
                    | "uq"
                    | "uga"
                    | "uk"
                    | "usl"
                    | "whyamiblocked"
                    | "g"
                    | "u"
                    | "f"
                    | "pli"
                    | "qbq"
                    | "mfag"
            ),
            may_carry_tag: matches!(
                name,
                "p" | "l"
                    | "s2"
                    | "pfa"
                    | "up"
                    | "up2"
                    | "upv"
                    | "upc"
                    | "upr"
                    | "ur2"
                    | "ud2"
                    | "sp"
                    | "asp"
                    | "aep"
            ),
            data_may_be_text: matches!(name, "uga" | "ufa" | "g" | "u"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(command: &Command) -> String {
        serde_json::to_string(command).unwrap()
    }

    #[test]
    fn spelled_as_the_protocol_has_them() {
        let n: NodeHandle = "AQIAAABq".parse().unwrap();
        let t: NodeHandle = "AQIAAABo".parse().unwrap();
        let i = "fB9IUdlBvJ".to_owned();
        let cases = [
            (
                Command::Prelogin {
                    user: "a@b.c".into(),
                },
                r#"{"a":"us0","user":"a@b.c"}"#,
            ),
            (
                Command::Login {
                    user: "a@b.c".into(),
                    uh: "x".into(),
                    mfa: None,
                },
                r#"{"a":"us","user":"a@b.c","uh":"x"}"#,
            ),
            (Command::UserData {}, r#"{"a":"ug"}"#),
            (
                Command::fetch_nodes(true),
                r#"{"a":"f","c":1,"r":1,"ca":1}"#,
            ),
            (Command::fetch_nodes(false), r#"{"a":"f","c":1,"r":1}"#),
            (
                Command::Move {
                    n,
                    t,
                    i: i.clone(),
                    cr: None,
                },
                r#"{"a":"m","n":"AQIAAABq","t":"AQIAAABo","i":"fB9IUdlBvJ"}"#,
            ),
            (
                Command::download(n, 2),
                r#"{"a":"g","g":1,"ssl":2,"n":"AQIAAABq"}"#,
            ),
            (
                Command::upload(400_000, 2),
                r#"{"a":"u","s":400000,"ssl":2,"v":2}"#,
            ),
            (
                Command::Delete { n, i, v: Some(1) },
                r#"{"a":"d","n":"AQIAAABq","i":"fB9IUdlBvJ","v":1}"#,
            ),
            (
                Command::Raw(serde_json::json!({"a":"xyz","q":1})),
                r#"{"a":"xyz","q":1}"#,
            ),
        ];
        for (command, text) in cases {
            assert_eq!(json(&command), text);
            assert!(text.starts_with(&format!(r#"{{"a":"{}""#, command.name())));
            assert_eq!(
                format!("{command:?}"),
                format!("Command({})", command.name())
            );
        }
    }

    #[test]
    fn put_with_cross_keys() {
        let t: NodeHandle = "AQIAAABo".parse().unwrap();
        let entry = Entry {
            source: EntrySource::Token(UploadToken::new("tok")),
            kind: 0,
            attrs: "AT".into(),
            key: "KEY".into(),
            fa: None,
            parent: None,
            over: Some("AQIAAABq".parse().unwrap()),
        };
        let cr = CrossKeys {
            shares: vec![t],
            nodes: vec!["tok".into()],
            keys: vec![(0, 0, "SK".into())],
        };
        let put = Command::Put {
            t,
            n: vec![entry],
            i: "abc".into(),
            vb: None,
            cr: Some(cr),
        };
        assert_eq!(
            json(&put),
            r#"{"a":"p","t":"AQIAAABo","n":[{"h":"tok","t":0,"a":"AT","k":"KEY","ov":"AQIAAABq"}],"i":"abc","cr":[["AQIAAABo"],["tok"],[0,0,"SK"]]}"#
        );
        assert!(!put.traits().is_read_only && put.traits().may_carry_tag);
    }
}
