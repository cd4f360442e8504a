//! Where log lines go: the terminal, a file or the system's log.
//!
//! In the foreground the log is standard error. In the background it is `--log-file`, else
//! `megamount.log` in the state directory with warnings only. `--syslog` is the system's log instead. Set up
//! once, after forking.
//!
//! A file is bounded: when it is full it becomes `FILE.1`, what was that `FILE.2`. It is opened anew on request, for
//! those who rotate it themselves. Under a service manager that reads standard error, each line begins with its
//! priority (sd-daemon(3)).

use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use file_rotate::ContentLimit;
use file_rotate::FileRotate;
use file_rotate::compression::Compression;
use file_rotate::suffix::AppendCount;
use tracing::{Level, Metadata};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::{LogFormat, LogLevel, Settings};
use crate::display::Terminal;
use crate::env_vars as env;
use crate::failure::Failure;

/// Whose lines are shown at the chosen level; those of all others only from `warn` up.
const OUR_CRATES: &[&str] = &[
    "megamount",
    "mega_api",
    "mega_crypto",
    "mega_emulator",
    "mega_proto",
    "mega_store",
    "mega_transfer",
    "mega_tree",
    "mega_vfs",
];

/// What is said to Mega, line by line.
const PROTOCOL: &str = "mega_api::wire";

/// Where to log.
#[derive(Debug)]
pub(crate) enum Target {
    /// Standard error.
    Terminal,
    /// A file.
    File(LogFile),
    /// The system's log.
    System,
}

/// How large log files become and how many there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes of one; 0 is without limit.
    pub(crate) size: u64,
    /// Older ones that are kept.
    pub(crate) backups: u16,
}

/// A log file that is appended to. Clones are the same one.
#[derive(Clone)]
pub(crate) struct LogFile {
    path: PathBuf,
    bounds: Bounds,
    file: Arc<Mutex<FileRotate<AppendCount>>>,
}

impl LogFile {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Begins anew at the path: somebody has moved the file away.
    pub(crate) fn reopen(&self) -> Result<(), Failure> {
        let new = rotating(&self.path, self.bounds)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }
}

impl std::fmt::Debug for LogFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LogFile").field(&self.path).finish()
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write(line)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.flush()
    }
}

impl MakeWriter<'_> for LogFile {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Standard error that a service manager reads line by line.
struct Journal;

/// One line of it, with its priority.
struct JournalLine(Level);

impl<'w> MakeWriter<'w> for Journal {
    type Writer = JournalLine;

    fn make_writer(&'w self) -> JournalLine {
        JournalLine(Level::INFO)
    }

    fn make_writer_for(&'w self, meta: &Metadata<'_>) -> JournalLine {
        JournalLine(*meta.level())
    }
}

impl Write for JournalLine {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let priority = match self.0 {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        let mut text = format!("<{priority}>").into_bytes();
        text.extend_from_slice(line);
        std::io::stderr().lock().write_all(&text)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Where the settings want the log; `other` is the file to log to if they name none.
pub(crate) fn target(settings: &Settings, other: Option<&Path>) -> Result<Target, Failure> {
    if settings.syslog {
        return Ok(Target::System);
    }
    let bounds = Bounds {
        size: settings.log_file_max_size.0,
        backups: settings.log_file_max_backups,
    };
    match settings.log_file.as_deref().or(other) {
        Some(path) => open(path, bounds),
        None => Ok(Target::Terminal),
    }
}

/// Opens the log file `path` for appending, with its directory, readable by us only.
pub(crate) fn open(path: &Path, bounds: Bounds) -> Result<Target, Failure> {
    Ok(Target::File(LogFile {
        path: path.to_path_buf(),
        bounds,
        file: Arc::new(Mutex::new(rotating(path, bounds)?)),
    }))
}

fn rotating(path: &Path, bounds: Bounds) -> Result<FileRotate<AppendCount>, Failure> {
    let failed = |e: std::io::Error| Failure::LogFile {
        path: PathBuf::from(path),
        reason: e.to_string(),
    };
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(failed)?;
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    // The library says nothing when it cannot open the file.
    let file = options.open(path).map_err(failed)?;
    // A device, or a pipe, is not moved out of the way.
    let is_plain = file.metadata().map_err(failed)?.is_file();
    let limit = match usize::try_from(bounds.size) {
        Ok(size) if size > 0 && is_plain => ContentLimit::BytesSurpassed(size),
        _ => ContentLimit::None,
    };
    let backups = AppendCount::new(usize::from(bounds.backups));
    let path = std::path::absolute(path).map_err(failed)?;
    Ok(FileRotate::new(
        path,
        backups,
        limit,
        Compression::None,
        Some(options),
    ))
}

/// What is logged, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    level: LogLevel,
    format: LogFormat,
    /// The protocol too.
    has_protocol: bool,
}

impl Style {
    /// What the settings say; `level` if they say nothing of it.
    pub(crate) fn of(settings: &Settings, level: LogLevel) -> Self {
        Self {
            level: settings.log_level.unwrap_or(level),
            format: settings.log_format,
            has_protocol: settings.mega_debug,
        }
    }
}

/// Starts logging, of panics too. A second call has no effect.
pub(crate) fn start(target: Target, style: Style) {
    std::panic::set_hook(Box::new(
        |panic| tracing::error!(%panic, "the program has a fault"),
    ));
    match target {
        Target::Terminal if is_read_by_the_journal() => {
            install(Journal, style, Look::Bare);
        }
        Target::Terminal if std::io::stderr().is_terminal() => {
            install(Terminal, style, Look::Coloured);
        }
        Target::Terminal => install(Terminal, style, Look::Plain),
        Target::File(file) => install(file, style, Look::Plain),
        Target::System => {
            // None when there is one already, which then goes on.
            let log = syslog_tracing::Syslog::new(
                c"megamount",
                syslog_tracing::Options::LOG_PID,
                syslog_tracing::Facility::Daemon,
            );
            if let Some(log) = log {
                install(log, style, Look::Bare);
            }
        }
    }
}

/// Whether what we print goes to systemd-journald, which says by device and inode what it reads (systemd.exec(5)).
fn is_read_by_the_journal() -> bool {
    let Some(stream) = env::text(env::JOURNAL_STREAM) else {
        return false;
    };
    let Ok(ours) = rustix::fs::fstat(std::io::stderr()) else {
        return false;
    };
    stream == format!("{}:{}", ours.st_dev, ours.st_ino)
}

/// What lines look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Coloured,
    Plain,
    /// Without the time: whoever takes them writes it down.
    Bare,
}

fn install<W>(writer: W, style: Style, look: Look)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let level = match style.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Other crates log whole requests at their lower levels, session ids and all.
    let mut targets = Targets::new().with_default(level.min(LevelFilter::WARN));
    for ours in OUR_CRATES {
        targets = targets.with_target(*ours, level);
    }
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(look == Look::Coloured);
    let protocol = if style.has_protocol {
        level
    } else {
        LevelFilter::OFF
    };
    targets = targets.with_target(PROTOCOL, protocol);
    let layer = match (style.format, look) {
        (LogFormat::Json, _) => layer.json().with_filter(targets).boxed(),
        (LogFormat::Text, Look::Bare) => layer
            .without_time()
            .with_level(false)
            .with_filter(targets)
            .boxed(),
        (LogFormat::Text, _) => layer.with_filter(targets).boxed(),
    };
    // Fails only when a subscriber is there already, which then goes on.
    let _ = tracing_subscriber::registry().with(layer).try_init();
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        size: 100,
        backups: 2,
    };

    fn file(path: &Path) -> LogFile {
        match open(path, BOUNDS).unwrap() {
            Target::File(file) => file,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn log_files_are_private_and_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/megamount.log");
        file(&path).write_all(b"kept\n").unwrap();
        file(&path).write_all(b"more\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept\nmore\n");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let parent = std::fs::metadata(dir.path().join("new")).unwrap();
        assert_eq!(parent.permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn log_files_are_bounded_and_so_is_their_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = file(&path);
        for number in 0..40 {
            log.write_all(format!("line {number:4}\n").as_bytes())
                .unwrap();
        }
        let mut names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let meta = entry.metadata().unwrap();
                assert!(meta.len() <= 110, "{}", meta.len());
                assert_eq!(meta.permissions().mode() & 0o777, 0o600);
                entry.file_name().into_string().unwrap()
            })
            .collect();
        names.sort();
        assert_eq!(names, ["log", "log.1", "log.2"]);
        let newest = std::fs::read_to_string(&path).unwrap();
        assert!(newest.ends_with("line   39\n"), "{newest}");
        std::fs::rename(&path, dir.path().join("away")).unwrap();
        log.reopen().unwrap();
        log.write_all(b"anew\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "anew\n");
    }

    #[test]
    fn devices_are_not_moved_out_of_the_way() {
        let mut log = file(Path::new("/dev/null"));
        log.write_all(&[b'x'; 300]).unwrap();
        log.write_all(&[b'x'; 300]).unwrap();
        assert!(!Path::new("/dev/null.1").exists());
    }

    #[test]
    fn a_log_that_cannot_be_written_is_named() {
        let error = open(Path::new("/proc/none/log"), BOUNDS)
            .unwrap_err()
            .to_string();
        assert!(error.contains("/proc/none/log"), "{error}");
    }
}
