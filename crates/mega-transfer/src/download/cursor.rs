//! Recognises sequential reading and says how far to read ahead.
//!
//! A [`ReadCursor`] belongs to one open handle. It follows up to four interleaved sequential streams
//! ("tracks"). A track reads ahead as many bytes as it has read without a gap, and twice as many once that is
//! much; so the window grows while reading is sequential, is nothing for a header probe, and starts from
//! nothing after a seek. Where programs only look at the beginning of one file after the other
//! ([`Habit`]), nothing is read ahead beyond where they stop.
//! A read elsewhere stops what the tracks have under way, so that it has the line for itself; a track that is
//! read again goes on with the window it had. One that stays behind while others are read is forgotten.
//! Pure bookkeeping: it starts nothing itself.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::habit::Habit;

/// Interleaved streams followed per handle.
const TRACKS: usize = 4;
/// The kernel sends the parts of its own read-ahead out of order, at most this far apart.
const SLACK: u64 = 512 << 10;
/// A run shorter than this is a header probe.
const PROBE: u64 = 128 << 10;
/// Whoever has read this much goes on: `file` is satisfied by 7 MiB.
const LONG: u64 = 8 << 20;
/// A track untouched for this many reads of its handle is cold.
const COLD_AFTER: u64 = 8;

/// What one open handle has read so far; see the module's description.
#[derive(Debug, Default)]
pub struct ReadCursor {
    // Nothing but the habit's lock is taken while it is held.
    tracks: Mutex<Tracks>,
}

#[derive(Debug, Default)]
struct Tracks {
    clock: u64,
    open: Vec<Track>,
    /// How far the file was read from its start without a gap, and how much of it in all.
    front: u64,
    total: u64,
    /// Who is told about that at the end, and the file's size.
    habit: Option<(Arc<Habit>, u64)>,
}

#[derive(Debug)]
struct Track {
    start: u64,
    next: u64,
    run: u64,
    used: u64,
    cancel: CancellationToken,
}

/// The wish to have more than what was asked.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// The bytes wanted soon.
    pub(crate) range: Range<u64>,
    /// How many bytes that were at first.
    pub(crate) window: u64,
    /// Cancelled when nobody wants them any more.
    pub(crate) cancel: CancellationToken,
}

impl ReadCursor {
    /// A cursor of a handle that has read nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A cursor for reading `from` onwards to the end: reads ahead from the first request on.
    #[must_use]
    pub fn streaming(from: u64) -> Self {
        let track = Track {
            // Not a look at the beginning, wherever it ends.
            start: u64::MAX,
            next: from,
            run: 4 << 20,
            used: 0,
            cancel: CancellationToken::new(),
        };
        Self {
            tracks: Mutex::new(Tracks {
                open: vec![track],
                ..Tracks::default()
            }),
        }
    }

    /// The handle reads a file of this many bytes; `habit` is told how.
    pub(crate) fn watch(&self, habit: &Arc<Habit>, size: u64) {
        let mut tracks = self.lock();
        if tracks.habit.is_none() {
            tracks.habit = Some((Arc::clone(habit), size));
        }
    }

    /// Notes a read and says what to fetch beyond it, at most `most` bytes.
    pub(crate) fn note(&self, read: &Range<u64>, most: u64) -> Option<Ahead> {
        let mut tracks = self.lock();
        tracks.clock += 1;
        tracks.total += read.end - read.start;
        let habit = tracks.habit.as_ref().and_then(|(habit, _)| habit.length());
        let clock = tracks.clock;
        for cold in tracks
            .open
            .iter()
            .filter(|track| clock - track.used > COLD_AFTER)
        {
            cold.cancel.cancel();
        }
        tracks
            .open
            .retain(|track| clock - track.used <= COLD_AFTER || track.used == 0);
        let nearest = tracks
            .open
            .iter_mut()
            .filter(|track| track.next.abs_diff(read.start) <= SLACK)
            .min_by_key(|track| track.next.abs_diff(read.start));
        let Some(track) = nearest else {
            if tracks.open.len() >= TRACKS {
                let oldest = (0..tracks.open.len())
                    .min_by_key(|at| tracks.open.get(*at).map_or(u64::MAX, |track| track.used));
                if let Some(at) = oldest {
                    tracks.open.swap_remove(at).cancel.cancel();
                }
            }
            for track in &mut tracks.open {
                std::mem::take(&mut track.cancel).cancel();
            }
            let cancel = CancellationToken::new();
            let run = read.end - read.start;
            if read.start == 0 {
                tracks.front = tracks.front.max(read.end);
            }
            tracks.open.push(Track {
                start: read.start,
                next: read.end,
                run,
                used: clock,
                cancel,
            });
            return None;
        };
        track.used = clock;
        if read.end > track.next {
            track.run = track
                .run
                .saturating_add(read.end - track.next.max(read.start));
            track.next = read.end;
        }
        let front = track.next;
        let is_front = track.start == 0;
        let ahead = track.ahead(most, habit.filter(|_| is_front));
        if is_front {
            tracks.front = tracks.front.max(front);
        }
        ahead
    }

    fn lock(&self) -> MutexGuard<'_, Tracks> {
        self.tracks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Track {
    /// What to fetch beyond it: nothing from where such files are let go of, as long as it is not there.
    fn ahead(&self, most: u64, habit: Option<u64>) -> Option<Ahead> {
        if self.run < PROBE {
            return None;
        }
        let factor = if self.run < LONG { 1 } else { 2 };
        let window = self.run.saturating_mul(factor).min(most);
        let end = self.next.saturating_add(window);
        let end = match habit {
            Some(stop) if self.next <= stop => end.min(stop),
            _ => end,
        };
        (end > self.next).then(|| Ahead {
            range: self.next..end,
            window,
            cancel: self.cancel.clone(),
        })
    }
}

impl Drop for ReadCursor {
    fn drop(&mut self) {
        let tracks = self.lock();
        for track in &tracks.open {
            track.cancel.cancel();
        }
        if let Some((habit, size)) = &tracks.habit {
            habit.note(tracks.front, tracks.total, *size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const MOST: u64 = 64 << 20;

    fn ahead(cursor: &ReadCursor, start: u64, len: u64) -> u64 {
        cursor
            .note(&(start..start + len), MOST)
            .map_or(0, |a| a.range.end - a.range.start)
    }

    #[test]
    fn a_header_probe_reads_nothing_ahead() {
        let cursor = ReadCursor::new();
        assert_eq!(ahead(&cursor, 0, 4 * KIB), 0);
        assert_eq!(ahead(&cursor, 4 * KIB, 60 * KIB), 0);
    }

    #[test]
    fn the_window_grows_while_sequential_and_is_capped() {
        let cursor = ReadCursor::new();
        let windows: Vec<u64> = (0..600)
            .map(|i| ahead(&cursor, i * 128 * KIB, 128 * KIB))
            .collect();
        assert_eq!(windows[1], 256 * KIB);
        assert!(windows.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(*windows.last().unwrap(), MOST);
    }

    #[test]
    fn out_of_order_kernel_read_ahead_counts_as_sequential() {
        let cursor = ReadCursor::new();
        for start in [0, 256, 128, 384, 512] {
            ahead(&cursor, start * KIB, 128 * KIB);
        }
        assert!(ahead(&cursor, 640 * KIB, 128 * KIB) > 512 * KIB);
    }

    #[test]
    fn what_is_always_let_go_of_at_one_place_is_not_read_ahead_beyond_it() {
        let habit = Arc::<Habit>::default();
        let look = |bytes: u64| {
            let cursor = ReadCursor::new();
            cursor.watch(&habit, 1 << 30);
            let reads = (0..bytes).step_by(128 << 10);
            let ends = reads.filter_map(|at| cursor.note(&(at..at + 128 * KIB), MOST));
            ends.map(|ahead| ahead.range.end).max().unwrap_or(0)
        };
        let most = 7 << 20;
        for _ in 0..3 {
            assert!(look(most) > most + (6 << 20));
        }
        assert_eq!(look(most), most);
        assert!(look(2 * most) > 3 * most, "who reads on is read ahead for");
    }

    #[test]
    fn a_seek_starts_over_and_cools_the_old_place() {
        let cursor = ReadCursor::new();
        ahead(&cursor, 0, 1 << 20);
        let old = cursor.note(&(1 << 20..2 << 20), MOST).unwrap();
        for i in 0..10 {
            assert!(ahead(&cursor, (1 << 30) + i * 4 * KIB, 4 * KIB) == 0);
        }
        assert!(old.cancel.is_cancelled());
    }

    #[test]
    fn a_seek_has_the_line_for_itself() {
        let cursor = ReadCursor::new();
        ahead(&cursor, 0, 1 << 20);
        let old = cursor.note(&(1 << 20..2 << 20), MOST).unwrap();
        ahead(&cursor, 1 << 30, 4 * KIB);
        assert!(old.cancel.is_cancelled());
        // It was only a look: the old place goes on as it was.
        let again = cursor.note(&(2 << 20..3 << 20), MOST).unwrap();
        assert!(!again.cancel.is_cancelled() && again.window > old.window);
        // Streams that are known do not stop each other.
        ahead(&cursor, (1 << 30) + 4 * KIB, 4 * KIB);
        assert!(!again.cancel.is_cancelled());
    }

    #[test]
    fn interleaved_streams_are_each_sequential() {
        let cursor = ReadCursor::new();
        for i in 0..20 {
            for stream in 0..3u64 {
                ahead(&cursor, (stream << 30) + i * 128 * KIB, 128 * KIB);
            }
        }
        assert!(ahead(&cursor, (2 << 30) + 20 * 128 * KIB, 128 * KIB) > 2 << 20);
    }

    #[test]
    fn dropping_the_cursor_cancels() {
        let cursor = ReadCursor::streaming(0);
        let ahead = cursor.note(&(0..4096), MOST).unwrap();
        drop(cursor);
        assert!(ahead.cancel.is_cancelled());
    }
}
