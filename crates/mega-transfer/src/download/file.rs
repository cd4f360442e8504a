//! One file of the server, readable at any place.
//!
//! Owns what is known about the file's bytes: the blob on disk, the units on their way or in memory,
//! the download URL, whether the content was verified. Promises: a read is answered as soon as its own
//! bytes are here; a unit is fetched once however many readers want it; every wait ends at a deadline;
//! bytes known to be wrong are never returned. Never knows names or inodes.
//!
//! A read looks for its bytes in this order: blob, units in memory, pool; what is missing is launched
//! as flights somebody waits for; what the cursor would like next is launched as read-ahead. Plaintext
//! exists only in the buffer that is returned.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};

use mega_crypto::{ContentCipher, FileKey};
use mega_proto::NodeHandle;
use mega_store::Blob;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::striped;
use super::units::UnitTable;
use super::url::{DownloadUrl, UrlSlot};
use super::whole::WholeCheck;
use super::{RemoteSource, Shared};
use crate::error::TransferError;
use crate::limits::Verify;

mod arrive;
mod launch;
mod read;

/// Files up to this size are verified before their first byte (product promise 10).
pub(super) const SMALL: u64 = 1 << 20;
/// The largest read-ahead window when the cache takes the bytes.
const WINDOW: u64 = 64 << 20;

/// See the module's description.
#[derive(Debug)]
pub struct RemoteFile {
    handle: NodeHandle,
    size: u64,
    key: FileKey,
    cipher: ContentCipher,
    shared: Arc<Shared>,
    blob: OnceLock<Option<Arc<Blob>>>,
    /// Lock order: `table`, then the pool's lock or the blob's unit map. Never held across I/O or
    /// `await`.
    table: Mutex<UnitTable>,
    /// Changes whenever a unit arrives or a flight lands.
    changed: watch::Sender<u64>,
    url: UrlSlot,
    pub(super) whole: WholeCheck,
    /// The largest read-ahead window, in bytes.
    window: AtomicU64,
    /// Whether units that were read ahead have not been read yet.
    has_ahead: AtomicBool,
    /// Whether anybody has read yet.
    looked: AtomicBool,
    /// The content served did not match its MAC, twice.
    corrupt: AtomicBool,
    /// Nothing is returned before the whole file was verified.
    strict: AtomicBool,
    /// The address last given was that of six parts.
    striped: AtomicBool,
}

impl RemoteFile {
    pub(super) fn new(source: RemoteSource, shared: Arc<Shared>) -> Self {
        let strict = match shared.limits.verify {
            Verify::Background => source.size <= SMALL,
            Verify::BeforeRead => true,
            Verify::Off => false,
        };
        Self {
            handle: source.handle,
            size: source.size,
            cipher: ContentCipher::new(&source.key.aes_key(), &source.key.nonce()),
            key: source.key,
            shared,
            blob: OnceLock::new(),
            table: Mutex::default(),
            changed: watch::Sender::new(0),
            url: UrlSlot::default(),
            whole: WholeCheck::default(),
            window: AtomicU64::new(WINDOW),
            has_ahead: AtomicBool::new(false),
            looked: AtomicBool::new(false),
            corrupt: AtomicBool::new(false),
            strict: AtomicBool::new(strict),
            striped: AtomicBool::new(false),
        }
    }

    /// The node whose content this is.
    #[must_use]
    pub fn handle(&self) -> NodeHandle {
        self.handle
    }

    /// The content's length in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether the content served was found not to match its MAC, twice; reads fail from then on.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        self.corrupt.load(Ordering::Acquire)
    }

    /// Whether the whole content is cached and was verified: at some time, or since this process runs if nothing
    /// may be returned unverified. That is cheap for small files, and disks do lose bits.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        if self.size == 0 {
            return true;
        }
        // The blob's own mark ends when a unit goes; what arrived since through us ends it as well.
        let fresh = self.whole.has_arrivals() && !self.whole.is_memory_verified();
        let is_strict = self.is_strict();
        !fresh
            && self.blob().is_some_and(|blob| {
                let is_verified = if is_strict {
                    blob.is_verified_now()
                } else {
                    blob.is_verified()
                };
                is_verified && blob.is_complete()
            })
    }

    /// The cached ciphertext, if the cache is on.
    #[must_use]
    pub fn blob(&self) -> Option<&Arc<Blob>> {
        let open = || match self.shared.store.cache().open(self.handle, self.size) {
            Ok(blob) => Some(blob),
            Err(error) => {
                tracing::debug!(node = %self.handle, %error, "not cached on disk");
                None
            }
        };
        self.blob.get_or_init(open).as_ref()
    }

    pub(super) fn decrypt(&self, offset: u64, buffer: &mut [u8]) {
        self.cipher.apply(offset, buffer);
    }

    pub(super) fn cipher(&self) -> &ContentCipher {
        &self.cipher
    }

    /// Runs arithmetic or disk work on a blocking thread.
    pub(super) fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Work<T> {
        Work(self.shared.runtime.spawn_blocking(work))
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits until no arrived unit is still to be written to disk.
    pub(super) async fn settled(&self) -> Result<(), TransferError> {
        let mut changed = self.subscribe();
        while !self.table().is_settled() {
            let limit = self.shared.limits.timeout;
            if timeout(limit, changed.changed()).await.is_err() {
                return Err(TransferError::Timeout);
            }
        }
        Ok(())
    }

    pub(super) fn is_strict(&self) -> bool {
        self.strict.load(Ordering::Acquire)
    }

    /// Verified on disk, or verified in memory with nothing new since.
    fn is_whole_verified(&self) -> bool {
        self.is_verified() || self.whole.is_memory_verified()
    }

    pub(super) fn key(&self) -> &FileKey {
        &self.key
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) async fn url(&self, spent: Option<u64>) -> Result<DownloadUrl, TransferError> {
        let slot = &self.url;
        let url = slot
            .get(&self.shared, self.handle, self.size, spent)
            .await?;
        self.striped
            .store(url.origin.is_striped(), Ordering::Relaxed);
        Ok(url)
    }

    /// Ranges fetched ahead at a time: those of a striped file take several connections each.
    fn streams(&self) -> usize {
        let connections = self.shared.limits.connections();
        if self.striped.load(Ordering::Relaxed) {
            connections.div_ceil(striped::WIDTH)
        } else {
            connections
        }
    }

    pub(super) async fn url_spent(&self, generation: u64) {
        self.url.expire(&self.shared, self.handle, generation).await;
    }

    /// The largest window: less once what was read ahead had gone before it was read.
    fn window(&self) -> u64 {
        let window = self.window.load(Ordering::Relaxed);
        match self.blob() {
            // What is read ahead must still be there when it is read.
            Some(_) => window.min(self.shared.store.cache().capacity() / 4),
            None => window.min(self.shared.pool.capacity() / 4),
        }
    }

    fn clamp(&self, offset: u64, len: usize) -> Range<u64> {
        let start = offset.min(self.size);
        start..start.saturating_add(len as u64).min(self.size)
    }

    pub(super) fn bump(&self) {
        self.changed
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    fn table(&self) -> MutexGuard<'_, UnitTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Work on a blocking thread.
pub(super) struct Work<T>(JoinHandle<T>);

impl<T> Future for Work<T> {
    type Output = Result<T, TransferError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map_err(|_| TransferError::WorkerDied)
    }
}

pub(super) fn store_error(error: mega_store::StoreError) -> TransferError {
    TransferError::Store(Arc::new(error))
}
