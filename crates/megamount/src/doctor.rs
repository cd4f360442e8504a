//! `megamount doctor`: what on this machine is in the way of a mount, each finding with what to do about it.
//!
//! Promises: changes nothing, logs in nowhere, needs no remote, and ends within seconds even when a mount or the
//! network hangs.

use std::fmt::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use mega_api::{Api, ApiConfig};
use rustix::process::{Resource, getrlimit};

use crate::cli::{Carried, DoctorCommand, MountOptions};
use crate::commands::say;
use crate::config::{self, RemoteSpec};
use crate::display::printable;
use crate::env_vars;
use crate::exit;
use crate::failure::Failure;
use crate::mountpoint;
use crate::paths;

/// Two-factor codes are good for half a minute, certificates for much longer.
const SKEW: Duration = Duration::from_secs(30);
/// Open files: each file that is read has one in the cache, each upload some.
const FILES: u64 = 1024;
/// Below this the cache is of little use and writers soon get ENOSPC.
const FREE: u64 = 1 << 30;
/// How long a mount may take to say that it is alive, and the server to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Good,
    /// Works, with a drawback.
    Poor,
    /// A mount fails.
    Bad,
}

/// One finding.
#[derive(Debug)]
struct Finding {
    health: Health,
    what: String,
    /// What to do about it; empty when it is good.
    remedy: String,
}

impl Finding {
    fn good(what: impl Into<String>) -> Self {
        Self {
            health: Health::Good,
            what: what.into(),
            remedy: String::new(),
        }
    }

    fn poor(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            health: Health::Poor,
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    fn bad(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            health: Health::Bad,
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    /// A failure has its remedy in its message.
    fn of(failure: &Failure) -> Self {
        Self::bad(failure.to_string(), "")
    }
}

/// Runs `doctor`.
pub(crate) fn run(command: &DoctorCommand) -> Result<u8, Failure> {
    let mut findings = vec![device(), fusermount(), others()];
    findings.push(open_files());
    let options = match options(command) {
        Ok((options, found)) => {
            findings.push(found);
            options
        }
        Err(failure) => {
            findings.push(Finding::of(&failure));
            command.options.clone()
        }
    };
    findings.extend(places(command, &options));
    findings.extend(stale());
    findings.extend(service(options));
    say(&text(&findings));
    let is_bad = findings.iter().any(|one| one.health == Health::Bad);
    Ok(if is_bad { exit::OTHER } else { exit::DONE })
}

fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let word = match finding.health {
            Health::Good => "ok     ",
            Health::Poor => "warning",
            Health::Bad => "FAILED ",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{word}  {}", finding.what);
        if !finding.remedy.is_empty() {
            let _ = writeln!(text, "         {}", finding.remedy);
        }
    }
    let count = |health| findings.iter().filter(|one| one.health == health).count();
    let _ = match (count(Health::Bad), count(Health::Poor)) {
        (0, 0) => writeln!(text, "Nothing is in the way of a mount."),
        (0, _) => writeln!(text, "A mount works; see the warnings."),
        _ => writeln!(text, "A mount fails until the above is mended."),
    };
    text
}

fn device() -> Finding {
    match mountpoint::check_device() {
        Ok(()) => Finding::good("/dev/fuse can be opened"),
        Err(failure) => Finding::of(&failure),
    }
}

fn fusermount() -> Finding {
    let is_root = rustix::process::geteuid().is_root();
    match mountpoint::fusermount() {
        None if is_root => Finding::poor(
            "there is no fusermount3: root needs none, other users do",
            "Install the package fuse3.",
        ),
        None => Finding::of(&Failure::NoFusermount),
        Some(path) => {
            let shown = path.display();
            let mode = path
                .metadata()
                .map(|data| (data.permissions().mode(), data.uid()));
            match mode {
                Ok((mode, 0)) if mode & 0o4000 != 0 => {
                    Finding::good(format!("{shown} is setuid root"))
                }
                _ if is_root => Finding::poor(
                    format!("{shown} is not setuid root: only root can mount"),
                    format!(
                        "Run 'chown root {shown} && chmod u+s {shown}', or install fuse3 again."
                    ),
                ),
                _ => Finding::bad(
                    format!("{shown} is not setuid root: only root can mount"),
                    format!(
                        "Run 'sudo chown root {shown} && sudo chmod u+s {shown}', or install fuse3 again."
                    ),
                ),
            }
        }
    }
}

fn others() -> Finding {
    if mountpoint::allows_others() {
        return Finding::good("--allow-other may be used");
    }
    Finding::poor(
        "--allow-other and --allow-root may not be used by users other than root",
        "If other users or services are to see a mount, put the line 'user_allow_other' into /etc/fuse.conf.",
    )
}

fn open_files() -> Finding {
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < FILES => Finding::poor(
            format!("only {limit} files may be open at a time"),
            format!("Raise it: 'ulimit -n {FILES}', or LimitNOFILE={FILES} in the unit."),
        ),
        Some(limit) => Finding::good(format!("{limit} files may be open at a time")),
        None => Finding::good("any number of files may be open"),
    }
}

/// The options that hold: those of the remote that was named, or the defaults of the configuration.
fn options(command: &DoctorCommand) -> Result<(MountOptions, Finding), Failure> {
    let file = command.program.config.file()?;
    let shown = file.display();
    let Some(remote) = &command.remote else {
        let found = match config::is_encrypted(&file)? {
            Some(true) => {
                // Whoever wants to know whether the machine is ready need not know the password.
                let found = format!(
                    "{shown} is encrypted; 'megamount doctor REMOTE:' asks for its password"
                );
                return Ok((command.options.clone(), Finding::good(found)));
            }
            Some(false) => format!("{shown} can be read"),
            None => format!("there is no {shown} yet; 'megamount config' makes it"),
        };
        let below = config::options_of("", &command.program.config)?;
        return Ok((command.options.clone().or(below), Finding::good(found)));
    };
    let (remote, _) = config::resolve(remote, &command.program.config, &Carried::default())?;
    let found = Finding::good(format!("the remote '{}:' is configured", remote.name));
    Ok((command.options.clone().or(remote.options), found))
}

/// The directories for state and cache: writable, with room.
fn places(command: &DoctorCommand, options: &MountOptions) -> Vec<Finding> {
    let spec = command
        .remote
        .as_ref()
        .and_then(|remote| remote.parse().ok());
    let name = spec.map_or_else(String::new, |spec: RemoteSpec| spec.name);
    let settings = options.clone().resolve();
    let places = match paths::of_remote(&name, &settings) {
        Ok(places) => places,
        Err(failure) => return vec![Finding::of(&failure)],
    };
    [
        ("state", places.state_dir, "--state-dir"),
        ("cache", places.cache_dir, "--cache-dir"),
    ]
    .map(|(what, path, option)| place(what, &path, option))
    .into()
}

fn place(what: &str, path: &Path, option: &str) -> Finding {
    let shown = path.display();
    // What does not exist yet is made below the first directory that does.
    let existing = path.ancestors().find(|path| path.exists());
    let existing = existing.unwrap_or(Path::new("/"));
    let access = rustix::fs::access(existing, rustix::fs::Access::WRITE_OK);
    if let Err(error) = access {
        return Finding::bad(
            format!(
                "the {what} directory {shown} cannot be written: {} ({})",
                std::io::Error::from(error),
                existing.display()
            ),
            format!("Make it yours, or choose another one with {option}."),
        );
    }
    let free = rustix::fs::statvfs(existing)
        .map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    let gib = free >> 30;
    if free < FREE {
        return Finding::poor(
            format!(
                "the disk of the {what} directory {shown} has {} MiB free",
                free >> 20
            ),
            format!("What is written waits there until Mega has it. Make room, or use {option}."),
        );
    }
    Finding::good(format!(
        "the {what} directory {shown} can be written, {gib} GiB are free"
    ))
}

/// Mounts whose daemon is gone, or does not answer.
fn stale() -> Vec<Finding> {
    let ours = mountpoint::ours();
    let mut findings = vec![];
    let mut healthy = 0;
    for path in ours {
        let shown = printable(&path.to_string_lossy());
        match asked(path) {
            Some(false) => healthy += 1,
            Some(true) => findings.push(Finding::bad(
                format!("{shown} is mounted, and its daemon is gone"),
                format!(
                    "Run 'fusermount3 -u {shown}', or mount it again, which does that by itself."
                ),
            )),
            None => findings.push(Finding::bad(
                format!("the mount at {shown} does not answer"),
                format!("Look at its log; 'fusermount3 -uz {shown}' takes it off."),
            )),
        }
    }
    if findings.is_empty() {
        findings.push(Finding::good(match healthy {
            0 => "nothing is mounted".to_owned(),
            1 => "one mount, which answers".to_owned(),
            count => format!("{count} mounts, which all answer"),
        }));
    }
    findings
}

/// Whether the mount at `path` is dead; nothing when that is not to be had in time.
fn asked(path: PathBuf) -> Option<bool> {
    let (sender, receiver) = mpsc::channel();
    // A mount that hangs keeps this thread, and nobody else.
    std::thread::spawn(move || sender.send(mountpoint::is_dead(&path)));
    receiver.recv_timeout(PATIENCE).ok()
}

/// Whether the service answers, and agrees about the time.
fn service(options: MountOptions) -> Vec<Finding> {
    let settings = options.resolve();
    let mut config = ApiConfig {
        ca_cert: settings.ca_cert,
        proxy: settings.proxy,
        timeout: PATIENCE.min(settings.timeout.0),
        ..ApiConfig::default()
    };
    if let Some(url) = settings.api_url {
        config.base_url = url.0;
    }
    let origin = config.base_url.origin().ascii_serialization();
    let unreachable = |reason: String| {
        vec![Finding::bad(
            format!("cannot reach {origin}: {reason}"),
            "Check the network, a firewall, --proxy and --ca-cert. A mount that has been up before \
             works without Mega: it shows what it knows and uploads later.",
        )]
    };
    let checked = env_vars::check_proxies(config.proxy.as_deref());
    let api = match checked.and_then(|()| Api::new(config)) {
        Ok(api) => api,
        Err(error) => return unreachable(error.to_string()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let probe = match runtime {
        Ok(runtime) => runtime.block_on(Box::pin(api.probe())),
        Err(error) => return unreachable(error.to_string()),
    };
    let probe = match probe {
        Ok(probe) => probe,
        Err(error) => return unreachable(error.to_string()),
    };
    let took = probe.took.as_millis();
    let mut findings = vec![Finding::good(format!("{origin} answers in {took} ms"))];
    if let Some(theirs) = probe.server_time {
        findings.push(clock(SystemTime::now(), theirs));
    }
    findings
}

fn clock(ours: SystemTime, theirs: SystemTime) -> Finding {
    let (apart, direction) = match ours.duration_since(theirs) {
        Ok(apart) => (apart, "fast"),
        Err(error) => (error.duration(), "slow"),
    };
    let seconds = apart.as_secs();
    if apart < SKEW {
        return Finding::good("the clock is right");
    }
    Finding::poor(
        format!("the clock is {seconds} seconds {direction}"),
        "Two-factor codes of this machine are refused and new files get wrong times. Run 'timedatectl set-ntp true'.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_is_told() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(clock(now, now).health, Health::Good);
        assert_eq!(
            clock(now, now + Duration::from_secs(5)).health,
            Health::Good
        );
        let slow = clock(now, now + Duration::from_secs(90));
        assert_eq!(slow.what, "the clock is 90 seconds slow");
        assert_eq!(
            clock(now + Duration::from_secs(90), now).what,
            "the clock is 90 seconds fast"
        );
    }

    #[test]
    fn what_is_bad_decides_the_last_line() {
        let good = Finding::good("a");
        let poor = || Finding::poor("b", "Do c.");
        assert_eq!(
            text(&[good]),
            "ok       a\nNothing is in the way of a mount.\n"
        );
        assert_eq!(
            text(&[poor(), Finding::bad("d", "Do e.")]),
            "warning  b\n         Do c.\nFAILED   d\n         Do e.\nA mount fails until the above is mended.\n"
        );
        assert!(text(&[poor()]).ends_with("A mount works; see the warnings.\n"));
    }
}
