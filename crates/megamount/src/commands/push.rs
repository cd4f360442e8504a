//! `flush` and `umount`: push what waits, now, and stay until it is done.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::status::LOOK_AGAIN;
use super::{code_of, counted, say};
use crate::cli::{BwlimitCommand, FlushCommand, UnmountCommand};
use crate::control::client::{self, Link};
use crate::control::protocol::{Ask, Reply};
use crate::control::report::{ChangeState, Report};
use crate::display::{Bars, printable};
use crate::exit;
use crate::failure::Failure;
use crate::mountpoint;

/// Changes whose progress is shown.
const SHOWN: usize = 12;

/// Runs `flush`.
pub(crate) fn flush(command: &FlushCommand) -> Result<u8, Failure> {
    let mut link = client::find(&command.target)?;
    let mark = link.flush()?;
    let deadline = command.timeout.map(|timeout| Instant::now() + timeout.0);
    let report = wait(
        &mut link,
        deadline,
        |report| {
            report.queue.before_mark == 0
                || (report.queue.failed > 0 && !report.queue.is_moving())
                || report.read_only
        },
        Some(mark),
    )?;
    let queue = report.queue;
    if report.safe || (queue.before_mark == 0 && queue.failed == 0 && queue.open == 0) {
        return Ok(exit::DONE);
    }
    say(&left_over(&report));
    Ok(exit::WORK_LEFT)
}

/// Runs `bwlimit`.
pub(crate) fn bwlimit(command: &BwlimitCommand) -> Result<u8, Failure> {
    let mut link = client::find(&command.target)?;
    let limit = command.limit.as_ref().map(ToString::to_string);
    match link.ask(&Ask::Bandwidth { limit })? {
        Reply::Bandwidth { rule, up, down } => {
            let shown = |rate: Option<u64>| {
                rate.map_or_else(
                    || "without limit".to_owned(),
                    |rate| format!("{}/s", indicatif::BinaryBytes(rate)),
                )
            };
            say(&format!(
                "Up:   {}\nDown: {}\nRule: {}\n",
                shown(up),
                shown(down),
                printable(&rule)
            ));
            Ok(exit::DONE)
        }
        other => Err(client::unexpected(&other)),
    }
}

/// Runs `umount`.
pub(crate) fn unmount(command: &UnmountCommand) -> Result<u8, Failure> {
    let mut link = client::find(&command.target)?;
    let place = link.hello().mountpoint.clone();
    if !command.no_wait {
        link.flush()?;
        let deadline = command.timeout.map(|timeout| Instant::now() + timeout.0);
        let report = wait(
            &mut link,
            deadline,
            |report| !report.queue.is_moving() || report.read_only,
            None,
        )?;
        if report.queue.is_moving() && !report.read_only {
            say(&left_over(&report));
            say(&format!("{place} stays mounted.\n"));
            return Ok(exit::WORK_LEFT);
        }
        if report.queue.open > 0 {
            return Err(Failure::MountBusy {
                mountpoint: place,
                reason: format!("{} still written", names(&report)),
            });
        }
    }
    // Asked before the unmount, so that the answer cannot be missed.
    let farewell = farewell(&link)?;
    mountpoint::unmount(std::path::Path::new(&place)).map_err(|error| Failure::MountBusy {
        mountpoint: place.clone(),
        reason: error.to_string(),
    })?;
    if command.no_wait {
        return Ok(match link.status(SHOWN, None) {
            Ok(report) if !report.safe => {
                let count = counted(report.queue.changes, "change");
                say(&format!(
                    "Unmounted. {count} not on Mega yet; what the background does not finish in \
                     time goes on at the next mount.\n"
                ));
                exit::WORK_LEFT
            }
            _ => exit::DONE,
        });
    }
    let left = until_gone(&mut link, &farewell)?;
    if left > 0 {
        let count = counted(left, "change");
        say(&format!(
            "Unmounted with {count} that Mega does not have. They are kept, and go on at the next \
             mount.\n"
        ));
    }
    Ok(code_of(left == 0))
}

/// Shows progress until `is_done` or the deadline; the last report.
fn wait(
    link: &mut Link,
    deadline: Option<Instant>,
    is_done: impl Fn(&Report) -> bool,
    mark: Option<i64>,
) -> Result<Report, Failure> {
    let mut bars = Bars::new();
    loop {
        let report = link.status(SHOWN, mark)?;
        if is_done(&report) || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(report);
        }
        bars.show(std::slice::from_ref(&report));
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Waits elsewhere for the daemon's last word: how many changes are left.
fn farewell(link: &Link) -> Result<mpsc::Receiver<Result<usize, Failure>>, Failure> {
    let mut second = link.second()?;
    second.send(&Ask::End)?;
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new()
        .name("farewell".to_owned())
        .spawn(move || {
            let left = match second.next() {
                Ok(Reply::Ended { left }) => Ok(left),
                Ok(other) => Err(client::unexpected(&other)),
                Err(failure) => Err(failure),
            };
            // Nobody waits for it with --no-wait.
            let _ = sender.send(left);
        })
        .map_err(|error| Failure::Other(format!("cannot start a thread: {error}.")))?;
    Ok(receiver)
}

/// Shows progress until the daemon has ended.
fn until_gone(
    link: &mut Link,
    farewell: &mpsc::Receiver<Result<usize, Failure>>,
) -> Result<usize, Failure> {
    let mut bars = Bars::new();
    loop {
        match farewell.recv_timeout(Duration::from_millis(50)) {
            Ok(left) => return left,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(Failure::DaemonGone),
        }
        if let Ok(report) = link.status(SHOWN, None)
            && !report.safe
        {
            bars.show(std::slice::from_ref(&report));
        }
    }
}

/// What is left, and what can be done about it.
fn left_over(report: &Report) -> String {
    let queue = report.queue;
    let mut text = String::new();
    if queue.failed > 0 {
        let count = counted(queue.failed, "change");
        text += &format!(
            "{count} refused by Mega: see 'megamount status', then 'megamount retry', 'discard' or \
             'export'.\n"
        );
    }
    if queue.open > 0 {
        text += &format!("Not pushed: {} still written.\n", names(report));
    }
    if report.read_only && queue.changes > queue.failed {
        text += "The mount is read-only, so nothing is pushed. Mount it without --read-only.\n";
    } else if queue.is_moving() {
        let count = counted(queue.changes - queue.failed - queue.open, "change");
        text += &format!("{count} not on Mega yet; they stay queued.\n");
    }
    text
}

/// The files that are open for writing: `'a' is`, `'a' and 3 more are`.
fn names(report: &Report) -> String {
    let open = |state: &ChangeState| matches!(state, ChangeState::Waiting { open: true, .. });
    let first = report.changes.iter().find(|change| open(&change.state));
    let first = first.map_or("a file".to_owned(), |change| {
        format!("'{}'", printable(&change.path))
    });
    match report.queue.open {
        0 | 1 => format!("{first} is"),
        more => format!("{first} and {} more are", more - 1),
    }
}
