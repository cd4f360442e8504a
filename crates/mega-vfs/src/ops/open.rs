//! open, flush, release.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mega_store::Subject;
use rustix::io::Errno;

use crate::Vfs;
use crate::dot_mega::Virtual;
use crate::errno::store_errno;
use crate::file::FileNode;
use crate::handles::{FileHandle, Handle};
use crate::shared::Shared;
use crate::state::State;
use crate::types::{FileKind, OpResult, OpenMode, Opened, Timestamp};
use crate::zone::Need;

impl Shared {
    /// Registers an open of the file `ino`. The caller holds no lock.
    pub(crate) fn open_handle(&self, ino: u64, mode: OpenMode) -> OpResult<Opened> {
        // Also of a handle that only reads: the kernel has asked for the permission to write.
        let truncates = mode.truncate;
        self.with_content(ino, |file, content| {
            if truncates {
                content
                    .truncate(&self.store, 0)
                    .map_err(|error| store_errno(&error))?;
                file.set_mtime(Timestamp::now());
            }
            content.openers += 1;
            content.writers += u32::from(mode.write);
            file.publish(content);
            // Bytes that were never checked against the MAC may not outlive the handle that read them.
            let is_checked = content
                .base
                .as_ref()
                .is_none_or(|base| base.remote.is_verified());
            let keep_cache = !content.is_dirty && is_checked;
            let cursor = mega_transfer::ReadCursor::default();
            let handle = FileHandle {
                file: Arc::clone(file),
                mode,
                cursor,
                has_read: AtomicBool::new(false),
            };
            let fh = self.lock().handles.insert(Handle::File(Arc::new(handle)));
            if truncates {
                self.commit_content(file, content)?;
            }
            Ok(Opened {
                fh,
                keep_cache,
                is_direct: false,
            })
        })
    }
}

impl Vfs {
    /// Opens a file.
    ///
    /// # Errors
    /// EROFS, EISDIR, EACCES (no key for its content), ESTALE, ENOSPC.
    pub async fn open(&self, ino: u64, mode: OpenMode) -> OpResult<Opened> {
        if mode.write || mode.truncate {
            self.shared.check_writable()?;
            self.shared.check_open()?;
        }
        let ino = match Virtual::of(ino) {
            None => {
                let mut state = self.shared.lock();
                // What was removed since it was looked up is opened as if that had come later.
                let removed = state.removed_attr(ino);
                let subject = state.subject(ino)?;
                let kind = match removed {
                    Some(attr) => attr.kind,
                    None => state.attr(subject)?.kind,
                };
                if kind == FileKind::Directory {
                    return Err(Errno::ISDIR);
                }
                if (mode.write || mode.truncate) && removed.is_none() {
                    state.check_entry(subject, Need::Write)?;
                }
                ino
            }
            Some(entry) if mode.write || mode.truncate => return Err(entry.refusal()),
            Some(Virtual::Status) => {
                let document = self.shared.status_document().await?;
                let handle = Handle::Document(document.into());
                return Ok(Opened {
                    fh: self.shared.lock().handles.insert(handle),
                    keep_cache: false,
                    is_direct: true,
                });
            }
            // Under the number that it has as a file.
            Some(Virtual::Version(handle)) => self.shared.lock().ino(Subject::Node(handle))?,
            Some(_) => return Err(Errno::ISDIR),
        };
        self.shared.open_handle(ino, mode)
    }

    /// Called at every close: the change is queued, and survives the end of this process.
    ///
    /// # Errors
    /// EBADF, ENOSPC, EIO.
    pub async fn flush(&self, _ino: u64, fh: u64) -> OpResult<()> {
        let handle = {
            let state = self.shared.lock();
            if state.handles.document(fh).is_some() {
                return Ok(());
            }
            state.handles.file(fh).ok_or(Errno::BADF)?
        };
        if !handle.mode.write {
            return Ok(());
        }
        let mut content = handle.file.lock();
        self.shared.commit_content(&handle.file, &mut content)
    }

    /// Ends a handle.
    ///
    /// # Errors
    /// EBADF; what `flush` answers.
    pub async fn release(&self, _ino: u64, fh: u64) -> OpResult<()> {
        let removed = self.shared.lock().handles.remove(fh);
        let handle = match removed {
            Some(Handle::File(handle)) => handle,
            Some(Handle::Document(_)) => return Ok(()),
            Some(Handle::Directory(_) | Handle::Listing(_)) | None => return Err(Errno::BADF),
        };
        let mut content = handle.file.lock();
        let committed = self.shared.commit_content(&handle.file, &mut content);
        content.openers = content.openers.saturating_sub(1);
        content.writers = content.writers.saturating_sub(u32::from(handle.mode.write));
        handle.file.publish(&content);
        if handle.mode.write && content.is_dirty && content.writers == 0 {
            self.shared.start_write_back(&handle.file);
        }
        self.shared.let_go(&handle.file, &mut content);
        drop(content);
        self.shared.wake.notify_one();
        committed
    }
}

impl Shared {
    /// The write-back delay counts from the last close of a writer.
    fn start_write_back(&self, file: &FileNode) {
        let mut state = self.lock();
        let Ok(subject) = state.subject(file.ino) else {
            return;
        };
        let Some(due) = state.changes.get(subject).map(|row| state.rewrite_due(row)) else {
            return;
        };
        State::set_due(&mut state, subject, due);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }
}
