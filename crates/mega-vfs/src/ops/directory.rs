//! opendir, readdir, releasedir. A listing continues correctly while entries come and go: an open
//! directory stays in memory and its cookies are given once.

use std::ffi::OsString;

use rustix::io::Errno;

use crate::Vfs;
use crate::dot_mega::{Inside, Virtual};
use crate::handles::Handle;
use crate::inode::ROOT_INO;
use crate::state::State;
use crate::types::{DirEntry, Entry, FileKind, OpResult, OpenedDirectory};

impl Vfs {
    /// Opens a directory.
    ///
    /// # Errors
    /// ENOTDIR, ENOENT when it was removed, ESTALE.
    pub async fn opendir(&self, ino: u64) -> OpResult<OpenedDirectory> {
        let mut state = self.shared.lock();
        if let Some(directory) = Virtual::of(ino) {
            let listing = state.virtual_listing(directory)?;
            return Ok(OpenedDirectory {
                fh: state.handles.insert(Handle::Listing(listing.into())),
                may_cache: false,
                keep_cache: false,
            });
        }
        let subject = state.subject(ino)?;
        let keep_cache = state.listed.is_kept(ino);
        let mut next = None;
        if keep_cache {
            // Not loaded for this: nobody is going to ask for it.
            state.check_directory(subject)?;
        } else {
            state.dir(subject)?;
            next = state.look_ahead(subject);
        }
        let fh = state.handles.insert(Handle::Directory(ino));
        if !keep_cache {
            state.listed.begin(ino, fh);
        }
        drop(state);
        if let Some(next) = next {
            self.shared.prepare(next);
        }
        Ok(OpenedDirectory {
            fh,
            may_cache: true,
            keep_cache,
        })
    }

    /// Up to `limit` entries after `offset` (0 begins), `.` and `..` first, of which the kernel gets the names
    /// only. One that was removed since it was opened has no others.
    ///
    /// # Errors
    /// As `opendir`.
    pub async fn readdir(
        &self,
        ino: u64,
        fh: u64,
        offset: u64,
        limit: usize,
    ) -> OpResult<Vec<DirEntry>> {
        let mut state = self.shared.lock();
        let listing = state.list(ino, fh, offset, limit)?;
        if !listing.is_empty() {
            state.listed.forget(ino);
        }
        Ok(listing)
    }

    /// The same for a kernel that gets the attributes, too. Each entry that [`DirEntry::is_counted`] is a reference
    /// of it, counted before anything else can happen: an upload that is confirmed next would free the number for
    /// the version it replaces. What the kernel does not get has to be forgotten.
    ///
    /// # Errors
    /// As `opendir`.
    pub async fn readdirplus(
        &self,
        ino: u64,
        fh: u64,
        offset: u64,
        limit: usize,
    ) -> OpResult<Vec<DirEntry>> {
        let mut state = self.shared.lock();
        let listing = state.list(ino, fh, offset, limit)?;
        for entry in listing.iter().filter(|entry| entry.is_counted()) {
            state.inodes.remember(entry.ino, 1);
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

impl State {
    /// A page of a directory.
    fn list(&mut self, ino: u64, fh: u64, offset: u64, limit: usize) -> OpResult<Vec<DirEntry>> {
        if let Some(directory) = Virtual::of(ino) {
            return self.list_virtual(directory, fh, offset, limit);
        }
        let ttl = self.config.attr_ttl;
        let subject = self.subject(ino)?;
        let mut listing = Vec::new();
        if offset < 2 {
            let own = self.attr(subject)?;
            let parent = match self.parent(subject)? {
                Some(parent) if ino != ROOT_INO => self.attr(parent).unwrap_or(own),
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
        if self.changes.get(subject).is_some_and(|row| row.removed) {
            // Nothing is in it, or it could not have been removed.
            return Ok(listing);
        }
        let page: Vec<_> = self
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
            let attr = self.attr_with(child, facts)?;
            listing.push(DirEntry {
                ino: attr.ino,
                next_offset: cookie,
                kind: attr.kind,
                name: OsString::from(spelling),
                entry: Entry { attr, ttl },
            });
        }
        if listing.is_empty() && limit > 0 {
            self.listed.complete(ino, fh);
        }
        Ok(listing)
    }

    /// A page of a directory of `.mega`, as it was when it was opened.
    fn list_virtual(
        &mut self,
        directory: Virtual,
        fh: u64,
        offset: u64,
        limit: usize,
    ) -> OpResult<Vec<DirEntry>> {
        let names = self.handles.listing(fh).ok_or(Errno::BADF)?;
        let own = [".", ".."].map(|name| (name, Inside::Virtual(directory)));
        let others = names.iter().map(|(name, inside)| (name.as_str(), *inside));
        let mut listing = Vec::new();
        for (next_offset, (name, inside)) in (1..).zip(own.into_iter().chain(others)) {
            if next_offset <= offset {
                continue;
            }
            if listing.len() >= limit {
                break;
            }
            // What has gone since is left out.
            if let Ok(entry) = self.inside_entry(inside) {
                listing.push(DirEntry {
                    ino: entry.attr.ino,
                    next_offset,
                    kind: entry.attr.kind,
                    name: OsString::from(name),
                    entry,
                });
            }
        }
        Ok(listing)
    }
}
