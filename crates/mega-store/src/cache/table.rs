//! Rows of table `blob`.

use std::collections::BTreeMap;

use mega_proto::NodeHandle;
use rusqlite::{Connection, OptionalExtension, params};

use crate::error::StoreError;
use crate::range_set::RangeSet;
use crate::truth::{handle_number, number_handle};

/// What is known about a node's cached bytes.
#[derive(Debug, Clone)]
pub(super) struct BlobRow {
    pub(super) handle: NodeHandle,
    /// Length of the node's content.
    pub(super) size: u64,
    /// Disk space of the present units.
    pub(super) bytes: u64,
    /// Present units (I3: may lack some, never has too many).
    pub(super) units: RangeSet,
    pub(super) macs: BTreeMap<u32, [u8; 16]>,
    pub(super) verified: bool,
    /// The file may have more than `units` says.
    pub(super) active: bool,
    /// A power cut came after the row was written: ask the file before believing.
    pub(super) doubtful: bool,
    /// Changes whenever units are taken away.
    pub(super) epoch: u64,
    /// Milliseconds since 1970.
    pub(super) last_use: u64,
}

const COLUMNS: &str =
    "handle, size, bytes, units, macs, verified, active, doubtful, epoch, last_use";

fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<BlobRow> {
    let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
    Ok(BlobRow {
        handle: number_handle(row.get(0)?),
        size: number(1)?,
        bytes: number(2)?,
        // Unreadable maps read as "nothing": allowed by I3.
        units: RangeSet::decode(row.get_ref(3)?.as_blob()?).unwrap_or_default(),
        macs: decode_macs(row.get_ref(4)?.as_blob()?),
        verified: row.get(5)?,
        active: row.get(6)?,
        doubtful: row.get(7)?,
        epoch: number(8)?,
        last_use: number(9)?,
    })
}

fn encode_macs(macs: &BTreeMap<u32, [u8; 16]>) -> Vec<u8> {
    macs.iter()
        .flat_map(|(chunk, mac)| chunk.to_le_bytes().into_iter().chain(*mac))
        .collect()
}

fn decode_macs(bytes: &[u8]) -> BTreeMap<u32, [u8; 16]> {
    let (entries, _) = bytes.as_chunks::<20>();
    let entry = |entry: &[u8; 20]| {
        let (chunk, mac) = entry.split_first_chunk::<4>()?;
        Some((u32::from_le_bytes(*chunk), mac.try_into().ok()?))
    };
    entries.iter().filter_map(entry).collect()
}

pub(super) fn load(db: &Connection, handle: NodeHandle) -> Result<Option<BlobRow>, StoreError> {
    let mut statement =
        db.prepare_cached(&format!("SELECT {COLUMNS} FROM blob WHERE handle = ?1"))?;
    Ok(statement
        .query_row([handle_number(handle)], from_row)
        .optional()?)
}

/// Writes the row; what a sync vouched for stays as long as the epoch does.
pub(super) fn put(db: &Connection, row: &BlobRow) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO blob (handle, size, bytes, units, macs, verified, active, doubtful, epoch,
             last_use, synced)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, x'')
         ON CONFLICT (handle) DO UPDATE SET size = ?2, bytes = ?3, units = ?4, macs = ?5,
             verified = ?6, active = ?7, doubtful = ?8, last_use = ?10, epoch = ?9,
             synced = CASE WHEN epoch = ?9 THEN synced ELSE x'' END",
    )?
    .execute(params![
        handle_number(row.handle),
        row.size.cast_signed(),
        row.bytes.cast_signed(),
        row.units.encode(),
        encode_macs(&row.macs),
        row.verified,
        row.active,
        row.doubtful,
        row.epoch.cast_signed(),
        row.last_use.cast_signed(),
    ])?;
    Ok(())
}

pub(super) fn delete(db: &Connection, handle: NodeHandle) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM blob WHERE handle = ?1")?
        .execute([handle_number(handle)])?;
    Ok(())
}

/// Disk space of all blobs.
pub(super) fn total(db: &Connection) -> Result<u64, StoreError> {
    let sum: i64 = db.query_row("SELECT coalesce(sum(bytes), 0) FROM blob", [], |row| {
        row.get(0)
    })?;
    Ok(sum.cast_unsigned())
}

/// Blobs that hold bytes, least recently used first: handle and size.
pub(super) fn oldest(
    db: &Connection,
    skip: u32,
    count: u32,
) -> Result<Vec<(NodeHandle, u64)>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT handle, size FROM blob WHERE bytes > 0 ORDER BY last_use LIMIT ?2 OFFSET ?1",
    )?;
    let rows = statement.query_map([skip, count], |row| {
        Ok((
            number_handle(row.get(0)?),
            row.get::<_, i64>(1)?.cast_unsigned(),
        ))
    })?;
    Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
}

/// Blobs that were being written when the process ended.
pub(super) fn active(db: &Connection) -> Result<Vec<BlobRow>, StoreError> {
    select(db, "active = 1")
}

/// Blobs with units no sync has vouched for, and what it did vouch for.
pub(super) fn unsynced(db: &Connection) -> Result<Vec<(BlobRow, RangeSet)>, StoreError> {
    let sql = format!("SELECT {COLUMNS}, synced FROM blob WHERE units <> synced");
    let mut statement = db.prepare(&sql)?;
    let rows = statement.query_map([], |row| {
        let synced = RangeSet::decode(row.get_ref(10)?.as_blob()?).unwrap_or_default();
        Ok((from_row(row)?, synced))
    })?;
    Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
}

fn select(db: &Connection, condition: &str) -> Result<Vec<BlobRow>, StoreError> {
    let mut statement = db.prepare(&format!("SELECT {COLUMNS} FROM blob WHERE {condition}"))?;
    let rows = statement.query_map([], from_row)?;
    Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
}

/// These units of the row were synced, if none was taken away since it was read.
pub(super) fn mark_synced(db: &Connection, row: &BlobRow) -> Result<(), StoreError> {
    db.prepare_cached("UPDATE blob SET synced = ?3 WHERE handle = ?1 AND epoch = ?2")?
        .execute(params![
            handle_number(row.handle),
            row.epoch.cast_signed(),
            row.units.encode()
        ])?;
    Ok(())
}

/// After a power cut no row is believed before its file was asked.
pub(super) fn doubt_all(db: &Connection) -> Result<(), StoreError> {
    db.execute("UPDATE blob SET doubtful = 1", [])?;
    Ok(())
}
