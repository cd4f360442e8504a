//! Where in the account something is, and what may be done there.
//!
//! Owns the rules of the rubbish bin and of folders that others share with us (protocol/03 section 5), so
//! that a change which Mega would refuse is refused at once, and none becomes a parked row. Promises that
//! nothing crosses a border that Mega cannot move it across: tools get EXDEV and copy. A place is found by
//! walking up in the view; directories are remembered until a folder moves.

use std::collections::HashMap;

use mega_proto::{NodeHandle, UserHandle};
use mega_store::{ChangeRow, ShareKind, ShareRow, Subject};
use mega_tree::node::Shape;
use rustix::io::Errno;
use serde_json::Value;

use crate::changes::{BINNED, FOREVER, clear_attribute, content_bytes, set_attribute};
use crate::state::{Found, State};
use crate::types::{OpResult, RenameMode};

/// Deeper than any path Linux can name: a cycle on the server must not hang us.
const DEEPEST: usize = 4096;
/// Directories that are remembered at a time.
const REMEMBERED: usize = 10_000;

/// What we may do in a folder of somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Access {
    /// List and read.
    Read,
    /// Also add files and folders, and give files new content.
    Write,
    /// Also rename, move and delete.
    Full,
}

impl Access {
    /// From `r`; what is not known counts as the least.
    pub(crate) fn from_level(level: Option<i64>) -> Self {
        match level {
            Some(1) => Self::Write,
            Some(level) if level >= 2 => Self::Full,
            _ => Self::Read,
        }
    }
}

/// A folder that somebody shares with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Incoming {
    pub(crate) sharer: Option<UserHandle>,
    pub(crate) access: Access,
    /// Its key is known.
    pub(crate) has_key: bool,
}

/// Where something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zone {
    /// In what is ours.
    Own,
    /// In the rubbish bin.
    Bin,
    /// In a folder of somebody else.
    Share {
        root: NodeHandle,
        access: Access,
        /// The key of a share above is known: what is put here can be read by those who see it.
        has_key: bool,
    },
    /// In nothing that we show, for example below a folder that was removed.
    Nowhere,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A new entry, or new content of a file.
    Write,
    /// Another time, permission or attribute.
    Edit,
}

impl State {
    /// Where a directory is.
    pub(crate) fn zone(&mut self, directory: Subject) -> OpResult<Zone> {
        if let Some(zone) = self.zones.get(&directory) {
            return Ok(*zone);
        }
        let zone = self.walk_up(directory)?;
        if self.zones.len() >= REMEMBERED {
            self.zones.clear();
        }
        self.zones.insert(directory, zone);
        Ok(zone)
    }

    fn walk_up(&self, directory: Subject) -> OpResult<Zone> {
        let mut share: Option<(NodeHandle, Access, bool)> = None;
        let mut at = directory;
        for _ in 0..DEEPEST {
            if at == self.root || at == Subject::Node(self.roots.cloud) {
                return Ok(Zone::Own);
            }
            if let Subject::Node(handle) = at {
                if Some(handle) == self.roots.rubbish {
                    return Ok(Zone::Bin);
                }
                if let Some(found) = self.incoming.get(&handle) {
                    // Of a share in a share the more generous one counts, and the outer one is the border.
                    let (_, access, has_key) = share.unwrap_or((handle, found.access, false));
                    let access = access.max(found.access);
                    share = Some((handle, access, has_key || found.has_key));
                }
            }
            match self.parent(at)? {
                Some(parent) => at = parent,
                None => break,
            }
        }
        Ok(
            share.map_or(Zone::Nowhere, |(root, access, has_key)| Zone::Share {
                root,
                access,
                has_key,
            }),
        )
    }

    /// Learns which folders others share with us, once their keys are known.
    pub(crate) fn take_shares(&mut self, shares: &[ShareRow]) {
        self.incoming = shares
            .iter()
            .filter(|share| share.kind == ShareKind::Incoming)
            .map(|share| {
                let access = Access::from_level(share.access);
                let sharer = share.user;
                let has_key = self.decryptor.share(share.handle).is_some();
                let incoming = Incoming {
                    sharer,
                    access,
                    has_key,
                };
                (share.handle, incoming)
            })
            .collect();
        self.keys_to_ask = shares
            .iter()
            .filter(|share| share.kind == ShareKind::OwnKey)
            .map(|share| share.handle)
            .filter(|handle| self.decryptor.share(*handle).is_none())
            .collect();
        self.contacts = shares
            .iter()
            .filter(|share| share.kind == ShareKind::Contact)
            .filter_map(|share| Some((share.user?, share.extra.clone()?)))
            .collect();
        self.forget_zones();
    }

    /// A folder has moved: what is known about it and what is in it is no longer.
    pub(crate) fn forget_zones(&mut self) {
        self.zones.clear();
    }

    /// Where the entry behind a subject is.
    fn zone_of(&mut self, subject: Subject) -> OpResult<Zone> {
        let is_border = match subject {
            Subject::Node(handle) => self.incoming.contains_key(&handle),
            Subject::Local(_) => false,
        };
        match self.parent(subject)? {
            Some(parent) if !is_border => self.zone(parent),
            _ => self.zone(subject),
        }
    }

    /// Whether a node lies in a folder of somebody else.
    pub(crate) fn is_in_share(&self, handle: NodeHandle) -> bool {
        !self.incoming.is_empty()
            && matches!(self.walk_up(Subject::Node(handle)), Ok(Zone::Share { .. }))
    }

    /// Whether what is changed is in a folder of somebody else, or is to be: its space is theirs.
    pub(crate) fn is_bound_for_share(&self, subject: Subject) -> bool {
        let is_in_share = |parent| matches!(self.walk_up(parent), Ok(Zone::Share { .. }));
        !self.incoming.is_empty()
            && self
                .parent(subject)
                .is_ok_and(|parent| parent.is_some_and(is_in_share))
    }

    /// Bytes of new content that need room in our account.
    pub(crate) fn own_content_bytes(&mut self) -> u64 {
        let all = self.changes.content_bytes();
        if all == 0 || self.incoming.is_empty() {
            return all;
        }
        // Most rows are in few folders.
        let mut by_folder: HashMap<Subject, u64> = HashMap::new();
        for row in self.changes.iter() {
            let bytes = content_bytes(row);
            if bytes > 0
                && let Ok(Some(folder)) = self.parent(row.subject)
            {
                let sum = by_folder.entry(folder).or_default();
                *sum = sum.saturating_add(bytes);
            }
        }
        let mut foreign: u64 = 0;
        for (folder, bytes) in by_folder {
            if matches!(self.zone(folder), Ok(Zone::Share { .. })) {
                foreign = foreign.saturating_add(bytes);
            }
        }
        all.saturating_sub(foreign)
    }

    /// Whether a folder is in a share whose key is not known. What is put there could be read by nobody, and
    /// not be told from what others put. In a folder of ours it could be read by us only: there this ends when
    /// the server has been asked and has no key, or has not answered for long.
    pub(crate) fn lacks_key(&self, folder: NodeHandle) -> bool {
        let is_theirs = self.incoming.values().any(|share| !share.has_key)
            && matches!(
                self.walk_up(Subject::Node(folder)),
                Ok(Zone::Share { has_key: false, .. })
            );
        is_theirs || (!self.keys_to_ask.is_empty() && self.is_below_unasked(folder))
    }

    fn is_below_unasked(&self, folder: NodeHandle) -> bool {
        let mut at = Some(Subject::Node(folder));
        for _ in 0..DEEPEST {
            match at {
                None => return false,
                Some(Subject::Node(handle)) if self.keys_to_ask.contains(&handle) => return true,
                Some(subject) => at = self.parent(subject).ok().flatten(),
            }
        }
        false
    }

    /// Whether the server takes other attributes of a node.
    pub(crate) fn takes_attributes(&self, handle: NodeHandle) -> bool {
        self.incoming.is_empty()
            || !matches!(
                self.walk_up(Subject::Node(handle)),
                Ok(Zone::Share { access, .. }) if access < Access::Full
            )
    }

    /// Whether entries of this directory may be changed so.
    ///
    /// # Errors
    /// EPERM in the bin; EROFS and EACCES in a share that does not allow it; EACCES where its key is not known.
    pub(crate) fn check_in(&mut self, directory: Subject, need: Need) -> OpResult<()> {
        check(self.zone(directory)?, need)
    }

    /// Whether this entry may be changed so.
    ///
    /// # Errors
    /// As [`State::check_in`].
    pub(crate) fn check_entry(&mut self, subject: Subject, need: Need) -> OpResult<()> {
        let zone = self.zone_of(subject)?;
        // What is still on its way carries its time and attributes along.
        let row = self.changes.get(subject);
        let is_ours = row.is_some_and(|row| row.content.is_some()) || is_local(subject);
        let need = match zone {
            Zone::Share { .. } if is_ours => Need::Write,
            _ => need,
        };
        check(zone, need)
    }

    /// Whether an entry of this directory may be removed; `true` when that is for good.
    ///
    /// # Errors
    /// EPERM in a share without `--hard-delete`, where nothing comes back; EROFS and EACCES in a share
    /// that does not allow it.
    pub(crate) fn check_removal(&mut self, directory: Subject, subject: Subject) -> OpResult<bool> {
        match self.zone(directory)? {
            Zone::Own | Zone::Nowhere => Ok(false),
            Zone::Bin => Ok(true),
            Zone::Share {
                access: Access::Read,
                ..
            } => Err(Errno::ROFS),
            Zone::Share { .. }
                if self.is_only_here(subject) && !self.stands_for_another(subject) =>
            {
                Ok(false)
            }
            Zone::Share {
                access: Access::Write,
                ..
            } => Err(Errno::ACCESS),
            Zone::Share { .. } if self.config.hard_delete => Ok(true),
            // Nobody but us has ever seen it.
            Zone::Share { .. } if is_local(subject) && !self.stands_for_another(subject) => {
                Ok(true)
            }
            Zone::Share { .. } => Err(Errno::PERM),
        }
    }

    /// Whether something may go from one directory to another; `true` when what it replaces goes for good.
    ///
    /// # Errors
    /// EXDEV across the border of a share; EPERM in and into the bin, except whole entries of ours that go
    /// to its top; EEXIST when something of that name is there; EBUSY while Mega does not have it yet; as
    /// [`State::check_removal`].
    pub(crate) fn check_rename(
        &mut self,
        (from, moved): (Subject, &Found),
        (to, replaced): (Subject, Option<&Found>),
        mode: RenameMode,
    ) -> OpResult<bool> {
        let is_exchange = mode == RenameMode::Exchange;
        match (self.zone(from)?, self.zone(to)?) {
            (Zone::Own | Zone::Nowhere, Zone::Own | Zone::Nowhere) => Ok(false),
            (Zone::Bin, Zone::Own) if !is_exchange => Ok(false),
            (Zone::Own, Zone::Bin) if Some(to) == self.roots.rubbish.map(Subject::Node) => {
                if replaced.is_some() || is_exchange {
                    return Err(Errno::EXIST);
                }
                if is_local(moved.subject) || self.changes.is_in_flight(moved.subject) {
                    return Err(Errno::BUSY);
                }
                Ok(false)
            }
            (Zone::Bin, Zone::Bin | Zone::Own) | (Zone::Own, Zone::Bin) => Err(Errno::PERM),
            (Zone::Share { root, access, .. }, Zone::Share { root: other, .. })
                if root == other =>
            {
                let is_leaving = from != to;
                self.check_rename_in_share(access, (moved, is_leaving), replaced, is_exchange)
            }
            _ => Err(Errno::XDEV),
        }
    }

    /// The changes below a folder that goes into the bin or comes out of it, marked accordingly: what is
    /// thrown away before Mega has it is there when it does, and does not bring its folder back.
    pub(crate) fn changes_below(
        &mut self,
        from: Subject,
        moved: &Found,
        to: Subject,
    ) -> OpResult<Vec<ChangeRow>> {
        if moved.facts.shape != Shape::Directory {
            return Ok(Vec::new());
        }
        let moved = moved.subject;
        let is_binned = match (self.zone(from)?, self.zone(to)?) {
            (Zone::Own, Zone::Bin) => true,
            (Zone::Bin, Zone::Own) => false,
            _ => return Ok(Vec::new()),
        };
        let mut below = Vec::new();
        for row in self.changes.iter() {
            if row.subject == moved || !self.is_within(row.subject, moved)? {
                continue;
            }
            let mut row = row.clone();
            if is_binned {
                set_attribute(&mut row, BINNED, Value::Bool(true));
            } else {
                clear_attribute(&mut row, BINNED);
            }
            below.push(row);
        }
        Ok(below)
    }

    fn check_rename_in_share(
        &self,
        access: Access,
        (moved, is_leaving): (&Found, bool),
        replaced: Option<&Found>,
        is_exchange: bool,
    ) -> OpResult<bool> {
        // Under another name beside it, it still becomes a version of what it has replaced.
        let leaves_nothing = !self.stands_for_another(moved.subject)
            || (!is_leaving && self.replaced_in_doubt(moved.subject).is_none());
        let is_ours = self.is_only_here(moved.subject) && leaves_nothing;
        let has_content = self
            .changes
            .get(moved.subject)
            .is_some_and(|row| row.content.is_some());
        if access == Access::Read {
            return Err(Errno::ROFS);
        }
        // What it replaces becomes a version of it, or was never sent.
        let is_harmless = match replaced {
            None => leaves_nothing,
            Some(other)
                if self.is_only_here(other.subject) && !self.stands_for_another(other.subject) =>
            {
                true
            }
            Some(_) => is_ours && has_content,
        };
        if is_ours && is_harmless && !is_exchange {
            return Ok(false);
        }
        if access == Access::Write {
            return Err(Errno::ACCESS);
        }
        if is_harmless || is_exchange {
            return Ok(false);
        }
        if self.config.hard_delete {
            return Ok(true);
        }
        // Once Mega has it, replacing would delete the other for good; a moment ago it would not have.
        if is_local(moved.subject) {
            return Err(Errno::BUSY);
        }
        Err(Errno::PERM)
    }

    /// Whether Mega has never heard of it. Its bytes may be there already, without a name.
    fn is_only_here(&self, subject: Subject) -> bool {
        is_local(subject) && !self.changes.is_in_doubt(subject)
    }

    /// Whether it has taken the place of something that Mega has, or is about to have: when it goes, that
    /// is still to be removed.
    fn stands_for_another(&self, subject: Subject) -> bool {
        let row = self.changes.get(subject);
        row.is_some_and(|row| row.replaces.is_some()) || self.replaced_in_doubt(subject).is_some()
    }

    /// What was on its way to Mega when something that is only here took its place.
    fn replaced_in_doubt(&self, subject: Subject) -> Option<Subject> {
        let place = self.changes.get(subject)?.place.as_ref()?;
        let mut placed = self.changes.placed_in(place.parent);
        let replaced = placed.find(|other| {
            other.subject != subject
                && other.removed
                && other.place.as_ref() == Some(place)
                && self.changes.is_in_doubt(other.subject)
        });
        replaced.map(|other| other.subject)
    }
}

fn is_local(subject: Subject) -> bool {
    matches!(subject, Subject::Local(_))
}

fn check(zone: Zone, need: Need) -> OpResult<()> {
    match (zone, need) {
        (Zone::Own | Zone::Nowhere, _) => Ok(()),
        (Zone::Bin, _) => Err(Errno::PERM),
        (
            Zone::Share {
                access, has_key, ..
            },
            need,
        ) => match (access, need) {
            (Access::Read, _) => Err(Errno::ROFS),
            (Access::Write, Need::Edit) => Err(Errno::ACCESS),
            (Access::Write | Access::Full, _) if !has_key => Err(Errno::ACCESS),
            (Access::Write | Access::Full, _) => Ok(()),
        },
    }
}

/// Whether a row asks for its node to be deleted and not to be thrown into the bin.
pub(crate) fn is_forever(row: &ChangeRow) -> bool {
    is_marked(row, FOREVER)
}

/// Whether we have thrown away the folder that a row is in: it belongs into the bin with it.
pub(crate) fn is_binned(row: &ChangeRow) -> bool {
    is_marked(row, BINNED)
}

fn is_marked(row: &ChangeRow, mark: &str) -> bool {
    let wish = row.attributes.as_ref().and_then(|map| map.get(mark));
    wish == Some(&Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_allows_what_its_level_says() {
        let share = |level| Zone::Share {
            root: NodeHandle::from_u48(1),
            access: Access::from_level(level),
            has_key: true,
        };
        assert_eq!(check(share(Some(0)), Need::Write), Err(Errno::ROFS));
        assert_eq!(check(share(None), Need::Edit), Err(Errno::ROFS));
        assert_eq!(check(share(Some(1)), Need::Write), Ok(()));
        assert_eq!(check(share(Some(1)), Need::Edit), Err(Errno::ACCESS));
        assert_eq!(check(share(Some(2)), Need::Edit), Ok(()));
        assert_eq!(check(share(Some(-1)), Need::Write), Err(Errno::ROFS));
        let unreadable = Zone::Share {
            root: NodeHandle::from_u48(1),
            access: Access::Full,
            has_key: false,
        };
        assert_eq!(check(unreadable, Need::Write), Err(Errno::ACCESS));
        assert_eq!(check(Zone::Bin, Need::Write), Err(Errno::PERM));
        assert_eq!(check(Zone::Own, Need::Edit), Ok(()));
    }
}
