//! How far programs have read into files before they let go of them.
//!
//! Owns the last few fronts: where the sequential reading from the start of a file ended, if the handle was
//! closed with most of the file unread. When a row of files was treated like that (`file`, `ffprobe`, a media
//! server that scans a library), the next one is not read ahead beyond that place before a reader comes there.
//! A handle that read on ends it. Pure bookkeeping.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// So many files in a row are a habit.
const STREAK: usize = 3;
/// Whoever read more than this did not just look.
const LONGEST: u64 = 16 << 20;

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Habit {
    // Innermost lock: nothing else is taken while it is held.
    fronts: Mutex<VecDeque<u64>>,
}

impl Habit {
    /// A handle of a file of `size` bytes is closed: it read `front` bytes from the start without a gap, and
    /// `total` bytes in all.
    pub(crate) fn note(&self, front: u64, total: u64, size: u64) {
        if front == 0 {
            return;
        }
        let mut fronts = self.fronts.lock().unwrap_or_else(PoisonError::into_inner);
        if total > size / 2 || front > LONGEST {
            fronts.clear();
            return;
        }
        if fronts.len() >= STREAK {
            fronts.pop_front();
        }
        fronts.push_back(front);
    }

    /// Where reading from the start is expected to end.
    pub(crate) fn length(&self) -> Option<u64> {
        let fronts = self.fronts.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = fronts.iter().copied().max();
        longest.filter(|_| fronts.len() >= STREAK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_files_make_a_habit_and_one_ends_it() {
        let habit = Habit::default();
        for front in [5, 7, 6] {
            assert_eq!(habit.length(), None);
            habit.note(front, 2 * front, 1000);
            habit.note(0, 900, 1000);
        }
        assert_eq!(habit.length(), Some(7));
        habit.note(900, 900, 1000);
        assert_eq!(habit.length(), None);
    }
}
