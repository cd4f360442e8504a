//! The command `mount`: from the command line to a mount that answers, and back.
//!
//! The order matters and is written down once, here: everything that can be checked is checked at
//! the terminal; then the process forks, before any thread exists; then logging, the runtime, the
//! store, the session, the file system, the kernel (`bring_up`); then it waits for the end of the
//! mount and takes everything down in reverse.

mod account;
mod attempts;
mod bring_up;
mod link;
mod login;
mod plan;
mod session;
mod signals;
mod translate;

use std::pin::pin;
use std::time::Duration;

use mega_vfs::{Left, Vfs};

use crate::cli::{LogLevel, MountCommand};
use crate::config;
use crate::control::protocol::{Hello, MOST_CHANGES};
use crate::control::report::{Form, Report};
use crate::display::Bars;
use crate::exit;
use crate::failure::Failure;
use crate::launch::{self, Herald, Side};
use crate::logging::{self, LogFile};
use crate::notify::{self, State};
pub(crate) use account::{Account, Need};
use bring_up::Mounted;
pub(crate) use link::hide_in;
use login::LoginHelp;
use plan::Plan;
pub(crate) use session::{login, logout, whoami};
use signals::Signals;

/// How long the kernel may take to let go of a detached mount before the work goes on without it:
/// programs that still have files open keep it.
const LETTING_GO: Duration = Duration::from_millis(500);
/// How long leftover background work may hold up the end of the process.
const RUNTIME_END: Duration = Duration::from_secs(2);
/// How often the progress of the end is shown.
const SHOWING: Duration = Duration::from_millis(200);
/// Changes whose progress is shown.
const SHOWN: usize = 12;

/// Runs the command; returns the exit code after everything has been said.
pub(crate) fn run(command: &MountCommand) -> u8 {
    if config::link::is_link(&command.remote) {
        link::hide(&command.remote);
    }
    match start(command) {
        Ok(code) => code,
        Err(failure) => {
            launch::complain(&failure.to_string());
            exit::code(&failure)
        }
    }
}

/// Checks, forks, and hands over to the daemon's part.
fn start(command: &MountCommand) -> Result<u8, Failure> {
    // mount(8) waits for its helper's end.
    let foreground =
        !command.is_helper && launch::stays_in_foreground(command.program.foreground());
    let plan = Plan::make(command)?;
    // The configuration is not read again, however long the mount lasts.
    command.program.config.remembered.forget();
    let default_log = (!foreground).then_some(plan.paths.default_log.as_path());
    // Opened before forking, so that a log that cannot be written is an error at the terminal.
    let target = logging::target(&plan.settings, default_log)?;
    let log_place = match &target {
        logging::Target::System => "the system's log".to_owned(),
        logging::Target::File(file) => file.path().display().to_string(),
        logging::Target::Terminal => String::new(),
    };
    let log_file = match &target {
        logging::Target::File(file) => Some(file.clone()),
        logging::Target::Terminal | logging::Target::System => None,
    };
    let is_quiet = !foreground && plan.settings.log_file.is_none() && !plan.settings.syslog;
    let level = if is_quiet {
        LogLevel::Warn
    } else {
        LogLevel::Info
    };
    let style = logging::Style::of(&plan.settings, level);

    let help = LoginHelp::of(&plan);
    let herald = if foreground {
        Herald::at_terminal(Box::new(help))
    } else {
        let patience = plan.settings.daemon_timeout.map(|span| span.0);
        match launch::into_background(&help, &log_place, patience)? {
            Side::Terminal(code) => return Ok(code),
            Side::Daemon(herald) => herald,
        }
    };
    logging::start(target, style);
    let end = serve(plan, &herald, log_file);
    Ok(match end {
        Ok(code) => code,
        Err(failure) => {
            tracing::error!(error = %failure, "not mounted");
            herald.failed(&failure);
            exit::code(&failure)
        }
    })
}

/// The daemon's part: the runtime around everything.
fn serve(plan: Plan, herald: &Herald, log_file: Option<LogFile>) -> Result<u8, Failure> {
    // A thread of the allocator gives free memory back also while nothing is asked of the mount. Threads do not
    // live through a fork, so it starts here. Without it memory is given back later: no reason to fail.
    if let Err(error) = tikv_jemalloc_ctl::background_thread::write(true) {
        tracing::debug!(%error, "the allocator has no thread of its own");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("megamount")
        .build()
        .map_err(|e| Failure::Other(format!("cannot start threads: {e}.")))?;
    let result = runtime.block_on(Box::pin(mount_and_wait(plan, herald, log_file)));
    runtime.shutdown_timeout(RUNTIME_END);
    result
}

/// Mounts, waits for the end, unmounts.
async fn mount_and_wait(
    plan: Plan,
    herald: &Herald,
    log_file: Option<LogFile>,
) -> Result<u8, Failure> {
    let mut signals = Signals::listen(launch::ends_with_its_terminal())?;
    let plan = std::sync::Arc::new(plan);
    let hello = hello(&plan);
    let mut mounted = tokio::select! {
        mounted = Box::pin(bring_up::bring_up(&plan, herald, hello.clone())) => mounted?,
        () = signals.next() => return Err(Failure::Interrupted),
        () = herald.abandoned() => return Err(Failure::Interrupted),
    };
    let place = plan.mountpoint.display();
    tracing::info!(mountpoint = %place, remote = %plan.remote.name, "mounted");
    show_status(&mounted.vfs, hello.clone());
    mounted.control.ready(&mounted.vfs);
    signals.answer(&mounted.vfs, hello.clone(), log_file);
    let _pid_file = match &plan.settings.pid_file {
        Some(path) => Some(PidFile::write(path)?),
        None => None,
    };
    notify::notify(State::Ready(&format!("Mounted at {place}")));
    herald.mounted();

    let end = tokio::select! {
        () = mounted.attachment.ended() => End::Unmounted,
        () = signals.next() => End::Asked,
    };
    tracing::info!(?end, "ending");
    if end == End::Asked {
        take_off(&mut mounted).await;
    }
    let left = {
        let shown = pin!(show_drain(&mounted.vfs, hello, herald));
        let drained = pin!(drain(&plan, &mounted.vfs, &mut signals, end));
        tokio::select! {
            left = drained => left,
            never = shown => match never {},
        }
    };
    mounted.control.end(left.changes).await;
    Ok(take_leave(&left, herald))
}

/// The file with our process id; removed when dropped.
#[derive(Debug)]
struct PidFile(std::path::PathBuf);

impl PidFile {
    #[expect(
        clippy::disallowed_methods,
        reason = "it is of no use after a crash, so it need not survive one"
    )]
    fn write(path: &std::path::Path) -> Result<Self, Failure> {
        let text = format!("{}\n", std::process::id());
        match std::fs::write(path, text) {
            Ok(()) => Ok(Self(path.to_path_buf())),
            Err(error) => Err(Failure::Other(format!(
                "cannot write --pid-file {}: {error}.",
                path.display()
            ))),
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(%error, "the pid file stays behind");
        }
    }
}

/// Who we are, for those who ask.
fn hello(plan: &Plan) -> Hello {
    Hello {
        remote: plan.remote.name.clone(),
        path: plan.sub_path.clone(),
        mountpoint: plan.mountpoint.to_string_lossy().into_owned(),
        pid: std::process::id(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// `.mega/status` is what `status --json` prints of this mount.
fn show_status(vfs: &std::sync::Arc<Vfs>, hello: Hello) {
    // The file system keeps this as long as it lives.
    let shown = std::sync::Arc::downgrade(vfs);
    vfs.show_status(move || {
        let Some(vfs) = shown.upgrade() else {
            return Vec::new();
        };
        let report = Report::new(hello.clone(), vfs.snapshot(MOST_CHANGES, None));
        crate::control::report::document(&[report], Form::Pretty).into_bytes()
    });
}

/// While the rest is uploaded: progress bars on the terminal, a line for the service manager.
async fn show_drain(
    vfs: &std::sync::Arc<Vfs>,
    hello: Hello,
    herald: &Herald,
) -> std::convert::Infallible {
    let mut bars = herald.is_at_terminal().then(Bars::new);
    let mut told = String::new();
    loop {
        tokio::time::sleep(SHOWING).await;
        let looked = std::sync::Arc::clone(vfs);
        let snapshot = tokio::task::spawn_blocking(move || looked.snapshot(SHOWN, None)).await;
        let Ok(snapshot) = snapshot else { continue };
        if snapshot.counts.is_safe() {
            continue;
        }
        let text = format!("Uploading {} changes", snapshot.counts.all());
        if text != told {
            notify::notify(State::Status(&text));
            told = text;
        }
        if let Some(bars) = &mut bars {
            bars.show(&[Report::new(hello.clone(), snapshot)]);
        }
    }
}

/// Why the mount ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Somebody unmounted it.
    Unmounted,
    /// A signal.
    Asked,
}

/// Takes our mount, and nothing else, off the tree.
async fn take_off(mounted: &mut Mounted) {
    // Root's call is immediate, fusermount3 takes milliseconds.
    match tokio::task::block_in_place(|| mounted.attachment.detach()) {
        Ok(true) => {
            let gone = tokio::time::timeout(LETTING_GO, mounted.attachment.ended()).await;
            if gone.is_err() {
                tracing::warn!("programs still have files open on the mount");
            }
        }
        Ok(false) => tracing::warn!("something else is mounted on top, the mount stays there"),
        Err(error) => tracing::error!(%error, "cannot unmount"),
    }
}

/// Pushes what is queued, until it is done, `--drain` is over or a second signal arrives. After an
/// unmount one signal is no haste: systemd sends it as soon as `ExecStop` has unmounted.
async fn drain(plan: &Plan, vfs: &Vfs, signals: &mut Signals, end: End) -> Left {
    let waiting = vfs.snapshot(0, None).counts.all();
    let drain = plan.settings.drain.0;
    if waiting == 0 {
        notify::notify(State::Stopping("Unmounted"));
    } else {
        tracing::info!(
            changes = waiting,
            seconds = drain.as_secs(),
            "uploading what is queued"
        );
        notify::notify(State::Stopping(&format!("Uploading {waiting} changes")));
    }
    let mut asked = u32::from(end == End::Asked);
    {
        let mut shutdown = pin!(vfs.shutdown(drain));
        loop {
            tokio::select! {
                left = &mut shutdown => return left,
                () = signals.next() => asked += 1,
            }
            if asked > 1 {
                break;
            }
            tracing::info!("asked to end, which is happening; once more leaves the rest queued");
        }
    }
    tracing::info!("asked again, the rest waits for the next mount");
    vfs.shutdown(Duration::ZERO).await
}

/// The last word and the exit code.
fn take_leave(left: &Left, herald: &Herald) -> u8 {
    if left.changes == 0 {
        tracing::info!("done");
        return exit::DONE;
    }
    tracing::warn!(
        changes = left.changes,
        "not on Mega yet; kept for the next mount"
    );
    herald.note(&format!(
        "unmounted with {} changes that are not on Mega yet. They are kept, and go on at the next \
         mount.",
        left.changes
    ));
    exit::WORK_LEFT
}
