//! What there is on both sides, and what differs.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use mega_crypto::Fingerprint;

use super::job::{End, Job, Known};
use super::local;
use crate::commands::moment::Moment;
use crate::control::files::{FileAsk, FileReply, Item, Kind, joined, split};
use crate::display::printable;
use crate::exit;
use crate::failure::Failure;
use crate::mount::Account;

/// When two files count as the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Same {
    /// Size and modification time.
    Time,
    /// Size and checksum.
    Checksum,
    /// Size.
    Size,
    /// Whatever they are.
    Existing,
}

/// What is to be done.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    to: &'a End,
    same_by: Same,
    /// Folders without files are made too.
    pub(super) with_empty_folders: bool,
    /// Folders to make, before what is in them.
    pub(super) folders: Vec<End>,
    /// Files and links to copy.
    pub(super) jobs: Vec<Job>,
    /// What an earlier run has put there, and Mega does not have yet.
    pub(super) unsettled: Vec<End>,
    /// How many are the same already.
    pub(super) same: usize,
    /// How many cannot be copied, as was told.
    pub(super) failed: usize,
    /// The exit code of the first of them.
    pub(super) code: Option<u8>,
    /// Folders of the target that were looked at already, and whether something can be put into them.
    seen: HashMap<String, bool>,
    /// What gets which name in the target.
    taken: HashMap<String, End>,
    /// What the target has, by folder.
    present: HashMap<String, HashMap<String, Known>>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(to: &'a End, same_by: Same) -> Self {
        Self {
            to,
            same_by,
            with_empty_folders: false,
            folders: Vec::new(),
            jobs: Vec::new(),
            unsettled: Vec::new(),
            same: 0,
            failed: 0,
            code: None,
            seen: HashMap::new(),
            taken: HashMap::new(),
            present: HashMap::new(),
        }
    }

    /// Adds a source: a file, or what is in a folder.
    pub(super) fn add(&mut self, from: &End) -> Result<(), Failure> {
        let known = match from {
            End::Local(path) => local::known(path)
                .map_err(|error| local::failed("read", path, &error))?
                .map(|known| follow(path, known))
                .transpose()
                .map_err(|error| local::failed("read", path, &error))?,
            End::Remote { account, path } => Some(look(account, path, self.wants_checksums())?),
        };
        let Some(known) = known else {
            return Err(Failure::Usage(format!(
                "'{}' is neither file nor folder, and nothing else can be copied.",
                from.shown()
            )));
        };
        if known.kind != Kind::Folder {
            self.make_folder("")?;
            return self.add_file(from.clone(), &from.name(), known);
        }
        if self.with_empty_folders {
            self.make_folder("")?;
        }
        match from {
            End::Local(path) => self.walk(path),
            End::Remote { account, path } => self.list(account, path, from),
        }
    }

    /// Of the source: to compare, or to know whether what an earlier run left is good.
    fn wants_checksums(&self) -> bool {
        self.same_by == Same::Checksum || self.to.local().is_some()
    }

    /// Everything below a local folder.
    fn walk(&mut self, root: &Path) -> Result<(), Failure> {
        let mut todo = vec![String::new()];
        while let Some(folder) = todo.pop() {
            let place = if folder.is_empty() {
                root.to_path_buf()
            } else {
                root.join(&folder)
            };
            let mut entries = match names(&place) {
                Ok(entries) => entries,
                Err(error) if folder.is_empty() => return Err(local::failed("read", root, &error)),
                Err(error) => {
                    self.complain(&local::failed("read", &place, &error));
                    continue;
                }
            };
            entries.sort();
            let mut folders = Vec::new();
            for name in entries {
                let path = place.join(&name);
                let Some(name) = name.to_str() else {
                    self.complain(&Failure::LocalFile {
                        what: "copy",
                        path,
                        reason: "its name is not UTF-8, as names on Mega are. Rename it".to_owned(),
                    });
                    continue;
                };
                if mega_vfs::is_partial(name) {
                    continue;
                }
                let inner = joined(&folder, name);
                match local::known(&path) {
                    Ok(Some(known)) if known.kind == Kind::Folder => {
                        if self.with_empty_folders {
                            self.make_folder(&inner)?;
                        }
                        folders.push(inner);
                    }
                    Ok(Some(known)) => {
                        if self.make_folder(&folder)? {
                            self.add_file(End::Local(path), &inner, known)?;
                        }
                    }
                    Ok(None) => local::note(&format!(
                        "'{}' is neither file, folder nor link, and is passed over.",
                        printable(&inner)
                    )),
                    Err(error) => self.complain(&local::failed("read", &path, &error)),
                }
            }
            todo.extend(folders.into_iter().rev());
        }
        Ok(())
    }

    /// Everything below a folder of an account.
    fn list(&mut self, account: &Arc<Account>, path: &str, from: &End) -> Result<(), Failure> {
        let checksums = self.wants_checksums();
        let mut found = Vec::new();
        listed(account, path, (None, checksums), |folder, item| {
            found.push((folder.to_owned(), item));
        })?;
        for (folder, item) in found {
            let inner = joined(&folder, &item.name);
            if item.is_folder() {
                if self.with_empty_folders {
                    self.make_folder(&inner)?;
                }
                continue;
            }
            if item.locked {
                self.complain(&Failure::Other(format!(
                    "the key of '{inner}' is not known: it cannot be read."
                )));
                continue;
            }
            if self.make_folder(&folder)? {
                self.add_file(from.below(&inner), &inner, known_of(item))?;
            }
        }
        Ok(())
    }

    fn complain(&mut self, failure: &Failure) {
        local::note(&failure.to_string());
        self.failed += 1;
        self.code.get_or_insert(exit::code(failure));
    }

    /// What the target has in one of its folders.
    fn present(&mut self, folder: &str) -> Result<&HashMap<String, Known>, Failure> {
        if !self.present.contains_key(folder) {
            let mut found = HashMap::new();
            match self.to.below(folder) {
                End::Local(path) => match names(&path) {
                    Ok(names) => {
                        for name in names {
                            let Ok(Some(known)) = local::known(&path.join(&name)) else {
                                continue;
                            };
                            found.insert(name.to_string_lossy().into_owned(), known);
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(local::failed("read", &path, &error)),
                },
                End::Remote { account, path } => {
                    let checksums = self.same_by == Same::Checksum;
                    let result = listed(&account, &path, (Some(1), checksums), |_, item| {
                        found.insert(item.name.clone(), known_of(item));
                    });
                    match result {
                        Err(failure) if exit::code(&failure) == exit::NOT_FOUND => {}
                        other => other?,
                    }
                }
            }
            self.present.insert(folder.to_owned(), found);
        }
        Ok(self.present.entry(folder.to_owned()).or_default())
    }

    /// A folder of the target, which is made if it is not there; false when something else is there, which was
    /// told.
    fn make_folder(&mut self, folder: &str) -> Result<bool, Failure> {
        if let Some(is_usable) = self.seen.get(folder) {
            return Ok(*is_usable);
        }
        if let Some(file) = self.taken.get(folder) {
            return Err(one_name(folder, file, None));
        }
        let is_usable = self.want_folder(folder)?;
        self.seen.insert(folder.to_owned(), is_usable);
        Ok(is_usable)
    }

    fn want_folder(&mut self, folder: &str) -> Result<bool, Failure> {
        let place = self.to.below(folder);
        let is_known = if folder.is_empty() {
            match &place {
                // The one that was named may be a link.
                End::Local(path) => path.is_dir(),
                End::Remote { account, path } => match look(account, path, false) {
                    Ok(known) if known.kind == Kind::Folder => true,
                    Ok(_) => {
                        return Err(Failure::Usage(format!(
                            "'{path}' is a file, and what is copied goes into folders. Name a folder, \
                             which need not exist yet."
                        )));
                    }
                    Err(failure) if exit::code(&failure) == exit::NOT_FOUND => false,
                    Err(failure) => return Err(failure),
                },
            }
        } else {
            let (above, name) = split(folder);
            if !self.make_folder(above)? {
                return Ok(false);
            }
            match self.present(above)?.get(name).map(|known| known.kind) {
                Some(Kind::Folder) => true,
                None => false,
                Some(kind) => {
                    self.complain(&in_the_way(&place, kind));
                    return Ok(false);
                }
            }
        };
        if !is_known {
            self.folders.push(place);
        }
        Ok(true)
    }

    /// A file, unless the target has the same.
    fn add_file(&mut self, from: End, inner: &str, known: Known) -> Result<(), Failure> {
        if self.seen.contains_key(inner) {
            return Err(one_name(inner, &from, None));
        }
        if let Some(other) = self.taken.get(inner) {
            if other.is_same(&from) {
                return Ok(());
            }
            return Err(one_name(inner, other, Some(&from)));
        }
        self.taken.insert(inner.to_owned(), from.clone());
        let (folder, name) = split(inner);
        let present = self.present(folder)?.get(name).cloned();
        let to = self.to.below(inner);
        if let Some(present) = present {
            match self.is_same((&from, &known), (&to, &present)) {
                Ok(true) => {
                    if present.is_pending {
                        self.unsettled.push(to);
                    }
                    self.same += 1;
                    return Ok(());
                }
                Ok(false) => {}
                Err(failure) => {
                    self.complain(&failure);
                    return Ok(());
                }
            }
        }
        self.jobs.push(Job {
            name: inner.to_owned(),
            from,
            to,
            size: known.size,
            known,
        });
        Ok(())
    }

    fn is_same(
        &self,
        (from, known): (&End, &Known),
        (to, present): (&End, &Known),
    ) -> Result<bool, Failure> {
        if self.same_by == Same::Existing {
            return Ok(present.kind != Kind::Folder);
        }
        if present.kind != known.kind || present.size != known.size {
            return Ok(false);
        }
        // A link has a target and nothing else, which is compared when it is made.
        if known.kind == Kind::Link {
            return Ok(is_same_time(known.mtime, present.mtime));
        }
        match self.same_by {
            Same::Size | Same::Existing => Ok(true),
            Same::Time => Ok(is_same_time(known.mtime, present.mtime)),
            Same::Checksum => {
                let sum = |end: &End, known: &Known| match end {
                    End::Local(path) => local::checksum(path, known.size)
                        .map(Some)
                        .map_err(|error| local::failed("read", path, &error)),
                    End::Remote { .. } => Ok(known
                        .fingerprint
                        .as_deref()
                        .and_then(Fingerprint::parse)
                        .map(|fingerprint| fingerprint.crc)),
                };
                let (ours, theirs) = (sum(from, known)?, sum(to, present)?);
                Ok(ours.is_some() && ours == theirs)
            }
        }
    }
}

/// Two sources would get one name, and one of them would be lost; `other` is none for a folder.
fn one_name(name: &str, one: &End, other: Option<&End>) -> Failure {
    let other = other.map_or("a folder".to_owned(), |other| {
        format!("'{}'", other.shown())
    });
    Failure::Usage(format!(
        "'{name}' in the target would be both '{}' and {other}. Nothing was copied. Copy them to different \
         folders.",
        one.shown()
    ))
}

/// Something that is no folder has the name of one.
fn in_the_way(place: &End, kind: Kind) -> Failure {
    let what = match kind {
        Kind::Link => "a symbolic link, and nothing is copied through it",
        _ => "a file, and there was to be a folder",
    };
    match place {
        End::Local(path) => Failure::LocalFile {
            what: "copy into",
            path: path.clone(),
            reason: format!("it is {what}"),
        },
        End::Remote { path, .. } => {
            Failure::Other(format!("cannot copy into '{path}': it is {what}."))
        }
    }
}

/// Mega's other clients keep whole seconds.
fn is_same_time(one: Moment, other: Moment) -> bool {
    one.0 == other.0 && (one.1 == other.1 || one.1 == 0 || other.1 == 0)
}

/// A source that was named is followed if it is a link.
fn follow(path: &Path, known: Known) -> io::Result<Known> {
    if known.kind != Kind::Link {
        return Ok(known);
    }
    Ok(local::known(&path.canonicalize()?)?.unwrap_or(known))
}

fn known_of(item: Item) -> Known {
    Known {
        kind: item.kind,
        size: item.size,
        mtime: item.mtime,
        executable: item.executable,
        is_pending: item.pending,
        handle: item.handle,
        fingerprint: item.fingerprint,
    }
}

fn names(path: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    path.read_dir()?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect()
}

fn look(account: &Account, path: &str, checksums: bool) -> Result<Known, Failure> {
    let mut link = account.link()?;
    link.ask_files(FileAsk::Look {
        path: path.to_owned(),
        checksums,
    })?;
    match link.file_reply()? {
        FileReply::Item { item } => Ok(known_of(item)),
        _ => Err(Failure::DaemonGone),
    }
}

/// Lists; `take` gets the folder below `path`, and an item in it.
fn listed(
    account: &Account,
    path: &str,
    (depth, checksums): (Option<u32>, bool),
    mut take: impl FnMut(&str, Item),
) -> Result<(), Failure> {
    let mut link = account.link()?;
    link.ask_files(FileAsk::List {
        path: path.to_owned(),
        depth,
        checksums,
    })?;
    loop {
        match link.file_reply()? {
            FileReply::Items { folder, items } => {
                let inner = folder
                    .strip_prefix(path)
                    .unwrap_or("")
                    .trim_start_matches('/');
                for item in items {
                    take(inner, item);
                }
            }
            FileReply::Done => return Ok(()),
            _ => return Err(Failure::DaemonGone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_are_the_same_time() {
        assert!(is_same_time((5, 0), (5, 7)));
        assert!(is_same_time((5, 7), (5, 7)));
        assert!(!is_same_time((5, 7), (5, 8)));
        assert!(!is_same_time((5, 0), (6, 0)));
    }
}
