//! The command `mount`: from the command line to a mount that answers, and back.
//!
//! The order matters and is written down once, here: everything that can be checked is checked at
//! the terminal; then the process forks, before any thread exists; then logging, the runtime, the
//! store, the session, the file system, the kernel.

mod plan;

use mega_crypto::Secret;

use crate::cli::{LogLevel, MountCommand};
use crate::config::{Account, RemoteKind};
use crate::exit;
use crate::failure::Failure;
use crate::launch::{self, Answerer, Herald, Question, Side};
use crate::logging;
use crate::password;
use crate::terminal::{self, Echo};
use plan::Plan;

/// Runs the command; returns the exit code after everything has been said.
pub(crate) fn run(command: MountCommand) -> u8 {
    match start(&command) {
        Ok(code) => code,
        Err(failure) => {
            launch::complain(&failure.to_string());
            exit::code(&failure)
        }
    }
}

/// Checks, forks, and hands over to the daemon's part.
fn start(command: &MountCommand) -> Result<u8, Failure> {
    let foreground = launch::stays_in_foreground(command.program.foreground());
    let plan = Plan::make(command)?;
    let log_file = match (&plan.settings.log_file, foreground) {
        (Some(path), _) => Some(crate::paths::absolute(path)?),
        (None, true) => None,
        (None, false) => Some(plan.paths.default_log.clone()),
    };
    // Opened before forking, so that a log that cannot be written is an error at the terminal.
    let target = match &log_file {
        Some(path) => logging::open(path)?,
        None => logging::Target::Terminal,
    };
    let quiet = !foreground && plan.settings.log_file.is_none();
    let level = if quiet {
        LogLevel::Warn
    } else {
        LogLevel::Info
    };
    let level = plan.settings.log_level.unwrap_or(level);

    let answerer = LoginHelp::of(&plan);
    let herald = if foreground {
        Herald::at_terminal(Box::new(answerer))
    } else {
        let log = log_file.unwrap_or_default();
        match launch::into_background(&answerer, &log)? {
            Side::Terminal(code) => return Ok(code),
            Side::Daemon(herald) => herald,
        }
    };
    logging::start(target, level, plan.settings.log_format);
    Ok(serve(&plan, &herald))
}

/// The daemon's part.
fn serve(_plan: &Plan, herald: &Herald) -> u8 {
    let failure = Failure::Other("mounting is not built yet.".to_owned());
    herald.failed(&failure);
    exit::code(&failure)
}

/// Knows how to find a password and a code while somebody is at the terminal.
struct LoginHelp {
    remote: String,
    account: Option<Account>,
}

impl LoginHelp {
    fn of(plan: &Plan) -> Self {
        let account = match &plan.remote.kind {
            RemoteKind::Account(account) => Some(account.clone()),
            RemoteKind::Demo => None,
        };
        Self {
            remote: plan.remote.name.clone(),
            account,
        }
    }
}

impl Answerer for LoginHelp {
    fn answer(&self, question: Question) -> Result<Secret, Failure> {
        let Some(account) = &self.account else {
            return Err(Failure::Other("the demo needs no password.".to_owned()));
        };
        let (name, user) = (self.remote.clone(), account.user.clone());
        match question {
            Question::Password => match password::configured(&name, account)? {
                Some(password) => Ok(password),
                None => {
                    let prompt = format!("Mega password of {user}: ");
                    terminal::ask(&prompt, Echo::Off).ok_or(Failure::PasswordNeeded { name, user })
                }
            },
            Question::Code => match password::code(&name, account)? {
                Some(code) => Ok(Secret::new(code)),
                None => {
                    let prompt = format!("Two-factor code of {user}: ");
                    let typed = terminal::ask(&prompt, Echo::On);
                    let typed = typed.ok_or(Failure::CodeNeeded { name, user })?;
                    Ok(Secret::new(password::digits(typed.expose())))
                }
            },
        }
    }
}
