//! A request whose id and bytes can no longer change (`protocol/01` section 3).
//!
//! Sending it again can execute it only once, because the service answers a known (session, id, body)
//! from memory. That holds for two minutes and for one session: afterwards the sender gets
//! [`ApiError::OutcomeUnknown`](crate::ApiError::OutcomeUnknown) instead of a second execution.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use mega_proto::command::Traits;
use mega_proto::{Command, ErrorCode};
use serde_json::Value;

/// What stands before id and body in [`Frozen::to_bytes`].
const MAGIC: &[u8] = b"mega-request 1 ";

/// What one command was answered.
pub(crate) type Answer = Result<Value, ErrorCode>;

/// A batch of commands with its fixed id. Clones are the same request and share what became of it.
#[derive(Clone)]
pub struct Frozen {
    id: String,
    body: Bytes,
    traits: Arc<[Traits]>,
    progress: Arc<Mutex<Progress>>,
}

/// What is known about a request so far.
#[derive(Default)]
pub(crate) struct Progress {
    /// Since when, and in which session, it may have been executed without our knowing.
    pub(crate) doubt: Option<(u64, Instant)>,
    /// The answers that are final.
    pub(crate) answers: Vec<Option<Answer>>,
    /// Commands that were refused with "again", under the id they are sent again with.
    pub(crate) again: Option<(Vec<usize>, Frozen)>,
}

/// The bytes are no journalled request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a journalled request")]
pub struct FrozenError;

impl Frozen {
    pub(crate) fn new(id: String, commands: &[Command]) -> Self {
        // Maps with string keys, numbers and strings: serialising cannot fail.
        let body = serde_json::to_vec(commands).unwrap_or_else(|_| b"[]".to_vec());
        Self::from_parts(
            id,
            body.into(),
            commands.iter().map(Command::traits).collect(),
        )
    }

    fn from_parts(id: String, body: Bytes, traits: Arc<[Traits]>) -> Self {
        Self {
            id,
            body,
            traits,
            progress: Arc::default(),
        }
    }

    /// Id and bytes for a journal. What became of it so far is not included.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [MAGIC, self.id.as_bytes(), b"\n", &self.body].concat()
    }

    /// The inverse of [`to_bytes`](Self::to_bytes). What the service has forgotten it executes once more, so after
    /// a restart a state-changing request may be sent again only soon after it was sent, in the same session,
    /// and not when it can be seen to have been executed.
    ///
    /// # Errors
    /// [`FrozenError`] on anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FrozenError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(FrozenError)?;
        let end = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or(FrozenError)?;
        let (id, body) = rest.split_at(end);
        let body = body.get(1..).ok_or(FrozenError)?;
        let id = std::str::from_utf8(id).map_err(|_| FrozenError)?;
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(FrozenError);
        }
        let commands: Vec<Value> = serde_json::from_slice(body).map_err(|_| FrozenError)?;
        let traits = commands
            .iter()
            .map(|command| command.get("a").and_then(Value::as_str).map(Traits::of))
            .collect::<Option<_>>()
            .ok_or(FrozenError)?;
        Ok(Self::from_parts(
            id.to_owned(),
            Bytes::copy_from_slice(body),
            traits,
        ))
    }

    /// The request id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How many commands it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.traits.len()
    }

    /// Whether it has no command at all; such a request is answered without being sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.traits.is_empty()
    }

    /// Whether none of its commands changes anything.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.traits.iter().all(|traits| traits.is_read_only)
    }

    pub(crate) fn body(&self) -> Bytes {
        self.body.clone()
    }

    pub(crate) fn traits(&self) -> &[Traits] {
        &self.traits
    }

    pub(crate) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new request with some of the commands of this one.
    pub(crate) fn subset(&self, id: String, which: &[usize]) -> Option<Self> {
        let commands: Vec<Value> = serde_json::from_slice(&self.body).ok()?;
        let chosen: Option<Vec<&Value>> = which.iter().map(|index| commands.get(*index)).collect();
        let traits: Option<Arc<[Traits]>> = which
            .iter()
            .map(|index| self.traits.get(*index).copied())
            .collect();
        Some(Self::from_parts(
            id,
            serde_json::to_vec(&chosen?).ok()?.into(),
            traits?,
        ))
    }
}

impl fmt::Debug for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frozen")
            .field("id", &self.id)
            .field("commands", &self.traits.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_journal_byte_for_byte() {
        let frozen = Frozen::new(
            "abcdefghij".into(),
            &[Command::quota(), Command::EmptyRubbish {}],
        );
        assert!(!frozen.is_read_only());
        let back = Frozen::from_bytes(&frozen.to_bytes()).unwrap();
        assert_eq!((back.id(), back.len()), ("abcdefghij", 2));
        assert_eq!(back.body(), frozen.body());
        assert_eq!(back.traits(), frozen.traits());
        let one = frozen.subset("abcdefghik".into(), &[0]).unwrap();
        assert_eq!(&one.body()[..], br#"[{"a":"uq","strg":1,"xfer":1}]"#);
        assert!(one.is_read_only());
        assert!(frozen.subset("x".into(), &[2]).is_none());
    }

    #[test]
    fn other_bytes_are_refused() {
        let texts = [
            "",
            "mega-request 1 ",
            "mega-request 1 abc",
            "mega-request 1 abc\n{}",
            "mega-request 1 a&b\n[]",
            "mega-request 2 abc\n[]",
            "mega-request 1 abc\n[1]",
        ];
        for text in texts {
            assert!(Frozen::from_bytes(text.as_bytes()).is_err(), "{text}");
        }
    }
}
