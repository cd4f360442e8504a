//! From password to keys, and what a session id proves (protocol/02 sections 3 to 5).

use core::fmt;

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes128Enc, Block};
use sha2::Sha512;
use zeroize::Zeroizing;

use crate::keys::equal_in_constant_time;
use crate::{CryptoError, MasterKey, PasswordKey, b64, ecb_encrypt};

/// Where the derivation of a v1 password key starts.
const START: [u8; 16] = [
    0x93, 0xc4, 0x67, 0xe3, 0x7d, 0xb0, 0xc7, 0xa4, 0xd1, 0xbe, 0x3f, 0x81, 0x01, 0x52, 0xcb, 0x56,
];

const KEY_ROUNDS: usize = 65_536;
const HASH_ROUNDS: usize = 16_384;
const V2_ROUNDS: u32 = 100_000;

/// Raw length of a session id, in bytes; 58 characters on the wire.
pub(crate) const SESSION_LEN: usize = 43;

/// The password key of a version 1 account: UTF-16 code units, as the SDK and the web client do.
///
/// Takes milliseconds for each started 16 characters.
pub fn password_key_v1(password: &str) -> PasswordKey {
    let units = Zeroizing::new(password.encode_utf16().collect::<Vec<u16>>());
    derive_v1(&units)
}

/// The variant of third-party clients: UTF-8 bytes. Equal to [`password_key_v1`] for ASCII; worth
/// one second attempt after error -9 otherwise.
pub fn password_key_v1_utf8(password: &str) -> PasswordKey {
    let units = Zeroizing::new(password.bytes().map(u16::from).collect::<Vec<u16>>());
    derive_v1(&units)
}

fn derive_v1(units: &[u16]) -> PasswordKey {
    let ciphers: Vec<Aes128Enc> = units
        .chunks(16)
        .map(|units| {
            let mut key = Zeroizing::new([0u8; 16]);
            for (word, units) in key.as_chunks_mut::<4>().0.iter_mut().zip(units.chunks(4)) {
                // A unit above FF spills into the byte before it; what leaves the word is lost.
                let packed = units
                    .iter()
                    .zip([24, 16, 8, 0])
                    .fold(0, |word, (unit, shift)| word | (u32::from(*unit) << shift));
                *word = packed.to_be_bytes();
            }
            Aes128Enc::new((&*key).into())
        })
        .collect();
    let mut state = Block::from(START);
    for _ in 0..KEY_ROUNDS {
        for cipher in &ciphers {
            cipher.encrypt_block(&mut state);
        }
    }
    PasswordKey::from_bytes(state.into())
}

/// The e-mail address as it is sent and hashed: trimmed, in lower case.
pub fn normalise_email(email: &str) -> String {
    email.trim().to_lowercase()
}

/// `uh` of a version 1 login, 11 characters. The address is normalised here.
pub fn user_hash_v1(email: &str, key: &PasswordKey) -> String {
    let mut folded = [0u8; 16];
    for chunk in normalise_email(email).as_bytes().chunks(16) {
        for (out, byte) in folded.iter_mut().zip(chunk) {
            *out ^= byte;
        }
    }
    let cipher = Aes128Enc::new(key.as_bytes().into());
    let mut state = Block::from(folded);
    for _ in 0..HASH_ROUNDS {
        cipher.encrypt_block(&mut state);
    }
    let state: [u8; 16] = state.into();
    let mut hash = [0; 8];
    hash[..4].copy_from_slice(&state[..4]);
    hash[4..].copy_from_slice(&state[8..12]);
    b64::encode(&hash)
}

/// What the password of a version 2 account becomes.
#[derive(Clone)]
pub struct V2Keys {
    /// Unwraps the master key.
    pub password_key: PasswordKey,
    /// `uh` of the login, b64, 22 characters; as secret as the password for this server.
    pub auth_key: String,
}

impl fmt::Debug for V2Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("V2Keys")
    }
}

/// PBKDF2-HMAC-SHA512 with 100,000 rounds: takes a tenth of a second or so.
pub fn derive_v2(password: &str, salt: &[u8]) -> V2Keys {
    let mut derived = Zeroizing::new([0u8; 32]);
    pbkdf2::pbkdf2_hmac::<Sha512>(password.as_bytes(), salt, V2_ROUNDS, derived.as_mut_slice());
    let (key, auth) = derived.split_at(16);
    let mut password_key = [0; 16];
    password_key.copy_from_slice(key);
    V2Keys {
        password_key: PasswordKey::from_bytes(password_key),
        auth_key: b64::encode(auth),
    }
}

/// The three parts of a session id: random bytes, the user handle's characters, a proof.
struct SessionParts {
    head: [u8; 16],
    user: [u8; 11],
    tail: [u8; 16],
}

fn decode_session(sid: &str) -> Result<SessionParts, CryptoError> {
    let bytes = Zeroizing::new(b64::decode(sid, "session id")?);
    let parts = |bytes: &[u8]| {
        let (head, rest) = bytes.split_first_chunk()?;
        let (user, rest) = rest.split_first_chunk()?;
        let (tail, rest) = rest.split_first_chunk()?;
        rest.is_empty().then_some(SessionParts {
            head: *head,
            user: *user,
            tail: *tail,
        })
    };
    parts(&bytes).ok_or(CryptoError::Length {
        what: "session id",
        expected: SESSION_LEN,
        got: bytes.len(),
    })
}

/// The user handle inside a session id: 11 characters. The login is to be refused unless it
/// equals the reply's `u`.
pub fn session_user(sid: &str) -> Result<String, CryptoError> {
    let user = decode_session(sid)?.user;
    if !user.iter().all(u8::is_ascii_graphic) {
        return Err(CryptoError::Malformed { what: "session id" });
    }
    Ok(user.iter().copied().map(char::from).collect())
}

/// Whether a `tsid` (the session id of an account without RSA key) proves the master key: its
/// last 16 bytes are its first 16 encrypted.
pub fn verify_tsid(master: &MasterKey, tsid: &str) -> Result<bool, CryptoError> {
    let SessionParts { mut head, tail, .. } = decode_session(tsid)?;
    ecb_encrypt(master.as_bytes(), &mut head);
    Ok(equal_in_constant_time(&head, &tail))
}
