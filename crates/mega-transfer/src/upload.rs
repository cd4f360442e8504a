//! Uploading: immutable plaintext in, completion token and file key out.
//!
//! Owns the way from a sealed file to a token: a fresh key per attempt, pieces of whole chunks read,
//! MACed and encrypted on blocking threads, several posts in parallel, retained ciphertext for
//! repeats, a restart with another key when the server has lost the upload. The ciphertext goes to the
//! cache at the same time. Promises flat memory and that no key encrypts two contents. Never makes a
//! node: `p` is the caller's business.

use std::sync::Arc;

use mega_api::Api;
use mega_crypto::FileKey;
use mega_proto::UploadToken;
use mega_store::{PendingBlob, Store};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::error::TransferError;
use crate::limits::TransferLimits;

mod attempt;
mod pace;
mod post;
mod prepare;
mod progress;

use attempt::{Job, Setback};
pub use progress::UploadProgress;

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

/// A finished upload, ready to become a node.
#[derive(Debug)]
pub struct Uploaded {
    /// Goes into `p`, once, soon.
    pub token: UploadToken,
    /// The key of the node, complete with the meta-MAC.
    pub key: FileKey,
    /// The checksum part of the fingerprint attribute `c`.
    pub fingerprint_crc: [u8; 16],
    /// The ciphertext for the cache, to be adopted under the node's handle; `None` if there was no
    /// room for all of it.
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
    api: Api,
    store: Arc<Store>,
    limits: TransferLimits,
    runtime: Handle,
    posts: Arc<Semaphore>,
}

impl Uploads {
    /// Must be called inside the tokio runtime that is to do the work. Give it a clone of the limits
    /// the downloads have, so that both share one memory budget.
    #[must_use]
    pub fn new(api: Api, store: Arc<Store>, limits: TransferLimits) -> Self {
        let runtime = Handle::current();
        let posts = Arc::new(Semaphore::new(POSTS));
        Self {
            shared: Arc::new(Shared {
                api,
                store,
                limits,
                runtime,
                posts,
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
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(TransferError::Cancelled),
            uploaded = Box::pin(persist(&job)) => uploaded,
        }
    }
}

async fn persist(job: &Job) -> Result<Uploaded, TransferError> {
    let mut restarts = 0;
    loop {
        match attempt::run(job).await {
            Ok(uploaded) => return Ok(uploaded),
            Err(Setback::Fatal(error)) => return Err(error),
            Err(Setback::Lost(reason)) if restarts < RESTARTS => {
                restarts += 1;
                tracing::info!(restarts, %reason, "upload lost: starting over with a new key");
                job.progress.restarted();
                tokio::time::sleep(job.shared.limits.delay(restarts)).await;
            }
            Err(Setback::Lost(_)) => return Err(TransferError::UploadLost),
        }
    }
}
