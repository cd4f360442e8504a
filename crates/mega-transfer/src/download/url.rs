//! The download URL of one file: asked for once, shared by its connections, replaced when spent.

use std::sync::Arc;

use mega_api::Api;
use mega_proto::NodeHandle;
use tokio::sync::Mutex;

use super::quota::QuotaGate;
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
    url: Option<Arc<str>>,
    generation: u64,
}

/// A URL and which of the file's URLs it is.
#[derive(Clone)]
pub(crate) struct DownloadUrl {
    pub(crate) text: Arc<str>,
    pub(crate) generation: u64,
}

impl UrlSlot {
    /// The URL; a new one if there is none or the present one is number `spent`.
    pub(crate) async fn get(
        &self,
        api: &Api,
        node: NodeHandle,
        size: u64,
        spent: Option<u64>,
        quota: &QuotaGate,
    ) -> Result<DownloadUrl, TransferError> {
        let mut slot = self.slot.lock().await;
        if spent == Some(slot.generation) {
            slot.url = None;
        }
        let text = match &slot.url {
            Some(url) => Arc::clone(url),
            None => {
                quota.check()?;
                let target = api.download_url(node).await.map_err(|error| {
                    let error = download_error(error);
                    if let TransferError::OverQuota { until } = error {
                        quota.shut(until);
                    }
                    error
                })?;
                if target.size != size {
                    return Err(TransferError::SizeMismatch {
                        expected: size,
                        served: target.size,
                    });
                }
                let url: Arc<str> = target
                    .urls
                    .first()
                    .ok_or(TransferError::Gone)?
                    .as_str()
                    .into();
                slot.generation += 1;
                slot.url = Some(Arc::clone(&url));
                url
            }
        };
        Ok(DownloadUrl {
            text,
            generation: slot.generation,
        })
    }

    /// The URL with this number is not to be used again.
    pub(crate) async fn expire(&self, generation: u64) {
        let mut slot = self.slot.lock().await;
        if slot.generation == generation {
            slot.url = None;
        }
    }

    /// No URL known so far is to be used again.
    pub(crate) async fn expire_any(&self) {
        self.slot.lock().await.url = None;
    }
}
