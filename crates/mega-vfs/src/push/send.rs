//! Sending a batch and handing each result to its confirmation.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mega_api::{ApiError, policy};
use mega_proto::{ErrorCode, RawNode};
use mega_store::{FailPoint, Subject};
use serde_json::Value;

use super::upload::Hope;
use super::{Pusher, QUOTA_PAUSE, Step};
use crate::shared::Shared;
use crate::types::now_ms;

/// How long a request whose result is unknown is repeated with its id; the server forgets ids after
/// some minutes (protocol/01 section 3).
const REPEAT: Duration = Duration::from_secs(100);
/// Why something cannot be put into a folder of somebody else: theirs is the space that it takes.
const SHARER_IS_FULL: &str = "the account of whoever shares this folder is full";
/// Pause after a request that failed as a whole, ms.
const FAILED_PAUSE_MS: i64 = 2_000;

impl Shared {
    /// Sends the steps as one request and applies what the server answered to each.
    pub(crate) async fn send_steps(&self, pusher: &mut Pusher, steps: Vec<Step>) {
        let client_id = self.api.client_id().to_owned();
        let mut commands = Vec::new();
        let mut counted = Vec::new();
        for step in steps {
            let own = step.commands(&client_id);
            if own.is_empty() {
                // The server has all of it already.
                self.confirm_nothing(&step);
                continue;
            }
            counted.push((step, own.len()));
            commands.extend(own);
        }
        if commands.is_empty() {
            return;
        }
        let guard = self.gate.lock().await;
        let frozen = self.api.freeze(&commands);
        self.keep_outstanding(&frozen);
        let started = Instant::now();
        self.store.failpoints().reach(FailPoint::Journalled);
        let answer = loop {
            match self.api.send(&frozen).await {
                Err(error) if is_unknown(&error) && started.elapsed() < REPEAT => {
                    tracing::warn!(%error, "no answer to a request, repeating it");
                    tokio::select! {
                        () = self.stop.cancelled() => break Err(error),
                        () = tokio::time::sleep(Duration::from_secs(1)) => {}
                    }
                }
                answer => break answer,
            }
        };
        self.settle_outstanding(&answer);
        match answer {
            Ok(results) => {
                self.store.failpoints().reach(FailPoint::Answered);
                let mut results = results.into_iter();
                for (step, count) in counted {
                    let own: Vec<_> = results.by_ref().take(count).collect();
                    self.confirm(pusher, step, own);
                }
                drop(guard);
            }
            Err(error) => {
                drop(guard);
                tracing::warn!(%error, "changes could not be sent");
                self.monitor
                    .failed(format!("changes could not be sent: {error}"));
                pusher.pause_until = now_ms().saturating_add(FAILED_PAUSE_MS);
                let subjects: Vec<Subject> = counted
                    .iter()
                    .flat_map(|(step, _)| step.subjects())
                    .collect();
                let was_executed = is_unknown(&error);
                for (step, _) in counted {
                    self.abandon(step, was_executed);
                }
                if was_executed {
                    // Look before anything is sent again.
                    while !self.stop.is_cancelled() && self.recover_attempts().await.is_err() {
                        tokio::select! {
                            () = self.stop.cancelled() => {}
                            () = tokio::time::sleep(Duration::from_secs(2)) => {}
                        }
                    }
                }
                let mut state = self.lock();
                for subject in subjects {
                    state.changes.set_in_flight(subject, false);
                }
            }
        }
    }

    /// A command was refused: what that means for its row.
    pub(crate) fn refused(&self, pusher: &mut Pusher, subject: Subject, code: ErrorCode) {
        match code {
            ErrorCode::OverQuota | ErrorCode::GoingOverQuota | ErrorCode::Paywall
                if self.lock().is_bound_for_share(subject) =>
            {
                self.put_off(pusher, subject, SHARER_IS_FULL, Hope::Little);
            }
            ErrorCode::OverQuota | ErrorCode::GoingOverQuota | ErrorCode::Paywall => {
                let pause = i64::try_from(QUOTA_PAUSE.as_millis()).unwrap_or(i64::MAX);
                pusher.quota_pause_until = now_ms().saturating_add(pause);
                self.space.refused();
                let has_content = {
                    let mut state = self.lock();
                    let row = state.changes.get(subject);
                    let has_content = row.is_some_and(|row| row.content.is_some());
                    if has_content {
                        state.changes.set_in_flight(subject, false);
                    }
                    has_content
                };
                if !has_content {
                    // The pause is for uploads: names would be sent again at once, and again.
                    self.put_off(pusher, subject, code.message(), Hope::Passing);
                }
                tracing::warn!("the account is full: uploads wait, everything stays queued");
            }
            code => {
                let mut hope = Hope::of(policy(code).api);
                // What is not there is explained by events that are still to come.
                if code == ErrorCode::NotFound && !self.is_channel_up.load(Ordering::Acquire) {
                    hope = Hope::Passing;
                }
                self.put_off(pusher, subject, code.message(), hope);
            }
        }
    }
}

/// Whether the server may have executed the request.
pub(super) fn is_unknown(error: &ApiError) -> bool {
    matches!(
        error,
        ApiError::OutcomeUnknown(_)
            | ApiError::Network(_)
            | ApiError::Timeout
            | ApiError::BadReply(_)
            | ApiError::Status(_)
    )
}

/// The nodes in the reply of a `p` (v1: member `f`).
pub(crate) fn nodes_of(reply: &Value) -> Vec<RawNode> {
    ["f", "f2"]
        .iter()
        .filter_map(|member| reply.get(member)?.as_array())
        .flatten()
        .filter_map(RawNode::from_value)
        .collect()
}
