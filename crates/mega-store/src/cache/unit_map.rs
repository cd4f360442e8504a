//! Which units of a blob are present: one bit each, without a lock.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::range_set::RangeSet;

const BITS: u64 = 64;

/// A bitmap over unit numbers below `units`.
#[derive(Debug)]
pub(super) struct UnitMap {
    words: Box<[AtomicU64]>,
    units: u64,
    present: AtomicU64,
}

impl UnitMap {
    pub(super) fn new(units: u64, present: &RangeSet) -> Self {
        let words = (0..units.div_ceil(BITS))
            .map(|_| AtomicU64::new(0))
            .collect();
        let map = Self {
            words,
            units,
            present: AtomicU64::new(0),
        };
        for unit in present.intersect(0..units).flatten() {
            map.set(unit);
        }
        map
    }

    fn word(&self, unit: u64) -> Option<(&AtomicU64, u64)> {
        let word = self.words.get(usize::try_from(unit / BITS).ok()?)?;
        (unit < self.units).then_some((word, 1 << (unit % BITS)))
    }

    pub(super) fn contains(&self, unit: u64) -> bool {
        self.word(unit)
            .is_some_and(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }

    pub(super) fn contains_all(&self, mut units: Range<u64>) -> bool {
        units.all(|unit| self.contains(unit))
    }

    /// Sets a bit; whether it was clear.
    pub(super) fn set(&self, unit: u64) -> bool {
        let is_new = self
            .word(unit)
            .is_some_and(|(word, bit)| word.fetch_or(bit, Ordering::AcqRel) & bit == 0);
        if is_new {
            self.present.fetch_add(1, Ordering::AcqRel);
        }
        is_new
    }

    /// Clears a bit; whether it was set.
    pub(super) fn clear(&self, unit: u64) -> bool {
        let was_set = self
            .word(unit)
            .is_some_and(|(word, bit)| word.fetch_and(!bit, Ordering::AcqRel) & bit != 0);
        if was_set {
            self.present.fetch_sub(1, Ordering::AcqRel);
        }
        was_set
    }

    pub(super) fn is_empty(&self) -> bool {
        self.present.load(Ordering::Acquire) == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.present.load(Ordering::Acquire) == self.units
    }

    pub(super) const fn units(&self) -> u64 {
        self.units
    }

    /// The bits of now. A bit that is set meanwhile may be missing, none is invented.
    pub(super) fn snapshot(&self) -> RangeSet {
        let mut ranges = RangeSet::new();
        let mut open: Option<u64> = None;
        for (base, word) in (0..).step_by(64).zip(&self.words) {
            let word = word.load(Ordering::Acquire);
            // Whole words are the common case: files are complete or read in order.
            if word == u64::MAX {
                open.get_or_insert(base);
                continue;
            }
            if word == 0 {
                if let Some(start) = open.take() {
                    ranges.insert(start..base);
                }
                continue;
            }
            for bit in 0..BITS {
                match (word >> bit & 1 == 1, open) {
                    (true, None) => open = Some(base + bit),
                    (false, Some(start)) => {
                        ranges.insert(start..base + bit);
                        open = None;
                    }
                    _ => {}
                }
            }
        }
        if let Some(start) = open {
            ranges.insert(start..self.units);
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_snapshot_is_what_was_set(
            units in 1_u64..300,
            steps in prop::collection::vec((any::<bool>(), 0_u64..300, 0_u64..150), 0..12),
        ) {
            let map = UnitMap::new(units, &RangeSet::new());
            let mut model = RangeSet::new();
            for (add, start, length) in steps {
                let range = start.min(units)..(start + length).min(units);
                for unit in range.clone() {
                    if add { map.set(unit); } else { map.clear(unit); }
                }
                if add { model.insert(range) } else { model.remove(range) }
            }
            prop_assert_eq!(&map.snapshot(), &model);
            prop_assert_eq!(map.is_empty(), model.is_empty());
            prop_assert_eq!(map.is_full(), model.contains(0..units));
            let copy = UnitMap::new(units, &model);
            prop_assert_eq!(copy.snapshot(), model);
        }
    }

    #[test]
    fn numbers_outside_are_never_present() {
        let map = UnitMap::new(3, &RangeSet::new());
        assert!(!map.set(3) && !map.contains(3) && !map.set(u64::MAX));
        assert!(map.contains_all(5..5) && !map.contains_all(2..4));
        assert!(UnitMap::new(0, &RangeSet::new()).is_full());
    }
}
