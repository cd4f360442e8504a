//! Passwords and two-factor codes: from wherever the configuration says they come.
//!
//! Promises: nothing secret reaches a log, an argument list or an error text. Commands run in
//! `sh -c`, with our environment but without systemd's notify socket and the password of the
//! configuration.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use mega_crypto::Secret;

use crate::config::{Account, PasswordSource};
use crate::env_vars as env;
use crate::failure::Failure;

/// More than a page of output is no password.
const LONGEST: u64 = 4096;

/// The clear text of a password that rclone obscured, none if it is no such thing.
pub(crate) fn reveal(obscured: &str) -> Option<Secret> {
    mega_crypto::reveal(obscured)
        .ok()
        .filter(|secret| !secret.expose().is_empty())
}

/// The configured password of `account`; none when nothing is configured.
pub(crate) fn configured(name: &str, account: &Account) -> Result<Option<Secret>, Failure> {
    match &account.password {
        PasswordSource::Ask => Ok(None),
        PasswordSource::Obscured(obscured) => Ok(reveal(obscured)),
        PasswordSource::Command(command) => run("pass-command", name, command).map(Some),
        PasswordSource::File(path) => from_file("password", name, path).map(Some),
    }
}

/// The current two-factor code from `totp-command`; none when none is configured.
pub(crate) fn code(name: &str, account: &Account) -> Result<Option<String>, Failure> {
    let Some(command) = &account.totp_command else {
        return Ok(None);
    };
    let printed = run("totp-command", name, command)?;
    Ok(Some(digits(printed.expose())))
}

/// A code as the server takes it: people and programs group the digits.
pub(crate) fn digits(code: &str) -> String {
    code.chars()
        .filter(|c| !c.is_whitespace() && *c != '-')
        .collect()
}

/// The first line that `command` prints, which is `what` of the remote `name`.
pub(crate) fn run(what: &'static str, name: &str, command: &str) -> Result<Secret, Failure> {
    printed(command).map_err(|reason| Failure::PasswordCommand {
        what,
        name: name.to_owned(),
        reason,
    })
}

/// The password of the configuration: the first line that the `--password-command` prints.
pub(crate) fn of_config(command: &str) -> Result<Secret, Failure> {
    printed(command).map_err(|reason| Failure::ConfigPasswordCommand { reason })
}

/// The first line that `command` prints, or why there is none.
fn printed(command: &str) -> Result<Secret, String> {
    // Standard error stays connected, so that the command can ask and complain on the terminal.
    let output = Command::new("sh")
        .args(["-c", command])
        .env_remove(env::NOTIFY_SOCKET)
        .env_remove(env::CONFIG_PASS)
        .stdin(Stdio::inherit())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(match (output.status.code(), output.status.signal()) {
            (Some(code), _) => format!("it exited with status {code}"),
            (None, signal) => format!("it was ended by signal {}", signal.unwrap_or_default()),
        });
    }
    first_line(output.stdout).ok_or_else(|| "it printed nothing usable".to_owned())
}

/// The first line of the file at `path`, which is `what` of a remote.
pub(crate) fn from_file(what: &'static str, name: &str, path: &Path) -> Result<Secret, Failure> {
    let failed = |reason: String| Failure::PasswordFile {
        what,
        name: name.to_owned(),
        path: path.to_path_buf(),
        reason,
    };
    let file = std::fs::File::open(path).map_err(|e| failed(e.to_string()))?;
    let mut bytes = vec![];
    file.take(LONGEST)
        .read_to_end(&mut bytes)
        .map_err(|e| failed(e.to_string()))?;
    first_line(bytes).ok_or_else(|| failed("its first line is empty or not UTF-8".to_owned()))
}

/// The first line of `bytes`, which are gone afterwards.
fn first_line(bytes: Vec<u8>) -> Option<Secret> {
    let text = Secret::new(String::from_utf8(bytes).ok()?);
    let line = text.expose().lines().next()?;
    (!line.is_empty() && line.len() < LONGEST as usize).then(|| Secret::new(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(password: PasswordSource, totp_command: Option<&str>) -> Account {
        Account {
            user: "me@example.com".into(),
            password,
            totp_command: totp_command.map(str::to_owned),
            session: None,
        }
    }

    fn password(source: PasswordSource) -> Result<Option<String>, String> {
        configured("w", &account(source, None))
            .map(|secret| secret.map(|s| s.expose().to_owned()))
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn every_source_gives_its_password() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pass");
        std::fs::write(&file, "from file \nsecond\n").unwrap();
        let obscured = "AAAAAAAAAAAAAAAAAAAAADS03QMhkA".to_owned();
        assert_eq!(
            password(PasswordSource::Obscured(obscured)),
            Ok(Some("potato".into()))
        );
        let command = "printf 'x y\\nz\\n'".to_owned();
        assert_eq!(
            password(PasswordSource::Command(command)),
            Ok(Some("x y".into()))
        );
        assert_eq!(
            password(PasswordSource::File(file)),
            Ok(Some("from file ".into()))
        );
        assert_eq!(password(PasswordSource::Ask), Ok(None));
    }

    #[test]
    fn failing_sources_say_how() {
        for (command, part) in [("exit 3", "status 3"), ("true", "printed nothing usable")] {
            let error = password(PasswordSource::Command(command.into())).unwrap_err();
            assert!(
                error.contains("pass-command") && error.contains(part),
                "{error}"
            );
        }
        let error = password(PasswordSource::File("/none".into())).unwrap_err();
        assert!(error.contains("/none"), "{error}");
    }

    #[test]
    fn codes_lose_their_grouping() {
        let account = account(PasswordSource::Ask, Some("echo '123 456'"));
        assert_eq!(code("w", &account).unwrap().unwrap(), "123456");
    }
}
