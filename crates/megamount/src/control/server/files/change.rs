//! Folders made, names moved and removed.

use std::ffi::OsStr;

use mega_vfs::{Held, Lookup, RenameMode};
use rustix::io::Errno;

use super::{Answered, Refusal, Talk, settle};
use crate::control::files::{FileReply, joined, split};

/// Makes a folder.
pub(super) async fn make(
    talk: &mut Talk<'_>,
    path: &str,
    parents: bool,
    at_once: bool,
) -> Answered {
    let made = match folders(talk, path, parents).await {
        Ok(made) => made,
        Err(refusal) => return Ok(Err(refusal)),
    };
    match made {
        Some(made) if !at_once => settle::inodes(talk, path, vec![made.ino()]).await,
        _ => Ok(Ok(FileReply::Done)),
    }
}

/// Makes a folder and, if wanted, those it is in; none if it is there already.
async fn folders(talk: &Talk<'_>, path: &str, parents: bool) -> Result<Option<Held>, Refusal> {
    let mut missing = Vec::new();
    let mut at = path;
    // Up to what exists.
    let mut folder = loop {
        match talk.vfs.at(at) {
            Ok(held) if held.is_folder() => break held,
            Ok(_) if at == path => return Err(talk.change_refusal(at, Errno::EXIST)),
            Ok(_) => return Err(talk.refusal(at, Errno::NOTDIR)),
            Err(Errno::NOENT) if !at.is_empty() && (parents || at == path) => {
                let (above, name) = split(at);
                missing.push(name);
                at = above;
            }
            Err(errno) => return Err(talk.refusal(at, errno)),
        }
    };
    if missing.is_empty() {
        return if parents {
            Ok(None)
        } else {
            Err(talk.change_refusal(path, Errno::EXIST))
        };
    }
    let mut at = at.to_owned();
    while let Some(name) = missing.pop() {
        at = joined(&at, name);
        let made = match talk.vfs.mkdir(folder.ino(), OsStr::new(name), 0o777).await {
            Ok(entry) => Held::adopt(talk.vfs, entry.attr),
            // Another command was first.
            Err(Errno::EXIST) if parents => match talk.vfs.at(&at) {
                Ok(held) if held.is_folder() => held,
                Ok(_) => return Err(talk.refusal(&at, Errno::NOTDIR)),
                Err(errno) => return Err(talk.refusal(&at, errno)),
            },
            Err(errno) => return Err(talk.change_refusal(&at, errno)),
        };
        talk.vfs.tell(folder.ino(), name, None);
        folder = made;
    }
    Ok(Some(folder))
}

/// Whether a path is that of the node which somebody has seen there; of any, where none is named.
fn is_still(talk: &Talk<'_>, path: &str, handle: Option<&str>) -> Result<(), Refusal> {
    let Some(handle) = handle else {
        return Ok(());
    };
    let (parent, name) = talk.parent(path)?;
    let now = talk.vfs.replaced_at(parent.ino(), name);
    match now.is_some_and(|now| now.to_string() == handle) {
        true => Ok(()),
        false => Err(talk.refusal(path, Errno::STALE)),
    }
}

/// Removes a file or folder; with a handle, only that node.
pub(super) async fn remove(
    talk: &mut Talk<'_>,
    path: &str,
    recursive: bool,
    handle: Option<&str>,
) -> Answered {
    if let Err(refusal) = is_still(talk, path, handle).and_then(|()| talk.parent(path).map(drop)) {
        return Ok(Err(refusal));
    }
    let whole = path.to_owned();
    let listed = if recursive {
        talk.look(move |vfs| vfs.below(&whole)).await?
    } else {
        talk.vfs.at(path).map(|held| vec![(whole, held)])
    };
    let found = match listed {
        Ok(found) => found,
        Err(errno) => return Ok(Err(talk.refusal(path, errno))),
    };
    let mut gone = Vec::with_capacity(found.len());
    // What is in a folder goes before it.
    for (path, held) in found.iter().rev() {
        let (parent, name) = match talk.parent(path) {
            Ok(place) => place,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let name = OsStr::new(name);
        let removed = if held.is_folder() {
            talk.vfs.rmdir(parent.ino(), name).await
        } else {
            talk.vfs.unlink(parent.ino(), name).await
        };
        match removed {
            Ok(()) => {}
            Err(Errno::NOENT) if recursive => continue,
            Err(errno) => return Ok(Err(talk.change_refusal(path, errno))),
        }
        talk.vfs.tell(parent.ino(), split(path).1, Some(held.ino()));
        gone.push(held.ino());
    }
    settle::inodes(talk, path, gone).await
}

/// Moves or renames; with a handle, only that node.
pub(super) async fn rename(
    talk: &mut Talk<'_>,
    from: &str,
    to: &str,
    handle: Option<&str>,
) -> Answered {
    if let Err(refusal) = is_still(talk, from, handle) {
        return Ok(Err(refusal));
    }
    let (place, target) = match (talk.parent(from), talk.parent(to)) {
        (Ok(place), Ok(target)) => (place, target),
        (Err(refusal), _) | (_, Err(refusal)) => return Ok(Err(refusal)),
    };
    let held = match talk.vfs.at(from) {
        Ok(held) => held,
        Err(errno) => return Ok(Err(talk.refusal(from, errno))),
    };
    let ((parent, name), (new_parent, new_name)) = (place, target);
    let (old, new) = (OsStr::new(name), OsStr::new(new_name));
    let mode = RenameMode::Replace;
    let replaced = talk.vfs.replaced_at(new_parent.ino(), new_name);
    let renamed = talk
        .vfs
        .rename(parent.ino(), old, new_parent.ino(), new, mode)
        .await;
    if let Err(errno) = renamed {
        return Ok(Err(talk.change_refusal(to, errno)));
    }
    talk.vfs.tell(parent.ino(), name, None);
    talk.vfs.tell(new_parent.ino(), new_name, Some(held.ino()));
    settle::placed(talk, to, held.ino(), replaced).await
}

/// What stands under a name, if anything does.
pub(super) async fn present(
    talk: &Talk<'_>,
    parent: &Held,
    name: &str,
) -> Result<Option<Held>, Errno> {
    match talk.vfs.lookup(parent.ino(), OsStr::new(name)).await? {
        Lookup::Found(entry) => Ok(Some(Held::adopt(talk.vfs, entry.attr))),
        Lookup::Missing { .. } => Ok(None),
    }
}
