//! Going to the background, and the conversation between the terminal and the daemon.
//!
//! The daemon is forked before any thread exists. The first process stays in the foreground until
//! the daemon says that the mount answers (exit 0) or why it does not (its text, its exit code);
//! meanwhile it answers the daemon's questions, because only it still has the terminal. Both talk
//! in lines of JSON over a socket pair. When the first process is ended (Ctrl-C), the daemon gives
//! up too.
//!
//! In the foreground the same [`Herald`] talks to the terminal directly.

use std::io::{BufRead, BufReader, ErrorKind, IsTerminal, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use daemonize::{Daemonize, Outcome};
use mega_crypto::Secret;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::display::Spinner;
use crate::env_vars as env;
use crate::exit;
use crate::failure::Failure;

/// Something only the process at the terminal can find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Question {
    /// The password of the account.
    Password,
    /// The current two-factor code.
    Code,
}

/// Answers questions: by command, from a file, by asking on the terminal.
pub(crate) trait Answerer: Send + Sync {
    /// Answers, or says why it cannot be answered.
    fn answer(&self, question: Question) -> Result<Secret, Failure>;
}

/// From the daemon to the process at the terminal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Report {
    Mounted,
    Failed { code: u8, text: String },
    Note(String),
    Progress(String),
    Ask(Question),
}

/// From the process at the terminal to the daemon. Holds secrets: never printed.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Given(String),
    Failed { code: u8, text: String },
}

/// Which process this is after forking.
pub(crate) enum Side {
    /// At the terminal, finished: the exit code.
    Terminal(u8),
    /// In the background, at the beginning.
    Daemon(Herald),
}

/// Tells whoever started us how the start goes.
#[derive(Clone)]
pub(crate) struct Herald {
    inner: Arc<Inner>,
}

enum Inner {
    Terminal(Box<dyn Answerer>),
    Parent {
        stream: Mutex<UnixStream>,
        answers: Mutex<mpsc::Receiver<Answer>>,
        gone: watch::Receiver<bool>,
    },
}

/// Whether to stay in the foreground: by wish, or because a service manager watches us.
pub(crate) fn stays_in_foreground(wished: bool) -> bool {
    let own = std::process::id().to_string();
    wished
        || env::text(env::NOTIFY_SOCKET).is_some()
        || env::text(env::SYSTEMD_EXEC_PID).is_some_and(|pid| pid == own)
}

/// Whether the end of a terminal is meant to end us: we were started at one, in the foreground.
pub(crate) fn ends_with_its_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// Prints a failure as the program's last word.
pub(crate) fn complain(text: &str) {
    eprintln!("megamount: {text}");
}

/// Forks. In the first process, returns when the daemon is ready or has failed; `log` is where it
/// logs, for the message when it vanishes; `patience` how long it may take. No thread may exist yet.
pub(crate) fn into_background(
    answerer: &dyn Answerer,
    log: &str,
    patience: Option<Duration>,
) -> Result<Side, Failure> {
    let broken = |e: std::io::Error| Failure::Other(format!("cannot make a socket pair: {e}."));
    let (ours, theirs) = UnixStream::pair().map_err(broken)?;
    let forked = |e: daemonize::Error| Failure::Other(format!("cannot go to the background: {e}."));
    match Daemonize::new().umask(0o077).execute() {
        Outcome::Parent(result) => {
            drop(theirs);
            result.map_err(forked)?;
            Ok(Side::Terminal(attend(ours, answerer, log, patience)))
        }
        Outcome::Child(result) => {
            drop(ours);
            let herald = Herald::to_parent(theirs).map_err(broken)?;
            match result {
                Ok(_) => Ok(Side::Daemon(herald)),
                Err(error) => {
                    let failure = forked(error);
                    herald.failed(&failure);
                    Err(failure)
                }
            }
        }
    }
}

/// The first process: relays until the daemon is ready or gone, and returns the exit code.
fn attend(
    stream: UnixStream,
    answerer: &dyn Answerer,
    log: &str,
    patience: Option<Duration>,
) -> u8 {
    let mut until = patience.map(|patience| Instant::now() + patience);
    let mut lines = BufReader::new(&stream);
    let mut line = String::new();
    let mut spinner = Spinner::default();
    loop {
        line.clear();
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        // Nothing at all would be no limit.
        let left = left.map(|left| left.max(Duration::from_millis(1)));
        let bounded = stream.set_read_timeout(left);
        let length = match bounded.and_then(|()| lines.read_line(&mut line)) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // Our end is the daemon's: it gives up too.
                let failure = Failure::NotInTime {
                    log: log.to_owned(),
                };
                complain(&failure.to_string());
                return exit::code(&failure);
            }
            Err(_) => 0,
        };
        let report = (length > 0)
            .then(|| serde_json::from_str(&line).ok())
            .flatten();
        match report {
            Some(Report::Mounted) => return exit::DONE,
            Some(Report::Failed { code, text }) => {
                complain(&text);
                return code;
            }
            Some(Report::Note(text)) => complain(&text),
            Some(Report::Progress(text)) => spinner.show(&text),
            Some(Report::Ask(question)) => {
                let asked = Instant::now();
                let answer = match answerer.answer(question) {
                    Ok(secret) => Answer::Given(secret.expose().to_owned()),
                    Err(failure) => Answer::Failed {
                        code: exit::code(&failure),
                        text: failure.to_string(),
                    },
                };
                // Whoever types does not use up the daemon's time.
                until = until.map(|until| until + asked.elapsed());
                // If the daemon is gone, the next read says so.
                let _ = send(&stream, &answer);
            }
            None => {
                let failure = Failure::ChildDied {
                    log: log.to_owned(),
                };
                complain(&failure.to_string());
                return exit::code(&failure);
            }
        }
    }
}

fn send(mut stream: &UnixStream, message: &impl Serialize) -> std::io::Result<()> {
    let mut line = Vec::with_capacity(4096);
    serde_json::to_writer(&mut line, message)?;
    line.push(b'\n');
    let result = stream.write_all(&line);
    // It may have been a password.
    line.fill(0);
    std::hint::black_box(&line);
    result
}

impl Herald {
    /// For the foreground.
    pub(crate) fn at_terminal(answerer: Box<dyn Answerer>) -> Self {
        Self {
            inner: Arc::new(Inner::Terminal(answerer)),
        }
    }

    /// For the daemon. Starts the thread that listens to the first process.
    fn to_parent(stream: UnixStream) -> std::io::Result<Self> {
        let (answer_sender, answers) = mpsc::channel();
        let (gone_sender, gone) = watch::channel(false);
        let reader = stream.try_clone()?;
        std::thread::Builder::new()
            .name("launch".to_owned())
            .spawn(move || {
                for line in BufReader::new(reader).lines() {
                    let answer = line.ok().and_then(|line| serde_json::from_str(&line).ok());
                    let delivered = answer.is_some_and(|answer| answer_sender.send(answer).is_ok());
                    if !delivered {
                        break;
                    }
                }
                // Nobody waits any more when the receiver is gone.
                let _ = gone_sender.send(true);
            })?;
        let inner = Inner::Parent {
            stream: Mutex::new(stream),
            answers: Mutex::new(answers),
            gone,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Asks; blocks until the answer is here.
    pub(crate) fn ask(&self, question: Question) -> Result<Secret, Failure> {
        match &*self.inner {
            Inner::Terminal(answerer) => answerer.answer(question),
            Inner::Parent { answers, .. } => {
                let answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
                self.report(&Report::Ask(question));
                match answers.recv() {
                    Ok(Answer::Given(text)) => Ok(Secret::new(text)),
                    Ok(Answer::Failed { code, text }) => Err(Failure::Relayed { code, text }),
                    Err(_) => Err(Failure::Interrupted),
                }
            }
        }
    }

    /// Shows a line to whoever is waiting.
    pub(crate) fn note(&self, text: &str) {
        match &*self.inner {
            Inner::Terminal(_) => complain(text),
            Inner::Parent { .. } => self.report(&Report::Note(text.to_owned())),
        }
    }

    /// Shows how far the start is, in the place of what was shown before.
    pub(crate) fn progress(&self, spinner: &mut Spinner, text: &str) {
        match &*self.inner {
            Inner::Terminal(_) => spinner.show(text),
            Inner::Parent { .. } => self.report(&Report::Progress(text.to_owned())),
        }
    }

    /// Whether we are in the foreground.
    pub(crate) fn is_at_terminal(&self) -> bool {
        matches!(&*self.inner, Inner::Terminal(_))
    }

    /// The mount answers. The first process ends with success.
    pub(crate) fn mounted(&self) {
        if let Inner::Parent { .. } = &*self.inner {
            self.report(&Report::Mounted);
            self.hang_up();
        }
    }

    /// The start has failed. The first process ends with this text and its exit code.
    pub(crate) fn failed(&self, failure: &Failure) {
        let (code, text) = (exit::code(failure), failure.to_string());
        match &*self.inner {
            Inner::Terminal(_) => complain(&text),
            Inner::Parent { .. } => {
                self.report(&Report::Failed { code, text });
                self.hang_up();
            }
        }
    }

    /// Returns when the first process has gone away; never in the foreground.
    pub(crate) async fn abandoned(&self) {
        match &*self.inner {
            Inner::Terminal(_) => std::future::pending().await,
            Inner::Parent { gone, .. } => {
                // An error means that the listening thread is gone, which comes to the same.
                let _ = gone.clone().wait_for(|gone| *gone).await;
            }
        }
    }

    fn report(&self, report: &Report) {
        if let Inner::Parent { stream, .. } = &*self.inner {
            let stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
            // A first process that is gone is noticed by `abandoned`.
            let _ = send(&stream, report);
        }
    }

    fn hang_up(&self) {
        if let Inner::Parent { stream, .. } = &*self.inner {
            let stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl std::fmt::Debug for Herald {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Herald").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Knows(&'static str);

    impl Answerer for Knows {
        fn answer(&self, question: Question) -> Result<Secret, Failure> {
            match question {
                Question::Password => Ok(Secret::new(self.0.to_owned())),
                Question::Code => Err(Failure::CodeWrong {
                    user: "u".to_owned(),
                    skew: None,
                }),
            }
        }
    }

    /// Runs both sides in one process; returns the exit code of the terminal's side.
    fn both(daemon: impl FnOnce(Herald) + Send + 'static) -> u8 {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || daemon(Herald::to_parent(theirs).unwrap()));
        let code = attend(ours, &Knows("geheim\u{f6}\n"), "/log", None);
        thread.join().unwrap();
        code
    }

    #[test]
    fn readiness_is_success() {
        assert_eq!(both(|herald| herald.mounted()), exit::DONE);
    }

    #[test]
    fn failures_keep_their_code() {
        let failure = Failure::PathNotFound {
            remote: "w".into(),
            path: "x".into(),
        };
        assert_eq!(both(move |herald| herald.failed(&failure)), exit::NOT_FOUND);
    }

    #[test]
    fn vanishing_is_an_error() {
        assert_eq!(both(|herald| herald.hang_up()), exit::OTHER);
    }

    #[test]
    fn questions_are_answered_at_the_terminal() {
        let code = both(|herald| {
            let answer = herald.ask(Question::Password).unwrap();
            assert_eq!(answer.expose(), "geheim\u{f6}\n");
            let failure = herald.ask(Question::Code).unwrap_err();
            assert_eq!(exit::code(&failure), exit::LOGIN);
            herald.failed(&failure);
        });
        assert_eq!(code, exit::LOGIN);
    }

    #[test]
    fn an_interrupted_terminal_is_noticed() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let herald = Herald::to_parent(theirs).unwrap();
        drop(ours);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(5), herald.abandoned())
                .await
                .unwrap();
        });
        assert!(matches!(
            herald.ask(Question::Password),
            Err(Failure::Interrupted)
        ));
    }
}
