//! Answering HTTP 402 (`protocol/01` section 8): finding the proof of work on threads of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mega_crypto::Challenge;
use reqwest::{Response, StatusCode};

use crate::error::ApiError;

/// The header of challenge and answer.
pub(crate) const HEADER: &str = "X-Hashcash";
/// Challenges answered for one request before giving up.
pub(crate) const ROUNDS: u32 = 5;
/// A token is taken to live 300 s; after a third of it a new one is asked for ...
const PATIENCE: Duration = Duration::from_secs(100);
/// ... this many times, then the search has no limit.
const LIMITED_ROUNDS: u32 = 2;
/// More threads would only heat the machine: memory bandwidth ends first.
const MAX_THREADS: usize = 8;

/// The challenge of a reply. `None` unless it is a 402 with an empty body and a well-formed header.
pub(crate) fn challenge(response: &Response) -> Option<Challenge> {
    if response.status() != StatusCode::PAYMENT_REQUIRED || response.content_length() != Some(0) {
        return None;
    }
    Challenge::parse(response.headers().get(HEADER)?.to_str().ok()?)
}

/// Stops the search when nobody waits for it any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The header's value that answers the challenge; `None` if it was not found in time, so that a new
/// challenge should be asked for.
pub(crate) async fn solve(challenge: Challenge, round: u32) -> Result<Option<String>, ApiError> {
    let stop = Arc::new(AtomicBool::new(false));
    let _guard = StopOnDrop(Arc::clone(&stop));
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_THREADS);
    tracing::debug!(
        easiness = challenge.easiness(),
        threads,
        "solving a proof of work"
    );
    let search = {
        let stop = Arc::clone(&stop);
        tokio::task::spawn_blocking(move || challenge.solve(&stop, threads))
    };
    if round >= LIMITED_ROUNDS {
        return search.await.map_err(|_| ApiError::Hashcash);
    }
    match tokio::time::timeout(PATIENCE, search).await {
        Ok(found) => found.map_err(|_| ApiError::Hashcash),
        Err(_) => Ok(None),
    }
}
