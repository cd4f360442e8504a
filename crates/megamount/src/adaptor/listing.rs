//! Directory listings: pages of mega-vfs into replies of the size the kernel asked for.
//!
//! A reply is filled from one or more pages until it is full or the directory ends. Each entry of a
//! readdirplus reply is a reference for the kernel and counted as such, except `.` and `..`.

use std::sync::Arc;

use fuser::{INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use mega_vfs::{DirEntry, OpResult, Vfs};

use super::GENERATION;
use super::convert::{errno, file_attr, file_type};

/// Entries per page. A reply of 32 KiB (what getdents of the C library asks for) holds about 700
/// plain entries, or 200 with attributes.
const PLAIN_PAGE: usize = 256;
const PLUS_PAGE: usize = 32;

/// What the kernel gets of each entry.
#[derive(Debug, Clone, Copy)]
enum Detail {
    Names,
    Attributes,
}

/// A reply with what became of it; the error is sent only if nothing was put into the reply.
pub(super) type Filled<R> = (R, OpResult<()>);

/// Fills `reply` from `offset` on.
pub(super) async fn plain(
    vfs: Arc<Vfs>,
    ino: u64,
    fh: u64,
    offset: u64,
    mut reply: ReplyDirectory,
) -> OpResult<Filled<ReplyDirectory>> {
    let result = fill(&vfs, Detail::Names, (ino, fh), offset, |entry| {
        reply.add(
            INodeNo(entry.ino),
            entry.next_offset,
            file_type(entry.kind),
            &entry.name,
        )
    });
    let result = result.await;
    Ok((reply, result))
}

/// The same with attributes.
pub(super) async fn plus(
    vfs: Arc<Vfs>,
    ino: u64,
    fh: u64,
    offset: u64,
    mut reply: ReplyDirectoryPlus,
) -> OpResult<Filled<ReplyDirectoryPlus>> {
    let result = fill(&vfs, Detail::Attributes, (ino, fh), offset, |entry| {
        let attr = file_attr(&entry.entry.attr);
        let (ino, next) = (INodeNo(entry.ino), entry.next_offset);
        reply.add(ino, next, &entry.name, &entry.entry.ttl, &attr, GENERATION)
    });
    let result = result.await;
    Ok((reply, result))
}

/// Hands entries to `add` until it says that the reply is full (and has not taken the entry).
async fn fill(
    vfs: &Vfs,
    detail: Detail,
    (ino, fh): (u64, u64),
    mut offset: u64,
    mut add: impl FnMut(&DirEntry) -> bool,
) -> OpResult<()> {
    let mut added = 0usize;
    loop {
        let (page, listed) = match detail {
            Detail::Names => (PLAIN_PAGE, vfs.readdir(ino, fh, offset, PLAIN_PAGE).await),
            Detail::Attributes => (PLUS_PAGE, vfs.readdirplus(ino, fh, offset, PLUS_PAGE).await),
        };
        let entries = match listed {
            Ok(entries) => entries,
            // The kernel comes back for the rest and gets the error then.
            Err(_) if added > 0 => return Ok(()),
            Err(error) => return Err(error),
        };
        let is_last = entries.len() < page;
        for (index, entry) in entries.iter().enumerate() {
            if add(entry) {
                if matches!(detail, Detail::Attributes) {
                    // The kernel does not get these.
                    let rest = entries.iter().skip(index);
                    rest.filter(|entry| entry.is_counted())
                        .for_each(|entry| vfs.forget(entry.ino, 1));
                }
                return Ok(());
            }
            added += 1;
            offset = entry.next_offset;
        }
        if is_last {
            return Ok(());
        }
    }
}

/// Sends a plain listing.
pub(super) fn answer_plain(filled: OpResult<Filled<ReplyDirectory>>) {
    match filled {
        Ok((reply, Ok(()))) => reply.ok(),
        Ok((reply, Err(error))) => reply.error(errno(error)),
        // The reply was dropped with the operation and has answered EIO.
        Err(_) => {}
    }
}

/// Sends a listing with attributes.
pub(super) fn answer_plus(filled: OpResult<Filled<ReplyDirectoryPlus>>) {
    match filled {
        Ok((reply, Ok(()))) => reply.ok(),
        Ok((reply, Err(error))) => reply.error(errno(error)),
        Err(_) => {}
    }
}
