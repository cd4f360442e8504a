//! copy_file_range: answered so that the tool copies the bytes itself; a server-side copy is decided
//! elsewhere.

use rustix::io::Errno;

use crate::Vfs;
use crate::types::OpResult;

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

impl Vfs {
    /// Copies between open files.
    ///
    /// # Errors
    /// EOPNOTSUPP: callers copy by reading and writing.
    pub async fn copy_file_range(&self, _range: CopyRange) -> OpResult<u64> {
        Err(Errno::OPNOTSUPP)
    }
}
