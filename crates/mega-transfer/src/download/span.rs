//! Arithmetic between byte ranges and units.

use std::ops::Range;

use mega_store::UNIT;

/// The units that a byte range touches.
pub(crate) fn units_of(range: &Range<u64>) -> Range<u64> {
    if range.is_empty() {
        return 0..0;
    }
    range.start / UNIT..range.end.div_ceil(UNIT)
}

/// Bytes of a unit of a file of `size` bytes.
pub(crate) fn unit_len(unit: u64, size: u64) -> usize {
    usize::try_from(size.saturating_sub(unit * UNIT).min(UNIT)).unwrap_or(0)
}

pub(crate) fn range_len(range: &Range<u64>) -> usize {
    usize::try_from(range.end - range.start).unwrap_or(usize::MAX)
}

/// The part of `range` inside `unit`, as positions relative to the range's start.
pub(crate) fn overlap(range: &Range<u64>, unit: u64) -> (usize, usize) {
    let from = range.start.max(unit * UNIT) - range.start;
    let to = range.end.min((unit + 1) * UNIT) - range.start;
    (
        usize::try_from(from).unwrap_or(usize::MAX),
        usize::try_from(to).unwrap_or(usize::MAX),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_unit_is_cut() {
        assert_eq!(unit_len(0, 5), 5);
        assert_eq!(unit_len(1, UNIT + 7), 7);
        assert_eq!(unit_len(2, UNIT + 7), 0);
    }

    #[test]
    fn overlaps_are_relative_to_the_range() {
        let range = UNIT - 10..2 * UNIT + 5;
        assert_eq!(units_of(&range), 0..3);
        assert_eq!(overlap(&range, 0), (0, 10));
        assert_eq!(overlap(&range, 1), (10, 10 + UNIT as usize));
        assert_eq!(overlap(&range, 2), (10 + UNIT as usize, 15 + UNIT as usize));
        assert_eq!(units_of(&(7..7)), 0..0);
    }
}
