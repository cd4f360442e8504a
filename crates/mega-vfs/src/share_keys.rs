//! The keys of shares: what the store has of them as served, made usable.
//!
//! Owns which keys the decryptor holds. Everything on disk stays encrypted as it came. A key that comes
//! later than its nodes makes them readable: loaded directories are built anew and the kernel is told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mega_api::ApiError;
use mega_crypto::{AccountKeys, MasterKey, ShareKey, verify_share_handle_auth};
use mega_proto::reply::PendingKey;
use mega_proto::{NodeHandle, UserHandle, b64};
use mega_store::{ShareKind, ShareRow, Store, StoreError, Subject};
use mega_tree::Decryptor;

use crate::shared::Shared;
use crate::state::{Invalidation, State};
use crate::types::OpResult;

/// The attribute of an account with its share keys, and that with another user's public curve key.
const KEYS: &str = "^!keys";
const PUBLIC_CURVE: &str = "+puCu255";
/// Where the first is kept, as served (encrypted under the master key).
const META_KEYS: &str = "vfs.share_keys";
/// Keys that others left for us, by folder, wrapped with the master key; JSON.
const META_PENDING: &str = "vfs.pending_share_keys";
/// Pause after keys could not be fetched, and the longest after several failures in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Longer share keys are encrypted with our RSA key (protocol/03 section 5).
const LONGEST_PLAIN: usize = 22;

/// What is known about shares.
pub(crate) struct Loaded {
    pub(crate) rows: Vec<ShareRow>,
    /// Shares whose keys were not known before.
    pub(crate) new: Vec<NodeHandle>,
    /// There are shares without a key: the server may have it elsewhere.
    pub(crate) is_lacking: bool,
}

/// Makes the share keys in the store usable, and forgets those that are no longer there. Where there are
/// several for one folder, that of `^!keys` counts, then that of a folder of ours, then what came with the
/// share, then what its sharer has left for us.
pub(crate) fn load(
    store: &Store,
    decryptor: &Decryptor,
    master: &MasterKey,
) -> Result<Loaded, StoreError> {
    let mut rows = store.shares()?;
    let mut keys: HashMap<NodeHandle, ShareKey> = HashMap::new();
    if let Some(account) = account_keys(store, master)? {
        // Where an account has these, official clients believe no others.
        let kept = account.shares();
        keys.extend(kept.map(|(handle, key)| (handle, key.clone())));
    }
    for share in rows.iter().filter(|row| row.kind == ShareKind::OwnKey) {
        if !keys.contains_key(&share.handle)
            && let Some(key) = own_key(share, master)
        {
            keys.insert(share.handle, key);
        }
    }
    let pending = pending_keys(store)?;
    let mut wrapped_again = Vec::new();
    for share in &mut rows {
        if share.kind != ShareKind::Incoming || keys.contains_key(&share.handle) {
            continue;
        }
        let mut key = decryptor.open_share_key(&share.key_as_served);
        if let Some(key) = &key
            && share.key_as_served.len() > LONGEST_PLAIN
        {
            // RSA takes long, and its key is not there without the server.
            share.key_as_served = b64::encode(&master.wrap_share_key(key));
            wrapped_again.push(share.clone());
        }
        if key.is_none() {
            let wrapped = pending.get(&share.handle.to_string());
            let wrapped = wrapped.and_then(|wrapped| b64::decode(wrapped).ok());
            key = wrapped.and_then(|wrapped| master.unwrap_share_key(&wrapped).ok());
        }
        if let Some(key) = key {
            keys.insert(share.handle, key);
        }
    }
    if !wrapped_again.is_empty() {
        store.write(|tx| {
            let mut shares = wrapped_again.iter();
            shares.try_for_each(|share| tx.put_share(share))
        })?;
    }
    let is_lacking = rows.iter().any(|share| {
        matches!(share.kind, ShareKind::OwnKey | ShareKind::Incoming)
            && !keys.contains_key(&share.handle)
    });
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
    Ok(Loaded {
        rows,
        new,
        is_lacking,
    })
}

/// The keys that others left for us, by folder, wrapped with the master key.
fn pending_keys(store: &Store) -> Result<HashMap<String, String>, StoreError> {
    let text = store.meta(META_PENDING)?;
    Ok(text
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default())
}

/// Whether a key was left by the user who shares the folder. Anybody can leave one for any folder.
fn is_from_sharer(rows: &[ShareRow], left: &PendingKey) -> bool {
    rows.iter().any(|row| {
        row.kind == ShareKind::Incoming && row.handle == left.share && row.user == Some(left.sender)
    })
}

/// The keys of `^!keys` as last seen.
fn account_keys(store: &Store, master: &MasterKey) -> Result<Option<AccountKeys>, StoreError> {
    let Some(text) = store.meta(META_KEYS)? else {
        return Ok(None);
    };
    let container = b64::decode(&text).unwrap_or_default();
    match AccountKeys::open(master, &container) {
        Ok(keys) => Ok(Some(keys)),
        Err(error) => {
            tracing::warn!(%error, "the account's share keys cannot be used");
            Ok(None)
        }
    }
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
    /// The task that gets share keys: whenever they are wanted, again and again until they are there.
    pub(crate) async fn follow_share_keys(self: Arc<Self>) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.get_wanted_keys() => {}
        }
    }

    async fn get_wanted_keys(&self) {
        loop {
            self.keys_wanted.notified().await;
            let mut pause = FIRST_PAUSE;
            while let Err(reason) = self.fetch_share_keys().await {
                tracing::warn!(reason, "share keys could not be fetched");
                self.monitor
                    .failed(format!("keys of shared folders are not known: {reason}"));
                tokio::select! {
                    () = self.keys_wanted.notified() => {}
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                }
                if pause == LONGEST_PAUSE {
                    // What is ours is not kept from Mega for want of keys that only others need.
                    let mut state = self.lock();
                    state.keys_to_ask.clear();
                    state.changes.unstall();
                }
            }
        }
    }

    /// Asks the server for the share keys that it keeps apart from the tree, and for what opens the others.
    /// Nothing is acknowledged or written there: what our account's other clients need stays. `Err` says why
    /// they are not known.
    async fn fetch_share_keys(&self) -> Result<(), String> {
        let fetched = self.fetch_stored_keys().await;
        fetched.map_err(|error| error.to_string())?;
        let told = {
            let mut state = self.lock();
            let told = self.reload_shares(&mut state);
            // Nobody has these.
            state.keys_to_ask.clear();
            // What waits for a key may go now.
            state.changes.unstall();
            told
        };
        self.wake.notify_one();
        self.notify(told.map_err(|errno| errno.to_string())?);
        Ok(())
    }

    async fn fetch_stored_keys(&self) -> Result<(), ApiError> {
        let master = self.master_key()?;
        let rows = self.store.shares().unwrap_or_default();
        let is_long = |row: &ShareRow| row.key_as_served.len() > LONGEST_PLAIN;
        if rows.iter().any(is_long) {
            // A session that was resumed while the server was away has no RSA key yet.
            let rsa = self.api.user_data().await?.rsa;
            self.decryptor.set_rsa(rsa);
        }
        let Some(kept) = self.api.user_attribute(KEYS).await? else {
            return Ok(());
        };
        let kept = kept.value;
        self.keep(META_KEYS, &kept);
        let account = account_keys(&self.store, &master).ok().flatten();
        let Some(account) = account else {
            return Ok(());
        };
        let mut curves: HashMap<UserHandle, Option<[u8; 32]>> = HashMap::new();
        let mut pending: HashMap<String, String> = HashMap::new();
        let left = self.api.pending_keys().await?;
        let rows = self.store.shares().unwrap_or_default();
        for left in left.iter().filter(|left| is_from_sharer(&rows, left)) {
            let curve = match curves.get(&left.sender) {
                Some(curve) => *curve,
                None => {
                    let found = self.api.attribute_of(left.sender, PUBLIC_CURVE).await?;
                    let curve = found
                        .and_then(|found| b64::decode(&found.value).ok())
                        .and_then(|bytes| bytes.try_into().ok());
                    curves.insert(left.sender, curve);
                    curve
                }
            };
            let wrapped = b64::decode(&left.key).unwrap_or_default();
            if let Some(curve) = curve
                && let Ok(key) = account.open_pending(&curve, &wrapped)
            {
                let wrapped = b64::encode(&master.wrap_share_key(&key));
                pending.insert(left.share.to_string(), wrapped);
            }
        }
        self.keep(
            META_PENDING,
            &serde_json::to_string(&pending).unwrap_or_default(),
        );
        Ok(())
    }

    fn keep(&self, name: &str, value: &str) {
        if let Err(error) = self.store.write(|tx| tx.meta_set(name, value)) {
            tracing::error!(%error, "share keys could not be stored");
        }
    }

    /// Learns anew who shares what, and with which keys.
    pub(crate) fn reload_shares(&self, state: &mut State) -> OpResult<Vec<Invalidation>> {
        let Ok(master) = self.master_key() else {
            return Ok(Vec::new());
        };
        // Prepared with the keys of before.
        state.ahead.forget();
        let loaded = load(&self.store, &self.decryptor, &master)
            .map_err(|error| crate::errno::store_errno(&error))?;
        state.take_shares(&loaded.rows);
        state.lacks_share_keys = loaded.is_lacking;
        Ok(state.build_anew(&loaded.new))
    }
}

impl State {
    /// Nodes below these folders can be read now, which could not: their directories get other names.
    fn build_anew(&mut self, folders: &[NodeHandle]) -> Vec<Invalidation> {
        let mut told = Vec::new();
        if folders.is_empty() {
            return told;
        }
        let loaded: Vec<Subject> = self.dirs.iter().map(|(subject, _)| *subject).collect();
        for directory in loaded {
            let is_below = |folder: &NodeHandle| {
                let is_within = self.is_within(directory, Subject::Node(*folder));
                is_within.unwrap_or(true)
            };
            if !folders.iter().any(is_below) {
                continue;
            }
            let names: Vec<String> = self
                .dirs
                .peek(&directory)
                .into_iter()
                .flat_map(|dir| dir.after(0).map(|entry| entry.spelling.to_string()))
                .collect();
            self.forget_dir(directory);
            // One that cannot be built now, or is removed, is when it is asked for.
            let new: Vec<String> = self
                .dir(directory)
                .into_iter()
                .flat_map(|dir| dir.after(0).map(|entry| entry.spelling.to_string()))
                .collect();
            for name in names.into_iter().chain(new) {
                self.tell_entry(&mut told, directory, name);
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use mega_crypto::{KeyRing, share_handle_auth};
    use mega_store::{LockHolder, StatePaths, StoreOptions};

    use super::*;

    const MINE: u64 = 1;
    const SENT: u64 = 2;
    const LEFT: u64 = 3;
    const STRAY: u64 = 4;

    fn incoming(handle: u64, sk: &str) -> ShareRow {
        let handle = NodeHandle::from_u48(handle);
        let mut row = ShareRow::new(handle, ShareKind::Incoming, sk);
        row.user = Some(UserHandle([7; 8]));
        row
    }

    #[test]
    fn of_several_keys_the_one_that_is_harder_to_forge_counts() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths {
            state_dir: dir.path().join("state"),
            cache_dir: dir.path().join("cache"),
        };
        let holder = LockHolder {
            pid: 1,
            mountpoint: "/mnt".into(),
        };
        let store = Store::open(&paths, &holder, StoreOptions::default()).unwrap();
        let master = MasterKey::from_bytes([1; 16]);
        let wrapped = |byte| b64::encode(&master.wrap_share_key(&ShareKey::from_bytes([byte; 16])));
        let text = |handle| NodeHandle::from_u48(handle).to_string();
        let mine = NodeHandle::from_u48(MINE);
        let mut own = ShareRow::new(mine, ShareKind::OwnKey, wrapped(10));
        let proof = share_handle_auth(&master, &mine.to_string()).unwrap();
        own.extra = Some(b64::encode(&proof));
        let pending: HashMap<String, String> = [(MINE, 30), (SENT, 31), (LEFT, 32), (STRAY, 33)]
            .map(|(handle, byte)| (text(handle), wrapped(byte)))
            .into();
        store
            .write(|tx| {
                tx.put_share(&own)?;
                tx.put_share(&incoming(MINE, &wrapped(20)))?;
                tx.put_share(&incoming(SENT, &wrapped(21)))?;
                tx.put_share(&incoming(LEFT, ""))?;
                tx.meta_set(META_PENDING, &serde_json::to_string(&pending).unwrap())
            })
            .unwrap();
        let decryptor = Decryptor::new(KeyRing::new(master.clone(), None, None));
        load(&store, &decryptor, &master).unwrap();
        let found = [MINE, SENT, LEFT, STRAY].map(|handle| {
            let key = decryptor.share(NodeHandle::from_u48(handle));
            key.map(|key| b64::encode(&master.wrap_share_key(&key)))
        });
        let expected = [Some(10), Some(21), Some(32), None].map(|byte| byte.map(wrapped));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_key_that_somebody_else_left_is_not_the_sharers() {
        let left = |share, sender| PendingKey {
            sender: UserHandle([sender; 8]),
            share: NodeHandle::from_u48(share),
            key: String::new(),
        };
        let rows = [incoming(LEFT, "")];
        assert!(is_from_sharer(&rows, &left(LEFT, 7)));
        assert!(!is_from_sharer(&rows, &left(LEFT, 8)));
        assert!(!is_from_sharer(&rows, &left(STRAY, 7)));
    }
}
