//! statfs: the account's quota, less what is queued and not uploaded yet.

use crate::Vfs;
use crate::types::{OpResult, StatFs};

/// Unit of the reported figures, bytes.
const BLOCK: u32 = 4096;
/// Shown while the server has not told the quota: large, so that nothing refuses to write.
const UNKNOWN_TOTAL: u64 = 1 << 50;
/// Mega does not limit the number of nodes.
const MANY: u64 = 1 << 32;

impl Vfs {
    /// Free and total space.
    ///
    /// # Errors
    /// None at present.
    pub async fn statfs(&self) -> OpResult<StatFs> {
        let state = self.shared.lock();
        let queued: u64 = state
            .changes
            .iter()
            .filter(|row| !row.removed)
            .filter_map(|row| row.content.as_ref())
            .map(|content| content.size)
            .sum();
        let (total, free) = match state.quota {
            Some(quota) if quota.total > 0 => (
                quota.total,
                quota
                    .total
                    .saturating_sub(quota.used)
                    .saturating_sub(queued),
            ),
            _ => (UNKNOWN_TOTAL, UNKNOWN_TOTAL),
        };
        let unit = u64::from(BLOCK);
        Ok(StatFs {
            blocks: total / unit,
            bfree: free / unit,
            bavail: free / unit,
            files: MANY,
            ffree: MANY,
            bsize: BLOCK,
            namelen: 255,
        })
    }
}
