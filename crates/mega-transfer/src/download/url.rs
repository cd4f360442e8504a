//! The download URL of one file: asked for once, shared by its connections, replaced when spent.

use std::sync::Arc;

use mega_api::{ApiError, DownloadTarget};
use mega_proto::NodeHandle;
use tokio::sync::Mutex;

use super::Shared;
use super::origin::Origin;
use super::remote::download_error;
use crate::error::TransferError;

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct UrlSlot {
    // Held while asking: the wait of the others is the point.
    slot: Mutex<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    origin: Option<Arc<Origin>>,
    generation: u64,
}

/// A URL and which of the file's URLs it is.
#[derive(Clone)]
pub(crate) struct DownloadUrl {
    pub(crate) origin: Arc<Origin>,
    pub(crate) generation: u64,
}

impl UrlSlot {
    /// The URL; a new one if there is none or the present one is number `spent`.
    pub(crate) async fn get(
        &self,
        shared: &Shared,
        node: NodeHandle,
        size: u64,
        spent: Option<u64>,
    ) -> Result<DownloadUrl, TransferError> {
        let mut slot = self.slot.lock().await;
        if spent == Some(slot.generation) {
            slot.forget(shared, node);
        }
        let origin = match &slot.origin {
            Some(origin) => Arc::clone(origin),
            None => {
                let origin = match shared.urls.get(node) {
                    Some(known) => known,
                    None => {
                        shared.quota.check()?;
                        let answer = shared.api.download_url(node).await;
                        shared.note_url(node, size, answer)?
                    }
                };
                slot.generation += 1;
                slot.origin = Some(Arc::clone(&origin));
                origin
            }
        };
        Ok(DownloadUrl {
            origin,
            generation: slot.generation,
        })
    }

    /// The URL with this number is not to be used again.
    pub(crate) async fn expire(&self, shared: &Shared, node: NodeHandle, generation: u64) {
        let mut slot = self.slot.lock().await;
        if slot.generation == generation {
            slot.forget(shared, node);
        }
    }

    /// No URL known so far is to be used again.
    pub(crate) async fn expire_any(&self, shared: &Shared, node: NodeHandle) {
        self.slot.lock().await.forget(shared, node);
        if let Some(origin) = shared.urls.get(node) {
            shared.urls.strike(node, &origin);
        }
    }
}

impl Slot {
    fn forget(&mut self, shared: &Shared, node: NodeHandle) {
        if let Some(origin) = self.origin.take() {
            shared.urls.strike(node, &origin);
        }
    }
}

impl Shared {
    /// Takes what `g` answered about a node of `size` bytes: its URL goes into the book.
    pub(super) fn note_url(
        &self,
        node: NodeHandle,
        size: u64,
        answer: Result<DownloadTarget, ApiError>,
    ) -> Result<Arc<Origin>, TransferError> {
        let target = answer.map_err(|error| {
            let error = download_error(error);
            if let TransferError::OverQuota { until } = error {
                self.quota.shut(until);
            }
            error
        })?;
        if target.size != size {
            return Err(TransferError::SizeMismatch {
                expected: size,
                served: target.size,
            });
        }
        let origin = Origin::new(target.urls).ok_or(TransferError::Gone)?;
        let origin = Arc::new(origin);
        self.urls.put(node, Arc::clone(&origin));
        Ok(origin)
    }
}
