//! A report in words.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::commands::counted;
use crate::control::report::{ChangeState, Report, ReportedChange};

/// Labels are this wide.
const LABEL: usize = 12;

/// Everything a report says, several lines.
pub(crate) fn text(report: &Report) -> String {
    let mut out = format!("{}\n", headline(report));
    if report.starting {
        return out;
    }
    let queue = report.queue;
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(out, "  {label:LABEL$} {value}");
    };
    for change in &report.changes {
        let (label, value) = described(change);
        line(label, &value);
    }
    if queue.changes > report.changes.len() {
        let more = queue.changes - report.changes.len();
        line("", &format!("... and {}", counted(more, "more change")));
    }
    if queue.failed > 0 {
        line(
            "",
            "Refused changes are kept until you decide: 'megamount retry', 'discard' or 'export'.",
        );
    }
    if let Some(quota) = report.quota {
        let free = quota.total.saturating_sub(quota.used);
        let mut value = format!(
            "{} of {} used, {} free",
            bytes(quota.used),
            bytes(quota.total),
            bytes(free)
        );
        if quota.full {
            value += "; Mega refuses uploads until there is room";
        }
        line("Account", &value);
    }
    let cache = report.cache;
    line(
        "Cache",
        &format!("{} of {}", bytes(cache.used), bytes(cache.limit)),
    );
    if let Some(seconds) = report.downloads_blocked_seconds {
        let left = duration(Duration::from_secs(seconds));
        line(
            "Downloads",
            &format!("none for {left}: the transfer quota is used up"),
        );
    }
    if let Some(nodes) = report.loading {
        let read = counted(usize::try_from(nodes).unwrap_or(usize::MAX), "entry");
        line(
            "Catching up",
            &format!("the whole list of files is read again: {read} so far"),
        );
    } else if !report.events_up {
        line(
            "Offline",
            "Mega cannot be reached: changes made elsewhere are not seen, ours wait",
        );
    }
    if report.session_dead {
        line(
            "Session",
            "Mega has ended it. Unmount and mount again to log in",
        );
    }
    if let Some(reason) = &report.broken {
        line(
            "Broken",
            &format!(
                "stable storage has failed, nothing can be written: {}",
                printable(reason)
            ),
        );
    }
    if let Some(error) = &report.last_error {
        let ago = duration(since(error.at_ms));
        line(
            "Last failure",
            &format!("{ago} ago: {}", printable(&error.text)),
        );
    }
    let safe = match (report.safe, report.read_only) {
        (true, _) => "yes, Mega has everything".to_owned(),
        (false, true) => "no; a mount that is not read-only pushes what is left".to_owned(),
        (false, false) => {
            "not yet; what is left survives it and goes on at the next mount".to_owned()
        }
    };
    line("Switch off?", &safe);
    out
}

/// Where the mount is, and how much it has to do.
pub(super) fn headline(report: &Report) -> String {
    let mount = &report.mount;
    let what = format!("{}:{}", mount.remote, printable(&mount.path));
    let place = printable(&mount.mountpoint);
    if report.starting {
        let read = report.loading.map_or_else(String::new, |nodes| {
            format!(", {nodes} files and folders of its list have come")
        });
        return format!("{what} at {place}: not mounted yet{read}");
    }
    let mode = match (report.ending, report.read_only) {
        (true, _) => ", unmounted",
        (false, true) => ", read-only",
        (false, false) => "",
    };
    format!("{what} at {place}{mode}: {}", summary(report))
}

/// `3 changes not on Mega (12.5 MiB): 1 uploading, 1 waiting, 1 refused`
fn summary(report: &Report) -> String {
    let queue = report.queue;
    if queue.changes == 0 {
        return "Mega has everything".to_owned();
    }
    let parts = [
        (queue.uploading, "uploading"),
        (queue.sending, "being sent"),
        (queue.waiting - queue.open.min(queue.waiting), "waiting"),
        (queue.open, "open"),
        (queue.failed, "refused"),
    ];
    let parts: Vec<_> = parts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    format!(
        "{} not on Mega ({}): {}",
        counted(queue.changes, "change"),
        bytes(queue.bytes),
        parts.join(", ")
    )
}

/// One line per mount, for a log.
pub(crate) fn lines(reports: &[Report]) -> String {
    reports
        .iter()
        .map(|report| {
            let uploading = report.changes.iter().filter_map(|change| {
                let ChangeState::Uploading { sent, .. } = change.state else {
                    return None;
                };
                let percent = percent(sent, change.size);
                Some(format!("; {} {percent}%", printable(&change.path)))
            });
            format!("{}{}\n", headline(report), uploading.collect::<String>())
        })
        .collect()
}

/// The label and the line of a change.
fn described(change: &ReportedChange) -> (&'static str, String) {
    let name = name(change);
    let what = match (change.change.as_str(), change.size) {
        ("new-file", size) => format!("new file, {}", bytes(size)),
        ("content", size) => format!("new content, {}", bytes(size)),
        ("new-folder", _) => "new folder".to_owned(),
        ("move", _) => "new name or place".to_owned(),
        ("attributes", _) => "new attributes".to_owned(),
        ("removal", _) => "to be removed".to_owned(),
        (other, _) => printable(other),
    };
    match &change.state {
        ChangeState::Waiting { open: true, .. } => ("Open", format!("{name}  {what}")),
        ChangeState::Waiting { due_in_ms: 0, .. } => ("Waiting", format!("{name}  {what}")),
        ChangeState::Waiting { due_in_ms, .. } => {
            let due = duration(Duration::from_millis(*due_in_ms));
            ("Waiting", format!("{name}  {what}, in {due}"))
        }
        ChangeState::Uploading {
            sent,
            bytes_per_second,
            seconds_left,
            ..
        } => {
            let mut value = format!(
                "{name}  {}% of {}",
                percent(*sent, change.size),
                bytes(change.size)
            );
            if *bytes_per_second > 0 {
                let _ = write!(value, ", {}/s", bytes(*bytes_per_second));
            }
            if let Some(seconds) = seconds_left {
                let left = duration(Duration::from_secs(*seconds));
                let _ = write!(value, ", {left} left");
            }
            ("Uploading", value)
        }
        ChangeState::Sending => ("Sending", format!("{name}  {what}")),
        ChangeState::Failed { reason } => {
            ("Refused", format!("{name}  {what}: {}", printable(reason)))
        }
    }
}

/// How fast an upload is, and how long it will take at that.
pub(super) fn pace(bytes_per_second: u64, seconds_left: Option<u64>) -> String {
    let mut text = format!("{}/s", bytes(bytes_per_second));
    if let Some(seconds) = seconds_left {
        let _ = write!(text, " {}", duration(Duration::from_secs(seconds)));
    }
    text
}

/// The path of a change.
pub(super) fn name(change: &ReportedChange) -> String {
    let path = printable(&change.path);
    if change.outside {
        format!("{path} (not in this mount)")
    } else {
        path
    }
}

/// Text with everything replaced that could move the cursor or worse.
pub(crate) fn printable(text: &str) -> String {
    let harmless = |c: char| {
        // Characters that change the direction of what follows are as bad as control characters.
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns { '?' } else { c }
    };
    text.chars().map(harmless).collect()
}

/// Whole per cent.
pub(super) fn percent(part: u64, whole: u64) -> u64 {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    u64::try_from(percent.min(100)).unwrap_or(100)
}

/// `1.5 MiB`
fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            let digits = usize::from(unit != "B");
            return format!("{value:.digits$} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} PiB")
}

/// `5 s`, `3 min`, `2 h`, `4 d`
fn duration(time: Duration) -> String {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn since(at_ms: i64) -> Duration {
    let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(at_ms).unwrap_or(0));
    SystemTime::now().duration_since(at).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::report::tests::{change, sample};

    #[test]
    fn a_report_is_readable() {
        let mut report = sample(vec![
            change(
                "doc.odt",
                1_258_291,
                ChangeState::Failed {
                    reason: "access denied".to_owned(),
                },
            ),
            change(
                "photos/a.jpg",
                10 << 20,
                ChangeState::Uploading {
                    sent: 4_404_020,
                    bytes_per_second: 1_258_291,
                    seconds_left: Some(5),
                    restarts: 0,
                },
            ),
            change(
                "notes.txt",
                120,
                ChangeState::Waiting {
                    due_in_ms: 3_500,
                    open: false,
                },
            ),
        ]);
        report.queue.waiting = 1;
        report.queue.uploading = 1;
        report.queue.failed = 1;
        assert_eq!(
            text(&report),
            "work: at /mnt/mega: 3 changes not on Mega (11.2 MiB): 1 uploading, 1 waiting, \
             1 refused\n  \
             Refused      doc.odt  new content, 1.2 MiB: access denied\n  \
             Uploading    photos/a.jpg  42% of 10.0 MiB, 1.2 MiB/s, 5 s left\n  \
             Waiting      notes.txt  new content, 120 B, in 4 s\n               \
             Refused changes are kept until you decide: 'megamount retry', 'discard' or \
             'export'.\n  \
             Cache        0 B of 10 B\n  \
             Switch off?  not yet; what is left survives it and goes on at the next mount\n"
        );
    }

    #[test]
    fn an_idle_mount_is_two_lines_and_a_cache() {
        let text = text(&sample(Vec::new()));
        assert_eq!(
            text,
            "work: at /mnt/mega: Mega has everything\n  \
             Cache        0 B of 10 B\n  \
             Switch off?  yes, Mega has everything\n"
        );
    }

    #[test]
    fn nothing_unprintable_reaches_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n\u{202e}c\u{f6}"), "a?[2Jb??c\u{f6}");
        let state = ChangeState::Failed {
            reason: "\x07".to_owned(),
        };
        let report = sample(vec![change("x\x1b]0;y\x07", 1, state)]);
        let text = text(&report);
        assert!(
            !text.chars().any(|c| c.is_control() && c != '\n'),
            "{text:?}"
        );
    }

    #[test]
    fn amounts_are_short() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
        assert_eq!(duration(Duration::from_millis(1)), "1 s");
        assert_eq!(duration(Duration::from_secs(7_300)), "2 h");
    }
}
