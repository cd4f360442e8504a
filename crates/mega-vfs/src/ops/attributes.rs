//! setattr: truncate, utimens, chmod, chown. Access and change times are kept as long as the kernel
//! knows the inode, and never sent.

use mega_proto::NodeKind;
use mega_store::ChangeState;
use rustix::io::Errno;
use serde_json::Value;

use crate::Vfs;
use crate::changes::{MTIME, set_attribute};
use crate::dot_mega::check_real;
use crate::errno::store_errno;
use crate::state::State;
use crate::types::{Attr, FileKind, OpResult, SetAttr, Timestamp};
use crate::zone::Need;

impl Vfs {
    /// Changes attributes. Of the mode only the owner's execute bit is kept; the rest is accepted
    /// without effect.
    ///
    /// # Errors
    /// EPERM for another owner, EROFS, EISDIR, ENOSPC, ESTALE.
    pub async fn setattr(&self, ino: u64, wanted: SetAttr) -> OpResult<Attr> {
        self.shared.check_writable()?;
        check_real(ino)?;
        let config = &self.shared.config;
        if wanted.uid.is_some_and(|uid| uid != config.uid)
            || wanted.gid.is_some_and(|gid| gid != config.gid)
        {
            return Err(Errno::PERM);
        }
        if let Some(size) = wanted.size {
            self.truncate(ino, size)?;
        }
        let mut state = self.shared.lock();
        state.inodes.changed(ino, wanted.atime);
        if let Some(attr) = state.removed_attr(ino) {
            return Ok(Self::set_removed_attr(&state, attr, wanted));
        }
        let subject = state.subject(ino)?;
        let attr = state.attr(subject)?;
        let wants_exec = wanted
            .mode
            .filter(|_| attr.kind == FileKind::File)
            .map(|mode| mode & 0o100 != 0)
            .filter(|exec| *exec != (attr.perm & 0o100 != 0));
        if wanted.mtime.is_none() && wants_exec.is_none() {
            return Ok(attr);
        }
        if subject == state.root {
            // The account's root has no attributes; the time lives as long as the mount.
            if let Some(mtime) = wanted.mtime {
                state.dir_times.insert(subject, mtime);
            }
            return state.attr(subject);
        }
        state.check_entry(subject, Need::Edit)?;
        let kind = state.kind_of(subject)?;
        let mut row = state.row_for_edit(subject, kind);
        if row.removed {
            return Ok(attr);
        }
        if let Some(exec) = wants_exec {
            let value = if exec {
                Value::String("1".to_owned())
            } else {
                Value::Null
            };
            set_attribute(&mut row, "mmx", value);
        }
        if let Some(mtime) = wanted.mtime {
            set_attribute(&mut row, MTIME, Value::String(mtime.to_text()));
            state.dir_times.remove(&subject);
            if let Some(file) = state.shared_file(ino) {
                file.set_mtime(mtime);
            }
        }
        if row.content.is_none() && !matches!(row.state, ChangeState::Pushing { .. }) {
            row.state = ChangeState::Pending {
                due_ms: state.name_due(),
            };
        }
        debug_assert!(matches!(kind, NodeKind::File | NodeKind::Folder));
        state.commit(vec![row], &[])?;
        let attr = state.attr(subject)?;
        drop(state);
        self.shared.wake.notify_one();
        Ok(attr)
    }

    /// Of what has no name any more only the times of an open file can change.
    fn set_removed_attr(state: &State, mut attr: Attr, wanted: SetAttr) -> Attr {
        if let (Some(mtime), Some(file)) = (wanted.mtime, state.files.get(&attr.ino)) {
            file.set_mtime(mtime);
            attr.mtime = mtime;
        }
        attr
    }

    fn truncate(&self, ino: u64, size: u64) -> OpResult<()> {
        self.shared.check_open()?;
        if size > i64::MAX as u64 {
            return Err(Errno::FBIG);
        }
        {
            let mut state = self.shared.lock();
            let subject = state.subject(ino)?;
            // Whoever has it open for writing may go on, wherever it went.
            if !state.is_being_written(subject) && state.removed_attr(ino).is_none() {
                state.check_entry(subject, Need::Write)?;
            }
        }
        self.shared.with_content(ino, |file, content| {
            if content.size != size {
                if size > content.size {
                    self.shared.make_room(file, content, size)?;
                }
                content
                    .truncate(&self.shared.store, size)
                    .map_err(|error| store_errno(&error))?;
                file.set_mtime(Timestamp::now());
                file.publish(content);
            }
            // Whoever has it open may never write or close it: this is complete as it is.
            self.shared.commit_content(file, content)?;
            self.shared.let_go(file, content);
            Ok(())
        })
    }
}
