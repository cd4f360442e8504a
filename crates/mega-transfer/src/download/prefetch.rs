//! Files that will be opened soon, because their directory is being walked file by file.
//!
//! Owns what was fetched before it was asked for. Promises: the URLs of many files come in one request;
//! bytes are fetched only of files that the reader of a first byte would get whole in any case, and never
//! more than [`UNREAD`] bytes that nobody has come for; a failure is nobody's failure. Never decides
//! what comes next: the caller sees the walk.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mega_proto::NodeHandle;
use mega_store::UNIT;

use super::cursor::ReadCursor;
use super::file::SMALL;
use super::{RemoteSource, Shared};
use crate::limits::Verify;

/// Bytes on their way or here that nobody has come for.
const UNREAD: u64 = 4 << 20;
/// Files that wait for their turn; more are not worth remembering.
const WAITING: usize = 256;
/// Files somebody came for that are remembered.
const ARRIVED: usize = 64;
/// Who has not come for his bytes by then does not come.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Prefetch {
    // Innermost lock: nothing else is taken while it is held.
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// What was said last and nobody has looked at yet. One task does at a time, so that files wait in the
    /// order they were said; those behind each other are asked for together.
    said: Vec<RemoteSource>,
    is_looked_at: bool,
    waiting: VecDeque<RemoteSource>,
    unread: HashMap<NodeHandle, (u64, Instant)>,
    /// The last files somebody came for: he may be faster than the answer about what comes next.
    arrived: VecDeque<NodeHandle>,
    running: usize,
}

impl Prefetch {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// The next file there is room and a connection for; counted as running.
    fn next(&mut self, lanes: usize) -> Option<RemoteSource> {
        if self.running >= lanes {
            return None;
        }
        self.unread
            .retain(|_, (_, since)| since.elapsed() < PATIENCE);
        let unread: u64 = self.unread.values().map(|(bytes, _)| bytes).sum();
        let size = self.waiting.front()?.size;
        if unread + size > UNREAD {
            return None;
        }
        let source = self.waiting.pop_front()?;
        self.unread.insert(source.handle, (size, Instant::now()));
        self.running += 1;
        Some(source)
    }
}

impl Shared {
    /// See [`Downloads::prefetch`](super::Downloads::prefetch).
    pub(super) fn prefetch(self: &Arc<Self>, sources: Vec<RemoteSource>) {
        if sources.is_empty() || self.quota.check().is_err() {
            return;
        }
        {
            let mut queue = self.prefetch.lock();
            queue.said.extend(sources);
            let surplus = queue.said.len().saturating_sub(WAITING);
            queue.said.drain(..surplus);
            if std::mem::replace(&mut queue.is_looked_at, true) {
                return;
            }
        }
        let this = Arc::clone(self);
        self.runtime.spawn(async move {
            loop {
                let said = {
                    let mut queue = this.prefetch.lock();
                    queue.is_looked_at = !queue.said.is_empty();
                    std::mem::take(&mut queue.said)
                };
                if said.is_empty() {
                    return;
                }
                this.look_at(said).await;
                this.prefetch_bytes();
            }
        });
    }

    /// Lets those wait for their turn whose bytes are worth fetching.
    async fn look_at(self: &Arc<Self>, said: Vec<RemoteSource>) {
        let work = Arc::clone(self);
        // The cache's database is asked about each of them.
        let cold = self
            .runtime
            .spawn_blocking(move || {
                let is_cold = |source: &RemoteSource| work.is_cold(source);
                said.into_iter().filter(is_cold).collect::<Vec<_>>()
            })
            .await;
        let Ok(cold) = cold else { return };
        self.ask_for_urls(&cold).await;
        let mut queue = self.prefetch.lock();
        let passed = cold
            .iter()
            .rposition(|source| queue.arrived.contains(&source.handle));
        let ahead = cold.into_iter().skip(passed.map_or(0, |last| last + 1));
        let wanted = ahead.filter(|source| self.is_taken_whole(source));
        queue.waiting.extend(wanted);
        while queue.waiting.len() > WAITING {
            queue.waiting.pop_front();
        }
    }

    /// Somebody has come for this file.
    pub(super) fn prefetch_arrived_at(self: &Arc<Self>, node: NodeHandle) {
        {
            let mut queue = self.prefetch.lock();
            if queue.arrived.len() >= ARRIVED {
                queue.arrived.pop_front();
            }
            queue.arrived.push_back(node);
            if queue.unread.remove(&node).is_none() {
                // Those before it have been passed by.
                let passed = queue.waiting.iter().position(|next| next.handle == node);
                let Some(passed) = passed else { return };
                queue.waiting.drain(..=passed);
            }
            if queue.waiting.is_empty() {
                return;
            }
        }
        self.prefetch_bytes();
    }

    /// Whether nothing of it is known to be here.
    fn is_cold(&self, source: &RemoteSource) -> bool {
        source.size > 0
            && self
                .store
                .cache()
                .open(source.handle, source.size)
                .is_ok_and(|blob| !blob.is_complete())
    }

    /// Whether whoever reads its first byte gets all of it.
    fn is_taken_whole(&self, source: &RemoteSource) -> bool {
        let most = match self.limits.verify {
            Verify::Background | Verify::BeforeRead => SMALL,
            Verify::Off => UNIT,
        };
        source.size <= most
    }

    async fn ask_for_urls(&self, sources: &[RemoteSource]) {
        let unknown: Vec<_> = sources
            .iter()
            .filter(|source| self.urls.get(source.handle).is_none())
            .collect();
        if unknown.is_empty() {
            return;
        }
        let nodes: Vec<_> = unknown.iter().map(|source| source.handle).collect();
        match self.api.download_urls(&nodes).await {
            Ok(answers) => {
                for (source, answer) in unknown.into_iter().zip(answers) {
                    if let Err(error) = self.note_url(source.handle, source.size, answer) {
                        tracing::debug!(node = %source.handle, %error, "no URL ahead of time");
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "no URLs ahead of time"),
        }
    }

    /// Starts what there is room for.
    fn prefetch_bytes(self: &Arc<Self>) {
        let lanes = self.limits.connections();
        loop {
            if self.quota.check().is_err() {
                return;
            }
            let Some(source) = self.prefetch.lock().next(lanes) else {
                return;
            };
            let this = Arc::clone(self);
            self.runtime.spawn(async move {
                let node = source.handle;
                let file = this.open_file(source);
                // One byte brings all of it: the file is verified first, or is a single unit.
                if let Err(error) = file.read(0, 1, &ReadCursor::new()).await {
                    tracing::debug!(%node, %error, "not fetched ahead of time");
                    this.prefetch.lock().unread.remove(&node);
                }
                this.prefetch.lock().running -= 1;
                this.prefetch_bytes();
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mega_crypto::FileKey;

    fn source(number: u64, size: u64) -> RemoteSource {
        RemoteSource {
            handle: NodeHandle::from_u48(number),
            size,
            key: FileKey::from_bytes([7; 32]),
        }
    }

    #[test]
    fn what_nobody_comes_for_is_bounded() {
        let mut queue = Queue::default();
        queue
            .waiting
            .extend((0..100).map(|number| source(number, 1 << 20)));
        let mut started = 0;
        while queue.next(64).is_some() {
            started += 1;
        }
        assert_eq!(started, UNREAD >> 20);
        queue.unread.remove(&NodeHandle::from_u48(1));
        assert!(queue.next(64).is_some());
        assert!(queue.next(64).is_none());
    }
}
