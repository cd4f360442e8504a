//! What the cache does about files that may not be what their rows say.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use rusqlite::Connection;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};

use super::table::{self, BlobRow};
use super::{UNIT, blob_path};
use crate::cache::blob::space_of;
use crate::durable;
use crate::error::StoreError;
use crate::range_set::RangeSet;

/// Where uploads in progress keep their ciphertext, below the cache directory.
pub(super) const PENDING: &str = "pending";

/// Makes a hole.
pub(super) fn punch(file: &File, range: Range<u64>) -> io::Result<()> {
    if range.is_empty() {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(
        file,
        flags,
        range.start,
        range.end - range.start,
    )?)
}

/// Opens a blob's file and compares it with its row. `None`: it is not to be used.
pub(super) fn check(path: &Path, mut row: BlobRow, size: u64) -> Option<(BlobRow, Option<File>)> {
    if row.size != size {
        return None;
    }
    if row.units.is_empty() {
        return Some((row, None));
    }
    let file = durable::private_file().open(path).ok()?;
    if file.metadata().ok()?.len() != size {
        return None;
    }
    if row.doubtful {
        let holds_data = row.units.iter().all(|run| {
            let bytes = run.start * UNIT..(run.end * UNIT).min(size);
            is_data(&file, bytes).unwrap_or(false)
        });
        if !holds_data {
            return None;
        }
        row.doubtful = false;
    }
    Some((row, Some(file)))
}

/// Whether no hole lies in `range`.
fn is_data(file: &File, range: Range<u64>) -> io::Result<bool> {
    let data = seek(file, SeekFrom::Data(range.start))?;
    let hole = seek(file, SeekFrom::Hole(range.start))?;
    Ok(data == range.start && hole >= range.end)
}

/// Brings a file back to what its row has; the row's new state. Anything strange empties it.
fn cut_back(dir: &Path, row: &BlobRow) -> RangeSet {
    let path = blob_path(dir, row.handle);
    let count = row.size.div_ceil(UNIT);
    let cut = || -> io::Result<()> {
        let file = durable::private_file().open(&path)?;
        if file.metadata()?.len() != row.size {
            return Err(io::ErrorKind::InvalidData.into());
        }
        row.units
            .gaps(0..count)
            .into_iter()
            .try_for_each(|gap| punch(&file, gap.start * UNIT..gap.end * UNIT))
    };
    if !row.units.is_empty() && cut().is_ok() {
        return row.units.clone();
    }
    let _ = durable::remove_if_there(&path);
    RangeSet::new()
}

fn rewrite(db: &Connection, dir: &Path, mut row: BlobRow) -> Result<(), StoreError> {
    row.units = cut_back(dir, &row);
    if row.units.is_empty() {
        return table::delete(db, row.handle);
    }
    row.bytes = row.units.iter().map(|run| space_of(row.size, &run)).sum();
    row.active = false;
    row.verified &= row.units.contains(0..row.size.div_ceil(UNIT));
    table::put(db, &row)
}

/// At every start: blobs that were being written may have more than their rows say, and uploads
/// that were in progress have left files.
pub(crate) fn after_crash(db: &Connection, dir: &Path) -> Result<(), StoreError> {
    for row in table::active(db)? {
        rewrite(db, dir, row)?;
    }
    let pending = dir.join(PENDING);
    if let Ok(entries) = std::fs::read_dir(&pending) {
        for entry in entries.flatten() {
            durable::remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

/// When the boot id has changed: only units that a sync vouched for stay, and no file is believed
/// before it was looked at. Files the database does not know go.
pub(crate) fn after_power_loss(db: &Connection, dir: &Path) -> Result<(), StoreError> {
    for (mut row, synced) in table::unsynced(db)? {
        let believed: RangeSet = synced
            .iter()
            .flat_map(|run| row.units.intersect(run).collect::<Vec<_>>())
            .collect();
        row.verified &= believed == row.units;
        row.units = believed;
        rewrite(db, dir, row)?;
    }
    table::doubt_all(db)?;
    let mut known = db.prepare("SELECT 1 FROM blob WHERE handle = ?1")?;
    for shelf in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = shelf.file_name();
        let is_shelf = name.to_str().is_some_and(|name| {
            name.len() == 2 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        if !is_shelf {
            continue;
        }
        for entry in std::fs::read_dir(shelf.path())
            .into_iter()
            .flatten()
            .flatten()
        {
            let handle: Option<mega_proto::NodeHandle> = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            if let Some(handle) = handle
                && !known.exists([crate::truth::handle_number(handle)])?
            {
                durable::remove_if_there(&entry.path())?;
            }
        }
    }
    Ok(())
}
