//! Large buffers that are used again.
//!
//! A fresh buffer of some MiB costs as much as encrypting it, because the kernel has to find and clear
//! its pages. They begin where a disk can take them from directly. So buffers that come back are kept for the next one. What is kept is not counted as used:
//! it goes as soon as somebody else needs the room, and when the last user says that it was the last.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mega_store::DIRECT_ALIGNMENT;

use super::{BudgetPermit, MemoryBudget};

/// Smaller ones are not worth keeping.
const SMALLEST: usize = 512 << 10;

/// Buffers nobody uses at the moment.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// Innermost.
    buffers: Mutex<Vec<Vec<u8>>>,
    users: AtomicUsize,
}

/// While one of these lives, buffers are kept for the next user.
#[derive(Debug)]
pub(crate) struct Reuse(MemoryBudget);

impl Drop for Reuse {
    fn drop(&mut self) {
        if self.0.0.idle.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.0.idle.shrink(0);
        }
    }
}

impl Idle {
    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps no more than `room` bytes.
    pub(super) fn shrink(&self, room: u64) {
        let mut buffers = self.lock();
        let mut kept: u64 = buffers.iter().map(|b| b.capacity() as u64).sum();
        while kept > room
            && let Some(buffer) = buffers.pop()
        {
            kept -= buffer.capacity() as u64;
        }
    }

    fn take(&self, length: usize) -> Option<Vec<u8>> {
        let mut buffers = self.lock();
        let fitting = buffers
            .iter()
            .enumerate()
            .filter(|(_, b)| b.capacity() >= length);
        let (place, _) = fitting.min_by_key(|(_, b)| b.capacity())?;
        Some(buffers.swap_remove(place))
    }
}

/// Bytes of any content, paid for out of the budget until dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// May be longer than what was asked for.
    bytes: Vec<u8>,
    start: usize,
    length: usize,
    permit: Option<BudgetPermit>,
    budget: MemoryBudget,
}

impl MemoryBudget {
    /// Waits for a buffer out of the background part, first come first served.
    pub(crate) async fn buffer(&self, length: u64) -> Buffer {
        let wanted = usize::try_from(length).unwrap_or(usize::MAX);
        let slack = if wanted < SMALLEST {
            0
        } else {
            DIRECT_ALIGNMENT
        };
        let room = wanted.saturating_add(slack);
        let permit = self.background(room as u64).await;
        let mut bytes = if wanted < SMALLEST {
            Vec::new()
        } else {
            self.0.idle.take(room).unwrap_or_default()
        };
        if bytes.capacity() < room {
            bytes = vec![0; room];
        } else if bytes.len() < room {
            bytes.resize(room, 0);
        }
        let start = match slack {
            0 => 0,
            // Anything up to the slack is a place; the other answer is for compilers.
            _ => bytes.as_ptr().align_offset(DIRECT_ALIGNMENT).min(slack),
        };
        Buffer {
            bytes,
            start,
            length: wanted,
            permit: Some(permit),
            budget: self.clone(),
        }
    }

    /// Buffers will be wanted again and again until the result is dropped.
    pub(crate) fn reuse(&self) -> Reuse {
        self.0.idle.users.fetch_add(1, Ordering::AcqRel);
        Reuse(self.clone())
    }
}

impl Buffer {
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let end = self.start + self.length;
        self.bytes.get_mut(self.start..end).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        let end = self.start + self.length;
        self.bytes.get(self.start..end).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        drop(self.permit.take());
        let idle = &self.budget.0.idle;
        if bytes.capacity() < SMALLEST || idle.users.load(Ordering::Acquire) == 0 {
            return;
        }
        let room = self.budget.total().saturating_sub(self.budget.in_use());
        idle.lock().push(bytes);
        idle.shrink(room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn buffers_are_used_again_and_never_beyond_the_budget() {
        let budget = MemoryBudget::new(16 << 20);
        let kept = |budget: &MemoryBudget| budget.0.idle.lock().len();
        let reuse = budget.reuse();
        let mut first = budget.buffer(2 << 20).await;
        first.bytes_mut().fill(7);
        let place = first.as_ref().as_ptr();
        assert!(place.addr().is_multiple_of(DIRECT_ALIGNMENT));
        drop(first);
        assert_eq!((kept(&budget), budget.in_use()), (1, 0));
        let second = budget.buffer(1 << 20).await;
        assert_eq!(second.as_ref().as_ptr(), place);
        assert_eq!((second.as_ref().len(), kept(&budget)), (1 << 20, 0));
        drop(second);
        // Everything is needed elsewhere.
        let all = (
            budget.background(8 << 20).await,
            budget.check(2 << 20).await,
        );
        assert_eq!(kept(&budget), 1);
        let more = budget
            .0
            .reserve
            .permits
            .clone()
            .acquire_owned()
            .await
            .unwrap();
        let rest = budget.permit(5 << 20, more);
        assert_eq!(kept(&budget), 0);
        drop((all, rest));
        // Small ones come and go.
        drop(budget.buffer(4096).await);
        assert_eq!(kept(&budget), 0);
        let late = budget.buffer(1 << 20).await;
        drop(budget.buffer(1 << 20).await);
        assert_eq!(kept(&budget), 1);
        drop(reuse);
        drop(late);
        assert_eq!(kept(&budget), 0);
    }
}
