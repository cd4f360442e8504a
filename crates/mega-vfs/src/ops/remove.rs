//! unlink and rmdir: a row that says "gone"; open handles keep the bytes.

use std::ffi::OsStr;
use std::sync::Arc;

use mega_proto::NodeKind;
use mega_store::{ChangeRow, ChangeState, Store, Subject};
use mega_tree::node::Shape;
use rustix::io::Errno;
use serde_json::Value;

use super::entry_name;
use crate::Vfs;
use crate::changes::{FOREVER, set_attribute};
use crate::dot_mega::{self, check_real};
use crate::file::FileNode;
use crate::inode::ROOT_INO;
use crate::shared::Shared;
use crate::state::{Found, State};
use crate::types::{Attr, OpResult};

/// What is to be done so that a name goes.
pub(crate) struct Removal {
    ino: u64,
    attr: Attr,
    /// The row to write.
    pub(crate) row: Option<ChangeRow>,
    /// The row to drop: nobody but us ever knew of it.
    pub(crate) dropped: Option<ChangeRow>,
    open: Option<Arc<FileNode>>,
}

impl Removal {
    /// The subject whose row is dropped.
    pub(crate) fn dropped_subject(&self) -> Option<Subject> {
        self.dropped.as_ref().map(|row| row.subject)
    }
}

impl Shared {
    /// Takes a name away. Returns the file whose content must be told, once the state lock is free.
    fn remove_entry(
        &self,
        state: &mut State,
        directory: Subject,
        found: &Found,
    ) -> OpResult<Option<Arc<FileNode>>> {
        let is_for_good = state.check_removal(directory, found.subject)?;
        let removal = state.removal_of(found, is_for_good)?;
        let dropped = removal.dropped_subject();
        state.commit(removal.row.iter().cloned().collect(), dropped.as_slice())?;
        Ok(self.finish_removal(state, directory, found.subject, removal))
    }

    /// After the commit: the view without the name.
    pub(crate) fn finish_removal(
        &self,
        state: &mut State,
        directory: Subject,
        subject: Subject,
        removal: Removal,
    ) -> Option<Arc<FileNode>> {
        if let Some(content) = removal.dropped.and_then(|row| row.content) {
            drop_staging(&self.store, &content.layers);
        }
        state.take_out(directory, subject);
        state.forget_dir(subject);
        state.touch_dir(directory);
        // Whoever has it open, or is in it, can still ask about it.
        state.inodes.changed(removal.ino, None);
        let attr = Attr {
            nlink: 0,
            ..removal.attr
        };
        state.inodes.set_removed(removal.ino, attr);
        removal.open
    }

    /// After the state lock is released: the content of a removed file lives until its last release.
    pub(crate) fn mark_unlinked(&self, file: Option<Arc<FileNode>>) {
        let Some(file) = file else { return };
        let mut content = file.lock();
        content.is_unlinked = true;
        for layer in &content.layers {
            hide(&layer.file);
        }
        if let Some(attempt) = &content.attempt
            && !attempt.is_frozen
        {
            attempt.cancel.cancel();
        }
        self.let_go(&file, &mut content);
    }
}

impl State {
    /// What removing an entry needs, nothing of it done.
    pub(crate) fn removal_of(&mut self, found: &Found, is_for_good: bool) -> OpResult<Removal> {
        let subject = found.subject;
        let ino = self.ino(subject)?;
        let open = self.files.get(&ino).cloned();
        let kind = self.kind_of(subject)?;
        let attr = self.attr_with(subject, found.facts)?;
        let vanishes = matches!(subject, Subject::Local(_)) && !self.changes.is_in_flight(subject);
        let (row, dropped) = if vanishes && open.is_none() {
            (None, self.changes.get(subject).cloned())
        } else {
            let mut row = self.row_for_edit(subject, kind);
            row.removed = true;
            if is_for_good {
                set_attribute(&mut row, FOREVER, Value::Bool(true));
            }
            row.state = ChangeState::Pending {
                due_ms: self.name_due(),
            };
            (Some(row), None)
        };
        Ok(Removal {
            ino,
            attr,
            row,
            dropped,
            open,
        })
    }
}

/// Bytes of a file without a name do not outlive the process.
pub(crate) fn hide(layer: &mega_store::StagingFile) {
    if let Err(error) = layer.hide() {
        tracing::debug!(%error, "staging of a removed file is not hidden");
    }
}

/// Removes the staging files of a row that is gone.
pub(crate) fn drop_staging(store: &Store, layers: &[mega_store::LayerRow]) {
    for layer in layers {
        let dropped = store
            .open_layer(layer)
            .and_then(mega_store::StagingFile::delete);
        // Hidden when it was unlinked while open, or gone with an upload that has just ended.
        if let Err(error) = dropped
            && !error.is_not_found()
        {
            tracing::warn!(%error, "staging file of a removed file stays behind");
        }
    }
}

impl Vfs {
    /// Removes a file or link.
    ///
    /// # Errors
    /// ENOENT, EISDIR, EROFS; EPERM and EACCES where that may not be (module `zone`).
    pub async fn unlink(&self, parent: u64, name: &OsStr) -> OpResult<()> {
        self.shared.check_writable()?;
        self.shared.check_open()?;
        check_real(parent)?;
        if parent == ROOT_INO && name == dot_mega::NAME {
            return Err(Errno::ISDIR);
        }
        let file = {
            let mut state = self.shared.lock();
            let directory = state.subject(parent)?;
            let found = state
                .find(directory, entry_name(name)?)?
                .ok_or(Errno::NOENT)?;
            if found.facts.shape == Shape::Directory {
                return Err(Errno::ISDIR);
            }
            self.shared.remove_entry(&mut state, directory, &found)?
        };
        self.shared.mark_unlinked(file);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, ENOTEMPTY, EROFS; as `unlink`.
    pub async fn rmdir(&self, parent: u64, name: &OsStr) -> OpResult<()> {
        self.shared.check_writable()?;
        self.shared.check_open()?;
        check_real(parent)?;
        if parent == ROOT_INO && name == dot_mega::NAME {
            return Err(Errno::PERM);
        }
        let mut state = self.shared.lock();
        let directory = state.subject(parent)?;
        let found = state
            .find(directory, entry_name(name)?)?
            .ok_or(Errno::NOENT)?;
        if found.facts.shape != Shape::Directory {
            return Err(Errno::NOTDIR);
        }
        if !state.dir(found.subject)?.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        debug_assert_eq!(state.kind_of(found.subject)?, NodeKind::Folder);
        self.shared.remove_entry(&mut state, directory, &found)?;
        drop(state);
        self.shared.wake.notify_one();
        Ok(())
    }
}
