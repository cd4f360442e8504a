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

use bytes::{Bytes, BytesMut};
use mega_crypto::{ContentCipher, FileKey};
use mega_proto::NodeHandle;
use mega_store::{Blob, UNIT};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::cursor::{Ahead, ReadCursor};
use super::flight::Flight;
use super::span::{overlap, range_len, unit_len, units_of};
use super::striped;
use super::units::UnitTable;
use super::url::{DownloadUrl, UrlSlot};
use super::whole::WholeCheck;
use super::{RemoteSource, Shared};
use crate::error::TransferError;
use crate::limits::Verify;
use crate::runtime::InRuntime;

mod arrive;
mod launch;

use launch::Arrival;

/// Files up to this size are verified before their first byte (product promise 10).
pub(super) const SMALL: u64 = 1 << 20;
/// The largest read-ahead window when the cache takes the bytes.
const WINDOW: u64 = 64 << 20;
/// What one step of [`RemoteFile::hydrate`] reads.
const HYDRATE_STEP: u64 = 1 << 20;

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

    /// Whether the whole content is cached and was verified.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        if self.size == 0 {
            return true;
        }
        // The blob's own mark ends when a unit goes; what arrived since through us ends it as well.
        let fresh = self.whole.has_arrivals() && !self.whole.is_memory_verified();
        !fresh
            && self
                .blob()
                .is_some_and(|blob| blob.is_verified() && blob.is_complete())
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

    /// Decrypted bytes if they are here (and verified where that is asked for): `len` of them from
    /// `offset`, fewer only at the end of the file. `None` means that [`read`](Self::read) is needed.
    ///
    /// Never waits for the network. Does not advance read-ahead.
    ///
    /// # Errors
    /// [`TransferError::Corrupt`]; failures of the local disk.
    pub fn try_read(&self, offset: u64, len: usize) -> Result<Option<Bytes>, TransferError> {
        self.try_range(&self.clamp(offset, len))
    }

    /// Decrypted bytes: `len` of them from `offset`, fewer only at the end of the file.
    ///
    /// Ready at the first poll when the bytes are here. May be polled outside of the runtime and be
    /// dropped at any time.
    ///
    /// # Errors
    /// [`TransferError::Timeout`] at the deadline; [`TransferError::OverQuota`] at once while the
    /// quota is known to be exhausted; others as their descriptions say.
    pub async fn read(
        self: &Arc<Self>,
        offset: u64,
        len: usize,
        cursor: &ReadCursor,
    ) -> Result<Bytes, TransferError> {
        let range = self.clamp(offset, len);
        cursor.watch(&self.shared.habit, self.size);
        let ahead = cursor.note(&range, self.window());
        if !self.looked.swap(true, Ordering::Relaxed) {
            // Complete since an earlier run that did not come to verify it.
            self.check_if_complete();
        }
        if let Some(bytes) = self.try_range(&range)? {
            self.consumed(&range);
            if let Some(ahead) = ahead {
                self.launch_ahead(ahead);
            }
            return Ok(bytes);
        }
        let this = Arc::clone(self);
        InRuntime::new(&self.shared.runtime, async move {
            this.read_slow(range, ahead).await
        })
        .await
    }

    /// Reads `range` from its start to its end, giving the plaintext piecewise to `sink` as
    /// `(offset, bytes)`.
    ///
    /// # Errors
    /// Those of [`read`](Self::read); what `sink` fails with, as [`TransferError::Source`].
    pub async fn hydrate<F>(
        self: &Arc<Self>,
        range: Range<u64>,
        mut sink: F,
    ) -> Result<(), TransferError>
    where
        F: FnMut(u64, Bytes) -> std::io::Result<()> + Send,
    {
        let cursor = ReadCursor::streaming(range.start);
        let end = range.end.min(self.size);
        let mut offset = range.start;
        while offset < end {
            let len = usize::try_from((end - offset).min(HYDRATE_STEP)).unwrap_or(usize::MAX);
            let bytes = self.read(offset, len, &cursor).await?;
            let count = bytes.len() as u64;
            sink(offset, bytes).map_err(|error| TransferError::Source(Arc::new(error)))?;
            offset += count;
        }
        Ok(())
    }

    async fn read_slow(
        self: Arc<Self>,
        range: Range<u64>,
        ahead: Option<Ahead>,
    ) -> Result<Bytes, TransferError> {
        let wanted = Wanted::new(&self, units_of(&range));
        let mut deadline = Instant::now() + self.shared.limits.timeout;
        let mut watching = Vec::new();
        let mut arrival = Arrival::First;
        let mut ahead = ahead;
        loop {
            if self.is_strict() && !self.is_whole_verified() {
                if let Some(pieces) = self.verified().await? {
                    return Ok(self.decrypted(&range, |unit| pieces.get(unit as usize).cloned()));
                }
                deadline = Instant::now() + self.shared.limits.timeout;
            }
            let mut changed = self.changed.subscribe();
            let is_pending = self.launch_demanded(&range, &mut watching, arrival)?;
            arrival = Arrival::Again;
            if let Some(ahead) = ahead.take() {
                self.launch_ahead(ahead);
            }
            if let Some(bytes) = self.try_range(&range)? {
                self.consumed(&range);
                drop(wanted);
                return Ok(bytes);
            }
            settle(&mut watching)?;
            if is_pending {
                let waited = timeout_at(deadline, changed.changed()).await;
                waited
                    .map_err(|_| TransferError::Timeout)?
                    .map_err(|_| TransferError::WorkerDied)?;
            } else if Instant::now() >= deadline {
                return Err(TransferError::Timeout);
            } else {
                // Thrown out of the cache between two looks: what comes now stays in memory.
                tokio::task::yield_now().await;
            }
        }
    }

    /// All bytes of a range as ciphertext units, fetching what is missing; for whole-file checks.
    /// Fails after the timeout without any progress.
    pub(super) async fn collect(
        self: &Arc<Self>,
        units: Range<u64>,
    ) -> Result<Vec<Bytes>, TransferError> {
        let range = units.start * UNIT..(units.end * UNIT).min(self.size);
        let _wanted = Wanted::new(self, units.clone());
        let mut watching = Vec::new();
        let mut arrival = Arrival::First;
        loop {
            let mut changed = self.changed.subscribe();
            let is_pending = self.launch_demanded(&range, &mut watching, arrival)?;
            arrival = Arrival::Again;
            let mut pieces =
                Vec::with_capacity(usize::try_from(units.end - units.start).unwrap_or(0));
            for unit in units.clone() {
                match self.unit(unit)? {
                    Some(piece) => pieces.push(piece),
                    None => break,
                }
            }
            if pieces.len() as u64 == units.end - units.start {
                return Ok(pieces);
            }
            settle(&mut watching)?;
            if !is_pending {
                // Thrown out of the cache between two looks: what comes now stays in memory.
                tokio::task::yield_now().await;
                continue;
            }
            let deadline = Instant::now() + self.shared.limits.timeout;
            if timeout_at(deadline, changed.changed()).await.is_err() {
                return Err(TransferError::Timeout);
            }
        }
    }

    /// One unit's ciphertext from wherever it is.
    fn unit(&self, unit: u64) -> Result<Option<Bytes>, TransferError> {
        if let Some(data) = self.in_memory(unit) {
            return Ok(Some(data));
        }
        let Some(blob) = self.blob() else {
            return Ok(None);
        };
        let mut data = BytesMut::zeroed(unit_len(unit, self.size));
        let whole = blob.read_at(unit * UNIT, &mut data).map_err(store_error)?;
        Ok(whole.then(|| data.freeze()))
    }

    fn in_memory(&self, unit: u64) -> Option<Bytes> {
        let here = self.table().data(unit);
        here.or_else(|| self.shared.pool.get(self.handle, unit))
    }

    fn try_range(&self, range: &Range<u64>) -> Result<Option<Bytes>, TransferError> {
        if range.is_empty() {
            return Ok(Some(Bytes::new()));
        }
        if self.is_corrupt() {
            return Err(TransferError::Corrupt);
        }
        if self.is_strict() && !self.is_whole_verified() {
            return Ok(None);
        }
        let mut buffer = BytesMut::zeroed(range_len(range));
        if let Some(blob) = self.blob()
            && blob
                .read_at(range.start, &mut buffer)
                .map_err(store_error)?
        {
            self.decrypt(range.start, &mut buffer);
            return Ok(Some(buffer.freeze()));
        }
        // Some of it is in memory only.
        for unit in units_of(range) {
            let (from, to) = overlap(range, unit);
            let Some(target) = buffer.get_mut(from..to) else {
                return Ok(None);
            };
            let within = usize::try_from((range.start + from as u64) - unit * UNIT).unwrap_or(0);
            if let Some(data) = self.in_memory(unit) {
                let Some(data) = data.get(within..within + target.len()) else {
                    return Ok(None);
                };
                target.copy_from_slice(data);
            } else {
                let Some(blob) = self.blob() else {
                    return Ok(None);
                };
                let at = range.start + from as u64;
                if !blob.read_at(at, target).map_err(store_error)? {
                    return Ok(None);
                }
            }
        }
        self.decrypt(range.start, &mut buffer);
        Ok(Some(buffer.freeze()))
    }

    /// Plaintext of a range out of complete units.
    fn decrypted(&self, range: &Range<u64>, unit_data: impl Fn(u64) -> Option<Bytes>) -> Bytes {
        let mut buffer = BytesMut::with_capacity(range_len(range));
        for unit in units_of(range) {
            let (from, to) = overlap(range, unit);
            let within = usize::try_from((range.start + from as u64) - unit * UNIT).unwrap_or(0);
            if let Some(data) = unit_data(unit)
                .as_ref()
                .and_then(|d| d.get(within..within + to - from))
            {
                buffer.extend_from_slice(data);
            }
        }
        self.decrypt(range.start, &mut buffer);
        buffer.freeze()
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

/// Keeps arriving units in memory for a reader until it is gone.
struct Wanted {
    file: Arc<RemoteFile>,
    units: Range<u64>,
}

impl Wanted {
    fn new(file: &Arc<RemoteFile>, units: Range<u64>) -> Self {
        file.table().want(units.clone());
        Self {
            file: Arc::clone(file),
            units,
        }
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.file.table().unwant(self.units.clone());
    }
}

/// Fails with what ended a flight somebody waits for. A background failure is no answer to a reader: it
/// is forgotten and the next round launches anew.
fn settle(watching: &mut Vec<Arc<Flight>>) -> Result<(), TransferError> {
    let passes = |flight: &Flight| {
        let error = flight.error();
        error.is_some_and(|error| error.is_passing() && flight.is_ahead())
    };
    watching.retain(|flight| !passes(flight));
    let failed = watching.iter().find_map(|flight| flight.error());
    failed
        .filter(|error| !matches!(error, TransferError::Cancelled))
        .map_or(Ok(()), |error| Err(error.clone()))
}

pub(super) fn store_error(error: mega_store::StoreError) -> TransferError {
    TransferError::Store(Arc::new(error))
}
