//! What transfers may use and how long they may take.

use std::time::Duration;

use crate::budget::MemoryBudget;

/// When the bytes of a file are checked against its meta-MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// Files up to 1 MiB before the first byte, larger ones once all their units are here.
    #[default]
    Background,
    /// Every file completely before its first byte is returned.
    BeforeRead,
    /// Never.
    Off,
}

/// Limits of all transfers. Clones share the memory budget; give one to both `Downloads` and `Uploads`.
#[derive(Debug, Clone)]
pub struct TransferLimits {
    /// Connections per file, at least 1.
    pub streams: usize,
    /// Bytes of buffers, shared by everything that was given a clone.
    pub memory: MemoryBudget,
    /// Deadline of one read; whole-file work fails after this long without any progress.
    pub timeout: Duration,
    /// When bytes are verified.
    pub verify: Verify,
    /// A connection that moves nothing for this long is replaced.
    pub stall: Duration,
    /// First delay before a failed request is repeated; doubles up to 60 times itself.
    pub backoff: Duration,
    /// An upload that got nothing acknowledged for this long fails; its caller tries again later.
    pub patience: Duration,
}

/// How many times longer a connection may take where the bandwidth is limited to `rate`: one that waits for its share
/// does not crawl.
pub(crate) const fn patience_at(rate: Option<u64>) -> u32 {
    match rate {
        Some(_) => 20,
        None => 1,
    }
}

impl Default for TransferLimits {
    fn default() -> Self {
        Self {
            streams: 6,
            memory: MemoryBudget::new(256 << 20),
            timeout: Duration::from_secs(60),
            verify: Verify::default(),
            stall: Duration::from_secs(15),
            backoff: Duration::from_millis(250),
            patience: Duration::from_secs(300),
        }
    }
}

impl TransferLimits {
    /// The delay before retry number `failures` (from 1): doubling, capped.
    ///
    /// Without jitter: a transfer's requests start at times that already differ.
    pub(crate) fn delay(&self, failures: u32) -> Duration {
        let factor = 1u32 << failures.saturating_sub(1).min(6);
        self.backoff * factor.min(60)
    }

    /// The delay when the server named one: as long as it says, but no more than 20 times the back-off,
    /// so that one knob scales all waiting.
    pub(crate) fn patient_delay(&self, named: Duration, failures: u32) -> Duration {
        named.min(self.backoff * 20).max(self.delay(failures))
    }

    /// Connections per file.
    pub(crate) fn connections(&self) -> usize {
        self.streams.max(1)
    }
}
