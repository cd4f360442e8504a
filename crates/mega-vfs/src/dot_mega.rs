//! `.mega` at the mount's root: what an account has beside its files.
//!
//! It is in no listing and always there, as `.zfs` is. Owns its entries that exist on no server
//! ([`Virtual`]), their numbers, and what is in them:
//!
//! | | |
//! |---|---|
//! | `status` | what `megamount status --json` prints of this mount |
//! | `trash/` | the rubbish bin: the node itself, a directory like any other |
//! | `shares/USER/NAME` | folders that others share with us: nodes too |
//! | `versions/PATH/TIME NAME` | older contents of the file at PATH, read-only |
//!
//! Promises: a number (bit 60) says by itself what it stands for, so that nothing has to be remembered
//! for the kernel. What may be done below it is decided in module `zone`. Never: changes anything.

mod listing;

use std::sync::Arc;

use mega_proto::{NodeHandle, UserHandle};
use mega_store::{LocalId, Subject};
use rustix::io::Errno;

use crate::shared::Shared;
use crate::state::State;
use crate::types::{Attr, Entry, FileKind, OpResult, Timestamp};

/// What it is called; no entry of the root gets this spelling.
pub(crate) const NAME: &str = ".mega";

const BIT: u64 = 1 << 60;
/// Bits for the kind of an entry.
const KIND_SHIFT: u32 = 52;
const NUMBER_MASK: u64 = (1 << KIND_SHIFT) - 1;

/// Something below `.mega` that exists on no server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Virtual {
    /// `.mega` itself.
    Top,
    /// `status`.
    Status,
    /// `shares`.
    Shares,
    /// One who shares with us, by their place in `State::sharers`.
    Sharer(u32),
    /// `versions`, or a directory below it, by the directory that it is about.
    Versions(Subject),
    /// The older contents of a file.
    Chain(NodeHandle),
    /// One of them.
    Version(NodeHandle),
}

/// What a name below `.mega` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inside {
    Virtual(Virtual),
    /// A node, which is what it is wherever it is shown.
    Subject(Subject),
}

impl Virtual {
    /// Its inode number.
    pub(crate) fn ino(self) -> u64 {
        let (kind, number) = match self {
            Self::Top => (0, 1),
            Self::Status => (0, 2),
            Self::Shares => (0, 3),
            Self::Sharer(index) => (1, u64::from(index)),
            Self::Versions(Subject::Node(handle)) => (2, handle.to_u48()),
            Self::Versions(Subject::Local(id)) => (3, id.0),
            Self::Chain(handle) => (4, handle.to_u48()),
            Self::Version(handle) => (5, handle.to_u48()),
        };
        BIT | kind << KIND_SHIFT | (number & NUMBER_MASK)
    }

    /// What a number stands for; `None` when it is that of a node, or of something made here.
    pub(crate) fn of(ino: u64) -> Option<Self> {
        if ino & BIT == 0 || ino >= BIT << 1 {
            return None;
        }
        let number = ino & NUMBER_MASK;
        let handle = NodeHandle::from_u48(number);
        Some(match ((ino & !BIT) >> KIND_SHIFT, number) {
            (0, 1) => Self::Top,
            (0, 2) => Self::Status,
            (0, 3) => Self::Shares,
            (1, _) => Self::Sharer(u32::try_from(number).ok()?),
            (2, _) => Self::Versions(Subject::Node(handle)),
            (3, _) => Self::Versions(Subject::Local(LocalId(number))),
            (4, _) => Self::Chain(handle),
            (5, _) => Self::Version(handle),
            _ => return None,
        })
    }

    /// What a change of it is answered with.
    pub(crate) fn refusal(self) -> Errno {
        match self {
            Self::Top | Self::Status | Self::Shares | Self::Sharer(_) => Errno::PERM,
            Self::Versions(_) | Self::Chain(_) | Self::Version(_) => Errno::ROFS,
        }
    }
}

/// Refuses a change of what exists on no server.
pub(crate) fn check_real(ino: u64) -> OpResult<()> {
    match Virtual::of(ino) {
        Some(entry) => Err(entry.refusal()),
        None => Ok(()),
    }
}

/// Makes the document in `status`.
pub(crate) type StatusSource = Box<dyn Fn() -> Vec<u8> + Send + Sync>;

impl Shared {
    /// The document in `status`, as it is now. It takes locks of files, so it is made where one may wait.
    pub(crate) async fn status_document(self: &Arc<Self>) -> OpResult<Vec<u8>> {
        let shared = Arc::clone(self);
        let make = move || shared.status_source.get().map(|source| source());
        let made = tokio::task::spawn_blocking(make).await;
        made.map_err(|_| Errno::IO).map(Option::unwrap_or_default)
    }

    /// What `stat` shows of an entry that exists on no server.
    pub(crate) async fn virtual_entry(self: &Arc<Self>, entry: Virtual) -> OpResult<Entry> {
        let length = match entry {
            Virtual::Status => self.status_document().await?.len() as u64,
            _ => 0,
        };
        let mut state = self.lock();
        let mut found = state.virtual_entry(entry)?;
        if entry == Virtual::Status {
            found.attr.size = length;
            found.attr.blocks = length.div_ceil(512);
        }
        Ok(found)
    }
}

impl State {
    /// The user a number of [`Virtual::Sharer`] stands for.
    pub(crate) fn sharer(&self, index: u32) -> OpResult<UserHandle> {
        let at = usize::try_from(index).map_err(|_| Errno::STALE)?;
        self.sharers.get(at).copied().ok_or(Errno::STALE)
    }

    /// The node whose content can be read under this number, or what else it stands for.
    pub(crate) fn readable(&self, ino: u64) -> OpResult<Subject> {
        match Virtual::of(ino) {
            Some(Virtual::Version(handle)) => Ok(Subject::Node(handle)),
            Some(_) => Err(Errno::INVAL),
            None => self.subject(ino),
        }
    }

    /// What `stat` shows, without the length of `status`.
    pub(crate) fn virtual_entry(&mut self, entry: Virtual) -> OpResult<Entry> {
        let ttl = match entry {
            // The only one that nothing can change.
            Virtual::Top => self.config.attr_ttl,
            _ => std::time::Duration::ZERO,
        };
        let attr = match entry {
            Virtual::Version(handle) => {
                let attr = self.attr(Subject::Node(handle))?;
                Attr {
                    ino: entry.ino(),
                    perm: attr.perm & 0o555,
                    ..attr
                }
            }
            Virtual::Status => self.made_up(entry, FileKind::File, 0o400),
            Virtual::Top => self.made_up(entry, FileKind::Directory, 0o700),
            _ => self.made_up(entry, FileKind::Directory, 0o500),
        };
        Ok(Entry { attr, ttl })
    }

    fn made_up(&self, entry: Virtual, kind: FileKind, perm: u16) -> Attr {
        let now = match entry {
            Virtual::Status => Timestamp::now(),
            _ => self.started,
        };
        Attr {
            ino: entry.ino(),
            size: 0,
            blocks: 0,
            atime: now,
            mtime: now,
            ctime: now,
            kind,
            perm,
            // Nobody has counted what is in it.
            nlink: 1,
            uid: self.config.uid,
            gid: self.config.gid,
        }
    }

    /// What `stat` shows of an entry of a listing, and for how long the kernel may keep it.
    pub(crate) fn inside_entry(&mut self, inside: Inside) -> OpResult<Entry> {
        match inside {
            Inside::Virtual(entry) => self.virtual_entry(entry),
            // It may go, or be called something else, without a word to the kernel.
            Inside::Subject(subject) => Ok(Entry {
                attr: self.attr(subject)?,
                ttl: std::time::Duration::ZERO,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_say_what_they_stand_for() {
        let handle = NodeHandle([0xff; 6]);
        for entry in [
            Virtual::Top,
            Virtual::Status,
            Virtual::Shares,
            Virtual::Sharer(0),
            Virtual::Sharer(u32::MAX),
            Virtual::Versions(Subject::Node(handle)),
            Virtual::Versions(Subject::Local(LocalId(7))),
            Virtual::Chain(handle),
            Virtual::Version(NodeHandle::from_u48(0)),
        ] {
            assert_eq!(Virtual::of(entry.ino()), Some(entry));
            assert_eq!(entry.ino() & (7 << 60), BIT);
        }
    }

    #[test]
    fn other_numbers_are_not_ours() {
        for ino in [
            0,
            1,
            1 << 62 | 1 << 60,
            1 << 61 | 5,
            BIT,
            BIT | 9 << KIND_SHIFT,
        ] {
            assert_eq!(Virtual::of(ino), None, "{ino:x}");
        }
    }
}
