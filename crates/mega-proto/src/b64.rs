//! MEGA's base64: URL-safe alphabet, no padding (`protocol/README`, "Encoding conventions").
//!
//! Writing is strict; reading accepts everything the service and other clients have produced.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        // Real data has unused bits that are not zero.
        .with_decode_allow_trailing_bits(true),
);

/// The text is not base64: a foreign character, or a length that no byte string has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not valid base64")]
pub struct B64Error;

/// Encodes with `A-Z a-z 0-9 - _` and no padding; n bytes become ceil(4n/3) characters.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    ENGINE.encode(bytes)
}

/// Decodes tolerantly: `+` and `/` count as `-` and `_`, `=` and `,` are skipped, unused bits may be set.
///
/// # Errors
/// [`B64Error`] on any other character and on a length of 4n+1.
pub fn decode(text: &str) -> Result<Vec<u8>, B64Error> {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|b| matches!(b, b'+' | b'/' | b'=' | b',')) {
        return ENGINE.decode(bytes).map_err(|_| B64Error);
    }
    let plain: Vec<u8> = bytes
        .iter()
        .filter(|b| !matches!(b, b'=' | b','))
        .map(|b| match b {
            b'+' => b'-',
            b'/' => b'_',
            other => *other,
        })
        .collect();
    ENGINE.decode(plain).map_err(|_| B64Error)
}

/// Decodes to exactly `N` bytes, as [`decode`] does.
///
/// # Errors
/// [`B64Error`] also when the length is another one.
pub fn decode_array<const N: usize>(text: &str) -> Result<[u8; N], B64Error> {
    decode(text)?.try_into().map_err(|_| B64Error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_and_decodes_the_known_answers() {
        for (hex, text) in [
            ("", ""),
            ("00", "AA"),
            ("0001", "AAE"),
            ("ffffff", "____"),
            ("fbefbe", "----"),
            ("deadbeef", "3q2-7w"),
            ("64d7484a6a75", "ZNdISmp1"),
        ] {
            let bytes: Vec<u8> = (0..hex.len() / 2)
                .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
                .collect();
            assert_eq!(encode(&bytes), text);
            assert_eq!(decode(text).unwrap(), bytes);
        }
    }

    #[test]
    fn decodes_what_others_write() {
        assert_eq!(decode("+/+/").unwrap(), [0xfb, 0xff, 0xbf]);
        assert_eq!(decode("3q2-7w==").unwrap(), [0xde, 0xad, 0xbe, 0xef]);
        assert_eq!(decode("3q2-,7w").unwrap(), [0xde, 0xad, 0xbe, 0xef]);
        // Unused bits set.
        assert_eq!(decode("3q2-7x").unwrap(), [0xde, 0xad, 0xbe, 0xef]);
    }

    #[test]
    fn refuses_what_is_not_base64() {
        for text in ["A", "AAAAA", "a b", "a\n", "\u{e9}AA", "!!!!"] {
            assert_eq!(decode(text), Err(B64Error), "{text:?}");
        }
        assert_eq!(decode_array::<4>("AAAA"), Err(B64Error));
    }
}
