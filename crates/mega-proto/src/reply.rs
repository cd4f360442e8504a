//! Replies of `/cs`: the envelope (`protocol/01` section 4) and the objects inside.
//!
//! The envelope decoder knows v1, which is used, and v3. The objects decode liberally: what is missing
//! or of an odd type is `None`.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use crate::command::Traits;
use crate::error_code::ErrorCode;
use crate::handle::{NodeHandle, UserHandle};
use crate::liberal::{LooseInt, LooseList, LooseParsed, LooseText};
use crate::node::{LooseNode, RawNode};

/// The `v` of a request's URL (`protocol/01` section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ApiVersion {
    /// No `v` member. What this program sends.
    V1,
    /// `v=3`.
    V3,
}

/// What one command answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The data; `0` for success without data.
    pub data: Value,
    /// The sequence tag (v3 only).
    pub tag: Option<String>,
}

/// One command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{code}")]
pub struct CommandError {
    /// The code.
    pub code: ErrorCode,
    /// `u`, the state of the owner's account (`protocol/01` section 5.3).
    pub user_state: Option<i64>,
    /// `l`, the state of the link.
    pub link_state: Option<i64>,
}

impl CommandError {
    /// An error without details.
    #[must_use]
    pub const fn new(code: ErrorCode) -> Self {
        Self {
            code,
            user_state: None,
            link_state: None,
        }
    }
}

/// The reply as a whole is no list of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The whole batch was refused; nothing was executed.
    #[error("{0}")]
    Refused(CommandError),
    /// Truncated, HTML, or the wrong number of answers: as good as a lost reply.
    #[error("the reply could not be read")]
    Malformed,
}

/// Reads a reply body for the commands that were sent.
///
/// # Errors
/// [`DecodeError::Refused`] when the batch as a whole was refused; an empty body counts as -3.
pub fn decode(
    body: &[u8],
    commands: &[Traits],
    version: ApiVersion,
) -> Result<Vec<Result<Reply, CommandError>>, DecodeError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(DecodeError::Refused(CommandError::new(ErrorCode::Again)));
    }
    let value: Value = serde_json::from_slice(body).map_err(|_| DecodeError::Malformed)?;
    if let Some(error) = error_object(&value) {
        return Err(DecodeError::Refused(error));
    }
    match value {
        Value::Number(number) => {
            // A number that is not negative is impossible here.
            let code = number.as_i64().filter(|code| *code < 0).unwrap_or(-1);
            Err(DecodeError::Refused(CommandError::new(
                ErrorCode::from_code(code),
            )))
        }
        Value::Array(list) if list.len() == commands.len() => Ok(list
            .into_iter()
            .zip(commands)
            .map(|(value, traits)| decode_one(value, *traits, version))
            .collect()),
        // A batch refused as a whole is sometimes one number for all (`protocol/README`, trap 1).
        Value::Array(list) => match list.first().and_then(Value::as_i64) {
            Some(code) if code < 0 && list.len() == 1 => Err(DecodeError::Refused(
                CommandError::new(ErrorCode::from_code(code)),
            )),
            _ => Err(DecodeError::Malformed),
        },
        _ => Err(DecodeError::Malformed),
    }
}

fn error_object(value: &Value) -> Option<CommandError> {
    let code = value
        .get("err")
        .and_then(Value::as_i64)
        .filter(|code| *code < 0)?;
    Some(CommandError {
        code: ErrorCode::from_code(code),
        user_state: value.get("u").and_then(Value::as_i64),
        link_state: value.get("l").and_then(Value::as_i64),
    })
}

fn decode_one(value: Value, traits: Traits, version: ApiVersion) -> Result<Reply, CommandError> {
    if let Some(code) = value.as_i64().filter(|code| *code < 0) {
        return Err(CommandError::new(ErrorCode::from_code(code)));
    }
    if let Some(error) = error_object(&value) {
        return Err(error);
    }
    if version == ApiVersion::V1 {
        return Ok(Reply {
            data: value,
            tag: None,
        });
    }
    match value {
        Value::String(tag) if !traits.data_may_be_text => Ok(Reply {
            data: Value::from(0),
            tag: Some(tag),
        }),
        Value::Array(mut list) if traits.may_carry_tag && is_tagged(&list) => {
            let data = list.pop().unwrap_or(Value::Null);
            let tag = match list.pop() {
                Some(Value::String(tag)) => Some(tag),
                _ => None,
            };
            Ok(Reply { data, tag })
        }
        data => Ok(Reply { data, tag: None }),
    }
}

fn is_tagged(list: &[Value]) -> bool {
    match list {
        [first, _] => first.is_string() || first.as_i64() == Some(0),
        _ => false,
    }
}

/// Reads a typed reply out of its JSON.
pub trait FromReply: Sized {
    /// `None` if the value is not of the expected shape.
    fn from_value(value: &Value) -> Option<Self>;
}

/// Reads a struct of loose members from an object.
fn from_object<T: for<'de> Deserialize<'de>>(value: &Value) -> Option<T> {
    value
        .is_object()
        .then(|| T::deserialize(value).ok())
        .flatten()
}

/// The reply to `us0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prelogin {
    /// `v`: 1 or 2.
    pub version: i64,
    /// `s`: the salt in base64 (version 2).
    pub salt: Option<String>,
}

impl FromReply for Prelogin {
    fn from_value(value: &Value) -> Option<Self> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Members {
            v: LooseInt,
            s: LooseText,
        }
        let members: Members = from_object(value)?;
        Some(Self {
            version: members.v.0?,
            salt: members.s.filled(),
        })
    }
}

/// The reply to `us`, and the key material of `ug`. All texts are base64.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// `u`: ourselves.
    pub user: Option<UserHandle>,
    /// `k`: the master key under the password key.
    pub key: Option<String>,
    /// `privk`: the RSA key under the master key.
    pub private_key: Option<String>,
    /// `csid`: the session id under the RSA key.
    pub csid: Option<String>,
    /// `tsid`: the session id of an account without RSA key.
    pub tsid: Option<String>,
    /// `email`.
    pub email: Option<String>,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl FromReply for Account {
    fn from_value(value: &Value) -> Option<Self> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Members {
            u: LooseParsed<UserHandle>,
            k: LooseText,
            privk: LooseText,
            csid: LooseText,
            tsid: LooseText,
            email: LooseText,
        }
        let members: Members = from_object(value)?;
        Some(Self {
            user: members.u.0,
            key: members.k.filled(),
            private_key: members.privk.filled(),
            csid: members.csid.filled(),
            tsid: members.tsid.filled(),
            email: members.email.filled(),
        })
    }
}

/// The reply to `uq`. Sizes are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// `mstrg`; `None` if the plan has no fixed size.
    pub total: Option<u64>,
    /// `cstrg`: everything stored, the rubbish bin and old versions included.
    pub used: u64,
    /// `mxfer`: transfer of a paid plan.
    pub transfer_total: Option<u64>,
    /// `caxfer` + `csxfer`: transfer used, by ourselves and by others.
    pub transfer_used: u64,
    /// `utype`: 0 free.
    pub plan: Option<i64>,
}

impl FromReply for Quota {
    fn from_value(value: &Value) -> Option<Self> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Members {
            mstrg: LooseInt,
            cstrg: LooseInt,
            mxfer: LooseInt,
            caxfer: LooseInt,
            csxfer: LooseInt,
            utype: LooseInt,
        }
        let members: Members = from_object(value)?;
        let own = members.caxfer.unsigned().unwrap_or(0);
        Some(Self {
            total: members.mstrg.unsigned(),
            used: members.cstrg.unsigned().unwrap_or(0),
            transfer_total: members.mxfer.unsigned(),
            transfer_used: own.saturating_add(members.csxfer.unsigned().unwrap_or(0)),
            plan: members.utype.0,
        })
    }
}

/// The reply to `g`. Its addresses are secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Download {
    /// `g`: one address, or six of a striped file (`protocol/04` section 4). Empty for an empty file.
    pub urls: Vec<String>,
    /// `s`: bytes.
    pub size: u64,
    /// `at`: encrypted attributes, base64.
    pub attrs: Option<String>,
    /// `e`: an error inside a reply that otherwise looks fine; -16 also for `d:1` (taken down).
    pub error: Option<ErrorCode>,
    /// `tl`: seconds until there is transfer quota again.
    pub wait: Option<u64>,
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download")
            .field("size", &self.size)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl FromReply for Download {
    fn from_value(value: &Value) -> Option<Self> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Members {
            g: Value,
            s: LooseInt,
            at: LooseText,
            e: LooseInt,
            d: LooseInt,
            tl: LooseInt,
        }
        let members: Members = from_object(value)?;
        let urls = match &members.g {
            Value::String(url) if !url.is_empty() => vec![url.clone()],
            Value::Array(list) => list
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            _ => Vec::new(),
        };
        let error = match members.e.0 {
            Some(code) if code < 0 => Some(ErrorCode::from_code(code)),
            _ if members.d.is_set() => Some(ErrorCode::Blocked),
            _ => None,
        };
        Some(Self {
            urls,
            size: members.s.unsigned().unwrap_or(0),
            attrs: members.at.filled(),
            error,
            wait: members.tl.unsigned(),
        })
    }
}

/// The reply to `p` (v1): the new nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// Those of `f`, then those of `f2`.
    pub nodes: Vec<RawNode>,
}

impl FromReply for Put {
    fn from_value(value: &Value) -> Option<Self> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Members {
            f: LooseList<LooseNode>,
            f2: LooseList<LooseNode>,
        }
        let members: Members = from_object(value)?;
        let nodes = members
            .f
            .0
            .into_iter()
            .chain(members.f2.0)
            .filter_map(|node| node.0)
            .collect();
        Some(Self { nodes })
    }
}

/// A share key that somebody left for us (`pk`, `protocol/03` section 6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingKey {
    /// Who left it.
    pub sender: UserHandle,
    /// The shared folder.
    pub share: NodeHandle,
    /// The wrapped key, base64.
    pub key: String,
}

/// The reply to `pk`: what cannot be read is left out.
#[must_use]
pub fn pending_keys(value: &Value) -> Vec<PendingKey> {
    let senders = value.as_object().into_iter().flatten();
    senders
        .filter_map(|(sender, keys)| Some((sender.parse().ok()?, keys.as_object()?)))
        .flat_map(|(sender, keys)| {
            keys.iter().filter_map(move |(share, key)| {
                Some(PendingKey {
                    sender,
                    share: share.parse().ok()?,
                    key: key.as_str()?.to_owned(),
                })
            })
        })
        .collect()
}

/// The reply to `uga`: an attribute's value as stored (base64 for most) and its version.
#[derive(Clone, PartialEq, Eq)]
pub struct UserAttribute {
    /// `av`.
    pub value: String,
    /// `v`.
    pub version: Option<String>,
}

impl fmt::Debug for UserAttribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserAttribute")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl FromReply for UserAttribute {
    fn from_value(value: &Value) -> Option<Self> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Members {
            av: LooseText,
            v: LooseText,
        }
        if let Value::String(text) = value {
            return Some(Self {
                value: text.clone(),
                version: None,
            });
        }
        let members: Members = from_object(value)?;
        Some(Self {
            value: members.av.0?,
            version: members.v.filled(),
        })
    }
}

/// The upload address of a reply to `u` (`p`). A secret.
#[must_use]
pub fn upload_url(value: &Value) -> Option<&str> {
    value.get("p").and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn traits(names: &[&str]) -> Vec<Traits> {
        names.iter().map(|name| Traits::of(name)).collect()
    }

    fn refused(code: i64) -> DecodeError {
        DecodeError::Refused(CommandError::new(ErrorCode::from_code(code)))
    }

    #[test]
    fn whole_batches_are_refused_in_many_forms() {
        let two = traits(&["m", "a"]);
        for (body, code) in [
            ("-3", -3),
            ("", -3),
            ("{\"err\":-9}", -9),
            ("[-15]", -15),
            ("5", -1),
            ("0", -1),
        ] {
            assert_eq!(
                decode(body.as_bytes(), &two, ApiVersion::V1),
                Err(refused(code)),
                "{body}"
            );
        }
        for body in [
            "<html>", "[0", "[0]", "[0,0,0]", "null", "\"x\"", "{}", "true",
        ] {
            let result = decode(body.as_bytes(), &two, ApiVersion::V1);
            assert_eq!(result, Err(DecodeError::Malformed), "{body}");
        }
    }

    #[test]
    fn single_commands_fail_alone() {
        let replies = decode(
            b"[0,-9,{\"err\":-16,\"u\":7,\"l\":2}]",
            &traits(&["m", "a", "g"]),
            ApiVersion::V1,
        )
        .unwrap();
        assert_eq!(
            replies[0],
            Ok(Reply {
                data: json!(0),
                tag: None
            })
        );
        assert_eq!(replies[1], Err(CommandError::new(ErrorCode::NotFound)));
        let detailed = replies[2].clone().unwrap_err();
        assert_eq!(
            (detailed.user_state, detailed.link_state),
            (Some(7), Some(2))
        );
    }

    #[test]
    fn version_three_has_tags() {
        let body = br#"["!x",["!y",{"e":[]}],[0,"PublicHd"],[1,2],{"p":"u"}]"#;
        let replies = decode(body, &traits(&["m", "p", "l", "usl", "u"]), ApiVersion::V3).unwrap();
        let tags: Vec<_> = replies
            .iter()
            .map(|r| r.as_ref().unwrap().tag.as_deref())
            .collect();
        assert_eq!(tags, [Some("!x"), Some("!y"), None, None, None]);
        assert_eq!(replies[2].as_ref().unwrap().data, json!("PublicHd"));
        assert_eq!(replies[3].as_ref().unwrap().data, json!([1, 2]));
        // The same in v1 is data.
        let replies = decode(b"[\"PublicHd\"]", &traits(&["l"]), ApiVersion::V1).unwrap();
        assert_eq!(replies[0].as_ref().unwrap().data, json!("PublicHd"));
    }

    #[test]
    fn typed_replies_are_liberal() {
        let quota = Quota::from_value(&json!({"mstrg":"100","cstrg":7,"utype":0})).unwrap();
        assert_eq!(
            (quota.total, quota.used, quota.plan),
            (Some(100), 7, Some(0))
        );
        let down = Download::from_value(&json!({"s":5,"at":"x","g":"http://h/dl/1"})).unwrap();
        assert_eq!((down.urls.len(), down.size, down.error), (1, 5, None));
        let down = Download::from_value(&json!({"e":-17,"tl":30,"g":""})).unwrap();
        assert_eq!(
            (down.error, down.wait),
            (Some(ErrorCode::OverQuota), Some(30))
        );
        let down = Download::from_value(&json!({"d":1,"g":["a","b"]})).unwrap();
        assert_eq!((down.error, down.urls.len()), (Some(ErrorCode::Blocked), 2));
        let put = json!({"f":[{"h":"AQIAAABl","t":1,"i":0},3],"f2":0});
        assert_eq!(Put::from_value(&put).unwrap().nodes[0].index, Some(0));
        assert!(
            Prelogin::from_value(&json!({"v":1,"s":null}))
                .unwrap()
                .salt
                .is_none()
        );
        assert_eq!(UserAttribute::from_value(&json!("x")).unwrap().value, "x");
        for odd in [json!(0), json!([]), json!(null), json!([[1]])] {
            assert!(Quota::from_value(&odd).is_none() && Put::from_value(&odd).is_none());
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let account = Account::from_value(&json!({"k":"topsecret","csid":"topsecret"})).unwrap();
        assert!(!format!("{account:?}").contains("topsecret"));
        let down = Download::from_value(&json!({"g":"http://topsecret"})).unwrap();
        assert!(!format!("{down:?}").contains("topsecret"));
    }
}
