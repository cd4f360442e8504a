//! The request that is on its way, kept so that a crash is nothing but one more retry of it.
//!
//! Owns one row of the journal: id and bytes of the last state-changing request of the queue. Promises that a
//! request of an earlier run is not executed after what this run sends. A server that is slow may still have
//! it to do when the next run is up, and would then undo what that run has done since: an older name, an older
//! time, content that was replaced or removed. So it is sent again first, under its id: whichever of the two
//! comes first is executed, the other is answered from memory (protocol/01 section 3). It must never go under
//! another id or in another session, nor later than the server can be trusted to remember: then it is left
//! alone, for it has been executed long ago or never will be.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use mega_api::{ApiError, Frozen};
use mega_store::{AttemptId, AttemptRow, LocalId, StoreError, Subject};

use super::journal::Put;
use super::send::is_unknown;
use crate::shared::Shared;
use crate::types::now_ms;

/// What the row begins with, before the time and the session.
const MAGIC: &[u8] = b"mega-outstanding 1 ";
/// The one row. Other attempts are numbered from 1.
const ROW: AttemptId = AttemptId(0);
/// What it is about: nothing that is made here has this number.
const OF_NOTHING: Subject = Subject::Local(LocalId(0));
/// How long after it was last sent a request may be sent again: the server is known to remember ids for
/// minutes, not for how many.
const REPEATABLE_MS: i64 = 60_000;

/// What is kept of a request.
struct Outstanding {
    sent_ms: i64,
    /// Which session it was sent in, not telling its id.
    session: u64,
    request: Vec<u8>,
}

impl Outstanding {
    fn row(&self) -> AttemptRow {
        let head = format!("{} {}\n", self.sent_ms, self.session);
        AttemptRow {
            id: ROW,
            subject: OF_NOTHING,
            body: [MAGIC, head.as_bytes(), &self.request].concat(),
        }
    }

    fn parse(body: &[u8]) -> Option<Self> {
        let rest = body.strip_prefix(MAGIC)?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let (head, request) = rest.split_at(end);
        let (sent_ms, session) = std::str::from_utf8(head).ok()?.split_once(' ')?;
        Some(Self {
            sent_ms: sent_ms.parse().ok()?,
            session: session.parse().ok()?,
            request: request.get(1..)?.to_vec(),
        })
    }

    /// Whether the server can still be trusted to know it, if it has got it.
    fn is_repeatable(&self, session: Option<u64>) -> bool {
        let age = now_ms().saturating_sub(self.sent_ms);
        Some(self.session) == session && (0..REPEATABLE_MS).contains(&age)
    }

    /// Whether it puts this node.
    fn asks_for(&self, put: &Put) -> bool {
        let key = put.note.key.as_bytes();
        !key.is_empty() && self.request.windows(key.len()).any(|part| part == key)
    }
}

/// Whether a row of the journal is the request that was on its way.
pub(super) fn is_outstanding(body: &[u8]) -> bool {
    body.starts_with(MAGIC)
}

impl Shared {
    /// Writes a request down before it is sent.
    pub(super) fn keep_outstanding(&self, frozen: &Frozen) {
        let Some(session) = self.session_tag() else {
            return;
        };
        let outstanding = Outstanding {
            sent_ms: now_ms(),
            session,
            request: frozen.to_bytes(),
        };
        let kept = self.store.write(|tx| tx.put_attempt(&outstanding.row()));
        if let Err(error) = kept {
            tracing::warn!(%error, "a request is not in the journal: if this run is killed now, it may be executed late");
        }
    }

    /// What came of it: once it was answered, nothing is on its way.
    pub(super) fn settle_outstanding<T>(&self, answer: &Result<T, ApiError>) {
        if answer.as_ref().is_err_and(is_unknown) {
            return;
        }
        if let Err(error) = self.strike_outstanding() {
            tracing::debug!(%error, "an answered request stays in the journal, where it does no harm");
        }
    }

    fn strike_outstanding(&self) -> Result<(), StoreError> {
        self.store.write(|tx| tx.delete_attempt(ROW))
    }

    fn outstanding(&self) -> Option<Outstanding> {
        let rows = self.store.attempts_of(OF_NOTHING).ok()?;
        let row = rows.into_iter().find(|row| row.id == ROW)?;
        Outstanding::parse(&row.body)
    }

    fn session_tag(&self) -> Option<u64> {
        let session = self.api.session()?;
        let mut hasher = DefaultHasher::new();
        session.sid.as_str().hash(&mut hasher);
        Some(hasher.finish())
    }

    /// At a start, once the truth is current: sends what was on its way again, unless it is seen to have been
    /// executed. `asked` are the puts that were in doubt when the run began. `Err` says why that is not possible
    /// yet.
    pub(super) async fn repeat_outstanding(&self, asked: &[Put]) -> Result<(), &'static str> {
        let Some(mut outstanding) = self.outstanding() else {
            return Ok(());
        };
        let open = self.lock().changes.doubts();
        let is_found = |put: &Put| !open.iter().any(|other| other.attempt == put.attempt);
        let is_executed = asked
            .iter()
            .any(|put| outstanding.asks_for(put) && is_found(put));
        let frozen = Frozen::from_bytes(&outstanding.request).ok();
        let frozen = frozen.filter(|_| outstanding.is_repeatable(self.session_tag()));
        let Some(frozen) = frozen.filter(|_| !is_executed) else {
            return self.strike_outstanding().map_err(|_| "the store refused");
        };
        tracing::info!(target: "megamount::journal", commands = frozen.len(), "the last request of an earlier run is sent again");
        let gate = self.gate.lock().await;
        outstanding.sent_ms = now_ms();
        self.store
            .write(|tx| tx.put_attempt(&outstanding.row()))
            .map_err(|_| "the store refused")?;
        match self.api.send(&frozen).await {
            Err(error) if is_unknown(&error) => {
                return Err("the last request of an earlier run is not answered");
            }
            Err(error) => {
                tracing::info!(%error, "the last request of an earlier run was not executed");
            }
            Ok(_) => {}
        }
        self.strike_outstanding().map_err(|_| "the store refused")?;
        drop(gate);
        // What it has done is in the truth before anything else is asked for.
        if self.catch_up(super::recover::CATCH_UP).await {
            Ok(())
        } else {
            Err("the event stream is not current")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let kept = Outstanding {
            sent_ms: now_ms(),
            session: 7,
            request: b"mega-request 1 abc\n[]\n \xff".to_vec(),
        };
        let body = kept.row().body;
        assert!(is_outstanding(&body));
        let read = Outstanding::parse(&body).unwrap();
        assert_eq!((read.sent_ms, read.session), (kept.sent_ms, 7));
        assert_eq!(read.request, kept.request);
        for bad in [
            &b"mega-outstanding 1 7"[..],
            b"mega-outstanding 1 a b\nx",
            b"{}",
        ] {
            assert!(Outstanding::parse(bad).is_none());
        }
    }

    #[test]
    fn it_is_repeated_for_as_long_as_the_server_remembers() {
        let kept = |age: i64| Outstanding {
            sent_ms: now_ms() - age,
            session: 7,
            request: Vec::new(),
        };
        assert!(kept(0).is_repeatable(Some(7)));
        assert!(kept(50_000).is_repeatable(Some(7)));
        assert!(!kept(61_000).is_repeatable(Some(7)), "too old");
        assert!(!kept(-5_000).is_repeatable(Some(7)), "the clock was set");
        assert!(!kept(0).is_repeatable(Some(8)), "another session");
        assert!(!kept(0).is_repeatable(None));
    }
}
