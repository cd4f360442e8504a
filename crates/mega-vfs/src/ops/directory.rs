//! opendir, readdir, releasedir. A listing continues correctly while entries come and go: an open
//! directory stays in memory and its cookies are given once.

use std::ffi::OsString;

use rustix::io::Errno;

use crate::Vfs;
use crate::handles::Handle;
use crate::inode::ROOT_INO;
use crate::types::{DirEntry, Entry, FileKind, OpResult};

impl Vfs {
    /// Opens a directory.
    ///
    /// # Errors
    /// ENOTDIR, ENOENT when it was removed, ESTALE.
    pub async fn opendir(&self, ino: u64) -> OpResult<u64> {
        let mut state = self.shared.lock();
        let subject = state.subject(ino)?;
        state.dir(subject)?;
        Ok(state.handles.insert(Handle::Directory(ino)))
    }

    /// Up to `limit` entries after `offset` (0 begins), `.` and `..` first.
    ///
    /// # Errors
    /// As `opendir`.
    pub async fn readdir(
        &self,
        ino: u64,
        _fh: u64,
        offset: u64,
        limit: usize,
    ) -> OpResult<Vec<DirEntry>> {
        let ttl = self.shared.config.attr_ttl;
        let mut state = self.shared.lock();
        let subject = state.subject(ino)?;
        let mut listing = Vec::new();
        if offset < 2 {
            let own = state.attr(subject)?;
            let parent = match state.parent(subject)? {
                Some(parent) if ino != ROOT_INO => state.attr(parent).unwrap_or(own),
                _ => own,
            };
            for (next_offset, name, attr) in [(1, ".", own), (2, "..", parent)] {
                if next_offset > offset {
                    listing.push(DirEntry {
                        ino: attr.ino,
                        next_offset,
                        kind: FileKind::Directory,
                        name: OsString::from(name),
                        entry: Entry { attr, ttl },
                    });
                }
            }
        }
        let page: Vec<_> = state
            .dir(subject)?
            .after(offset.max(2))
            .take(limit.saturating_sub(listing.len()))
            .map(|entry| {
                (
                    entry.subject,
                    entry.facts,
                    entry.cookie,
                    entry.spelling.to_string(),
                )
            })
            .collect();
        for (child, facts, cookie, spelling) in page {
            let attr = state.attr_with(child, facts)?;
            listing.push(DirEntry {
                ino: attr.ino,
                next_offset: cookie,
                kind: attr.kind,
                name: OsString::from(spelling),
                entry: Entry { attr, ttl },
            });
        }
        Ok(listing)
    }

    /// Closes a directory.
    ///
    /// # Errors
    /// EBADF for an unknown handle.
    pub async fn releasedir(&self, fh: u64) -> OpResult<()> {
        let mut state = self.shared.lock();
        state.handles.remove(fh).map(|_| ()).ok_or(Errno::BADF)
    }
}
