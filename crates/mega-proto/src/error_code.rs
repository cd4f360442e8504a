//! The error numbers of the API (`protocol/01` section 5.1). How each is retried is mega-api's business.

macro_rules! codes {
    ($( $(#[$doc:meta])* $variant:ident = $code:literal, $name:literal, $message:literal; )*) => {
        /// An error the service answered with, for a batch or for one command.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $( $(#[$doc])* $variant, )*
            /// A number this program does not know.
            Unknown(i64),
        }

        impl ErrorCode {
            /// All codes with a name.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )*];

            /// From the number on the wire (negative).
            #[must_use]
            pub const fn from_code(code: i64) -> Self {
                match code {
                    $( $code => Self::$variant, )*
                    other => Self::Unknown(other),
                }
            }

            /// The number on the wire.
            #[must_use]
            pub const fn code(self) -> i64 {
                match self {
                    $( Self::$variant => $code, )*
                    Self::Unknown(code) => code,
                }
            }

            /// The name the official client uses, `EAGAIN` for instance.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$variant => $name, )*
                    Self::Unknown(_) => "unknown error",
                }
            }

            /// What it means, for people.
            #[must_use]
            pub const fn message(self) -> &'static str {
                match self {
                    $( Self::$variant => $message, )*
                    Self::Unknown(_) => "the service answered with a code this program does not know",
                }
            }
        }
    };
}

codes! {
    /// -1.
    Internal = -1, "EINTERNAL", "internal error of the service";
    /// -2.
    Args = -2, "EARGS", "the service did not accept the arguments";
    /// -3: congestion; nothing was executed.
    Again = -3, "EAGAIN", "the service is busy";
    /// -4: too many commands; nothing was executed.
    RateLimit = -4, "ERATELIMIT", "too many requests";
    /// -5: an upload failed for good; at login a wrong second factor.
    Failed = -5, "EFAILED", "the transfer failed";
    /// -6: too many events, too many addresses on one URL.
    TooMany = -6, "ETOOMANY", "too many requests, addresses or pending events";
    /// -7: a piece off its boundaries.
    Range = -7, "ERANGE", "upload piece out of range";
    /// -8: a URL or a token has expired.
    Expired = -8, "EEXPIRED", "the transfer address has expired";
    /// -9: no such thing; at login a wrong e-mail address or password.
    NotFound = -9, "ENOENT", "not found";
    /// -10: a folder into its own descendant.
    Circular = -10, "ECIRCULAR", "a folder cannot be moved into itself";
    /// -11.
    Access = -11, "EACCESS", "access denied";
    /// -12.
    Exists = -12, "EEXIST", "it exists already";
    /// -13: incomplete; at login an account that was never confirmed.
    Incomplete = -13, "EINCOMPLETE", "incomplete, or the account was never confirmed";
    /// -14: a storage server found a wrong checksum.
    Key = -14, "EKEY", "checksum or key mismatch";
    /// -15: the session is invalid or was ended.
    Session = -15, "ESID", "the session is not valid any more";
    /// -16: blocked or taken down.
    Blocked = -16, "EBLOCKED", "blocked or taken down by the service";
    /// -17: storage or transfer quota.
    OverQuota = -17, "EOVERQUOTA", "over quota";
    /// -18: a storage server is down.
    TempUnavailable = -18, "ETEMPUNAVAIL", "temporarily not available";
    /// -19.
    TooManyConnections = -19, "ETOOMANYCONNECTIONS", "too many connections";
    /// -20: storage could not write.
    Write = -20, "EWRITE", "the storage server could not write";
    /// -21: storage could not read.
    Read = -21, "EREAD", "the storage server could not read";
    /// -22.
    AppKey = -22, "EAPPKEY", "invalid application key";
    /// -23: never on the wire.
    Ssl = -23, "ESSL", "TLS verification failed";
    /// -24: this would exceed the quota.
    GoingOverQuota = -24, "EGOINGOVERQUOTA", "not enough quota for this";
    /// -25: a group of commands was undone together.
    RolledBack = -25, "EROLLEDBACK", "the request was rolled back";
    /// -26: a second factor is needed.
    MfaRequired = -26, "EMFAREQUIRED", "a two-factor code is needed";
    /// -27.
    MasterOnly = -27, "EMASTERONLY", "not allowed for a business sub-user";
    /// -28.
    BusinessPastDue = -28, "EBUSINESSPASTDUE", "the business account has expired";
    /// -29: over disk quota for long, nearly everything is refused.
    Paywall = -29, "EPAYWALL", "the account is over its storage quota and frozen";
    /// -30.
    SubUserKeyMissing = -30, "ESUBUSERKEYMISSING", "the business sub-user has no key yet";
    /// -400: internal to the web client.
    WebClient400 = -400, "EWEB400", "error of the web client";
    /// -401: internal to the web client.
    WebClient401 = -401, "EWEB401", "error of the web client";
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}, {})", self.message(), self.name(), self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_round_trip() {
        assert_eq!(ErrorCode::ALL.len(), 32);
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_code(code.code()), *code);
        }
        assert_eq!(ErrorCode::from_code(-77), ErrorCode::Unknown(-77));
        assert_eq!(ErrorCode::Unknown(-77).code(), -77);
        assert_eq!(
            ErrorCode::Again.to_string(),
            "the service is busy (EAGAIN, -3)"
        );
    }
}
