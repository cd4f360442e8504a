//! Why a transfer failed, and whether it is worth another try.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mega_api::{ApiError, Retry, StorageError};
use mega_proto::ErrorCode;
use mega_store::StoreError;

/// How long to leave a full account alone before the next upload.
const QUOTA_PAUSE: Duration = Duration::from_secs(300);

/// A failed read or upload. Cloneable, because many readers may wait for the same bytes.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransferError {
    /// The transfer quota is exhausted; nothing is asked of the server before `until`.
    #[error("transfer quota exhausted")]
    OverQuota {
        /// When the server may be asked again.
        until: Instant,
    },
    /// The account's storage is full, or would be (`-17`, `-24`, `-29`).
    #[error("storage quota exhausted")]
    StorageQuota,
    /// The bytes served twice do not match the meta-MAC in the file's key.
    #[error("the file's content does not match its MAC")]
    Corrupt,
    /// The file is to be verified before it is read, and neither cache nor memory can hold it.
    #[error("the file cannot be verified before reading: the cache has no room for it")]
    CannotVerify,
    /// The node is not on the server any more (`-9`).
    #[error("the file is gone from the server")]
    Gone,
    /// The node is blocked (taken down, `-16`) or access to it was withdrawn (`-11`).
    #[error("access to the file is refused")]
    Refused,
    /// Fresh download URLs keep expiring.
    #[error("download URLs expire at once")]
    Expired,
    /// The server's size of the file is not the node's.
    #[error("the server has {served} bytes where the node says {expected}")]
    SizeMismatch {
        /// The node's size.
        expected: u64,
        /// What `g` answered.
        served: u64,
    },
    /// The storage server stays busy (429, 503).
    #[error("the storage server is busy")]
    Busy,
    /// Bodies keep ending early.
    #[error("the storage server sends less than was asked")]
    Short,
    /// The deadline passed, or nothing moved for too long.
    #[error("the transfer timed out")]
    Timeout,
    /// The upload was lost by the server again and again.
    #[error("the server lost the upload repeatedly")]
    UploadLost,
    /// The caller cancelled, or nobody wants the bytes any more.
    #[error("cancelled")]
    Cancelled,
    /// A storage request failed in another way.
    #[error("storage server: {0}")]
    Storage(#[source] StorageError),
    /// A command failed.
    #[error("{0}")]
    Api(#[source] ApiError),
    /// The local store failed.
    #[error("{0}")]
    Store(#[source] Arc<StoreError>),
    /// The bytes to upload could not be read.
    #[error("reading the bytes to upload: {0}")]
    Source(#[source] Arc<std::io::Error>),
    /// The operating system gave no random bytes for a key.
    #[error("no randomness from the operating system")]
    Random,
    /// A worker of this crate ended without an answer.
    #[error("a transfer worker died")]
    WorkerDied,
}

impl TransferError {
    /// What the caller should do next; quick repetitions have been done already.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::OverQuota { until } => {
                Retry::After(until.saturating_duration_since(Instant::now()))
            }
            Self::StorageQuota => Retry::After(QUOTA_PAUSE),
            // Our pieces do not fit together, and will not the next time.
            Self::Storage(StorageError::Refused(ErrorCode::Range)) => Retry::Never,
            Self::Expired
            | Self::Busy
            | Self::Short
            | Self::Timeout
            | Self::UploadLost
            | Self::Storage(_) => Retry::Backoff,
            Self::Api(error) => error.retry(),
            Self::Corrupt
            | Self::CannotVerify
            | Self::Gone
            | Self::Refused
            | Self::SizeMismatch { .. }
            | Self::Cancelled
            | Self::Store(_)
            | Self::Source(_)
            | Self::Random
            | Self::WorkerDied => Retry::Never,
        }
    }

    /// Whether another attempt at once, with more patience, makes sense: the failure of a read-ahead
    /// says nothing final to a reader who needs the bytes.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Expired
            | Self::Busy
            | Self::Short
            | Self::Timeout
            | Self::Storage(_)
            | Self::Cancelled
            | Self::WorkerDied => true,
            Self::OverQuota { .. }
            | Self::StorageQuota
            | Self::Corrupt
            | Self::CannotVerify
            | Self::Gone
            | Self::Refused
            | Self::SizeMismatch { .. }
            | Self::UploadLost
            | Self::Api(_)
            | Self::Store(_)
            | Self::Source(_)
            | Self::Random => false,
        }
    }
}
