//! One attempt: from `u` to the token, under one key.
//!
//! Keeps up to the file's connections busy, each with one piece from reading to acknowledgement. The
//! distance from the lowest unacknowledged byte to the end of the highest piece stays below 256 MiB
//! (protocol/04 section 5). The token may come with any piece; then everything is stored and outstanding
//! answers do not matter.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mega_api::{ApiError, StorageError};
use mega_crypto::UploadKey;
use mega_proto::UploadToken;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::pace::Pace;
use super::post::post;
use super::prepare::{Gathered, optional};
use super::progress::UploadProgress;
use super::{SealedSource, Shared, Uploaded};
use crate::error::TransferError;
use crate::piece::piece_at;

/// The server refuses pieces further ahead than this.
const WINDOW: u64 = 256 << 20;

/// What one call of `upload` is about.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) shared: Arc<Shared>,
    pub(super) source: Arc<dyn SealedSource>,
    pub(super) progress: Arc<UploadProgress>,
}

/// Why an attempt ended without a token.
#[derive(Debug)]
pub(super) enum Setback {
    /// The server has lost the upload: begin again with a new key.
    Lost(StorageError),
    /// Nothing to be done here.
    Fatal(TransferError),
}

impl From<TransferError> for Setback {
    fn from(error: TransferError) -> Self {
        Self::Fatal(error)
    }
}

/// What the pieces of an attempt share.
pub(super) struct Attempt {
    pub(super) job: Job,
    pub(super) url: String,
    gathered: Gathered,
    heard: Mutex<Instant>,
}

/// A piece the server has.
struct Done {
    range: Range<u64>,
    token: Option<UploadToken>,
    took: Duration,
}

impl Attempt {
    /// The server acknowledged something.
    fn hear(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long nothing was acknowledged.
    pub(super) fn silence(&self) -> Duration {
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed()
    }
}

/// Runs one attempt to its end.
pub(super) async fn run(job: &Job) -> Result<Uploaded, Setback> {
    let size = job.source.size();
    job.progress.begin(size);
    let key = UploadKey::generate().map_err(|_| TransferError::Random)?;
    let url = job
        .shared
        .api
        .upload_url(size)
        .await
        .map_err(upload_error)?;
    let store = Arc::clone(&job.shared.store);
    let pending = job
        .shared
        .runtime
        .spawn_blocking(move || store.cache().begin_adopt(size));
    let pending = pending.await.ok().and_then(optional);
    let attempt = Arc::new(Attempt {
        job: job.clone(),
        url: url.into(),
        gathered: Gathered::new(key, size, pending),
        heard: Mutex::new(Instant::now()),
    });
    let token = send_all(&attempt, size).await?;
    let Some(mac) = attempt.gathered.meta_mac() else {
        // Some piece was never made: the token is not for this content.
        return Err(Setback::Lost(StorageError::BadReply));
    };
    job.progress.finish();
    Ok(Uploaded {
        token,
        key: attempt.gathered.key().seal(&mac),
        fingerprint_crc: attempt.gathered.fingerprint_crc(),
        blob: attempt.gathered.take_blob(),
    })
}

async fn send_all(attempt: &Arc<Attempt>, size: u64) -> Result<UploadToken, Setback> {
    let limits = &attempt.job.shared.limits;
    let streams = limits.connections();
    let mut pace = Pace::new(streams, limits.memory.background_size());
    let mut tasks: JoinSet<Result<Done, Setback>> = JoinSet::new();
    let mut unacknowledged = BTreeSet::new();
    let mut next = 0;
    let mut begun = false;
    loop {
        while tasks.len() < streams && (next < size || !begun) {
            let range = if size == 0 {
                0..0
            } else {
                piece_at(next, size, pace.target(size - next))
            };
            let lowest = unacknowledged.first().copied().unwrap_or(next);
            if range.end - lowest >= WINDOW {
                break;
            }
            unacknowledged.insert(range.start);
            next = range.end;
            begun = true;
            tasks.spawn_on(
                send(Arc::clone(attempt), range),
                &attempt.job.shared.runtime,
            );
        }
        let Some(done) = tasks.join_next().await else {
            // All pieces are stored and no token came.
            return Err(Setback::Lost(StorageError::BadReply));
        };
        let done = done.map_err(|_| TransferError::WorkerDied)??;
        unacknowledged.remove(&done.range.start);
        attempt.hear();
        let len = done.range.end - done.range.start;
        attempt.job.progress.add(len);
        pace.learn(len, done.took);
        match done.token {
            Some(token) if next >= size => return Ok(settle(tasks, token, limits.timeout).await),
            // The server cannot have everything yet; what it means is not known.
            Some(_) => tracing::debug!("token before the last piece was made: ignored"),
            None => {}
        }
    }
}

/// The token is here, so the server has everything and other answers may never come. They get some
/// time all the same: a connection that is not torn serves the next upload.
async fn settle(
    mut tasks: JoinSet<Result<Done, Setback>>,
    token: UploadToken,
    grace: Duration,
) -> UploadToken {
    let mut token = token;
    let rest = async {
        while let Some(done) = tasks.join_next().await {
            match done {
                // The latest is the one that came with the last piece.
                Ok(Ok(Done {
                    token: Some(newer), ..
                })) => token = newer,
                Ok(Ok(Done { token: None, .. })) => {}
                Ok(Err(_)) | Err(_) => break,
            }
        }
    };
    // Out of time is as good as done.
    let _ = tokio::time::timeout(grace, rest).await;
    tasks.shutdown().await;
    token
}

/// One piece from reading to acknowledgement.
async fn send(attempt: Arc<Attempt>, range: Range<u64>) -> Result<Done, Setback> {
    let shared = &attempt.job.shared;
    let memory = shared
        .limits
        .memory
        .background(range.end - range.start)
        .await;
    let (this, part) = (Arc::clone(&attempt), range.clone());
    // The permit goes along, so that the buffer is paid for even when this task is cancelled.
    let work = shared
        .runtime
        .spawn_blocking(move || (this.gathered.prepare(&*this.job.source, &part), memory));
    let (piece, _memory) = work.await.map_err(|_| TransferError::WorkerDied)?;
    let piece = piece?;
    let _place = shared
        .posts
        .acquire()
        .await
        .map_err(|_| TransferError::WorkerDied)?;
    let sent = Instant::now();
    let token = post(&attempt, range.start, &piece).await?;
    Ok(Done {
        range,
        token,
        took: sent.elapsed(),
    })
}

/// The meaning of a failed `u`.
fn upload_error(error: ApiError) -> TransferError {
    match error {
        ApiError::OverQuota { .. } => TransferError::StorageQuota,
        other => TransferError::Api(other),
    }
}
