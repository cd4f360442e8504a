//! The keys of shares: what the store has of them as served, made usable.
//!
//! Owns which keys the decryptor holds. Everything on disk stays encrypted as it came. A key that comes
//! later than its nodes makes them readable: loaded directories are built anew and the kernel is told.

use std::collections::HashMap;

use mega_crypto::{MasterKey, ShareKey, verify_share_handle_auth};
use mega_proto::{NodeHandle, b64};
use mega_store::{ShareKind, ShareRow, Store, StoreError, Subject};
use mega_tree::Decryptor;

use crate::shared::Shared;
use crate::state::{Invalidation, State};
use crate::types::OpResult;

/// What is known about shares.
pub(crate) struct Loaded {
    pub(crate) rows: Vec<ShareRow>,
    /// Shares whose keys were not known before.
    pub(crate) new: Vec<NodeHandle>,
}

/// Makes the share keys in the store usable, and forgets those that are no longer there.
pub(crate) fn load(
    store: &Store,
    decryptor: &Decryptor,
    master: &MasterKey,
) -> Result<Loaded, StoreError> {
    let rows = store.shares()?;
    let mut keys: HashMap<NodeHandle, ShareKey> = HashMap::new();
    for share in &rows {
        let key = match share.kind {
            ShareKind::OwnKey => own_key(share, master),
            ShareKind::Incoming => decryptor.open_share_key(&share.key_as_served),
            ShareKind::Outgoing | ShareKind::Link | ShareKind::Contact => None,
        };
        if let Some(key) = key {
            keys.insert(share.handle, key);
        }
    }
    let before = decryptor.share_handles();
    for gone in before.iter().filter(|handle| !keys.contains_key(handle)) {
        decryptor.remove_share(*gone);
    }
    let mut new = Vec::new();
    for (handle, key) in keys {
        if !before.contains(&handle) {
            new.push(handle);
        }
        decryptor.add_share(handle, key);
    }
    Ok(Loaded { rows, new })
}

/// The key of a folder of ours. Modern accounts send zeros for key and proof and keep the key elsewhere
/// (protocol/03 section 6).
fn own_key(share: &ShareRow, master: &MasterKey) -> Option<ShareKey> {
    let proof = share.extra.as_deref().and_then(|ha| b64::decode(ha).ok());
    let is_proved =
        proof.is_some_and(|ha| verify_share_handle_auth(master, &share.handle.to_string(), &ha));
    if !is_proved {
        tracing::debug!(folder = %share.handle, "share key without a valid proof is not used");
        return None;
    }
    let key = b64::decode(&share.key_as_served).ok()?;
    master.unwrap_share_key(&key).ok()
}

impl Shared {
    /// Asks the server for the share keys that it keeps.
    pub(crate) async fn fetch_share_keys(&self) {}

    /// Learns anew who shares what, and with which keys.
    pub(crate) fn reload_shares(&self, state: &mut State) -> OpResult<Vec<Invalidation>> {
        let Ok(master) = self.master_key() else {
            return Ok(Vec::new());
        };
        let loaded = load(&self.store, &self.decryptor, &master)
            .map_err(|error| crate::errno::store_errno(&error))?;
        state.take_shares(&loaded.rows);
        state.build_anew(&loaded.new)
    }
}

impl State {
    /// Nodes below these folders can be read now, which could not: their directories get other names.
    fn build_anew(&mut self, folders: &[NodeHandle]) -> OpResult<Vec<Invalidation>> {
        let mut told = Vec::new();
        if folders.is_empty() {
            return Ok(told);
        }
        let loaded: Vec<Subject> = self.dirs.iter().map(|(subject, _)| *subject).collect();
        for directory in loaded {
            let mut is_below = false;
            for folder in folders {
                is_below |= self.is_within(directory, Subject::Node(*folder))?;
            }
            if !is_below {
                continue;
            }
            let names: Vec<String> = self
                .dirs
                .peek(&directory)
                .into_iter()
                .flat_map(|dir| dir.after(0).map(|entry| entry.spelling.to_string()))
                .collect();
            self.forget_dir(directory);
            let new: Vec<String> = self
                .dir(directory)?
                .after(0)
                .map(|entry| entry.spelling.to_string())
                .collect();
            for name in names.into_iter().chain(new) {
                self.tell_entry(&mut told, directory, name);
            }
        }
        Ok(told)
    }
}
