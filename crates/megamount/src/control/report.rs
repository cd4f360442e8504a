//! A mount as `status --json` shows it and as it goes over the control socket: one form for both,
//! described in docs/STATUS.md. Members may be added; none changes its meaning.

use std::time::Duration;

use mega_vfs::{Change, ChangeKind, SessionState, Snapshot, Stage, Where};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::protocol::Hello;

/// How a document is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people.
    Pretty,
    /// On one line.
    Line,
}

/// The document of `status --json`, with the end of its last line.
pub(crate) fn document(mounts: &[Report], form: Form) -> String {
    let document = json!({"version": 1, "mounts": mounts});
    let text = match form {
        Form::Pretty => serde_json::to_string_pretty(&document),
        Form::Line => serde_json::to_string(&document),
    };
    text.unwrap_or_default() + "\n"
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Who answers.
    #[serde(flatten)]
    pub(crate) mount: Hello,
    /// Mega has everything: the machine can be switched off, the disk thrown away.
    pub(crate) safe: bool,
    /// Changes are refused.
    pub(crate) read_only: bool,
    /// Unmounted; the rest is being uploaded.
    pub(crate) ending: bool,
    /// Changes made elsewhere are seen at once.
    pub(crate) events_up: bool,
    /// Mega has ended the session, and nobody could log in again.
    pub(crate) session_dead: bool,
    /// Why nothing can be written any more: stable storage has failed.
    pub(crate) broken: Option<String>,
    /// How much there is to do.
    pub(crate) queue: Queue,
    /// Changes, the most urgent first; not all of them when there are many.
    pub(crate) changes: Vec<ReportedChange>,
    /// The last failure that was not an application's own.
    pub(crate) last_error: Option<ReportedError>,
    /// Space of the account, none while it is not known.
    pub(crate) quota: Option<ReportedQuota>,
    /// The content cache.
    pub(crate) cache: ReportedCache,
    /// Nothing is read from Mega for so many seconds: the transfer quota is used up.
    pub(crate) downloads_blocked_seconds: Option<u64>,
    /// The account's whole list of files is being read, and so many have come; none otherwise.
    #[serde(default)]
    pub(crate) loading: Option<u64>,
    /// It has not been mounted yet: the list is read for the first time.
    #[serde(default)]
    pub(crate) starting: bool,
}

/// How many changes there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Queue {
    /// All that are not on Mega.
    pub(crate) changes: usize,
    /// Not begun.
    pub(crate) waiting: usize,
    /// Of those, files that a program has open for writing.
    pub(crate) open: usize,
    /// Files on their way.
    pub(crate) uploading: usize,
    /// Names on their way.
    pub(crate) sending: usize,
    /// Refused by Mega, until the user decides.
    pub(crate) failed: usize,
    /// Bytes of new content.
    pub(crate) bytes: u64,
    /// Waiting or on their way, closed, and older than the mark that was asked with.
    #[serde(default)]
    pub(crate) before_mark: usize,
}

impl Queue {
    /// Whether something will still happen by itself, apart from files that are open.
    pub(crate) fn is_moving(&self) -> bool {
        self.uploading + self.sending > 0 || self.waiting > self.open
    }
}

/// A change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReportedChange {
    /// The same while the change lasts.
    pub(crate) id: i64,
    /// The path below the mountpoint.
    pub(crate) path: String,
    /// It is not below the folder that is mounted: the path begins at the account's root.
    pub(crate) outside: bool,
    /// What is to be done: `new-file`, `new-folder`, `content`, `move`, `attributes`, `removal`.
    pub(crate) change: String,
    /// Bytes of new content.
    pub(crate) size: u64,
    /// When it began, milliseconds since 1970.
    pub(crate) since_ms: i64,
    /// How far it is.
    #[serde(flatten)]
    pub(crate) state: ChangeState,
}

/// How far a change is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(crate) enum ChangeState {
    /// Not begun.
    Waiting {
        /// Not before so long.
        due_in_ms: u64,
        /// A program has it open for writing.
        open: bool,
    },
    /// Content is on its way.
    Uploading {
        /// Bytes Mega has.
        sent: u64,
        /// Since the upload began, on average.
        bytes_per_second: u64,
        /// At that speed; none while it has none.
        seconds_left: Option<u64>,
        /// How often it was lost and began again.
        restarts: u32,
    },
    /// A request is on its way.
    Sending,
    /// Refused.
    Failed {
        /// Why.
        reason: String,
    },
}

/// A failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReportedError {
    /// What failed.
    pub(crate) text: String,
    /// When, milliseconds since 1970.
    pub(crate) at_ms: i64,
}

/// Space of the account, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReportedQuota {
    /// What it has.
    pub(crate) total: u64,
    /// What is used.
    pub(crate) used: u64,
    /// Mega has refused an upload for want of it.
    pub(crate) full: bool,
}

/// The content cache, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReportedCache {
    /// What is in it.
    pub(crate) used: u64,
    /// The most there may be.
    pub(crate) limit: u64,
}

impl Report {
    /// What `mount` has to tell.
    pub(crate) fn new(mount: Hello, snapshot: Snapshot) -> Self {
        let counts = snapshot.counts;
        let (used, limit) = snapshot.cache;
        Self {
            mount,
            safe: counts.is_safe(),
            read_only: snapshot.is_read_only,
            ending: snapshot.is_ending,
            events_up: snapshot.is_channel_up,
            session_dead: snapshot.session == SessionState::Dead,
            broken: snapshot.broken,
            queue: Queue {
                changes: counts.all(),
                waiting: counts.waiting,
                open: counts.open,
                uploading: counts.uploading,
                sending: counts.sending,
                failed: counts.parked,
                bytes: counts.bytes,
                before_mark: counts.before_mark,
            },
            changes: snapshot.changes.into_iter().map(reported).collect(),
            last_error: snapshot.last_error.map(|error| ReportedError {
                text: error.text,
                at_ms: error.at_ms,
            }),
            quota: snapshot.quota.map(|quota| ReportedQuota {
                total: quota.total,
                used: quota.used,
                full: quota.is_full,
            }),
            cache: ReportedCache { used, limit },
            downloads_blocked_seconds: snapshot.no_downloads_for.map(|left| left.as_secs()),
            loading: snapshot.loading,
            starting: false,
        }
    }

    /// What there is to tell before `mount` answers.
    pub(crate) fn starting(mount: Hello, loading: Option<u64>) -> Self {
        Self {
            mount,
            // What an earlier run has left is not known yet.
            safe: false,
            read_only: false,
            ending: false,
            events_up: false,
            session_dead: false,
            broken: None,
            queue: Queue::default(),
            changes: vec![],
            last_error: None,
            quota: None,
            cache: ReportedCache { used: 0, limit: 0 },
            downloads_blocked_seconds: None,
            loading,
            starting: true,
        }
    }
}

fn reported(change: Change) -> ReportedChange {
    let outside = matches!(change.at, Where::Outside(_));
    ReportedChange {
        id: change.id,
        path: change.at.path().to_owned(),
        outside,
        change: match change.kind {
            ChangeKind::NewFile => "new-file",
            ChangeKind::NewFolder => "new-folder",
            ChangeKind::Content => "content",
            ChangeKind::Move => "move",
            ChangeKind::Attributes => "attributes",
            ChangeKind::Removal => "removal",
        }
        .to_owned(),
        size: change.size,
        since_ms: change.since_ms,
        state: match change.stage {
            Stage::Waiting { due_in, is_open } => ChangeState::Waiting {
                due_in_ms: u64::try_from(due_in.as_millis()).unwrap_or(u64::MAX),
                open: is_open,
            },
            Stage::Uploading(progress) => {
                let speed = speed(progress.sent, progress.elapsed);
                ChangeState::Uploading {
                    sent: progress.sent,
                    bytes_per_second: speed,
                    seconds_left: progress
                        .total
                        .saturating_sub(progress.sent)
                        .checked_div(speed),
                    restarts: progress.restarts,
                }
            }
            Stage::Sending => ChangeState::Sending,
            Stage::Parked { reason } => ChangeState::Failed { reason },
        },
    }
}

fn speed(bytes: u64, elapsed: Duration) -> u64 {
    let millis = elapsed.as_millis().max(1);
    u64::try_from(u128::from(bytes) * 1000 / millis).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// A report with these changes and nothing else.
    pub(crate) fn sample(changes: Vec<ReportedChange>) -> Report {
        Report {
            mount: Hello {
                remote: "work".to_owned(),
                path: String::new(),
                mountpoint: "/mnt/mega".to_owned(),
                pid: 7,
                program: "0.1.0".to_owned(),
            },
            safe: changes.is_empty(),
            read_only: false,
            ending: false,
            events_up: true,
            session_dead: false,
            broken: None,
            queue: Queue {
                changes: changes.len(),
                waiting: changes.len(),
                open: 0,
                uploading: 0,
                sending: 0,
                failed: 0,
                bytes: changes.iter().map(|change| change.size).sum(),
                before_mark: 0,
            },
            changes,
            last_error: None,
            quota: None,
            cache: ReportedCache { used: 0, limit: 10 },
            downloads_blocked_seconds: None,
            loading: None,
            starting: false,
        }
    }

    /// A change of this name.
    pub(crate) fn change(path: &str, size: u64, state: ChangeState) -> ReportedChange {
        ReportedChange {
            id: 1,
            path: path.to_owned(),
            outside: false,
            change: "content".to_owned(),
            size,
            since_ms: 0,
            state,
        }
    }

    #[test]
    fn the_form_is_stable() {
        let state = ChangeState::Uploading {
            sent: 5,
            bytes_per_second: 1,
            seconds_left: Some(5),
            restarts: 0,
        };
        let report = sample(vec![change("a/b", 10, state)]);
        let expected = json!({
            "remote": "work", "path": "", "mountpoint": "/mnt/mega", "pid": 7,
            "program": "0.1.0", "safe": false, "read_only": false, "ending": false,
            "events_up": true, "session_dead": false, "broken": null,
            "queue": {"changes": 1, "waiting": 1, "open": 0, "uploading": 0, "sending": 0,
                "failed": 0, "bytes": 10, "before_mark": 0},
            "changes": [{"id": 1, "path": "a/b", "outside": false, "change": "content",
                "size": 10, "since_ms": 0, "state": "uploading", "sent": 5,
                "bytes_per_second": 1, "seconds_left": 5, "restarts": 0}],
            "last_error": null, "quota": null, "cache": {"used": 0, "limit": 10},
            "downloads_blocked_seconds": null, "loading": null, "starting": false,
        });
        let value = serde_json::to_value(&report).unwrap();
        assert_eq!(value, expected);
        assert_eq!(serde_json::from_value::<Report>(value).unwrap(), report);
    }

    #[test]
    fn a_speed_needs_time() {
        assert_eq!(speed(0, Duration::ZERO), 0);
        assert_eq!(speed(500, Duration::from_millis(500)), 1000);
    }
}
