//! The signals of a mount.
//!
//! SIGTERM and SIGINT end it, as does SIGHUP when the terminal goes at which it runs. Otherwise SIGHUP opens the log
//! file anew, for those who rotate it. SIGUSR1 writes the state of the mount to the log.

use std::sync::{Arc, Weak};

use mega_vfs::Vfs;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::control::protocol::{Hello, MOST_CHANGES};
use crate::control::report::{Form, Report, document};
use crate::failure::Failure;
use crate::logging::LogFile;

/// Listens from its creation on, so that no signal is lost or kills the process.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    user: Signal,
    ends_with_terminal: bool,
    answers: Option<Answers>,
}

/// What is needed for the signals that end nothing.
#[derive(Debug)]
struct Answers {
    vfs: Weak<Vfs>,
    hello: Hello,
    log_file: Option<LogFile>,
}

impl Signals {
    /// Starts to listen. `ends_with_terminal`: SIGHUP ends the mount.
    pub(super) fn listen(ends_with_terminal: bool) -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|e| Failure::Other(format!("cannot listen for signals: {e}.")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
            user: listen(SignalKind::user_defined1())?,
            ends_with_terminal,
            answers: None,
        })
    }

    /// From now on the signals are answered that end nothing.
    pub(super) fn answer(&mut self, vfs: &Arc<Vfs>, hello: Hello, log_file: Option<LogFile>) {
        self.answers = Some(Answers {
            vfs: Arc::downgrade(vfs),
            hello,
            log_file,
        });
    }

    /// Returns at the next signal that ends the mount.
    pub(super) async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => {
                    if self.ends_with_terminal {
                        return;
                    }
                    self.reopen_log();
                }
                _ = self.user.recv() => self.write_state(),
            }
        }
    }

    fn reopen_log(&self) {
        let log_file = self.answers.as_ref().and_then(|it| it.log_file.as_ref());
        match log_file.map(LogFile::reopen) {
            Some(Ok(())) => tracing::warn!("SIGHUP: the log is opened anew"),
            Some(Err(error)) => tracing::error!(%error, "SIGHUP: the log cannot be opened anew"),
            None => tracing::info!("SIGHUP: there is no log file to open anew"),
        }
    }

    fn write_state(&self) {
        let Some(answers) = &self.answers else {
            return;
        };
        let Some(vfs) = answers.vfs.upgrade() else {
            return;
        };
        let report = Report::new(answers.hello.clone(), vfs.snapshot(MOST_CHANGES, None));
        let state = document(&[report], Form::Line);
        // Asked for: shown at the level that is logged without a wish.
        tracing::warn!(state = %state.trim(), "SIGUSR1: the state of the mount");
    }
}
