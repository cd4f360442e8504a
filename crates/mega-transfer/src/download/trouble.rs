//! What can go wrong with one ranged request, and what to do about it (protocol/04 section 2).
//!
//! Pure policy: the table of remedies; `flight` carries them out.

use std::time::{Duration, Instant};

use mega_api::StorageError;

use crate::error::TransferError;
use crate::limits::TransferLimits;

/// Failures in a row after which a URL is no longer trusted, whatever the reason.
const FRESH_URL_AFTER: u32 = 3;

/// One failed request.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Trouble {
    /// 403 or 404.
    #[error("the download URL has expired")]
    Expired,
    /// 509.
    #[error("transfer quota exhausted")]
    Quota(Instant),
    /// 429 or 503.
    #[error("the storage server is busy")]
    Busy(Duration),
    /// Fewer bytes than asked for.
    #[error("the body ended early")]
    Short,
    /// Nothing moved for the stall limit, or next to nothing.
    #[error("the connection stalled")]
    Stalled,
    /// Anything else.
    #[error("{0}")]
    Broken(StorageError),
}

/// What to do after a failure.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Ask again, perhaps after a delay, perhaps with a fresh URL.
    Retry { delayed: bool, fresh_url: bool },
    /// Nothing before this instant.
    Quota(Instant),
    /// Enough.
    GiveUp,
}

impl Trouble {
    /// The remedy after `failures` failures without a byte in between, of which `attempts` are allowed.
    pub(crate) fn remedy(&self, failures: u32, attempts: u32) -> Remedy {
        if let Self::Quota(until) = self {
            return Remedy::Quota(*until);
        }
        if failures >= attempts {
            return Remedy::GiveUp;
        }
        match self {
            // A new URL once at once, then with back-off.
            Self::Expired => Remedy::Retry {
                delayed: failures > 1,
                fresh_url: true,
            },
            Self::Stalled => Remedy::Retry {
                delayed: false,
                fresh_url: true,
            },
            Self::Short => Remedy::Retry {
                delayed: failures > 1,
                fresh_url: failures >= FRESH_URL_AFTER,
            },
            Self::Busy(_) | Self::Broken(_) | Self::Quota(_) => Remedy::Retry {
                delayed: true,
                fresh_url: failures >= FRESH_URL_AFTER,
            },
        }
    }

    /// How long to wait before the retry.
    pub(crate) fn delay(&self, limits: &TransferLimits, failures: u32) -> Duration {
        match self {
            Self::Busy(after) => limits.patient_delay(*after, failures),
            _ => limits.delay(failures),
        }
    }

    pub(crate) fn into_error(self) -> TransferError {
        match self {
            Self::Expired => TransferError::Expired,
            Self::Quota(until) => TransferError::OverQuota { until },
            Self::Stalled => TransferError::Timeout,
            Self::Busy(_) => TransferError::Busy,
            Self::Short => TransferError::Short,
            Self::Broken(error) => TransferError::Storage(error),
        }
    }
}

impl From<StorageError> for Trouble {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Expired => Self::Expired,
            StorageError::OverQuota { until } => Self::Quota(until),
            StorageError::Busy { after } => Self::Busy(after),
            StorageError::Short { .. } => Self::Short,
            StorageError::Timeout => Self::Stalled,
            other => Self::Broken(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies() {
        let at_once = Remedy::Retry {
            delayed: false,
            fresh_url: true,
        };
        assert_eq!(Trouble::Expired.remedy(1, 8), at_once);
        assert_eq!(
            Trouble::Expired.remedy(2, 8),
            Remedy::Retry {
                delayed: true,
                fresh_url: true
            }
        );
        assert_eq!(Trouble::Stalled.remedy(1, 8), at_once);
        let same = Remedy::Retry {
            delayed: true,
            fresh_url: false,
        };
        let broken = Trouble::Broken(StorageError::Status(500));
        assert_eq!(broken.remedy(1, 8), same);
        assert_eq!(
            broken.remedy(3, 8),
            Remedy::Retry {
                delayed: true,
                fresh_url: true
            }
        );
        assert_eq!(broken.remedy(8, 8), Remedy::GiveUp);
        let now = Instant::now();
        assert_eq!(Trouble::Quota(now).remedy(1, 8), Remedy::Quota(now));
    }
}
