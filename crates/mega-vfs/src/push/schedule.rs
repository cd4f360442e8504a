//! When what is sent.
//!
//! A name rests for a moment after it was changed, and as long as applications go on changing names,
//! up to a limit: `rm -rf` is one command and not ten thousand when the folder itself is gone by the
//! time it is pushed. Removals rest longest, nobody waits for them. Content rests for the write-back
//! delay after its last close. Nothing here loses or keeps anything: the rows are durable all the while.

use std::time::Duration;

use mega_store::{ChangeRow, Subject};

use super::Pusher;
use crate::changes::Queue;
use crate::shared::Shared;
use crate::state::State;

/// Longest time without looking at the queue.
const IDLE: Duration = Duration::from_secs(30);
/// How long names may be held back while others change, in name delays.
const MOST_NAME_DELAYS: i64 = 5;
/// The same for removals.
const MOST_REMOVAL_DELAYS: i64 = 30;
/// Stalled rows are looked at again after this, ms: what they wait for may be a close.
const STALL_MS: i64 = 1_000;

impl State {
    /// Whether names are still being changed, so that it pays to wait.
    fn names_rest_until(&self) -> i64 {
        self.changes
            .last_name_ms()
            .saturating_add(self.name_delay_ms())
    }

    /// When a row of this queue goes whatever else happens.
    fn latest(&self, queue: Queue, row: &ChangeRow) -> i64 {
        let delays = match queue {
            Queue::Names => MOST_NAME_DELAYS,
            Queue::Removals => MOST_REMOVAL_DELAYS,
            Queue::Contents => 0,
        };
        row.since_ms
            .saturating_add(self.name_delay_ms().saturating_mul(delays))
    }

    /// Names and removals that are to be pushed now, at most `limit` of each.
    pub(super) fn due_names(&self, now: i64, is_stopping: bool, limit: usize) -> Vec<Subject> {
        let is_resting = !is_stopping && now < self.names_rest_until();
        let mut due = Vec::new();
        for queue in [Queue::Names, Queue::Removals] {
            let ready = self
                .changes
                .queued(queue)
                .take_while(|(at, _)| is_stopping || *at <= now)
                .filter(|(at, row)| self.changes.is_ready(*at, row, now, is_stopping))
                .take(limit)
                .filter(|(_, row)| !is_resting || self.latest(queue, row) <= now)
                .map(|(_, row)| row.subject);
            due.extend(ready);
        }
        due
    }

    /// When the queue has to be looked at next; `None` when it is empty.
    fn next_look(&self, now: i64) -> Option<i64> {
        let mut next: Option<i64> = None;
        let mut earlier = |at: i64| next = Some(next.map_or(at, |next| next.min(at)));
        for queue in [Queue::Names, Queue::Removals, Queue::Contents] {
            if queue != Queue::Contents
                && let Some((due, row)) = self.changes.queued(queue).next()
            {
                // Ready, unless it is held back for the others.
                earlier(due.max(self.names_rest_until().min(self.latest(queue, row))));
            }
            // What is due by now waits for something else than time.
            if let Some(due) = self.changes.due_after(queue, now) {
                earlier(due);
            }
        }
        if self.changes.has_stalled() || self.changes.doomed().next().is_some() {
            earlier(now.saturating_add(STALL_MS));
        }
        next
    }
}

impl Shared {
    /// Looks at stalled rows again from time to time.
    pub(super) fn retry_stalled(&self, pusher: &mut Pusher, now: i64) {
        let mut state = self.lock();
        if state.changes.has_stalled() && now >= pusher.unstall_at {
            pusher.unstall_at = now.saturating_add(STALL_MS);
            state.changes.unstall();
        }
    }

    /// How long the pusher may sleep when nothing wakes it.
    pub(super) fn until_next(&self, pusher: &Pusher, now: i64) -> Duration {
        let next = self.lock().next_look(now);
        let next = next.map(|at| at.max(pusher.pause_until));
        let quota = Some(pusher.quota_pause_until).filter(|at| *at > now);
        let mut wait = IDLE;
        for at in [next, quota].into_iter().flatten() {
            let until = u64::try_from(at.saturating_sub(now)).unwrap_or(0);
            wait = wait.min(Duration::from_millis(until));
        }
        wait.max(Duration::from_millis(5))
    }
}
