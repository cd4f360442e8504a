//! Small scripts of named paths, for processes that die in the middle: what to do, how it looks after.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use mega_emulator::{Emulator, pattern};
use mega_vfs::{FileKind, Lookup, OpenMode, RenameMode, SetAttr, WriteAt};
use rustix::io::Errno;

use crate::world::{EMAIL, Life};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    Mkdir {
        path: &'static str,
    },
    /// Makes or empties it, writes, closes.
    Write {
        path: &'static str,
        seed: u64,
        size: usize,
    },
    /// Writes in the middle of what is there.
    Patch {
        path: &'static str,
        offset: usize,
        seed: u64,
        size: usize,
    },
    Rename {
        from: &'static str,
        to: &'static str,
    },
    Exchange {
        one: &'static str,
        other: &'static str,
    },
    Unlink {
        path: &'static str,
    },
    Rmdir {
        path: &'static str,
    },
    Chmod {
        path: &'static str,
    },
    /// Waits until Mega has everything.
    Settle,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Thing {
    Folder,
    File { bytes: Vec<u8>, exec: bool },
}

/// Everything there is, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Picture(pub(crate) BTreeMap<String, Thing>);

impl Picture {
    pub(crate) fn apply(&mut self, act: &Act) {
        match *act {
            Act::Mkdir { path } => {
                self.0.insert(path.to_owned(), Thing::Folder);
            }
            Act::Write { path, seed, size } => {
                let exec = matches!(self.0.get(path), Some(Thing::File { exec: true, .. }));
                let bytes = pattern(seed, 0, size as u64);
                self.0.insert(path.to_owned(), Thing::File { bytes, exec });
            }
            Act::Patch {
                path,
                offset,
                seed,
                size,
            } => {
                if let Some(Thing::File { bytes, .. }) = self.0.get_mut(path) {
                    let end = offset + size;
                    bytes.resize(bytes.len().max(end), 0);
                    bytes[offset..end].copy_from_slice(&pattern(seed, 0, size as u64));
                }
            }
            Act::Rename { from, to } => {
                let moved = self.take(from);
                self.take(to);
                self.give(to, moved);
            }
            Act::Exchange { one, other } => {
                let (first, second) = (self.take(one), self.take(other));
                self.give(other, first);
                self.give(one, second);
            }
            Act::Unlink { path } | Act::Rmdir { path } => {
                self.0.remove(path);
            }
            Act::Chmod { path } => {
                if let Some(Thing::File { exec, .. }) = self.0.get_mut(path) {
                    *exec = true;
                }
            }
            Act::Settle => {}
        }
    }

    /// A path and what is below it; the keys are the rest of the path.
    fn take(&mut self, path: &str) -> Vec<(String, Thing)> {
        let below = format!("{path}/");
        let all = std::mem::take(&mut self.0);
        let (taken, left): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|(at, _)| at == path || at.starts_with(&below));
        self.0 = left.into_iter().collect();
        taken
            .into_iter()
            .map(|(at, thing)| (at[path.len()..].to_owned(), thing))
            .collect()
    }

    fn give(&mut self, path: &str, things: Vec<(String, Thing)>) {
        for (rest, thing) in things {
            self.0.insert(format!("{path}{rest}"), thing);
        }
    }

    /// Paths and sizes, for messages.
    pub(crate) fn brief(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|(path, thing)| match thing {
                Thing::Folder => format!("{path}/"),
                Thing::File { bytes, exec } => {
                    format!("{path} {}{}", bytes.len(), if *exec { "x" } else { "" })
                }
            })
            .collect()
    }

    /// What Mega has. Fails when something is there twice.
    pub(crate) fn of_server(emulator: &Emulator) -> Result<Self, String> {
        let mut picture = Self::default();
        for node in emulator.tree(EMAIL).unwrap() {
            let is_live = !node.in_bin && node.version_of.is_none();
            if !is_live || node.path == "/" || node.path.starts_with("//") {
                continue;
            }
            let thing = if node.folder {
                Thing::Folder
            } else {
                let mark = node.attributes.as_ref().and_then(|map| map.get("mmx"));
                Thing::File {
                    bytes: emulator.content(&node.handle).unwrap(),
                    exec: mark.is_some_and(|value| value.as_str() == Some("1")),
                }
            };
            let path = node.path.trim_start_matches('/').to_owned();
            if picture.0.insert(path, thing).is_some() {
                return Err(format!("{} is on Mega twice", node.path));
            }
        }
        Ok(picture)
    }
}

/// The root of the mount.
const ROOT: u64 = 1;

async fn find(life: &Life, path: &str) -> Result<u64, Errno> {
    let mut at = ROOT;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        match life.vfs.lookup(at, OsStr::new(name)).await? {
            Lookup::Found(entry) => at = entry.attr.ino,
            Lookup::Missing { .. } => return Err(Errno::NOENT),
        }
    }
    Ok(at)
}

async fn split<'p>(life: &Life, path: &'p str) -> Result<(u64, &'p OsStr), Errno> {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    Ok((find(life, parent).await?, OsStr::new(name)))
}

async fn write(
    life: &Life,
    path: &str,
    truncate: bool,
    offset: usize,
    bytes: &[u8],
) -> Result<(), Errno> {
    let vfs = &life.vfs;
    let mode = OpenMode {
        read: true,
        write: true,
        truncate,
        ..OpenMode::default()
    };
    let (ino, fh) = match find(life, path).await {
        Ok(ino) => (ino, vfs.open(ino, mode).await?.fh),
        Err(_) => {
            let (parent, name) = split(life, path).await?;
            let (entry, opened) = vfs.create(parent, name, 0o644, mode).await?;
            (entry.attr.ino, opened.fh)
        }
    };
    for (index, piece) in bytes.chunks(100_000).enumerate() {
        vfs.write(
            ino,
            fh,
            WriteAt::Offset((offset + index * 100_000) as u64),
            piece,
        )
        .await?;
    }
    vfs.flush(ino, fh).await?;
    vfs.release(ino, fh).await
}

async fn rename(life: &Life, from: &str, to: &str, mode: RenameMode) -> Result<(), Errno> {
    let (parent, name) = split(life, from).await?;
    let (new_parent, new_name) = split(life, to).await?;
    life.vfs
        .rename(parent, name, new_parent, new_name, mode)
        .await
}

/// Does it.
pub(crate) fn act(life: &Life, act: &Act) -> Result<(), String> {
    if matches!(act, Act::Settle) {
        return life.drain().map_err(|status| format!("{status:?}"));
    }
    let done = life.run(async {
        match *act {
            Act::Mkdir { path } => {
                let (parent, name) = split(life, path).await?;
                life.vfs.mkdir(parent, name, 0o755).await.map(|_| ())
            }
            Act::Write { path, seed, size } => {
                write(life, path, true, 0, &pattern(seed, 0, size as u64)).await
            }
            Act::Patch {
                path,
                offset,
                seed,
                size,
            } => write(life, path, false, offset, &pattern(seed, 0, size as u64)).await,
            Act::Rename { from, to } => rename(life, from, to, RenameMode::Replace).await,
            Act::Exchange { one, other } => rename(life, one, other, RenameMode::Exchange).await,
            Act::Unlink { path } => {
                let (parent, name) = split(life, path).await?;
                life.vfs.unlink(parent, name).await
            }
            Act::Rmdir { path } => {
                let (parent, name) = split(life, path).await?;
                life.vfs.rmdir(parent, name).await
            }
            Act::Chmod { path } => {
                let wanted = SetAttr {
                    mode: Some(0o755),
                    ..SetAttr::default()
                };
                life.vfs
                    .setattr(find(life, path).await?, wanted)
                    .await
                    .map(|_| ())
            }
            Act::Settle => Ok(()),
        }
    });
    done.map_err(|errno| format!("{act:?}: {errno}"))
}

/// What the user sees.
pub(crate) fn look(life: &Life) -> Result<Picture, String> {
    let mut picture = Picture::default();
    let mut waiting = vec![(ROOT, String::new())];
    let vfs = &life.vfs;
    let done = life.run(async {
        while let Some((ino, path)) = waiting.pop() {
            let fh = vfs.opendir(ino).await?.fh;
            let listing = vfs.readdir(ino, fh, 2, 10_000).await?;
            vfs.releasedir(fh).await?;
            for entry in listing {
                let name = entry.name.to_str().unwrap();
                let path = if path.is_empty() {
                    name.to_owned()
                } else {
                    format!("{path}/{name}")
                };
                // As the kernel does; the number may have changed since the listing.
                let Lookup::Found(entry) = vfs.lookup(ino, &entry.name).await? else {
                    return Err(Errno::NOENT);
                };
                let attr = entry.attr;
                if attr.kind == FileKind::Directory {
                    waiting.push((attr.ino, path.clone()));
                    picture.0.insert(path, Thing::Folder);
                    continue;
                }
                let mode = OpenMode {
                    read: true,
                    ..OpenMode::default()
                };
                let fh = vfs.open(attr.ino, mode).await?.fh;
                let mut bytes = Vec::new();
                loop {
                    let piece = vfs.read(attr.ino, fh, bytes.len() as u64, 1 << 17).await?;
                    if piece.is_empty() {
                        break;
                    }
                    bytes.extend_from_slice(&piece);
                }
                vfs.release(attr.ino, fh).await?;
                let exec = attr.perm & 0o100 != 0;
                picture.0.insert(path, Thing::File { bytes, exec });
            }
        }
        Ok(())
    });
    done.map_err(|errno: Errno| errno.to_string())?;
    Ok(picture)
}
