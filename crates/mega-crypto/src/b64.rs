//! Mega's base64: URL-safe, unpadded, decoded leniently (protocol/README, conventions).

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::CryptoError;

const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// Encodes without padding.
pub(crate) fn encode(bytes: &[u8]) -> String {
    ENGINE.encode(bytes)
}

/// Decodes either alphabet, with or without padding; `what` names the value in the error.
pub(crate) fn decode(text: &str, what: &'static str) -> Result<Vec<u8>, CryptoError> {
    let strange = |byte: u8| matches!(byte, b'+' | b'/' | b'=' | b',');
    let decoded = if text.bytes().any(strange) {
        let text: Vec<u8> = text
            .bytes()
            .filter(|byte| !matches!(byte, b'=' | b','))
            .map(|byte| match byte {
                b'+' => b'-',
                b'/' => b'_',
                other => other,
            })
            .collect();
        ENGINE.decode(text)
    } else {
        ENGINE.decode(text)
    };
    decoded.map_err(|_| CryptoError::Base64 { what })
}
