//! rclone's password obscuring: reversible by anyone, it only hides from a glance
//! (protocol/02 section 9).

use core::fmt;

use aes::Aes256;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::keys::fill_random;
use crate::{CryptoError, b64};

/// The fixed key, public in every copy of rclone.
const KEY: [u8; 32] = [
    0x9c, 0x93, 0x5b, 0x48, 0x73, 0x0a, 0x55, 0x4d, 0x6b, 0xfd, 0x7c, 0x63, 0xc8, 0x86, 0xa9, 0x2b,
    0xd3, 0x90, 0x19, 0x8e, 0xb8, 0x12, 0x8a, 0xfb, 0xf4, 0xde, 0x16, 0x2b, 0x8b, 0x95, 0xf6, 0x38,
];

/// Text that must not be printed, such as a password: zeroed on drop, `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

fn apply(iv: &[u8; 16], data: &mut [u8]) {
    Ctr128BE::<Aes256>::new(&KEY.into(), iv.into()).apply_keystream(data);
}

/// Obscures a password as `rclone obscure` does, with a random IV.
pub fn obscure(clear: &str) -> Result<String, CryptoError> {
    let mut iv = [0; 16];
    fill_random(&mut iv)?;
    Ok(obscure_with_iv(clear, iv))
}

/// [`obscure`] with a given IV, for known answers.
pub fn obscure_with_iv(clear: &str, iv: [u8; 16]) -> String {
    let mut bytes = clear.as_bytes().to_vec();
    apply(&iv, &mut bytes);
    let mut out = iv.to_vec();
    out.append(&mut bytes);
    b64::encode(&out)
}

/// The inverse; fails on what is not base64, is shorter than its IV or does not give UTF-8.
pub fn reveal(obscured: &str) -> Result<Secret, CryptoError> {
    const WHAT: &str = "obscured password";
    let bytes = b64::decode(obscured.trim(), WHAT)?;
    let (iv, data) = bytes
        .split_first_chunk::<16>()
        .ok_or(CryptoError::Malformed { what: WHAT })?;
    let mut data = Zeroizing::new(data.to_vec());
    apply(iv, &mut data);
    let text = core::str::from_utf8(&data).map_err(|_| CryptoError::Malformed { what: WHAT })?;
    Ok(Secret(text.to_owned()))
}
