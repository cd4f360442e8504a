//! Remotes of type `mega` in an existing `rclone.conf`. Read only.
//!
//! The format is rclone's INI: `[name]`, `key = value`, comments from `#` or `;` at the beginning
//! of a line, no quoting. Keys of a mega remote: protocol/02 section 8.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Account, ForeignSession, PasswordSource, check_obscured};
use crate::cli::MountOptions;
use crate::failure::Failure;
use crate::quantity::Switch;

/// The first line of an encrypted configuration.
const ENCRYPTED: &str = "RCLONE_ENCRYPT_V";

/// rclone's configuration, parsed.
#[derive(Debug)]
pub(super) struct RcloneFile {
    /// The file.
    pub(super) path: PathBuf,
    sections: BTreeMap<String, BTreeMap<String, String>>,
}

/// A remote of type `mega`.
#[derive(Debug)]
pub(super) struct RcloneRemote {
    pub(super) account: Account,
    /// The options that have a meaning here.
    pub(super) options: MountOptions,
}

/// Why the file is of no use.
#[derive(Debug)]
pub(super) enum Unusable {
    /// It is encrypted.
    Encrypted(PathBuf),
    /// It cannot be read.
    Failed(Failure),
}

/// Reads the first of `candidates` that exists.
pub(super) fn load(candidates: &[PathBuf]) -> Result<Option<RcloneFile>, Unusable> {
    for path in candidates {
        let text = match std::fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                continue;
            }
            Err(e) => {
                return Err(Unusable::Failed(Failure::ConfigUnreadable {
                    path: path.clone(),
                    reason: e.to_string(),
                }));
            }
        };
        return parse(&text, path).map(Some);
    }
    Ok(None)
}

fn parse(text: &str, path: &Path) -> Result<RcloneFile, Unusable> {
    let mut sections = BTreeMap::<_, BTreeMap<_, _>>::new();
    let mut current = None;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with(ENCRYPTED) {
            return Err(Unusable::Encrypted(path.to_path_buf()));
        }
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            current = Some(name.to_owned());
            sections.entry(name.to_owned()).or_default();
        } else if let (Some(name), Some((key, value))) = (&current, line.split_once('='))
            && let Some(section) = sections.get_mut(name)
        {
            section.insert(key.trim().to_owned(), value.trim().to_owned());
        }
    }
    Ok(RcloneFile {
        path: path.to_path_buf(),
        sections,
    })
}

impl RcloneFile {
    /// The names of the remotes that could be mounted.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.sections
            .iter()
            .filter(|(_, section)| is_mega(section))
            .map(|(name, _)| name.clone())
    }

    /// What the command line or the environment says of the remote `name` instead.
    pub(super) fn overlay(&mut self, name: &str, key: &str, value: Option<String>) {
        let (Some(section), Some(value)) = (self.sections.get_mut(name), value) else {
            return;
        };
        if key == "user" && section.get(key) != Some(&value) {
            // Its session is that of the other account.
            section.remove("session_id");
        }
        section.insert(key.to_owned(), value);
    }

    /// The remote `name`, none if there is none of type `mega`.
    pub(super) fn remote(&self, name: &str) -> Result<Option<RcloneRemote>, Failure> {
        let Some(section) = self.sections.get(name) else {
            return Ok(None);
        };
        if !is_mega(section) {
            let kind = section.get("type").map_or("unknown", String::as_str);
            return Err(Failure::ConfigInvalid {
                path: self.path.clone(),
                reason: format!(
                    "the remote '{name}' is of type '{kind}'; megamount mounts only remotes of \
                     type 'mega'."
                ),
            });
        }
        let value = |key: &str| section.get(key).filter(|value| !value.is_empty()).cloned();
        let user = value("user").ok_or_else(|| Failure::NoUser {
            name: name.to_owned(),
            path: self.path.clone(),
        })?;
        let password = match value("pass") {
            Some(obscured) => check_obscured(name, &self.path, obscured)?,
            None => PasswordSource::Ask,
        };
        // A session of rclone's is taken over only where a login of our own would need somebody
        // to ask: two programs in one session end it for each other when one logs out.
        let wanted = password == PasswordSource::Ask || value("2fa").is_some();
        let session = match (value("session_id"), value("master_key")) {
            (Some(session_id), Some(master_key)) if wanted => Some(ForeignSession {
                session_id,
                master_key,
            }),
            _ => None,
        };
        let switch = |key| value(key).and_then(|text| text.parse::<Switch>().ok());
        Ok(Some(RcloneRemote {
            account: Account {
                user,
                password,
                totp_command: None,
                session,
            },
            options: MountOptions {
                hard_delete: switch("hard_delete"),
                mega_debug: switch("debug"),
                ..MountOptions::default()
            },
        }))
    }
}

fn is_mega(section: &BTreeMap<String, String>) -> bool {
    section.get("type").is_some_and(|kind| kind == "mega")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> RcloneFile {
        parse(text, Path::new("/rclone.conf")).unwrap()
    }

    #[test]
    fn remotes_of_type_mega_are_found() {
        let file = file(
            "# a comment\n[work]\ntype = mega\nuser = me@example.com\n\
             pass = AAAAAAAAAAAAAAAAAAAAADS03QMhkA\nhard_delete = true\n\n\
             ; another\n[box]\ntype = dropbox\ntoken = {\"a\":\"b=c\"}\n\
             [second]\ntype=mega\nuser=x@y\n",
        );
        assert_eq!(file.names().collect::<Vec<_>>(), ["second", "work"]);
        let work = file.remote("work").unwrap().unwrap();
        assert_eq!(work.account.user, "me@example.com");
        assert!(matches!(work.account.password, PasswordSource::Obscured(_)));
        assert_eq!(work.options.hard_delete, Some(Switch(true)));
        let second = file.remote("second").unwrap().unwrap();
        assert!(second.account.password == PasswordSource::Ask);
        assert!(file.remote("none").unwrap().is_none());
        let error = file.remote("box").unwrap_err().to_string();
        assert!(error.contains("'dropbox'"), "{error}");
    }

    #[test]
    fn sessions_are_taken_over_only_where_a_login_would_ask() {
        let session = "session_id = S\nmaster_key = K\n";
        let with = |more: &str| {
            let text = format!("[w]\ntype = mega\nuser = u\n{session}{more}");
            file(&text).remote("w").unwrap().unwrap().account.session
        };
        assert!(with("").is_some());
        assert!(with("pass = AAAAAAAAAAAAAAAAAAAAADS03QMhkA\n2fa = 123456\n").is_some());
        assert!(with("pass = AAAAAAAAAAAAAAAAAAAAADS03QMhkA\n").is_none());
    }

    #[test]
    fn a_password_that_is_not_obscured_is_named() {
        let file = file("[w]\ntype = mega\nuser = u\npass = secret\n");
        let error = file.remote("w").unwrap_err().to_string();
        assert!(
            error.contains("'pass'") && error.contains("/rclone.conf"),
            "{error}"
        );
        assert!(!error.contains("secret"));
    }

    #[test]
    fn encryption_is_recognised() {
        let text = "# Encrypted rclone configuration File\n\nRCLONE_ENCRYPT_V0:\nAAAA\n";
        assert!(matches!(
            parse(text, Path::new("/r")),
            Err(Unusable::Encrypted(_))
        ));
    }

    #[test]
    fn the_first_existing_file_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rclone.conf");
        std::fs::write(&path, "[a]\ntype = mega\nuser = u\n").unwrap();
        let found = load(&[dir.path().join("none/rclone.conf"), path.clone()])
            .unwrap()
            .unwrap();
        assert_eq!(found.path, path);
        assert!(load(&[dir.path().join("none")]).unwrap().is_none());
    }
}
