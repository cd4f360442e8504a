//! The view: server truth with the local changes over it, directory by directory.
//!
//! Everything here is under one lock (`Shared::state`), held for short, synchronous sections: memory,
//! and SQLite reads and transactions, never the network. Lock order: file content, then state.
//!
//! A directory is built when it is first asked for and then patched by every change, local or remote;
//! the least recently used ones go when there are more entries than the budget.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use lru::LruCache;
use mega_proto::{NodeHandle, NodeKind, UserHandle};
use mega_store::{ChangeRow, ChangeState, NodeRow, Roots, Store, StoreError, Subject};
use mega_tree::naming::Naming;
use mega_tree::node::Shape;
use mega_tree::{Child, Decryptor, Directory, Facts, NewSuffix, Node, StoredName};
use rustix::io::Errno;
use serde_json::Value;

use crate::ahead::{self, Ahead};
use crate::changes::{Changes, SUFFIX, row_mtime, row_suffix, set_attribute};
use crate::dot_mega;
use crate::errno::store_errno;
use crate::file::FileNode;
use crate::handles::Handles;
use crate::inode::Inodes;
use crate::listed::Listed;
use crate::remote::OwnPackets;
use crate::types::{Attr, Entry, FileKind, OpResult, Timestamp, VfsConfig, now_ms};
use crate::walk::Walks;
use crate::zone::{Incoming, Zone};

/// What the kernel has to be told once the lock is released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Invalidation {
    Entry { parent: u64, name: String },
    Inode(u64),
}

/// Space of the account as last told by the server, bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Quota {
    pub(crate) total: u64,
    pub(crate) used: u64,
}

/// Where the quota is kept between two runs, as [`Quota::to_text`].
pub(crate) const META_QUOTA: &str = "vfs.quota";

impl Quota {
    pub(crate) fn to_text(self) -> String {
        format!("{} {}", self.used, self.total)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (used, total) = text.split_once(' ')?;
        Some(Self {
            used: used.parse().ok()?,
            total: total.parse().ok()?,
        })
    }
}

pub(crate) struct State {
    pub(crate) store: Arc<Store>,
    pub(crate) decryptor: Arc<Decryptor>,
    pub(crate) config: Arc<VfsConfig>,
    pub(crate) roots: Roots,
    pub(crate) root: Subject,
    pub(crate) dirs: LruCache<Subject, Directory>,
    pub(crate) loaded_entries: usize,
    /// How often a directory was used, and how often it had been at the last look.
    pub(crate) uses: (u64, u64),
    pub(crate) changes: Changes,
    pub(crate) inodes: Inodes,
    pub(crate) files: HashMap<u64, Arc<FileNode>>,
    pub(crate) handles: Handles,
    pub(crate) dir_times: HashMap<Subject, Timestamp>,
    pub(crate) own: OwnPackets,
    /// Versions we put, by the node they were put over, while somebody else's may still turn out to
    /// have been first.
    pub(crate) put_over: HashMap<NodeHandle, NodeHandle>,
    /// Open files whose node was deleted elsewhere, as it was: what is written to them yet is kept there.
    pub(crate) lost: HashMap<NodeHandle, NodeRow>,
    /// Folders that were removed elsewhere and made again for local changes in them.
    pub(crate) recreated: HashMap<NodeHandle, Subject>,
    pub(crate) quota: Option<Quota>,
    pub(crate) walks: Walks,
    pub(crate) listed: Listed,
    pub(crate) ahead: Ahead,
    /// Where some nodes were last: a hint, which the loaded directories confirm. Empty while those are being
    /// brought in line with the truth.
    pub(crate) parents: RefCell<LruCache<Subject, Subject>>,
    /// Another tree has taken the place of this one, and the loaded directories follow it in portions.
    pub(crate) is_replacing: bool,
    /// The time of what exists on no server.
    pub(crate) started: Timestamp,
    /// Folders that others share with us, by their root.
    pub(crate) incoming: HashMap<NodeHandle, Incoming>,
    /// Some shares have no key here: the server may keep it elsewhere.
    pub(crate) lacks_share_keys: bool,
    /// Folders of ours that are shared and whose key is not known, until the server has been asked.
    pub(crate) keys_to_ask: HashSet<NodeHandle>,
    /// Addresses of users.
    pub(crate) contacts: HashMap<UserHandle, String>,
    /// Users that have been shown in `.mega/shares`: their places never change.
    pub(crate) sharers: Vec<UserHandle>,
    /// Where directories are, as far as it was asked for (module `zone`).
    pub(crate) zones: HashMap<Subject, Zone>,
}

/// Where a name is and what it stands for.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) subject: Subject,
    pub(crate) spelling: String,
    pub(crate) stored: StoredName,
    pub(crate) suffix: u32,
    pub(crate) facts: Facts,
}

impl State {
    /// The subject behind an inode number.
    pub(crate) fn subject(&self, ino: u64) -> OpResult<Subject> {
        self.inodes.subject(ino).ok_or(Errno::STALE)
    }

    /// The inode number of a subject.
    pub(crate) fn ino(&mut self, subject: Subject) -> OpResult<u64> {
        let store = Arc::clone(&self.store);
        let mut failure = None;
        let ino = self.inodes.ino(subject, || match store.next_local_id() {
            Ok(id) => id.0,
            Err(error) => {
                failure = Some(error);
                0
            }
        });
        match failure {
            Some(error) => Err(store_errno(&error)),
            None => Ok(ino),
        }
    }

    pub(crate) fn node_row(&self, handle: NodeHandle) -> OpResult<Option<NodeRow>> {
        self.store.node(handle).map_err(|error| store_errno(&error))
    }

    /// Opens a node of the truth.
    pub(crate) fn node(&self, handle: NodeHandle) -> OpResult<Option<(NodeRow, Node)>> {
        Ok(self.node_row(handle)?.map(|row| {
            let node = self.decryptor.open(&row);
            (row, node)
        }))
    }

    /// The parent in the view; `None` when the subject is in no directory we show.
    pub(crate) fn parent(&self, subject: Subject) -> OpResult<Option<Subject>> {
        if subject == self.root {
            return Ok(None);
        }
        if let Some(row) = self.changes.get(subject) {
            if row.removed {
                return Ok(None);
            }
            if let Some(place) = &row.place {
                return Ok(Some(place.parent));
            }
        }
        let Subject::Node(handle) = subject else {
            return Ok(None);
        };
        if let Some((parent, _)) = self.loaded(subject) {
            return Ok(Some(parent));
        }
        let row = self.node_row(handle)?;
        let parent = row.and_then(|row| row.parent).map(Subject::Node);
        if let Some(parent) = parent {
            self.parents.borrow_mut().put(subject, parent);
        }
        Ok(parent)
    }

    /// The loaded directory that shows a subject, and its entry there, if it is where it was last.
    fn loaded(&self, subject: Subject) -> Option<(Subject, &mega_tree::directory::Entry)> {
        if self.is_replacing {
            return None;
        }
        let parent = *self.parents.borrow_mut().get(&subject)?;
        Some((parent, self.dirs.peek(&parent)?.of(subject)?))
    }

    /// Whether `inner` lies in or is `outer`, in the view.
    pub(crate) fn is_within(&self, inner: Subject, outer: Subject) -> OpResult<bool> {
        let mut at = inner;
        // Deeper than any path Linux can name: a cycle on the server must not hang us.
        for _ in 0..4096 {
            if at == outer {
                return Ok(true);
            }
            match self.parent(at)? {
                Some(parent) => at = parent,
                None => return Ok(false),
            }
        }
        Ok(false)
    }

    fn is_directory(&self, subject: Subject) -> OpResult<bool> {
        match subject {
            Subject::Local(_) => Ok(self
                .changes
                .get(subject)
                .is_some_and(|row| row.kind == NodeKind::Folder)),
            Subject::Node(handle) => match self.loaded(subject) {
                Some((_, entry)) => Ok(entry.facts.shape == Shape::Directory),
                None => Ok(self
                    .node_row(handle)?
                    .is_some_and(|row| row.kind != NodeKind::File)),
            },
        }
    }

    /// Proves that `subject` is a directory that can be listed.
    pub(crate) fn check_directory(&self, subject: Subject) -> OpResult<()> {
        if self.dirs.contains(&subject) {
            return Ok(());
        }
        if !self.is_directory(subject)? {
            return Err(Errno::NOTDIR);
        }
        if self.changes.get(subject).is_some_and(|row| row.removed) {
            return Err(Errno::NOENT);
        }
        Ok(())
    }

    /// The directory of `subject`, loaded.
    pub(crate) fn dir(&mut self, subject: Subject) -> OpResult<&mut Directory> {
        self.uses.0 += 1;
        if !self.dirs.contains(&subject) {
            self.check_directory(subject)?;
            let directory = self.build(subject)?;
            self.loaded_entries += directory.len() + 1;
            self.dirs.put(subject, directory);
            self.evict(Some(subject));
        }
        self.dirs.get_mut(&subject).ok_or(Errno::NOENT)
    }

    /// Called now and then: a directory that alone is above the budget stays while it is used, and no longer.
    pub(crate) fn forget_surplus(&mut self) {
        let (uses, seen) = self.uses;
        self.uses.1 = uses;
        if uses == seen {
            self.evict(None);
        }
    }

    /// Forgets the least recently used directories above the budget, open ones and `keep` excepted.
    fn evict(&mut self, keep: Option<Subject>) {
        if self.loaded_entries <= self.config.entry_budget {
            return;
        }
        let mut pinned: HashSet<Subject> = self
            .handles
            .directories()
            .filter_map(|ino| self.inodes.subject(ino))
            .collect();
        pinned.extend(keep);
        let mut put_back = Vec::new();
        while self.loaded_entries > self.config.entry_budget {
            let Some((subject, old)) = self.dirs.pop_lru() else {
                break;
            };
            if pinned.contains(&subject) {
                put_back.push((subject, old));
            } else {
                self.loaded_entries = self.loaded_entries.saturating_sub(old.len() + 1);
            }
        }
        for (subject, directory) in put_back {
            self.dirs.put(subject, directory);
        }
    }

    fn build(&mut self, subject: Subject) -> OpResult<Directory> {
        if let Some((directory, assigned)) = self.take_prepared(subject) {
            self.keep_numbers(&assigned)
                .map_err(|error| store_errno(&error))?;
            return Ok(directory);
        }
        let mut children = Vec::new();
        if let Subject::Node(handle) = subject {
            children = ahead::children(&self.store, &self.decryptor, handle, |row| {
                let change = self.changes.get(Subject::Node(row.handle));
                !self.changes.is_doomed(row.handle)
                    && !change.is_some_and(|change| change.removed || change.place.is_some())
            })
            .map_err(|error| store_errno(&error))?;
        }
        let mut placed: Vec<(i64, Child)> = Vec::new();
        for row in self.changes.placed_in(subject) {
            if !row.removed {
                placed.push((row.since_ms, self.child_of_row(row)?));
            }
        }
        placed.sort_by_key(|(since, child)| (*since, child.subject));
        children.extend(placed.into_iter().map(|(_, child)| child));
        let reserved = (subject == self.root).then_some(dot_mega::NAME);
        let naming = self.naming_in(subject);
        let (directory, assigned) = Directory::build_as(children, naming, reserved);
        self.keep_numbers(&assigned)
            .map_err(|error| store_errno(&error))?;
        Ok(directory)
    }

    /// How names are given in a directory. In the bin they are typed long after they were listed: there the first of
    /// a name keeps it.
    pub(crate) fn naming_in(&self, directory: Subject) -> Naming {
        let is_bin = directory.node().is_some() && directory.node() == self.roots.rubbish;
        Naming {
            newest: self.config.naming.newest && !is_bin,
            ..self.config.naming
        }
    }

    /// Stores numbers that were given: with the change that puts an entry there, else with its node.
    pub(crate) fn keep_numbers(&mut self, assigned: &[NewSuffix]) -> Result<(), StoreError> {
        if assigned.is_empty() {
            return Ok(());
        }
        let mut rows = Vec::new();
        let mut nodes = Vec::new();
        for NewSuffix { subject, number } in assigned {
            match (self.changes.get(*subject), subject) {
                (Some(row), _) if row.place.is_some() => {
                    let mut row = row.clone();
                    set_attribute(&mut row, SUFFIX, Value::from(*number));
                    rows.push(row);
                }
                (_, Subject::Node(handle)) => nodes.push((*handle, *number)),
                (_, Subject::Local(_)) => {}
            }
        }
        self.store.write(|tx| {
            rows.iter().try_for_each(|row| tx.put_change(row))?;
            nodes
                .iter()
                .try_for_each(|(node, number)| tx.set_suffix(*node, Some(*number)))
        })?;
        for row in rows {
            self.changes.insert(row);
        }
        Ok(())
    }

    /// How a placed row appears in its directory.
    pub(crate) fn child_of_row(&self, row: &ChangeRow) -> OpResult<Child> {
        let name = row.place.as_ref().map_or("", |place| place.name.as_str());
        let stored = match row.subject {
            // A node without a readable name was moved: it keeps what it has.
            Subject::Node(handle) if name.is_empty() => self
                .node(handle)?
                .map_or(StoredName::Nameless, |(_, node)| node.name),
            _ => StoredName::from_attribute(Some(name)),
        };
        Ok(Child {
            subject: row.subject,
            stored,
            suffix: Some(row_suffix(row)),
            facts: self.facts(row.subject)?,
        })
    }

    /// Facts of a subject without its overlay (a local row has only its kind).
    pub(crate) fn facts(&self, subject: Subject) -> OpResult<Facts> {
        match subject {
            Subject::Node(handle) => Ok(self.node(handle)?.ok_or(Errno::STALE)?.1.facts),
            Subject::Local(_) => {
                let row = self.changes.get(subject).ok_or(Errno::STALE)?;
                let is_link = row
                    .attributes
                    .as_ref()
                    .and_then(|attributes| attributes.get("mml"))
                    .is_some_and(|value| value.as_str() == Some("1"));
                Ok(Facts {
                    shape: match (row.kind, is_link) {
                        (NodeKind::File, true) => Shape::Symlink,
                        (NodeKind::File, false) => Shape::File,
                        _ => Shape::Directory,
                    },
                    mtime: row.since_ms / 1000,
                    ts: row.since_ms / 1000,
                    readable: true,
                    ..Facts::default()
                })
            }
        }
    }

    /// The entry `name` of directory `parent`.
    pub(crate) fn find(&mut self, parent: Subject, name: &str) -> OpResult<Option<Found>> {
        Ok(self.dir(parent)?.get(name).map(|entry| Found {
            subject: entry.subject,
            spelling: entry.spelling.to_string(),
            stored: entry.stored.clone(),
            suffix: entry.suffix.unwrap_or(0),
            facts: entry.facts,
        }))
    }

    /// Facts from the loaded parent directory if there, else from the row.
    fn cached_facts(&mut self, subject: Subject) -> OpResult<Facts> {
        if let Some(parent) = self.parent(subject)?
            && let Some(directory) = self.dirs.get(&parent)
            && let Some(entry) = directory.of(subject)
        {
            return Ok(entry.facts);
        }
        self.facts(subject)
    }

    /// What `stat` shows of a subject.
    pub(crate) fn attr(&mut self, subject: Subject) -> OpResult<Attr> {
        let facts = if subject == self.root {
            Facts {
                shape: Shape::Directory,
                ..Facts::default()
            }
        } else {
            self.cached_facts(subject)?
        };
        self.attr_with(subject, facts)
    }

    /// As [`State::attr`], with facts that are at hand.
    pub(crate) fn attr_with(&mut self, subject: Subject, facts: Facts) -> OpResult<Attr> {
        let ino = self.ino(subject)?;
        let row = self.changes.get(subject);
        let mut size = facts.size;
        let mut mtime = Timestamp {
            secs: facts.mtime,
            nanos: facts.mtime_nanos,
        };
        let mut executable = facts.executable;
        if let Some(row) = row {
            if let Some(content) = &row.content {
                size = content.size;
            }
            if let Some(wanted) = row_mtime(row) {
                mtime = wanted;
            }
            if let Some(wanted) = row.attributes.as_ref().and_then(|map| map.get("mmx")) {
                executable = wanted.as_str() == Some("1");
            }
        }
        let (kind, perm) = match facts.shape {
            Shape::Directory => (FileKind::Directory, self.config.dir_perm),
            Shape::Symlink => (FileKind::Symlink, 0o777),
            Shape::File => {
                let base = self.config.file_perm;
                let exec = if executable { (base & 0o444) >> 2 } else { 0 };
                let perm = if facts.readable { base | exec } else { base };
                (FileKind::File, perm)
            }
        };
        if kind == FileKind::Directory {
            size = 0;
            if let Some(touched) = self.dir_times.get(&subject) {
                mtime = mtime.max(*touched);
            }
        } else if let Some(file) = self.shared_file(ino) {
            size = file.size();
            mtime = file.mtime();
        }
        let times = self.inodes.times(ino);
        let ctime = mtime
            .max(Timestamp::from_secs(facts.ts))
            .max(times.ctime.unwrap_or_default());
        Ok(Attr {
            ino,
            size,
            blocks: size.div_ceil(512),
            atime: times.atime.unwrap_or(mtime),
            mtime,
            ctime,
            kind,
            perm,
            nlink: if kind == FileKind::Directory {
                self.directory_links(subject)
            } else {
                1
            },
            uid: self.config.uid,
            gid: self.config.gid,
        })
    }

    /// Link count of a directory. It is not loaded for this: a listing would load all its folders.
    fn directory_links(&self, subject: Subject) -> u32 {
        let folders = match (self.dirs.peek(&subject), subject) {
            (Some(directory), _) => directory.folders(),
            (None, Subject::Local(_)) => self
                .changes
                .placed_in(subject)
                .filter(|row| row.kind == NodeKind::Folder && !row.removed)
                .count(),
            (None, Subject::Node(_)) => return 1,
        };
        u32::try_from(folders).map_or(u32::MAX, |folders| folders.saturating_add(2))
    }

    /// What `stat` shows of something that was removed and is still open, or somebody's directory.
    pub(crate) fn removed_attr(&self, ino: u64) -> Option<Attr> {
        let mut attr = self.inodes.removed(ino)?;
        if let Some(file) = self.files.get(&ino) {
            attr.size = file.size();
            attr.blocks = attr.size.div_ceil(512);
            attr.mtime = file.mtime();
        }
        let times = self.inodes.times(ino);
        attr.atime = times.atime.unwrap_or(attr.mtime);
        attr.ctime = attr.mtime.max(times.ctime.unwrap_or_default());
        Some(attr)
    }

    pub(crate) fn entry(&mut self, subject: Subject) -> OpResult<Entry> {
        Ok(Entry {
            attr: self.attr(subject)?,
            ttl: self.config.attr_ttl,
        })
    }

    /// The shared content of a file that is open, or in use by an upload.
    pub(crate) fn open_file(&self, subject: Subject) -> Option<&Arc<FileNode>> {
        self.shared_file(self.inodes.known_ino(subject)?)
    }

    /// The shared content of an inode. Not that of a file which was removed and has come back: what is done
    /// through handles from before is done to what was removed.
    pub(crate) fn shared_file(&self, ino: u64) -> Option<&Arc<FileNode>> {
        let file = self.files.get(&ino)?;
        let is_back =
            file.is_unlinked() && self.inodes.is_known(ino) && self.inodes.removed(ino).is_none();
        (!is_back).then_some(file)
    }

    /// Whether this is (still) the shared content of a file, or it has none.
    pub(crate) fn is_shared_content(&self, subject: Subject, file: Option<&Arc<FileNode>>) -> bool {
        match (self.open_file(subject), file) {
            (Some(now), Some(file)) => Arc::ptr_eq(now, file),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// Whether a program has the file open for writing.
    pub(crate) fn is_being_written(&self, subject: Subject) -> bool {
        self.open_file(subject)
            .is_some_and(|file| file.writers() > 0)
    }

    /// The row of a subject to edit: the present one, or a fresh one that asks for nothing.
    pub(crate) fn row_for_edit(&self, subject: Subject, kind: NodeKind) -> ChangeRow {
        self.changes
            .get(subject)
            .cloned()
            .unwrap_or_else(|| ChangeRow {
                subject,
                kind,
                place: None,
                attributes: None,
                content: None,
                removed: false,
                replaces: None,
                state: ChangeState::Pending { due_ms: now_ms() },
                since_ms: now_ms(),
            })
    }

    pub(crate) fn kind_of(&self, subject: Subject) -> OpResult<NodeKind> {
        if let Some(row) = self.changes.get(subject) {
            return Ok(row.kind);
        }
        match subject {
            Subject::Node(handle) => Ok(self.node_row(handle)?.ok_or(Errno::STALE)?.kind),
            Subject::Local(_) => Err(Errno::STALE),
        }
    }

    /// How long names rest before they are pushed, milliseconds.
    pub(crate) fn name_delay_ms(&self) -> i64 {
        let delay = self
            .config
            .write_back
            .min(std::time::Duration::from_secs(1));
        i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)
    }

    /// When a name change made now is due, milliseconds since 1970.
    pub(crate) fn name_due(&self) -> i64 {
        now_ms().saturating_add(self.name_delay_ms())
    }

    /// When content closed now is due.
    pub(crate) fn content_due(&self) -> i64 {
        let delay = i64::try_from(self.config.write_back.as_millis()).unwrap_or(i64::MAX);
        now_ms().saturating_add(delay)
    }

    /// When content of this row that is closed now is due: a file that is written again and again goes
    /// all the same after `write_back_max`.
    pub(crate) fn rewrite_due(&self, row: &ChangeRow) -> i64 {
        let most = i64::try_from(self.config.write_back_max.as_millis()).unwrap_or(i64::MAX);
        self.content_due().min(row.since_ms.saturating_add(most))
    }

    /// Writes rows (and drops others) in one transaction, then mirrors them.
    pub(crate) fn commit(&mut self, rows: Vec<ChangeRow>, drop: &[Subject]) -> OpResult<()> {
        self.store
            .write(|tx| {
                for subject in drop {
                    tx.delete_change(*subject)?;
                }
                for row in &rows {
                    tx.put_change(row)?;
                }
                Ok(())
            })
            .map_err(|error| store_errno(&error))?;
        // Whether folders go to another place, or back to where Mega has them.
        let was_away = |subject: &Subject| {
            let row = self.changes.get(*subject);
            row.is_some_and(|row| {
                row.kind != NodeKind::File && (row.place.is_some() || row.removed)
            })
        };
        let moves = |row: &ChangeRow| {
            let is_new =
                matches!(row.subject, Subject::Local(_)) && self.changes.get(row.subject).is_none();
            let is_away = row.kind != NodeKind::File && row.place.is_some() && !is_new;
            is_away || was_away(&row.subject)
        };
        if rows.iter().any(moves) || drop.iter().any(was_away) {
            self.forget_zones();
        }
        let is_name = |row: &ChangeRow| row.content.is_none() || row.removed;
        if !drop.is_empty() || rows.iter().any(is_name) {
            self.changes.note_name_change();
        }
        for subject in drop {
            self.changes.remove(*subject);
        }
        for row in rows {
            self.changes.insert(row);
        }
        Ok(())
    }

    /// Takes a subject out of its loaded directory; returns what it was spelled.
    pub(crate) fn take_out(&mut self, parent: Subject, subject: Subject) -> Option<String> {
        self.forget_listing(parent);
        let entry = self.dirs.peek_mut(&parent)?.remove(subject)?;
        self.loaded_entries = self.loaded_entries.saturating_sub(1);
        Some(entry.spelling.to_string())
    }

    /// Puts a child into a loaded directory; returns its spelling there. Stores an assigned suffix.
    pub(crate) fn put_in(
        &mut self,
        parent: Subject,
        child: Child,
    ) -> Result<Option<String>, StoreError> {
        self.forget_listing(parent);
        let subject = child.subject;
        let Some(directory) = self.dirs.peek_mut(&parent) else {
            return Ok(None);
        };
        let before = directory.len();
        let assigned = directory.insert(child);
        self.loaded_entries += directory.len() - before;
        let spelling = directory
            .of(subject)
            .map(|entry| entry.spelling.to_string());
        self.keep_numbers(assigned.as_slice())?;
        Ok(spelling)
    }

    /// The entries of a directory are others than before, loaded or not: what the kernel has of them is old.
    pub(crate) fn forget_listing(&mut self, directory: Subject) {
        if let Some(ino) = self.inodes.known_ino(directory) {
            self.listed.forget(ino);
        }
    }

    /// Shows a placed row in its directory, if that is loaded; returns its spelling there.
    pub(crate) fn show(
        state: &mut Self,
        parent: Subject,
        subject: Subject,
    ) -> OpResult<Option<String>> {
        let Some(row) = state.changes.get(subject) else {
            return Ok(None);
        };
        let child = state.child_of_row(row)?;
        state.touch_dir(parent);
        state
            .put_in(parent, child)
            .map_err(|error| store_errno(&error))
    }

    /// Moves the due time of a pending row. Only in memory: after a restart everything is due.
    pub(crate) fn set_due(state: &mut Self, subject: Subject, due_ms: i64) {
        if let Some(row) = state.changes.get(subject)
            && matches!(row.state, ChangeState::Pending { .. })
        {
            let mut row = row.clone();
            row.state = ChangeState::Pending { due_ms };
            state.changes.insert(row);
        }
    }

    /// Moves the change time of a subject.
    pub(crate) fn note_change(&mut self, subject: Subject) {
        if let Some(ino) = self.inodes.known_ino(subject) {
            self.inodes.changed(ino, None);
        }
    }

    /// A directory's own modification time moves when its entries do.
    pub(crate) fn touch_dir(&mut self, directory: Subject) {
        self.dir_times.insert(directory, Timestamp::now());
    }
}
