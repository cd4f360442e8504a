//! From the REMOTE argument to an account and its options.
//!
//! Looks a remote up in our `config.toml`, then among the remotes of type `mega` in rclone's
//! configuration, then among the built-in ones (`demo`). Only `edit` writes, and only our own file: rclone's
//! configuration is never written. Files with secrets that others can read are refused.

pub(crate) mod edit;
mod encrypted;
mod file;
pub(crate) mod link;
mod rclone;
mod unlock;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use mega_api::PublicLink;

use crate::cli::{Carried, ConfigPlace, MountOptions};
use crate::env_vars as env;
use crate::failure::Failure;
use crate::paths;

pub(crate) use unlock::{Remembered, is_encrypted, must_ask};

/// The name of the built-in emulator, unless a configuration uses it for something else.
pub(crate) const DEMO: &str = "demo";

/// The REMOTE argument: `name:path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteSpec {
    /// The remote's name, which is also a safe directory name.
    pub(crate) name: String,
    /// The path below its root, without leading, trailing or doubled slashes; empty for all.
    pub(crate) path: String,
}

/// A remote as configured.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Remote {
    /// Its name.
    pub(crate) name: String,
    /// What it is.
    pub(crate) kind: RemoteKind,
    /// Our file, if it has the remote and nothing else says whose account it is.
    pub(crate) file: Option<PathBuf>,
    /// Its options over the defaults of the configuration: the layers below the environment.
    pub(crate) options: MountOptions,
}

/// What a remote is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RemoteKind {
    /// The embedded emulator with sample files.
    Demo,
    /// An account.
    Account(Account),
    /// A public link: read-only, without an account.
    Link(PublicLink),
}

/// How to log in to an account.
#[derive(Clone, PartialEq)]
pub(crate) struct Account {
    /// The e-mail address.
    pub(crate) user: String,
    /// Where the password comes from.
    pub(crate) password: PasswordSource,
    /// A command that prints the current two-factor code.
    pub(crate) totp_command: Option<String>,
    /// A session of rclone that can be taken over, if its configuration has one.
    pub(crate) session: Option<ForeignSession>,
}

/// Where a password comes from.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum PasswordSource {
    /// Obscured as rclone does it.
    Obscured(String),
    /// The first line a shell command prints.
    Command(String),
    /// The first line of a file.
    File(PathBuf),
    /// Nothing is configured: ask.
    Ask,
}

/// A session that another program left behind, as text.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ForeignSession {
    /// The session id, 58 characters.
    pub(crate) session_id: String,
    /// The master key, standard base64.
    pub(crate) master_key: String,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").finish_non_exhaustive()
    }
}

impl FromStr for RemoteSpec {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let bad = || Failure::BadRemote {
            given: text.to_owned(),
        };
        if link::is_link(text) {
            // Never repeated: it may hold a key.
            return Err(Failure::LinkHere);
        }
        let (name, path) = text.split_once(':').ok_or_else(bad)?;
        if !is_remote_name(name) {
            return Err(bad());
        }
        if path.contains('\0') {
            return Err(bad());
        }
        let parts: Vec<_> = path
            .split('/')
            .filter(|p| !p.is_empty() && *p != ".")
            .collect();
        if parts.contains(&"..") {
            return Err(bad());
        }
        Ok(Self {
            name: name.to_owned(),
            path: parts.join("/"),
        })
    }
}

/// Names match `[A-Za-z0-9_][A-Za-z0-9_. -]*` (architecture.md, "State directory").
pub(crate) fn is_remote_name(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut chars = name.chars();
    chars.next().is_some_and(word) && chars.all(|c| word(c) || matches!(c, '.' | ' ' | '-'))
}

/// What the REMOTE argument means: a remote, and the path on it.
pub(crate) fn resolve(
    text: &str,
    place: &ConfigPlace,
    carried: &Carried,
) -> Result<(Remote, String), Failure> {
    let linked = |text: &str, path: String| {
        let public = link::parse(text)?;
        let ours = file::load(&place.file()?, place)?;
        let remote = Remote {
            name: link::name(&public),
            kind: RemoteKind::Link(public),
            file: None,
            options: ours.defaults,
        };
        Ok((remote, path))
    };
    if link::is_link(text) {
        return linked(text, String::new());
    }
    let spec: RemoteSpec = text.parse()?;
    if link::HIDDEN.strip_suffix(':') == Some(&spec.name)
        && let Some(text) = env::text(env::LINK)
    {
        return linked(&text, spec.path);
    }
    Ok((find(&spec.name, place, carried)?, spec.path))
}

/// Finds the remote `name`; `carried` is what rclone's options say.
fn find(name: &str, place: &ConfigPlace, carried: &Carried) -> Result<Remote, Failure> {
    let mut remote = find_configured(name, place, carried)?;
    if let (RemoteKind::Account(account), Some(code)) = (&mut remote.kind, &carried.code) {
        let code = crate::password::digits(code);
        // It goes to a shell, as the output of a command does that prints it.
        if code.is_empty() || !code.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Failure::Usage(
                "the value of --mega-2fa is no code: it must be digits.".to_owned(),
            ));
        }
        account.totp_command = Some(format!("echo {code}"));
    }
    Ok(remote)
}

fn find_configured(name: &str, place: &ConfigPlace, carried: &Carried) -> Result<Remote, Failure> {
    let config_path = place.file()?;
    let mut ours = file::load(&config_path, place)?;
    let defaults = ours.defaults;
    if let Some(pass) = &carried.pass {
        check_obscured(name, Path::new("--mega-pass"), pass.clone())?;
    }
    if let Some(remote) = ours.remotes.get_mut(name) {
        remote.overlay(carried.user.clone(), carried.pass.clone());
        let kind = match remote.link(name, &config_path)? {
            Some(public) => RemoteKind::Link(public),
            None => RemoteKind::Account(remote.account(name, &config_path)?),
        };
        return Ok(Remote {
            name: name.to_owned(),
            kind,
            file: (*carried == Carried::default()).then_some(config_path),
            options: remote.options.clone().or(defaults),
        });
    }
    let theirs = match &carried.rclone_config {
        Some(path) => rclone::load(std::slice::from_ref(path)),
        None => rclone::load(&paths::rclone_candidates()),
    };
    let mut known: Vec<_> = ours.remotes.into_keys().collect();
    let mut rclone_path = None;
    match theirs {
        Ok(Some(mut theirs)) => {
            let pass = env::text(env::RCLONE_MEGA_PASS).filter(|_| carried.pass.is_none());
            if let Some(pass) = &pass {
                check_obscured(name, Path::new(env::RCLONE_MEGA_PASS), pass.clone())?;
            }
            let user = carried.user.clone();
            let user = user.or_else(|| env::text(env::RCLONE_MEGA_USER));
            theirs.overlay(name, "user", user);
            theirs.overlay(name, "pass", carried.pass.clone().or(pass));
            if let Some(section) = theirs.remote(name)? {
                return Ok(Remote {
                    name: name.to_owned(),
                    kind: RemoteKind::Account(section.account),
                    file: None,
                    options: rclone_environment()?.or(defaults).or(section.options),
                });
            }
            known.extend(theirs.names());
            rclone_path = Some(theirs.path);
        }
        Ok(None) => {}
        // What is wrong with rclone's file matters only to those who need it.
        Err(_) if name == DEMO => {}
        Err(rclone::Unusable::Encrypted(path)) => {
            let (name, config) = (name.to_owned(), config_path);
            return Err(Failure::RcloneEncrypted { path, name, config });
        }
        Err(rclone::Unusable::Failed(failure)) => return Err(failure),
    }
    if name == DEMO {
        return Ok(Remote {
            name: name.to_owned(),
            kind: RemoteKind::Demo,
            file: None,
            options: defaults,
        });
    }
    known.sort();
    known.dedup();
    Err(Failure::UnknownRemote {
        name: name.to_owned(),
        known,
        config: config_path,
        rclone: rclone_path,
    })
}

/// Mount options from rclone's environment.
fn rclone_environment() -> Result<MountOptions, Failure> {
    let switch = |name: &str| {
        let text = env::text(name);
        text.map(|text| text.parse())
            .transpose()
            .map_err(|e| Failure::Usage(format!("the value of {name} is wrong: {e}.")))
    };
    Ok(MountOptions {
        hard_delete: switch(env::RCLONE_MEGA_HARD_DELETE)?,
        mega_debug: switch(env::RCLONE_MEGA_DEBUG)?,
        ..MountOptions::default()
    })
}

/// The options of the remote `name`, which may be nobody's.
pub(crate) fn options_of(name: &str, place: &ConfigPlace) -> Result<MountOptions, Failure> {
    let mut ours = file::load_if_there(&place.file()?, place)?.unwrap_or_default();
    let own = ours.remotes.remove(name).unwrap_or_default();
    Ok(own.options.or(ours.defaults))
}

/// What can be imported from the first of `candidates` that exists into `config`: the remotes
/// `names`, or all of type mega.
pub(crate) fn importable(
    candidates: &[PathBuf],
    names: &[&str],
    config: &Path,
) -> Result<Vec<(String, edit::NewRemote)>, Failure> {
    let theirs = match rclone::load(candidates) {
        Ok(Some(theirs)) => theirs,
        Ok(None) => {
            return Err(Failure::NoRclone {
                searched: candidates.to_vec(),
            });
        }
        Err(rclone::Unusable::Encrypted(path)) => {
            let (name, config) = (names.first().unwrap_or(&"NAME"), config.to_path_buf());
            let name = (*name).to_owned();
            return Err(Failure::RcloneEncrypted { path, name, config });
        }
        Err(rclone::Unusable::Failed(failure)) => return Err(failure),
    };
    let all: Vec<_> = theirs.names().collect();
    let wanted: Vec<_> = if names.is_empty() {
        all.clone()
    } else {
        names.iter().map(|name| (*name).to_owned()).collect()
    };
    let mut found = vec![];
    for name in wanted {
        let Some(remote) = theirs.remote(&name)? else {
            return Err(Failure::UnknownRemote {
                name,
                known: all,
                config: theirs.path,
                rclone: None,
            });
        };
        let password = match remote.account.password {
            PasswordSource::Obscured(obscured) => edit::NewPassword::Obscured(obscured),
            _ => edit::NewPassword::Ask,
        };
        let new = edit::NewRemote {
            user: remote.account.user,
            password,
            hard_delete: remote.options.hard_delete.map(|switch| switch.0),
        };
        found.push((name, new));
    }
    Ok(found)
}

/// Proves that an obscured password can be revealed, so that the error names its file.
fn check_obscured(name: &str, path: &Path, obscured: String) -> Result<PasswordSource, Failure> {
    match crate::password::reveal(&obscured) {
        Some(_) => Ok(PasswordSource::Obscured(obscured)),
        None => Err(Failure::BadPassword {
            name: name.to_owned(),
            path: path.to_path_buf(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Option<(String, String)> {
        text.parse::<RemoteSpec>()
            .ok()
            .map(|spec| (spec.name, spec.path))
    }

    #[test]
    fn remotes_are_a_name_a_colon_and_a_path() {
        let pair = |name: &str, path: &str| Some((name.to_owned(), path.to_owned()));
        assert_eq!(spec("work:"), pair("work", ""));
        assert_eq!(spec("work:/"), pair("work", ""));
        assert_eq!(spec("work:a/b/"), pair("work", "a/b"));
        assert_eq!(spec("work:/a//./b"), pair("work", "a/b"));
        assert_eq!(spec("my mega.2:x:y"), pair("my mega.2", "x:y"));
        for bad in [
            "work",
            ":",
            "-w:",
            ".w:",
            " w:",
            "a/b:c",
            "w\u{f6}rk:",
            "work:../x",
            "",
        ] {
            assert_eq!(spec(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_link_is_no_name_and_is_not_repeated() {
        let link = "https://mega.nz/folder/AAAA#BBBB".parse::<RemoteSpec>();
        let message = link.unwrap_err().to_string();
        assert!(!message.contains("BBBB"), "{message}");
    }
}
