//! Uploading: immutable plaintext in, completion token and file key out.
//!
//! Owns the way from a sealed file to a token: a fresh key per upload, pieces of whole chunks read,
//! MACed and encrypted on a bounded number of blocking threads, several posts in parallel, retained
//! ciphertext for repeats, a restart with another key when the server has lost the upload. The
//! ciphertext goes to the cache at the same time. Promises flat memory and that no key encrypts two
//! contents. Never makes a node: `p` is the caller's business.
//!
//! # Going on after a restart
//! [`Uploads::upload_resumable`] hands a [`ResumeRecord`] to the caller's [`UploadJournal`] about once a
//! second, so that a later call can go on where this one was interrupted:
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use mega_store::{AttemptId, AttemptRow, Store, StoreError, Subject};
//! # use mega_transfer::*;
//! # use tokio_util::sync::CancellationToken;
//! struct Journal { store: Arc<Store>, id: AttemptId, subject: Subject }
//!
//! impl UploadJournal for Journal {
//!     fn record(&self, record: &ResumeRecord) -> Result<(), StoreError> {
//!         let (id, subject, body) = (self.id, self.subject, record.to_bytes());
//!         self.store.write(|tx| tx.put_attempt(&AttemptRow { id, subject, body }))
//!     }
//! }
//!
//! # async fn upload(uploads: &Uploads, store: Arc<Store>, source: Arc<dyn SealedSource>,
//! #     progress: Arc<UploadProgress>, cancel: CancellationToken, subject: Subject, generation: u64,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! // The row of an earlier run or an earlier call, if there is one: its id is used again.
//! let attempts = store.attempts()?;
//! let found = attempts.iter().find(|row| row.subject == subject && ResumeRecord::is_record(&row.body));
//! let id = match found {
//!     Some(row) => row.id,
//!     None => store.next_attempt_id()?,
//! };
//! let resumable = Resumable {
//!     // Counts up with every change of the bytes; a record of another generation is not used.
//!     generation,
//!     from: found.and_then(|row| ResumeRecord::from_bytes(&row.body)),
//!     journal: Arc::new(Journal { store: Arc::clone(&store), id, subject }),
//! };
//! let uploaded = uploads.upload_resumable(source, progress, cancel, resumable).await?;
//! // In one transaction: the put is journalled, and the record goes. A token is good for one put; were the
//! // record kept beyond a put that was refused, the next call would answer with the same token again.
//! store.write(|tx| tx.delete_attempt(id))?;
//! # drop(uploaded);
//! # Ok(())
//! # }
//! ```
//!
//! After an error or a cancellation the row stays, and the next call with the same generation goes on. A
//! row whose content was changed or removed may be deleted at any time; it is never used for other
//! content. Bytes that may have been lost in a power cut must not be uploaded with a record: `doubtful`
//! rows are not pushed at all.

use std::sync::Arc;

use mega_api::{Api, StorageError};
use mega_crypto::FileKey;
use mega_proto::{ErrorCode, UploadToken};
use mega_store::{PendingBlob, Store, StoreError};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::error::TransferError;
use crate::limits::TransferLimits;

mod attempt;
mod identity;
mod ledger;
mod pace;
mod post;
mod prepare;
mod progress;
mod record;

use attempt::{Job, Setback};
pub use progress::UploadProgress;
pub use record::ResumeRecord;

/// Posts under way in the whole process. Many small files need many, because each waits a round trip.
const POSTS: usize = 32;
/// How often an upload that the server lost is begun again before the caller hears of it.
const RESTARTS: u32 = 4;

/// Immutable plaintext. Reads may come from several threads and in any order, and are repeated when
/// the upload starts over.
pub trait SealedSource: Send + Sync {
    /// The length in bytes.
    fn size(&self) -> u64;

    /// Fills `buf` with the bytes from `offset`; the range lies inside the file.
    ///
    /// # Errors
    /// When the bytes cannot be had; the upload fails with [`TransferError::Source`].
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()>;
}

/// Where records of uploads in progress are kept.
pub trait UploadJournal: Send + Sync {
    /// Keeps this record in place of the one before. Called on a blocking thread, one call at a time. What
    /// was kept must survive `kill -9`, not a power cut.
    ///
    /// # Errors
    /// The upload goes on; a later run may have to start over.
    fn record(&self, record: &ResumeRecord) -> Result<(), StoreError>;
}

/// What makes an upload resumable. See the module's description.
pub struct Resumable {
    /// Says which content the source has; other content has another number.
    pub generation: u64,
    /// What the journal has of an earlier run. Unusable records are ignored.
    pub from: Option<ResumeRecord>,
    /// Where records go. Uploads that take less than a second make none.
    pub journal: Arc<dyn UploadJournal>,
}

impl std::fmt::Debug for Resumable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resumable")
            .field("generation", &self.generation)
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

/// A finished upload, ready to become a node.
#[derive(Debug)]
pub struct Uploaded {
    /// Goes into `p`, once, soon.
    pub token: UploadToken,
    /// The key of the node, complete with the meta-MAC.
    pub key: FileKey,
    /// The checksum part of the fingerprint attribute `c`.
    pub fingerprint_crc: [u8; 16],
    /// The ciphertext for the cache, to be adopted under the node's handle: what this run has sent of it.
    /// `None` if there was no room.
    pub blob: Option<PendingBlob>,
}

/// All uploads of a process.
#[derive(Debug, Clone)]
pub struct Uploads {
    shared: Arc<Shared>,
}

/// What the uploads share.
#[derive(Debug)]
struct Shared {
    store: Arc<Store>,
    api: Api,
    limits: TransferLimits,
    runtime: Handle,
    posts: Semaphore,
    worker_count: usize,
    workers: Arc<Semaphore>,
}

impl Shared {
    /// Runs arithmetic and file work on a blocking thread, as many at a time as there are processors.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TransferError> {
        let place = Arc::clone(&self.workers).acquire_owned().await;
        let place = place.map_err(|_| TransferError::WorkerDied)?;
        let work = move || {
            let done = work();
            drop(place);
            done
        };
        let done = self.runtime.spawn_blocking(work).await;
        done.map_err(|_| TransferError::WorkerDied)
    }
}

impl Uploads {
    /// Must be called inside the tokio runtime that is to do the work. Give it a clone of the limits
    /// the downloads have, so that both share one memory budget.
    #[must_use]
    pub fn new(api: Api, store: Arc<Store>, limits: TransferLimits) -> Self {
        let worker_count = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            shared: Arc::new(Shared {
                store,
                api,
                limits,
                runtime: Handle::current(),
                posts: Semaphore::new(POSTS),
                worker_count,
                workers: Arc::new(Semaphore::new(worker_count)),
            }),
        }
    }

    /// Uploads the whole source under a key made for this call. Must be polled inside the runtime.
    ///
    /// # Errors
    /// [`TransferError::Cancelled`] soon after `cancel`; [`TransferError::StorageQuota`] at once;
    /// [`TransferError::UploadLost`] after several restarts; network failures once nothing was
    /// acknowledged for the limits' patience.
    pub async fn upload(
        &self,
        source: Arc<dyn SealedSource>,
        progress: Arc<UploadProgress>,
        cancel: CancellationToken,
    ) -> Result<Uploaded, TransferError> {
        let job = Job {
            shared: Arc::clone(&self.shared),
            source,
            progress,
            resumable: None,
        };
        self.run(job, None, cancel).await
    }

    /// As [`upload`](Self::upload); goes on with an earlier run of the same content if it can, and writes
    /// down how far it is. See the module's description.
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub async fn upload_resumable(
        &self,
        source: Arc<dyn SealedSource>,
        progress: Arc<UploadProgress>,
        cancel: CancellationToken,
        mut resumable: Resumable,
    ) -> Result<Uploaded, TransferError> {
        let record = resumable.from.take().filter(|record| {
            record.generation == resumable.generation && record.size == source.size()
        });
        let job = Job {
            shared: Arc::clone(&self.shared),
            source,
            progress,
            resumable: Some(Arc::new(resumable)),
        };
        self.run(job, record, cancel).await
    }

    async fn run(
        &self,
        job: Job,
        record: Option<ResumeRecord>,
        cancel: CancellationToken,
    ) -> Result<Uploaded, TransferError> {
        let _reuse = self.shared.limits.memory.reuse();
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(TransferError::Cancelled),
            uploaded = Box::pin(persist(&job, record)) => uploaded,
        }
    }

    /// Whether the source is what the node with this key contains; the caller compares the sizes before.
    /// Reads the whole source and sends nothing, so ask only where the fingerprints agree. Then the
    /// server can copy the node and nothing need be uploaded.
    ///
    /// # Errors
    /// [`TransferError::Source`] if the bytes cannot be read.
    pub async fn matches(
        &self,
        source: Arc<dyn SealedSource>,
        key: &FileKey,
    ) -> Result<bool, TransferError> {
        let _reuse = self.shared.limits.memory.reuse();
        Box::pin(identity::matches(&self.shared, source, key)).await
    }

    /// The checksum part of the source's fingerprint; reads about 8 KiB of it. Blocks.
    ///
    /// # Errors
    /// [`TransferError::Source`] if the bytes cannot be read.
    pub fn fingerprint_crc(source: &dyn SealedSource) -> Result<[u8; 16], TransferError> {
        prepare::crc_of(source).map_err(|error| TransferError::Source(Arc::new(error)))
    }
}

async fn persist(job: &Job, record: Option<ResumeRecord>) -> Result<Uploaded, TransferError> {
    let mut record = match record {
        Some(record) => checked(job, record).await?,
        None => None,
    };
    if let Some(done) = record.as_ref().and_then(complete) {
        job.progress.begin(job.source.size());
        job.progress.finish();
        return Ok(done);
    }
    let mut restarts = 0;
    let mut is_out_of_range = false;
    loop {
        let reason = match attempt::run(job, record.take()).await {
            Ok(uploaded) => return Ok(uploaded),
            Err(Setback::Fatal(error)) => return Err(error),
            Err(Setback::Changed) => {
                tracing::warn!("the bytes are not those an earlier run has sent");
                StorageError::BadReply
            }
            // Pieces that do not fit together, twice: ours are wrong, and will be the next time.
            Err(Setback::Lost(StorageError::UploadLost(code @ ErrorCode::Range)))
                if is_out_of_range =>
            {
                return Err(TransferError::Storage(StorageError::Refused(code)));
            }
            Err(Setback::Lost(reason)) => reason,
        };
        is_out_of_range |= matches!(reason, StorageError::UploadLost(ErrorCode::Range));
        if restarts == RESTARTS {
            return Err(TransferError::UploadLost);
        }
        restarts += 1;
        tracing::info!(restarts, %reason, "upload lost: starting over with a new key");
        job.progress.restarted();
        tokio::time::sleep(job.shared.limits.delay(restarts)).await;
    }
}

/// The record, if it is of the bytes the source has: what was sent is read again.
async fn checked(job: &Job, record: ResumeRecord) -> Result<Option<ResumeRecord>, TransferError> {
    let source = Arc::clone(&job.source);
    let crc = job.shared.work(move || Uploads::fingerprint_crc(&*source));
    let is_same = crc.await?? == record.fingerprint_crc;
    if is_same && identity::agrees(&job.shared, Arc::clone(&job.source), &record).await? {
        return Ok(Some(record));
    }
    tracing::warn!("an upload is begun again: its record is of other bytes");
    Ok(None)
}

/// An upload that was finished in an earlier run.
fn complete(record: &ResumeRecord) -> Option<Uploaded> {
    let token = record.token.clone()?;
    let mac = ledger::Ledger::resume(record).recorded_mac()?;
    Some(Uploaded {
        token,
        key: record.key.seal(&mac),
        fingerprint_crc: record.fingerprint_crc,
        blob: None,
    })
}
