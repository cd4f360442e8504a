//! read, lseek: local layers over the base node's cached or remote bytes.

use bytes::{Bytes, BytesMut};
use mega_transfer::ReadCursor;
use rustix::io::Errno;

use crate::Vfs;
use crate::errno::{store_errno, transfer_errno};
use crate::file::{FileNode, Source, slice_of};
use crate::shared::Shared;
use crate::types::OpResult;

impl Shared {
    /// Reads up to `size` bytes; short only at the end of the file.
    pub(crate) async fn read_file(
        &self,
        file: &FileNode,
        cursor: &ReadCursor,
        offset: u64,
        size: u32,
    ) -> OpResult<Bytes> {
        let (pieces, base, mut buffer, end) = {
            let content = file.lock();
            let end = content.size.min(offset.saturating_add(u64::from(size)));
            if offset >= end {
                return Ok(Bytes::new());
            }
            if content.layers.is_empty()
                && let Some(base) = content.base.clone()
                && base.size == content.size
            {
                let length = usize::try_from(end - offset).map_err(|_| Errno::INVAL)?;
                drop(content);
                // The common case: a clean file, answered from the cache without a copy.
                return match base
                    .remote
                    .try_read(offset, length)
                    .map_err(|e| transfer_errno(&e))?
                {
                    Some(bytes) => Ok(bytes),
                    None => base
                        .remote
                        .read(offset, length, cursor)
                        .await
                        .map_err(|error| transfer_errno(&error)),
                };
            }
            let pieces = content.plan(offset..end, content.layers.len());
            let length = usize::try_from(end - offset).map_err(|_| Errno::INVAL)?;
            let mut buffer = BytesMut::zeroed(length);
            content
                .read_layers(&pieces, offset, &mut buffer)
                .map_err(|error| store_errno(&error))?;
            (pieces, content.base.clone(), buffer, end)
        };
        debug_assert!(end > offset);
        for (range, source) in &pieces {
            if *source != Source::Base {
                continue;
            }
            // Its node is gone, and these bytes were never fetched.
            let base = base.as_ref().ok_or(Errno::IO)?;
            let length = usize::try_from(range.end - range.start).map_err(|_| Errno::INVAL)?;
            let bytes = match base
                .remote
                .try_read(range.start, length)
                .map_err(|error| transfer_errno(&error))?
            {
                Some(bytes) => bytes,
                None => base
                    .remote
                    .read(range.start, length, cursor)
                    .await
                    .map_err(|error| transfer_errno(&error))?,
            };
            if bytes.len() != length {
                return Err(Errno::IO);
            }
            if let Some(target) = slice_of(&mut buffer, offset, range) {
                target.copy_from_slice(&bytes);
            }
        }
        Ok(buffer.freeze())
    }
}

impl Vfs {
    /// Reads from an open file.
    ///
    /// # Errors
    /// EBADF, EIO (also: content does not match its MAC), EDQUOT (transfer quota), ESTALE (node
    /// gone), ETIMEDOUT, ENOSPC never.
    pub async fn read(&self, _ino: u64, fh: u64, offset: u64, size: u32) -> OpResult<Bytes> {
        let handle = self.shared.lock().handles.file(fh).ok_or(Errno::BADF)?;
        self.shared
            .read_file(&handle.file, &handle.cursor, offset, size)
            .await
    }

    /// `SEEK_DATA` (3) and `SEEK_HOLE` (4): every file is all data, with the hole at its end.
    ///
    /// # Errors
    /// ENXIO beyond the end, EINVAL for other directions, EBADF.
    pub async fn lseek(&self, _ino: u64, fh: u64, offset: i64, whence: i32) -> OpResult<i64> {
        let handle = self.shared.lock().handles.file(fh).ok_or(Errno::BADF)?;
        let size = i64::try_from(handle.file.lock().size).unwrap_or(i64::MAX);
        if offset < 0 || offset >= size {
            return Err(Errno::NXIO);
        }
        match whence {
            3 => Ok(offset),
            4 => Ok(size),
            _ => Err(Errno::INVAL),
        }
    }
}
