//! What can go wrong in the store, and what a failure says about its future.

use std::io;
use std::path::{Path, PathBuf};

use crate::lock::LockHolder;

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the state directory (or the cache directory) open (I9).
    #[error("in use by process {} for {}", holder.pid, holder.mountpoint.display())]
    Locked {
        /// What the lock file says about the other process.
        holder: LockHolder,
    },
    /// The directory was written by another version of the format.
    #[error("state format {found} is not the format {expected} of this program")]
    UnknownFormat {
        /// What the file says.
        found: String,
        /// What this program reads.
        expected: u32,
    },
    /// The directory belongs to another account or another server.
    #[error("the state directory belongs to {what} {stored}, not {asked}")]
    Pinned {
        /// "user" or "API origin".
        what: &'static str,
        /// The value of the first use.
        stored: String,
        /// The value now.
        asked: String,
    },
    /// [`Store::unlock`](crate::Store::unlock) has not been called yet.
    #[error("the local keys are not available yet")]
    LockedKeys,
    /// The master key is not the one this directory was made with.
    #[error("the state directory was made with another master key")]
    WrongKey,
    /// Something read back is not what was written.
    #[error("{what} is damaged")]
    Damaged {
        /// Which part, without names or content.
        what: &'static str,
    },
    /// Bytes were asked for that the layer does not have.
    #[error("the layer does not have these bytes")]
    NotPresent,
    /// The disk or the quota on it is full. Nothing was poisoned; try again after making room.
    #[error("the local disk is full")]
    DiskFull,
    /// An earlier fsync or commit failed (I8). Reads go on, writes do not; restart to recover.
    #[error("local storage failed earlier, writing has stopped: {reason}")]
    Poisoned {
        /// The first failure.
        reason: String,
    },
    /// Another [`TreeLoader`](crate::TreeLoader) is at work.
    #[error("the tree is being loaded already")]
    LoadInProgress,
    /// A name in `meta` that is the store's own.
    #[error("{0} is a reserved name")]
    ReservedName(String),
    /// The kernel's keyring cannot be used.
    #[error("the kernel's keyring cannot be used: {0}")]
    Keyring(&'static str),
    /// SQLite failed.
    #[error("state database: {0}")]
    Database(#[source] rusqlite::Error),
    /// A file operation failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The operating system gave no random bytes.
    #[error("no randomness from the operating system: {0}")]
    Random(getrandom::Error),
}

impl StoreError {
    /// An I/O failure at `path`; a full disk or quota becomes [`StoreError::DiskFull`].
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        if is_disk_full(&source) {
            return Self::DiskFull;
        }
        Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }

    /// Whether a file is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the disk was full: the only failure that passes by making room.
    #[must_use]
    pub const fn is_disk_full(&self) -> bool {
        matches!(self, Self::DiskFull)
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        if let rusqlite::Error::SqliteFailure(code, _) = &error
            && (code.code == rusqlite::ErrorCode::DiskFull
                || code.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
        {
            return Self::DiskFull;
        }
        Self::Database(error)
    }
}

impl From<getrandom::Error> for StoreError {
    fn from(error: getrandom::Error) -> Self {
        Self::Random(error)
    }
}

/// Whether `error` says that no space is left for this user.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
