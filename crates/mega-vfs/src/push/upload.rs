//! One upload: seal the layers, fetch what is missing below them, send the bytes.

use std::io;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mega_crypto::FileKey;
use mega_store::{
    AttemptId, AttemptRow, ChangeState, FailPoint, LayerReader, Store, StoreError, Subject,
};
use mega_transfer::{
    Resumable, ResumeRecord, Retry, SealedSource, TransferError, UploadJournal, UploadProgress,
    Uploaded,
};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::twin::Twin;
use super::{Pusher, QUOTA_PAUSE};
use crate::errno::{store_errno, transfer_errno};
use crate::file::{Attempt, Content, FileNode, Source, slice_of};
use crate::shared::Shared;
use crate::types::now_ms;

/// Refusals in a row after which a change is parked. What may pass (the network, a busy server) never
/// parks anything.
const PATIENCE: u32 = 4;

/// Why something for a folder of somebody else is not taken: the server does not say who has no space.
const EITHER_IS_FULL: &str = "this account is full, or that of whoever shares the folder";

/// Whether time alone can make a failed step succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hope {
    /// It can: the network or the server is in trouble.
    Passing,
    /// Hardly: the server refuses, or something is wrong here.
    Little,
    /// It was done and not as it should be: another try would do it a second time.
    None,
}

impl Hope {
    /// By what the layers below say about trying again.
    pub(crate) fn of(retry: Retry) -> Self {
        match retry {
            Retry::Never | Retry::Few => Self::Little,
            Retry::Backoff
            | Retry::After(_)
            | Retry::Relogin
            | Retry::FreshUrl
            | Retry::RestartUpload
            | Retry::Look
            | Retry::Refetch => Self::Passing,
        }
    }
}

/// Smaller uploads than this are not looked up in the journal: nearly none lasts long enough to be there.
const SMALLEST_RECORDED: u64 = 1 << 20;

/// Content that is on the server and waits for its node.
pub(crate) struct Finished {
    pub(crate) subject: Subject,
    pub(crate) file: Arc<FileNode>,
    pub(crate) bytes: OnServer,
    pub(crate) generation: u64,
    pub(crate) layers: usize,
    /// Where the journal says how far the upload was: to be struck when the put is journalled.
    pub(crate) record: Option<AttemptId>,
}

/// How the content came to be there.
pub(crate) enum OnServer {
    /// It was sent.
    Sent(Box<Uploaded>),
    /// A node has it.
    Twin(Twin),
}

impl OnServer {
    /// The key of the node that is to be.
    pub(crate) fn key(&self) -> &FileKey {
        match self {
            Self::Sent(uploaded) => &uploaded.key,
            Self::Twin(twin) => &twin.key,
        }
    }

    /// The checksum part of its fingerprint.
    pub(crate) fn crc(&self) -> [u8; 16] {
        match self {
            Self::Sent(uploaded) => uploaded.fingerprint_crc,
            Self::Twin(twin) => twin.crc,
        }
    }
}

/// Keeps the records of one upload in the store.
struct Journal {
    store: Arc<Store>,
    subject: Subject,
    /// Made with the first record; most uploads never need one.
    id: OnceLock<AttemptId>,
}

impl UploadJournal for Journal {
    fn record(&self, record: &ResumeRecord) -> Result<(), StoreError> {
        let (subject, body) = (self.subject, record.to_bytes());
        let id = self.store.write(|tx| {
            let id = match self.id.get() {
                Some(id) => *id,
                None => tx.next_attempt_id()?,
            };
            tx.put_attempt(&AttemptRow { id, subject, body })?;
            Ok(id)
        })?;
        // Only this thread writes, so it is the same one.
        self.id.get_or_init(|| id);
        Ok(())
    }
}

/// How an upload task ended.
pub(crate) struct Outcome {
    /// As it was when the upload began; a conflict may have given the file another one since.
    subject: Subject,
    result: Result<Finished, Failure>,
}

/// The sealed content of one file.
struct Job<'f> {
    subject: Subject,
    file: &'f Arc<FileNode>,
    layers: usize,
    size: u64,
    cancel: CancellationToken,
}

enum Failure {
    Transfer(TransferError),
    Local(Errno),
    /// The local bytes are not what they should be.
    Inconsistent(&'static str),
}

/// The sealed layers of a file as the uploader reads them: immutable, all bytes local. A view of its own,
/// so that reading many MiB neither waits for nor holds up whoever uses the file meanwhile.
struct Sealed {
    size: u64,
    /// Where the bytes are, in order and without gaps.
    pieces: Vec<(Range<u64>, Source)>,
    layers: Vec<LayerReader>,
}

impl Sealed {
    fn new(content: &Content, layers: usize, size: u64) -> Self {
        let sealed = content.layers.iter().take(layers);
        Self {
            size,
            pieces: content.plan(0..size, layers),
            layers: sealed.map(|layer| layer.file.reader()).collect(),
        }
    }
}

impl SealedSource for Sealed {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        let first = self
            .pieces
            .partition_point(|(range, _)| range.end <= offset);
        let wanted = self.pieces.iter().skip(first);
        for (range, source) in wanted.take_while(|(range, _)| range.start < end) {
            let part = range.start.max(offset)..range.end.min(end);
            let Some(target) = slice_of(buf, offset, &part) else {
                continue;
            };
            match source {
                Source::Zero => target.fill(0),
                Source::Base => return Err(io::Error::other("bytes of the base were not fetched")),
                Source::Layer(index) => {
                    let layer = self.layers.get(*index);
                    let layer = layer.ok_or_else(|| io::Error::other("the layer is gone"))?;
                    layer
                        .read_at(part.start, target)
                        .map_err(io::Error::other)?;
                }
            }
        }
        Ok(())
    }
}

impl Shared {
    /// Brings the content of a file to the server. `is_refused`: the server would not copy it.
    pub(crate) async fn upload(self: Arc<Self>, subject: Subject, is_refused: bool) -> Outcome {
        let ino = self.lock().ino(subject);
        tracing::debug!(?subject, "upload begins");
        let result = match ino {
            Ok(ino) => Box::pin(self.upload_inner(subject, ino, is_refused)).await,
            Err(errno) => Err(Failure::Local(errno)),
        };
        Outcome { subject, result }
    }

    async fn upload_inner(
        &self,
        subject: Subject,
        ino: u64,
        is_refused: bool,
    ) -> Result<Finished, Failure> {
        let cancel = self.stop.child_token();
        let (file, generation, layers, size) = self.seal(ino, &cancel).map_err(Failure::Local)?;
        let journal = Arc::new(Journal {
            store: Arc::clone(&self.store),
            subject,
            id: OnceLock::new(),
        });
        let resumable = self.resumable(&journal, generation, size);
        let transfer = self.monitor.begin(subject, size);
        let progress = transfer.progress();
        let compared = Arc::default();
        if let Some(attempt) = &mut file.lock().attempt {
            attempt.progress = Arc::clone(&progress);
            attempt.compared = Arc::clone(&compared);
        }
        // What was begun is finished; what the server would not copy is sent.
        let compared = Some(compared).filter(|_| !is_refused && resumable.from.is_none());
        let job = Job {
            subject,
            file: &file,
            layers,
            size,
            cancel,
        };
        let result = self.upload_sealed(job, progress, compared, resumable).await;
        match result {
            Ok(bytes) => Ok(Finished {
                subject,
                file,
                bytes,
                generation,
                layers,
                record: journal.id.get().copied(),
            }),
            Err(failure) => {
                let mut content = file.lock();
                content.attempt = None;
                self.let_go(&file, &mut content);
                Err(failure)
            }
        }
    }

    /// Freezes the bytes: from now on writes go to a layer above.
    fn seal(
        &self,
        ino: u64,
        cancel: &CancellationToken,
    ) -> Result<(Arc<FileNode>, u64, usize, u64), Errno> {
        self.with_content(ino, |file, content| {
            self.commit_content(file, content)?;
            let shows_base = content.base.is_some() && content.size > 0;
            if content.layers.is_empty() && shows_base {
                // What is fetched of the base needs a place: a copy that the server does not make.
                content
                    .top(&self.store)
                    .map_err(|error| store_errno(&error))?;
            }
            for layer in &mut content.layers {
                layer.sealed = true;
            }
            content.attempt = Some(Attempt {
                cancel: cancel.clone(),
                is_frozen: false,
                progress: Arc::default(),
                compared: Arc::default(),
            });
            self.store.failpoints().reach(FailPoint::Sealed);
            Ok((
                Arc::clone(file),
                content.generation,
                content.layers.len(),
                content.size,
            ))
        })
    }

    /// What an earlier run or an earlier try has written down of this upload.
    fn resumable(&self, journal: &Arc<Journal>, generation: u64, size: u64) -> Resumable {
        let found = if size < SMALLEST_RECORDED {
            None
        } else {
            let attempts = self.store.attempts_of(journal.subject).unwrap_or_default();
            let mut records = attempts.into_iter();
            records.find(|row| ResumeRecord::is_record(&row.body))
        };
        if let Some(row) = &found {
            journal.id.get_or_init(|| row.id);
        }
        Resumable {
            generation,
            from: found.and_then(|row| ResumeRecord::from_bytes(&row.body)),
            journal: Arc::clone(journal) as Arc<dyn UploadJournal>,
        }
    }

    async fn upload_sealed(
        &self,
        job: Job<'_>,
        progress: Arc<UploadProgress>,
        compared: Option<Arc<AtomicU64>>,
        resumable: Resumable,
    ) -> Result<OnServer, Failure> {
        let Job { layers, size, .. } = job;
        self.hydrate(job.file, layers, size, &job.cancel).await?;
        let source: Arc<dyn SealedSource> = Arc::new(Sealed::new(&job.file.lock(), layers, size));
        if let Some(compared) = compared {
            let looking = self.find_twin(job.subject, Arc::clone(&source), compared);
            let twin = tokio::select! {
                () = job.cancel.cancelled() => return Err(Failure::Transfer(TransferError::Cancelled)),
                twin = looking => twin.map_err(Failure::Transfer)?,
            };
            if let Some(twin) = twin {
                return Ok(OnServer::Twin(twin));
            }
        }
        self.uploads
            .upload_resumable(source, progress, job.cancel, resumable)
            .await
            .map(|uploaded| OnServer::Sent(Box::new(uploaded)))
            .map_err(Failure::Transfer)
    }

    /// Brings the parts of the base that still show through into the lowest layer.
    async fn hydrate(
        &self,
        file: &Arc<FileNode>,
        layers: usize,
        size: u64,
        cancel: &CancellationToken,
    ) -> Result<(), Failure> {
        let (missing, base) = {
            let content = file.lock();
            let missing: Vec<_> = content
                .plan(0..size, layers)
                .into_iter()
                .filter(|(_, source)| *source == Source::Base)
                .map(|(range, _)| range)
                .collect();
            (missing, content.base.clone())
        };
        if missing.is_empty() {
            return Ok(());
        }
        let Some(base) = base else {
            return Err(Failure::Inconsistent(
                "the base is gone and part of it was never fetched",
            ));
        };
        if layers == 0 {
            return Err(Failure::Inconsistent("a changed file has no layer"));
        }
        // A file of its own for what comes, and the row knows it: else it would be nobody's after a crash.
        {
            let mut content = file.lock();
            if let Some(layer) = content.layers.first_mut() {
                let store = |error| Failure::Local(store_errno(&error));
                layer.file.prepare(size).map_err(store)?;
            }
            let changed = self.commit_layers(file, &mut content);
            changed.map_err(Failure::Local)?;
        }
        for range in missing {
            let sink = |offset: u64, bytes: bytes::Bytes| -> io::Result<()> {
                let mut content = file.lock();
                let layer = content.layers.first_mut();
                let layer = layer.ok_or_else(|| io::Error::other("the layer is gone"))?;
                layer
                    .file
                    .write_at(offset, &bytes)
                    .map_err(io::Error::other)
            };
            tokio::select! {
                () = cancel.cancelled() => return Err(Failure::Transfer(TransferError::Cancelled)),
                done = base.remote.hydrate(range, sink) => done.map_err(Failure::Transfer)?,
            }
        }
        let mut content = file.lock();
        self.commit_layers(file, &mut content)
            .map_err(Failure::Local)?;
        // The lower layers of a cancelled attempt may hide more; ask again.
        let complete = content
            .plan(0..size, layers)
            .iter()
            .all(|(_, source)| *source != Source::Base);
        drop(content);
        if complete {
            Ok(())
        } else {
            Err(Failure::Inconsistent(
                "bytes of the base are still missing after fetching them",
            ))
        }
    }

    /// Takes note of how an upload ended.
    pub(crate) fn upload_ended(&self, pusher: &mut Pusher, outcome: Outcome) {
        pusher.uploading.remove(&outcome.subject);
        tracing::debug!(subject = ?outcome.subject, done = outcome.result.is_ok(), "upload ends");
        let failure = match outcome.result {
            Ok(finished) => {
                self.store.failpoints().reach(FailPoint::Uploaded);
                // Its failures count until there is a node: a put may be refused again and again.
                pusher.finished.push(finished);
                return;
            }
            Err(failure) => failure,
        };
        let subject = {
            let mut state = self.lock();
            let subject = state.changes.present_subject(outcome.subject);
            state.changes.set_in_flight(subject, false);
            subject
        };
        match failure {
            // Written again: due again after the write-back delay.
            Failure::Transfer(TransferError::Cancelled) => {}
            Failure::Transfer(TransferError::StorageQuota)
                if self.lock().is_bound_for_share(subject) =>
            {
                // Nothing was sent yet: it costs little to ask again.
                self.put_off(pusher, subject, EITHER_IS_FULL, Hope::Passing);
            }
            Failure::Transfer(TransferError::StorageQuota) => {
                let pause = i64::try_from(QUOTA_PAUSE.as_millis()).unwrap_or(i64::MAX);
                pusher.quota_pause_until = now_ms().saturating_add(pause);
                self.space.refused();
                tracing::warn!("the account is full: uploads wait, everything stays queued");
            }
            Failure::Transfer(error) => {
                let errno = transfer_errno(&error);
                let hope = Hope::of(error.retry());
                self.put_off(pusher, subject, &format!("{error} ({errno})"), hope);
            }
            Failure::Local(errno) => {
                self.put_off(pusher, subject, &errno.to_string(), Hope::Little);
            }
            Failure::Inconsistent(reason) => self.put_off(pusher, subject, reason, Hope::Little),
        }
    }

    /// Tries again later, and parks what fails again and again.
    pub(crate) fn put_off(&self, pusher: &mut Pusher, subject: Subject, reason: &str, hope: Hope) {
        let failures = pusher.failures.entry(subject).or_default();
        failures.all += 1;
        if hope == Hope::Little {
            failures.refusals += 1;
        }
        let failures = *failures;
        self.monitor
            .failed(format!("a change was not pushed: {reason}"));
        let mut state = self.lock();
        state.changes.set_in_flight(subject, false);
        let Some(mut row) = state.changes.get(subject).cloned() else {
            return;
        };
        if failures.refusals >= PATIENCE || hope == Hope::None {
            tracing::error!(target: "megamount::journal", ?subject, reason, "change parked");
            // Whoever asks for another try gets as many as the first time.
            pusher.failures.remove(&subject);
            row.state = ChangeState::Parked {
                error: reason.to_owned(),
            };
        } else {
            let delay = Duration::from_millis(500 << failures.all.min(7));
            tracing::warn!(?subject, reason, "change not pushed yet, trying again");
            let delay = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
            row.state = ChangeState::Pending {
                due_ms: now_ms().saturating_add(delay),
            };
        }
        if let Err(errno) = state.commit(vec![row], &[]) {
            tracing::error!(%errno, "the state of a change could not be stored");
        }
        state.changes.back_off(subject);
    }
}
