//! One budget of bytes for every transfer buffer of the process.
//!
//! Owns the permits; knows nothing about what they pay for. Promise: the buffers of all uploads and
//! downloads that share one [`MemoryBudget`] never exceed its size, and a read somebody waits for is
//! never starved by background work, because a quarter is reserved for such reads.
//!
//! The budget is divided once: half for background work (uploads, read-ahead), a quarter for demanded
//! reads when the background half is taken, an eighth for whole small files being verified, an eighth for
//! units kept in memory because the cache on disk declined them (`download::pool`). A holder takes what
//! it needs in one acquisition; only a check waits for others while it holds, and it draws from a part of
//! its own. So holders cannot wait for one another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

mod idle;

pub(crate) use idle::Buffer;
use idle::Idle;

/// Permits are counted in KiB so that any budget fits the semaphore's 32-bit requests.
const GRAIN: u64 = 1024;

/// The smallest budget that still lets every kind of transfer make progress.
pub const SMALLEST_BUDGET: u64 = 16 << 20;

/// A cloneable handle to one budget of bytes; clones share it.
#[derive(Debug, Clone)]
pub struct MemoryBudget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    total: u64,
    background: Part,
    reserve: Part,
    checks: Part,
    in_use: Arc<Usage>,
    idle: Idle,
}

#[derive(Debug)]
struct Part {
    size: u64,
    permits: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Usage {
    now: AtomicU64,
    peak: AtomicU64,
}

/// Bytes taken from the budget; given back on drop.
#[derive(Debug)]
pub(crate) struct BudgetPermit {
    bytes: u64,
    usage: Arc<Usage>,
    _permit: OwnedSemaphorePermit,
}

impl Part {
    fn new(size: u64) -> Self {
        let grains = usize::try_from(size / GRAIN).unwrap_or(usize::MAX >> 4);
        Self {
            size,
            permits: Arc::new(Semaphore::new(grains.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Permits for `bytes`, never more than the part has.
    fn grains(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.min(self.size).div_ceil(GRAIN).min(self.size / GRAIN))
            .unwrap_or(u32::MAX)
            .max(1)
    }
}

impl MemoryBudget {
    /// A budget of `bytes` (raised to [`SMALLEST_BUDGET`]).
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let total = bytes.max(SMALLEST_BUDGET);
        Self(Arc::new(Inner {
            total,
            background: Part::new(total / 2),
            reserve: Part::new(total / 4),
            checks: Part::new(total / 8),
            in_use: Arc::default(),
            idle: Idle::default(),
        }))
    }

    /// The whole budget in bytes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.total
    }

    /// Bytes taken right now by buffers of transfers (units kept by the pool not counted).
    #[must_use]
    pub fn in_use(&self) -> u64 {
        self.0.in_use.now.load(Ordering::Relaxed)
    }

    /// The most that was ever taken at once, in bytes.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.0.in_use.peak.load(Ordering::Relaxed)
    }

    /// The share for units the cache declined, in bytes.
    pub(crate) fn pool(&self) -> u64 {
        self.0.total / 8
    }

    /// The largest single background request that can ever be granted, in bytes.
    pub(crate) fn background_size(&self) -> u64 {
        self.0.background.size
    }

    /// Waits for `bytes` of background memory, first come first served.
    pub(crate) async fn background(&self, bytes: u64) -> BudgetPermit {
        self.wait(&self.0.background, bytes).await
    }

    /// Waits for `bytes` to hold a whole file while it is verified. A part of its own, because the check
    /// waits for flights, which need memory too.
    pub(crate) async fn check(&self, bytes: u64) -> BudgetPermit {
        self.wait(&self.0.checks, bytes).await
    }

    /// Takes `bytes` for a read somebody waits for: from what is free, else from the reserve.
    pub(crate) async fn demand(&self, bytes: u64) -> BudgetPermit {
        let background = &self.0.background;
        let free = Arc::clone(&background.permits).try_acquire_many_owned(background.grains(bytes));
        match free {
            Ok(permit) => self.permit(bytes.min(background.size), permit),
            Err(_) => self.wait(&self.0.reserve, bytes).await,
        }
    }

    async fn wait(&self, part: &Part, bytes: u64) -> BudgetPermit {
        let permit = Arc::clone(&part.permits)
            .acquire_many_owned(part.grains(bytes))
            .await
            .expect("the semaphores of a budget are never closed");
        self.permit(bytes.min(part.size), permit)
    }

    fn permit(&self, bytes: u64, permit: OwnedSemaphorePermit) -> BudgetPermit {
        let usage = Arc::clone(&self.0.in_use);
        let now = usage.now.fetch_add(bytes, Ordering::Relaxed) + bytes;
        usage.peak.fetch_max(now, Ordering::Relaxed);
        self.0.idle.shrink(self.0.total.saturating_sub(now));
        BudgetPermit {
            bytes,
            usage,
            _permit: permit,
        }
    }
}

impl Drop for BudgetPermit {
    fn drop(&mut self) {
        self.usage.now.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn demand_is_served_while_the_background_half_is_taken() {
        let budget = MemoryBudget::new(16 << 20);
        let all = budget.background(1 << 30).await;
        assert_eq!(budget.in_use(), 8 << 20);
        assert!(budget.background(1).now_or_never().is_none());
        let demanded = budget.demand(512 << 10).now_or_never();
        assert!(demanded.is_some());
        drop((all, demanded));
        assert_eq!(budget.in_use(), 0);
        assert_eq!(budget.peak(), (8 << 20) + (512 << 10));
    }
}
