//! What to fetch: units a reader waits for, and read-ahead.
//!
//! Both only register flights in the file's table and start their tasks; nothing here waits.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mega_store::UNIT;
use tokio_util::sync::CancellationToken;

use super::RemoteFile;
use crate::download::cursor::Ahead;
use crate::download::flight::{Flight, fly};
use crate::download::span::units_of;
use crate::download::units::{FlightKind, Place, UnitTable};
use crate::error::TransferError;

/// What it shrinks to when little holds what is read ahead.
const SMALLEST_WINDOW: u64 = 1 << 20;
/// Ranges of read-ahead requests: small ones answer sooner, large ones cost fewer round trips.
const RANGES: (u64, u64) = (256 << 10, 8 << 20);

/// Whether somebody looks for missing units for the first time. Only then are units taken from flights
/// that would bring them late; afterwards the late flights are one's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    First,
    Again,
}

impl RemoteFile {
    /// Launches what `range` lacks and collects the flights that will bring the rest of it. False when
    /// nothing is under way: then all of it is here, or was a moment ago.
    pub(super) fn launch_demanded(
        self: &Arc<Self>,
        range: &Range<u64>,
        watching: &mut Vec<Arc<Flight>>,
        arrival: Arrival,
    ) -> Result<bool, TransferError> {
        let mut is_pending = false;
        let mut table = self.table();
        // Under the lock: a unit leaves the table only once it is on disk, so none is missed.
        let runs = self.missing(range);
        let mut absent: Vec<Range<u64>> = Vec::new();
        for unit in runs.into_iter().flatten() {
            let free = match table.place(unit) {
                Place::Absent => self.shared.pool.get(self.handle, unit).is_none(),
                Place::Coming(flight) => {
                    let stolen = arrival == Arrival::First && table.steal(unit, &flight);
                    is_pending |= !stolen;
                    if !stolen && !watching.iter().any(|known| known.id == flight.id) {
                        watching.push(flight);
                    }
                    stolen
                }
                Place::Here => false,
            };
            if !free {
                continue;
            }
            self.note_loss(&mut table, unit);
            match absent.last_mut() {
                Some(run) if run.end == unit => run.end += 1,
                _ => absent.push(unit..unit + 1),
            }
        }
        if !absent.is_empty() {
            // Nothing is asked while the quota is known to be exhausted: fail at once.
            self.shared.quota.check()?;
        }
        let launched: Vec<_> = absent
            .into_iter()
            .map(|run| table.launch(run, FlightKind::Demand))
            .collect();
        drop(table);
        is_pending |= !launched.is_empty();
        for flight in launched {
            watching.push(Arc::clone(&flight));
            self.shared.runtime.spawn(fly(Arc::clone(self), flight));
        }
        Ok(is_pending)
    }

    /// Launches read-ahead within the file's connections.
    pub(super) fn launch_ahead(self: &Arc<Self>, mut ahead: Ahead) {
        if ahead.cancel.is_cancelled() || self.is_corrupt() || self.shared.quota.check().is_err() {
            return;
        }
        let range = ahead.range.start..ahead.range.end.min(self.size);
        if range.is_empty() || self.blob().is_some_and(|blob| blob.is_complete()) {
            return;
        }
        let streams = self.streams();
        let (least, most) = RANGES;
        let per_flight = (ahead.window / 8).clamp(least, most) / UNIT;
        let units = units_of(&range);
        let mut launched = Vec::new();
        let mut table = self.table();
        let mut next = units.start;
        let runs = self.missing(&range);
        if runs.first().is_some_and(|run| run.start == next) && self.is_absent(&table, next) {
            self.note_loss(&mut table, next);
        }
        'runs: for run in runs {
            let mut unit = run.start;
            while unit < run.end {
                next = unit;
                if table.background >= streams {
                    break 'runs;
                }
                if !self.is_absent(&table, unit) {
                    unit += 1;
                    continue;
                }
                let mut end = unit + 1;
                while end < run.end && end - unit < per_flight && self.is_absent(&table, end) {
                    end += 1;
                }
                // A short piece at the far edge grows while the reader comes nearer; do not pay a
                // round trip for it now. At the end of the file it will not grow.
                let far = unit * UNIT > range.start + ahead.window / 4;
                let grows = end == units.end && end * UNIT < self.size;
                if far && grows && end - unit < per_flight {
                    break 'runs;
                }
                launched.push(table.launch(unit..end, FlightKind::Ahead(ahead.cancel.clone())));
                unit = end;
                next = end;
            }
        }
        table.last_window = ahead.window;
        // When a flight lands the rest follows, never what was launched before: it may have been
        // thrown out again, and nobody has come for it.
        ahead.range.start = next * UNIT;
        table.intent = Some(ahead);
        drop(table);
        for flight in launched {
            self.shared.runtime.spawn(fly(Arc::clone(self), flight));
        }
    }

    /// Read-ahead for work that reads the file from `offset` to its end.
    pub(in crate::download) fn launch_onwards(
        self: &Arc<Self>,
        offset: u64,
        cancel: &CancellationToken,
    ) {
        let window = self.window();
        let range = offset..offset.saturating_add(window);
        self.launch_ahead(Ahead {
            range,
            window,
            cancel: cancel.clone(),
        });
    }

    /// If this absent unit had been read ahead, the window is larger than what holds it.
    fn note_loss(&self, table: &mut UnitTable, unit: u64) {
        if table.was_lost(unit) {
            let used = self.window.load(Ordering::Relaxed).min(table.last_window);
            self.window
                .store((used / 4).max(SMALLEST_WINDOW), Ordering::Relaxed);
        }
    }

    fn is_absent(&self, table: &UnitTable, unit: u64) -> bool {
        matches!(table.place(unit), Place::Absent)
            && self.shared.pool.get(self.handle, unit).is_none()
    }

    /// Runs of units of `range` that are not on disk. Looks at memory only.
    fn missing(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        match self.blob() {
            None => vec![units_of(range)],
            Some(blob) => blob.missing(range.clone()).iter().map(units_of).collect(),
        }
    }

    /// A reader has these bytes.
    pub(super) fn consumed(&self, range: &Range<u64>) {
        if self.has_ahead.load(Ordering::Relaxed) {
            let left = self.table().consumed(units_of(range));
            self.has_ahead.store(left, Ordering::Relaxed);
        }
    }
}
