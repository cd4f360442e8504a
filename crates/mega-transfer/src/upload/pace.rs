//! How large the next piece should be, and how long it may take.
//!
//! Pure policy: about one second of what a connection moves, so that a retry repeats little and a fast
//! line pays few round trips; smaller towards the end, so that all connections finish together.

use std::time::Duration;

/// Piece sizes before anything is known, and the limits of what is learnt, in bytes.
const SMALLEST: u64 = 1 << 20;
/// Eight full chunks: what the MAC code interleaves; larger pieces gain nothing.
const LARGEST: u64 = 8 << 20;
/// A connection this many times slower than usual is replaced.
const CRAWL: u32 = 8;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Pace {
    target: u64,
    largest: u64,
    streams: u64,
    /// Bytes per second of one connection, smoothed; 0 before the first answer.
    rate: u64,
}

impl Pace {
    /// For `streams` connections whose pieces must fit into `memory` bytes together.
    pub(super) fn new(streams: usize, memory: u64) -> Self {
        let streams = streams.max(1) as u64;
        let largest = LARGEST.min(memory / streams).max(SMALLEST);
        Self {
            target: SMALLEST,
            largest,
            streams,
            rate: 0,
        }
    }

    /// A piece of `bytes` was acknowledged `after` it was sent.
    pub(super) fn learn(&mut self, bytes: u64, after: Duration) {
        let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1);
        let per_second = bytes.saturating_mul(1000) / millis;
        self.rate = if self.rate == 0 {
            per_second
        } else {
            self.rate - self.rate / 4 + per_second / 4
        };
        // Grow at most twofold, so that one lucky answer does not decide.
        self.target = per_second
            .min(self.target * 2)
            .clamp(SMALLEST, self.largest);
    }

    /// The target for the next piece when `remaining` bytes are still to be sent.
    pub(super) fn target(&self, remaining: u64) -> u64 {
        self.target.min((remaining / self.streams).max(SMALLEST))
    }

    /// What all connections send in about four seconds: how far ahead pieces are fixed.
    pub(super) fn stride(&self) -> u64 {
        4 * self.streams * self.target
    }

    /// How long the answer to a piece may take before its connection is replaced: `stall`, or more where
    /// such pieces usually take long; `unknown` while that is not known.
    pub(super) fn allowance(&self, bytes: u64, stall: Duration, unknown: Duration) -> Duration {
        match bytes.saturating_mul(1000).checked_div(self.rate) {
            Some(millis) => stall.max(Duration::from_millis(millis) * CRAWL),
            None => unknown.max(stall),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_line() {
        let mut pace = Pace::new(4, 128 << 20);
        assert_eq!(pace.target(1 << 40), 1 << 20);
        for _ in 0..5 {
            pace.learn(1 << 20, Duration::from_millis(5));
        }
        assert_eq!(pace.target(1 << 40), 8 << 20);
        assert_eq!(pace.target(8 << 20), 2 << 20);
        pace.learn(1 << 20, Duration::from_secs(60));
        assert_eq!(pace.target(1 << 40), 1 << 20);
    }

    #[test]
    fn a_slow_line_is_no_crawling_connection() {
        let (stall, unknown) = (Duration::from_secs(15), Duration::from_secs(60));
        let mut pace = Pace::new(4, 128 << 20);
        assert_eq!(pace.allowance(1 << 20, stall, unknown), unknown);
        // 20 KB/s: a piece takes 52 seconds.
        pace.learn(1 << 20, Duration::from_secs(52));
        assert_eq!(pace.allowance(1 << 20, stall, unknown).as_secs(), 416);
        // At 10 MB/s, one that takes 15 seconds is stuck.
        let mut pace = Pace::new(4, 128 << 20);
        pace.learn(8 << 20, Duration::from_millis(800));
        assert_eq!(pace.allowance(8 << 20, stall, unknown), stall);
    }
}
