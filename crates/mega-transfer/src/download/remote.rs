//! What the API's errors mean for a download.

use std::time::{Duration, Instant};

use mega_api::ApiError;
use mega_proto::ErrorCode;

use crate::error::TransferError;

/// How long the quota is taken to be exhausted when the server does not say (protocol/04 section 1).
const UNSAID: Duration = Duration::from_secs(3600);

/// The meaning of a failed `g`.
pub(super) fn download_error(error: ApiError) -> TransferError {
    match error {
        ApiError::OverQuota { wait, .. } => TransferError::OverQuota {
            until: Instant::now() + wait.unwrap_or(UNSAID),
        },
        ApiError::Refused(ErrorCode::NotFound) => TransferError::Gone,
        ApiError::Refused(ErrorCode::Blocked | ErrorCode::Access) => TransferError::Refused,
        ApiError::Timeout => TransferError::Timeout,
        other => TransferError::Api(other),
    }
}
