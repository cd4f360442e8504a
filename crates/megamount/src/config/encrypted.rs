//! The encrypted form of the configuration: text, from the first to the last byte.
//!
//! ```text
//! MEGAMOUNT_ENCRYPT_V1: configuration, encrypted with a password; written by megamount 0.1.0
//! kdf: argon2id v=19 m=65536 t=3 p=1 salt=<16 bytes in base64>
//! cipher: xchacha20poly1305 nonce=<24 bytes in base64>
//!
//! <ciphertext and tag in base64, 64 letters on a line>
//! sha256: <of all lines before, in base64>
//! ```
//!
//! The key is Argon2id (RFC 9106) of the password, and the first three lines are the associated data of
//! XChaCha20-Poly1305: none of what they say can be changed without the password. Salt and nonce are new each time
//! the file is written. The checksum protects nothing; it tells a damaged file from a wrong password before anybody
//! is asked for one. Blank lines and comments may stand above.
//!
//! The first line is no comment and no TOML: what is left of a file that was cut off is never taken for a
//! configuration in the clear that says nothing.
//!
//! Promises: no input panics, and none makes the key cost more than [`Cost::MOST`].

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use mega_crypto::Secret;
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;
use zeroize::{Zeroize, Zeroizing};

use crate::failure::Failure;

/// What the first line begins with, before the number of the version.
const MARK: &str = "MEGAMOUNT_ENCRYPT_V";
/// What rclone's begins with.
const MARK_OF_RCLONE: &[u8] = b"RCLONE_ENCRYPT_V";
/// The version that is written, and the only one that is read.
const VERSION: &str = "1";
const KDF: &str = "kdf: argon2id ";
const CIPHER: &str = "cipher: xchacha20poly1305 nonce=";
const CHECKSUM: &str = "sha256: ";

const KEY: usize = 32;
const SALT: usize = 16;
const NONCE: usize = 24;
const TAG: usize = 16;
/// As in PEM (RFC 7468).
const COLUMNS: usize = 64;

/// Whose encryption a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// None: it is in the clear.
    Clear,
    /// Ours.
    Ours,
    /// rclone's.
    Rclone,
}

/// Looks at the first line that is neither blank nor a comment.
pub(super) fn form(bytes: &[u8]) -> Form {
    let first = bytes
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .find(|line| !line.is_empty() && !line.starts_with(b"#"));
    match first {
        Some(line) if line.starts_with(MARK.as_bytes()) => Form::Ours,
        Some(line) if line.starts_with(MARK_OF_RCLONE) => Form::Rclone,
        _ => Form::Clear,
    }
}

/// What is wrong with an encrypted file, password or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Damage {
    /// The end is missing.
    #[error("its end is missing")]
    CutOff,
    /// It is not what was written.
    #[error("it is damaged")]
    Changed,
    /// It is as it was written, and that makes no sense here.
    #[error("it was written by another version of megamount")]
    Version,
    /// It asks for more than [`Cost::MOST`].
    #[error("it asks for more memory or time than megamount gives")]
    Cost,
    /// The text in it is none.
    #[error("what was encrypted is not text")]
    NoText,
}

/// What the key of a password costs to derive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    /// In KiB.
    memory: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    /// The second of the recommendations of RFC 9106, on one processor: some tenths of a second.
    pub(super) const USUAL: Self = Self {
        memory: 64 << 10,
        passes: 3,
        lanes: 1,
    };
    /// What a file may ask for: 1 GiB, and some seconds of it. Whoever can write the file could else stop the
    /// machine with it.
    const MOST: Self = Self {
        memory: 1 << 20,
        passes: 16,
        lanes: 16,
    };

    fn is_bounded(self) -> bool {
        let most = Self::MOST;
        self.memory <= most.memory && self.passes <= most.passes && self.lanes <= most.lanes
    }
}

/// The key of a password for one salt. Wiped when dropped.
#[derive(Clone)]
pub(super) struct Key {
    salt: [u8; SALT],
    cost: Cost,
    bytes: Zeroizing<[u8; KEY]>,
}

impl Key {
    /// The key for a file that is about to be written: with a salt that no other has.
    pub(super) fn fresh(password: &Secret, cost: Cost) -> Result<Self, Failure> {
        Self::derive(password, cost, random()?)
    }

    fn derive(password: &Secret, cost: Cost, salt: [u8; SALT]) -> Result<Self, Failure> {
        let failed =
            |why: &str| Failure::Other(format!("cannot derive the configuration's key: {why}."));
        let params = Params::new(cost.memory, cost.passes, cost.lanes, Some(KEY))
            .map_err(|error| failed(&error.to_string()))?;
        let count = params.block_count();
        let mut blocks: Vec<Block> = vec![];
        // The file says how much. That there is not so much must not end the process.
        blocks
            .try_reserve_exact(count)
            .map_err(|_| failed("there is not enough memory"))?;
        blocks.resize(count, Block::new());
        let mut bytes = Zeroizing::new([0; KEY]);
        // The same letters have several spellings in Unicode, and keyboards differ in which they type.
        let mut normal = Zeroizing::new(String::with_capacity(4 * password.expose().len()));
        normal.extend(password.expose().nfkc());
        let derived = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(
                normal.as_bytes(),
                &salt,
                bytes.as_mut_slice(),
                &mut blocks,
            );
        blocks.zeroize();
        derived.map_err(|error| failed(&error.to_string()))?;
        Ok(Self { salt, cost, bytes })
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.bytes).into())
    }
}

/// A file whose form is sound; whether the password fits is another question.
#[derive(Debug)]
pub(super) struct Encrypted {
    /// The first three lines, each with its end: what is authenticated beside the text.
    header: String,
    cost: Cost,
    salt: [u8; SALT],
    nonce: [u8; NONCE],
    ciphertext: Vec<u8>,
    tag: [u8; TAG],
}

impl Encrypted {
    /// Reads a file of [`Form::Ours`].
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Damage> {
        let text = std::str::from_utf8(bytes).map_err(|_| Damage::Changed)?;
        // Trimmed: a file that goes through Git or a mail may come back with other line ends.
        let mut lines: Vec<_> = text
            .lines()
            .map(str::trim_end)
            .skip_while(|line| line.is_empty() || line.starts_with('#'))
            .collect();
        let first = lines.first().ok_or(Damage::CutOff)?;
        let (version, _) = first
            .strip_prefix(MARK)
            .and_then(|rest| rest.split_once(':'))
            .ok_or(Damage::CutOff)?;
        if version != VERSION {
            let is_number = version.bytes().all(|byte| byte.is_ascii_digit());
            return Err(if is_number {
                Damage::Version
            } else {
                Damage::Changed
            });
        }
        while lines.last().is_some_and(|line| line.is_empty()) {
            lines.pop();
        }
        let told = lines.pop().and_then(|line| line.strip_prefix(CHECKSUM));
        let told: [u8; 32] = told.and_then(fixed).ok_or(Damage::CutOff)?;
        if checksum(&lines) != told {
            return Err(Damage::Changed);
        }
        // From here on it is what somebody wrote.
        let [first, kdf, cipher, blank, body @ ..] = lines.as_slice() else {
            return Err(Damage::Version);
        };
        if !blank.is_empty() {
            return Err(Damage::Version);
        }
        let (cost, salt) = kdf_of(kdf).ok_or(Damage::Version)?;
        if !cost.is_bounded() {
            return Err(Damage::Cost);
        }
        let nonce = cipher.strip_prefix(CIPHER).and_then(fixed);
        let body = BASE64.decode(body.concat()).map_err(|_| Damage::Version)?;
        let (ciphertext, tag) = body.split_last_chunk().ok_or(Damage::Version)?;
        Ok(Self {
            header: format!("{first}\n{kdf}\n{cipher}\n"),
            cost,
            salt,
            nonce: nonce.ok_or(Damage::Version)?,
            ciphertext: ciphertext.to_vec(),
            tag: *tag,
        })
    }

    /// The key that `password` gives for this file.
    pub(super) fn key(&self, password: &Secret) -> Result<Key, Failure> {
        Key::derive(password, self.cost, self.salt)
    }

    /// Whether `key` was derived as this file's is.
    pub(super) fn is_derived_like(&self, key: &Key) -> bool {
        self.salt == key.salt && self.cost == key.cost
    }

    /// The text; none if the key is another one.
    pub(super) fn decrypt(&self, key: &Key) -> Option<Result<Zeroizing<String>, Damage>> {
        let mut plain = Zeroizing::new(self.ciphertext.clone());
        key.cipher()
            .decrypt_inout_detached(
                &XNonce::from(self.nonce),
                self.header.as_bytes(),
                plain.as_mut_slice().into(),
                &Tag::from(self.tag),
            )
            .ok()?;
        let text = String::from_utf8(std::mem::take(&mut *plain));
        Some(text.map(Zeroizing::new).map_err(|error| {
            error.into_bytes().zeroize();
            Damage::NoText
        }))
    }
}

/// The whole file for `text`.
pub(super) fn encrypt(text: &str, key: &Key) -> Result<String, Failure> {
    let nonce: [u8; NONCE] = random()?;
    let Cost {
        memory,
        passes,
        lanes,
    } = key.cost;
    let mut file = format!(
        "{MARK}{VERSION}: configuration, encrypted with a password; written by megamount {}\n\
         {KDF}v=19 m={memory} t={passes} p={lanes} salt={}\n{CIPHER}{}\n",
        env!("CARGO_PKG_VERSION"),
        BASE64.encode(key.salt),
        BASE64.encode(nonce),
    );
    let mut body = Vec::with_capacity(text.len() + TAG);
    body.extend_from_slice(text.as_bytes());
    let tag = key
        .cipher()
        .encrypt_inout_detached(
            &XNonce::from(nonce),
            file.as_bytes(),
            body.as_mut_slice().into(),
        )
        .map_err(|_| {
            body.zeroize();
            Failure::Other("the configuration is too long to be encrypted.".to_owned())
        })?;
    body.extend_from_slice(&tag);
    file.push('\n');
    let body = BASE64.encode(body);
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(COLUMNS.min(rest.len()));
        file.push_str(line);
        file.push('\n');
        rest = more;
    }
    let lines: Vec<_> = file.lines().collect();
    let sum = BASE64.encode(checksum(&lines));
    file.push_str(CHECKSUM);
    file.push_str(&sum);
    file.push('\n');
    Ok(file)
}

fn kdf_of(line: &str) -> Option<(Cost, [u8; SALT])> {
    let mut words = line.strip_prefix(KDF)?.split(' ');
    let mut value = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=');
    if value("v")? != "19" {
        return None;
    }
    let cost = Cost {
        memory: value("m")?.parse().ok()?,
        passes: value("t")?.parse().ok()?,
        lanes: value("p")?.parse().ok()?,
    };
    let salt = fixed(value("salt")?)?;
    words.next().is_none().then_some((cost, salt))
}

fn checksum(lines: &[&str]) -> [u8; 32] {
    let mut sum = Sha256::new();
    for line in lines {
        sum.update(line.as_bytes());
        sum.update(b"\n");
    }
    sum.finalize().into()
}

fn fixed<const N: usize>(text: &str) -> Option<[u8; N]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| Failure::Other(format!("the system gives no random bytes: {e}.")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# mine\n[remote.w]\nuser = \"w@x\" # keep\n";
    /// The least that Argon2 takes: the tests are about the form.
    const CHEAP: Cost = Cost {
        memory: 8,
        passes: 1,
        lanes: 1,
    };

    fn password(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    fn encrypted(text: &str) -> String {
        encrypt(text, &Key::fresh(&password("pw"), CHEAP).unwrap()).unwrap()
    }

    fn opened(file: &str, with: &str) -> Option<String> {
        let file = Encrypted::parse(file.as_bytes()).unwrap();
        let key = file.key(&password(with)).unwrap();
        file.decrypt(&key).map(|text| text.unwrap().to_string())
    }

    /// The file with another header and the checksum that fits it.
    fn forged(file: &str, from: &str, to: &str) -> String {
        let (body, _) = file.rsplit_once(CHECKSUM).unwrap();
        let body = body.replacen(from, to, 1);
        assert!(body.contains(to));
        let lines: Vec<_> = body.lines().collect();
        format!("{body}{CHECKSUM}{}\n", BASE64.encode(checksum(&lines)))
    }

    #[test]
    fn what_was_encrypted_comes_back_with_its_password_only() {
        for text in ["", TEXT, &"\u{f6}x".repeat(5000)] {
            let file = encrypted(text);
            assert_eq!(form(file.as_bytes()), Form::Ours);
            assert!(file.is_ascii() && file.lines().all(|line| line.len() < 120));
            assert_eq!(opened(&file, "pw").as_deref(), Some(text));
            assert_eq!(opened(&file, "Pw"), None);
        }
        // "o" and a diaeresis, or one letter.
        let key = Key::fresh(&password("o\u{308}"), CHEAP).unwrap();
        let file = encrypt(TEXT, &key).unwrap();
        assert_eq!(opened(&file, "\u{f6}").as_deref(), Some(TEXT));
    }

    #[test]
    fn a_known_file_can_be_read() {
        // Made with the reference implementation of Argon2 and libsodium's XChaCha20-Poly1305.
        let file = include_str!("encrypted/known.toml");
        assert_eq!(opened(file, "correct horse").as_deref(), Some(TEXT));
    }

    #[test]
    fn no_two_files_are_alike() {
        let line = |file: &str, at: usize| file.lines().nth(at).unwrap().to_owned();
        let (one, other) = (encrypted(TEXT), encrypted(TEXT));
        for at in [1, 2, 4] {
            assert_ne!(line(&one, at), line(&other, at), "line {at}");
        }
        assert!(!one.contains("w@x"));
    }

    #[test]
    fn the_usual_cost_stands_in_the_file() {
        let key = Key::fresh(&password("pw"), Cost::USUAL).unwrap();
        let file = encrypt(TEXT, &key).unwrap();
        assert!(
            file.contains("\nkdf: argon2id v=19 m=65536 t=3 p=1 salt="),
            "{file}"
        );
        assert_eq!(opened(&file, "pw").as_deref(), Some(TEXT));
        assert!(
            Encrypted::parse(file.as_bytes())
                .unwrap()
                .is_derived_like(&key)
        );
    }

    #[test]
    fn other_line_ends_and_comments_above_do_no_harm() {
        let file = encrypted(TEXT).replace('\n', "\r\n");
        assert_eq!(opened(&file, "pw").as_deref(), Some(TEXT));
        let file = format!("# mine\n\n{file}\n\n");
        assert_eq!(form(file.as_bytes()), Form::Ours);
        assert_eq!(opened(&file, "pw").as_deref(), Some(TEXT));
    }

    #[test]
    fn a_file_that_was_cut_off_is_never_one_in_the_clear() {
        let file = encrypted(TEXT);
        for end in 1..file.len() - 1 {
            let rest = &file.as_bytes()[..end];
            match form(rest) {
                Form::Ours => {
                    Encrypted::parse(rest).unwrap_err();
                }
                Form::Clear => {
                    let text = std::str::from_utf8(rest).unwrap();
                    toml::from_str::<toml::Table>(text).unwrap_err();
                }
                Form::Rclone => panic!("{end}"),
            }
        }
        assert_eq!(
            Encrypted::parse(&file.as_bytes()[..file.len() - 10]).unwrap_err(),
            Damage::CutOff
        );
    }

    #[test]
    fn every_flipped_bit_is_noticed_without_a_password() {
        let file = encrypted(TEXT);
        for at in 0..file.len() - 1 {
            for bit in 0..8 {
                let mut bytes = file.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                if form(&bytes) == Form::Ours {
                    // Blanks at the end of a line mean nothing.
                    if let Ok(read) = Encrypted::parse(&bytes) {
                        let key = read.key(&password("pw")).unwrap();
                        assert_eq!(*read.decrypt(&key).unwrap().unwrap(), TEXT, "{at}/{bit}");
                        assert_eq!(file.as_bytes()[at], b'\n', "{at}/{bit}");
                    }
                } else {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    assert!(toml::from_str::<toml::Table>(&text).is_err(), "{at}/{bit}");
                }
            }
        }
    }

    #[test]
    fn what_the_header_says_is_authenticated() {
        let file = encrypted(TEXT);
        let other = forged(&file, "written by", "Written by");
        assert_eq!(opened(&other, "pw"), None);
        let other = forged(&file, " t=1 ", " t=2 ");
        assert_eq!(opened(&other, "pw"), None);
    }

    #[test]
    fn no_file_can_ask_for_the_moon() {
        let file = encrypted(TEXT);
        for (from, to) in [
            (" m=8 ", " m=104857600 "),
            (" m=8 ", " m=1048577 "),
            (" t=1 ", " t=4294967295 "),
            (" p=1 ", " p=17 "),
        ] {
            let refused = Encrypted::parse(forged(&file, from, to).as_bytes()).unwrap_err();
            assert_eq!(refused, Damage::Cost, "{to}");
        }
        for (from, to) in [
            (" m=8 ", " m=0 "),
            (" t=1 ", " t=0 "),
            (" p=1 ", " p=0 "),
            (" p=1 ", " p=4 "),
        ] {
            let read = Encrypted::parse(forged(&file, from, to).as_bytes()).unwrap();
            assert!(read.key(&password("pw")).is_err(), "{to}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let file = encrypted(TEXT);
        for (from, to) in [
            ("ENCRYPT_V1:", "ENCRYPT_V2:"),
            ("argon2id", "argon2ix"),
            (" v=19 ", " v=20 "),
            (" m=8 ", " m=-8 "),
            (" p=1 ", " p=1 x=1 "),
            ("xchacha20poly1305", "aes256"),
            ("nonce=", "nonce=AAAA"),
            ("\n\n", "\nmore: x\n\n"),
        ] {
            let refused = Encrypted::parse(forged(&file, from, to).as_bytes()).unwrap_err();
            assert_eq!(refused, Damage::Version, "{to}");
        }
    }

    #[test]
    fn forms_are_told_apart() {
        for (text, wanted) in [
            ("", Form::Clear),
            ("# MEGAMOUNT_ENCRYPT_V1:\n[defaults]\n", Form::Clear),
            ("# c\n\n  MEGAMOUNT_ENCRYPT_V9", Form::Ours),
            (
                "# Encrypted rclone configuration File\n\nRCLONE_ENCRYPT_V0:\nAAAA\n",
                Form::Rclone,
            ),
        ] {
            assert_eq!(form(text.as_bytes()), wanted, "{text:?}");
        }
    }
}
