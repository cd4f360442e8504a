//! Every error's errno, in one place (protocol/01 section 5, protocol/04 section 7).

use mega_api::ApiError;
use mega_proto::ErrorCode;
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
        TransferError::Api(error) => api_errno(error),
        TransferError::Corrupt
        | TransferError::CannotVerify
        | TransferError::Expired
        | TransferError::SizeMismatch { .. }
        | TransferError::Short
        | TransferError::UploadLost
        | TransferError::Storage(_)
        | TransferError::Source(_)
        | TransferError::Random
        | TransferError::WorkerDied => Errno::IO,
    };
    tracing::warn!(%error, %errno, "transfer");
    errno
}

/// What an application sees when a command fails that it has to wait for.
fn api_errno(error: &ApiError) -> Errno {
    match error {
        ApiError::Timeout
        | ApiError::Network(_)
        | ApiError::Status(_)
        | ApiError::Hashcash
        | ApiError::Busy(_) => Errno::TIMEDOUT,
        ApiError::OverQuota { .. } => Errno::DQUOT,
        ApiError::SessionDead
        | ApiError::NoSession
        | ApiError::WrongPassword
        | ApiError::UnknownUser
        | ApiError::OldPassword
        | ApiError::TwoFactorNeeded
        | ApiError::TwoFactorWrong
        | ApiError::TwoFactorSource(_)
        | ApiError::Unconfirmed
        | ApiError::AccountVersion(_)
        | ApiError::Blocked { .. } => Errno::ACCESS,
        ApiError::Refused(code) => code_errno(*code),
        ApiError::OutcomeUnknown(cause) => api_errno(cause),
        ApiError::Config(_)
        | ApiError::Tls(_)
        | ApiError::BadReply(_)
        | ApiError::Sink(_)
        | ApiError::Internal(_) => Errno::IO,
    }
}

/// The last column of the table of error numbers (protocol/01 section 5.1).
fn code_errno(code: ErrorCode) -> Errno {
    match code {
        ErrorCode::Args | ErrorCode::Circular => Errno::INVAL,
        ErrorCode::Again | ErrorCode::RateLimit | ErrorCode::TempUnavailable => Errno::TIMEDOUT,
        ErrorCode::TooMany | ErrorCode::TooManyConnections => Errno::BUSY,
        ErrorCode::NotFound => Errno::NOENT,
        ErrorCode::Exists => Errno::EXIST,
        ErrorCode::Access
        | ErrorCode::Session
        | ErrorCode::Blocked
        | ErrorCode::AppKey
        | ErrorCode::MfaRequired
        | ErrorCode::SubUserKeyMissing => Errno::ACCESS,
        ErrorCode::OverQuota
        | ErrorCode::GoingOverQuota
        | ErrorCode::BusinessPastDue
        | ErrorCode::Paywall => Errno::DQUOT,
        ErrorCode::RolledBack => Errno::AGAIN,
        ErrorCode::MasterOnly => Errno::PERM,
        ErrorCode::Internal
        | ErrorCode::Failed
        | ErrorCode::Range
        | ErrorCode::Expired
        | ErrorCode::Incomplete
        | ErrorCode::Key
        | ErrorCode::Write
        | ErrorCode::Read
        | ErrorCode::Ssl
        | ErrorCode::WebClient400
        | ErrorCode::WebClient401
        | ErrorCode::Unknown(_) => Errno::IO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_learns_what_it_can_do_about_it() {
        let seen = |error| transfer_errno(&TransferError::Api(error));
        assert_eq!(seen(ApiError::Timeout), Errno::TIMEDOUT);
        assert_eq!(seen(ApiError::SessionDead), Errno::ACCESS);
        assert_eq!(seen(ApiError::Busy(ErrorCode::Again)), Errno::TIMEDOUT);
        let paywall = ApiError::from_code(ErrorCode::Paywall);
        assert_eq!(seen(paywall), Errno::DQUOT);
        let unknown = ApiError::OutcomeUnknown(Box::new(ApiError::Timeout));
        assert_eq!(seen(unknown), Errno::TIMEDOUT);
        let code = |code| seen(ApiError::Refused(ErrorCode::from_code(code)));
        assert_eq!(code(-11), Errno::ACCESS);
        assert_eq!(code(-27), Errno::PERM);
        assert_eq!(code(-77), Errno::IO);
    }
}
