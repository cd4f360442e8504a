//! One attempt: from an address to the token, under one key.
//!
//! Keeps up to the file's connections busy, each with one piece from reading to acknowledgement. The
//! token may come with any piece; then everything is stored and outstanding answers do not matter.
//!
//! # The journal
//! Once an attempt has lasted [`NOTE_EVERY`] its record is written, and then again and again. From the
//! first record on a piece is sent only if a written record has its borders, so pieces are planned some
//! seconds ahead; an attempt that goes on later sends again what the record does not have as stored,
//! in the same pieces, and nothing else can have been sent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mega_api::{ApiError, StorageError};
use mega_crypto::UploadKey;
use mega_proto::UploadToken;
use mega_store::FailPoint;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::ledger::Ledger;
use super::pace::Pace;
use super::post::post;
use super::prepare::Gathered;
use super::progress::UploadProgress;
use super::record::ResumeRecord;
use super::{Resumable, SealedSource, Shared, Uploaded};
use crate::error::TransferError;

/// What may be lost of an upload by a crash, in time.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// What one call of `upload` is about.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) shared: Arc<Shared>,
    pub(super) source: Arc<dyn SealedSource>,
    pub(super) progress: Arc<UploadProgress>,
    pub(super) resumable: Option<Arc<Resumable>>,
}

/// Why an attempt ended without a token.
#[derive(Debug)]
pub(super) enum Setback {
    /// The server has lost the upload: begin again with a new key.
    Lost(StorageError),
    /// The bytes are not those of the record: begin again with a new key.
    Changed,
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
    /// An earlier run began it.
    pub(super) is_resumed: bool,
    gathered: Gathered,
    heard: Mutex<Instant>,
    has_heard: AtomicBool,
}

/// A piece the server has.
struct Done {
    start: u64,
    length: u64,
    token: Option<UploadToken>,
    took: Duration,
}

impl Attempt {
    async fn begin(job: &Job) -> Result<Self, Setback> {
        let size = job.source.size();
        job.progress.begin(size);
        let key = UploadKey::generate().map_err(|_| TransferError::Random)?;
        let url = job.shared.api.upload_url(size).await;
        let url = url.map_err(upload_error)?.into();
        let ledger = Ledger::new(&key, size);
        Ok(Self {
            job: job.clone(),
            url,
            is_resumed: false,
            gathered: Gathered::new(key, ledger, size, None),
            heard: Mutex::new(Instant::now()),
            has_heard: AtomicBool::new(false),
        })
    }

    fn resume(job: &Job, record: ResumeRecord) -> Self {
        let ledger = Ledger::resume(&record);
        job.progress.begin(record.size);
        job.progress.add(ledger.stored());
        let crc = Some(record.fingerprint_crc);
        Self {
            job: job.clone(),
            url: record.url.clone(),
            is_resumed: true,
            gathered: Gathered::new(record.key, ledger, record.size, crc),
            heard: Mutex::new(Instant::now()),
            has_heard: AtomicBool::new(false),
        }
    }

    /// The server acknowledged something.
    fn hear(&self) {
        self.has_heard.store(true, Ordering::Relaxed);
        self.hear_moving();
    }

    /// A connection took bytes.
    pub(super) fn hear_moving(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether the server acknowledged anything in this run.
    pub(super) fn has_heard(&self) -> bool {
        self.has_heard.load(Ordering::Relaxed)
    }

    /// How long nothing was acknowledged and nothing moved.
    pub(super) fn silence(&self) -> Duration {
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed()
    }

    /// Writes down how far it is; whether that worked. On a blocking thread.
    fn note(&self, resumable: &Resumable, token: Option<UploadToken>) -> bool {
        let source = &*self.job.source;
        let Ok(fingerprint_crc) = self.gathered.early_crc(source) else {
            return false;
        };
        let (chunks, fold, pieces) = self.gathered.ledger().note();
        let record = ResumeRecord {
            key: self.gathered.key().clone(),
            size: source.size(),
            generation: resumable.generation,
            fingerprint_crc,
            url: self.url.clone(),
            token,
            chunks,
            fold,
            pieces,
        };
        resumable
            .journal
            .record(&record)
            .inspect_err(|error| tracing::warn!(%error, "an upload was not written down"))
            .is_ok()
    }
}

/// Runs one attempt to its end.
pub(super) async fn run(job: &Job, record: Option<ResumeRecord>) -> Result<Uploaded, Setback> {
    let attempt = Arc::new(match record {
        Some(record) => Attempt::resume(job, record),
        None => Attempt::begin(job).await?,
    });
    let mut sending = Sending::new(&attempt);
    let token = sending.run().await?;
    // Bound first: a guard must not live across an await.
    let mac = attempt.gathered.ledger().meta_mac();
    let Some(mac) = mac else {
        // Some piece was never made: the token is not for this content.
        return Err(Setback::Lost(StorageError::BadReply));
    };
    sending.note_token(&token).await;
    job.progress.finish();
    Ok(Uploaded {
        token,
        key: attempt.gathered.key().seal(&mac),
        fingerprint_crc: attempt.gathered.fingerprint_crc(),
        blob: attempt.gathered.take_blob(),
    })
}

/// The loop that hands out pieces and takes answers.
struct Sending<'a> {
    attempt: &'a Arc<Attempt>,
    pace: Pace,
    tasks: JoinSet<Result<Done, Setback>>,
    /// Pieces up to here may be sent.
    limit: u64,
    /// A record being written, and how far its pieces go.
    note: Option<(JoinHandle<bool>, u64)>,
    noted_at: Instant,
    /// A record of this attempt may be in the journal.
    is_noted: bool,
}

impl<'a> Sending<'a> {
    fn new(attempt: &'a Arc<Attempt>) -> Self {
        let limits = &attempt.job.shared.limits;
        let limit = if attempt.is_resumed {
            attempt.gathered.ledger().planned()
        } else {
            u64::MAX
        };
        Self {
            attempt,
            pace: Pace::new(limits.connections(), limits.memory.background_size()),
            tasks: JoinSet::new(),
            limit,
            note: None,
            noted_at: Instant::now(),
            is_noted: attempt.is_resumed,
        }
    }

    async fn run(&mut self) -> Result<UploadToken, Setback> {
        loop {
            self.launch();
            if self.is_note_due() {
                self.begin_note();
                self.launch();
            }
            if self.tasks.is_empty() && self.note.is_none() {
                // All pieces are stored and no token came.
                return Err(Setback::Lost(StorageError::BadReply));
            }
            let is_timed = self.note.is_none() && self.attempt.job.resumable.is_some();
            let next_note = self.noted_at + NOTE_EVERY;
            tokio::select! {
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    let done = done.map_err(|_| TransferError::WorkerDied)??;
                    if let Some(token) = self.answered(done) {
                        return Ok(self.settle(token).await);
                    }
                }
                written = written(&mut self.note), if self.note.is_some() => self.noted(written),
                () = tokio::time::sleep_until(next_note), if is_timed => {}
            }
        }
    }

    /// Starts pieces until every connection has one.
    fn launch(&mut self) {
        let shared = &self.attempt.job.shared;
        let limits = &shared.limits;
        while self.tasks.len() < limits.connections() {
            let range = {
                let mut ledger = self.attempt.gathered.ledger();
                let taken = ledger.take(self.limit);
                if taken.is_none() && self.limit == u64::MAX {
                    let target = self.pace.target(ledger.unplanned());
                    ledger.plan(target);
                    ledger.take(self.limit)
                } else {
                    taken
                }
            };
            let Some(range) = range else { return };
            let length = range.end - range.start;
            let allowance = self.pace.allowance(length, limits.stall, limits.timeout);
            let work = send(Arc::clone(self.attempt), range, allowance);
            self.tasks.spawn_on(work, &shared.runtime);
        }
    }

    /// Takes an answer in; the token, if it is for everything.
    fn answered(&mut self, done: Done) -> Option<UploadToken> {
        self.attempt.hear();
        let store = &self.attempt.job.shared.store;
        store.failpoints().reach(FailPoint::PieceStored);
        self.pace.learn(done.length, done.took);
        let mut ledger = self.attempt.gathered.ledger();
        self.attempt
            .job
            .progress
            .add(ledger.acknowledge(done.start));
        let token = done.token?;
        if ledger.is_all_sent() {
            return Some(token);
        }
        // The server cannot have everything yet; what it means is not known.
        tracing::debug!("token before the last piece was made: ignored");
        None
    }

    fn is_note_due(&self) -> bool {
        if self.note.is_some() || self.attempt.job.resumable.is_none() {
            return false;
        }
        if !self.is_noted {
            return self.noted_at.elapsed() >= NOTE_EVERY && !self.tasks.is_empty();
        }
        let ledger = self.attempt.gathered.ledger();
        let is_short = self.limit < ledger.planned() + ledger.unplanned()
            && ledger.waiting() < self.pace.stride() / 2;
        // Nothing new can be planned while the window is full.
        (is_short && ledger.has_room()) || self.noted_at.elapsed() >= NOTE_EVERY
    }

    /// Plans ahead and begins to write that down.
    fn begin_note(&mut self) {
        let Some(resumable) = self.attempt.job.resumable.clone() else {
            return;
        };
        let end = {
            let mut ledger = self.attempt.gathered.ledger();
            while ledger.waiting() < self.pace.stride() {
                let target = self.pace.target(ledger.unplanned());
                if !ledger.plan(target) {
                    break;
                }
            }
            ledger.planned()
        };
        if !self.is_noted {
            // There is no older record that lacks these pieces.
            self.limit = end;
            self.is_noted = true;
        }
        self.noted_at = Instant::now();
        let attempt = Arc::clone(self.attempt);
        let work = move || attempt.note(&resumable, None);
        let runtime = &self.attempt.job.shared.runtime;
        self.note = Some((runtime.spawn_blocking(work), end));
    }

    fn noted(&mut self, is_written: bool) {
        if let Some((_, end)) = self.note.take() {
            // Unwritten: go on all the same. A later run that knows less starts over when it is refused.
            self.limit = if is_written { end } else { u64::MAX };
        }
    }

    /// The token of an upload that is in the journal goes there too: the node may not be put soon.
    async fn note_token(&mut self, token: &UploadToken) {
        let Some(resumable) = self.attempt.job.resumable.clone().filter(|_| self.is_noted) else {
            return;
        };
        if let Some((writing, _)) = self.note.take() {
            // One after the other, so that the later one wins.
            drop(writing.await);
        }
        let (attempt, token) = (Arc::clone(self.attempt), token.clone());
        let work = move || attempt.note(&resumable, Some(token));
        // Without it the upload is repeated after a crash, no more.
        drop(self.attempt.job.shared.runtime.spawn_blocking(work).await);
    }

    /// The token is here, so the server has everything and other answers may never come. They get some
    /// time all the same: a connection that is not torn serves the next upload.
    async fn settle(&mut self, token: UploadToken) -> UploadToken {
        let mut token = token;
        let tasks = &mut self.tasks;
        let rest = async {
            while let Some(done) = tasks.join_next().await {
                match done {
                    Ok(Ok(done)) => {
                        self.attempt.gathered.ledger().acknowledge(done.start);
                        // The latest is the one that came with the last piece.
                        token = done.token.unwrap_or_else(|| token.clone());
                    }
                    Ok(Err(_)) | Err(_) => break,
                }
            }
        };
        // Out of time is as good as done.
        let _ = tokio::time::timeout(self.attempt.job.shared.limits.stall, rest).await;
        self.tasks.shutdown().await;
        token
    }
}

async fn written(note: &mut Option<(JoinHandle<bool>, u64)>) -> bool {
    match note {
        Some((writing, _)) => writing.await.unwrap_or(false),
        None => std::future::pending().await,
    }
}

/// One piece from reading to acknowledgement.
async fn send(
    attempt: Arc<Attempt>,
    range: std::ops::Range<u64>,
    allowance: Duration,
) -> Result<Done, Setback> {
    let shared = &attempt.job.shared;
    let (start, length) = (range.start, range.end - range.start);
    // Paid for until the last copy of the ciphertext is gone, whoever holds it.
    let buffer = shared.limits.memory.buffer(length).await;
    let this = Arc::clone(&attempt);
    let work = move || {
        let (source, store) = (&*this.job.source, &*this.job.shared.store);
        this.gathered.prepare(source, store, &range, buffer)
    };
    let piece = shared.work(work).await??;
    let size = attempt.job.source.size();
    // Not one of the workers: it waits for the disk, and meanwhile the piece is on its way.
    let kept = Gathered::is_kept_apart(size).then(|| {
        let (this, body) = (Arc::clone(&attempt), piece.body.clone());
        let keep = move || {
            this.gathered
                .tee(size, &this.job.shared.store, start, &body)
        };
        shared.runtime.spawn_blocking(keep)
    });
    let answer = post(&attempt, &piece, allowance).await?;
    if let Some(kept) = kept {
        // What is not kept is fetched when it is read.
        drop(kept.await);
    }
    Ok(Done {
        start,
        length,
        token: answer.token,
        took: answer.took,
    })
}

/// The meaning of a failed `u`.
fn upload_error(error: ApiError) -> TransferError {
    match error {
        ApiError::OverQuota { .. } => TransferError::StorageQuota,
        other => TransferError::Api(other),
    }
}
