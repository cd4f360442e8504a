//! The one error type of the crate.

/// Why a value could not be decoded, derived or made.
///
/// No variant carries key material or plaintext. None is worth a retry with the same input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CryptoError {
    /// A value of fixed length has another length. Lengths are in bytes.
    #[error("{what}: expected {expected} bytes, got {got}")]
    Length {
        /// Which value.
        what: &'static str,
        /// The only right length.
        expected: usize,
        /// The length found.
        got: usize,
    },
    /// A value made of AES blocks has a length that is not a multiple of 16.
    #[error("{what}: {got} bytes are not whole AES blocks")]
    NotBlocks {
        /// Which value.
        what: &'static str,
        /// The length found, in bytes.
        got: usize,
    },
    /// The text is not base64 in any accepted spelling.
    #[error("{what}: not base64")]
    Base64 {
        /// Which value.
        what: &'static str,
    },
    /// The plaintext lacks the mark that a right key would show.
    #[error("{what}: wrong key")]
    WrongKey {
        /// Which value.
        what: &'static str,
    },
    /// The key was right, the content is not what it must be.
    #[error("{what}: malformed")]
    Malformed {
        /// Which value.
        what: &'static str,
    },
    /// The value is larger than the protocol lets a client send. Sizes are in bytes.
    #[error("{what}: {got} bytes exceed the limit of {limit}")]
    TooLarge {
        /// Which value.
        what: &'static str,
        /// The limit.
        limit: usize,
        /// The size found.
        got: usize,
    },
    /// The RSA private key failed one of the checks of protocol/02 section 5: the master key, and
    /// so the password, is wrong.
    #[error("RSA private key: {check}")]
    RsaKey {
        /// The check that failed.
        check: &'static str,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Randomness,
}
