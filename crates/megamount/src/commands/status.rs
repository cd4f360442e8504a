//! `status`: what mounts have to tell, once, until Ctrl-C, or until Mega has everything.

use std::time::{Duration, Instant};

use super::{code_of, say};
use crate::cli::StatusCommand;
use crate::control::client::{self, Link};
use crate::control::protocol::MOST_CHANGES;
use crate::control::report::{self, Form, Report};
use crate::display::{self, Bars};
use crate::exit;
use crate::failure::Failure;

/// How often a report is asked for while somebody watches.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// The same for programs that read line by line.
const LOOK_AGAIN_JSON: Duration = Duration::from_secs(1);
/// Changes that are listed for people.
const LISTED: usize = 20;

/// Runs the command.
pub(crate) fn status(command: &StatusCommand) -> Result<u8, Failure> {
    let mut links = match &command.target {
        Some(target) => vec![client::find(target)?],
        None => client::find_all(),
    };
    let most = if command.json { MOST_CHANGES } else { LISTED };
    if command.watch || command.wait {
        return watch(command, &mut links, most);
    }
    let reports = ask_all(&mut links, most);
    show(command, &reports);
    Ok(code_of(reports.iter().all(|report| report.safe)))
}

/// The reports of all that still answer; the others are struck from the list.
fn ask_all(links: &mut Vec<Link>, most: usize) -> Vec<Report> {
    let mut reports = Vec::new();
    links.retain_mut(|link| match link.status(most, None) {
        Ok(report) => {
            reports.push(report);
            true
        }
        Err(_) => false,
    });
    reports
}

fn show(command: &StatusCommand, reports: &[Report]) {
    if command.json {
        // One line a document while watching, so that programs can tell them apart.
        let form = if command.watch {
            Form::Line
        } else {
            Form::Pretty
        };
        say(&report::document(reports, form));
    } else if reports.is_empty() {
        say("Nothing is mounted.\n");
    } else {
        let texts: Vec<_> = reports.iter().map(display::text).collect();
        say(&texts.join("\n"));
    }
}

fn watch(command: &StatusCommand, links: &mut Vec<Link>, most: usize) -> Result<u8, Failure> {
    let deadline = command.timeout.map(|timeout| Instant::now() + timeout.0);
    let mut bars = (!command.json).then(Bars::new);
    let mut last = Vec::new();
    loop {
        let reports = ask_all(links, most);
        if links.is_empty() {
            let was_safe = last.iter().all(|report: &Report| report.safe);
            drop(bars);
            if last.is_empty() {
                show(command, &reports);
                return Ok(exit::DONE);
            }
            say("The mount has ended.\n");
            return Ok(code_of(was_safe));
        }
        let is_changed = reports != last;
        match &mut bars {
            Some(bars) if bars.is_visible() => bars.show(&reports),
            Some(_) if is_changed => say(&display::lines(&reports)),
            None if command.watch && is_changed => show(command, &reports),
            _ => {}
        }
        let is_safe = reports.iter().all(|report| report.safe);
        let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        // What Mega has refused waits for the user, not for time.
        let is_stuck = reports.iter().all(|report| {
            !report.starting && (report.queue.changes == report.queue.failed || report.read_only)
        });
        if command.wait && (is_safe || is_stuck || is_late) {
            drop(bars);
            show(command, &reports);
            return Ok(code_of(is_safe));
        }
        last = reports;
        std::thread::sleep(if command.json {
            LOOK_AGAIN_JSON
        } else {
            LOOK_AGAIN
        });
    }
}
