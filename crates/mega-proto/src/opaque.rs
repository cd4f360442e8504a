//! Strings whose inside is nobody's business: event position, session id, upload token.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::b64;

/// A position in the account's event stream (`sn`, 11 characters; `protocol/05` section 1). Opaque.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seqno(pub String);

impl Seqno {
    /// The text that goes into `sn=`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Seqno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Seqno {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// A session id (`sid`, 58 characters for 43 bytes; `protocol/02` section 5). Grants the whole account:
/// it is never printed and is wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SessionId(String);

impl SessionId {
    /// Wraps the wire form.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// From the raw bytes that the RSA decryption gives (43 of them).
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(b64::encode(bytes))
    }

    /// The wire form, for the `sid=` member of a URL. A secret.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for SessionId {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(..)")
    }
}

/// Length in bytes of a completion token as a storage server sends it (`protocol/04` section 5).
const TOKEN_LEN: usize = 36;

/// What a finished upload is named by: the text for `h` in `p` (`protocol/04` section 5). Never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UploadToken(String);

impl UploadToken {
    /// Wraps the text form, as journalled.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Reads the body of a storage server's reply; `None` if it is not a token.
    ///
    /// Raw tokens are 36 bytes of which the last is 01; old ones are 36 characters and go out unchanged.
    #[must_use]
    pub fn from_reply(body: &[u8]) -> Option<Self> {
        if body.len() != TOKEN_LEN {
            return None;
        }
        if body.last() == Some(&1) {
            return Some(Self(b64::encode(body)));
        }
        let text = std::str::from_utf8(body).ok()?;
        let is_b64 = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        text.chars().all(is_b64).then(|| Self(text.to_owned()))
    }

    /// The text for `h`: 48 or 36 characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for UploadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UploadToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_both_kinds_are_told_apart() {
        let mut raw = vec![b'A'; 35];
        raw.push(1);
        assert_eq!(
            UploadToken::from_reply(&raw).unwrap().as_str(),
            b64::encode(&raw)
        );
        let text = [b'A'; 36];
        assert_eq!(
            UploadToken::from_reply(&text).unwrap().as_str(),
            "A".repeat(36)
        );
        for other in [&b""[..], b"0", b"-4", &[0xff; 36], &raw[..35]] {
            assert!(UploadToken::from_reply(other).is_none());
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let secret = SessionId::new("topsecret");
        assert_eq!(format!("{secret:?}"), "SessionId(..)");
        assert_eq!(
            format!("{:?}", UploadToken::new("topsecret")),
            "UploadToken(..)"
        );
    }
}
