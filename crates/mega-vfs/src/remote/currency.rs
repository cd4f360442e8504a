//! Up to which moment the event channel is known to be current.
//!
//! A reply tells of everything that happened before it was *asked for*. Whoever needs to know what has happened
//! until now asks for a new poll ([`Currency::ask`]) and waits for the reply to that one or a later one to be
//! applied; a reply that is on its way, or is just being applied, does not count.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// The polls of one event channel, numbered.
pub(crate) struct Currency {
    /// The poll that is asked for; the first one is asked for from the beginning.
    asked: AtomicU64,
    wake: Notify,
    /// The last poll whose reply left nothing out and was applied; 0 for none.
    applied: watch::Sender<u64>,
}

impl Currency {
    pub(crate) fn new() -> Self {
        Self {
            asked: AtomicU64::new(1),
            wake: Notify::new(),
            applied: watch::Sender::new(0),
        }
    }

    /// Asks the event task for a new poll, without waiting for anything to happen: its number.
    fn ask(&self) -> u64 {
        let number = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.wake.notify_one();
        number
    }

    /// Somebody wants a new poll, whatever the present one waits for.
    pub(crate) async fn wanted(&self) {
        self.wake.notified().await;
    }

    /// The number of a poll that begins now.
    pub(crate) fn begin(&self) -> u64 {
        self.asked.load(Ordering::Acquire)
    }

    /// The reply to this poll was applied, and it was the last.
    pub(crate) fn applied(&self, poll: u64) {
        self.applied.send_modify(|last| *last = (*last).max(poll));
    }

    async fn is_applied(&self, poll: u64) {
        // It fails when the sender goes, and we have that.
        let _ = self
            .applied
            .subscribe()
            .wait_for(|last| *last >= poll)
            .await;
    }

    /// Waits until everything is applied that happened before this call, or `patience` has passed; whether it is.
    pub(crate) async fn catch_up(&self, patience: Duration) -> bool {
        let wanted = self.ask();
        let is_applied = tokio::time::timeout(patience, self.is_applied(wanted));
        is_applied.await.is_ok()
    }

    /// Waits until the channel has been current once, or `patience` has passed; whether it was.
    pub(crate) async fn was_current(&self, patience: Duration) -> bool {
        let is_applied = tokio::time::timeout(patience, self.is_applied(1));
        is_applied.await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reply_that_was_asked_for_before_does_not_count() {
        let currency = Currency::new();
        let early = currency.begin();
        let wanted = currency.ask();
        currency.wanted().await;
        currency.applied(early);
        assert!(currency.was_current(Duration::ZERO).await);
        let is_caught_up = tokio::time::timeout(Duration::ZERO, currency.is_applied(wanted));
        assert!(is_caught_up.await.is_err());
        let late = currency.begin();
        currency.applied(late);
        currency.is_applied(wanted).await;
        // An older one that is applied late takes nothing back.
        currency.applied(early);
        currency.is_applied(wanted).await;
    }
}
