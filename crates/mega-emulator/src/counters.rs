//! Owns what tests count: requests, commands, logins, bytes, and violations, that is everything a
//! client sent that a faithful client would not have sent.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// A snapshot of the counters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Requests by first path segment: `cs`, `sc`, `wsc`, `w`, `ul`, `dl`, ...
    pub requests: BTreeMap<String, u64>,
    /// Commands by name, executed or refused; repeats from the reply cache do not count.
    pub commands: BTreeMap<String, u64>,
    /// `/cs` requests by the commands in them: a batch of ten `m` counts once for `m`. Repeats
    /// from the reply cache do not count.
    pub requests_with: BTreeMap<String, u64>,
    /// Most commands in one `/cs` request.
    pub largest_batch: u64,
    /// Requests answered from the reply cache.
    pub replayed: u64,
    /// Successful `us` with credentials.
    pub logins: u64,
    /// Number of violations.
    pub violation_count: u64,
    /// Texts of the first thousand violations.
    pub violations: Vec<String>,
    /// Upload tokens put a second time under the same key: a client that never saw the reply.
    pub token_repeats: u64,
    /// `ov` that named a file which was no longer the head of its chain in the target folder.
    pub late_overwrites: u64,
    /// Bytes of upload pieces received.
    pub bytes_up: u64,
    /// Bytes of download bodies sent.
    pub bytes_down: u64,
    /// Faults that fired.
    pub faults: u64,
    /// TCP connections accepted.
    pub connections: u64,
    /// First failed write of the journal, if any.
    pub journal_error: Option<String>,
}

impl Counters {
    /// Requests to one path.
    pub fn requests(&self, path: &str) -> u64 {
        self.requests.get(path).copied().unwrap_or(0)
    }

    /// `/cs` requests that contained at least one command of this name.
    pub fn requests_with(&self, name: &str) -> u64 {
        self.requests_with.get(name).copied().unwrap_or(0)
    }

    /// Commands of one name.
    pub fn commands(&self, name: &str) -> u64 {
        self.commands.get(name).copied().unwrap_or(0)
    }
}

/// The live counters.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Counters>);

impl Tally {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a violation.
    pub(crate) fn violation(&self, text: impl Into<String>) {
        let mut c = self.lock();
        c.violation_count += 1;
        if c.violations.len() < 1000 {
            c.violations.push(text.into());
        }
    }
}
