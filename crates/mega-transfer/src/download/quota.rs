//! The transfer quota's gate: after a 509 nobody asks for bytes until the time the server named.
//!
//! One per process, because the quota belongs to the account or the address (protocol/04 section 2).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::error::TransferError;

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct QuotaGate {
    // Innermost lock: nothing else is taken while it is held.
    until: Mutex<Option<Instant>>,
}

impl QuotaGate {
    /// Fails with [`TransferError::OverQuota`] while the gate is shut.
    pub(crate) fn check(&self) -> Result<(), TransferError> {
        let mut until = self.lock();
        match *until {
            Some(at) if Instant::now() < at => Err(TransferError::OverQuota { until: at }),
            _ => {
                *until = None;
                Ok(())
            }
        }
    }

    /// When it opens, while it is shut.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.lock().filter(|at| Instant::now() < *at)
    }

    /// Shuts the gate until `at`; a later end that is already known stays.
    pub(crate) fn shut(&self, at: Instant) {
        let mut until = self.lock();
        if until.is_none_or(|known| known < at) {
            tracing::warn!(
                seconds = at.saturating_duration_since(Instant::now()).as_secs(),
                "transfer quota exhausted: uncached bytes cannot be read"
            );
            *until = Some(at);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn opens_by_itself() {
        let gate = QuotaGate::default();
        assert!(gate.check().is_ok());
        gate.shut(Instant::now() + Duration::from_secs(60));
        gate.shut(Instant::now());
        assert!(matches!(gate.check(), Err(TransferError::OverQuota { .. })));
        let past = QuotaGate::default();
        past.shut(Instant::now());
        assert!(past.check().is_ok());
    }
}
