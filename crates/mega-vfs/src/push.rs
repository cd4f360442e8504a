//! The pusher: makes the server agree with the change rows.
//!
//! One task decides what is ready, sends names in batches and finished uploads in batches, and
//! confirms each result in one transaction. Uploads run beside it. Everything that creates a node is
//! journalled before it is sent ([`journal`]); what became of a request whose reply was lost is found
//! out by looking, never by sending a second time under a new id ([`recover`]).
//!
//! Order that loses nothing: folders before what is in them, placements before the removals that
//! depend on them, a removed folder only when all it holds is removed.

mod attributes;
mod bin;
mod choose;
mod confirm;
mod copy;
mod cross_keys;
mod folders;
mod journal;
mod outstanding;
mod plan;
mod recover;
mod removals;
mod rest;
mod schedule;
mod send;
mod step;
mod twin;
mod upload;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use mega_store::Subject;
use tokio::task::JoinSet;

use crate::shared::Shared;
use crate::types::now_ms;

pub(crate) use bin::origin_of;
pub(crate) use journal::Put;
pub(crate) use recover::take_up_journal;
pub(crate) use step::Step;
pub(crate) use upload::Finished;

/// What the pusher remembers between rounds.
#[derive(Default)]
pub(crate) struct Pusher {
    uploading: HashMap<Subject, u64>,
    failures: HashMap<Subject, Failures>,
    finished: Vec<Finished>,
    /// Files that are to be copied on the server.
    copies: Vec<Subject>,
    /// Files that the server could not copy: they are uploaded.
    no_copy: HashSet<Subject>,
    /// Uploads wait until then after the server said the quota is exhausted, ms since 1970.
    quota_pause_until: i64,
    /// After a request failed as a whole nothing is sent until then, ms since 1970.
    pause_until: i64,
    /// After the server refused to remove a replaced node: when to ask again, ms since 1970.
    doomed_at: i64,
    /// When stalled rows are looked at again although nothing was confirmed, ms since 1970.
    unstall_at: i64,
}

/// How often in a row a row could not be pushed.
#[derive(Debug, Clone, Copy, Default)]
struct Failures {
    all: u32,
    refusals: u32,
}

/// Pause of uploads after an over-quota answer.
const QUOTA_PAUSE: Duration = Duration::from_secs(60);
impl Shared {
    /// The pusher task: runs until the mount ends.
    pub(crate) async fn push_changes(self: Arc<Self>) {
        let mut pusher = Pusher::default();
        let mut uploads: JoinSet<upload::Outcome> = JoinSet::new();
        // What an earlier run sent without learning the result comes first. Nothing is sent on the ground
        // of what was true then: an attribute that another device, or we ourselves just before a crash,
        // have changed would be set back.
        while !self.stop.is_cancelled() {
            match self.resume_queue().await {
                Ok(()) => break,
                Err(reason) => {
                    tracing::warn!(reason, "unfinished requests cannot be resolved yet");
                    tokio::select! {
                        () = self.stop.cancelled() => return,
                        () = tokio::time::sleep(Duration::from_secs(2)) => {}
                    }
                }
            }
        }
        loop {
            let now = now_ms();
            self.retry_stalled(&mut pusher, now);
            let is_held = self.store.failpoints().is_held();
            if now >= pusher.pause_until && !is_held {
                let steps = self.plan_steps(&mut pusher, now);
                let sent = !steps.is_empty();
                if sent {
                    self.send_steps(&mut pusher, steps).await;
                }
                self.start_uploads(&mut pusher, &mut uploads, now);
                if sent || !pusher.copies.is_empty() {
                    continue;
                }
            }
            // With the time the plan was made at: what became due since is due at once.
            let wait = if is_held {
                Duration::from_millis(5)
            } else {
                self.until_next(&pusher, now)
            };
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = self.wake.notified() => {}
                Some(done) = uploads.join_next(), if !uploads.is_empty() => {
                    self.collect(&mut pusher, done);
                    // Whatever else has just finished goes into the same batch.
                    while let Some(done) = uploads.try_join_next() {
                        self.collect(&mut pusher, done);
                    }
                }
                () = tokio::time::sleep(wait) => {}
            }
        }
        uploads.shutdown().await;
    }

    fn collect(&self, pusher: &mut Pusher, done: Result<upload::Outcome, tokio::task::JoinError>) {
        match done {
            Ok(outcome) => self.upload_ended(pusher, outcome),
            Err(error) if error.is_cancelled() => {}
            Err(error) => {
                tracing::error!(%error, "an upload task failed");
                // It cannot say which file it was: none may stay marked as uploading.
                pusher.uploading.clear();
                self.lock().changes.clear_in_flight();
            }
        }
    }
}
