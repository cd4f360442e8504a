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

    /// One more is about to be made; those before it, for [`Attempts::take_back`].
    pub(super) fn begin(store: &Store) -> Result<Self, StoreError> {
        let before = Self::of(store)?;
        let more = Self {
            count: before.count.saturating_add(1),
            last: now(),
        };
        more.write(store)?;
        // It counts also when the power goes.
        store.sync()?;
        Ok(before)
    }

    /// The last one was not refused: Mega could not be asked, or nobody answered our question. What was before
    /// it is again in force, and since when.
    pub(super) fn take_back(self, store: &Store) -> Result<(), StoreError> {
        self.write(store)
    }

    fn write(self, store: &Store) -> Result<(), StoreError> {
        let text = format!("{} {}", self.count, self.last);
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
    fn one_that_was_not_refused_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let paths = mega_store::StatePaths {
            state_dir: dir.path().join("state"),
            cache_dir: dir.path().join("cache"),
        };
        let holder = mega_store::LockHolder {
            pid: std::process::id(),
            mountpoint: std::path::PathBuf::new(),
        };
        let options = mega_store::StoreOptions {
            cache_size: 0,
            cache_min_free: mega_store::Percent(0),
            cache_on: false,
            ..mega_store::StoreOptions::default()
        };
        let store = Store::open(&paths, &holder, options).unwrap();
        let long_ago = Attempts {
            count: 4,
            last: 1000,
        };
        long_ago.write(&store).unwrap();
        assert_eq!(long_ago.wait(), None);
        let before = Attempts::begin(&store).unwrap();
        assert_eq!(Attempts::of(&store).unwrap().count, 5);
        before.take_back(&store).unwrap();
        assert_eq!(Attempts::of(&store).unwrap(), long_ago);
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
