//! Connections to `state.db`: one writer behind a mutex, readers that never wait for it.
//!
//! SQLite in WAL mode with `synchronous=NORMAL`: a commit is in the log file and survives `kill -9`;
//! it becomes durable with [`Db::sync`], which is one fdatasync of the log. That is enough at any
//! moment: a checkpoint first syncs the log, then copies it, and syncs the database before the log is
//! used again from its start; so what is committed is always in the synced database or in the log.
//!
//! Automatic checkpoints are off, because their errors are swallowed and they fsync on the thread
//! that commits. [`Db::maintain`] checkpoints in the background; a log that grows past
//! [`LOG_LIMIT`] pages nevertheless is reset by the writer itself, so that the disk is bounded.
//!
//! Lock order: writer, then readers. No lock is held while a caller's closure for reading runs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, DEFAULT_NAME, ErrorCode, OpenFlags};

use crate::durable;
use crate::error::StoreError;
use crate::failpoints::FailPoints;
use crate::loader;
use crate::poison::Poison;
use crate::reserve::Reserve;
use crate::schema;

/// Idle read connections kept: as many as threads that read at once in practice.
const IDLE_READERS: usize = 4;
/// Prepared statements kept per connection, more than there are different ones.
const STATEMENTS: usize = 96;
/// Checkpoint in the background above 4 MiB of log.
const LOG_BACKGROUND: u32 = 1024;
/// Checkpoint in [`Db::sync`] and in long jobs above 64 MiB: larger ones write each page less often.
const LOG_SYNC: u32 = 16 * LOG_BACKGROUND;
/// The writer resets the log above 256 MiB. It waits for the disk then, so this must be rare: more
/// than a second of the fastest writer, whose log [`Db::maintain`] empties every second.
const LOG_LIMIT: u32 = 64 * LOG_BACKGROUND;

/// The database. Shared by the store, its cache and its loaders.
#[derive(Debug)]
pub(crate) struct Db {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
    checkpointer: Mutex<Connection>,
    /// The log file; the same inode as long as a connection is open.
    log: File,
    log_pages: Arc<AtomicU32>,
    /// Counts the beginnings and the ends of transactions.
    version: AtomicU64,
    sync_asked: AtomicU64,
    sync_done: Mutex<u64>,
    pub(crate) poison: Poison,
    pub(crate) reserve: Reserve,
    pub(crate) failpoints: FailPoints,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A transaction, counted when it begins and when it ends, whether or not it writes anything in the end.
struct Turn<'a>(&'a AtomicU64);

impl<'a> Turn<'a> {
    fn begin(version: &'a AtomicU64) -> Self {
        version.fetch_add(1, Ordering::SeqCst);
        Self(version)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Db {
    /// Opens or creates `state.db` in `dir`.
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("state.db");
        let fail = |source| StoreError::io(&path, source);
        // Made here and not by SQLite, for its permissions; the log and its index copy them.
        drop(
            durable::private_file()
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(fail)?,
        );
        let log_pages = Arc::new(AtomicU32::new(0));
        let writer = connect(&path, Role::Writer, &log_pages)?;
        schema::prepare(&writer)?;
        if !schema::has_table(&writer, "node_size")? {
            loader::find_sizes(&writer, dir)?;
        }
        // A write of our own, so that the log exists and its inode stays.
        writer.execute(
            "INSERT INTO meta VALUES ('store.opened', 1)
             ON CONFLICT (name) DO UPDATE SET value = value + 1",
            [],
        )?;
        let log_path = dir.join("state.db-wal");
        let log = File::open(&log_path).map_err(|source| StoreError::io(&log_path, source))?;
        durable::sync_dir(dir).map_err(fail)?;
        let checkpointer = connect(&path, Role::Checkpointer, &log_pages)?;
        Ok(Self {
            writer: Mutex::new(writer),
            readers: Mutex::new(Vec::new()),
            checkpointer: Mutex::new(checkpointer),
            log,
            log_pages,
            version: AtomicU64::new(0),
            sync_asked: AtomicU64::new(0),
            sync_done: Mutex::new(0),
            poison: Poison::default(),
            reserve: Reserve::open(dir.join("reserve")),
            failpoints: FailPoints::default(),
            path,
        })
    }

    /// Which transactions have been; `None` while there is one.
    pub(crate) fn version(&self) -> Option<u64> {
        let version = self.version.load(Ordering::SeqCst);
        version.is_multiple_of(2).then_some(version)
    }

    /// Runs `f` on a read connection. Each statement of it has a snapshot of its own.
    pub(crate) fn read<T>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = lock(&self.readers).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.path, Role::Reader, &self.log_pages)?,
        };
        let result = f(&connection);
        // A snapshot that was left open would hold the log back: such a connection is dropped.
        if connection.is_autocommit() {
            let mut idle = lock(&self.readers);
            if idle.len() < IDLE_READERS {
                idle.push(connection);
            }
        }
        result
    }

    /// Runs `f` on a read connection, all of it in one snapshot.
    pub(crate) fn read_snapshot<T>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.read(|db| {
            db.prepare_cached("BEGIN")?.execute([])?;
            let result = f(db);
            db.prepare_cached("COMMIT")?.execute([])?;
            result
        })
    }

    /// Runs `f` in one write transaction: committed if it returns `Ok`, else nothing happened.
    pub(crate) fn write<T>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let connection = lock(&self.writer);
        let result = self.transaction(&connection, f);
        if self.log_pages.load(Ordering::Relaxed) > LOG_LIMIT {
            let _ = self.checkpoint(&connection, CheckpointMode::RESTART);
        }
        result
    }

    /// As [`write`](Self::write) but on a connection of the caller's; the writer waits meanwhile.
    pub(crate) fn write_on<T>(
        &self,
        connection: &Connection,
        f: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let turn = lock(&self.writer);
        let result = self.transaction(connection, f);
        drop(turn);
        // A long job fills the log: it waits for the disk itself, and nobody with it.
        if self.log_pages.load(Ordering::Relaxed) > LOG_SYNC {
            self.checkpoint_in_background()?;
        }
        result
    }

    /// The state directory, for files beside the database.
    pub(crate) fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// A connection for a long job, with room to work in memory.
    pub(crate) fn bulk_connection(&self) -> Result<Connection, StoreError> {
        connect(&self.path, Role::Bulk, &self.log_pages)
    }

    fn transaction<T>(
        &self,
        connection: &Connection,
        f: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.poison.check()?;
        let _turn = Turn::begin(&self.version);
        if !connection.is_autocommit() {
            // Left behind by a closure that panicked.
            connection.execute_batch("ROLLBACK")?;
        }
        let begun = connection
            .prepare_cached("BEGIN IMMEDIATE")
            .and_then(|mut s| s.execute([]));
        if let Err(error) = begun {
            return Err(self.without_room(error.into()));
        }
        let outcome = f(connection).and_then(|value| {
            let commit = connection
                .prepare_cached("COMMIT")
                .and_then(|mut s| s.execute([]));
            commit
                .map(|_| value)
                .map_err(|error| self.commit_failed(error))
        });
        outcome.map_err(|error| {
            if !connection.is_autocommit()
                && let Err(rollback) = connection.execute_batch("ROLLBACK")
                && !connection.is_autocommit()
            {
                return self.poison.set("rollback", &rollback);
            }
            self.without_room(error)
        })
    }

    fn commit_failed(&self, error: rusqlite::Error) -> StoreError {
        match StoreError::from(error) {
            StoreError::Database(cause) => match cause.sqlite_error_code() {
                // Nothing was written: the caller may try again.
                Some(ErrorCode::DatabaseBusy | ErrorCode::ConstraintViolation) => {
                    StoreError::Database(cause)
                }
                _ => self.poison.set("commit", &cause),
            },
            other => other,
        }
    }

    fn without_room(&self, error: StoreError) -> StoreError {
        if error.is_disk_full() {
            self.reserve.release();
        }
        error
    }

    /// Makes everything committed so far durable. Calls that wait at the same time share one
    /// fdatasync: the one that begins after they asked.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.poison.check()?;
        let mine = self.sync_asked.fetch_add(1, Ordering::AcqRel) + 1;
        {
            let mut done = lock(&self.sync_done);
            if *done < mine {
                let covered = self.sync_asked.load(Ordering::Acquire);
                self.poison.check()?;
                self.log
                    .sync_data()
                    .map_err(|error| self.poison.set("fdatasync", &error))?;
                *done = covered;
            }
        }
        self.poison.check()?;
        if self.log_pages.load(Ordering::Relaxed) > LOG_SYNC {
            self.checkpoint_in_background()?;
        }
        Ok(())
    }

    /// Keeps the log short and the reserve whole. May fsync; call it about once a second from a
    /// thread that may wait.
    pub(crate) fn maintain(&self) -> Result<(), StoreError> {
        self.reserve.refill();
        if self.log_pages.load(Ordering::Relaxed) > LOG_BACKGROUND {
            self.checkpoint_in_background()?;
        }
        Ok(())
    }

    fn checkpoint_in_background(&self) -> Result<(), StoreError> {
        self.poison.check()?;
        let Ok(connection) = self.checkpointer.try_lock() else {
            return Ok(());
        };
        self.checkpoint(&connection, CheckpointMode::PASSIVE)
    }

    fn checkpoint(&self, connection: &Connection, mode: CheckpointMode) -> Result<(), StoreError> {
        match connection.wal_checkpoint_v2(DEFAULT_NAME, mode) {
            Ok((pages, copied)) => {
                if pages == copied {
                    // The next commit starts the log again and reports its length.
                    self.log_pages.store(0, Ordering::Relaxed);
                }
                Ok(())
            }
            Err(error) => match StoreError::from(error) {
                StoreError::Database(cause)
                    if cause.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                        || cause.sqlite_error_code() == Some(ErrorCode::DatabaseLocked) =>
                {
                    Ok(())
                }
                StoreError::Database(cause) => Err(self.poison.set("checkpoint", &cause)),
                other => Err(self.without_room(other)),
            },
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Writer,
    Reader,
    Checkpointer,
    Bulk,
}

fn connect(path: &Path, role: Role, log_pages: &Arc<AtomicU32>) -> Result<Connection, StoreError> {
    let mode = match role {
        Role::Reader => OpenFlags::SQLITE_OPEN_READ_ONLY,
        Role::Writer | Role::Checkpointer | Role::Bulk => OpenFlags::SQLITE_OPEN_READ_WRITE,
    };
    // Each connection is used by one thread at a time.
    let flags = mode | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Page caches in KiB. The kernel's page cache stands behind them, so they are small; mapping
    // the file instead would count the whole tree into our memory.
    let cache = match role {
        Role::Writer => 8 << 10,
        Role::Reader => 4 << 10,
        Role::Checkpointer => 64,
        Role::Bulk => 32 << 10,
    };
    connection.execute_batch(&format!(
        "PRAGMA cache_size = -{cache}; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY;"
    ))?;
    if role != Role::Reader {
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
             PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = 67108864;",
        )?;
    }
    if matches!(role, Role::Writer | Role::Bulk) {
        let pages = Arc::clone(log_pages);
        connection.wal_hook(Some(
            move |_: &mut rusqlite::hooks::Wal, count: std::ffi::c_int| {
                pages.store(count.cast_unsigned(), Ordering::Relaxed);
                Ok(())
            },
        ))?;
    }
    Ok(connection)
}
