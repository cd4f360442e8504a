//! Sets of byte positions as sorted, disjoint, non-adjacent half-open ranges.
//!
//! Used for a layer's extents. Everything is `O(log n)` plus the ranges touched. Empty ranges are
//! ignored on input and never stored.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of `u64` positions. See the module documentation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// Start to end; ends are above starts, neighbours never touch.
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            ranges: BTreeMap::new(),
        }
    }

    /// Whether nothing is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many separate ranges there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// The end of the last range, 0 for the empty set.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.ranges.last_key_value().map_or(0, |(_, end)| *end)
    }

    /// How many positions are in the set.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.iter().map(|range| range.end - range.start).sum()
    }

    /// Adds every position of `range`.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        if let Some((&before, &before_end)) = self.ranges.range(..=start).next_back()
            && before_end >= start
        {
            if before_end >= end {
                return;
            }
            start = before;
        }
        while let Some((&next, &next_end)) = self.ranges.range(start..=end).next() {
            end = end.max(next_end);
            self.ranges.remove(&next);
        }
        self.ranges.insert(start, end);
    }

    /// Removes every position of `range`.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        if let Some((&before, before_end)) = self.ranges.range_mut(..range.start).next_back()
            && *before_end > range.start
        {
            let old_end = std::mem::replace(before_end, range.start);
            debug_assert!(before < range.start);
            if old_end > range.end {
                self.ranges.insert(range.end, old_end);
                return;
            }
        }
        while let Some((&next, &next_end)) = self.ranges.range(range.clone()).next() {
            self.ranges.remove(&next);
            if next_end > range.end {
                self.ranges.insert(range.end, next_end);
            }
        }
    }

    /// Whether every position of `range` is in the set. An empty range is.
    #[must_use]
    pub fn contains(&self, range: Range<u64>) -> bool {
        range.is_empty()
            || self
                .ranges
                .range(..=range.start)
                .next_back()
                .is_some_and(|(_, &end)| end >= range.end)
    }

    /// Whether any position of `range` is in the set.
    #[must_use]
    pub fn intersects(&self, range: Range<u64>) -> bool {
        !range.is_empty()
            && self
                .ranges
                .range(..range.end)
                .next_back()
                .is_some_and(|(_, &end)| end > range.start)
    }

    /// The ranges in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Range<u64>> + '_ {
        self.ranges.iter().map(|(&start, &end)| start..end)
    }

    /// The parts of `range` that are in the set, in order.
    pub fn intersect(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first = self
            .ranges
            .range(..range.start)
            .next_back()
            .filter(|(_, end)| **end > range.start)
            .map(|(&start, &end)| start..end);
        let (from, to) = (range.start, range.end.max(range.start));
        first
            .into_iter()
            .chain(self.ranges.range(from..to).map(|(&start, &end)| start..end))
            .map(move |part| part.start.max(from)..part.end.min(to))
            .filter(|part| !part.is_empty())
    }

    /// The parts of `range` that are not in the set, in order.
    #[must_use]
    pub fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut at = range.start;
        let mut gaps = Vec::new();
        for part in self.intersect(range.clone()) {
            if part.start > at {
                gaps.push(at..part.start);
            }
            at = part.end;
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// The ranges as pairs of LEB128 numbers: gap since the last end, length.
    #[must_use]
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.ranges.len() * 4);
        let mut at = 0;
        for range in self.iter() {
            put_number(&mut out, range.start - at);
            put_number(&mut out, range.end - range.start);
            at = range.end;
        }
        out
    }

    /// The inverse of [`encode`](Self::encode); `None` if the bytes are not its output.
    #[must_use]
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut set = Self::new();
        let mut at = 0_u64;
        while !bytes.is_empty() {
            let start = at.checked_add(take_number(&mut bytes)?)?;
            let end = start.checked_add(take_number(&mut bytes)?)?;
            if start == end {
                return None;
            }
            set.insert(start..end);
            at = end;
        }
        Some(set)
    }
}

impl FromIterator<Range<u64>> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut set = Self::new();
        set.extend(ranges);
        set
    }
}

impl Extend<Range<u64>> for RangeSet {
    fn extend<I: IntoIterator<Item = Range<u64>>>(&mut self, ranges: I) {
        for range in ranges {
            self.insert(range);
        }
    }
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            return None;
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn positions(set: &RangeSet) -> Vec<bool> {
        (0..200).map(|at| set.contains(at..at + 1)).collect()
    }

    #[test]
    fn touching_ranges_become_one() {
        let mut set: RangeSet = [0..5, 10..15, 5..10].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), vec![0..15]);
        set.remove(3..4);
        assert_eq!(set.gaps(0..20), vec![3..4, 15..20]);
        assert_eq!((set.total(), set.end(), set.len()), (14, 15, 2));
    }

    /// The example of docs/STATE.md.
    #[test]
    fn the_documented_example() {
        let set: RangeSet = [0..10, 4096..9000].into_iter().collect();
        assert_eq!(set.encode(), [0, 0x0a, 0xf6, 0x1f, 0xa8, 0x26]);
    }

    #[test]
    fn bad_bytes_are_refused() {
        assert!(RangeSet::decode(&[1]).is_none());
        assert!(RangeSet::decode(&[1, 0]).is_none());
        assert!(RangeSet::decode(&[0xff; 20]).is_none());
        assert!(RangeSet::decode(&[]).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn behaves_like_a_vector_of_booleans(
            steps in prop::collection::vec((any::<bool>(), 0_u64..200, 0_u64..60), 1..60),
            probe in 0_u64..200, length in 0_u64..80,
        ) {
            let mut set = RangeSet::new();
            let mut model = vec![false; 200];
            for (add, start, length) in steps {
                let end = (start + length).min(200);
                if add { set.insert(start..end) } else { set.remove(start..end) }
                for at in start..end {
                    model[usize::try_from(at).unwrap()] = add;
                }
                prop_assert_eq!(positions(&set), model.clone());
            }
            let ranges: Vec<_> = set.iter().collect();
            for pair in ranges.windows(2) {
                prop_assert!(pair[0].end < pair[1].start);
            }
            let end = (probe + length).min(200);
            let window = &model[usize::try_from(probe).unwrap()..usize::try_from(end.max(probe)).unwrap()];
            prop_assert_eq!(set.contains(probe..end), window.iter().all(|present| *present));
            prop_assert_eq!(set.intersects(probe..end), window.iter().any(|present| *present));
            let inside: u64 = set.intersect(probe..end).map(|part| part.end - part.start).sum();
            let outside: u64 = set.gaps(probe..end).iter().map(|part| part.end - part.start).sum();
            prop_assert_eq!(inside, window.iter().filter(|present| **present).count() as u64);
            prop_assert_eq!(inside + outside, window.len() as u64);
            prop_assert_eq!(set.total(), model.iter().filter(|present| **present).count() as u64);
            prop_assert_eq!(RangeSet::decode(&set.encode()).unwrap(), set);
        }

        #[test]
        fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = RangeSet::decode(&bytes);
        }
    }
}
