//! create, mknod, mkdir, symlink: a new local row, answered at once.

use std::ffi::OsStr;

use mega_proto::NodeKind;
use mega_store::{ChangeRow, ChangeState, ContentRow, Place, Subject};
use mega_tree::spelling::unescape;
use rustix::io::Errno;
use serde_json::Value;

use super::entry_name;
use crate::Vfs;
use crate::changes::{MTIME, set_attribute};
use crate::dot_mega::{self, check_real};
use crate::errno::store_errno;
use crate::inode::ROOT_INO;
use crate::shared::Shared;
use crate::state::State;
use crate::types::{Entry, OpResult, OpenMode, Opened, Timestamp, now_ms};
use crate::zone::Need;

/// What to make.
#[derive(Clone, Copy)]
enum Making<'a> {
    File { executable: bool },
    Folder,
    Symlink { target: &'a [u8] },
}

/// How long a new file may take to be opened before it counts as complete, ms.
const UNTIL_OPENED_MS: i64 = 1000;

impl Shared {
    fn make(&self, parent: u64, name: &OsStr, what: Making<'_>) -> OpResult<(Entry, Subject)> {
        self.check_writable()?;
        self.check_open()?;
        let name = entry_name(name)?;
        if parent == ROOT_INO && name == dot_mega::NAME {
            return Err(Errno::EXIST);
        }
        check_real(parent)?;
        let mut state = self.lock();
        let directory = state.subject(parent)?;
        state.check_in(directory, Need::Write)?;
        if state.find(directory, name)?.is_some() {
            return Err(Errno::EXIST);
        }
        let id = self
            .store
            .next_local_id()
            .map_err(|error| store_errno(&error))?;
        let subject = Subject::Local(id);
        let now = Timestamp::now();
        let is_folder = matches!(what, Making::Folder);
        let due_ms = match what {
            Making::Folder => state.name_due(),
            // Its maker opens it next, and the last close sets the time anew. Until it is open nothing
            // else tells that there is more to come than an empty file.
            Making::File { .. } => state.content_due().max(now_ms() + UNTIL_OPENED_MS),
            Making::Symlink { .. } => state.content_due(),
        };
        let mut row = ChangeRow {
            subject,
            kind: if is_folder {
                NodeKind::Folder
            } else {
                NodeKind::File
            },
            place: Some(Place {
                parent: directory,
                name: unescape(&state.config.naming.typed(name)),
            }),
            attributes: None,
            content: None,
            removed: false,
            replaces: None,
            state: ChangeState::Pending { due_ms },
            since_ms: now_ms(),
        };
        set_attribute(&mut row, MTIME, Value::String(now.to_text()));
        if !is_folder {
            let mut layers = Vec::new();
            let mut size = 0;
            if let Making::Symlink { target } = what {
                let mut layer = self.store.new_layer(0);
                layer
                    .write_at(0, target)
                    .map_err(|error| store_errno(&error))?;
                layers.push(layer.row(false));
                size = target.len() as u64;
                set_attribute(&mut row, "mml", Value::String("1".to_owned()));
            }
            if let Making::File { executable: true } = what {
                set_attribute(&mut row, "mmx", Value::String("1".to_owned()));
            }
            row.content = Some(ContentRow {
                base: None,
                size,
                generation: 0,
                synced: false,
                layers,
            });
        }
        state.commit(vec![row], &[])?;
        State::show(&mut state, directory, subject)?;
        let entry = state.entry(subject)?;
        state.inodes.remember(entry.attr.ino, 1);
        drop(state);
        self.wake.notify_one();
        Ok((entry, subject))
    }
}

impl Vfs {
    /// Makes and opens a file.
    ///
    /// # Errors
    /// EEXIST, EROFS, ENAMETOOLONG, EILSEQ, ENOTDIR, ENOSPC.
    pub async fn create(
        &self,
        parent: u64,
        name: &OsStr,
        mode: u32,
        open: OpenMode,
    ) -> OpResult<(Entry, Opened)> {
        let executable = mode & 0o100 != 0;
        let entry = match self.shared.make(parent, name, Making::File { executable }) {
            Ok((entry, _)) => entry,
            Err(Errno::EXIST) if !open.exclusive => {
                // The kernel looked before; somebody else made it since.
                let mut state = self.shared.lock();
                let directory = state.subject(parent)?;
                let found = state
                    .find(directory, entry_name(name)?)?
                    .ok_or(Errno::NOENT)?;
                let entry = state.entry(found.subject)?;
                state.inodes.remember(entry.attr.ino, 1);
                entry
            }
            Err(errno) => return Err(errno),
        };
        let opened = self.shared.open_handle(entry.attr.ino, open)?;
        Ok((entry, opened))
    }

    /// Makes a regular file without opening it; nothing else can be made on Mega.
    ///
    /// # Errors
    /// EPERM for FIFOs, sockets and devices; as `create`.
    pub async fn mknod(&self, parent: u64, name: &OsStr, mode: u32) -> OpResult<Entry> {
        const FORMAT: u32 = 0o170_000;
        const REGULAR: u32 = 0o100_000;
        if !matches!(mode & FORMAT, 0 | REGULAR) {
            return Err(Errno::PERM);
        }
        let executable = mode & 0o100 != 0;
        self.shared
            .make(parent, name, Making::File { executable })
            .map(|(entry, _)| entry)
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// As `create`.
    pub async fn mkdir(&self, parent: u64, name: &OsStr, _mode: u32) -> OpResult<Entry> {
        self.shared
            .make(parent, name, Making::Folder)
            .map(|(entry, _)| entry)
    }

    /// Makes a symbolic link: a small file marked with attribute `mml` (protocol/03 section 7).
    ///
    /// # Errors
    /// As `create`; ENAMETOOLONG for a target over 4095 bytes.
    pub async fn symlink(&self, parent: u64, name: &OsStr, target: &OsStr) -> OpResult<Entry> {
        let target = target.as_encoded_bytes();
        if target.len() > 4095 {
            return Err(Errno::NAMETOOLONG);
        }
        self.shared
            .make(parent, name, Making::Symlink { target })
            .map(|(entry, _)| entry)
    }
}
