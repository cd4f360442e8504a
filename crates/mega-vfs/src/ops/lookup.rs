//! lookup, forget, getattr, readlink: answered from local state, except a link's target that was
//! never read.

use std::ffi::OsStr;
use std::sync::Arc;

use rustix::io::Errno;

use super::entry_name;
use crate::Vfs;
use crate::dot_mega::{self, Inside, Virtual};
use crate::inode::ROOT_INO;
use crate::types::{Entry, FileKind, Lookup, OpResult};

impl Vfs {
    /// Finds a name; counts one kernel reference when found.
    ///
    /// # Errors
    /// ENAMETOOLONG, EILSEQ (not UTF-8), ENOTDIR, ESTALE, EIO.
    pub async fn lookup(&self, parent: u64, name: &OsStr) -> OpResult<Lookup> {
        if name.len() > mega_tree::spelling::NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let ttl = self.shared.config.attr_ttl;
        // What cannot be a name here does not exist.
        let Ok(name) = entry_name(name) else {
            return Ok(Lookup::Missing { ttl });
        };
        if parent == ROOT_INO && name == dot_mega::NAME {
            let entry = self.shared.virtual_entry(Virtual::Top).await?;
            return Ok(Lookup::Found(entry));
        }
        if let Some(directory) = Virtual::of(parent) {
            return self.lookup_virtual(directory, name).await;
        }
        let mut state = self.shared.lock();
        let directory = state.subject(parent)?;
        let Some(found) = state.find(directory, name)? else {
            return Ok(Lookup::Missing { ttl });
        };
        let attr = state.attr_with(found.subject, found.facts)?;
        state.inodes.remember(attr.ino, 1);
        // What came with its listing is no longer there: the next one is to bring it.
        state.listed.forget(parent);
        Ok(Lookup::Found(Entry { attr, ttl }))
    }

    /// Finds a name below `.mega`, in a directory that exists on no server.
    async fn lookup_virtual(&self, directory: Virtual, name: &str) -> OpResult<Lookup> {
        let found = self.shared.lock().virtual_find(directory, name)?;
        let entry = match found {
            None => {
                let ttl = std::time::Duration::ZERO;
                return Ok(Lookup::Missing { ttl });
            }
            Some(Inside::Virtual(entry)) => self.shared.virtual_entry(entry).await?,
            Some(inside @ Inside::Subject(_)) => {
                let mut state = self.shared.lock();
                let entry = state.inside_entry(inside)?;
                state.inodes.remember(entry.attr.ino, 1);
                entry
            }
        };
        Ok(Lookup::Found(entry))
    }

    /// Drops kernel references.
    pub fn forget(&self, ino: u64, count: u64) {
        if Virtual::of(ino).is_some() {
            // Its number says everything about it.
            return;
        }
        self.shared.forget(ino, count);
    }

    /// Attributes of an inode.
    ///
    /// # Errors
    /// ESTALE when its node is gone.
    pub async fn getattr(&self, ino: u64) -> OpResult<Entry> {
        if let Some(entry) = Virtual::of(ino) {
            return self.shared.virtual_entry(entry).await;
        }
        let mut state = self.shared.lock();
        if let Some(attr) = state.removed_attr(ino) {
            let ttl = self.shared.config.attr_ttl;
            return Ok(Entry { attr, ttl });
        }
        let subject = state.subject(ino)?;
        state.entry(subject)
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// EINVAL when it is no link; what `read` answers.
    pub async fn readlink(&self, ino: u64) -> OpResult<Vec<u8>> {
        let (file, size) = {
            let mut state = self.shared.lock();
            let subject = state.readable(ino)?;
            let attr = state.attr(subject)?;
            if attr.kind != FileKind::Symlink {
                return Err(Errno::INVAL);
            }
            (self.shared.file(&mut state, subject)?, attr.size)
        };
        let size = u32::try_from(size.min(4096)).unwrap_or(4096);
        let cursor = mega_transfer::ReadCursor::default();
        let bytes = self.shared.read_file(&file, &cursor, 0, size).await;
        self.shared.let_go(&Arc::clone(&file), &mut file.lock());
        Ok(bytes?.to_vec())
    }
}
