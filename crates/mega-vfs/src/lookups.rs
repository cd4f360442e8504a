//! How often the kernel refers to each inode.
//!
//! The kernel may know every node of a large account (after `find`), so a node costs nine bytes here and
//! not the twenty of two plain numbers: its handle and a short count. What does not fit is counted apart.

use std::collections::HashMap;

use crate::inode::NODE_BIT;

/// Tables that have room for this many are not made smaller.
const SMALL: usize = 1 << 14;

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    nodes: HashMap<[u8; 6], u16>,
    /// Inodes that are no nodes, and what is beyond the short count of those that are.
    others: HashMap<u64, u64>,
}

/// The handle in a node's number.
fn handle(ino: u64) -> Option<[u8; 6]> {
    let [tag, 0, handle @ ..] = ino.to_be_bytes() else {
        return None;
    };
    (u64::from(tag) << 56 == NODE_BIT).then_some(handle)
}

impl Lookups {
    /// Counts `count` references.
    pub(crate) fn add(&mut self, ino: u64, count: u64) {
        let mut rest = count;
        if let Some(handle) = handle(ino) {
            let short = self.nodes.entry(handle).or_insert(0);
            let room = u64::from(u16::MAX - *short).min(count);
            // It is at most the room in a short count.
            *short += u16::try_from(room).unwrap_or(0);
            rest -= room;
        }
        if rest > 0 {
            let long = self.others.entry(ino).or_insert(0);
            *long = long.saturating_add(rest);
        }
    }

    /// Takes `count` references away; whether none is left.
    pub(crate) fn take(&mut self, ino: u64, count: u64) -> bool {
        let mut rest = count;
        if let Some(long) = self.others.get_mut(&ino) {
            let taken = rest.min(*long);
            *long -= taken;
            rest -= taken;
            if *long == 0 {
                self.others.remove(&ino);
            }
        }
        if let Some(handle) = handle(ino)
            && let Some(short) = self.nodes.get_mut(&handle)
        {
            *short = short.saturating_sub(u16::try_from(rest).unwrap_or(u16::MAX));
            if *short == 0 {
                self.nodes.remove(&handle);
                self.shrink();
            }
        }
        !self.contains(ino)
    }

    /// The kernel forgets many at once, when memory is scarce.
    fn shrink(&mut self) {
        if self.nodes.capacity() > SMALL && self.nodes.len() < self.nodes.capacity() / 8 {
            self.nodes.shrink_to(self.nodes.capacity() / 4);
        }
    }

    /// Whether there are references.
    pub(crate) fn contains(&self, ino: u64) -> bool {
        let is_node = handle(ino).is_some_and(|handle| self.nodes.contains_key(&handle));
        is_node || self.others.contains_key(&ino)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INODES: [u64; 5] = [
        NODE_BIT,
        NODE_BIT | 1,
        NODE_BIT | ((1 << 48) - 1),
        1 << 61,
        (1 << 61) | 1,
    ];

    proptest! {
        #[test]
        fn equals_plain_counts(
            steps in prop::collection::vec((0_usize..5, any::<bool>(), prop_oneof![1_u64..4, 1_u64..200_000]), 1..60),
        ) {
            let mut lookups = Lookups::default();
            let mut plain: HashMap<u64, u64> = HashMap::new();
            for (which, is_add, count) in steps {
                let ino = INODES[which];
                let known = plain.entry(ino).or_insert(0);
                if is_add {
                    *known += count;
                    lookups.add(ino, count);
                } else {
                    *known = known.saturating_sub(count);
                    let is_gone = *known == 0;
                    prop_assert_eq!(lookups.take(ino, count), is_gone);
                }
                for ino in INODES {
                    prop_assert_eq!(lookups.contains(ino), plain.get(&ino).is_some_and(|count| *count > 0));
                }
            }
        }
    }

    #[test]
    fn forgotten_inodes_leave_no_table() {
        let mut lookups = Lookups::default();
        for number in 0..100_000 {
            lookups.add(NODE_BIT | number, 1);
        }
        for number in 0..100_000 {
            assert!(lookups.take(NODE_BIT | number, 1));
        }
        assert!(
            lookups.nodes.capacity() <= 2 * SMALL,
            "{}",
            lookups.nodes.capacity()
        );
    }
}
