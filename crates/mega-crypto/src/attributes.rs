//! Node attributes: a JSON object behind the word `MEGA`, AES-CBC with a zero IV
//! (protocol/03 section 7).
//!
//! Members of other clients survive a decode and encode: their order, their type and, except for
//! strings, their very spelling. Strings are written again in the shortest form, with the same
//! value.
//!
//! Decoding tolerates what exists in the wild and is named in the protocol: garbage behind the
//! closing brace, bytes that are not UTF-8 (read as Latin-1), an empty object, numbers where
//! strings are usual. Anything that does not begin with `MEGA{` is a wrong key.

use std::borrow::Cow;

use serde_json::Value;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::{AttrKey, CryptoError, Fingerprint};

mod codec;
mod json;

pub(crate) use codec::begins_like_attributes;

/// The most the SDK sends, in bytes of ciphertext.
const LIMIT: usize = 64 * 1024;

const WHAT: &str = "attributes";

/// What the names of megamount's own attributes begin with.
const OWN: &str = "mm";

/// One member's value.
#[derive(Debug, Clone)]
enum Member {
    /// A string, decoded.
    Text(String),
    /// A string that no Rust string can hold (an unpaired surrogate), and what is shown of it.
    Broken(Box<RawValue>, String),
    /// Anything else, as it was spelled.
    Raw(Box<RawValue>),
}

/// The decrypted attributes of a node.
#[derive(Debug, Clone, Default)]
pub struct Attributes {
    members: Vec<(String, Member)>,
}

impl Attributes {
    /// Attributes with a name and nothing else, as a new node gets them.
    pub fn with_name(name: &str) -> Self {
        let mut new = Self::default();
        new.set("n", name);
        new
    }

    /// Decrypts `a`. Fails with [`CryptoError::WrongKey`] when the key does not fit.
    pub fn decrypt(key: &AttrKey, blob: &[u8]) -> Result<Self, CryptoError> {
        let plain = codec::decrypt(key, blob)?;
        let text = codec::object_text(&plain)?;
        json::parse(&text)
            .or_else(|| json::parse(codec::without_garbage(&text)))
            .map(|members| Self { members })
            .ok_or(CryptoError::Malformed { what: WHAT })
    }

    /// Encrypts for `a`: compact JSON, padded with zeros. Fails above 64 KiB.
    pub fn encrypt(&self, key: &AttrKey) -> Result<Vec<u8>, CryptoError> {
        let mut plain = Zeroizing::new(b"MEGA".to_vec());
        plain.extend_from_slice(self.to_json().as_bytes());
        let length = plain.len().next_multiple_of(16);
        if length > LIMIT {
            return Err(CryptoError::TooLarge {
                what: WHAT,
                limit: LIMIT,
                got: length,
            });
        }
        plain.resize(length, 0);
        Ok(codec::encrypt(key, &plain))
    }

    /// The object as compact JSON.
    pub fn to_json(&self) -> String {
        json::write(&self.members)
    }

    fn find(&self, name: &str) -> Option<&Member> {
        self.members
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, member)| member)
    }

    fn put(&mut self, name: &str, member: Member) {
        match self.members.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => *old = member,
            None => self.members.push((name.to_owned(), member)),
        }
    }

    /// The node's name, attribute `n`; `None` when there is none.
    pub fn name(&self) -> Option<&str> {
        self.text("n")
    }

    /// The fingerprint, attribute `c`; `None` when absent or invalid.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        Fingerprint::parse(self.text("c")?)
    }

    /// Writes attribute `c`.
    pub fn set_fingerprint(&mut self, fingerprint: &Fingerprint) {
        self.set("c", &fingerprint.to_attr());
    }

    /// A member as text: a string's value, or the spelling of a number or boolean, because the
    /// SDK writes `"1"` where megajs writes `1`. `None` for `null`, arrays and objects.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.find(name)? {
            Member::Text(text) | Member::Broken(_, text) => Some(text),
            Member::Raw(raw) => Some(raw.get()).filter(|raw| !raw.starts_with(['{', '[', 'n'])),
        }
    }

    /// A member as a JSON value; `None` also for a number no `f64` can hold.
    pub fn get(&self, name: &str) -> Option<Value> {
        match self.find(name)? {
            Member::Text(text) | Member::Broken(_, text) => Some(Value::String(text.clone())),
            Member::Raw(raw) => serde_json::from_str(raw.get()).ok(),
        }
    }

    /// Whether there is such a member.
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Sets a string member, in its old place or at the end.
    pub fn set(&mut self, name: &str, text: &str) {
        self.put(name, Member::Text(text.to_owned()));
    }

    /// Sets a member of any type. Official clients understand strings only.
    pub fn set_value(&mut self, name: &str, value: Value) {
        let member = match value {
            Value::String(text) => Member::Text(text),
            // Every value has a JSON form; null only if that ever changed.
            other => Member::Raw(serde_json::value::to_raw_value(&other).unwrap_or_default()),
        };
        self.put(name, member);
    }

    /// Removes a member; whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.members.len();
        self.members.retain(|(other, _)| other != name);
        self.members.len() != before
    }

    /// The members' names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|(name, _)| name.as_str())
    }
}

/// Equal when the same members with the same values would be written in the same order.
impl PartialEq for Attributes {
    fn eq(&self, other: &Self) -> bool {
        self.to_json() == other.to_json()
    }
}

/// What a directory listing needs of a node's attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Attribute `n`.
    pub name: Option<String>,
    /// The modification time inside attribute `c`, in seconds since 1970.
    pub mtime: Option<i64>,
    /// Whether there are attributes of megamount's own (`mm...`), which [`Attributes::decrypt`] gives.
    pub has_own: bool,
}

/// Decrypts name and mtime only: the fast way for large directories, which keeps no other member.
///
/// Gives what [`Attributes::decrypt`] would give for these two, and fails where that fails.
pub fn decrypt_listing(key: &AttrKey, blob: &[u8]) -> Result<Listing, CryptoError> {
    let plain = codec::decrypt(key, blob)?;
    let text = codec::object_text(&plain)?;
    if let Some(listing) = json::parse_listing(&text) {
        return Ok(Listing {
            name: listing.name.map(Cow::into_owned),
            mtime: listing
                .fingerprint
                .and_then(|c| Fingerprint::parse(&c))
                .map(|c| c.mtime),
            has_own: listing.has_own,
        });
    }
    let all = Attributes::decrypt(key, blob)?;
    Ok(Listing {
        name: all.name().map(str::to_owned),
        mtime: all.fingerprint().map(|fingerprint| fingerprint.mtime),
        has_own: all.names().any(|name| name.starts_with(OWN)),
    })
}
