//! Posting one piece until the server has it.
//!
//! The retained ciphertext is sent again unchanged; what the server's answers mean is protocol/04 section 5
//! and the upload column of `mega_api::policy`.

use mega_api::{ChunkAck, Retry, StorageError};
use mega_proto::{ErrorCode, UploadToken};

use super::attempt::{Attempt, Setback};
use super::prepare::Piece;
use crate::error::TransferError;

/// Posts the piece at `offset`; the token if it came with this one.
pub(super) async fn post(
    attempt: &Attempt,
    offset: u64,
    piece: &Piece,
) -> Result<Option<UploadToken>, Setback> {
    let shared = &attempt.job.shared;
    let mut failures = 0;
    loop {
        let posted =
            shared
                .api
                .post_chunk(&attempt.url, offset, piece.body.clone(), piece.checksum);
        let error = match posted.await {
            Ok(ChunkAck::Stored) => return Ok(None),
            Ok(ChunkAck::Complete(token)) => return Ok(Some(token)),
            Err(error) => error,
        };
        failures += 1;
        tracing::debug!(offset, failures, %error, "piece refused");
        let delay = match error.retry() {
            Retry::RestartUpload | Retry::FreshUrl => return Err(Setback::Lost(error)),
            Retry::Never => return Err(Setback::Fatal(fatal(error))),
            _ if attempt.silence() > shared.limits.patience => {
                return Err(Setback::Fatal(fatal(error)));
            }
            Retry::After(named) => shared.limits.patient_delay(named, failures),
            Retry::Few | Retry::Backoff | Retry::Relogin | Retry::Look | Retry::Refetch => {
                shared.limits.delay(failures)
            }
        };
        tokio::time::sleep(delay).await;
    }
}

fn fatal(error: StorageError) -> TransferError {
    match error {
        StorageError::Refused(
            ErrorCode::OverQuota | ErrorCode::GoingOverQuota | ErrorCode::Paywall,
        ) => TransferError::StorageQuota,
        StorageError::Timeout => TransferError::Timeout,
        other => TransferError::Storage(other),
    }
}
