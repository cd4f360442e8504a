//! rename: one edit of a row, whatever the distance. The replaced file goes only after ours is
//! placed (I7).

use std::ffi::OsStr;

use mega_store::{ChangeState, Place, Subject};
use mega_tree::StoredName;
use mega_tree::node::Shape;
use mega_tree::spelling::unescape;
use rustix::io::Errno;
use serde_json::Value;

use super::entry_name;
use crate::Vfs;
use crate::changes::{SUFFIX, clear_attribute, set_attribute};
use crate::dot_mega::{self, Virtual, check_real};
use crate::inode::ROOT_INO;
use crate::state::{Found, State};
use crate::types::{OpResult, RenameMode};

/// Where something goes: directory, stored name, duplicate number of its spelling.
struct Target {
    directory: Subject,
    stored: String,
    suffix: u32,
}

impl State {
    /// The stored name that `spelling` stands for when `moved` gets it, perhaps taking it from another.
    fn target(
        &self,
        directory: Subject,
        spelling: &str,
        moved: &Found,
        replaced: Option<&Found>,
    ) -> OpResult<Target> {
        if moved.spelling == spelling {
            // `mv` that keeps the last component keeps the stored name.
            let Some(stored) = moved.stored.as_named() else {
                return self.unnamed(directory, moved);
            };
            return Ok(Target {
                directory,
                stored: stored.to_owned(),
                suffix: moved.suffix,
            });
        }
        if !moved.facts.readable {
            // Its attributes cannot be written without its key.
            return Err(Errno::ACCESS);
        }
        if let Some(replaced) = replaced
            && let StoredName::Named(stored) = &replaced.stored
        {
            return Ok(Target {
                directory,
                stored: stored.clone(),
                suffix: replaced.suffix,
            });
        }
        Ok(Target {
            directory,
            stored: unescape(&self.config.naming.typed(spelling)),
            suffix: 0,
        })
    }

    /// A node without a readable name can move but not change its name.
    fn unnamed(&self, directory: Subject, moved: &Found) -> OpResult<Target> {
        Ok(Target {
            directory,
            stored: String::new(),
            suffix: moved.suffix,
        })
    }

    /// Edits the row of `moved` so that it is at `target`.
    fn place(&mut self, moved: &Found, target: Target) -> OpResult<mega_store::ChangeRow> {
        let kind = self.kind_of(moved.subject)?;
        let mut row = self.row_for_edit(moved.subject, kind);
        row.place = Some(Place {
            parent: target.directory,
            name: target.stored,
        });
        if target.suffix == 0 {
            clear_attribute(&mut row, SUFFIX);
        } else {
            set_attribute(&mut row, SUFFIX, Value::from(target.suffix));
        }
        if row.content.is_none() && !matches!(row.state, ChangeState::Pushing { .. }) {
            row.state = ChangeState::Pending {
                due_ms: self.name_due(),
            };
        } else if let ChangeState::Parked { .. } = row.state {
            row.state = ChangeState::Pending {
                due_ms: self.name_due(),
            };
        }
        Ok(row)
    }
}

/// Refuses what concerns `.mega` itself, or an entry of it that exists on no server.
fn check_ends((from, name): (u64, &str), (to, new_name): (u64, &str)) -> OpResult<()> {
    let is_top = |parent, name| parent == ROOT_INO && name == dot_mega::NAME;
    if is_top(from, name) || is_top(to, new_name) {
        return Err(Errno::PERM);
    }
    match (Virtual::of(from), Virtual::of(to)) {
        // A whole share: a tool may copy it.
        (Some(Virtual::Sharer(_)), to) if Virtual::of(from) != to => Err(Errno::XDEV),
        _ => check_real(from).and_then(|()| check_real(to)),
    }
}

impl Vfs {
    /// Moves or renames.
    ///
    /// # Errors
    /// ENOENT, EEXIST (`NoReplace`), EISDIR, ENOTDIR, ENOTEMPTY, EINVAL (into itself), EACCES (a node
    /// without key cannot get another name), EROFS; EXDEV, EPERM, EACCES and EBUSY as module `zone` says.
    pub async fn rename(
        &self,
        parent: u64,
        name: &OsStr,
        new_parent: u64,
        new_name: &OsStr,
        mode: RenameMode,
    ) -> OpResult<()> {
        self.shared.check_writable()?;
        self.shared.check_open()?;
        let name = entry_name(name)?;
        let new_name = entry_name(new_name)?;
        check_ends((parent, name), (new_parent, new_name))?;
        let mut state = self.shared.lock();
        let from = state.subject(parent)?;
        let to = state.subject(new_parent)?;
        let moved = state.find(from, name)?.ok_or(Errno::NOENT)?;
        let replaced = state.find(to, new_name)?;
        if moved.facts.shape == Shape::Directory && state.is_within(to, moved.subject)? {
            return Err(Errno::INVAL);
        }
        let is_for_good = state.check_rename((from, &moved), (to, replaced.as_ref()), mode)?;
        if mode == RenameMode::Exchange {
            let other = replaced.ok_or(Errno::NOENT)?;
            return self.exchange(&mut state, (from, moved), (to, other));
        }
        let unlinked = match replaced.as_ref() {
            None => None,
            Some(_) if mode == RenameMode::NoReplace => return Err(Errno::EXIST),
            Some(other) if other.subject == moved.subject => return Ok(()),
            Some(other) => {
                let is_directory = |found: &Found| found.facts.shape == Shape::Directory;
                match (is_directory(&moved), is_directory(other)) {
                    (true, false) => return Err(Errno::NOTDIR),
                    (false, true) => return Err(Errno::ISDIR),
                    (true, true) if !state.dir(other.subject)?.is_empty() => {
                        return Err(Errno::NOTEMPTY);
                    }
                    _ => {}
                }
                Some(other)
            }
        };
        let target = state.target(to, new_name, &moved, unlinked)?;
        let mut row = state.place(&moved, target)?;
        let below = state.changes_below(from, &moved, to)?;
        // What a local row itself was to replace is still to be replaced.
        let inherited = unlinked
            .and_then(|other| state.changes.get(other.subject))
            .and_then(|other| other.replaces);
        let file = match unlinked {
            Some(other) => {
                row.replaces = match other.subject {
                    Subject::Node(handle) => Some(handle),
                    Subject::Local(_) => inherited,
                };
                // Both in one transaction: a crash leaves the old state or the new one.
                let removal = state.removal_of(other, is_for_good)?;
                let dropped = removal.dropped_subject();
                let rows = removal.row.iter().cloned().chain([row]);
                let rows = rows.chain(below).collect();
                state.commit(rows, dropped.as_slice())?;
                self.shared
                    .finish_removal(&mut state, to, other.subject, removal)
            }
            None => {
                state.commit([row].into_iter().chain(below).collect(), &[])?;
                None
            }
        };
        state.take_out(from, moved.subject);
        State::show(&mut state, to, moved.subject)?;
        state.touch_dir(from);
        state.note_change(moved.subject);
        drop(state);
        self.shared.mark_unlinked(file);
        self.shared.wake.notify_one();
        Ok(())
    }

    fn exchange(
        &self,
        state: &mut State,
        (from, first): (Subject, Found),
        (to, second): (Subject, Found),
    ) -> OpResult<()> {
        if first.subject == second.subject {
            return Ok(());
        }
        if second.facts.shape == Shape::Directory && state.is_within(from, second.subject)? {
            return Err(Errno::INVAL);
        }
        let first_target = state.target(to, &second.spelling, &first, Some(&second))?;
        let second_target = state.target(from, &first.spelling, &second, Some(&first))?;
        let rows = vec![
            state.place(&first, first_target)?,
            state.place(&second, second_target)?,
        ];
        state.commit(rows, &[])?;
        state.take_out(from, first.subject);
        state.take_out(to, second.subject);
        State::show(state, to, first.subject)?;
        State::show(state, from, second.subject)?;
        state.note_change(first.subject);
        state.note_change(second.subject);
        self.shared.wake.notify_one();
        Ok(())
    }
}
