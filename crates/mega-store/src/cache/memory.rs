//! `--cache off`: a few recent units in memory, nothing on disk.

use std::sync::Arc;

use lru::LruCache;
use mega_proto::NodeHandle;

/// Enough that a reader finds what its own read-ahead brought.
const LIMIT: usize = 16 << 20;

/// Recent units of all blobs, bounded in bytes.
#[derive(Debug)]
pub(super) struct MemoryUnits {
    units: LruCache<(NodeHandle, u64), Arc<[u8]>>,
    bytes: usize,
}

impl MemoryUnits {
    pub(super) fn new() -> Self {
        Self {
            units: LruCache::unbounded(),
            bytes: 0,
        }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn contains(&self, handle: NodeHandle, unit: u64) -> bool {
        self.units.contains(&(handle, unit))
    }

    pub(super) fn get(&mut self, handle: NodeHandle, unit: u64) -> Option<Arc<[u8]>> {
        self.units.get(&(handle, unit)).cloned()
    }

    pub(super) fn put(&mut self, handle: NodeHandle, unit: u64, bytes: &[u8]) {
        self.bytes += bytes.len();
        if let Some((_, old)) = self.units.push((handle, unit), bytes.into()) {
            self.bytes -= old.len();
        }
        while self.bytes > LIMIT {
            let Some((_, old)) = self.units.pop_lru() else {
                break;
            };
            self.bytes -= old.len();
        }
    }

    pub(super) fn remove(&mut self, handle: NodeHandle, units: u64) {
        for unit in 0..units {
            if let Some(old) = self.units.pop(&(handle, unit)) {
                self.bytes -= old.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_below_its_bound() {
        let mut memory = MemoryUnits::new();
        let unit = vec![1; 128 << 10];
        let handle = NodeHandle([1; 6]);
        for number in 0..1000 {
            memory.put(handle, number, &unit);
            memory.put(handle, number, &unit);
            assert!(memory.bytes() <= LIMIT);
        }
        assert!(memory.get(handle, 999).is_some() && !memory.contains(handle, 0));
        memory.remove(handle, 1000);
        assert_eq!(memory.bytes(), 0);
    }
}
