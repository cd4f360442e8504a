//! Files and links put into the account.
//!
//! A file is written under a name of its own that is never pushed, and gets its real name when it is
//! complete: nobody sees half of it, and what it replaces stays until then.

use std::ffi::OsStr;
use std::io;

use mega_vfs::{
    CopyRange, FileKind, Held, OpResult, OpenMode, PARTIAL_PREFIX, PARTIAL_SUFFIX, RenameMode,
    SetAttr, Timestamp, WriteAt,
};
use rustix::io::Errno;
use tokio::io::AsyncReadExt;

use super::{Answered, Refusal, Talk, change, settle};
use crate::control::files::PIECE;
use crate::control::protocol::Fault;

/// What is known of a file before it comes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meta {
    pub(super) size: u64,
    pub(super) mtime: Timestamp,
    pub(super) executable: bool,
}

/// A file that is being written.
struct Partial<'p> {
    parent: Held,
    /// The name it is to get.
    name: &'p str,
    /// The name it has.
    own_name: String,
    file: Held,
    fh: u64,
}

/// How content did not come.
enum Trouble {
    /// The client has gone, or speaks nonsense.
    Gone(io::Error),
    /// The client sent something else than it said.
    Other,
    /// The file system refused it.
    Local(Errno),
}

/// Takes a file from the client.
pub(super) async fn write(talk: &mut Talk<'_>, path: &str, meta: Meta) -> Answered {
    let partial = match begin(talk, path, meta.executable).await {
        Ok(partial) => partial,
        Err(refusal) => return refuse(talk, refusal).await,
    };
    let received = receive(talk, &partial, meta.size).await;
    match received {
        Ok(()) => finish(talk, path, partial, meta.mtime).await,
        Err(trouble) => {
            abandon(talk, &partial).await;
            let refusal = match trouble {
                Trouble::Gone(error) => return Err(error),
                Trouble::Local(errno) => talk.change_refusal(path, errno),
                Trouble::Other => Refusal {
                    code: Fault::Failed,
                    text: format!("'{path}' changed while it was read. Nothing of it was kept"),
                },
            };
            refuse(talk, refusal).await
        }
    }
}

/// Answers before the client has sent everything: it notices by the end of the connection.
async fn refuse(talk: &mut Talk<'_>, refusal: Refusal) -> Answered {
    talk.send(&refusal.into()).await?;
    Err(io::ErrorKind::ConnectionAborted.into())
}

/// Makes a copy of a file.
pub(super) async fn clone(talk: &mut Talk<'_>, from: &str, to: &str) -> Answered {
    let source = match talk.vfs.at(from) {
        Ok(source) if source.attr.kind == FileKind::File => source,
        Ok(_) => return Ok(Err(talk.refusal(from, Errno::ISDIR))),
        Err(errno) => return Ok(Err(talk.refusal(from, errno))),
    };
    clone_of(talk, from, source, to).await
}

/// Makes a file with the content of another, or of an old version.
pub(super) async fn clone_of(talk: &mut Talk<'_>, from: &str, source: Held, to: &str) -> Answered {
    let partial = match begin(talk, to, source.attr.perm & 0o100 != 0).await {
        Ok(partial) => partial,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let mode = OpenMode {
        read: true,
        ..OpenMode::default()
    };
    let opened = match talk.vfs.open(source.ino(), mode).await {
        Ok(opened) => opened,
        Err(errno) => {
            abandon(talk, &partial).await;
            return Ok(Err(talk.refusal(from, errno)));
        }
    };
    let copied = fill(talk, &source, opened.fh, &partial).await;
    let _ = talk.vfs.release(source.ino(), opened.fh).await;
    match copied {
        Ok(()) => finish(talk, to, partial, source.attr.mtime).await,
        Err(errno) => {
            abandon(talk, &partial).await;
            Ok(Err(talk.change_refusal(from, errno)))
        }
    }
}

/// Shows the source's content in the partial file, or reads and writes it where that cannot be.
async fn fill(talk: &Talk<'_>, source: &Held, fh_in: u64, partial: &Partial<'_>) -> OpResult<()> {
    let mut offset = 0;
    let mut is_read = false;
    while offset < source.attr.size {
        if !is_read {
            let range = CopyRange {
                fh_in,
                offset_in: offset,
                fh_out: partial.fh,
                offset_out: offset,
                length: source.attr.size - offset,
            };
            match talk.vfs.copy_file_range(range).await {
                Ok(0) => return Err(Errno::STALE),
                Ok(count) => offset += count,
                Err(Errno::OPNOTSUPP) if offset == 0 => is_read = true,
                Err(errno) => return Err(errno),
            }
            continue;
        }
        let size = u32::try_from(PIECE).unwrap_or(u32::MAX);
        let bytes = talk.vfs.read(source.ino(), fh_in, offset, size).await?;
        if bytes.is_empty() {
            return Err(Errno::STALE);
        }
        let at = WriteAt::Offset(offset);
        talk.vfs
            .write(partial.file.ino(), partial.fh, at, &bytes)
            .await?;
        offset += bytes.len() as u64;
    }
    Ok(())
}

/// Makes a symbolic link, in place of a file or link of that name, which stays until then.
pub(super) async fn link(
    talk: &mut Talk<'_>,
    path: &str,
    target: &str,
    mtime: Timestamp,
) -> Answered {
    let (parent, name) = match talk.parent(path) {
        Ok(place) => place,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let own_name = match own_name() {
        Ok(own_name) => own_name,
        Err(errno) => return Ok(Err(talk.change_refusal(path, errno))),
    };
    let partial = OsStr::new(&own_name);
    let replaced = talk.vfs.replaced_at(parent.ino(), name);
    let made = async {
        if change::present(talk, &parent, name)
            .await?
            .is_some_and(|old| old.is_folder())
        {
            return Err(Errno::ISDIR);
        }
        let target = OsStr::new(target);
        let entry = talk.vfs.symlink(parent.ino(), partial, target).await?;
        let link = Held::adopt(talk.vfs, entry.attr);
        let placed = async {
            let times = SetAttr {
                mtime: Some(mtime),
                ..SetAttr::default()
            };
            talk.vfs.setattr(link.ino(), times).await?;
            let (parent, to) = (parent.ino(), OsStr::new(name));
            let mode = RenameMode::Replace;
            talk.vfs.rename(parent, partial, parent, to, mode).await
        };
        if let Err(errno) = placed.await {
            let _ = talk.vfs.unlink(parent.ino(), partial).await;
            return Err(errno);
        }
        Ok(link)
    };
    match made.await {
        Ok(link) => {
            talk.vfs.tell(parent.ino(), name, Some(link.ino()));
            settle::placed(talk, path, link.ino(), replaced).await
        }
        Err(errno) => Ok(Err(talk.change_refusal(path, errno))),
    }
}

/// A name for what is not complete.
fn own_name() -> Result<String, Errno> {
    let mut id = [0; 8];
    getrandom::fill(&mut id).map_err(|_| Errno::IO)?;
    let id = u64::from_be_bytes(id);
    Ok(format!("{PARTIAL_PREFIX}{id:016x}{PARTIAL_SUFFIX}"))
}

/// An empty file beside where it is to be.
async fn begin<'p>(
    talk: &Talk<'_>,
    path: &'p str,
    executable: bool,
) -> Result<Partial<'p>, Refusal> {
    let refused = |errno| talk.change_refusal(path, errno);
    let (parent, name) = talk.parent(path)?;
    match change::present(talk, &parent, name).await {
        Ok(Some(old)) if old.is_folder() => return Err(talk.refusal(path, Errno::ISDIR)),
        Ok(_) => {}
        Err(errno) => return Err(refused(errno)),
    }
    let own_name = own_name().map_err(refused)?;
    let open = OpenMode {
        write: true,
        exclusive: true,
        ..OpenMode::default()
    };
    let mode = if executable { 0o755 } else { 0o644 };
    let made = talk
        .vfs
        .create(parent.ino(), OsStr::new(&own_name), mode, open)
        .await;
    let (entry, opened) = made.map_err(refused)?;
    Ok(Partial {
        parent,
        name,
        own_name,
        file: Held::adopt(talk.vfs, entry.attr),
        fh: opened.fh,
    })
}

/// Nothing of it stays.
async fn abandon(talk: &Talk<'_>, partial: &Partial<'_>) {
    let own_name = OsStr::new(&partial.own_name);
    let removed = talk.vfs.unlink(partial.parent.ino(), own_name).await;
    if let Err(error) = removed {
        tracing::warn!(%error, "half a file stays until the next start");
    }
    let _ = talk.vfs.release(partial.file.ino(), partial.fh).await;
}

/// It gets its time and its name, and Mega gets it.
async fn finish(
    talk: &mut Talk<'_>,
    path: &str,
    partial: Partial<'_>,
    mtime: Timestamp,
) -> Answered {
    let ino = partial.file.ino();
    let named = async {
        // Its row has all bytes before it has the name.
        talk.vfs.flush(ino, partial.fh).await?;
        let times = SetAttr {
            mtime: Some(mtime),
            ..SetAttr::default()
        };
        talk.vfs.setattr(ino, times).await?;
        let (from, to) = (OsStr::new(&partial.own_name), OsStr::new(partial.name));
        let parent = partial.parent.ino();
        let mode = RenameMode::Replace;
        talk.vfs.rename(parent, from, parent, to, mode).await
    };
    let replaced = talk.vfs.replaced_at(partial.parent.ino(), partial.name);
    if let Err(errno) = named.await {
        abandon(talk, &partial).await;
        return Ok(Err(talk.change_refusal(path, errno)));
    }
    talk.vfs.tell(partial.parent.ino(), partial.name, Some(ino));
    if let Err(errno) = talk.vfs.release(ino, partial.fh).await {
        return Ok(Err(talk.change_refusal(path, errno)));
    }
    settle::placed(talk, path, ino, replaced).await
}

/// Writes the pieces as they come.
async fn receive(talk: &mut Talk<'_>, partial: &Partial<'_>, size: u64) -> Result<(), Trouble> {
    let mut buffer = vec![0; PIECE];
    let mut offset = 0;
    loop {
        let length = talk.reader.read_u32().await.map_err(Trouble::Gone)?;
        if length == 0 {
            break;
        }
        let Some(piece) = buffer.get_mut(..length as usize) else {
            return Err(Trouble::Gone(io::ErrorKind::InvalidData.into()));
        };
        talk.reader.read_exact(piece).await.map_err(Trouble::Gone)?;
        let at = WriteAt::Offset(offset);
        let written = talk.vfs.write(partial.file.ino(), partial.fh, at, piece);
        written.await.map_err(Trouble::Local)?;
        offset += u64::from(length);
    }
    if offset == size {
        Ok(())
    } else {
        Err(Trouble::Other)
    }
}
