//! The mount options: one list that is the flags, the environment and the configuration keys.
//!
//! [`MountOptions`] is one layer (a flag set, a table of the configuration): everything is
//! optional. Layers are put over each other with [`MountOptions::or`], and [`MountOptions::resolve`]
//! fills in the defaults, which stand here and nowhere else.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Deserialize;
use url::Url;

use crate::bwlimit::BwLimit;
use crate::env_vars as env;
use crate::metrics::MetricsAddr;
use crate::quantity::{Mode, Percent, Rate, Size, Span, Switch};

/// Defines a struct of optional fields that can be laid over another of its kind.
macro_rules! layer {
    (
        $(#[$struct_meta:meta])*
        $vis:vis struct $name:ident {
            $($(#[$field_meta:meta])* $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$struct_meta])*
        $vis struct $name {
            $($(#[$field_meta])* pub(crate) $field: Option<$type>,)*
        }

        impl $name {
            /// This layer over `lower`: what is not set here comes from there.
            pub(crate) fn or(self, lower: Self) -> Self {
                Self { $($field: self.$field.or(lower.$field),)* }
            }

            /// The configuration keys, one per field.
            pub(crate) fn keys() -> Vec<String> {
                vec![$(stringify!($field).replace('_', "-")),*]
            }
        }
    };
}

layer! {
    /// One layer of mount options.
    #[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
    pub(crate) struct MountOptions {
        /// Refuse all changes
        #[arg(long, env = env::READ_ONLY, hide_env = true, help_heading = "Mount",
            num_args = 0..=1, require_equals = true, default_missing_value = "true",
            value_name = "BOOL")]
        read_only: Switch,
        /// Show and store names in the composed form of Unicode (NFC); find them in either form
        #[arg(long, env = env::NORMALIZE, hide_env = true, help_heading = "Mount",
            num_args = 0..=1, require_equals = true, default_missing_value = "true",
            value_name = "BOOL")]
        normalize: Switch,
        /// Where there is no exact name, find one that differs in case
        #[arg(long, env = env::IGNORE_CASE, hide_env = true, help_heading = "Mount",
            num_args = 0..=1, require_equals = true, default_missing_value = "true",
            value_name = "BOOL")]
        ignore_case: Switch,
        /// Which of several entries of one name has it; the others have numbers: the first (suffix) or the one that
        /// came last (newest) [default: suffix]
        #[arg(long, env = env::DUPLICATES, hide_env = true, help_heading = "Mount",
            value_name = "suffix|newest")]
        duplicates: Duplicates,
        /// Let other users in too (users need 'user_allow_other' in /etc/fuse.conf)
        #[arg(long, env = env::ALLOW_OTHER, hide_env = true, help_heading = "Mount",
            num_args = 0..=1, require_equals = true, default_missing_value = "true",
            value_name = "BOOL")]
        allow_other: Switch,
        /// Let root in too (users need 'user_allow_other' in /etc/fuse.conf)
        #[arg(long, env = env::ALLOW_ROOT, hide_env = true, help_heading = "Mount",
            num_args = 0..=1, require_equals = true, default_missing_value = "true",
            value_name = "BOOL")]
        allow_root: Switch,
        /// Numeric owner of all files [default: you]
        #[arg(long, env = env::UID, hide_env = true, help_heading = "Mount", value_name = "UID")]
        uid: u32,
        /// Numeric group of all files [default: yours]
        #[arg(long, env = env::GID, hide_env = true, help_heading = "Mount", value_name = "GID")]
        gid: u32,
        /// Permission bits taken away from files and folders [default: yours]
        #[arg(long, env = env::UMASK, hide_env = true, help_heading = "Mount",
            value_name = "OCTAL")]
        umask: Mode,
        /// Permissions of folders before the umask [default: 777]
        #[arg(long, env = env::DIR_PERMS, hide_env = true, help_heading = "Mount",
            value_name = "OCTAL")]
        dir_perms: Mode,
        /// Permissions of files before the umask [default: 666]
        #[arg(long, env = env::FILE_PERMS, hide_env = true, help_heading = "Mount",
            value_name = "OCTAL")]
        file_perms: Mode,
        /// How long the kernel may remember names and attributes; changes on Mega end it at once
        /// [default: 2m]
        #[arg(long, env = env::ATTR_TIMEOUT, hide_env = true, help_heading = "Mount",
            value_name = "TIME")]
        attr_timeout: Span,
        /// What the mount table names as the source [default: megamount:REMOTE]
        #[arg(long, env = env::FSNAME, hide_env = true, help_heading = "Mount",
            value_name = "NAME")]
        fsname: String,

        /// Keep the content of files that were read on disk (encrypted) [default: full]
        #[arg(long, env = env::CACHE, hide_env = true, help_heading = "Cache",
            value_name = "MODE")]
        cache: CacheMode,
        /// Where caches are kept, one directory per remote [default: ~/.cache/megamount]
        #[arg(long, env = env::CACHE_DIR, hide_env = true, help_heading = "Cache",
            value_name = "DIR")]
        cache_dir: PathBuf,
        /// How large the cache of a remote may become [default: 10GiB]
        #[arg(long, env = env::CACHE_SIZE, hide_env = true, help_heading = "Cache",
            value_name = "SIZE")]
        cache_size: Size,
        /// Shrink the cache when less of the disk is free [default: 5%]
        #[arg(long, env = env::CACHE_MIN_FREE, hide_env = true, help_heading = "Cache",
            value_name = "PERCENT")]
        cache_min_free: Percent,
        /// Memory for transfers and directories [default: 256MiB]
        #[arg(long, env = env::MEMORY, hide_env = true, help_heading = "Cache",
            value_name = "SIZE")]
        memory: Size,
        /// When a file's bytes are checked against Mega's checksum [default: background]
        #[arg(long, env = env::VERIFY, hide_env = true, help_heading = "Cache",
            value_name = "WHEN")]
        verify: VerifyMode,

        /// How long after the last close a file is uploaded [default: 5s]
        #[arg(long, env = env::WRITE_BACK, hide_env = true, help_heading = "Writing",
            value_name = "TIME")]
        write_back: Span,
        /// Upload a file that is written without pause after this time anyway [default: 5m]
        #[arg(long, env = env::WRITE_BACK_MAX, hide_env = true, help_heading = "Writing",
            value_name = "TIME")]
        write_back_max: Span,
        /// How long to go on uploading after the unmount; the rest waits for the next mount
        /// [default: 30s]
        #[arg(long, env = env::DRAIN, hide_env = true, help_heading = "Writing",
            value_name = "TIME")]
        drain: Span,
        /// Where data is safe when fsync returns; 'cloud' uploads at once and waits for Mega
        /// [default: disk]
        #[arg(long, env = env::FSYNC, hide_env = true, help_heading = "Writing",
            value_name = "WHERE")]
        fsync: FsyncMode,
        /// How many files are uploaded at a time [default: 4]
        #[arg(long, env = env::UPLOADS, hide_env = true, help_heading = "Writing",
            value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
        uploads: u16,
        /// Delete for good instead of moving to Mega's rubbish bin
        #[arg(long, alias = "mega-hard-delete", env = env::HARD_DELETE, hide_env = true, help_heading = "Writing",
            num_args = 0..=1, require_equals = true, default_missing_value = "true",
            value_name = "BOOL")]
        hard_delete: Switch,
        /// What becomes of replaced content: an old version, or it goes where removed files go
        /// [default: keep]
        #[arg(long, env = env::VERSIONS, hide_env = true, help_heading = "Writing",
            value_name = "keep|replace")]
        versions: VersionsMode,

        /// Connections per file that is read or written [default: 6]
        #[arg(long, env = env::STREAMS, hide_env = true, help_heading = "Network",
            value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
        streams: u16,
        /// Give up on a server that sends nothing for this long [default: 1m]
        #[arg(long, env = env::TIMEOUT, hide_env = true, help_heading = "Network",
            value_name = "TIME")]
        timeout: Span,
        /// Transfer content over TLS too; it is encrypted in any case [default: on]
        #[arg(long, alias = "mega-use-https", env = env::TRANSFER_TLS, hide_env = true, help_heading = "Network",
            value_name = "on|off")]
        transfer_tls: Switch,
        /// Read large files from Mega's storage servers in parts, of which any may be missing or slow
        #[arg(long, env = env::CLOUDRAID, hide_env = true, help_heading = "Network",
            num_args = 0..=1, require_equals = true, default_missing_value = "true",
            value_name = "BOOL")]
        cloudraid: Switch,
        /// Another Mega server, for tests [default: <https://g.api.mega.co.nz>]
        #[arg(long, env = env::API_URL, hide_env = true, help_heading = "Network",
            value_name = "URL")]
        api_url: ApiUrl,
        /// Proxy, such as http://host:3128 [default: from the environment]
        #[arg(long, env = env::PROXY, hide_env = true, hide_env_values = true,
            help_heading = "Network", value_name = "URL")]
        proxy: String,
        /// A further certificate authority to trust, a PEM file
        #[arg(long, env = env::CA_CERT, hide_env = true, help_heading = "Network",
            value_name = "FILE")]
        ca_cert: PathBuf,

        /// Where state is kept, one directory per remote: the session, and changes that are not
        /// on Mega yet [default: ~/.local/state/megamount]
        #[arg(long, env = env::STATE_DIR, hide_env = true, help_heading = "Program",
            value_name = "DIR")]
        state_dir: PathBuf,
        /// Where the session is kept: in a file of the state directory, or in the kernel's keyring, on no disk and
        /// until the machine is switched off [default: file]
        #[arg(long, env = env::SESSION_STORE, hide_env = true, help_heading = "Program",
            value_name = "file|keyring")]
        session_store: SessionStore,
        /// How fast transfers may be, in bytes a second: 10M, UP:DOWN, off, or a timetable such as
        /// '08:00,512k 19:00,off' [default: off]
        #[arg(long, env = env::BWLIMIT, hide_env = true, help_heading = "Network",
            value_name = "LIMIT")]
        bwlimit: BwLimit,
        /// Most requests a second to the API, such as 5 or 0.5; transfers are limited by --bwlimit [default: off]
        #[arg(long, env = env::API_RATE, hide_env = true, help_heading = "Network",
            value_name = "NUMBER")]
        api_rate: Rate,
        /// Serve figures for Prometheus at http://ADDRESS/metrics, to this machine alone: PORT or localhost:PORT
        #[arg(long, env = env::METRICS_ADDR, hide_env = true, help_heading = "Program",
            value_name = "ADDRESS")]
        metrics_addr: MetricsAddr,
        /// Show how far the first reading of the account's list of files is
        #[arg(short = 'P', long, env = env::PROGRESS, hide_env = true, help_heading = "Program",
            num_args = 0..=1, require_equals = true, default_missing_value = "true",
            value_name = "BOOL")]
        progress: Switch,
        /// Append the log to this file
        #[arg(long, env = env::LOG_FILE, hide_env = true, help_heading = "Program",
            value_name = "FILE")]
        log_file: PathBuf,
        /// How large the log file may become before another is begun; 0 is without limit [default: 10MiB]
        #[arg(long, env = env::LOG_FILE_MAX_SIZE, hide_env = true, help_heading = "Program",
            value_name = "SIZE")]
        log_file_max_size: Size,
        /// How many older log files are kept [default: 3]
        #[arg(long, env = env::LOG_FILE_MAX_BACKUPS, hide_env = true, help_heading = "Program",
            value_name = "COUNT")]
        log_file_max_backups: u16,
        /// Log to the system's log, instead of the terminal or a file
        #[arg(long, env = env::SYSLOG, hide_env = true, help_heading = "Program",
            num_args = 0..=1, require_equals = true, default_missing_value = "true",
            value_name = "BOOL")]
        syslog: Switch,
        /// Write the process id of the daemon to this file as long as the mount answers
        #[arg(long, env = env::PID_FILE, hide_env = true, help_heading = "Program",
            value_name = "FILE")]
        pid_file: PathBuf,
        /// Give up when the mount does not answer in the background within this time [default: never]
        #[arg(long, env = env::DAEMON_TIMEOUT, hide_env = true, help_heading = "Program",
            value_name = "TIME")]
        daemon_timeout: Span,
        /// How much to log [default: info; warn in the background without --log-file]
        #[arg(long, env = env::LOG_LEVEL, hide_env = true, help_heading = "Program",
            value_name = "LEVEL")]
        log_level: LogLevel,
        /// Log what is said to Mega and what it answers, without secrets; with --log-level debug or -vv
        #[arg(long, env = env::MEGA_DEBUG, hide_env = true, help_heading = "Program",
            num_args = 0..=1, require_equals = true, default_missing_value = "true",
            value_name = "BOOL")]
        mega_debug: Switch,
        /// The form of the log [default: text]
        #[arg(long, env = env::LOG_FORMAT, hide_env = true, help_heading = "Program",
            value_name = "FORMAT")]
        log_format: LogFormat,
    }
}

/// Whether content is cached on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CacheMode {
    /// Keep what was read.
    #[default]
    Full,
    /// Keep nothing.
    Off,
}

/// Which of several entries of one name has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Duplicates {
    /// The first; those that come later have numbers.
    #[default]
    Suffix,
    /// The one that came last.
    Newest,
}

/// Where the session is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SessionStore {
    /// In a file of the state directory.
    #[default]
    File,
    /// In the kernel's keyring.
    Keyring,
}

/// When whole files are checked against their meta-MAC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum VerifyMode {
    /// As soon as all bytes are here.
    #[default]
    Background,
    /// Before the first byte is handed out; large files are fetched whole.
    BeforeRead,
    /// Never.
    Off,
}

/// What becomes of content that is replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum VersionsMode {
    /// It becomes an old version.
    #[default]
    Keep,
    /// It goes to the rubbish bin, or for good with `--hard-delete`.
    Replace,
}

/// Where data is safe when `fsync` returns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FsyncMode {
    /// On stable storage of this machine.
    #[default]
    Disk,
    /// On Mega.
    Cloud,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogLevel {
    /// Data at risk.
    Error,
    /// What the user may notice.
    Warn,
    /// Life cycle.
    Info,
    /// Requests.
    Debug,
    /// Chunks.
    Trace,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The base address of a Mega API server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct ApiUrl(pub(crate) Url);

impl FromStr for ApiUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url: Url = text.parse().map_err(|e| format!("not an address ({e})"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err("the address must begin with http:// or https://".to_owned());
        }
        Ok(Self(url))
    }
}

impl TryFrom<String> for ApiUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.origin().ascii_serialization())
    }
}

/// The options with every default filled in. What is still optional has no default value.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) read_only: bool,
    pub(crate) normalize: bool,
    pub(crate) ignore_case: bool,
    pub(crate) duplicates: Duplicates,
    pub(crate) allow_other: bool,
    pub(crate) allow_root: bool,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) umask: Option<Mode>,
    pub(crate) dir_perms: Mode,
    pub(crate) file_perms: Mode,
    pub(crate) attr_timeout: Span,
    pub(crate) fsname: Option<String>,
    pub(crate) cache: CacheMode,
    pub(crate) cache_dir: Option<PathBuf>,
    pub(crate) cache_size: Size,
    pub(crate) cache_min_free: Percent,
    pub(crate) memory: Size,
    pub(crate) verify: VerifyMode,
    pub(crate) write_back: Span,
    pub(crate) write_back_max: Span,
    pub(crate) drain: Span,
    pub(crate) fsync: FsyncMode,
    pub(crate) uploads: u16,
    pub(crate) hard_delete: bool,
    pub(crate) versions: VersionsMode,
    pub(crate) streams: u16,
    pub(crate) timeout: Span,
    pub(crate) transfer_tls: bool,
    pub(crate) cloudraid: bool,
    pub(crate) api_url: Option<ApiUrl>,
    pub(crate) proxy: Option<String>,
    pub(crate) ca_cert: Option<PathBuf>,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) session_store: SessionStore,
    pub(crate) bwlimit: Option<BwLimit>,
    pub(crate) api_rate: Rate,
    pub(crate) metrics_addr: Option<MetricsAddr>,
    pub(crate) progress: bool,
    pub(crate) log_file: Option<PathBuf>,
    pub(crate) log_file_max_size: Size,
    pub(crate) log_file_max_backups: u16,
    pub(crate) syslog: bool,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) daemon_timeout: Option<Span>,
    pub(crate) log_level: Option<LogLevel>,
    pub(crate) mega_debug: bool,
    pub(crate) log_format: LogFormat,
}

impl MountOptions {
    /// Fills in the defaults (product.md, "The command line").
    pub(crate) fn resolve(self) -> Settings {
        let yes = |switch: Option<Switch>| switch.is_some_and(|switch| switch.0);
        let span =
            |value: Option<Span>, seconds| value.unwrap_or(Span(Duration::from_secs(seconds)));
        Settings {
            read_only: yes(self.read_only),
            normalize: yes(self.normalize),
            ignore_case: yes(self.ignore_case),
            duplicates: self.duplicates.unwrap_or_default(),
            allow_other: yes(self.allow_other),
            allow_root: yes(self.allow_root),
            uid: self.uid,
            gid: self.gid,
            umask: self.umask,
            dir_perms: self.dir_perms.unwrap_or(Mode(0o777)),
            file_perms: self.file_perms.unwrap_or(Mode(0o666)),
            attr_timeout: span(self.attr_timeout, 120),
            fsname: self.fsname,
            cache: self.cache.unwrap_or_default(),
            cache_dir: self.cache_dir,
            cache_size: self.cache_size.unwrap_or(Size(10 << 30)),
            cache_min_free: self.cache_min_free.unwrap_or(Percent(5)),
            memory: self.memory.unwrap_or(Size(256 << 20)),
            verify: self.verify.unwrap_or_default(),
            write_back: span(self.write_back, 5),
            write_back_max: span(self.write_back_max, 300),
            drain: span(self.drain, 30),
            fsync: self.fsync.unwrap_or_default(),
            uploads: self.uploads.unwrap_or(4),
            hard_delete: yes(self.hard_delete),
            versions: self.versions.unwrap_or_default(),
            streams: self.streams.unwrap_or(6),
            timeout: span(self.timeout, 60),
            transfer_tls: self.transfer_tls.is_none_or(|switch| switch.0),
            cloudraid: yes(self.cloudraid),
            api_url: self.api_url,
            proxy: self.proxy,
            ca_cert: self.ca_cert,
            state_dir: self.state_dir,
            session_store: self.session_store.unwrap_or_default(),
            bwlimit: self.bwlimit,
            api_rate: self.api_rate.unwrap_or(Rate(0)),
            metrics_addr: self.metrics_addr,
            progress: yes(self.progress),
            log_file: self.log_file,
            log_file_max_size: self.log_file_max_size.unwrap_or(Size(10 << 20)),
            log_file_max_backups: self.log_file_max_backups.unwrap_or(3),
            syslog: yes(self.syslog),
            pid_file: self.pid_file,
            daemon_timeout: self.daemon_timeout.filter(|span| !span.0.is_zero()),
            log_level: self.log_level,
            mega_debug: yes(self.mega_debug),
            log_format: self.log_format.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_hides_what_is_below_it() {
        let upper = MountOptions {
            uploads: Some(1),
            read_only: Some(Switch(false)),
            ..MountOptions::default()
        };
        let lower = MountOptions {
            uploads: Some(9),
            read_only: Some(Switch(true)),
            streams: Some(3),
            ..MountOptions::default()
        };
        let settings = upper.or(lower).resolve();
        assert_eq!((settings.uploads, settings.streams), (1, 3));
        assert!(
            !settings.read_only,
            "an explicit false is a value, not an absence"
        );
    }

    #[test]
    fn every_key_deserialises_under_its_flag_name() {
        let toml = r#"
            read-only = true
            umask = "027"
            cache = "off"
            verify = "before-read"
            write-back = "1m30s"
            cache-size = "2GiB"
            api-url = "http://127.0.0.1:8080"
            log-level = "debug"
        "#;
        let options: MountOptions = toml::from_str(toml).unwrap();
        assert_eq!(options.umask, Some(Mode(0o27)));
        assert_eq!(options.cache, Some(CacheMode::Off));
        assert_eq!(options.verify, Some(VerifyMode::BeforeRead));
        assert_eq!(
            options.api_url.unwrap().to_string(),
            "http://127.0.0.1:8080"
        );
        assert!(MountOptions::keys().contains(&"write-back-max".to_owned()));
    }

    #[test]
    fn addresses() {
        assert!("ftp://x".parse::<ApiUrl>().is_err());
        assert!("g.api.mega.co.nz".parse::<ApiUrl>().is_err());
        assert!("https://localhost:1".parse::<ApiUrl>().is_ok());
    }
}
