//! Content that a power cut may have damaged.
//!
//! Once a second, and at every fsync, staged bytes are brought to stable storage and their row says so.
//! When the machine went down, rows that did not say so yet count on bytes that may be missing. Such
//! content is *set aside*: the change is parked, its bytes stay where they are, it is never pushed
//! over its base, and whoever opens it gets EIO instead of bytes that were never written. Removing the
//! file, or replacing it by another, ends that.

use mega_store::{ChangeRow, ChangeState, LayerData, LayerRow, Store, StoreError};
use serde_json::Value;

use crate::changes::{ASIDE, set_attribute};
use crate::shared::Shared;

const REASON: &str = "its last bytes were not on the local disk when the power went";

/// At a start: parks what is in doubt.
pub(crate) fn set_aside(store: &Store) -> Result<(), StoreError> {
    let doubtful = store.unsynced_after_power_loss()?;
    if doubtful.is_empty() {
        return Ok(());
    }
    for mut row in store.changes()? {
        if row.removed || !doubtful.contains(&row.subject) {
            continue;
        }
        tracing::error!(target: "megamount::journal", subject = ?row.subject, "a change is set aside: {REASON}");
        set_attribute(&mut row, ASIDE, Value::Bool(true));
        row.state = ChangeState::Parked {
            error: REASON.to_owned(),
        };
        store.write(|tx| tx.put_change(&row))?;
    }
    Ok(())
}

/// Whether a row's bytes may be damaged.
pub(crate) fn is_set_aside(row: &ChangeRow) -> bool {
    row.attributes
        .as_ref()
        .is_some_and(|attributes| attributes.contains_key(ASIDE))
}

impl Shared {
    /// Brings the staged bytes of every change to stable storage and notes it in their rows (I2). The
    /// caller makes the rows durable after.
    pub(crate) fn sync_staging(&self) {
        let is_file = |layer: &&LayerRow| matches!(layer.data, LayerData::File(_));
        let unsynced: Vec<_> = {
            let state = self.lock();
            let rows = state
                .changes
                .iter()
                .filter(|row| !row.removed && !is_set_aside(row));
            rows.filter_map(|row| Some((row.subject, row.content.as_ref()?)))
                .filter(|(_, content)| !content.synced)
                .map(|(subject, content)| {
                    let files: Vec<_> = content.layers.iter().filter(is_file).cloned().collect();
                    (subject, content.generation, files)
                })
                .filter(|(_, _, files)| !files.is_empty())
                .collect()
        };
        let mut synced = Vec::new();
        for (subject, generation, files) in unsynced {
            let done = files
                .iter()
                .try_for_each(|layer| self.store.open_layer(layer)?.sync_data());
            match done {
                Ok(()) => synced.push((subject, generation)),
                // Uploaded or removed meanwhile; a failed fsync has poisoned the store and said so.
                Err(error) => tracing::debug!(%error, ?subject, "staging not synced"),
            }
        }
        if synced.is_empty() {
            return;
        }
        let mut state = self.lock();
        let noted = self.store.write(|tx| {
            synced
                .iter()
                .try_for_each(|(subject, generation)| tx.mark_synced(*subject, *generation))
        });
        match noted {
            Ok(()) => {
                for (subject, generation) in synced {
                    state.changes.mark_synced(subject, generation);
                }
            }
            Err(error) => tracing::error!(%error, "rows could not be marked as synced"),
        }
    }
}
