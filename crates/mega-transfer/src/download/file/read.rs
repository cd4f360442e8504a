//! Reading: from where the bytes are, or once they have come.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use mega_store::UNIT;
use tokio::time::{Instant, timeout_at};

use super::launch::Arrival;
use super::{RemoteFile, store_error};
use crate::download::cursor::{Ahead, ReadCursor};
use crate::download::flight::Flight;
use crate::download::span::{overlap, range_len, unit_len, units_of};
use crate::error::TransferError;
use crate::runtime::InRuntime;

/// What one step of [`RemoteFile::hydrate`] reads.
const HYDRATE_STEP: u64 = 1 << 20;

impl RemoteFile {
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
    pub(in crate::download) async fn collect(
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
