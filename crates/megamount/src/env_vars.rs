//! Every environment variable that megamount reads, by name.
//!
//! The `MEGAMOUNT_*` variables are the environment form of the command-line options of the same
//! name and are read by clap (`cli/options.rs`); all others are read through [`path`] and [`text`]
//! here, so that no other module touches the environment.

use std::ffi::OsString;
use std::path::PathBuf;

use mega_api::ApiError;

/// Declares the variables that mirror an option, and the list of them for the tests.
macro_rules! option_variables {
    ($($name:ident),* $(,)?) => {
        $(
            #[doc = concat!("Environment form of the option of the same name (`MEGAMOUNT_", stringify!($name), "`).")]
            pub(crate) const $name: &str = concat!("MEGAMOUNT_", stringify!($name));
        )*

        /// All of the above.
        #[cfg(test)]
        pub(crate) const OPTION_VARIABLES: &[&str] = &[$($name),*];
    };
}

option_variables!(
    ALLOW_OTHER,
    ALLOW_ROOT,
    API_RATE,
    API_URL,
    ATTR_TIMEOUT,
    BWLIMIT,
    CACHE,
    CACHE_DIR,
    CACHE_MIN_FREE,
    CACHE_SIZE,
    CA_CERT,
    CLOUDRAID,
    CONFIG,
    DAEMON_TIMEOUT,
    DIR_PERMS,
    DRAIN,
    DUPLICATES,
    FILE_PERMS,
    FOREGROUND,
    FSNAME,
    FSYNC,
    GID,
    HARD_DELETE,
    IGNORE_CASE,
    LOG_FILE,
    LOG_FILE_MAX_BACKUPS,
    LOG_FILE_MAX_SIZE,
    LOG_FORMAT,
    LOG_LEVEL,
    MEGA_DEBUG,
    MEMORY,
    METRICS_ADDR,
    NORMALIZE,
    PASSWORD_COMMAND,
    PID_FILE,
    PROGRESS,
    PROXY,
    READ_ONLY,
    SESSION_STORE,
    STATE_DIR,
    STREAMS,
    SYSLOG,
    TIMEOUT,
    TRANSFER_TLS,
    UID,
    UMASK,
    UPLOADS,
    VERIFY,
    VERSIONS,
    WRITE_BACK,
    WRITE_BACK_MAX,
);

/// The password of the encrypted configuration. No program that we run gets it: `password.rs`.
pub(crate) const CONFIG_PASS: &str = "MEGAMOUNT_CONFIG_PASS";
/// The public link that the remote `link:` stands for; it holds a key.
pub(crate) const LINK: &str = "MEGAMOUNT_LINK";
/// The configuration file of rclone; an empty value means that rclone has none.
pub(crate) const RCLONE_CONFIG: &str = "RCLONE_CONFIG";
/// The directory of rclone's configuration file.
pub(crate) const RCLONE_CONFIG_DIR: &str = "RCLONE_CONFIG_DIR";
/// rclone's environment form of `--mega-user`.
pub(crate) const RCLONE_MEGA_USER: &str = "RCLONE_MEGA_USER";
/// rclone's environment form of `--mega-pass`, obscured.
pub(crate) const RCLONE_MEGA_PASS: &str = "RCLONE_MEGA_PASS";
/// rclone's environment form of `--mega-debug`.
pub(crate) const RCLONE_MEGA_DEBUG: &str = "RCLONE_MEGA_DEBUG";
/// rclone's environment form of `--mega-hard-delete`.
pub(crate) const RCLONE_MEGA_HARD_DELETE: &str = "RCLONE_MEGA_HARD_DELETE";
/// Base of per-user configuration (XDG base directory specification).
pub(crate) const XDG_CONFIG_HOME: &str = "XDG_CONFIG_HOME";
/// Base of per-user state (XDG base directory specification).
pub(crate) const XDG_STATE_HOME: &str = "XDG_STATE_HOME";
/// Base of per-user caches (XDG base directory specification).
pub(crate) const XDG_CACHE_HOME: &str = "XDG_CACHE_HOME";
/// Where this user's sockets are (XDG base directory specification).
pub(crate) const XDG_RUNTIME_DIR: &str = "XDG_RUNTIME_DIR";
/// Where systemd listens for `READY=1` (sd_notify(3)).
pub(crate) const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
/// Device and inode of the journal's end of our standard error (systemd.exec(5)).
pub(crate) const JOURNAL_STREAM: &str = "JOURNAL_STREAM";
/// The pid systemd executed; equal to ours when we are the main process of a unit
/// (systemd.exec(5)).
pub(crate) const SYSTEMD_EXEC_PID: &str = "SYSTEMD_EXEC_PID";
/// Where programs are looked up.
pub(crate) const PATH: &str = "PATH";
/// Another place of fusermount3; honoured because fuser honours it when it mounts.
pub(crate) const FUSERMOUNT_PATH: &str = "FUSERMOUNT_PATH";

/// The value of `name`, none when unset or empty.
pub(crate) fn path(name: &str) -> Option<PathBuf> {
    raw(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// The value of `name` as text, none when unset, empty or not UTF-8.
pub(crate) fn text(name: &str) -> Option<String> {
    raw(name)?
        .into_string()
        .ok()
        .filter(|value| !value.is_empty())
}

/// The value of `name`, also when it is empty.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the module that reads the environment"
)]
pub(crate) fn raw(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Whether the proxies of the environment are such that they are used, where none is named with `--proxy`.
///
/// # Errors
/// [`ApiError::Config`] where one would be passed over.
pub(crate) fn check_proxies(named: Option<&str>) -> Result<(), ApiError> {
    match named {
        Some(_) => Ok(()),
        None => mega_api::check_proxies(|name| raw(name)?.into_string().ok()),
    }
}

/// The home directory: `HOME`, else the entry of the user database (a system service has no
/// `HOME`).
pub(crate) fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| home.is_absolute())
}
