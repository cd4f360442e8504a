//! statfs, and room for new content: the account's quota, less what is queued and not uploaded yet.
//!
//! A file that differs from Mega costs its whole size once more, because Mega counts old versions and
//! the rubbish bin too. A write that does not fit is refused here: with ENOSPC by the figures known,
//! with EDQUOT once the server itself has refused an upload. Nothing here asks the server: a figure
//! that is doubted is asked for again in the background ([`Space::take_doubt`]).

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::Vfs;
use crate::file::{Content, FileNode};
use crate::shared::Shared;
use crate::state::{Quota, State};
use crate::types::{OpResult, StatFs};

/// Unit of the reported figures, bytes.
const BLOCK: u32 = 4096;
/// Shown while the server has not told the quota: large, so that nothing refuses to write.
const UNKNOWN_TOTAL: u64 = 1 << 50;
/// Mega does not limit the number of nodes.
const MANY: u64 = 1 << 32;
/// A quota is asked for at most this often.
const RARELY: Duration = Duration::from_secs(10);
/// A quota older than this is asked for again when somebody wants to know it.
const OLD: Duration = Duration::from_secs(600);
/// Room of an account whose quota is not known.
const UNKNOWN: i64 = i64::MAX;

/// A queue that was not counted yet.
const UNSEEN: u64 = u64::MAX;

/// How much more the account has room for. Takes no lock.
#[derive(Debug)]
pub(crate) struct Space {
    /// Bytes of new content that fit beside what is queued; negative when too much is queued.
    room: AtomicI64,
    /// The server has refused an upload, and accepted none since.
    is_full: AtomicBool,
    /// What was queued then; [`UNSEEN`] until it is counted.
    queued_when_full: AtomicU64,
    /// Bytes of the uploads that became nodes since the start.
    spent: AtomicU64,
    /// Somebody could do with newer figures.
    is_doubted: AtomicBool,
    is_wanted: AtomicBool,
}

impl Default for Space {
    fn default() -> Self {
        Self {
            room: AtomicI64::new(UNKNOWN),
            is_full: AtomicBool::new(false),
            queued_when_full: AtomicU64::new(UNSEEN),
            spent: AtomicU64::new(0),
            is_doubted: AtomicBool::new(false),
            is_wanted: AtomicBool::new(false),
        }
    }
}

impl Space {
    /// The server refused an upload for want of space.
    pub(crate) fn refused(&self) {
        self.queued_when_full.store(UNSEEN, Ordering::Release);
        self.is_full.store(true, Ordering::Release);
        self.is_doubted.store(true, Ordering::Release);
    }

    /// An upload became a node.
    pub(crate) fn spent(&self, state: &mut State, bytes: u64) {
        if bytes > 0 {
            self.is_full.store(false, Ordering::Release);
            self.spent.fetch_add(bytes, Ordering::AcqRel);
            if let Some(quota) = &mut state.quota {
                quota.used = quota.used.saturating_add(bytes);
            }
        }
    }

    /// Bytes of the uploads that became nodes since the start: a quota that was asked for before an
    /// upload and comes after it knows nothing of it.
    pub(crate) fn spent_so_far(&self) -> u64 {
        self.spent.load(Ordering::Acquire)
    }

    /// Whether the server has refused an upload, and accepted none since.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Acquire)
    }

    /// For whoever waits for an upload: it waits too while the account is full.
    ///
    /// # Errors
    /// EDQUOT.
    pub(crate) fn check_not_full(&self) -> OpResult<()> {
        if !self.is_full() {
            return Ok(());
        }
        self.is_doubted.store(true, Ordering::Release);
        Err(Errno::DQUOT)
    }

    /// The server has told the quota. More of it than before may end a refusal.
    pub(crate) fn told(&self, before: Option<Quota>, now: Quota) {
        if before.is_some_and(|before| free(now) > free(before)) {
            self.is_full.store(false, Ordering::Release);
        }
    }

    /// Counts anew what fits, from the quota and the queue.
    pub(crate) fn recount(&self, state: &mut State) {
        let queued = state.own_content_bytes();
        self.weigh_refusal(queued);
        let room = match state.quota {
            Some(quota) if quota.total > 0 => {
                let queued = i64::try_from(queued).unwrap_or(i64::MAX);
                i64::try_from(free(quota))
                    .unwrap_or(i64::MAX)
                    .saturating_sub(queued)
            }
            _ => UNKNOWN,
        };
        self.room.store(room, Ordering::Release);
    }

    /// A refusal ends when what is queued became less: what did not fit may be gone.
    fn weigh_refusal(&self, queued: u64) {
        if !self.is_full() {
            return;
        }
        let then = self.queued_when_full.load(Ordering::Acquire);
        if then == UNSEEN {
            self.queued_when_full.store(queued, Ordering::Release);
        } else if queued < then {
            self.is_full.store(false, Ordering::Release);
        }
    }

    /// Takes `bytes` of the room, if there are as many.
    fn take(&self, bytes: u64) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let left = |room| match room {
            UNKNOWN => Some(UNKNOWN),
            _ if room < bytes => None,
            _ => Some(room - bytes),
        };
        self.room
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, left)
            .is_ok()
    }

    /// Whether the quota should be asked for, when the last answer came at `asked`.
    pub(crate) fn take_doubt(&self, asked: Instant) -> bool {
        let age = asked.elapsed();
        (age > RARELY && self.is_doubted.swap(false, Ordering::AcqRel))
            || (age > OLD && self.is_wanted.swap(false, Ordering::AcqRel))
    }
}

/// Bytes of the quota that are not used.
fn free(quota: Quota) -> u64 {
    quota.total.saturating_sub(quota.used)
}

impl Shared {
    /// Makes sure that a file may become (or, if clean, become dirty at) `size` bytes. The caller
    /// holds the content's lock. In a folder of somebody else it takes their space, of which we know nothing.
    ///
    /// # Errors
    /// EDQUOT after a refusal of the server, ENOSPC when it does not fit by the figures known.
    pub(crate) fn make_room(
        &self,
        file: &FileNode,
        content: &mut Content,
        size: u64,
    ) -> OpResult<()> {
        let has = if content.is_dirty { content.size } else { 0 };
        let needed = size.max(content.size).saturating_sub(has);
        if needed == 0 || content.is_unlinked {
            return Ok(());
        }
        let is_theirs = || {
            let state = self.lock();
            let subject = state.subject(file.ino);
            subject.is_ok_and(|subject| state.is_bound_for_share(subject))
        };
        if self.space.is_full() {
            self.space.recount(&mut self.lock());
        }
        if self.space.is_full() {
            if is_theirs() {
                return Ok(());
            }
            self.space.is_doubted.store(true, Ordering::Release);
            return Err(Errno::DQUOT);
        }
        if self.space.take(needed) {
            return Ok(());
        }
        // Perhaps something was deleted since: count exactly, with what this file has already.
        self.commit_content(file, content)?;
        self.space.recount(&mut self.lock());
        if self.space.take(needed) || is_theirs() {
            return Ok(());
        }
        self.space.is_doubted.store(true, Ordering::Release);
        Err(Errno::NOSPC)
    }
}

impl Vfs {
    /// Free and total space.
    ///
    /// # Errors
    /// None at present.
    pub async fn statfs(&self) -> OpResult<StatFs> {
        self.shared.space.is_wanted.store(true, Ordering::Release);
        let mut state = self.shared.lock();
        let (total, free) = match state.quota {
            Some(quota) if quota.total > 0 => (
                quota.total,
                free(quota).saturating_sub(state.own_content_bytes()),
            ),
            _ => (UNKNOWN_TOTAL, UNKNOWN_TOTAL),
        };
        let unit = u64::from(BLOCK);
        Ok(StatFs {
            blocks: total / unit,
            bfree: free / unit,
            bavail: free / unit,
            files: MANY,
            ffree: MANY,
            bsize: BLOCK,
            namelen: 255,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(total: u64, used: u64) -> Quota {
        Quota { total, used }
    }

    #[test]
    fn room_is_taken_until_there_is_none() {
        let space = Space::default();
        assert!(space.take(u64::MAX), "an unknown quota refuses nothing");
        space.room.store(10, Ordering::Release);
        assert!(space.take(7));
        assert!(!space.take(4));
        assert!(space.take(3));
        space.room.store(-5, Ordering::Release);
        assert!(!space.take(1));
    }

    #[test]
    fn a_refusal_ends_when_there_is_more_than_before() {
        let space = Space::default();
        space.refused();
        space.told(None, quota(10, 9));
        assert!(space.is_full());
        space.told(Some(quota(10, 9)), quota(10, 9));
        assert!(space.is_full());
        space.told(Some(quota(10, 9)), quota(20, 9));
        assert!(!space.is_full());
    }

    #[test]
    fn a_refusal_ends_when_less_is_queued() {
        let space = Space::default();
        space.refused();
        space.weigh_refusal(100);
        space.weigh_refusal(120);
        assert!(space.is_full());
        space.weigh_refusal(99);
        assert!(!space.is_full());
    }
}
