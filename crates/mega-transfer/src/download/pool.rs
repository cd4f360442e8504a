//! Units kept in memory because the cache on disk would not take them.
//!
//! Owns ciphertext of units by (node, unit), least recently used first out, never more bytes than its
//! share of the memory budget. It is a convenience, not a promise: a unit may be gone at the next
//! look, and whoever waits for a unit gets it without the pool.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lru::LruCache;
use mega_proto::NodeHandle;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct UnitPool {
    capacity: u64,
    // Innermost lock: nothing else is taken while it is held.
    units: Mutex<Units>,
}

#[derive(Debug)]
struct Units {
    bytes: u64,
    kept: LruCache<(NodeHandle, u64), Bytes>,
    per_node: HashMap<NodeHandle, usize>,
}

impl UnitPool {
    pub(crate) fn new(capacity: u64) -> Self {
        let units = Units {
            bytes: 0,
            kept: LruCache::unbounded(),
            per_node: HashMap::new(),
        };
        Self {
            capacity,
            units: Mutex::new(units),
        }
    }

    /// The most it keeps, in bytes.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes kept now.
    #[cfg(test)]
    pub(crate) fn used(&self) -> u64 {
        self.lock().bytes
    }

    /// The unit, if it is still here.
    pub(crate) fn get(&self, node: NodeHandle, unit: u64) -> Option<Bytes> {
        let mut units = self.lock();
        if !units.per_node.contains_key(&node) {
            return None;
        }
        units.kept.get(&(node, unit)).cloned()
    }

    /// Keeps a unit; the least recently used ones go first to make room.
    pub(crate) fn put(&self, node: NodeHandle, unit: u64, data: Bytes) {
        let len = data.len() as u64;
        if len > self.capacity {
            return;
        }
        let mut units = self.lock();
        units.remove(node, unit);
        while units.bytes + len > self.capacity {
            let Some(((node, unit), data)) = units.kept.pop_lru() else {
                break;
            };
            units.forget(node, unit, &data);
        }
        units.bytes += len;
        *units.per_node.entry(node).or_default() += 1;
        units.kept.put((node, unit), data);
    }

    /// Forgets every unit of a node whose units are numbered below `count`.
    pub(crate) fn drop_node(&self, node: NodeHandle) {
        let mut units = self.lock();
        if !units.per_node.contains_key(&node) {
            return;
        }
        let of_node: Vec<u64> = units
            .kept
            .iter()
            .filter(|((n, _), _)| *n == node)
            .map(|((_, unit), _)| *unit)
            .collect();
        for unit in of_node {
            units.remove(node, unit);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Units> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Units {
    fn remove(&mut self, node: NodeHandle, unit: u64) {
        if let Some(data) = self.kept.pop(&(node, unit)) {
            self.forget(node, unit, &data);
        }
    }

    fn forget(&mut self, node: NodeHandle, _unit: u64, data: &Bytes) {
        self.bytes -= data.len() as u64;
        if let Some(count) = self.per_node.get_mut(&node) {
            *count -= 1;
            if *count == 0 {
                self.per_node.remove(&node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_no_more_than_its_capacity_and_drops_the_oldest() {
        let pool = UnitPool::new(300);
        let node = NodeHandle::from_u48(7);
        for unit in 0..4 {
            pool.put(node, unit, Bytes::from(vec![0; 100]));
        }
        assert_eq!(pool.used(), 300);
        assert!(pool.get(node, 0).is_none());
        assert!(pool.get(node, 3).is_some());
        pool.drop_node(node);
        assert_eq!(pool.used(), 0);
        assert!(pool.get(node, 3).is_none());
    }
}
