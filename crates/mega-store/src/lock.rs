//! One process per state directory (I9): an flock that names its holder.
//!
//! The lock is the open file, so it ends with the process however that ends. What the file says is
//! for the message of the second start only.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::durable::private_file;
use crate::error::StoreError;

/// Who has a state directory, for the message of the second start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// Its process id.
    pub pid: u32,
    /// What it serves.
    pub mountpoint: PathBuf,
}

/// A taken lock; dropping it releases it.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes the lock at `path` for `holder`, or says who has it.
    pub(crate) fn take(path: &Path, holder: &LockHolder) -> Result<Self, StoreError> {
        let fail = |source| StoreError::io(path, source);
        let mut file = private_file()
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(fail)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let _ = file.take(64 << 10).read_to_string(&mut text);
                let unknown = LockHolder {
                    pid: 0,
                    mountpoint: PathBuf::from("(unknown)"),
                };
                let holder = serde_json::from_str(&text).unwrap_or(unknown);
                return Err(StoreError::Locked { holder });
            }
            Err(errno) => return Err(fail(errno.into())),
        }
        let text = serde_json::to_vec(holder).unwrap_or_default();
        file.set_len(0).map_err(fail)?;
        file.rewind().map_err(fail)?;
        // A full disk must not stop a start: the text is only for a message.
        let _ = file.write_all(&text);
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_learns_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = LockHolder {
            pid: 7,
            mountpoint: "/mnt/a".into(),
        };
        let second = LockHolder {
            pid: 8,
            mountpoint: "/mnt/b".into(),
        };
        let taken = DirLock::take(&path, &first).unwrap();
        match DirLock::take(&path, &second) {
            Err(StoreError::Locked { holder }) => assert_eq!(holder, first),
            other => panic!("{other:?}"),
        }
        drop(taken);
        DirLock::take(&path, &second).unwrap();
    }
}
