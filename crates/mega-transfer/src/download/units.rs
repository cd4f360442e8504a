//! Which units of a file are on their way or in memory.
//!
//! Owns the single-flight rule: a unit is asked of the server by at most one flight at a time. A unit
//! is absent from the table (on disk, in the pool, or nowhere), `Coming` with a flight, or `Here` until
//! it was stored and nobody waits for it any more. Pure state: no I/O, no waiting.
//!
//! ```text
//!           launch               arrived               stored, no reader waits
//!  absent ---------> Coming(f) ----------> Here(data) -------------------------> absent
//!     ^                 |  steal: from here on the flight f ends earlier
//!     +-----------------+  land: the flight ended without this unit
//! ```

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::cursor::Ahead;
use super::flight::Flight;

/// A unit needed at once is not left to a flight that has more than this many units to do first.
const NEAR: u64 = 8;
/// Units read ahead that are remembered: four of the largest windows.
const AHEAD_MOST: usize = 2048;

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct UnitTable {
    units: HashMap<u64, Unit>,
    waiting: HashMap<u64, usize>,
    /// Flights of read-ahead that have not landed.
    pub(crate) background: usize,
    /// What the last reader would like to have next.
    pub(crate) intent: Option<Ahead>,
    last_flight: u64,
    /// How far the last reader wanted to read ahead, in bytes.
    pub(crate) last_window: u64,
    /// Units read ahead that nobody has read yet; they may have been thrown out since.
    ahead: HashSet<u64>,
}

#[derive(Debug)]
enum Unit {
    Coming(Arc<Flight>),
    Here { data: Bytes, stored: bool },
}

/// Where a unit is.
#[derive(Debug)]
pub(crate) enum Place {
    /// Neither in memory nor on its way.
    Absent,
    /// This flight will bring it.
    Coming(Arc<Flight>),
    /// In memory.
    Here,
}

impl UnitTable {
    /// The bytes of a unit that is in memory.
    pub(crate) fn data(&self, unit: u64) -> Option<Bytes> {
        match self.units.get(&unit) {
            Some(Unit::Here { data, .. }) => Some(data.clone()),
            _ => None,
        }
    }

    /// Where a unit is.
    pub(crate) fn place(&self, unit: u64) -> Place {
        match self.units.get(&unit) {
            None => Place::Absent,
            Some(Unit::Coming(flight)) => Place::Coming(Arc::clone(flight)),
            Some(Unit::Here { .. }) => Place::Here,
        }
    }

    /// Registers a flight for `units`, all of which must be absent.
    pub(crate) fn launch(&mut self, units: Range<u64>, kind: FlightKind) -> Arc<Flight> {
        self.last_flight += 1;
        if matches!(kind, FlightKind::Ahead(_)) {
            self.background += 1;
        }
        let flight = Arc::new(Flight::new(self.last_flight, units.clone(), kind));
        for unit in units {
            self.units.insert(unit, Unit::Coming(Arc::clone(&flight)));
        }
        flight
    }

    /// Takes `unit` and what follows it away from a flight that would bring it late.
    /// True when the units are absent now.
    pub(crate) fn steal(&mut self, unit: u64, flight: &Arc<Flight>) -> bool {
        let far = unit.saturating_sub(flight.position()) > NEAR;
        let queued = flight.is_ahead() && !flight.has_started();
        if !(far || queued) {
            return false;
        }
        let end = flight.cut(unit);
        for taken in unit..end {
            self.remove_coming(taken, flight.id);
        }
        true
    }

    /// A flight brought a unit. False when the flight no longer owns it.
    pub(crate) fn arrived(&mut self, flight: &Flight, unit: u64, data: &Bytes) -> bool {
        let owned = matches!(self.units.get(&unit), Some(Unit::Coming(f)) if f.id == flight.id);
        if owned {
            let here = Unit::Here {
                data: data.clone(),
                stored: false,
            };
            self.units.insert(unit, here);
            if flight.is_ahead() {
                if self.ahead.len() >= AHEAD_MOST {
                    self.ahead.clear();
                }
                self.ahead.insert(unit);
            }
        }
        owned
    }

    /// A reader has these units. False when nothing that was read ahead is left unread.
    pub(crate) fn consumed(&mut self, units: Range<u64>) -> bool {
        for unit in units {
            self.ahead.remove(&unit);
        }
        !self.ahead.is_empty()
    }

    /// Whether an absent unit had been read ahead and was thrown out before anybody read it. Then what
    /// is still being read ahead would only throw out more: it ends with the units under way.
    pub(crate) fn was_lost(&mut self, unit: u64) -> bool {
        if !self.ahead.remove(&unit) {
            return false;
        }
        self.intent = None;
        self.ahead.clear();
        for unit in self.units.values() {
            if let Unit::Coming(flight) = unit
                && flight.is_ahead()
            {
                flight.cut(flight.position() + 1);
            }
        }
        self.units.retain(|unit, state| match state {
            Unit::Coming(flight) => flight.units().contains(unit),
            Unit::Here { .. } => true,
        });
        true
    }

    /// The unit is on disk or in the pool now (or was declined by both).
    pub(crate) fn stored(&mut self, unit: u64) {
        if self.waiting.contains_key(&unit) {
            if let Some(Unit::Here { stored, .. }) = self.units.get_mut(&unit) {
                *stored = true;
            }
        } else if matches!(self.units.get(&unit), Some(Unit::Here { .. })) {
            self.units.remove(&unit);
        }
    }

    /// The flight ended; what it did not bring is absent again.
    pub(crate) fn land(&mut self, flight: &Flight) {
        for unit in flight.units() {
            self.remove_coming(unit, flight.id);
        }
        if flight.is_ahead() {
            self.background = self.background.saturating_sub(1);
        }
    }

    /// A reader waits for these units: keep them in memory until it has them.
    pub(crate) fn want(&mut self, units: Range<u64>) {
        for unit in units {
            *self.waiting.entry(unit).or_default() += 1;
        }
    }

    /// The reader has them, or gave up.
    pub(crate) fn unwant(&mut self, units: Range<u64>) {
        for unit in units {
            let Some(count) = self.waiting.get_mut(&unit) else {
                continue;
            };
            *count -= 1;
            if *count == 0 {
                self.waiting.remove(&unit);
                if matches!(self.units.get(&unit), Some(Unit::Here { stored: true, .. })) {
                    self.units.remove(&unit);
                }
            }
        }
    }

    /// Whether every unit that arrived was stored.
    pub(crate) fn is_settled(&self) -> bool {
        !self
            .units
            .values()
            .any(|unit| matches!(unit, Unit::Here { stored: false, .. }))
    }

    /// Ends every flight where it is: what has not arrived is absent.
    pub(crate) fn ground(&mut self) {
        self.intent = None;
        self.units.retain(|_, unit| match unit {
            Unit::Coming(flight) => {
                flight.cut(0);
                false
            }
            Unit::Here { .. } => true,
        });
    }

    /// Grounds every flight and forgets what is in memory.
    pub(crate) fn clear(&mut self) {
        self.ground();
        self.units.clear();
        self.ahead.clear();
    }

    fn remove_coming(&mut self, unit: u64, flight: u64) {
        if matches!(self.units.get(&unit), Some(Unit::Coming(f)) if f.id == flight) {
            self.units.remove(&unit);
        }
    }
}

/// Why a flight was launched.
#[derive(Debug, Clone)]
pub(crate) enum FlightKind {
    /// A reader waits for it.
    Demand,
    /// Nobody waits yet; ends when the token is cancelled.
    Ahead(tokio_util::sync::CancellationToken),
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_util::sync::CancellationToken;

    #[test]
    fn a_unit_stays_in_memory_until_stored_and_read() {
        let mut table = UnitTable::default();
        let flight = table.launch(0..2, FlightKind::Demand);
        table.want(0..1);
        assert!(table.arrived(&flight, 0, &Bytes::from_static(b"x")));
        table.stored(0);
        assert!(table.data(0).is_some());
        table.unwant(0..1);
        assert!(matches!(table.place(0), Place::Absent));
        table.land(&flight);
        assert!(matches!(table.place(1), Place::Absent));
    }

    #[test]
    fn a_needed_unit_is_taken_from_a_late_flight_only() {
        let mut table = UnitTable::default();
        let flight = table.launch(0..64, FlightKind::Ahead(CancellationToken::new()));
        flight.start();
        assert!(!table.steal(8, &flight));
        assert!(table.steal(40, &flight));
        assert_eq!(flight.units(), 0..40);
        assert!(matches!(table.place(50), Place::Absent));
        assert!(!table.arrived(&flight, 40, &Bytes::from_static(b"x")));
        assert_eq!(table.background, 1);
        table.land(&flight);
        assert_eq!(table.background, 0);
    }

    #[test]
    fn a_queued_read_ahead_gives_way() {
        let mut table = UnitTable::default();
        let flight = table.launch(0..4, FlightKind::Ahead(CancellationToken::new()));
        assert!(table.steal(0, &flight));
        assert!(flight.units().is_empty());
    }
}
