//! What can go wrong with the API, by situation, and what to do about it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mega_proto::ErrorCode;

use crate::retry::{Retry, policy};

/// A failure below HTTP, or in it. Never contains an address.
#[derive(Debug, Clone)]
pub struct NetworkError(Arc<reqwest::Error>);

impl NetworkError {
    pub(crate) fn new(error: reqwest::Error) -> Self {
        Self(Arc::new(error.without_url()))
    }

    /// Whether no connection came about, so that nothing can have been executed.
    pub(crate) fn is_connect(&self) -> bool {
        self.0.is_connect()
    }

    /// Whether TLS refused the peer.
    pub(crate) fn is_tls(&self) -> bool {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&*self.0);
        while let Some(error) = source {
            if error.is::<rustls::Error>() {
                return true;
            }
            let inner = error
                .downcast_ref::<std::io::Error>()
                .and_then(std::io::Error::get_ref);
            source = match inner {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        false
    }
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The innermost cause is the one that helps ("connection refused", "invalid peer certificate").
        let mut error: &dyn std::error::Error = &*self.0;
        while let Some(source) = error.source() {
            error = source;
        }
        write!(f, "{error}")
    }
}

impl std::error::Error for NetworkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// What a sink of `fetch_tree` fails with.
pub type SinkError = Box<dyn std::error::Error + Send + Sync>;

/// Why a call did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ApiError {
    /// The options make no sense: a bad proxy, an unreadable certificate.
    #[error("{0}")]
    Config(String),
    /// Wrong e-mail address or password; the service does not say which.
    #[error("wrong e-mail address or password")]
    WrongPassword,
    /// There is no account of that e-mail address; the service says so for some addresses.
    #[error("there is no such account")]
    UnknownUser,
    /// Wrong e-mail address or password, of an account of version 1 and with a password beyond ASCII, which
    /// programs derive in different ways: all that are known were tried.
    #[error("wrong e-mail address or password")]
    OldPassword,
    /// The account needs a two-factor code and none was given.
    #[error("the account needs a two-factor code")]
    TwoFactorNeeded,
    /// The two-factor code was refused.
    #[error("the two-factor code is wrong")]
    TwoFactorWrong,
    /// The two-factor code could not be had.
    #[error("no two-factor code: {0}")]
    TwoFactorSource(String),
    /// The account was never confirmed by e-mail.
    #[error("the account was never confirmed; follow the link in the e-mail you got")]
    Unconfirmed,
    /// An account of a version this program cannot log in to.
    #[error("the account has version {0}, which this program does not know")]
    AccountVersion(i64),
    /// The account is blocked. `reason` as in `protocol/01` section 5.3, if it was asked for.
    #[error("the account is blocked by the service{}", .reason.map(|r| format!(" (reason {r})")).unwrap_or_default())]
    Blocked {
        /// The number of `whyamiblocked`.
        reason: Option<i64>,
    },
    /// The session has ended and logging in again is not possible, or was done already.
    #[error("the session has ended; log in again")]
    SessionDead,
    /// No session is installed.
    #[error("not logged in")]
    NoSession,
    /// The service refused.
    #[error("{0}")]
    Refused(ErrorCode),
    /// No quota for this.
    #[error("{code}")]
    OverQuota {
        /// Which kind: storage (-17, -24, -29) or, for downloads, transfer (-17).
        code: ErrorCode,
        /// When there is transfer quota again.
        wait: Option<Duration>,
    },
    /// The service stayed busy until patience ended. Nothing was executed.
    #[error("the service stayed busy ({0})")]
    Busy(ErrorCode),
    /// The service could not be reached.
    #[error("cannot reach the service: {0}")]
    Network(#[source] NetworkError),
    /// The service answered with an HTTP status that is no answer.
    #[error("the service answered with HTTP status {0}")]
    Status(u16),
    /// The peer's certificate is not trusted.
    #[error("the server's certificate is not trusted: {0}")]
    Tls(#[source] NetworkError),
    /// Nothing came for the whole inactivity time.
    #[error("the service did not answer in time")]
    Timeout,
    /// The answer makes no sense.
    #[error("the service's answer could not be used: {0}")]
    BadReply(&'static str),
    /// The reply was lost and asking again did not help: it may have been executed, or not.
    #[error("it is not known whether the service did it: {0}")]
    OutcomeUnknown(#[source] Box<Self>),
    /// The proof of work could not be found in time.
    #[error("the service's proof-of-work challenge could not be solved")]
    Hashcash,
    /// The receiver of the tree failed.
    #[error("the tree could not be taken in: {0}")]
    Sink(Arc<dyn std::error::Error + Send + Sync>),
    /// The program itself failed: a worker thread died, or there was no randomness.
    #[error("internal failure: {0}")]
    Internal(&'static str),
}

/// Groups of errors that end a program the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The options are wrong.
    Usage,
    /// Credentials or second factor are wrong or missing.
    Credentials,
    /// The account cannot be used: unconfirmed, blocked, unknown version.
    Account,
    /// The session has ended.
    Session,
    /// Quota.
    Quota,
    /// The network, or a busy service: later it may work.
    Network,
    /// The service refused.
    Refused,
    /// A fault of this program or of the service.
    Fault,
}

impl ApiError {
    /// The error for a code, given for a whole batch or for one command.
    #[must_use]
    pub const fn from_code(code: ErrorCode) -> Self {
        match code {
            ErrorCode::Session => Self::SessionDead,
            ErrorCode::Again | ErrorCode::RateLimit => Self::Busy(code),
            ErrorCode::OverQuota | ErrorCode::GoingOverQuota | ErrorCode::Paywall => {
                Self::OverQuota { code, wait: None }
            }
            other => Self::Refused(other),
        }
    }

    pub(crate) fn from_network(error: reqwest::Error) -> Self {
        let error = NetworkError::new(error);
        if error.is_tls() {
            Self::Tls(error)
        } else {
            Self::Network(error)
        }
    }

    /// The number of the service behind it, if there is one.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(code) | Self::Busy(code) | Self::OverQuota { code, .. } => Some(*code),
            Self::SessionDead => Some(ErrorCode::Session),
            Self::Blocked { .. } => Some(ErrorCode::Blocked),
            Self::OutcomeUnknown(cause) => cause.code(),
            Self::Config(_)
            | Self::WrongPassword
            | Self::UnknownUser
            | Self::OldPassword
            | Self::TwoFactorNeeded
            | Self::TwoFactorWrong
            | Self::TwoFactorSource(_)
            | Self::Unconfirmed
            | Self::AccountVersion(_)
            | Self::NoSession
            | Self::Network(_)
            | Self::Status(_)
            | Self::Tls(_)
            | Self::Timeout
            | Self::BadReply(_)
            | Self::Hashcash
            | Self::Sink(_)
            | Self::Internal(_) => None,
        }
    }

    /// What the caller should do next. Delays and re-logins that the API layer does by itself have been
    /// done already when an error comes out of it.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Config(_)
            | Self::WrongPassword
            | Self::UnknownUser
            | Self::OldPassword
            | Self::TwoFactorNeeded
            | Self::TwoFactorWrong
            | Self::TwoFactorSource(_)
            | Self::Unconfirmed
            | Self::AccountVersion(_)
            | Self::Blocked { .. }
            | Self::Tls(_)
            | Self::Sink(_)
            | Self::Internal(_) => Retry::Never,
            Self::SessionDead | Self::NoSession => Retry::Relogin,
            Self::Refused(code) | Self::Busy(code) => policy(*code).api,
            Self::OverQuota {
                wait: Some(wait), ..
            } => Retry::After(*wait),
            Self::OverQuota { wait: None, .. } => Retry::Never,
            Self::Network(_) | Self::Status(_) | Self::Timeout | Self::Hashcash => Retry::Backoff,
            Self::BadReply(_) => Retry::Few,
            Self::OutcomeUnknown(_) => Retry::Look,
        }
    }

    /// Which group it belongs to, for exit codes.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Config(_) => ErrorClass::Usage,
            Self::WrongPassword
            | Self::UnknownUser
            | Self::OldPassword
            | Self::TwoFactorNeeded
            | Self::TwoFactorWrong
            | Self::TwoFactorSource(_) => ErrorClass::Credentials,
            Self::Unconfirmed | Self::AccountVersion(_) | Self::Blocked { .. } => {
                ErrorClass::Account
            }
            Self::SessionDead | Self::NoSession => ErrorClass::Session,
            Self::OverQuota { .. } => ErrorClass::Quota,
            Self::Busy(_)
            | Self::Network(_)
            | Self::Status(_)
            | Self::Tls(_)
            | Self::Timeout
            | Self::Hashcash => ErrorClass::Network,
            Self::Refused(_) => ErrorClass::Refused,
            Self::OutcomeUnknown(cause) => cause.class(),
            Self::BadReply(_) | Self::Sink(_) | Self::Internal(_) => ErrorClass::Fault,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_situations() {
        assert!(matches!(
            ApiError::from_code(ErrorCode::Session),
            ApiError::SessionDead
        ));
        assert!(matches!(
            ApiError::from_code(ErrorCode::Paywall),
            ApiError::OverQuota { .. }
        ));
        assert!(matches!(
            ApiError::from_code(ErrorCode::Again),
            ApiError::Busy(_)
        ));
        let gone = ApiError::from_code(ErrorCode::NotFound);
        assert_eq!(
            (gone.retry(), gone.class()),
            (Retry::Never, ErrorClass::Refused)
        );
        let unknown = ApiError::OutcomeUnknown(Box::new(ApiError::Timeout));
        assert_eq!(
            (unknown.retry(), unknown.class()),
            (Retry::Look, ErrorClass::Network)
        );
    }
}
