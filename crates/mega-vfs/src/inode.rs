//! Inode numbers and what they stand for.
//!
//! The root is 1. A node's number is its 48-bit handle with bit 62, a thing made here has its local
//! id with bit 61. Only our own uploads rebind a number to another node; while a number is bound to
//! something else than its natural subject it is in this table, and the natural subject gets a local
//! number when it is shown. Clean, unbound inodes cost one lookup count and nothing else.
//!
//! Some of what `stat` shows exists on no server: access times, the time of the last change, and
//! everything about what was removed and is still referred to. It is kept here, for as long as the
//! kernel knows the inode.

use std::collections::HashMap;

use mega_proto::NodeHandle;
use mega_store::{LocalId, Subject};

use crate::lookups::Lookups;
use crate::types::{Attr, Timestamp};

/// The root of the mount.
pub(crate) const ROOT_INO: u64 = 1;
pub(crate) const NODE_BIT: u64 = 1 << 62;
const LOCAL_BIT: u64 = 1 << 61;
const NUMBER_MASK: u64 = LOCAL_BIT - 1;

#[derive(Debug)]
pub(crate) struct Inodes {
    root: Subject,
    by_ino: HashMap<u64, Subject>,
    by_subject: HashMap<Subject, u64>,
    lookups: Lookups,
    times: HashMap<u64, Times>,
    removed: HashMap<u64, Attr>,
}

/// Times that only this mount knows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    /// As set by an application.
    pub(crate) atime: Option<Timestamp>,
    /// When name or attributes were last changed here.
    pub(crate) ctime: Option<Timestamp>,
}

fn natural(subject: Subject) -> u64 {
    match subject {
        Subject::Node(handle) => handle.to_u48() | NODE_BIT,
        Subject::Local(id) => (id.0 & NUMBER_MASK) | LOCAL_BIT,
    }
}

impl Inodes {
    pub(crate) fn new(root: Subject) -> Self {
        Self {
            root,
            by_ino: HashMap::new(),
            by_subject: HashMap::new(),
            lookups: Lookups::default(),
            times: HashMap::new(),
            removed: HashMap::new(),
        }
    }

    /// What an inode number stands for; `None` for numbers that were never given out.
    pub(crate) fn subject(&self, ino: u64) -> Option<Subject> {
        if ino == ROOT_INO {
            return Some(self.root);
        }
        if let Some(subject) = self.by_ino.get(&ino) {
            return Some(*subject);
        }
        if ino & NODE_BIT != 0 {
            Some(Subject::Node(NodeHandle::from_u48(ino & !NODE_BIT)))
        } else if ino & LOCAL_BIT != 0 {
            Some(Subject::Local(LocalId(ino & NUMBER_MASK)))
        } else {
            None
        }
    }

    /// The number of a subject. `fresh_local` is asked for a number when the natural one is taken.
    pub(crate) fn ino(&mut self, subject: Subject, fresh_local: impl FnOnce() -> u64) -> u64 {
        if subject == self.root {
            return ROOT_INO;
        }
        if let Some(ino) = self.by_subject.get(&subject) {
            return *ino;
        }
        let number = natural(subject);
        if self.by_ino.contains_key(&number) {
            let number = (fresh_local() & NUMBER_MASK) | LOCAL_BIT;
            self.bind(number, subject);
            return number;
        }
        number
    }

    /// The number of a subject if it can be told without making one.
    pub(crate) fn known_ino(&self, subject: Subject) -> Option<u64> {
        if subject == self.root {
            return Some(ROOT_INO);
        }
        if let Some(ino) = self.by_subject.get(&subject) {
            return Some(*ino);
        }
        let number = natural(subject);
        (!self.by_ino.contains_key(&number)).then_some(number)
    }

    /// The number by which the kernel knows a subject, if it does.
    pub(crate) fn kernel_ino(&self, subject: Subject) -> Option<u64> {
        self.known_ino(subject).filter(|ino| self.is_known(*ino))
    }

    fn bind(&mut self, ino: u64, subject: Subject) {
        self.by_ino.insert(ino, subject);
        self.by_subject.insert(subject, ino);
    }

    /// The inode of `old` stands for `new` from now on.
    pub(crate) fn rebind(&mut self, old: Subject, new: Subject) {
        let number = self.by_subject.remove(&old).unwrap_or_else(|| natural(old));
        if number == natural(new) {
            self.by_ino.remove(&number);
            self.by_subject.remove(&new);
        } else {
            self.bind(number, new);
        }
    }

    /// Counts `count` kernel references.
    pub(crate) fn remember(&mut self, ino: u64, count: u64) {
        if ino != ROOT_INO {
            self.lookups.add(ino, count);
            // It is given out under a name again.
            self.removed.remove(&ino);
        }
    }

    /// Drops references; `true` when none is left.
    pub(crate) fn forget(&mut self, ino: u64, count: u64) -> bool {
        if !self.lookups.contains(ino) {
            return true;
        }
        let is_last = self.lookups.take(ino, count);
        if is_last {
            self.times.remove(&ino);
            self.removed.remove(&ino);
        }
        is_last
    }

    /// Whether the kernel knows this inode.
    pub(crate) fn is_known(&self, ino: u64) -> bool {
        ino == ROOT_INO || self.lookups.contains(ino)
    }

    /// The times that are known of an inode here only.
    pub(crate) fn times(&self, ino: u64) -> Times {
        self.times.get(&ino).copied().unwrap_or_default()
    }

    /// Notes a change of name or attributes, and the access time if one was set.
    pub(crate) fn changed(&mut self, ino: u64, atime: Option<Timestamp>) {
        if self.is_known(ino) {
            let times = self.times.entry(ino).or_default();
            times.ctime = Some(Timestamp::now());
            times.atime = atime.or(times.atime);
        }
    }

    /// Keeps what `stat` shows of an inode whose name was taken away.
    pub(crate) fn set_removed(&mut self, ino: u64, attr: Attr) {
        if self.is_known(ino) {
            self.removed.insert(ino, attr);
        }
    }

    /// What was kept of an inode that has no name any more.
    pub(crate) fn removed(&self, ino: u64) -> Option<Attr> {
        self.removed.get(&ino).copied()
    }

    /// Ends a special binding, when nothing needs it any more.
    pub(crate) fn unbind(&mut self, ino: u64) {
        if let Some(subject) = self.by_ino.remove(&ino) {
            self.by_subject.remove(&subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u64) -> Subject {
        Subject::Node(NodeHandle::from_u48(number))
    }

    #[test]
    fn a_rebound_number_is_not_given_out_twice() {
        let mut inodes = Inodes::new(node(9));
        let first = inodes.ino(node(1), || unreachable!("the natural number is free"));
        inodes.rebind(node(1), node(2));
        assert_eq!(inodes.subject(first), Some(node(2)));
        assert_eq!(inodes.ino(node(2), || unreachable!("bound")), first);
        let other = inodes.ino(node(1), || 77);
        assert_ne!(other, first);
        assert_eq!(inodes.subject(other), Some(node(1)));
    }

    #[test]
    fn upload_chains_keep_the_inode() {
        let mut inodes = Inodes::new(node(9));
        let local = Subject::Local(LocalId(5));
        let ino = inodes.ino(local, || unreachable!("the natural number is free"));
        inodes.rebind(local, node(1));
        inodes.rebind(node(1), node(2));
        inodes.rebind(node(2), node(3));
        assert_eq!(inodes.subject(ino), Some(node(3)));
        inodes.unbind(ino);
        assert_eq!(inodes.known_ino(node(3)), Some(3 | NODE_BIT));
    }

    #[test]
    fn what_only_we_know_goes_when_the_kernel_forgets() {
        let mut inodes = Inodes::new(node(9));
        let atime = Timestamp::from_secs(5);
        let ino = inodes.ino(node(1), || unreachable!("the natural number is free"));
        inodes.changed(ino, Some(atime));
        assert_eq!(inodes.times(ino).atime, None, "nobody knows it");
        inodes.remember(ino, 2);
        inodes.changed(ino, Some(atime));
        inodes.changed(ino, None);
        assert_eq!(inodes.times(ino).atime, Some(atime));
        assert!(inodes.times(ino).ctime.is_some());
        assert!(!inodes.forget(ino, 1));
        assert!(inodes.forget(ino, 1));
        assert!(inodes.times(ino).atime.is_none() && inodes.times(ino).ctime.is_none());
    }

    #[test]
    fn the_root_is_one() {
        let mut inodes = Inodes::new(node(9));
        assert_eq!(inodes.ino(node(9), || 0), ROOT_INO);
        assert_eq!(inodes.subject(ROOT_INO), Some(node(9)));
        assert_eq!(inodes.subject(0), None);
    }
}
