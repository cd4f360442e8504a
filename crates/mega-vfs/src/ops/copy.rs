//! copy_file_range: the target shows the source's node; no byte moves.
//!
//! A copy begins at offset 0 of a clean file, into an empty one, and goes on where it stopped: the
//! target's base becomes the source's node, its size what was copied so far. When that is the whole
//! node by the time the target is pushed, the server makes the copy; otherwise the bytes are fetched and
//! uploaded like any others. Everything else is answered so that the tool copies by reading and writing.

use rustix::io::Errno;

use crate::Vfs;
use crate::errno::store_errno;
use crate::file::{Base, FileNode};
use crate::handles::FileHandle;
use crate::types::{OpResult, Timestamp};

/// A copy request between two open files.
#[derive(Debug, Clone, Copy)]
pub struct CopyRange {
    /// Source handle.
    pub fh_in: u64,
    /// Source offset, bytes.
    pub offset_in: u64,
    /// Target handle.
    pub fh_out: u64,
    /// Target offset, bytes.
    pub offset_out: u64,
    /// Bytes to copy.
    pub length: u64,
}

/// The node of a file that has no changes.
fn clean_base(file: &FileNode) -> OpResult<Base> {
    let content = file.lock();
    if content.is_dirty || !content.layers.is_empty() {
        return Err(Errno::OPNOTSUPP);
    }
    content.base.clone().ok_or(Errno::OPNOTSUPP)
}

impl Vfs {
    /// Copies between open files; bytes copied, 0 at the end of the source.
    ///
    /// # Errors
    /// EBADF; EOPNOTSUPP for what the server cannot copy: callers then read and write.
    pub async fn copy_file_range(&self, range: CopyRange) -> OpResult<u64> {
        self.shared.check_open()?;
        let handles = {
            let state = self.shared.lock();
            (
                state.handles.file(range.fh_in),
                state.handles.file(range.fh_out),
            )
        };
        let (Some(source), Some(target)) = handles else {
            return Err(Errno::BADF);
        };
        if !source.mode.read || !target.mode.write {
            return Err(Errno::BADF);
        }
        let is_same = source.file.ino == target.file.ino;
        if is_same || range.offset_in != range.offset_out {
            return Err(Errno::OPNOTSUPP);
        }
        // One lock after the other: two files copied into each other must not wait for each other.
        let base = clean_base(&source.file)?;
        self.show_base(&target, &base, range)
    }

    fn show_base(&self, target: &FileHandle, base: &Base, range: CopyRange) -> OpResult<u64> {
        let file = &target.file;
        let mut content = file.lock();
        let offset = range.offset_out;
        if content.size != offset {
            return Err(Errno::OPNOTSUPP);
        }
        if offset == 0 {
            if content.attempt.is_some() || content.is_doubted {
                return Err(Errno::OPNOTSUPP);
            }
        } else if !content.layers.is_empty()
            || content.base.as_ref().map(|base| base.handle) != Some(base.handle)
        {
            return Err(Errno::OPNOTSUPP);
        }
        let end = base.size.min(offset.saturating_add(range.length));
        if end <= offset {
            return Ok(0);
        }
        if offset == 0 {
            // Nothing of an empty file shows: its layers may go.
            for layer in content.layers.drain(..) {
                layer.file.delete().map_err(|error| store_errno(&error))?;
            }
            content.base = Some(base.clone());
            content.is_base_lost = false;
        }
        content.size = end;
        content.touched();
        file.set_mtime(Timestamp::now());
        file.publish(&content);
        Ok(end - offset)
    }
}
