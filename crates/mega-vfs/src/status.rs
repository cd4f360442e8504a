//! What is going on, for whoever asks from outside: `status`, the extended attributes, the display
//! while a mount ends.
//!
//! Owns the counters that transfers and failures leave here ([`Monitor`]), the look at the queue
//! ([`Vfs::snapshot`]), and what a user can do about a change (`resolve`, `export`). Promises that a
//! look costs file operations nothing they notice: the state lock is held for one pass over the rows
//! in memory, then once more for each row that is shown. Never waits for the network.

mod export;
mod locate;
mod resolve;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mega_proto::NodeKind;
use mega_store::{ChangeRow, ChangeState, Subject};
use mega_transfer::UploadProgress;

use crate::Vfs;
use crate::catalog::Pushed;
use crate::changes::due_ms;
use crate::shared::Shared;
use crate::state::State;
use crate::types::now_ms;

pub use export::{Export, Exported};
pub use locate::Where;
pub use resolve::ResolveError;

/// The mount as it is at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// How much there is to do.
    pub counts: Counts,
    /// Some of the changes: parked ones first, then what is on its way, then the next ones due.
    pub changes: Vec<Change>,
    /// Whether changes made elsewhere are seen.
    pub is_channel_up: bool,
    /// Whether Mega still takes our session.
    pub session: SessionState,
    /// The last failure that was not an application's own.
    pub last_error: Option<LastError>,
    /// Space of the account, if known.
    pub quota: Option<Quota>,
    /// Bytes in the cache, and the most there may be.
    pub cache: (u64, u64),
    /// No reads from Mega for so long, because the transfer quota is used up.
    pub no_downloads_for: Option<Duration>,
    /// Entries of directories in memory.
    pub entries: usize,
    /// Why nothing can be written any more, if so: stable storage has failed.
    pub broken: Option<String>,
    /// Every change is refused.
    pub is_read_only: bool,
    /// The mount is ending: no more changes are taken.
    pub is_ending: bool,
    /// The whole tree is being read again, and so many files and folders have come.
    pub loading: Option<u64>,
}

/// How many changes there are, by what becomes of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Not begun.
    pub waiting: usize,
    /// Of those, files that a program still has open for writing.
    pub open: usize,
    /// Content on its way.
    pub uploading: usize,
    /// Names on their way, and finished uploads that become files.
    pub sending: usize,
    /// Refused for good, until the user decides.
    pub parked: usize,
    /// Bytes of new content of all of them.
    pub bytes: u64,
    /// Waiting or on their way, closed, and older than the mark of the question.
    pub before_mark: usize,
}

impl Counts {
    /// All changes that are not on Mega.
    #[must_use]
    pub fn all(&self) -> usize {
        self.waiting + self.uploading + self.sending + self.parked
    }

    /// Whether Mega has everything.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        self.all() == 0
    }

    /// Whether something will still happen by itself.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        self.waiting + self.uploading + self.sending > 0
    }
}

/// One thing that Mega does not have yet.
#[derive(Debug, Clone)]
pub struct Change {
    /// Stays the same while the change lasts, except that a new file or folder that has become a
    /// node and changes further gets another.
    pub id: i64,
    /// Which file or folder, as it is spelled in the mount.
    pub at: Where,
    /// What is to be done.
    pub kind: ChangeKind,
    /// Bytes of new content.
    pub size: u64,
    /// When the change began, milliseconds since 1970.
    pub since_ms: i64,
    /// How far it is.
    pub stage: Stage,
}

/// What a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// A file that Mega does not have.
    NewFile,
    /// A folder that Mega does not have.
    NewFolder,
    /// Other content of a file.
    Content,
    /// Another name or place.
    Move,
    /// Another time, permission or attribute.
    Attributes,
    /// It is to be removed.
    Removal,
}

/// How far a change is.
#[derive(Debug, Clone)]
pub enum Stage {
    /// Waits.
    Waiting {
        /// Not before so long.
        due_in: Duration,
        /// A program has the file open for writing.
        is_open: bool,
    },
    /// Content is on its way.
    Uploading(Progress),
    /// A request is on its way.
    Sending,
    /// Refused for good.
    Parked {
        /// Why.
        reason: String,
    },
}

/// How far an upload is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Bytes that Mega has acknowledged.
    pub sent: u64,
    /// Bytes in all.
    pub total: u64,
    /// How long it has been going on.
    pub elapsed: Duration,
    /// How often it was lost and began again.
    pub restarts: u32,
}

impl Progress {
    /// Whole per cent.
    #[must_use]
    pub fn percent(&self) -> u8 {
        if self.total == 0 {
            return 0;
        }
        let percent = u128::from(self.sent) * 100 / u128::from(self.total);
        u8::try_from(percent.min(100)).unwrap_or(100)
    }
}

/// Space of the account, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// What the account has.
    pub total: u64,
    /// What is used, what this mount uploaded included.
    pub used: u64,
    /// Mega refused an upload for want of space, and has accepted none since.
    pub is_full: bool,
}

/// Whether Mega takes our session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// It does, as far as is known.
    Live,
    /// It does not, and there was no way to log in again: what is here is served, nothing else.
    Dead,
}

/// A failure that was not an application's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    /// What failed.
    pub text: String,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
}

/// Where the parts of a mount leave what others want to know. Its locks are the last ones taken.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    transfers: Mutex<HashMap<Subject, Running>>,
    confirmed: AtomicU64,
    last_error: Mutex<Option<LastError>>,
}

#[derive(Debug)]
struct Running {
    progress: Arc<UploadProgress>,
    size: u64,
    since: Instant,
}

/// An upload that is going on; it is forgotten when this is dropped.
#[derive(Debug)]
pub(crate) struct Transfer<'a> {
    monitor: &'a Monitor,
    subject: Subject,
    progress: Arc<UploadProgress>,
}

impl Monitor {
    /// An upload of `size` bytes begins.
    pub(crate) fn begin(&self, subject: Subject, size: u64) -> Transfer<'_> {
        let progress = Arc::new(UploadProgress::new());
        let running = Running {
            progress: Arc::clone(&progress),
            size,
            since: Instant::now(),
        };
        self.transfers().insert(subject, running);
        Transfer {
            monitor: self,
            subject,
            progress,
        }
    }

    /// Mega has confirmed a change.
    pub(crate) fn confirmed(&self) {
        self.confirmed.fetch_add(1, Ordering::Relaxed);
    }

    /// How far everything is.
    pub(crate) fn pushed(&self) -> Pushed {
        let transfers = self.transfers();
        Pushed {
            confirmed: self.confirmed.load(Ordering::Relaxed),
            acknowledged: transfers
                .values()
                .map(|running| running.progress.acknowledged())
                .sum(),
        }
    }

    /// Something failed that is not an application's own mistake.
    pub(crate) fn failed(&self, text: String) {
        let error = LastError {
            text,
            at_ms: now_ms(),
        };
        *self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// How far the upload of a subject is, if there is one.
    pub(crate) fn progress(&self, subject: Subject) -> Option<Progress> {
        let transfers = self.transfers();
        let running = transfers.get(&subject)?;
        Some(Progress {
            sent: running.progress.acknowledged().min(running.size),
            total: running.size,
            elapsed: running.since.elapsed(),
            restarts: running.progress.restarts(),
        })
    }

    fn transfers(&self) -> MutexGuard<'_, HashMap<Subject, Running>> {
        self.transfers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transfer<'_> {
    /// The counters that the upload is to keep.
    pub(crate) fn progress(&self) -> Arc<UploadProgress> {
        Arc::clone(&self.progress)
    }
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        self.monitor.transfers().remove(&self.subject);
    }
}

impl Shared {
    /// Commits what was written to open files, so that the rows tell of it.
    pub(crate) fn commit_open_files(&self) -> bool {
        let open = {
            let state = self.lock();
            state
                .handles
                .files()
                .filter(|handle| handle.mode.write)
                .collect::<Vec<_>>()
        };
        let mut wrote = false;
        for handle in open {
            let mut content = handle.file.lock();
            if content.is_uncommitted {
                wrote = true;
                if let Err(errno) = self.commit_content(&handle.file, &mut content) {
                    tracing::error!(%errno, "content of an open file could not be committed");
                }
            }
        }
        wrote
    }

    fn stage(&self, state: &State, row: &ChangeRow, now: i64) -> Stage {
        if let ChangeState::Parked { error } = &row.state {
            let reason = error.clone();
            return Stage::Parked { reason };
        }
        if state.changes.is_in_flight(row.subject) {
            return match self.monitor.progress(row.subject) {
                Some(progress) => Stage::Uploading(progress),
                None => Stage::Sending,
            };
        }
        let due = due_ms(row).unwrap_or(now).saturating_sub(now).max(0);
        Stage::Waiting {
            due_in: Duration::from_millis(due.unsigned_abs()),
            is_open: state.is_being_written(row.subject),
        }
    }
}

fn kind_of(row: &ChangeRow) -> ChangeKind {
    match (row.removed, row.subject, row.kind) {
        (true, ..) => ChangeKind::Removal,
        (false, Subject::Local(_), NodeKind::File) => ChangeKind::NewFile,
        (false, Subject::Local(_), _) => ChangeKind::NewFolder,
        (false, Subject::Node(_), _) if row.content.is_some() => ChangeKind::Content,
        (false, Subject::Node(_), _) if row.place.is_some() => ChangeKind::Move,
        (false, Subject::Node(_), _) => ChangeKind::Attributes,
    }
}

/// The order in which changes are shown.
fn rank(stage: &Stage) -> (u8, Duration) {
    match stage {
        Stage::Parked { .. } => (0, Duration::ZERO),
        Stage::Uploading(_) => (1, Duration::ZERO),
        Stage::Sending => (2, Duration::ZERO),
        Stage::Waiting { due_in, .. } => (3, *due_in),
    }
}

impl Vfs {
    /// The mount now, with the details of up to `most` changes. `mark` is a moment in milliseconds
    /// since 1970: the changes before it are counted separately.
    ///
    /// Blocks for short times: not for a thread that must not.
    #[must_use]
    pub fn snapshot(&self, most: usize, mark: Option<i64>) -> Snapshot {
        let shared = &self.shared;
        shared.commit_open_files();
        let now = now_ms();
        let mut counts = Counts::default();
        let mut shown = Vec::new();
        let (quota, entries) = {
            let state = shared.lock();
            counts.bytes = state.changes.content_bytes();
            for row in state.changes.iter() {
                let stage = shared.stage(&state, row, now);
                let mut is_open = false;
                match &stage {
                    Stage::Waiting { is_open: open, .. } => {
                        counts.waiting += 1;
                        counts.open += usize::from(*open);
                        is_open = *open;
                    }
                    Stage::Uploading(_) => counts.uploading += 1,
                    Stage::Sending => counts.sending += 1,
                    Stage::Parked { .. } => counts.parked += 1,
                }
                let is_parked = matches!(stage, Stage::Parked { .. });
                let is_old = mark.is_some_and(|mark| row.since_ms <= mark);
                counts.before_mark += usize::from(is_old && !is_open && !is_parked);
                shown.push((rank(&stage), row.since_ms, row.subject));
            }
            let quota = state.quota.filter(|quota| quota.total > 0);
            (quota, state.loaded_entries)
        };
        if shown.len() > most {
            shown.select_nth_unstable(most);
            shown.truncate(most);
        }
        shown.sort_unstable();
        let changes = shown
            .into_iter()
            .filter_map(|(_, _, subject)| {
                let state = shared.lock();
                let row = state.changes.get(subject)?;
                Some(Change {
                    id: subject.to_i64(),
                    at: state.locate(subject),
                    kind: kind_of(row),
                    size: row.content.as_ref().map_or(0, |content| content.size),
                    since_ms: row.since_ms,
                    stage: shared.stage(&state, row, now),
                })
            })
            .collect();
        let last_error = &shared.monitor.last_error;
        let cache = shared.store.cache();
        Snapshot {
            counts,
            changes,
            is_channel_up: shared.is_channel_up.load(Ordering::Acquire),
            session: if shared.api.is_session_dead() {
                SessionState::Dead
            } else {
                SessionState::Live
            },
            last_error: last_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            quota: quota.map(|quota| Quota {
                total: quota.total,
                used: quota.used,
                is_full: shared.space.is_full(),
            }),
            cache: (cache.used_bytes(), cache.capacity()),
            no_downloads_for: shared
                .downloads
                .over_quota_until()
                .map(|until| until.saturating_duration_since(Instant::now()))
                .filter(|left| !left.is_zero()),
            entries,
            broken: shared.store.poisoned().map(str::to_owned),
            is_read_only: shared.config.read_only,
            is_ending: shared.is_stopping(),
            loading: shared.config.loading.nodes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use mega_store::LocalId;

    use super::*;

    #[test]
    fn a_transfer_is_known_while_it_lasts() {
        let monitor = Monitor::default();
        let subject = Subject::Local(LocalId(1));
        let transfer = monitor.begin(subject, 200);
        let progress = monitor.progress(subject).unwrap();
        assert_eq!((progress.sent, progress.total), (0, 200));
        assert_eq!(progress.percent(), 0);
        drop(transfer);
        assert!(monitor.progress(subject).is_none());
    }

    #[test]
    fn per_cent_never_leaves_its_range() {
        let progress = |sent, total| Progress {
            sent,
            total,
            elapsed: Duration::ZERO,
            restarts: 0,
        };
        assert_eq!(progress(0, 0).percent(), 0);
        assert_eq!(progress(42, 100).percent(), 42);
        assert_eq!(progress(u64::MAX, u64::MAX).percent(), 100);
        assert_eq!(progress(5, 4).percent(), 100);
    }
}
