//! From the file to its text: in the clear, or with the password of the configuration.
//!
//! The password comes from `--password-command`, else from `MEGAMOUNT_CONFIG_PASS`, else from whoever sits at the
//! terminal. It is remembered for as long as the command runs ([`Remembered`]), so that one that reads and writes
//! the file many times asks once. Files in the clear need none of this.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use mega_crypto::Secret;
use zeroize::Zeroizing;

use super::encrypted::{self, Encrypted, Form, Key};
use crate::cli::ConfigPlace;
use crate::env_vars as env;
use crate::failure::Failure;
use crate::launch::complain;
use crate::password;
use crate::terminal::{self, Echo, NoAnswer};

/// How often somebody may mistype.
const ATTEMPTS: u32 = 3;

/// The password of the configuration that this process has used, and its key. Wiped with the last clone.
#[derive(Clone, Default)]
pub(crate) struct Remembered(Arc<Mutex<Option<(Secret, Key)>>>);

impl std::fmt::Debug for Remembered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remembered").finish_non_exhaustive()
    }
}

impl Remembered {
    /// Nothing will be read or written any more.
    pub(crate) fn forget(&self) {
        self.put(None);
    }

    pub(super) fn keep(&self, password: &Secret, key: &Key) {
        self.put(Some((password.clone(), key.clone())));
    }

    fn put(&self, what: Option<(Secret, Key)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    fn get(&self) -> Option<(Secret, Key)> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// A configuration file that was read.
pub(super) struct Opened {
    /// What it says.
    pub(super) text: Zeroizing<String>,
    /// What it is encrypted with; none if it is in the clear.
    pub(super) password: Option<Secret>,
    /// Its permission bits.
    pub(super) mode: u32,
}

/// Reads the file at `path`, which `place` means; none if there is none.
pub(super) fn open(path: &Path, place: &ConfigPlace) -> Result<Option<Opened>, Failure> {
    let Some((bytes, mode)) = bytes_of(path)? else {
        return Ok(None);
    };
    let (text, password) = match encrypted::form(&bytes) {
        Form::Clear => {
            let text = String::from_utf8(bytes).map_err(|_| Failure::ConfigInvalid {
                path: path.to_path_buf(),
                reason: "it is not text in UTF-8.".to_owned(),
            })?;
            (Zeroizing::new(text), None)
        }
        Form::Rclone => {
            return Err(Failure::ConfigInvalid {
                path: path.to_path_buf(),
                reason: "it is an encrypted configuration of rclone. Remove the encryption with \
                         'rclone config encryption remove', then copy its remotes with 'megamount \
                         config import'."
                    .to_owned(),
            });
        }
        Form::Ours => {
            let (text, password) = unlock(path, &bytes, place)?;
            (text, Some(password))
        }
    };
    Ok(Some(Opened {
        text,
        password,
        mode,
    }))
}

/// Whether the file at `path` is encrypted; none if there is no file.
pub(crate) fn is_encrypted(path: &Path) -> Result<Option<bool>, Failure> {
    Ok(bytes_of(path)?.map(|(bytes, _)| encrypted::form(&bytes) == Form::Ours))
}

/// Whether somebody has to be asked for the password before the configuration can be read.
pub(crate) fn must_ask(place: &ConfigPlace) -> Result<bool, Failure> {
    let is_known = place.remembered.get().is_some()
        || place.password_command().is_some()
        || from_environment()?.is_some();
    Ok(!is_known && is_encrypted(&place.file()?)? == Some(true))
}

fn bytes_of(path: &Path) -> Result<Option<(Vec<u8>, u32)>, Failure> {
    let unreadable = |e: std::io::Error| Failure::ConfigUnreadable {
        path: path.to_path_buf(),
        reason: e.to_string(),
    };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable(e)),
    };
    let mut bytes = vec![];
    file.read_to_end(&mut bytes).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
    Ok(Some((bytes, mode)))
}

fn unlock(
    path: &Path,
    bytes: &[u8],
    place: &ConfigPlace,
) -> Result<(Zeroizing<String>, Secret), Failure> {
    let damaged = |damage: encrypted::Damage| Failure::ConfigDamaged {
        path: path.to_path_buf(),
        reason: damage.to_string(),
    };
    let file = Encrypted::parse(bytes).map_err(damaged)?;
    let opened = |key: &Key| file.decrypt(key).transpose().map_err(damaged);
    let attempt = |password: Secret| -> Result<_, Failure> {
        let key = file.key(&password)?;
        let Some(text) = opened(&key)? else {
            return Ok(None);
        };
        place.remembered.keep(&password, &key);
        Ok(Some((text, password)))
    };
    if let Some((password, key)) = place.remembered.get() {
        let again = if file.is_derived_like(&key) {
            opened(&key)?.map(|text| (text, password))
        } else {
            attempt(password)?
        };
        // Else another program has set another one meanwhile.
        if let Some(again) = again {
            return Ok(again);
        }
    }
    let wrong = |from: &'static str| Failure::ConfigPassword {
        path: path.to_path_buf(),
        from,
    };
    if let Some(command) = place.password_command() {
        let password = password::of_config(command)?;
        return attempt(password)?.ok_or_else(|| wrong("what --password-command prints"));
    }
    if let Some(password) = from_environment()? {
        return attempt(password)?.ok_or_else(|| wrong("the value of MEGAMOUNT_CONFIG_PASS"));
    }
    for _ in 0..ATTEMPTS {
        if let Some(opened) = attempt(ask(path)?)? {
            return Ok(opened);
        }
        complain("couldn't decrypt configuration, most likely wrong password.");
    }
    Err(wrong("what was typed"))
}

fn from_environment() -> Result<Option<Secret>, Failure> {
    let Some(value) = env::raw(env::CONFIG_PASS).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let text = value
        .into_string()
        .map_err(|_| Failure::Usage(format!("the value of {} is not UTF-8.", env::CONFIG_PASS)))?;
    Ok(Some(Secret::new(text)))
}

fn ask(path: &Path) -> Result<Secret, Failure> {
    let mut prompt = "Enter configuration password:\npassword:";
    loop {
        let answer = terminal::line(prompt, Echo::Off).map_err(|none| {
            let path = path.to_path_buf();
            match none {
                NoAnswer::NoTerminal => Failure::ConfigLocked { path },
                NoAnswer::Cancelled => Failure::ConfigNotUnlocked { path },
            }
        })?;
        if !answer.expose().is_empty() {
            return Ok(answer);
        }
        complain("bad password: no characters in password.");
        prompt = "password:";
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::super::encrypted::{Cost, encrypt};
    use super::*;

    const TEXT: &str = "[remote.w]\nuser = \"w@x\"\n";

    struct World {
        dir: tempfile::TempDir,
        path: PathBuf,
    }

    impl World {
        fn new(password: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("config.toml");
            let world = Self { dir, path };
            world.write(password);
            world
        }

        fn write(&self, password: &str) {
            let key = Key::fresh(&Secret::new(password.to_owned()), Cost::USUAL).unwrap();
            std::fs::write(&self.path, encrypt(TEXT, &key).unwrap()).unwrap();
        }

        fn place(&self, command: &str) -> ConfigPlace {
            let counted = format!("echo x >>{}/calls; {command}", self.dir.path().display());
            ConfigPlace::new(Some(self.path.clone()), Some(counted))
        }

        fn calls(&self) -> usize {
            std::fs::read_to_string(self.dir.path().join("calls"))
                .map_or(0, |calls| calls.lines().count())
        }
    }

    #[test]
    fn a_command_is_run_once() {
        let world = World::new("pw");
        let place = world.place("echo pw");
        for _ in 0..2 {
            let opened = open(&world.path, &place).unwrap().unwrap();
            assert_eq!(*opened.text, TEXT);
            assert_eq!(opened.password.unwrap().expose(), "pw");
        }
        // The same password, another salt.
        world.write("pw");
        assert!(open(&world.path, &place).unwrap().is_some());
        assert_eq!(world.calls(), 1);
        place.remembered.forget();
        assert!(open(&world.path, &place).unwrap().is_some());
        assert_eq!(world.calls(), 2);
        world.write("other");
        assert!(matches!(
            open(&world.path, &place),
            Err(Failure::ConfigPassword { .. })
        ));
        assert_eq!(world.calls(), 3);
    }

    #[test]
    fn a_file_in_the_clear_needs_no_command() {
        let world = World::new("pw");
        let place = world.place("echo pw");
        std::fs::write(&world.path, TEXT).unwrap();
        let opened = open(&world.path, &place).unwrap().unwrap();
        assert!(*opened.text == TEXT && opened.password.is_none());
        std::fs::remove_file(&world.path).unwrap();
        assert!(open(&world.path, &place).unwrap().is_none());
        std::fs::write(&world.path, "RCLONE_ENCRYPT_V0:\nAAAA\n").unwrap();
        let failure = open(&world.path, &place).err().unwrap();
        assert!(failure.to_string().contains("of rclone"), "{failure}");
        assert_eq!(world.calls(), 0);
    }

    #[test]
    fn failing_commands_say_how() {
        let world = World::new("pw");
        for (command, part) in [
            ("exit 3", "status 3"),
            ("true", "printed nothing usable"),
            (
                "echo wp",
                "what --password-command prints is not its password",
            ),
        ] {
            let failure = open(&world.path, &world.place(command)).err().unwrap();
            let text = failure.to_string();
            assert!(text.contains("--password-command"), "{text}");
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn what_is_encrypted_may_be_open_to_readers() {
        let world = World::new("pw");
        let place = world.place("echo pw");
        let text = "[remote.w]\nuser = \"w@x\"\npass = \"AAAAAAAAAAAAAAAAAAAAADS03QMhkA\"\n";
        let load = |bytes: &str| {
            std::fs::write(&world.path, bytes).unwrap();
            std::fs::set_permissions(&world.path, PermissionsExt::from_mode(0o644)).unwrap();
            super::super::file::load(&world.path, &place)
        };
        assert!(matches!(load(text), Err(Failure::ConfigExposed { .. })));
        let key = Key::fresh(&Secret::new("pw".to_owned()), Cost::USUAL).unwrap();
        let config = load(&encrypt(text, &key).unwrap()).unwrap();
        assert!(config.remotes.contains_key("w"));
    }
}
