//! Logins that Mega refused, counted on disk: a service that is started again and again with a wrong
//! password must not lock its account out.
//!
//! An attempt is counted before it is made, and the count goes when one succeeds, or when Mega could not
//! be asked. The first ones are free; then each has to wait longer than the one before.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mega_store::{Store, StoreError};

/// Where the count is kept: how many, and when the last was, seconds since 1970.
const ATTEMPTS: &str = "program.login_attempts";
/// So many in a row are free.
const FREE: u32 = 3;
/// The waits after that; the last one stays.
const WAITS: [Duration; 5] = [
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(15 * 60),
    Duration::from_secs(3600),
    Duration::from_secs(6 * 3600),
];

/// Attempts in a row that were refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Attempts {
    /// How many.
    pub(super) count: u32,
    last: u64,
}

impl Attempts {
    /// Those of an account.
    pub(super) fn of(store: &Store) -> Result<Self, StoreError> {
        let text = store.meta(ATTEMPTS)?;
        Ok(text.and_then(|text| Self::parse(&text)).unwrap_or_default())
    }

    fn parse(text: &str) -> Option<Self> {
        let (count, last) = text.split_once(' ')?;
        Some(Self {
            count: count.parse().ok()?,
            last: last.parse().ok()?,
        })
    }

    /// How long the next one has to wait; none if it need not.
    pub(super) fn wait(self) -> Option<Duration> {
        self.wait_at(now())
    }

    fn wait_at(self, now: u64) -> Option<Duration> {
        let over = self.count.checked_sub(FREE)?;
        let index = usize::try_from(over).unwrap_or(usize::MAX);
        let wait = WAITS.get(index).or(WAITS.last())?;
        // A clock that was set back must not make it longer.
        let since = Duration::from_secs(now.checked_sub(self.last)?);
        wait.checked_sub(since).filter(|left| !left.is_zero())
    }

    /// One more is about to be made.
    pub(super) fn begin(store: &Store) -> Result<(), StoreError> {
        let count = Self::of(store)?.count.saturating_add(1);
        let text = format!("{count} {}", now());
        store.write(|tx| tx.meta_set(ATTEMPTS, &text))?;
        // It counts also when the power goes.
        store.sync().map(drop)
    }

    /// It was not refused: Mega could not be asked, or nobody answered our question.
    pub(super) fn take_back(store: &Store) -> Result<(), StoreError> {
        let Self { count, last } = Self::of(store)?;
        let text = format!("{} {last}", count.saturating_sub(1));
        store.write(|tx| tx.meta_set(ATTEMPTS, &text))
    }

    /// One was successful.
    pub(super) fn forget(store: &Store) -> Result<(), StoreError> {
        store.write(|tx| tx.meta_set(ATTEMPTS, ""))
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits_grow() {
        let wait = |count, now| {
            let attempts = Attempts { count, last: 1000 };
            attempts.wait_at(now).map(|wait| wait.as_secs())
        };
        assert_eq!(wait(0, 1000), None);
        assert_eq!(wait(2, 1000), None);
        assert_eq!(wait(3, 1000), Some(60));
        assert_eq!(wait(3, 1059), Some(1));
        assert_eq!(wait(3, 1060), None);
        assert_eq!(wait(4, 1000), Some(300));
        assert_eq!(wait(6, 1000), Some(3600));
        assert_eq!(wait(400, 1000), Some(6 * 3600));
        assert_eq!(wait(400, 10), None, "the clock was set back");
    }

    #[test]
    fn nonsense_counts_as_none() {
        assert_eq!(
            Attempts::parse("3 17"),
            Some(Attempts { count: 3, last: 17 })
        );
        for bad in ["", "3", "x 1", "1 x"] {
            assert_eq!(Attempts::parse(bad), None);
        }
    }
}
