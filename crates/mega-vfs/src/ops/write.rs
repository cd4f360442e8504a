//! write, fallocate: into the top layer of staging, never to the network.

use rustix::io::Errno;

use crate::Vfs;
use crate::errno::store_errno;
use crate::types::{OpResult, Timestamp, WriteAt};

const KEEP_SIZE: i32 = 0x01;
const PUNCH_HOLE: i32 = 0x02;
const ZERO_RANGE: i32 = 0x10;
/// Zeros are written in pieces of this size, bytes.
const ZERO_PIECE: usize = 1 << 20;

impl Vfs {
    /// Writes to an open file. Whether at its end is said with each write and not by the handle: the
    /// flag can be set and cleared on an open file, and pages that were changed through a mapping are
    /// written where they belong.
    ///
    /// # Errors
    /// EBADF, ENOSPC (local disk, or the account has no room), EDQUOT (Mega has refused an upload for
    /// want of room), EIO (after a failed fsync), EFBIG.
    pub async fn write(&self, _ino: u64, fh: u64, at: WriteAt, data: &[u8]) -> OpResult<u32> {
        let handle = self.shared.lock().handles.file(fh).ok_or(Errno::BADF)?;
        if !handle.mode.write {
            return Err(Errno::BADF);
        }
        self.shared.check_open()?;
        let mut content = handle.file.lock();
        let offset = match at {
            WriteAt::Offset(offset) => offset,
            WriteAt::End => content.size,
        };
        let end = offset
            .checked_add(data.len() as u64)
            .filter(|end| *end <= i64::MAX as u64);
        let end = end.ok_or(Errno::FBIG)?;
        self.shared.make_room(&handle.file, &mut content, end)?;
        content
            .write(&self.shared.store, offset, data)
            .map_err(|error| store_errno(&error))?;
        handle.file.set_mtime(Timestamp::now());
        handle.file.publish(&content);
        u32::try_from(data.len()).map_err(|_| Errno::INVAL)
    }

    /// Allocation is only a length here; punching and zeroing write zeros.
    ///
    /// # Errors
    /// EBADF, EOPNOTSUPP for other modes, ENOSPC, EDQUOT, EFBIG.
    pub async fn fallocate(
        &self,
        _ino: u64,
        fh: u64,
        offset: u64,
        length: u64,
        mode: i32,
    ) -> OpResult<()> {
        let handle = self.shared.lock().handles.file(fh).ok_or(Errno::BADF)?;
        if !handle.mode.write {
            return Err(Errno::BADF);
        }
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= i64::MAX as u64);
        let end = end.ok_or(Errno::FBIG)?;
        let keeps_size = mode & KEEP_SIZE != 0;
        let zeroes = match mode & !KEEP_SIZE {
            0 => false,
            PUNCH_HOLE if keeps_size => true,
            ZERO_RANGE => true,
            _ => return Err(Errno::OPNOTSUPP),
        };
        let mut content = handle.file.lock();
        let old_size = content.size;
        let wanted = if keeps_size { old_size } else { end };
        self.shared.make_room(&handle.file, &mut content, wanted)?;
        if !keeps_size && end > old_size {
            content
                .truncate(&self.shared.store, end)
                .map_err(|error| store_errno(&error))?;
        }
        if zeroes {
            let zeros = vec![0; ZERO_PIECE];
            let mut at = offset;
            let stop = end.min(old_size);
            while at < stop {
                let piece = usize::try_from(stop - at)
                    .unwrap_or(ZERO_PIECE)
                    .min(ZERO_PIECE);
                let bytes = zeros.get(..piece).unwrap_or_default();
                content
                    .write(&self.shared.store, at, bytes)
                    .map_err(|e| store_errno(&e))?;
                at += piece as u64;
            }
        }
        handle.file.set_mtime(Timestamp::now());
        handle.file.publish(&content);
        Ok(())
    }
}
