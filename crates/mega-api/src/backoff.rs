//! How long to wait before the next try: a pure policy, no clock inside (`protocol/01` section 7).

use std::time::Duration;

/// The first delay.
const BASE: Duration = Duration::from_millis(250);
/// No delay is longer, jitter aside.
const CAP: Duration = Duration::from_secs(60);

/// Doubling delays: 0.25 s, 0.5 s ... 60 s, each with up to 25 % more or less so that many clients that
/// failed together do not come back together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Notes a failure; answers how long to wait now. `random` is uniform over all of `u32`.
    pub(crate) fn fail_with(&mut self, random: u32) -> Duration {
        let doubled =
            BASE.saturating_mul(1_u32.checked_shl(self.failures.min(16)).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        let nominal = doubled.min(CAP);
        // 750 to 1250 thousandths.
        nominal.saturating_mul(750 + random % 501) / 1000
    }

    /// Notes a failure; answers how long to wait now.
    pub(crate) fn fail(&mut self) -> Duration {
        self.fail_with(getrandom::u32().unwrap_or(u32::MAX / 2))
    }

    /// Notes a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How many failures there were since the last success.
    pub(crate) fn failures(self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_from_a_quarter_second_to_a_minute() {
        let mut backoff = Backoff::default();
        // 250 is the middle of the jitter.
        let delays: Vec<u128> = (0..12)
            .map(|_| backoff.fail_with(250).as_millis())
            .collect();
        assert_eq!(
            delays,
            [
                250, 500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000, 60000, 60000
            ]
        );
        backoff.reset();
        assert_eq!(backoff.fail_with(250).as_millis(), 250);
    }

    #[test]
    fn jitter_is_a_quarter_at_most() {
        for random in [0, 1, 250, 499, 500, u32::MAX] {
            let delay = Backoff::default().fail_with(random);
            assert!(delay >= BASE * 3 / 4 && delay <= BASE * 5 / 4, "{delay:?}");
        }
        let mut long = Backoff { failures: u32::MAX };
        assert!(long.fail_with(500) <= CAP * 5 / 4);
    }
}
