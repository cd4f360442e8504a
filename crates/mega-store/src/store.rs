//! The store: opening, keys, and the way to everything else.
//!
//! Opening takes the lock (I9), prepares the directories, checks the format, and recovers what can be
//! recovered without keys: staging files no row counts on go to `lost+found`, cache files are cut
//! back to their maps, and if the machine was restarted meanwhile, what was never fsynced is marked
//! doubtful. [`Store::unlock`] then makes the encrypted parts usable.

mod open;

use std::collections::HashSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use mega_crypto::MasterKey;
use mega_proto::{NodeHandle, Seqno};

use crate::cache::BlobCache;
use crate::change_rows;
use crate::db::Db;
use crate::durable;
use crate::error::StoreError;
use crate::failpoints::{FailPoint, FailPoints};
use crate::loader::{Replaced, Touched, TreeLoader};
use crate::lock::{DirLock, LockHolder};
use crate::rows::{AttemptRow, ChangeRow, LayerRow, NodeRow, Roots, SavedSession, ShareRow};
use crate::session_file;
use crate::session_keyring;
use crate::staging::{StagingDir, StagingFile};
use crate::subject::{AttemptId, LocalId, Subject};
use crate::truth;
use crate::tx::Tx;
use crate::vault::{self, Vault};

/// Where a store lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatePaths {
    /// Database, staging, session, lock. Must survive.
    pub state_dir: PathBuf,
    /// Content cache. May be lost at any time between runs.
    pub cache_dir: PathBuf,
}

/// A share of something, 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u8);

/// Where the session of an account is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SessionPlace {
    /// In a file of the state directory, 0600.
    #[default]
    File,
    /// In the kernel's keyring of this user (keyrings(7)): on no disk, and gone when the machine is switched off.
    Keyring,
}

/// How a store is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Bound of the content cache in bytes.
    pub cache_size: u64,
    /// How much of the cache's file system stays free.
    pub cache_min_free: Percent,
    /// Off: nothing of the server's content reaches the disk.
    pub cache_on: bool,
    /// Where the session is kept.
    pub session: SessionPlace,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            cache_size: 10 << 30,
            cache_min_free: Percent(5),
            cache_on: true,
            session: SessionPlace::File,
        }
    }
}

/// Proof that everything committed before it was made is on stable storage.
#[derive(Debug)]
pub struct Persisted(());

/// Whether the local disk has room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// It has, as far as known.
    Ample,
    /// It was full and has not recovered: new user bytes are refused, the queue may go on.
    Low,
}

/// Local numbers taken at a time: a transaction for each file that is made would be a quarter of its cost.
const LOCAL_IDS: u32 = 64;

/// The state of one remote. Functions may be called from any thread and wait for the disk at most.
#[derive(Debug)]
pub struct Store {
    paths: StatePaths,
    session_place: SessionPlace,
    db: Arc<Db>,
    vault: Arc<Vault>,
    cache: BlobCache,
    staging: Arc<StagingDir>,
    touched: Arc<Touched>,
    /// Taken from the database and not given out yet.
    local_ids: Mutex<Range<u64>>,
    /// Last, so that it is released when everything else is closed.
    _locks: Vec<DirLock>,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.cache.close();
    }
}

impl Store {
    /// Opens or creates the state of a remote.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has it, [`StoreError::UnknownFormat`],
    /// [`StoreError::Io`], [`StoreError::Database`].
    pub fn open(
        paths: &StatePaths,
        holder: &LockHolder,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        open::open(paths, holder, &options, &open::boot_id())
    }

    /// As [`open`](Self::open), as if the machine's boot id were `boot_id`: for tests of power cuts.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_in_boot(
        paths: &StatePaths,
        holder: &LockHolder,
        options: StoreOptions,
        boot_id: &str,
    ) -> Result<Self, StoreError> {
        open::open(paths, holder, &options, boot_id)
    }

    /// Where the store lives.
    #[must_use]
    pub const fn paths(&self) -> &StatePaths {
        &self.paths
    }

    /// The saved session, if there is one. In the keyring it is used wherever it is to be kept: it comes onto the disk
    /// only with a new one. A file moves into the keyring when it is to be kept there.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] or [`StoreError::UnknownFormat`] for a session that cannot be used,
    /// [`StoreError::Keyring`].
    pub fn session(&self) -> Result<Option<SavedSession>, StoreError> {
        let in_file = session_file::load(&self.session_path())?;
        let in_keyring = || session_keyring::load(&self.paths.state_dir);
        match (self.session_place, in_file) {
            // A keyring that cannot be used has nothing for us.
            (SessionPlace::File, None) => Ok(in_keyring().ok().flatten()),
            (SessionPlace::File, found) => Ok(found),
            (SessionPlace::Keyring, None) => in_keyring(),
            // Of before the option was given, or of a login where the keyring could not be used.
            (SessionPlace::Keyring, Some(session)) => {
                self.save_session(&session)?;
                Ok(Some(session))
            }
        }
    }

    /// Saves a session; after a crash there is the old one or this one.
    ///
    /// # Errors
    /// If the file cannot be written, [`StoreError::Keyring`].
    pub fn save_session(&self, session: &SavedSession) -> Result<(), StoreError> {
        match self.session_place {
            SessionPlace::File => {
                session_file::save(&self.session_path(), session)?;
                self.clear_keyring()
            }
            SessionPlace::Keyring => {
                session_keyring::save(&self.paths.state_dir, session)?;
                durable::remove_if_there(&self.session_path())
            }
        }
    }

    /// Forgets the session, wherever it is.
    ///
    /// # Errors
    /// If the file cannot be removed, [`StoreError::Keyring`].
    pub fn clear_session(&self) -> Result<(), StoreError> {
        durable::remove_if_there(&self.session_path())?;
        self.clear_keyring()
    }

    /// Takes the session out of the keyring. One that cannot be used matters only to who wants to use it.
    fn clear_keyring(&self) -> Result<(), StoreError> {
        let cleared = session_keyring::clear(&self.paths.state_dir);
        match self.session_place {
            SessionPlace::File => Ok(()),
            SessionPlace::Keyring => cleared,
        }
    }

    /// Where the session is kept, in words: the path of the file, or what else it is.
    #[must_use]
    pub fn session_kept_in(&self) -> String {
        let path = self.session_path();
        let is_in_file = match self.session_place {
            SessionPlace::Keyring => false,
            SessionPlace::File => {
                let in_keyring = || session_keyring::load(&self.paths.state_dir);
                path.exists() || !matches!(in_keyring(), Ok(Some(_)))
            }
        };
        if is_in_file {
            path.display().to_string()
        } else {
            "the kernel's keyring".to_owned()
        }
    }

    fn session_path(&self) -> PathBuf {
        self.paths.state_dir.join("session")
    }

    /// Binds the directory to an account and a server at the first call; checks them at all others.
    ///
    /// # Errors
    /// [`StoreError::Pinned`] if it belongs to another one.
    pub fn pin(&self, user: &str, api_origin: &str) -> Result<(), StoreError> {
        let wanted = [
            ("user", truth::META_USER, user),
            ("API origin", truth::META_ORIGIN, api_origin),
        ];
        let stored = |name| self.db.read(|db| truth::meta::<String>(db, name));
        let mut is_new = false;
        for (what, name, asked) in wanted {
            match stored(name)? {
                Some(stored) if stored != asked => {
                    return Err(StoreError::Pinned {
                        what,
                        stored,
                        asked: asked.to_owned(),
                    });
                }
                Some(_) => {}
                None => is_new = true,
            }
        }
        if is_new {
            self.db.write(|db| {
                wanted
                    .iter()
                    .try_for_each(|(_, name, asked)| truth::set_meta(db, name, asked))
            })?;
            self.db.sync()?;
        }
        Ok(())
    }

    /// Derives the local keys from the account's master key. The first call ever decides which key
    /// that is.
    ///
    /// # Errors
    /// [`StoreError::WrongKey`] if the directory was made with another one.
    pub fn unlock(&self, master: &MasterKey) -> Result<(), StoreError> {
        let salt: Vec<u8> = self
            .db
            .read(|db| truth::meta(db, truth::META_SALT))?
            .ok_or(StoreError::Damaged {
                what: "the key salt",
            })?;
        let ours = vault::check_value(master, &salt);
        match self
            .db
            .read(|db| truth::meta::<Vec<u8>>(db, truth::META_CHECK))?
        {
            Some(stored) if stored != ours.as_bytes() => return Err(StoreError::WrongKey),
            Some(_) => {}
            None => {
                self.db
                    .write(|db| truth::set_meta(db, truth::META_CHECK, ours.as_bytes()))?;
                self.db.sync()?;
            }
        }
        self.vault.unlock(master, &salt)
    }

    /// The event position the truth is valid at; `None` before the first load.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn seqno(&self) -> Result<Option<Seqno>, StoreError> {
        let found: Option<String> = self.db.read(|db| truth::meta(db, truth::META_SEQNO))?;
        Ok(found.map(Seqno))
    }

    /// The account's roots; `None` before the first load.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn roots(&self) -> Result<Option<Roots>, StoreError> {
        self.db.read(truth::roots)
    }

    /// A node of the truth.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn node(&self, handle: NodeHandle) -> Result<Option<NodeRow>, StoreError> {
        self.db.read(|db| truth::node(db, handle))
    }

    /// The nodes below a node (for a file: its older versions), ordered by arrival, `ts`, handle.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn children(&self, handle: NodeHandle) -> Result<Vec<NodeRow>, StoreError> {
        self.db.read(|db| truth::children(db, Some(handle)))
    }

    /// A number that changes with every transaction; `None` while one is under way. What was read after it was
    /// asked for is still so as long as it is the same.
    #[must_use]
    pub fn version(&self) -> Option<u64> {
        self.db.version()
    }

    /// Hands over the nodes below a node one by one, in no particular order. `take` must not use the store.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn each_child(
        &self,
        handle: NodeHandle,
        take: impl FnMut(NodeRow),
    ) -> Result<(), StoreError> {
        self.db.read(|db| truth::each_child(db, handle, take))
    }

    /// Whether anything is below a node.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn has_children(&self, handle: NodeHandle) -> Result<bool, StoreError> {
        self.db.read(|db| truth::has_children(db, handle))
    }

    /// The files in a folder that have older versions. One query however many there are.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn files_with_versions(
        &self,
        folder: NodeHandle,
    ) -> Result<HashSet<NodeHandle>, StoreError> {
        self.db.read(|db| truth::files_with_versions(db, folder))
    }

    /// All share rows.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn shares(&self) -> Result<Vec<ShareRow>, StoreError> {
        self.db.read(truth::shares)
    }

    /// Nodes with one of these wrapped keys in their key as served (`OWNER:KEY/OWNER:KEY...`). Reads the
    /// whole table once: for recovery only.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn find_by_keys(&self, wanted: &HashSet<&str>) -> Result<Vec<NodeRow>, StoreError> {
        self.db.read(|db| truth::find_by_keys(db, wanted))
    }

    /// Files of this size anywhere in the account, old versions and the rubbish bin too: at most `limit`,
    /// and none if `size` is not above [`SMALLEST_BY_SIZE`](crate::SMALLEST_BY_SIZE). Reads as many rows as
    /// it gives. May lack some after an older program has used the state.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn files_of_size(&self, size: u64, limit: u32) -> Result<Vec<NodeRow>, StoreError> {
        self.db.read(|db| truth::files_of_size(db, size, limit))
    }

    /// The highest `arrival` given so far: what comes after this has a higher one.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn last_arrival(&self) -> Result<u64, StoreError> {
        let last: Option<i64> = self.db.read(|db| truth::meta(db, truth::META_ARRIVAL))?;
        Ok(last.unwrap_or(0).cast_unsigned())
    }

    /// A value the caller has set with [`Tx::meta_set`].
    ///
    /// # Errors
    /// [`StoreError::ReservedName`], or if the database cannot be read.
    pub fn meta(&self, name: &str) -> Result<Option<String>, StoreError> {
        truth::check_name(name)?;
        self.db.read(|db| truth::meta(db, name))
    }

    /// Begins to load a whole tree beside the present one.
    ///
    /// # Errors
    /// [`StoreError::LoadInProgress`], or if the database cannot be written.
    pub fn begin_load(&self) -> Result<TreeLoader, StoreError> {
        TreeLoader::begin(Arc::clone(&self.db), Arc::clone(&self.touched))
    }

    /// The truth before a load that an earlier run did not come to compare with the present one.
    ///
    /// # Errors
    /// [`StoreError::LoadInProgress`], or if the database cannot be read.
    pub fn left_over(&self) -> Result<Option<Replaced>, StoreError> {
        Replaced::left_over(&self.db, &self.touched)
    }

    /// Runs `f` in one transaction over truth and changes. It is committed when `f` returns `Ok`, and
    /// then survives `kill -9`; otherwise nothing happened. Nobody waits for the disk to sync. `f`
    /// must not use the store other than through its argument, nor staging files, nor the cache.
    ///
    /// # Errors
    /// What `f` returned; [`StoreError::DiskFull`]; [`StoreError::Poisoned`] after a commit failed.
    pub fn write<T>(
        &self,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.db.failpoints.reach(FailPoint::BeforeCommit);
        let done = self
            .db
            .write(|db| f(&mut Tx::new(db, &self.vault, &self.touched)))?;
        self.db.failpoints.reach(FailPoint::Committed);
        Ok(done)
    }

    /// A number for something made here, never given out again.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn next_local_id(&self) -> Result<LocalId, StoreError> {
        let mut free = self
            .local_ids
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = free.next() {
            return Ok(LocalId(id));
        }
        let first = self.write(|tx| tx.reserve_local_ids(LOCAL_IDS))?;
        *free = first + 1..first + u64::from(LOCAL_IDS);
        Ok(LocalId(first))
    }

    /// A number for an attempt, never given out again.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn next_attempt_id(&self) -> Result<AttemptId, StoreError> {
        self.write(|tx| tx.next_attempt_id())
    }

    /// All change rows, with their layers.
    ///
    /// # Errors
    /// [`StoreError::LockedKeys`], [`StoreError::Damaged`], or if the database cannot be read.
    pub fn changes(&self) -> Result<Vec<ChangeRow>, StoreError> {
        self.db
            .read_snapshot(|db| change_rows::changes(db, &self.vault))
    }

    /// One change row, with its layers.
    ///
    /// # Errors
    /// As [`changes`](Self::changes).
    pub fn change(&self, subject: Subject) -> Result<Option<ChangeRow>, StoreError> {
        self.db
            .read_snapshot(|db| change_rows::change(db, &self.vault, subject))
    }

    /// All attempts.
    ///
    /// # Errors
    /// As [`changes`](Self::changes).
    pub fn attempts(&self) -> Result<Vec<AttemptRow>, StoreError> {
        self.db.read(|db| change_rows::attempts(db, &self.vault))
    }

    /// The attempts of one subject.
    ///
    /// # Errors
    /// As [`changes`](Self::changes).
    pub fn attempts_of(&self, subject: Subject) -> Result<Vec<AttemptRow>, StoreError> {
        self.db
            .read(|db| change_rows::attempts_of(db, &self.vault, subject))
    }

    /// All nodes that have to go from the server.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn doomed(&self) -> Result<Vec<NodeHandle>, StoreError> {
        self.db.read(change_rows::doomed)
    }

    /// Changes whose staged bytes were not fsynced when the machine went down: never push them over
    /// their base. A row is in this list until it is put again.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn unsynced_after_power_loss(&self) -> Result<Vec<Subject>, StoreError> {
        self.db.read(change_rows::doubtful)
    }

    /// A new, empty layer. It makes no file until it outgrows its row.
    #[must_use]
    pub fn new_layer(&self, floor: u64) -> StagingFile {
        StagingFile::new(Arc::clone(&self.staging), floor)
    }

    /// The layer a row describes.
    ///
    /// # Errors
    /// [`StoreError::LockedKeys`]; [`StoreError::Damaged`] or [`StoreError::Io`] if its file cannot be
    /// used.
    pub fn open_layer(&self, row: &LayerRow) -> Result<StagingFile, StoreError> {
        StagingFile::open(Arc::clone(&self.staging), row)
    }

    /// Makes everything committed so far durable. The bytes of staging files are made durable before,
    /// by [`StagingFile::sync_data`], if the rows count on them (I2).
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] when the fsync fails (I8), and ever after.
    pub fn sync(&self) -> Result<Persisted, StoreError> {
        self.db.sync().map(Persisted)
    }

    /// Why the store takes no writes any more, if so (I8).
    #[must_use]
    pub fn poisoned(&self) -> Option<&str> {
        self.db.poison.reason()
    }

    /// Whether the local disk has room.
    #[must_use]
    pub fn space(&self) -> Space {
        if self.db.reserve.is_low() {
            Space::Low
        } else {
            Space::Ample
        }
    }

    /// Where tests end the process.
    #[must_use]
    pub fn failpoints(&self) -> &FailPoints {
        &self.db.failpoints
    }

    /// The content cache.
    #[must_use]
    pub const fn cache(&self) -> &BlobCache {
        &self.cache
    }
}

#[cfg(test)]
pub(crate) mod tests;
