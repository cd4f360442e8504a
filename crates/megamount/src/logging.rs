//! Where log lines go: the terminal or a file.
//!
//! In the foreground the log is standard error. In the background it is `--log-file`, else
//! `megamount.log` in the state directory with warnings only. Set up once, after forking.

use std::fs::{File, OpenOptions};
use std::io::IsTerminal;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::{LogFormat, LogLevel};
use crate::display::Terminal;
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

/// Where to log.
#[derive(Debug)]
pub(crate) enum Target {
    /// Standard error.
    Terminal,
    /// This file, opened for appending.
    File(File),
}

/// Opens the log file `path` for appending, with its directory, readable by us only.
pub(crate) fn open(path: &Path) -> Result<Target, Failure> {
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
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path);
    file.map(Target::File).map_err(failed)
}

/// Starts logging, of panics too. A second call has no effect.
pub(crate) fn start(target: Target, level: LogLevel, format: LogFormat) {
    std::panic::set_hook(Box::new(
        |panic| tracing::error!(%panic, "the program has a fault"),
    ));
    match target {
        Target::Terminal => {
            let colours = std::io::stderr().is_terminal();
            install(Terminal, level, format, colours);
        }
        Target::File(file) => install(Arc::new(file), level, format, false),
    }
}

fn install<W>(writer: W, level: LogLevel, format: LogFormat, colours: bool)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let level = match level {
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
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let layer = match format {
        LogFormat::Text => layer.with_ansi(colours).with_filter(targets).boxed(),
        LogFormat::Json => layer.json().with_filter(targets).boxed(),
    };
    // Fails only when a subscriber is there already, which then goes on.
    let _ = tracing_subscriber::registry().with(layer).try_init();
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn log_files_are_private_and_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/megamount.log");
        assert!(matches!(open(&path).unwrap(), Target::File(_)));
        std::fs::write(&path, "kept\n").unwrap();
        open(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept\n");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let parent = std::fs::metadata(dir.path().join("new")).unwrap();
        assert_eq!(parent.permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_log_that_cannot_be_written_is_named() {
        let error = open(Path::new("/proc/none/log")).unwrap_err().to_string();
        assert!(error.contains("/proc/none/log"), "{error}");
    }
}
