//! What is in the directories of `.mega` that exist on no server.

use std::collections::HashSet;

use mega_proto::{NodeHandle, NodeKind, UserHandle};
use mega_store::{NodeRow, Subject};
use mega_tree::node::Shape;
use mega_tree::spelling::{NAME_MAX, spell, suffixed};
use mega_tree::{Child, Directory};
use rustix::io::Errno;

use super::{Inside, NAME, Virtual};
use crate::calendar::date_and_time;
use crate::errno::store_errno;
use crate::state::State;
use crate::types::OpResult;

/// Most versions of one file that are shown.
const MOST_VERSIONS: usize = 10_000;

impl State {
    /// All entries of a directory.
    pub(crate) fn virtual_listing(&mut self, at: Virtual) -> OpResult<Vec<(String, Inside)>> {
        match at {
            Virtual::Status | Virtual::Version(_) => Err(Errno::NOTDIR),
            Virtual::Top => {
                let mut all = vec![
                    ("status".to_owned(), Inside::Virtual(Virtual::Status)),
                    ("shares".to_owned(), Inside::Virtual(Virtual::Shares)),
                    (
                        "versions".to_owned(),
                        Inside::Virtual(Virtual::Versions(self.root)),
                    ),
                ];
                if let Some(bin) = self.roots.rubbish {
                    all.push(("trash".to_owned(), Inside::Subject(Subject::Node(bin))));
                }
                Ok(all)
            }
            Virtual::Shares => Ok(self.sharers_by_name()),
            Virtual::Sharer(index) => {
                let sharer = self.sharer(index)?;
                self.shared_by(sharer)
            }
            Virtual::Versions(directory) => {
                let entries: Vec<_> = self
                    .dir(directory)?
                    .after(0)
                    .map(|entry| (entry.spelling.to_string(), entry.subject, entry.facts.shape))
                    .collect();
                let versioned = match directory {
                    Subject::Node(folder) => self.store.files_with_versions(folder),
                    Subject::Local(_) => Ok(HashSet::new()),
                };
                let versioned = versioned.map_err(|error| store_errno(&error))?;
                let mut all = Vec::new();
                for (name, subject, shape) in entries {
                    let is_plain = shape != Shape::Directory
                        && !self.is_moved(subject)
                        && subject.node().is_none_or(|file| !versioned.contains(&file));
                    if is_plain {
                        continue;
                    }
                    if let Some(inside) = self.with_versions(subject, shape)? {
                        all.push((name, inside));
                    }
                }
                Ok(all)
            }
            Virtual::Chain(file) => self.versions_of(file),
        }
    }

    /// What a name in a directory stands for.
    pub(crate) fn virtual_find(&mut self, at: Virtual, name: &str) -> OpResult<Option<Inside>> {
        if let Virtual::Versions(directory) = at {
            // It may be large: only the one is looked at.
            return match self.find(directory, name)? {
                Some(found) => self.with_versions(found.subject, found.facts.shape),
                None => Ok(None),
            };
        }
        let all = self.virtual_listing(at)?;
        let found = all.into_iter().find(|(spelling, _)| spelling == name);
        Ok(found.map(|(_, inside)| inside))
    }

    /// What is at a path below the mountpoint, `.mega` included.
    ///
    /// # Errors
    /// ENOENT, also for what exists on no server.
    pub(crate) fn resolve(&mut self, path: &str) -> OpResult<(Subject, Shape)> {
        let mut at = Inside::Subject(self.root);
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let found = match at {
                Inside::Subject(directory) if directory == self.root && name == NAME => {
                    Some(Inside::Virtual(Virtual::Top))
                }
                Inside::Subject(directory) => {
                    let found = self.find(directory, name)?;
                    found.map(|found| Inside::Subject(found.subject))
                }
                Inside::Virtual(directory) => self.virtual_find(directory, name)?,
            };
            at = found.ok_or(Errno::NOENT)?;
        }
        match at {
            Inside::Subject(subject) if subject == self.root => Ok((subject, Shape::Directory)),
            Inside::Subject(subject) => Ok((subject, self.facts(subject)?.shape)),
            Inside::Virtual(Virtual::Version(file)) => Ok((Subject::Node(file), Shape::File)),
            Inside::Virtual(_) => Err(Errno::NOENT),
        }
    }

    /// A directory, or a file that has older contents.
    fn with_versions(&self, subject: Subject, shape: Shape) -> OpResult<Option<Inside>> {
        let entry = match (subject, shape) {
            (_, Shape::Directory) => Virtual::Versions(subject),
            (Subject::Node(file), _) => {
                let has_any = self.store.has_children(file);
                if !has_any.map_err(|error| store_errno(&error))? {
                    return Ok(None);
                }
                Virtual::Chain(file)
            }
            (Subject::Local(_), _) => return Ok(None),
        };
        Ok(Some(Inside::Virtual(entry)))
    }

    /// The older versions of a file, the newest first.
    pub(crate) fn older_versions(&self, file: NodeHandle) -> OpResult<Vec<NodeRow>> {
        let mut chain: Vec<NodeRow> = Vec::new();
        let mut waiting = vec![file];
        while let Some(newer) = waiting.pop() {
            let older = self.store.children(newer);
            for row in older.map_err(|error| store_errno(&error))? {
                if row.kind == NodeKind::File && chain.len() < MOST_VERSIONS {
                    waiting.push(row.handle);
                    chain.push(row);
                }
            }
        }
        Ok(chain)
    }

    /// `TIME NAME` for each, the newest first: when it was put on the server, and what it was called.
    fn versions_of(&self, file: NodeHandle) -> OpResult<Vec<(String, Inside)>> {
        let mut all: Vec<(String, Inside)> = Vec::new();
        for row in self.older_versions(file)? {
            let stored = self.stored_of(&row);
            let name = spell(&stored, Subject::Node(row.handle));
            let plain = fitting(&format!("{} {name}", date_and_time(row.ts)));
            let mut number = 0;
            let mut spelling = plain.clone();
            while all.iter().any(|(taken, _)| *taken == spelling) {
                number += 1;
                spelling = suffixed(&plain, number);
            }
            all.push((spelling, Inside::Virtual(Virtual::Version(row.handle))));
        }
        Ok(all)
    }

    /// Everybody who shares something with us, under their address.
    fn sharers_by_name(&mut self) -> Vec<(String, Inside)> {
        let mut users: Vec<UserHandle> = self.incoming.values().filter_map(|s| s.sharer).collect();
        users.sort_unstable_by_key(|user| user.0);
        users.dedup();
        let mut all = Vec::new();
        for user in users {
            let index = match self.sharers.iter().position(|known| *known == user) {
                Some(index) => index,
                None => {
                    self.sharers.push(user);
                    self.sharers.len() - 1
                }
            };
            let Ok(index) = u32::try_from(index) else {
                continue;
            };
            let name = self.user_name(user);
            all.push((name, Inside::Virtual(Virtual::Sharer(index))));
        }
        all
    }

    /// What a user is called here: the address, or the handle while it is not known.
    pub(crate) fn user_name(&self, user: UserHandle) -> String {
        let known = self.contacts.get(&user);
        known
            .filter(|address| !address.is_empty() && !address.contains(['/', '\0']))
            .filter(|address| address.len() <= NAME_MAX && !address.starts_with('.'))
            .cloned()
            .unwrap_or_else(|| user.to_string())
    }

    /// The folders that a user shares with us, spelled as in a directory of them.
    pub(crate) fn shared_by(&mut self, sharer: UserHandle) -> OpResult<Vec<(String, Inside)>> {
        let mut rows = Vec::new();
        for (root, share) in &self.incoming {
            if share.sharer == Some(sharer) {
                // The share may be known before its nodes are.
                rows.extend(self.node_row(*root)?);
            }
        }
        rows.sort_unstable_by_key(|row| (row.arrival, row.ts, row.handle));
        let children = rows.into_iter().map(|row| {
            let (stored, facts) = self.decryptor.list(&row);
            Child {
                subject: Subject::Node(row.handle),
                stored,
                suffix: row.suffix,
                facts,
            }
        });
        let (directory, assigned) = Directory::build(children.collect());
        self.keep_numbers(&assigned)
            .map_err(|error| store_errno(&error))?;
        Ok(directory
            .after(0)
            .map(|entry| {
                let spelling = entry.spelling.to_string();
                (spelling, Inside::Subject(entry.subject))
            })
            .collect())
    }
}

/// As much of a name as a directory entry can hold, with room for a number.
fn fitting(name: &str) -> String {
    const ROOM: usize = NAME_MAX - 8;
    let mut end = name.len().min(ROOM);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_between_characters() {
        assert_eq!(fitting("short"), "short");
        let long = "\u{e9}".repeat(NAME_MAX);
        let cut = fitting(&long);
        assert!(cut.len() <= NAME_MAX - 8 && long.starts_with(&cut));
    }
}
