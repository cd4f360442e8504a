//! Fail stop (I8): after a failed fsync or commit nobody knows what the disk has. Reads go on,
//! writes are refused until a restart has looked at what is really there.

use std::sync::OnceLock;

use crate::error::StoreError;

/// The first failure, if there was one.
#[derive(Debug, Default)]
pub(crate) struct Poison {
    reason: OnceLock<String>,
}

impl Poison {
    /// Refuses once poisoned.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match self.reason.get() {
            None => Ok(()),
            Some(reason) => Err(StoreError::Poisoned {
                reason: reason.clone(),
            }),
        }
    }

    /// Why, if poisoned.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    /// Poisons the store; the first reason stays.
    pub(crate) fn set(&self, what: &str, cause: &dyn std::fmt::Display) -> StoreError {
        let reason = self.reason.get_or_init(|| {
            tracing::error!(
                target: "megamount::journal",
                what, %cause,
                "local storage failed; writing stops. Unmount, check the disk, mount again"
            );
            format!("{what}: {cause}")
        });
        StoreError::Poisoned {
            reason: reason.clone(),
        }
    }
}
