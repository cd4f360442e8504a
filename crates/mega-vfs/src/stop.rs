//! The end of a mount, its housekeeping while it lasts, and what `status` tells.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use mega_store::ChangeState;

use crate::Vfs;
use crate::shared::Shared;

/// Period of the durable commit and of saving cache maps.
const TICK: Duration = Duration::from_secs(1);
/// Period of bringing the cache to stable storage: what came later is fetched again after a power cut.
const CACHE_SYNC: Duration = Duration::from_secs(300);

/// What was left in the queue at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Changes that Mega does not have; they are kept and pushed after the next start.
    pub changes: usize,
}

/// A look at the queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Changes waiting.
    pub queued: usize,
    /// Changes on their way.
    pub in_flight: usize,
    /// Changes that the server refused for good, with the reason.
    pub parked: Vec<String>,
    /// Whether remote changes are seen.
    pub is_channel_up: bool,
}

impl Shared {
    /// Once a second: content of open files is committed, then everything made durable.
    pub(crate) async fn keep_house(self: Arc<Self>, is_quota_known: bool) {
        let mut asked = Instant::now();
        let mut is_asked = is_quota_known;
        let mut synced = Instant::now();
        let mut syncing: Option<tokio::task::JoinHandle<()>> = None;
        loop {
            if self.space.take_doubt(asked) || !is_asked {
                is_asked = true;
                asked = Instant::now();
                // Beside the ticks: a server that does not answer must not delay a commit.
                let shared = Arc::clone(&self);
                tokio::spawn(async move {
                    tokio::select! {
                        () = shared.stop.cancelled() => {}
                        () = shared.refresh_quota() => {}
                    }
                });
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(TICK) => {}
            }
            let shared = Arc::clone(&self);
            let done = tokio::task::spawn_blocking(move || shared.tick()).await;
            if done.is_err() {
                tracing::error!("the periodic commit failed");
            }
            let is_idle = syncing.as_ref().is_none_or(|task| task.is_finished());
            if is_idle && synced.elapsed() >= CACHE_SYNC {
                synced = Instant::now();
                // Beside the ticks: it waits for all that the disk has to write.
                let shared = Arc::clone(&self);
                syncing = Some(tokio::task::spawn_blocking(move || shared.sync_cache()));
            }
        }
    }

    /// The cache survives a power cut, and a restart of the machine, as far as it is now.
    fn sync_cache(&self) {
        if let Err(error) = self.store.cache().sync() {
            tracing::warn!(%error, "the cache is not on stable storage");
        }
    }

    fn tick(&self) {
        let wrote = self.commit_open_files();
        let has_changes = {
            let mut state = self.lock();
            self.space.recount(&mut state);
            state.forget_surplus();
            wrote || state.changes.len() > 0
        };
        if has_changes {
            self.sync_staging();
            if let Err(error) = self.store.sync() {
                tracing::error!(%error, "changes are not on stable storage");
            }
        }
        if let Err(error) = self.store.cache().flush_maps() {
            tracing::warn!(%error, "the cache's maps could not be saved");
        }
    }
}

impl Vfs {
    /// The queue now.
    #[must_use]
    pub fn status(&self) -> Status {
        let state = self.shared.lock();
        let mut status = Status {
            is_channel_up: self.shared.is_channel_up.load(Ordering::Acquire),
            ..Status::default()
        };
        status.queued = state.changes.doomed().count();
        for row in state.changes.iter() {
            match &row.state {
                ChangeState::Parked { error } => status.parked.push(error.clone()),
                _ if state.changes.is_in_flight(row.subject) => status.in_flight += 1,
                _ => status.queued += 1,
            }
        }
        status
    }

    /// Ends the mount: no more changes are taken, the queue is pushed for up to `drain`, the rest is
    /// kept durably. Open files are committed first.
    pub async fn shutdown(&self, drain: Duration) -> Left {
        let shared = &self.shared;
        {
            let tick = Arc::clone(shared);
            let _ = tokio::task::spawn_blocking(move || tick.tick()).await;
        }
        if drain.is_zero() {
            // First: what closes is due, and nothing more is to be sent.
            shared.stop.cancel();
        }
        shared.is_closing.store(true, Ordering::Release);
        let deadline = Instant::now() + drain;
        loop {
            shared.wake.notify_one();
            let waiting = {
                let state = shared.lock();
                state.changes.doomed().next().is_some()
                    || state
                        .changes
                        .iter()
                        .any(|row| !matches!(row.state, ChangeState::Parked { .. }))
            };
            if !waiting || Instant::now() >= deadline || shared.config.read_only {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        shared.stop.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            if tokio::time::timeout(Duration::from_secs(5), task)
                .await
                .is_err()
            {
                tracing::warn!("a task did not end in time");
            }
        }
        let last = Arc::clone(shared);
        let _ = tokio::task::spawn_blocking(move || {
            if let Err(error) = last.store.cache().flush_maps() {
                tracing::warn!(%error, "the cache's maps could not be saved");
            }
            if let Err(error) = last.store.sync() {
                tracing::error!(%error, "the last commit is not on stable storage");
            }
            // Last: it may wait for the disk, and nobody loses anything by its end.
            last.sync_cache();
        })
        .await;
        *shared
            .notices
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
        Left {
            changes: shared.lock().changes.len(),
        }
    }
}
