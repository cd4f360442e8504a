//! What to do about an error: the table of `protocol/01` section 5.1, once, as code.

use std::time::Duration;

use mega_proto::ErrorCode;

/// What the one who got an error should do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It will not get better by itself.
    Never,
    /// The same again once or twice, then give up.
    Few,
    /// The same again after a growing delay.
    Backoff,
    /// The same again, not before this has passed.
    After(Duration),
    /// Log in again first.
    Relogin,
    /// Ask for a fresh download or upload address first.
    FreshUrl,
    /// Upload from the beginning, with a new key.
    RestartUpload,
    /// Nobody knows whether it was done: bring events up to date and look before doing it again.
    Look,
    /// Fetch the whole tree again.
    Refetch,
}

/// How a code is met, depending on who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// On `/cs`, for a batch or a command.
    pub api: Retry,
    /// As the body of a storage server's answer to an upload piece.
    pub upload: Retry,
}

/// How long "not available for now" usually takes.
const UNAVAILABLE: Duration = Duration::from_secs(30);

/// The policy for a code. Every code of the table appears; there is no catch-all.
#[must_use]
pub const fn policy(code: ErrorCode) -> Policy {
    use Retry::{After, Backoff, Few, FreshUrl, Never, Relogin, RestartUpload};
    let (api, upload) = match code {
        ErrorCode::Internal => (Few, RestartUpload),
        ErrorCode::Args => (Never, RestartUpload),
        ErrorCode::Again => (Backoff, Backoff),
        ErrorCode::RateLimit => (Backoff, RestartUpload),
        ErrorCode::Failed => (Never, RestartUpload),
        ErrorCode::TooMany => (Retry::Refetch, RestartUpload),
        ErrorCode::Range => (Never, RestartUpload),
        ErrorCode::Expired => (FreshUrl, RestartUpload),
        ErrorCode::NotFound => (Never, RestartUpload),
        ErrorCode::Circular
        | ErrorCode::Access
        | ErrorCode::Exists
        | ErrorCode::Blocked
        | ErrorCode::OverQuota
        | ErrorCode::AppKey
        | ErrorCode::Ssl
        | ErrorCode::GoingOverQuota
        | ErrorCode::MfaRequired
        | ErrorCode::MasterOnly
        | ErrorCode::BusinessPastDue
        | ErrorCode::Paywall
        | ErrorCode::SubUserKeyMissing => (Never, Never),
        ErrorCode::Incomplete => (Never, RestartUpload),
        // The piece was damaged on its way; the same bytes again.
        ErrorCode::Key => (Never, Backoff),
        ErrorCode::Session => (Relogin, Never),
        ErrorCode::TempUnavailable => (After(UNAVAILABLE), Backoff),
        ErrorCode::TooManyConnections => (Backoff, Backoff),
        ErrorCode::Write => (RestartUpload, RestartUpload),
        ErrorCode::Read => (Backoff, Backoff),
        ErrorCode::RolledBack => (Backoff, Never),
        ErrorCode::WebClient400 | ErrorCode::WebClient401 => (Never, Never),
        ErrorCode::Unknown(_) => (Never, RestartUpload),
    };
    Policy { api, upload }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_met_as_the_protocol_says() {
        use Retry::{After, Backoff, Few, FreshUrl, Never, Refetch, Relogin, RestartUpload};
        let table = [
            (-1, Few),
            (-2, Never),
            (-3, Backoff),
            (-4, Backoff),
            (-5, Never),
            (-6, Refetch),
            (-7, Never),
            (-8, FreshUrl),
            (-9, Never),
            (-10, Never),
            (-11, Never),
            (-12, Never),
            (-13, Never),
            (-14, Never),
            (-15, Relogin),
            (-16, Never),
            (-17, Never),
            (-18, After(UNAVAILABLE)),
            (-19, Backoff),
            (-20, RestartUpload),
            (-21, Backoff),
            (-22, Never),
            (-23, Never),
            (-24, Never),
            (-25, Backoff),
            (-26, Never),
            (-27, Never),
            (-28, Never),
            (-29, Never),
            (-30, Never),
            (-400, Never),
            (-401, Never),
        ];
        let codes: Vec<i64> = ErrorCode::ALL.iter().map(|code| code.code()).collect();
        assert_eq!(codes, table.map(|(code, _)| code));
        for (code, class) in table {
            assert_eq!(policy(ErrorCode::from_code(code)).api, class, "{code}");
        }
    }

    #[test]
    fn only_what_was_not_executed_is_repeated_blindly() {
        let repeated: Vec<i64> = ErrorCode::ALL
            .iter()
            .filter(|code| policy(**code).api == Retry::Backoff)
            .map(|code| code.code())
            .collect();
        assert_eq!(repeated, [-3, -4, -19, -21, -25]);
        assert_eq!(policy(ErrorCode::RateLimit).upload, Retry::RestartUpload);
        assert_eq!(policy(ErrorCode::Range).upload, Retry::RestartUpload);
        assert_eq!(policy(ErrorCode::Unknown(-99)).api, Retry::Never);
    }
}
