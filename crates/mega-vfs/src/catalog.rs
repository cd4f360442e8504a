//! The account by path, for commands: what there is, and whether a change has arrived on Mega.
//!
//! Paths begin at the account's root, whatever folder is mounted, and are spelled as the mount spells
//! them. What commands change goes through the operations of `ops`, like what programs change; this
//! module looks, and tells the kernel what it does not know because the change did not come from it.
//! A file that a command has not finished has a name of its own ([`is_partial`]): it is never pushed,
//! and a start removes what a killed command left. Never waits for the network, except where it says so.

use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use mega_api::ApiError;
use mega_proto::{NodeHandle, NodeKind};
use mega_store::{ChangeRow, ChangeState, Store, StoreError, Subject};
use mega_tree::Facts;
use mega_tree::node::Shape;
use rustix::io::Errno;

use crate::Vfs;
use crate::ops::drop_staging;
use crate::shared::Shared;
use crate::state::{Invalidation, State};
use crate::status::{Progress, Quota};
use crate::types::{Attr, FileKind, OpResult, Timestamp};

/// The name of a file that is not complete begins with this,
pub const PARTIAL_PREFIX: &str = ".megamount-";
/// and ends with this; between them are 16 hexadecimal digits.
pub const PARTIAL_SUFFIX: &str = ".partial";

/// Whether a name is that of a file which a command has not finished.
#[must_use]
pub fn is_partial(name: &str) -> bool {
    name.strip_prefix(PARTIAL_PREFIX)
        .and_then(|rest| rest.strip_suffix(PARTIAL_SUFFIX))
        .is_some_and(|id| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether a change is about such a file.
pub(crate) fn is_partial_row(row: &ChangeRow) -> bool {
    row.kind == NodeKind::File
        && matches!(row.subject, Subject::Local(_))
        && row
            .place
            .as_ref()
            .is_some_and(|place| is_partial(&place.name))
}

/// At a start: what commands that were killed have left.
pub(crate) fn drop_partials(store: &Store) -> Result<(), StoreError> {
    for row in store.changes()? {
        if is_partial_row(&row) {
            store.write(|tx| tx.delete_change(row.subject))?;
            if let Some(content) = &row.content {
                drop_staging(store, &content.layers);
            }
        }
    }
    Ok(())
}

/// Entries that are listed under one hold of the state lock.
const PORTION: usize = 500;

/// How much is told of each file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// What listings show.
    Listing,
    /// The checksums too, which takes more time.
    Checksums,
}

/// A file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its name.
    pub name: String,
    /// Its name without the number that tells it from others of its name, if it has one.
    pub plain_name: Option<String>,
    /// Its place in the order of arrival in its folder; 0 where only it was looked for.
    pub order: u64,
    /// File, folder or symbolic link.
    pub kind: FileKind,
    /// Bytes; 0 for folders.
    pub size: u64,
    /// Modification time.
    pub mtime: Timestamp,
    /// Its node; `None` for what Mega does not have yet.
    pub handle: Option<NodeHandle>,
    /// Whether it may be executed.
    pub is_executable: bool,
    /// Whether Mega does not have it yet as it is here.
    pub is_pending: bool,
    /// Whether its key is known.
    pub is_readable: bool,
    /// Attribute `c`: checksum and modification time, as text; only with [`Detail::Checksums`], and only of
    /// content that Mega has.
    pub fingerprint: Option<String>,
    /// The MAC of its content; as `fingerprint`.
    pub mac: Option<[u8; 8]>,
}

/// What became of a change.
#[derive(Debug, Clone)]
pub enum Standing {
    /// Mega has it.
    Done,
    /// It waits for its turn.
    Waiting,
    /// It has failed, and is tried again later.
    PutOff,
    /// It waits because the account is full.
    Full,
    /// Its content is on its way.
    Uploading(Progress),
    /// Its name is on its way.
    Sending,
    /// Mega has refused it for good.
    Refused(String),
}

/// How far everything is that goes to Mega: something has moved when this is another than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// Changes that Mega has confirmed since the start.
    pub confirmed: u64,
    /// Bytes of content that Mega has acknowledged, of what is on its way.
    pub acknowledged: u64,
}

/// A place in the account. Its inode keeps its number until this is dropped.
#[derive(Debug)]
pub struct Held {
    shared: Arc<Shared>,
    /// What `stat` shows of it.
    pub attr: Attr,
}

impl Held {
    /// Takes over a reference that was counted already, by `lookup`, `create` or `mkdir`.
    #[must_use]
    pub fn adopt(vfs: &Vfs, attr: Attr) -> Self {
        Self {
            shared: Arc::clone(&vfs.shared),
            attr,
        }
    }

    /// Its inode number.
    #[must_use]
    pub fn ino(&self) -> u64 {
        self.attr.ino
    }

    /// Whether it is a folder.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        self.attr.kind == FileKind::Directory
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.forget(self.attr.ino, 1);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl State {
    /// What a path from the account's root stands for.
    pub(crate) fn walk(&mut self, path: &str) -> OpResult<(Subject, Facts)> {
        let mut at = Subject::Node(self.roots.cloud);
        let mut facts = Facts {
            shape: Shape::Directory,
            readable: true,
            ..Facts::default()
        };
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let found = self.find(at, name)?.ok_or(Errno::NOENT)?;
            (at, facts) = (found.subject, found.facts);
        }
        Ok((at, facts))
    }

    pub(crate) fn item_of(
        &mut self,
        name: &str,
        subject: Subject,
        facts: Facts,
        detail: Detail,
    ) -> OpResult<Item> {
        let attr = self.attr_with(subject, facts)?;
        let mut item = Item {
            name: name.to_owned(),
            plain_name: None,
            order: 0,
            kind: attr.kind,
            size: if attr.kind == FileKind::Directory {
                0
            } else {
                attr.size
            },
            mtime: attr.mtime,
            handle: subject.node(),
            is_executable: attr.kind == FileKind::File && attr.perm & 0o100 != 0,
            is_pending: self.changes.get(subject).is_some(),
            is_readable: facts.readable,
            fingerprint: None,
            mac: None,
        };
        let is_clean = self
            .changes
            .get(subject)
            .is_none_or(|row| row.content.is_none());
        if detail == Detail::Checksums
            && is_clean
            && attr.kind == FileKind::File
            && let Subject::Node(handle) = subject
            && let Some((_, node)) = self.node(handle)?
        {
            item.mac = node.file_key().map(|key| *key.meta_mac().as_bytes());
            let attributes = node.attributes.as_ref();
            item.fingerprint = attributes
                .and_then(|attributes| attributes.text("c"))
                .map(str::to_owned);
        }
        Ok(item)
    }
}

impl Vfs {
    /// The inode number of the account's root, which is no other than the mount's unless a folder of it is
    /// mounted.
    ///
    /// # Errors
    /// EIO when the local state fails.
    pub fn account_root(&self) -> OpResult<u64> {
        let mut state = self.shared.lock();
        let root = Subject::Node(state.roots.cloud);
        state.ino(root)
    }

    /// The place that a path stands for.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, EIO.
    pub fn at(&self, path: &str) -> OpResult<Held> {
        let mut state = self.shared.lock();
        let (subject, facts) = state.walk(path)?;
        let attr = state.attr_with(subject, facts)?;
        Ok(self.hold(state, attr))
    }

    /// Counts a reference to what was found, and gives it out.
    pub(crate) fn hold(&self, mut state: MutexGuard<'_, State>, attr: Attr) -> Held {
        state.inodes.remember(attr.ino, 1);
        Held::adopt(self, attr)
    }

    /// What is at a path.
    ///
    /// # Errors
    /// As [`Vfs::at`].
    pub fn item(&self, path: &str, detail: Detail) -> OpResult<Item> {
        let mut state = self.shared.lock();
        let (subject, facts) = state.walk(path)?;
        let name = path.rsplit('/').find(|name| !name.is_empty());
        state.item_of(name.unwrap_or(""), subject, facts, detail)
    }

    /// Up to `limit` entries of the folder at a path, in no order; `after` is 0 at first, then what came with
    /// the last ones. The state lock is held for one such portion.
    ///
    /// # Errors
    /// As [`Vfs::at`].
    pub fn items(
        &self,
        path: &str,
        after: u64,
        limit: usize,
        detail: Detail,
    ) -> OpResult<(Vec<Item>, u64)> {
        let mut state = self.shared.lock();
        let (subject, facts) = state.walk(path)?;
        if facts.shape != Shape::Directory {
            return Err(Errno::NOTDIR);
        }
        let naming = state.config.naming;
        let page: Vec<_> = state
            .dir(subject)?
            .after(after)
            .take(limit)
            .map(|entry| {
                let numbered = entry.suffix.is_some_and(|number| number > 0);
                (
                    (
                        entry.cookie,
                        numbered.then(|| naming.spell(&entry.stored, entry.subject)),
                    ),
                    entry.subject,
                    entry.facts,
                    entry.spelling.to_string(),
                )
            })
            .collect();
        let mut next = after;
        let mut items = Vec::with_capacity(page.len());
        for ((cookie, plain_name), child, facts, name) in page {
            next = cookie;
            if !is_partial(&name) {
                let item = state.item_of(&name, child, facts, detail)?;
                items.push(Item {
                    plain_name,
                    order: cookie,
                    ..item
                });
            }
        }
        Ok((items, next))
    }

    /// What became of the changes of an inode.
    #[must_use]
    pub fn standing(&self, ino: u64) -> Standing {
        let state = self.shared.lock();
        match state.subject(ino) {
            Ok(subject) => self.standing_in(&state, subject),
            Err(_) => Standing::Done,
        }
    }

    /// What became of the end of a node whose name something else has got ([`Vfs::replaced_at`]).
    #[must_use]
    pub fn standing_of_replaced(&self, handle: NodeHandle) -> Standing {
        let state = self.shared.lock();
        match self.standing_in(&state, Subject::Node(handle)) {
            // Its row has ended with that of its replacement, and it goes next.
            Standing::Done if state.changes.is_doomed(handle) => Standing::Waiting,
            standing => standing,
        }
    }

    /// The node that goes from Mega when something else gets this name: what has the name, or what that is to
    /// replace itself.
    #[must_use]
    pub fn replaced_at(&self, parent: u64, name: &str) -> Option<NodeHandle> {
        let mut state = self.shared.lock();
        let parent = state.subject(parent).ok()?;
        let subject = state.find(parent, name).ok()??.subject;
        match subject {
            Subject::Node(handle) => Some(handle),
            Subject::Local(_) => state.changes.get(subject)?.replaces,
        }
    }

    /// How far everything is.
    #[must_use]
    pub fn pushed(&self) -> Pushed {
        self.shared.monitor.pushed()
    }

    fn standing_in(&self, state: &State, subject: Subject) -> Standing {
        let Some(row) = state.changes.get(subject) else {
            return Standing::Done;
        };
        let mut next = Some(row);
        // What it is in has to be made first.
        while let Some(row) = next {
            if let ChangeState::Parked { error } = &row.state {
                return Standing::Refused(error.clone());
            }
            next = row
                .place
                .as_ref()
                .filter(|place| matches!(place.parent, Subject::Local(_)))
                .and_then(|place| state.changes.get(place.parent));
        }
        if state.changes.is_in_flight(subject) {
            return match self.shared.monitor.progress(subject) {
                Some(progress) => Standing::Uploading(progress),
                None => Standing::Sending,
            };
        }
        if row.content.is_some() && self.shared.space.is_full() {
            return Standing::Full;
        }
        if state.changes.is_backing_off(subject) {
            return Standing::PutOff;
        }
        Standing::Waiting
    }

    /// Deadline of anything that waits for the network.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.shared.config.timeout
    }

    /// Everything at and below a path, a folder before what is in it.
    ///
    /// # Errors
    /// As [`Vfs::at`].
    pub fn below(&self, path: &str) -> OpResult<Vec<(String, Held)>> {
        let mut found = vec![(path.to_owned(), self.at(path)?)];
        let mut next = 0;
        while let Some((folder, held)) = found.get(next) {
            next += 1;
            if !held.is_folder() {
                continue;
            }
            let folder = folder.clone();
            let mut after = 0;
            loop {
                let (items, last) = match self.items(&folder, after, PORTION, Detail::Listing) {
                    Ok(page) => page,
                    // Removed meanwhile.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE) => break,
                    Err(errno) => return Err(errno),
                };
                if last == after {
                    break;
                }
                after = last;
                for item in items {
                    let path = format!("{folder}/{}", item.name);
                    let path = path.trim_start_matches('/').to_owned();
                    match self.at(&path) {
                        Ok(held) => found.push((path, held)),
                        Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE) => {}
                        Err(errno) => return Err(errno),
                    }
                }
            }
        }
        Ok(found)
    }

    /// The changes of an inode are due now, and those of the folders made here that it is in.
    pub fn hasten(&self, ino: u64) {
        let subject = self.shared.lock().subject(ino).ok();
        self.hasten_subject(subject);
    }

    /// The end of a node whose name something else has got is due now.
    pub fn hasten_replaced(&self, handle: NodeHandle) {
        self.hasten_subject(Some(Subject::Node(handle)));
    }

    fn hasten_subject(&self, mut next: Option<Subject>) {
        let mut state = self.shared.lock();
        while let Some(subject) = next {
            State::set_due(&mut state, subject, 0);
            next = state
                .changes
                .get(subject)
                .and_then(|row| row.place.as_ref())
                .map(|place| place.parent)
                .filter(|parent| matches!(parent, Subject::Local(_)));
        }
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Tells the kernel to ask again about a name that a command has changed.
    pub fn tell(&self, parent: u64, name: &str, ino: Option<u64>) {
        let name = name.to_owned();
        let mut told = vec![
            Invalidation::Entry { parent, name },
            Invalidation::Inode(parent),
        ];
        told.extend(ino.map(Invalidation::Inode));
        self.shared.notify(told);
    }

    /// Whether the account has no room, as far as is known: Mega has refused an upload, or what is free is
    /// less than what is queued and 64 KiB.
    #[must_use]
    pub fn is_account_full(&self) -> bool {
        const NEXT_TO_NOTHING: u64 = 64 << 10;
        let mut state = self.shared.lock();
        let queued = state.own_content_bytes();
        self.shared.space.is_full()
            || state.quota.is_some_and(|quota| {
                let wanted = quota.used.saturating_add(queued);
                quota.total > 0 && wanted.saturating_add(NEXT_TO_NOTHING) > quota.total
            })
    }

    /// Where the session is kept, in words.
    #[must_use]
    pub fn session_kept_in(&self) -> String {
        self.shared.store.session_kept_in()
    }

    /// Whose account it is, and what Mega says of our session.
    pub async fn ask_who(&self) -> (String, Result<(), ApiError>) {
        let session = self.shared.api.session();
        let handle = session.map_or(String::new(), |session| session.user.to_string());
        (handle, self.shared.api.user_data().await.map(drop))
    }

    /// Asks Mega for the account's storage.
    ///
    /// # Errors
    /// What the server or the network says.
    pub async fn ask_space(&self) -> Result<Quota, ApiError> {
        let quota = self.shared.api.quota().await?;
        Ok(Quota {
            total: quota.total.unwrap_or(0),
            used: quota.used,
            is_full: self.shared.space.is_full(),
        })
    }

    /// Waits until the view shows what Mega has, or `patience` has passed; whether it does.
    pub async fn until_current(&self, patience: Duration) -> bool {
        self.shared.currency.was_current(patience).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_partial() {
        assert!(is_partial(".megamount-0123456789abcdef.partial"));
        for other in [
            "a.partial",
            ".megamount-.partial",
            ".megamount-0123456789abcdeg.partial",
            ".megamount-0123456789abcdef",
        ] {
            assert!(!is_partial(other), "{other}");
        }
    }
}
