//! Our own `config.toml`.
//!
//! `[defaults]` holds mount options, `[remote.NAME]` an account and mount options of its own.
//! `config/config.toml` in the repository is the annotated example.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mega_api::PublicLink;
use mega_crypto::Secret;
use toml::{Table, Value};

use super::unlock::{self, Opened};
use super::{Account, PasswordSource, check_obscured, is_remote_name};
use crate::cli::{ConfigPlace, MountOptions};
use crate::failure::Failure;
use crate::paths;

/// The parsed file; empty when there is none.
#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    /// `[defaults]`.
    pub(super) defaults: MountOptions,
    /// `[remote.NAME]`, by name.
    pub(super) remotes: BTreeMap<String, RemoteEntry>,
}

/// One `[remote.NAME]`.
#[derive(Debug, Default)]
pub(super) struct RemoteEntry {
    user: Option<String>,
    pass: Option<String>,
    pass_command: Option<String>,
    pass_file: Option<PathBuf>,
    totp_command: Option<String>,
    link: Option<String>,
    link_command: Option<String>,
    link_file: Option<PathBuf>,
    pub(super) options: MountOptions,
}

impl RemoteEntry {
    /// What the command line says of the account instead.
    pub(super) fn overlay(&mut self, user: Option<String>, pass: Option<String>) {
        self.user = user.or_else(|| self.user.take());
        if pass.is_some() {
            self.pass = pass;
            self.pass_command = None;
            self.pass_file = None;
        }
    }

    /// The public link of this entry, which stands in `path`; none if it is an account.
    pub(super) fn link(&self, name: &str, path: &Path) -> Result<Option<PublicLink>, Failure> {
        let is_account = self.user.is_some() || self.pass.is_some();
        let text = match (&self.link, &self.link_command, &self.link_file) {
            (None, None, None) => return Ok(None),
            (Some(text), None, None) if !is_account => Secret::new(text.clone()),
            (None, Some(command), None) if !is_account => {
                crate::password::run("link-command", name, command)?
            }
            (None, None, Some(file)) if !is_account => {
                crate::password::from_file("link", name, &paths::absolute(file)?)?
            }
            _ => {
                return Err(invalid(
                    path,
                    format!(
                        "the remote '{name}' is either an account or a link, and a link has one of \
                         'link', 'link-command' and 'link-file'."
                    ),
                ));
            }
        };
        super::link::parse(text.expose()).map(Some)
    }

    /// Whether the file must be closed to others for it.
    fn holds_secret(&self) -> bool {
        self.pass.is_some() || self.link.is_some()
    }

    /// The account of this entry, which stands in `path`.
    pub(super) fn account(&self, name: &str, path: &Path) -> Result<Account, Failure> {
        let user = self
            .user
            .clone()
            .filter(|user| !user.trim().is_empty())
            .ok_or_else(|| Failure::NoUser {
                name: name.to_owned(),
                path: path.to_path_buf(),
            })?;
        let password = match (&self.pass, &self.pass_command, &self.pass_file) {
            (None, None, None) => PasswordSource::Ask,
            (Some(pass), None, None) => check_obscured(name, path, pass.clone())?,
            (None, Some(command), None) => PasswordSource::Command(command.clone()),
            (None, None, Some(file)) => PasswordSource::File(paths::absolute(file)?),
            _ => {
                return Err(invalid(
                    path,
                    format!(
                        "the remote '{name}' has more than one of 'pass', 'pass-command' and \
                         'pass-file'. Keep one."
                    ),
                ));
            }
        };
        Ok(Account {
            user,
            password,
            totp_command: self.totp_command.clone(),
            session: None,
        })
    }
}

/// Reads `path`, which `place` means. A missing file is an empty one, unless it was asked for by name.
pub(super) fn load(path: &Path, place: &ConfigPlace) -> Result<ConfigFile, Failure> {
    match load_if_there(path, place)? {
        Some(config) => Ok(config),
        None if place.config.is_none() => Ok(ConfigFile::default()),
        None => Err(Failure::ConfigUnreadable {
            path: path.to_path_buf(),
            reason: std::io::Error::from(rustix::io::Errno::NOENT).to_string(),
        }),
    }
}

/// Reads `path`, which `place` means; none if there is no such file.
pub(super) fn load_if_there(
    path: &Path,
    place: &ConfigPlace,
) -> Result<Option<ConfigFile>, Failure> {
    let Some(Opened {
        text,
        password,
        mode,
    }) = unlock::open(path, place)?
    else {
        return Ok(None);
    };
    let config = parse(&text, path)?;
    // Anybody who may write the file may also put a `pass-command` into it, hence the w bits. An encrypted file
    // cannot be changed without its password, and may be kept where others can read it.
    let is_open = password.is_none() && mode & 0o077 != 0;
    if is_open && config.remotes.values().any(RemoteEntry::holds_secret) {
        return Err(Failure::ConfigExposed {
            path: path.to_path_buf(),
            mode,
        });
    }
    Ok(Some(config))
}

/// Parses the text of `path`.
pub(super) fn parse(text: &str, path: &Path) -> Result<ConfigFile, Failure> {
    let mut table: Table = toml::from_str(text).map_err(|e| invalid(path, one_line(&e, text)))?;
    let defaults = match table.remove("defaults") {
        Some(value) => options(as_table(value, "[defaults]", path)?, "[defaults]", path)?,
        None => MountOptions::default(),
    };
    let mut remotes = BTreeMap::new();
    if let Some(value) = table.remove("remote") {
        for (name, value) in as_table(value, "[remote]", path)? {
            let place = format!("[remote.{name}]");
            if !is_remote_name(&name) {
                return Err(invalid(
                    path,
                    format!(
                        "'{name}' cannot be the name of a remote. A name begins with a letter, \
                         digit or underscore, and has only those, dots, dashes and spaces."
                    ),
                ));
            }
            remotes.insert(name, remote(as_table(value, &place, path)?, &place, path)?);
        }
    }
    if let Some(unknown) = table.keys().next() {
        return Err(invalid(
            path,
            format!("'{unknown}' is not known. There are only '[defaults]' and '[remote.NAME]'."),
        ));
    }
    Ok(ConfigFile { defaults, remotes })
}

/// Parses one `[remote.NAME]`: its own keys are taken out, the rest are mount options.
fn remote(mut table: Table, place: &str, path: &Path) -> Result<RemoteEntry, Failure> {
    let mut text = |key: &str| match table.remove(key) {
        None => Ok(None),
        Some(Value::String(value)) => Ok(Some(value)),
        Some(_) => Err(invalid(
            path,
            format!("'{key}' in {place} must be text in quotes."),
        )),
    };
    Ok(RemoteEntry {
        user: text("user")?,
        pass: text("pass")?,
        pass_command: text("pass-command")?,
        pass_file: text("pass-file")?.map(PathBuf::from),
        totp_command: text("totp-command")?,
        link: text("link")?,
        link_command: text("link-command")?,
        link_file: text("link-file")?.map(PathBuf::from),
        options: options(table, place, path)?,
    })
}

/// Parses a table of mount options.
fn options(table: Table, place: &str, path: &Path) -> Result<MountOptions, Failure> {
    let keys = MountOptions::keys();
    if let Some(unknown) = table.keys().find(|key| !keys.contains(key)) {
        return Err(invalid(
            path,
            format!("'{unknown}' in {place} is not known. 'megamount --help' lists the options."),
        ));
    }
    for (key, value) in table.clone() {
        // One at a time, so that the message can name the key.
        let single = Table::from_iter([(key.clone(), value)]);
        if let Err(error) = single.try_into::<MountOptions>() {
            let reason = error.message().to_owned();
            return Err(invalid(path, format!("'{key}' in {place}: {reason}.")));
        }
    }
    table
        .try_into()
        .map_err(|e| invalid(path, format!("{place}: {}.", e.message())))
}

fn as_table(value: Value, place: &str, path: &Path) -> Result<Table, Failure> {
    match value {
        Value::Table(table) => Ok(table),
        _ => Err(invalid(path, format!("{place} must be a table."))),
    }
}

fn invalid(path: &Path, reason: String) -> Failure {
    Failure::ConfigInvalid {
        path: path.to_path_buf(),
        reason,
    }
}

/// A syntax error with its line; never the line's text, which may be a password.
fn one_line(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map(|span| {
        text.bytes()
            .take(span.start)
            .filter(|byte| *byte == b'\n')
            .count()
            + 1
    });
    match line {
        Some(line) => format!("line {line}: {}.", error.message()),
        None => format!("{}.", error.message()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn parsed(text: &str) -> Result<ConfigFile, String> {
        parse(text, Path::new("/c.toml")).map_err(|failure| failure.to_string())
    }

    #[test]
    fn the_sample_is_valid() {
        let sample = include_str!("../../../../config/config.toml");
        let config = parsed(sample).unwrap();
        assert!(config.remotes.contains_key("work"));
    }

    #[test]
    fn the_sample_with_every_comment_opened_is_valid() {
        // Lines such as `# key = value` are options that a reader may uncomment.
        let sample = include_str!("../../../../config/config.toml");
        let opened: Vec<_> = sample
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest)
                    if rest
                        .split_once(" = ")
                        .is_some_and(|(k, _)| !k.contains(' ')) =>
                {
                    rest
                }
                _ => line,
            })
            .collect();
        let config = parsed(&opened.join("\n")).unwrap();
        let mut named = config
            .defaults
            .clone()
            .or(config.remotes["work"].options.clone());
        assert!(named.cache_size.take().is_some());
    }

    #[test]
    fn remotes_have_options_of_their_own() {
        let config = parsed(
            "[defaults]\nuploads = 2\nstreams = 3\n\
             [remote.work]\nuser = \"a@b\"\nuploads = 7\npass-command = \"pass mega\"\n",
        )
        .unwrap();
        let work = &config.remotes["work"];
        let settings = work.options.clone().or(config.defaults).resolve();
        assert_eq!((settings.uploads, settings.streams), (7, 3));
        let account = work.account("work", Path::new("/c.toml")).unwrap();
        assert!(account.password == PasswordSource::Command("pass mega".to_owned()));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            (
                "[defaults]\nuplods = 2",
                "'uplods' in [defaults] is not known",
            ),
            (
                "[defaults]\nwrite-back = \"soon\"",
                "'write-back' in [defaults]",
            ),
            ("[remote.x]\nuser = 5", "'user' in [remote.x] must be text"),
            (
                "[remote.\"a/b\"]\nuser = \"u\"",
                "cannot be the name of a remote",
            ),
            ("[other]\n", "'other' is not known"),
            ("[remote.x\nuser=1", "line 1"),
            ("remote = 5", "[remote] must be a table"),
        ] {
            let message = parsed(text).unwrap_err();
            assert!(message.contains(part), "{text:?} gave {message:?}");
            assert!(message.contains("/c.toml"));
        }
    }

    #[test]
    fn a_syntax_error_does_not_show_the_line() {
        let message = parsed("[remote.x]\npass = \"SECRETWORD\" x\n").unwrap_err();
        assert!(
            message.contains("line 2") && !message.contains("SECRETWORD"),
            "{message}"
        );
    }

    #[test]
    fn secrets_that_others_can_read_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let open = |mode: u32, text: &str| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            load_if_there(&path, &ConfigPlace::default()).map(Option::unwrap_or_default)
        };
        let secret = "[remote.x]\nuser = \"u\"\npass = \"p\"\n";
        assert!(open(0o600, secret).is_ok());
        assert!(matches!(
            open(0o644, secret),
            Err(Failure::ConfigExposed { mode: 0o644, .. })
        ));
        assert!(
            open(0o644, "[remote.x]\nuser = \"u\"\n").is_ok(),
            "nothing secret in it"
        );
        let none = dir.path().join("none");
        let unnamed = load(&none, &ConfigPlace::default()).unwrap();
        assert!(unnamed.remotes.is_empty());
        let named = ConfigPlace::new(Some(none.clone()), None);
        assert!(load(&none, &named).is_err(), "named, so it must exist");
    }

    #[test]
    fn a_remote_can_be_a_link() {
        let link = format!("https://mega.nz/folder/HHHHHHHH#{}", "A".repeat(22));
        let entry = |text: &str| {
            let mut config = parsed(&format!("[remote.x]\n{text}\n")).unwrap();
            let entry = config.remotes.remove("x").unwrap();
            entry.link("x", Path::new("/c.toml"))
        };
        let found = entry(&format!("link = \"{link}\"")).unwrap().unwrap();
        assert_eq!(found.handle.to_string(), "HHHHHHHH");
        let found = entry(&format!("link-command = \"echo '{link}'\"")).unwrap();
        assert!(found.is_some());
        assert!(entry("user = \"u\"").unwrap().is_none());
        for bad in [
            format!("link = \"{link}\"\nuser = \"u\""),
            format!("link = \"{link}\"\nlink-file = \"/f\""),
            format!("link = \"{link}x\""),
            "link-command = \"false\"".to_owned(),
        ] {
            let message = entry(&bad).unwrap_err().to_string();
            assert!(!message.contains("AAAA"), "{message}");
        }
    }

    #[test]
    fn one_source_of_the_password() {
        let config = parsed("[remote.x]\nuser = \"u\"\npass-file = \"/p\"\npass-command = \"c\"\n");
        let account = config.unwrap().remotes["x"].account("x", Path::new("/c.toml"));
        assert!(account.unwrap_err().to_string().contains("more than one"));
        let config = parsed("[remote.x]\npass-file = \"/p\"\n").unwrap();
        let account = config.remotes["x"].account("x", Path::new("/c.toml"));
        assert!(matches!(account, Err(Failure::NoUser { .. })));
    }
}
