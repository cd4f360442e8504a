//! The options of `rclone mount`, so that a unit file for it works here with its options unchanged.
//!
//! What has a meaning here becomes our option before clap sees it; what has none is left out and
//! named. The table is that of rclone 1.75 (`rclone mount --help`, and the global options that
//! stand in units).

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::fstab::{self, Word};

/// What the command line says of the account and of rclone's configuration.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    /// `--mega-user`.
    pub(crate) user: Option<String>,
    /// `--mega-pass`, obscured.
    pub(crate) pass: Option<String>,
    /// `--mega-2fa`.
    pub(crate) code: Option<String>,
    /// `--config` with the name of a file of rclone's.
    pub(crate) rclone_config: Option<PathBuf>,
}

impl std::fmt::Debug for Carried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Carried").finish_non_exhaustive()
    }
}

/// A command line in our own words.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Translated {
    /// For clap.
    pub(crate) args: Vec<OsString>,
    /// Beside it.
    pub(crate) carried: Carried,
    /// Options that have no meaning here.
    pub(crate) ignored: Vec<String>,
}

/// The words that are known, and what becomes of others.
#[derive(Debug, Default)]
pub(crate) struct Vocabulary {
    /// First words that are no mount.
    pub(crate) commands: Vec<String>,
    /// Our own long options.
    pub(crate) options: Vec<String>,
    /// Unknown words in a list of `-o` are errors; else they are passed over and named.
    pub(crate) is_strict: bool,
}

impl Vocabulary {
    /// Whether `--NAME` or `--NAME=VALUE` is an option, ours or rclone's.
    fn has(&self, option: &OsStr) -> bool {
        let text = option.to_string_lossy();
        let name = text.trim_start_matches("--");
        let name = name.split_once('=').map_or(name, |(name, _)| name);
        self.options.iter().any(|known| known == name)
            || VALUES
                .iter()
                .chain(SWITCHES)
                .any(|(known, _)| *known == name)
            || IDLE_VALUES.contains(&name)
            || IDLE_SWITCHES.contains(&name)
    }
}

/// What an option of rclone's is here.
#[derive(Clone, Copy)]
enum Meaning {
    /// This option of ours, with the same values.
    Same(&'static str),
    /// One whose values are others.
    Values(&'static str, fn(&str) -> Option<&'static str>),
    /// This option of ours unless the value is this one, which means nothing here.
    Unless(&'static str, &'static str),
    /// The account's address.
    User,
    /// Its password, obscured.
    Pass,
    /// Its two-factor code.
    Code,
    /// What is done in any case.
    Anyway,
    /// More of the log.
    Louder(u8),
    /// Less of it.
    Quiet,
}

use Meaning::{Anyway, Code, Louder, Pass, Quiet, Same, Unless, User, Values};

/// Options with a value.
const VALUES: &[(&str, Meaning)] = &[
    ("vfs-cache-max-size", Unless("cache-size", "off")),
    ("vfs-cache-mode", Values("cache", cache_mode)),
    ("vfs-write-back", Same("write-back")),
    ("vfs-read-chunk-streams", Unless("streams", "0")),
    ("tpslimit", Same("api-rate")),
    ("transfers", Same("uploads")),
    ("daemon-wait", Same("daemon-timeout")),
    ("devname", Same("fsname")),
    ("log-file-max-size", Unless("log-file-max-size", "off")),
    ("log-level", Values("log-level", log_level)),
    ("log-format", Values("log-format", log_format)),
    ("mega-user", User),
    ("mega-pass", Pass),
    ("mega-2fa", Code),
];

/// Options that are on or off.
const SWITCHES: &[(&str, Meaning)] = &[
    ("mega-hard-delete", Same("hard-delete")),
    ("mega-use-https", Same("transfer-tls")),
    ("mega-debug", Same("mega-debug")),
    ("verbose", Louder(1)),
    ("quiet", Quiet),
    ("daemon", Anyway),
    ("async-read", Anyway),
];

/// Options with a value and without a meaning.
const IDLE_VALUES: &[&str] = &[
    "buffer-size",
    "bwlimit-file",
    "checkers",
    "contimeout",
    "dir-cache-time",
    "dump",
    "exclude",
    "exclude-from",
    "exclude-if-present",
    "expect-continue-timeout",
    "files-from",
    "files-from-raw",
    "files-from0",
    "filter",
    "filter-from",
    "fuse-flag",
    "hash-filter",
    "include",
    "include-from",
    "link-perms",
    "log-file-max-age",
    "low-level-retries",
    "max-age",
    "max-depth",
    "max-read-ahead",
    "max-size",
    "mega-description",
    "mega-encoding",
    "metadata-exclude",
    "metadata-exclude-from",
    "metadata-filter",
    "metadata-filter-from",
    "metadata-include",
    "metadata-include-from",
    "min-age",
    "min-size",
    "mount-case-insensitive",
    "multi-thread-streams",
    "poll-interval",
    "rc-addr",
    "rc-pass",
    "rc-user",
    "retries",
    "stats",
    "stats-log-level",
    "syslog-facility",
    "temp-dir",
    "tpslimit-burst",
    "user-agent",
    "vfs-cache-max-age",
    "vfs-cache-min-free-space",
    "vfs-cache-poll-interval",
    "vfs-disk-space-total-size",
    "vfs-handle-caching",
    "vfs-metadata-extension",
    "vfs-read-ahead",
    "vfs-read-chunk-size",
    "vfs-read-chunk-size-limit",
    "vfs-read-wait",
    "vfs-write-wait",
    "volname",
];

/// Options that are on or off, without a meaning.
const IDLE_SWITCHES: &[&str] = &[
    "allow-idmap",
    "allow-non-empty",
    "ask-password",
    "debug-fuse",
    "default-permissions",
    "delete-excluded",
    "direct-io",
    "disable-http2",
    "fast-list",
    "ignore-checksum",
    "links",
    "log-systemd",
    "network-mode",
    "no-check-certificate",
    "no-checksum",
    "no-modtime",
    "no-seek",
    "noappledouble",
    "noapplexattr",
    "rc",
    "rc-no-auth",
    "stats-one-line",
    "use-cookies",
    "use-mmap",
    "vfs-block-norm-dupes",
    "vfs-case-insensitive",
    "vfs-fast-fingerprint",
    "vfs-links",
    "vfs-refresh",
    "vfs-used-is-size",
    "write-back-cache",
];

fn cache_mode(value: &str) -> Option<&'static str> {
    // What is written is kept on disk until Mega has it, whatever the mode.
    match value.to_ascii_lowercase().as_str() {
        "off" | "0" => Some("off"),
        "minimal" | "writes" | "full" | "1" | "2" | "3" => Some("full"),
        _ => None,
    }
}

fn log_level(value: &str) -> Option<&'static str> {
    match value {
        "DEBUG" => Some("debug"),
        "INFO" => Some("info"),
        "NOTICE" | "WARNING" => Some("warn"),
        "ERROR" | "CRITICAL" | "ALERT" | "EMERGENCY" => Some("error"),
        _ => None,
    }
}

fn log_format(value: &str) -> Option<&'static str> {
    // rclone lists what stands in a line; only that it is JSON has a meaning here.
    value
        .split(',')
        .any(|part| part == "json")
        .then_some("json")
}

/// Translates the arguments of a mount; `args` begins with the name of the program.
pub(crate) fn translate(
    args: impl IntoIterator<Item = OsString>,
    vocabulary: &Vocabulary,
) -> Translated {
    let mut args: VecDeque<OsString> = args.into_iter().collect();
    let mut done = Translated::default();
    done.args.extend(args.pop_front());
    let first = args.front().and_then(|first| first.to_str());
    if first.is_some_and(|first| vocabulary.commands.iter().any(|command| command == first)) {
        done.args.extend(args);
        return done;
    }
    let (mut louder, mut quiet, mut has_level) = (0, false, false);
    while let Some(arg) = args.pop_front() {
        if arg == "--" {
            done.args.push(arg);
            done.args.extend(args);
            break;
        }
        let bytes = arg.as_bytes();
        let Some(option) = bytes.strip_prefix(b"--") else {
            match bytes {
                b"-v" => louder += 1,
                b"-vv" => louder += 2,
                b"-vvv" => louder += 3,
                b"-q" => quiet = true,
                b"-l" => done.ignored.push(arg.to_string_lossy().into_owned()),
                [b'-', b'o', attached @ ..] => {
                    let list = OsStr::from_bytes(attached).to_owned();
                    let list = if list.is_empty() {
                        args.pop_front()
                    } else {
                        Some(list)
                    };
                    done.list(&list.unwrap_or_default(), vocabulary, &mut args);
                }
                _ => done.args.push(arg),
            }
            continue;
        };
        let (name, given) = match option.iter().position(|byte| *byte == b'=') {
            Some(at) => {
                let (name, value) = option.split_at(at);
                let value = value.get(1..).unwrap_or_default();
                (name, Some(OsStr::from_bytes(value).to_owned()))
            }
            None => (option, None),
        };
        let name = String::from_utf8_lossy(name).into_owned();
        let is = |known: &&str| *known == name;
        if IDLE_SWITCHES.iter().any(is) {
            done.ignored.push(format!("--{name}"));
        } else if IDLE_VALUES.iter().any(is) {
            if given.is_none() {
                args.pop_front();
            }
            done.ignored.push(format!("--{name}"));
        } else if let Some((_, meaning)) = SWITCHES.iter().find(|(known, _)| *known == name) {
            let is_on = given.as_deref() != Some(OsStr::new("false"));
            match meaning {
                Same(ours) => done.push(ours, given.unwrap_or_else(|| "true".into())),
                Louder(by) if is_on => louder += by,
                Quiet if is_on => quiet = true,
                _ => {}
            }
        } else if let Some((_, meaning)) = VALUES.iter().find(|(known, _)| *known == name) {
            let Some(value) = given.or_else(|| args.pop_front()) else {
                // Clap says best that a value is missing, of the name that was typed.
                done.args.push(arg);
                continue;
            };
            has_level |= name == "log-level";
            done.value(&name, *meaning, value);
        } else if name == "option" {
            let list = given.or_else(|| args.pop_front()).unwrap_or_default();
            done.list(&list, vocabulary, &mut args);
        } else if name == "config" {
            let Some(value) = given.or_else(|| args.pop_front()) else {
                done.args.push(arg);
                continue;
            };
            if std::path::Path::new(&value).extension() == Some(OsStr::new("conf")) {
                done.carried.rclone_config = Some(value.into());
            } else {
                done.push("config", value);
            }
        } else {
            done.args.push(arg);
        }
    }
    let level = match (louder, quiet) {
        (0, true) => Some("error"),
        (0, false) => None,
        (1, _) => Some("info"),
        (2, _) => Some("debug"),
        _ => Some("trace"),
    };
    if let Some(level) = level.filter(|_| !has_level) {
        // In front: what follows a `--` is no option.
        done.args.insert(1, format!("--log-level={level}").into());
    }
    done.ignored.dedup();
    done
}

impl Translated {
    fn push(&mut self, ours: &str, value: OsString) {
        let mut arg = format!("--{ours}=").into_bytes();
        arg.extend(value.into_vec());
        self.args.push(OsString::from_vec(arg));
    }

    /// `-o ro,write_back=10s`: what is an option becomes the next argument.
    fn list(&mut self, list: &OsStr, vocabulary: &Vocabulary, args: &mut VecDeque<OsString>) {
        let mut options = vec![];
        for text in fstab::words(list) {
            match fstab::word(text) {
                Word::Nothing => {}
                Word::Option(option) if vocabulary.has(&option) || vocabulary.is_strict => {
                    options.push(option);
                }
                Word::Option(_) => self.ignored.push(format!("-o {}", text.to_string_lossy())),
            }
        }
        for option in options.into_iter().rev() {
            args.push_front(option);
        }
    }

    fn value(&mut self, name: &str, meaning: Meaning, value: OsString) {
        let text = value.to_string_lossy().into_owned();
        match meaning {
            Same(ours) => self.push(ours, value),
            Values(ours, convert) => match convert(&text) {
                Some(converted) => self.push(ours, converted.into()),
                // A list of rclone's that says nothing here; our own words, and slips, go to clap.
                None if name == "log-format" && text != "text" => {
                    self.ignored.push(format!("--{name}"));
                }
                None => self.push(ours, value),
            },
            Unless(_, nothing) if text == nothing => self.ignored.push(format!("--{name}={text}")),
            Unless(ours, _) => self.push(ours, value),
            User => self.carried.user = Some(text),
            Pass => self.carried.pass = Some(text),
            Code => self.carried.code = Some(text),
            Anyway | Louder(_) | Quiet => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(args: &str) -> Translated {
        let args = std::iter::once("megamount").chain(args.split(' '));
        let vocabulary = Vocabulary {
            commands: vec!["status".to_owned(), "config".to_owned()],
            options: ["read-only", "allow-other", "allow-root", "write-back"]
                .map(str::to_owned)
                .to_vec(),
            is_strict: false,
        };
        translate(args.map(OsString::from), &vocabulary)
    }

    fn ours(args: &str) -> String {
        let args = translated(args).args;
        let args: Vec<_> = args
            .iter()
            .skip(1)
            .map(|arg| arg.to_str().unwrap())
            .collect();
        args.join(" ")
    }

    #[test]
    fn options_with_a_meaning_become_ours() {
        for (theirs, wanted) in [
            (
                "mount w: /m --vfs-cache-max-size 5G",
                "mount w: /m --cache-size=5G",
            ),
            ("--vfs-write-back=1m w: /m", "--write-back=1m w: /m"),
            ("w: /m --vfs-cache-mode writes", "w: /m --cache=full"),
            ("w: /m --vfs-cache-mode off", "w: /m --cache=off"),
            ("w: /m --mega-hard-delete", "w: /m --hard-delete=true"),
            ("w: /m --mega-use-https=false", "w: /m --transfer-tls=false"),
            ("w: /m -vv --daemon", "--log-level=debug w: /m"),
            (
                "w: /m -vv --mega-debug",
                "--log-level=debug w: /m --mega-debug=true",
            ),
            ("w: /m -v --log-level NOTICE", "w: /m --log-level=warn"),
            ("w: /m --log-format date,time", "w: /m"),
            ("w: /m --log-format text", "w: /m --log-format=text"),
            ("w: /m --read-only --uid 5", "w: /m --read-only --uid 5"),
            ("w: /m -o ro,allow_other", "w: /m --read-only --allow-other"),
            ("-oro w: /m", "--read-only w: /m"),
            ("w: /m --option=allow_root", "w: /m --allow-root"),
            (
                "w: /m -o _netdev,write_back=5s,vfs-cache-mode=off",
                "w: /m --write-back=5s --cache=off",
            ),
            ("w: /m -- --vfs-refresh", "w: /m -- --vfs-refresh"),
            ("w: /m --vfs-write-back", "w: /m --vfs-write-back"),
        ] {
            assert_eq!(ours(theirs), wanted, "{theirs}");
        }
    }

    #[test]
    fn options_without_one_are_left_out_and_named() {
        let done =
            translated("w: --dir-cache-time 5m --vfs-refresh /m --vfs-cache-max-size off -o x");
        assert_eq!(done.args, ["megamount", "w:", "/m"]);
        assert_eq!(
            done.ignored,
            [
                "--dir-cache-time",
                "--vfs-refresh",
                "--vfs-cache-max-size=off",
                "-o x"
            ]
        );
    }

    #[test]
    fn accounts_and_files_of_rclone_are_carried() {
        let done = translated("w: /m --mega-user a@b --mega-pass=SECRET --config /x/rclone.conf");
        assert_eq!(done.args, ["megamount", "w:", "/m"]);
        assert_eq!(done.carried.user.as_deref(), Some("a@b"));
        assert_eq!(done.carried.rclone_config, Some("/x/rclone.conf".into()));
        assert!(!format!("{done:?}").contains("SECRET"));
        assert_eq!(ours("w: /m --config c.toml"), "w: /m --config=c.toml");
    }

    #[test]
    fn other_commands_are_left_alone() {
        assert_eq!(
            ours("status --verbose --stats 1"),
            "status --verbose --stats 1"
        );
        assert_eq!(
            ours("config --config rclone.conf"),
            "config --config rclone.conf"
        );
    }

    #[test]
    fn no_option_of_ours_is_hidden() {
        use clap::CommandFactory;
        let command = crate::cli::Cli::command();
        for name in command.get_arguments().filter_map(clap::Arg::get_long) {
            let hidden = IDLE_VALUES.contains(&name) || IDLE_SWITCHES.contains(&name);
            assert!(!hidden, "--{name}");
        }
    }
}
