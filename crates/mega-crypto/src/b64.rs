//! [`mega_proto::b64`] with this crate's error.

pub(crate) use mega_proto::b64::encode;

use crate::CryptoError;

/// Decodes leniently; `what` names the value in the error.
pub(crate) fn decode(text: &str, what: &'static str) -> Result<Vec<u8>, CryptoError> {
    mega_proto::b64::decode(text).map_err(|_| CryptoError::Base64 { what })
}
