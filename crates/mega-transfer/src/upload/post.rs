//! Posting one piece until the server has it.
//!
//! The retained ciphertext is sent again unchanged; what the server's answers mean is protocol/04 section 5
//! and the upload column of `mega_api::policy`. A connection that stalls or crawls is closed, and the
//! piece goes out over another one.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mega_api::{ChunkAck, ChunkPost, Retry, StorageError};
use mega_proto::{ErrorCode, UploadToken};
use tokio::time::{Instant, timeout};

use super::attempt::{Attempt, Setback};
use crate::error::TransferError;
use crate::limits::patience_at;

/// How often a connection's progress is looked at while it may stall.
const LOOKS: u32 = 8;

/// What the server said to a piece it has.
pub(super) struct Answer {
    pub(super) token: Option<UploadToken>,
    /// How long the try took that was answered.
    pub(super) took: Duration,
}

/// Posts the piece; a try may take `allowance`, doubled each time a connection had to be replaced.
pub(super) async fn post(
    attempt: &Attempt,
    piece: &ChunkPost,
    allowance: Duration,
) -> Result<Answer, Setback> {
    let shared = &attempt.job.shared;
    let (mut failures, mut replaced) = (0, 0);
    loop {
        let place = shared.posts.acquire().await;
        let place = place.map_err(|_| TransferError::WorkerDied)?;
        let begun = Instant::now();
        let posting = shared.api.post_watched(&attempt.url, piece);
        let patience = 1 << replaced.min(4);
        let posted = watch(attempt, piece, posting, patience, allowance).await;
        drop(place);
        let answer = |token| Answer {
            token,
            took: begun.elapsed(),
        };
        let error = match posted {
            Ok(ChunkAck::Stored) => return Ok(answer(None)),
            Ok(ChunkAck::Complete(token)) => return Ok(answer(Some(token))),
            Err(error) => error,
        };
        failures += 1;
        replaced += u32::from(matches!(error, StorageError::Timeout));
        tracing::debug!(offset = piece.offset, failures, %error, "piece not stored yet");
        if let Some(setback) = attempt.setback(&error) {
            return Err(setback);
        }
        let limits = &shared.limits;
        let delay = match error.retry() {
            // The time has been spent already.
            _ if matches!(error, StorageError::Timeout) => Duration::ZERO,
            Retry::After(named) => limits.patient_delay(named, failures),
            _ => limits.delay(failures),
        };
        tokio::time::sleep(jitter(delay)).await;
    }
}

impl Attempt {
    /// Whether a failed post ends the attempt, and how; `None`: the same piece again.
    fn setback(&self, error: &StorageError) -> Option<Setback> {
        let patience = self.job.shared.limits.patience;
        match error.retry() {
            Retry::RestartUpload | Retry::FreshUrl => Some(Setback::Lost(error.clone())),
            Retry::Never if is_quota(error) => Some(Setback::Fatal(TransferError::StorageQuota)),
            // What was written down of an earlier run is not what the server has.
            Retry::Never if self.is_resumed => Some(Setback::Lost(error.clone())),
            Retry::Never => Some(Setback::Fatal(fatal(error))),
            // The address of an earlier run, and nobody is there any more.
            _ if self.is_resumed && !self.has_heard() && self.silence() > patience / 4 => {
                Some(Setback::Lost(error.clone()))
            }
            _ if self.silence() > patience => Some(Setback::Fatal(fatal(error))),
            Retry::After(_)
            | Retry::Few
            | Retry::Backoff
            | Retry::Relogin
            | Retry::Look
            | Retry::Refetch => None,
        }
    }
}

/// The answer, or a time-out if the connection does not move.
async fn watch(
    attempt: &Attempt,
    piece: &ChunkPost,
    posting: impl Future<Output = Result<ChunkAck, StorageError>>,
    patience: u32,
    allowance: Duration,
) -> Result<ChunkAck, StorageError> {
    let shared = &attempt.job.shared;
    let patience = patience.saturating_mul(patience_at(shared.api.bandwidth().up));
    let stall = shared.limits.stall * patience;
    let length = piece.body.len() as u64;
    let mut posting = Box::pin(posting);
    let begun = Instant::now();
    let (mut taken, mut moved) = (0, begun);
    loop {
        if let Ok(answer) = timeout(stall / LOOKS, &mut posting).await {
            return answer;
        }
        let now_taken = piece.taken.load(Ordering::Relaxed);
        if now_taken != taken {
            (taken, moved) = (now_taken, Instant::now());
            attempt.hear_moving();
        }
        // What the connection has taken may be in the system's buffers for long: then only the whole time
        // counts.
        let is_stalled = taken < length && moved.elapsed() > stall;
        if is_stalled || begun.elapsed() > allowance * patience {
            tracing::debug!(offset = piece.offset, taken, "connection replaced");
            return Err(StorageError::Timeout);
        }
    }
}

fn is_quota(error: &StorageError) -> bool {
    matches!(
        error,
        StorageError::Refused(
            ErrorCode::OverQuota | ErrorCode::GoingOverQuota | ErrorCode::Paywall
        )
    )
}

fn fatal(error: &StorageError) -> TransferError {
    match error {
        StorageError::Timeout => TransferError::Timeout,
        other => TransferError::Storage(other.clone()),
    }
}

/// Three to five quarters of the delay, so that connections that failed together do not come back
/// together.
fn jitter(delay: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    delay.saturating_mul(750 + random % 501) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_a_quarter_at_most() {
        let delay = Duration::from_secs(4);
        for _ in 0..100 {
            let jittered = jitter(delay);
            assert!(jittered >= delay * 3 / 4 && jittered <= delay * 5 / 4);
        }
        assert_eq!(jitter(Duration::ZERO), Duration::ZERO);
    }
}
