//! Every error's errno, in one place (protocol/01 section 5, protocol/04 section 7).

use mega_store::StoreError;
use mega_transfer::TransferError;
use rustix::io::Errno;

/// What an application sees when the store fails.
pub(crate) fn store_errno(error: &StoreError) -> Errno {
    match error {
        StoreError::DiskFull => Errno::NOSPC,
        other => {
            tracing::error!(error = %other, "state store");
            Errno::IO
        }
    }
}

/// What an application sees when a transfer fails.
pub(crate) fn transfer_errno(error: &TransferError) -> Errno {
    let errno = match error {
        TransferError::OverQuota { .. } | TransferError::StorageQuota => Errno::DQUOT,
        TransferError::Gone => Errno::STALE,
        TransferError::Refused => Errno::ACCESS,
        TransferError::Timeout | TransferError::Busy => Errno::TIMEDOUT,
        TransferError::Cancelled => Errno::INTR,
        TransferError::Store(error) => return store_errno(error),
        TransferError::Corrupt
        | TransferError::CannotVerify
        | TransferError::Expired
        | TransferError::SizeMismatch { .. }
        | TransferError::Short
        | TransferError::UploadLost
        | TransferError::Storage(_)
        | TransferError::Api(_)
        | TransferError::Source(_)
        | TransferError::Random
        | TransferError::WorkerDied => Errno::IO,
    };
    tracing::warn!(%error, %errno, "transfer");
    errno
}
