//! How much of the line transfers may use.
//!
//! One budget for all connections of a direction, first come, first served: whoever reads a little waits for no
//! more than what the others have in hand. Commands and lists of files are not counted: they are small, or
//! somebody waits for them. How many requests the API gets is limited apart from that, in the same way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

/// What may be used at once after a pause.
const BURST: Duration = Duration::from_millis(100);

/// Bytes a second in each direction; `None` is without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bandwidth {
    /// To the server.
    pub up: Option<u64>,
    /// From the server.
    pub down: Option<u64>,
}

/// The budgets of an [`Api`](crate::Api).
#[derive(Debug, Default)]
pub(crate) struct Budgets {
    pub(crate) up: Budget,
    pub(crate) down: Budget,
    /// Requests to the API, a thousand for each.
    pub(crate) calls: Budget,
}

/// What a request takes of [`Budgets::calls`].
pub(crate) const CALL: u64 = 1000;

impl Budgets {
    pub(crate) fn set(&self, bandwidth: Bandwidth) {
        self.up.set(bandwidth.up);
        self.down.set(bandwidth.down);
    }

    pub(crate) fn get(&self) -> Bandwidth {
        Bandwidth {
            up: self.up.rate(),
            down: self.down.rate(),
        }
    }
}

/// Of one direction, or of requests.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    /// Units a second; 0 is without limit.
    rate: AtomicU64,
    /// From when on there is something left. Held while waiting, so that others queue behind.
    free: Mutex<Option<Instant>>,
    changed: Notify,
}

impl Budget {
    pub(crate) fn set(&self, rate: Option<u64>) {
        self.rate.store(rate.unwrap_or(0), Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Bytes a second.
    pub(crate) fn rate(&self) -> Option<u64> {
        Some(self.rate.load(Ordering::Acquire)).filter(|rate| *rate > 0)
    }

    /// Waits until `bytes` more may be used. What is dropped while it waits has used them.
    pub(crate) async fn take(&self, bytes: u64) {
        if self.rate().is_none() {
            return;
        }
        let mut free = self.free.lock().await;
        let mut left = bytes;
        loop {
            // Before the rate is looked at: no change goes unseen.
            let changed = self.changed.notified();
            let Some(rate) = self.rate() else { return };
            let now = Instant::now();
            let earliest = now.checked_sub(BURST).unwrap_or(now);
            let begin = free.map_or(earliest, |free| free.max(earliest));
            let cost = Duration::from_millis(left.saturating_mul(1000) / rate);
            let until = begin + cost;
            *free = Some(until);
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                () = changed => {
                    // The rest of it at the new rate.
                    let waited = until.saturating_duration_since(Instant::now());
                    let rest = waited.as_millis().saturating_mul(u128::from(rate)) / 1000;
                    left = u64::try_from(rest).unwrap_or(left).min(left);
                    *free = None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_used_takes_its_time() {
        let budget = Budget::default();
        let begun = Instant::now();
        budget.take(1 << 40).await;
        budget.set(Some(10_000));
        for _ in 0..10 {
            budget.take(500).await;
        }
        // 5,000 bytes less the burst.
        assert!(begun.elapsed() >= Duration::from_millis(390));
    }

    #[tokio::test]
    async fn a_new_rate_holds_at_once() {
        let budget = Budget::default();
        budget.set(Some(1));
        let raise = async {
            tokio::task::yield_now().await;
            budget.set(None);
        };
        let both = async { tokio::join!(budget.take(1_000_000), raise) };
        let patience = Duration::from_secs(60);
        assert!(tokio::time::timeout(patience, both).await.is_ok());
    }
}
