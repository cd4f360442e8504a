//! Opening: lock, directories, format, recovery.

use std::path::Path;
use std::sync::{Arc, Mutex};

use super::{StatePaths, Store, StoreOptions};
use crate::cache::{self, BlobCache};
use crate::change_rows;
use crate::db::Db;
use crate::durable;
use crate::error::StoreError;
use crate::loader::Touched;
use crate::lock::{DirLock, LockHolder};
use crate::staging::{StagingDir, id_of};
use crate::truth;
use crate::vault::Vault;

/// What changes with every start of the machine. Unreadable counts as always changed: then nothing
/// unsynced is believed.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

pub(super) fn open(
    paths: &StatePaths,
    holder: &LockHolder,
    options: &StoreOptions,
    boot_id: &str,
) -> Result<Store, StoreError> {
    let state = &paths.state_dir;
    durable::private_dir(state)?;
    let mut locks = vec![DirLock::take(&state.join("lock"), holder)?];
    let staging = state.join("staging");
    let lost = state.join("lost+found");
    durable::private_dir(&staging)?;
    durable::private_dir(&lost)?;
    let db = Arc::new(Db::open(state)?);
    if options.cache_on {
        durable::private_dir(&paths.cache_dir)?;
        // Two states must not share a cache either.
        locks.push(DirLock::take(&paths.cache_dir.join("cache.lock"), holder)?);
    }
    recover(
        &db,
        &staging,
        &lost,
        options.cache_on.then_some(paths.cache_dir.as_path()),
        boot_id,
    )?;
    let cache_options = cache::CacheOptions {
        limit: options.cache_size,
        min_free: options.cache_min_free.0,
        on: options.cache_on,
    };
    let cache = BlobCache::new(&paths.cache_dir, Arc::clone(&db), cache_options)?;
    let vault = Arc::new(Vault::default());
    let staging = StagingDir::new(staging, Arc::clone(&db), Arc::clone(&vault), cache.clone());
    Ok(Store {
        paths: paths.clone(),
        session_place: options.session,
        db,
        vault,
        cache,
        staging: Arc::new(staging),
        touched: Arc::new(Touched::default()),
        local_ids: Mutex::new(0..0),
        _locks: locks,
    })
}

/// Everything that needs no keys. It can be repeated after a crash at any point.
fn recover(
    db: &Db,
    staging: &Path,
    lost: &Path,
    cache: Option<&Path>,
    boot_id: &str,
) -> Result<(), StoreError> {
    db.write(|db| {
        if truth::meta::<Vec<u8>>(db, truth::META_SALT)?.is_none() {
            let mut salt = [0_u8; 16];
            getrandom::fill(&mut salt)?;
            truth::set_meta(db, truth::META_SALT, salt.as_slice())?;
        }
        let former: Option<String> = truth::meta(db, truth::META_BOOT)?;
        let was_restarted = boot_id.is_empty() || former.as_deref() != Some(boot_id);
        if was_restarted && former.is_some() {
            let doubtful = change_rows::doubt_unsynced(db)?;
            if doubtful > 0 {
                tracing::warn!(
                    target: "megamount::journal",
                    doubtful, "the machine went down before these changes were on stable storage"
                );
            }
        }
        if let Some(cache) = cache {
            if was_restarted {
                cache::after_power_loss(db, cache)?;
            }
            cache::after_crash(db, cache)?;
        }
        truth::set_meta(db, truth::META_BOOT, boot_id)
    })?;
    let used = db.read(change_rows::staging_in_use)?;
    let fail = |source| StoreError::io(staging, source);
    for entry in std::fs::read_dir(staging).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name();
        let id = name.to_str().and_then(id_of);
        if id.is_some_and(|id| used.contains(&id)) {
            continue;
        }
        // Only a header, or less: no user byte was in it.
        let length = entry.metadata().map_err(fail)?.len();
        if length <= crate::xts::STAGING_UNIT as u64 {
            durable::remove_if_there(&entry.path())?;
            continue;
        }
        tracing::warn!(
            target: "megamount::journal",
            file = ?name, length, "staged bytes that no change counts on, moved to lost+found"
        );
        std::fs::rename(entry.path(), lost.join(&name)).map_err(fail)?;
    }
    Ok(())
}
