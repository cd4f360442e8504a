//! Recognises sequential reading and says how far to read ahead.
//!
//! A [`ReadCursor`] belongs to one open handle. It follows up to four interleaved sequential streams
//! ("tracks"). A track reads ahead twice the bytes it has read without a gap, so the window doubles
//! while reading is sequential, is nothing for a header probe, and starts from nothing after a seek.
//! A track that stays behind while others are read is cold: what it has under way is cancelled.
//! Pure bookkeeping: it starts nothing itself.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Interleaved streams followed per handle.
const TRACKS: usize = 4;
/// The kernel sends the parts of its own read-ahead out of order, at most this far apart.
const SLACK: u64 = 512 << 10;
/// A run shorter than this is a header probe.
const PROBE: u64 = 128 << 10;
/// A track untouched for this many reads of its handle is cold.
const COLD_AFTER: u64 = 8;

/// What one open handle has read so far; see the module's description.
#[derive(Debug, Default)]
pub struct ReadCursor {
    // Innermost lock: nothing else is taken while it is held.
    tracks: Mutex<Tracks>,
}

#[derive(Debug, Default)]
struct Tracks {
    clock: u64,
    open: Vec<Track>,
}

#[derive(Debug)]
struct Track {
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
            next: from,
            run: 4 << 20,
            used: 0,
            cancel: CancellationToken::new(),
        };
        Self {
            tracks: Mutex::new(Tracks {
                clock: 0,
                open: vec![track],
            }),
        }
    }

    /// Notes a read and says what to fetch beyond it, at most `most` bytes.
    pub(crate) fn note(&self, read: &Range<u64>, most: u64) -> Option<Ahead> {
        let mut tracks = self.lock();
        tracks.clock += 1;
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
            let cancel = CancellationToken::new();
            let run = read.end - read.start;
            tracks.open.push(Track {
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
        if track.run < PROBE {
            return None;
        }
        let window = track.run.saturating_mul(2).min(most);
        let range = track.next..track.next.saturating_add(window);
        Some(Ahead {
            range,
            window,
            cancel: track.cancel.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Tracks> {
        self.tracks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ReadCursor {
    fn drop(&mut self) {
        for track in &self.lock().open {
            track.cancel.cancel();
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
        assert_eq!(windows[1], 512 * KIB);
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
    fn interleaved_streams_are_each_sequential() {
        let cursor = ReadCursor::new();
        for i in 0..20 {
            for stream in 0..3u64 {
                ahead(&cursor, (stream << 30) + i * 128 * KIB, 128 * KIB);
            }
        }
        assert!(ahead(&cursor, (2 << 30) + 20 * 128 * KIB, 128 * KIB) > 4 << 20);
    }

    #[test]
    fn dropping_the_cursor_cancels() {
        let cursor = ReadCursor::streaming(0);
        let ahead = cursor.note(&(0..4096), MOST).unwrap();
        drop(cursor);
        assert!(ahead.cancel.is_cancelled());
    }
}
