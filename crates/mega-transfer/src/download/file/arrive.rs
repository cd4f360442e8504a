//! What happens to units that arrive, and to the file when they turn out to be wrong.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::{RemoteFile, store_error};
use crate::download::flight::Flight;
use crate::error::TransferError;
use crate::limits::Verify;

impl RemoteFile {
    /// A flight brought a unit: wake readers, then store it.
    pub(in crate::download) async fn unit_arrived(
        self: &Arc<Self>,
        flight: &Flight,
        unit: u64,
        data: Bytes,
    ) {
        self.whole.memory_changed();
        if !self.table().arrived(flight, unit, &data) {
            return;
        }
        if flight.is_ahead() {
            self.has_ahead.store(true, Ordering::Relaxed);
        }
        self.bump();
        let this = Arc::clone(self);
        // What has arrived is stored even when the flight is cancelled meanwhile; awaiting it keeps the
        // flight from receiving faster than the disk takes.
        let stored = self.blocking(move || this.store_unit(unit, data)).await;
        if stored.is_err() {
            self.table().stored(unit);
        }
    }

    /// Writes a unit to disk, or keeps it in memory for a while if the cache declines.
    fn store_unit(self: &Arc<Self>, unit: u64, data: Bytes) {
        let kept = match self.blob().map(|blob| blob.write_unit(unit, &data)) {
            Some(Ok(kept)) => kept,
            Some(Err(error)) => {
                tracing::debug!(node = %self.handle, unit, %error, "the cache declined a unit");
                false
            }
            None => false,
        };
        if !kept {
            self.shared.pool.put(self.handle, unit, data);
        }
        self.table().stored(unit);
        if self.is_strict() {
            self.bump();
        }
        if kept {
            self.check_if_complete();
        }
    }

    /// A flight ended.
    pub(in crate::download) fn landed(self: &Arc<Self>, flight: &Flight) {
        let intent = {
            let mut table = self.table();
            table.land(flight);
            let failed = flight.error().is_some();
            if failed { None } else { table.intent.take() }
        };
        self.bump();
        if let Some(ahead) = intent {
            self.launch_ahead(ahead);
        }
    }

    /// Once every unit is on disk: verify in the background unless that is done or not wanted.
    pub(super) fn check_if_complete(self: &Arc<Self>) {
        if !self.blob().is_some_and(|blob| blob.is_complete()) {
            return;
        }
        self.adopt_verdict();
        if self.shared.limits.verify != Verify::Off && !self.is_verified() {
            self.start_check();
        }
    }

    /// Drops everything fetched and the URL; from now on nothing is returned unverified.
    pub(in crate::download) async fn distrust(&self) -> Result<(), TransferError> {
        self.strict.store(true, Ordering::Release);
        self.url.expire_any(&self.shared, self.handle).await;
        self.table().ground();
        // A unit that is still being written must not come to lie under the good ones.
        self.settled().await?;
        self.table().clear();
        self.shared.pool.drop_node(self.handle);
        self.whole.memory_changed();
        if let Some(blob) = self.blob().cloned() {
            let dropped = self
                .shared
                .runtime
                .spawn_blocking(move || blob.drop_content())
                .await;
            dropped
                .map_err(|_| TransferError::WorkerDied)?
                .map_err(store_error)?;
        }
        Ok(())
    }

    pub(in crate::download) fn condemn(&self) {
        self.corrupt.store(true, Ordering::Release);
        self.bump();
    }
}
