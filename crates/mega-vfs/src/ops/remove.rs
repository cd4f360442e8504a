//! unlink and rmdir: a row that says "gone"; open handles keep the bytes.

use std::ffi::OsStr;
use std::sync::Arc;

use mega_proto::NodeKind;
use mega_store::{ChangeState, Store, Subject};
use mega_tree::node::Shape;
use rustix::io::Errno;

use super::entry_name;
use crate::Vfs;
use crate::file::FileNode;
use crate::shared::Shared;
use crate::state::{Found, State};
use crate::types::{Attr, OpResult};

impl Shared {
    /// Takes a name away. Returns the file whose content must be told, once the state lock is free.
    pub(crate) fn remove_entry(
        &self,
        state: &mut State,
        directory: Subject,
        found: &Found,
    ) -> OpResult<Option<Arc<FileNode>>> {
        let subject = found.subject;
        let ino = state.ino(subject)?;
        let open = state.files.get(&ino).cloned();
        let kind = state.kind_of(subject)?;
        let attr = state.attr_with(subject, found.facts)?;
        let vanishes = matches!(subject, Subject::Local(_)) && !state.changes.is_in_flight(subject);
        if vanishes && open.is_none() {
            let row = state.changes.get(subject).cloned();
            state.commit(Vec::new(), &[subject])?;
            if let Some(content) = row.and_then(|row| row.content) {
                drop_staging(&self.store, &content.layers);
            }
        } else {
            let mut row = state.row_for_edit(subject, kind);
            row.removed = true;
            row.state = ChangeState::Pending {
                due_ms: state.name_due(),
            };
            state.commit(vec![row], &[])?;
        }
        state.take_out(directory, subject);
        state.touch_dir(directory);
        // Whoever has it open, or is in it, can still ask about it.
        state.inodes.changed(ino, None);
        state.inodes.set_removed(ino, Attr { nlink: 0, ..attr });
        Ok(open)
    }

    /// After the state lock is released: the content of a removed file lives until its last release.
    pub(crate) fn mark_unlinked(&self, file: Option<Arc<FileNode>>) {
        let Some(file) = file else { return };
        let mut content = file.lock();
        content.is_unlinked = true;
        if let Some(attempt) = &content.attempt
            && !attempt.is_frozen
        {
            attempt.cancel.cancel();
        }
        self.let_go(&file, &mut content);
    }
}

/// Removes the staging files of a row that is gone.
pub(crate) fn drop_staging(store: &Store, layers: &[mega_store::LayerRow]) {
    for layer in layers {
        let dropped = store
            .open_layer(layer)
            .and_then(mega_store::StagingFile::delete);
        if let Err(error) = dropped {
            tracing::warn!(%error, "staging file of a removed file stays behind");
        }
    }
}

impl Vfs {
    /// Removes a file or link.
    ///
    /// # Errors
    /// ENOENT, EISDIR, EROFS.
    pub async fn unlink(&self, parent: u64, name: &OsStr) -> OpResult<()> {
        self.shared.check_writable()?;
        self.shared.check_open()?;
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
    /// ENOENT, ENOTDIR, ENOTEMPTY, EROFS.
    pub async fn rmdir(&self, parent: u64, name: &OsStr) -> OpResult<()> {
        self.shared.check_writable()?;
        self.shared.check_open()?;
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
