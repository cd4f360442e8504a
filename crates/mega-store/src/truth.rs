//! Reading and writing rows of the truth: nodes, shares, meta.

use std::collections::HashSet;

use mega_proto::{NodeHandle, NodeKind, UserHandle};
use rusqlite::{Connection, OptionalExtension, Row, Statement, params};

use crate::error::StoreError;
use crate::rows::{NodeRow, Roots, ShareKind, ShareRow};

/// The `parent` of nodes that have none; sorts before all handles.
pub(crate) const NO_PARENT: i64 = -1;
/// The `user` of share rows that have none; no real user handle is zero.
const NO_USER: i64 = 0;

const NODE: &str = "handle, parent, kind, owner, size, ts, key, attrs, fa, arrival, suffix";

/// The columns of [`insert_node`] and their values.
const INSERT_COLUMNS: &str =
    "(handle, parent, kind, owner, size, ts, key, attrs, fa, arrival, suffix)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";

pub(crate) const fn handle_number(handle: NodeHandle) -> i64 {
    handle.to_u48().cast_signed()
}

pub(crate) const fn number_handle(number: i64) -> NodeHandle {
    NodeHandle::from_u48(number.cast_unsigned())
}

pub(crate) fn parent_number(parent: Option<NodeHandle>) -> i64 {
    parent.map_or(NO_PARENT, handle_number)
}

const fn user_number(user: UserHandle) -> i64 {
    i64::from_be_bytes(user.0)
}

const fn number_user(number: i64) -> UserHandle {
    UserHandle(number.to_be_bytes())
}

/// A kind as a column; unknown numbers are damage.
pub(crate) fn kind_from(number: i64) -> rusqlite::Result<NodeKind> {
    NodeKind::from_code(number).ok_or(rusqlite::Error::IntegralValueOutOfRange(0, number))
}

fn node_from(row: &Row<'_>) -> rusqlite::Result<NodeRow> {
    let parent: i64 = row.get(1)?;
    Ok(NodeRow {
        handle: number_handle(row.get(0)?),
        parent: (parent != NO_PARENT).then(|| number_handle(parent)),
        kind: kind_from(row.get(2)?)?,
        owner: row.get::<_, Option<i64>>(3)?.map(number_user),
        size: row.get::<_, i64>(4)?.cast_unsigned(),
        ts: row.get(5)?,
        key: row.get(6)?,
        attrs: row.get(7)?,
        fa: row.get(8)?,
        arrival: row.get::<_, i64>(9)?.cast_unsigned(),
        suffix: row.get(10)?,
    })
}

/// The statement that puts a row into the loader's table, for [`insert_node`].
pub(crate) fn insert_next() -> String {
    format!("INSERT OR REPLACE INTO node_next {INSERT_COLUMNS}")
}

/// Runs an insert whose columns are [`INSERT_COLUMNS`].
pub(crate) fn insert_node(
    statement: &mut Statement<'_>,
    row: &NodeRow,
    arrival: u64,
    suffix: Option<u32>,
) -> Result<(), StoreError> {
    statement.execute(params![
        handle_number(row.handle),
        parent_number(row.parent),
        row.kind.code(),
        row.owner.map(user_number),
        row.size.cast_signed(),
        row.ts,
        row.key,
        row.attrs,
        row.fa,
        arrival.cast_signed(),
        suffix,
    ])?;
    Ok(())
}

/// Files up to this size are not found by it. An upload of one chunk costs about as much as looking, and
/// small files often have the same size by chance. It also keeps `node_size` small.
pub const SMALLEST_BY_SIZE: u64 = 128 * 1024;

/// Whether `node_size` has a node.
pub(crate) fn is_found_by_size(kind: NodeKind, size: u64) -> bool {
    kind == NodeKind::File && size > SMALLEST_BY_SIZE
}

/// Files of this size, at most `limit`.
pub(crate) fn files_of_size(
    db: &Connection,
    size: u64,
    limit: u32,
) -> Result<Vec<NodeRow>, StoreError> {
    let mut found = Vec::new();
    if size <= SMALLEST_BY_SIZE {
        return Ok(found);
    }
    let mut statement =
        db.prepare_cached("SELECT handle FROM node_size WHERE size = ?1 LIMIT ?2")?;
    let mut rows = statement.query([size.cast_signed(), i64::from(limit)])?;
    while let Some(row) = rows.next()? {
        // An older program that used this state since did not keep the table.
        let row = node(db, number_handle(row.get(0)?))?;
        found.extend(row.filter(|row| row.kind == NodeKind::File && row.size == size));
    }
    Ok(found)
}

/// Takes a node out of `node_size`.
pub(crate) fn forget_size(db: &Connection, handle: i64, size: i64) -> Result<(), StoreError> {
    if size.cast_unsigned() > SMALLEST_BY_SIZE {
        db.prepare_cached("DELETE FROM node_size WHERE size = ?1 AND handle = ?2")?
            .execute([size, handle])?;
    }
    Ok(())
}

/// Restricts a statement over `node` to one handle, `?1`.
pub(crate) const IS_HANDLE: &str =
    "handle = ?1 AND parent = (SELECT parent FROM node_parent WHERE node_parent.handle = ?1)";

pub(crate) fn node(db: &Connection, handle: NodeHandle) -> Result<Option<NodeRow>, StoreError> {
    let sql = format!("SELECT {NODE} FROM node WHERE {IS_HANDLE}");
    let mut statement = db.prepare_cached(&sql)?;
    Ok(statement
        .query_row([handle_number(handle)], node_from)
        .optional()?)
}

/// Writes a node to all of its tables; it must not be below another parent.
pub(crate) fn put_node(db: &Connection, row: &NodeRow, arrival: u64) -> Result<(), StoreError> {
    let sql = format!("INSERT OR REPLACE INTO node {INSERT_COLUMNS}");
    let mut insert = db.prepare_cached(&sql)?;
    insert_node(&mut insert, row, arrival, row.suffix)?;
    db.prepare_cached("INSERT OR REPLACE INTO node_parent VALUES (?1, ?2)")?
        .execute([handle_number(row.handle), parent_number(row.parent)])?;
    if is_found_by_size(row.kind, row.size) {
        db.prepare_cached("INSERT OR IGNORE INTO node_size VALUES (?1, ?2)")?
            .execute([row.size.cast_signed(), handle_number(row.handle)])?;
    }
    Ok(())
}

/// Deletes a node from all of its tables; whether it was there.
pub(crate) fn delete_node(db: &Connection, handle: NodeHandle) -> Result<bool, StoreError> {
    let handle = handle_number(handle);
    let size: Option<i64> = db
        .prepare_cached(&format!(
            "DELETE FROM node WHERE {IS_HANDLE} RETURNING size"
        ))?
        .query_row([handle], |row| row.get(0))
        .optional()?;
    db.prepare_cached("DELETE FROM node_parent WHERE handle = ?1")?
        .execute([handle])?;
    if let Some(size) = size {
        forget_size(db, handle, size)?;
    }
    Ok(size.is_some())
}

/// Sets a column of a node; an unknown node is left unknown.
pub(crate) fn set_column(
    db: &Connection,
    handle: NodeHandle,
    column: &str,
    value: impl rusqlite::ToSql,
) -> Result<(), StoreError> {
    db.prepare_cached(&format!("UPDATE node SET {column} = ?2 WHERE {IS_HANDLE}"))?
        .execute(params![handle_number(handle), value])?;
    Ok(())
}

pub(crate) fn clear_suffixes(db: &Connection) -> Result<(), StoreError> {
    db.execute("UPDATE node SET suffix = NULL WHERE suffix IS NOT NULL", [])?;
    Ok(())
}

/// Hands over the children of a node one by one, in no order that means anything: a large folder's rows
/// are never held at once.
pub(crate) fn each_child(
    db: &Connection,
    parent: NodeHandle,
    mut take: impl FnMut(NodeRow),
) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached(&format!("SELECT {NODE} FROM node WHERE parent = ?1"))?;
    let mut rows = statement.query([handle_number(parent)])?;
    while let Some(row) = rows.next()? {
        take(node_from(row)?);
    }
    Ok(())
}

pub(crate) fn children(
    db: &Connection,
    parent: Option<NodeHandle>,
) -> Result<Vec<NodeRow>, StoreError> {
    let mut statement = db.prepare_cached(&format!("SELECT {NODE} FROM node WHERE parent = ?1"))?;
    let rows = statement.query_map([parent_number(parent)], node_from)?;
    let mut rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    rows.sort_unstable_by_key(|row| (row.arrival, row.ts, row.handle));
    Ok(rows)
}

/// Up to `limit` nodes of a table behind a place, in the order of the disk.
pub(crate) fn nodes_after(
    db: &Connection,
    table: &str,
    (parent, handle): (i64, i64),
    limit: usize,
) -> Result<Vec<NodeRow>, StoreError> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT {NODE} FROM {table} WHERE (parent, handle) > (?1, ?2) ORDER BY parent, handle LIMIT ?3"
    ))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map([parent, handle, limit], node_from)?;
    Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
}

/// The node of a table at a place.
pub(crate) fn node_at(
    db: &Connection,
    table: &str,
    (parent, handle): (i64, i64),
) -> Result<Option<NodeRow>, StoreError> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT {NODE} FROM {table} WHERE parent = ?1 AND handle = ?2"
    ))?;
    Ok(statement
        .query_row([parent, handle], node_from)
        .optional()?)
}

pub(crate) fn has_children(db: &Connection, parent: NodeHandle) -> Result<bool, StoreError> {
    let mut statement = db.prepare_cached("SELECT 1 FROM node WHERE parent = ?1 LIMIT 1")?;
    Ok(statement.exists([handle_number(parent)])?)
}

pub(crate) fn files_with_versions(
    db: &Connection,
    folder: NodeHandle,
) -> Result<HashSet<NodeHandle>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT handle FROM node AS file WHERE parent = ?1 AND kind = ?2 \
         AND EXISTS (SELECT 1 FROM node WHERE parent = file.handle)",
    )?;
    let found = statement.query_map(
        params![handle_number(folder), NodeKind::File.code()],
        |row| row.get::<_, i64>(0),
    )?;
    let mut files = HashSet::new();
    for handle in found {
        files.insert(number_handle(handle?));
    }
    Ok(files)
}

pub(crate) fn roots(db: &Connection) -> Result<Option<Roots>, StoreError> {
    let found = children(db, None)?;
    let first = |kind| {
        found
            .iter()
            .find(|row| row.kind == kind)
            .map(|row| row.handle)
    };
    Ok(first(NodeKind::Root).map(|cloud| Roots {
        cloud,
        vault: first(NodeKind::Vault),
        rubbish: first(NodeKind::Rubbish),
    }))
}

pub(crate) fn find_by_keys(
    db: &Connection,
    wanted: &HashSet<&str>,
) -> Result<Vec<NodeRow>, StoreError> {
    let mut found = Vec::new();
    if wanted.is_empty() {
        return Ok(found);
    }
    let mut statement = db.prepare_cached(&format!("SELECT {NODE} FROM node"))?;
    let key = statement.column_index("key")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let text = row.get_ref(key)?.as_str().unwrap_or_default();
        let mut parts = text.split('/').filter_map(|pair| pair.rsplit(':').next());
        if parts.any(|part| wanted.contains(part)) {
            found.push(node_from(row)?);
        }
    }
    Ok(found)
}

const fn share_kind_number(kind: ShareKind) -> i64 {
    match kind {
        ShareKind::OwnKey => 0,
        ShareKind::Incoming => 1,
        ShareKind::Outgoing => 2,
        ShareKind::Link => 3,
        ShareKind::Contact => 4,
    }
}

fn share_from(row: &Row<'_>) -> rusqlite::Result<ShareRow> {
    let kind = match row.get(1)? {
        0_i64 => ShareKind::OwnKey,
        1 => ShareKind::Incoming,
        2 => ShareKind::Outgoing,
        3 => ShareKind::Link,
        4 => ShareKind::Contact,
        other => return Err(rusqlite::Error::IntegralValueOutOfRange(1, other)),
    };
    let user: i64 = row.get(2)?;
    Ok(ShareRow {
        handle: number_handle(row.get(0)?),
        kind,
        user: (user != NO_USER).then(|| number_user(user)),
        key_as_served: row.get(3)?,
        access: row.get(4)?,
        extra: row.get(5)?,
    })
}

pub(crate) fn shares(db: &Connection) -> Result<Vec<ShareRow>, StoreError> {
    let mut statement =
        db.prepare_cached("SELECT handle, kind, user, key, access, extra FROM share")?;
    let rows = statement.query_map([], share_from)?;
    Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
}

/// Inserts or replaces a share row in `table` (`share` or the loader's).
pub(crate) fn put_share(db: &Connection, table: &str, row: &ShareRow) -> Result<(), StoreError> {
    let sql = format!("INSERT OR REPLACE INTO {table} VALUES (?1, ?2, ?3, ?4, ?5, ?6)");
    db.prepare_cached(&sql)?.execute(params![
        handle_number(row.handle),
        share_kind_number(row.kind),
        row.user.map_or(NO_USER, user_number),
        row.key_as_served,
        row.access,
        row.extra,
    ])?;
    Ok(())
}

pub(crate) fn delete_share(
    db: &Connection,
    handle: NodeHandle,
    kind: ShareKind,
) -> Result<bool, StoreError> {
    let count = db
        .prepare_cached("DELETE FROM share WHERE handle = ?1 AND kind = ?2")?
        .execute(params![handle_number(handle), share_kind_number(kind)])?;
    Ok(count > 0)
}

/// A value of `meta` by its full name.
pub(crate) fn meta<T: rusqlite::types::FromSql>(
    db: &Connection,
    name: &str,
) -> Result<Option<T>, StoreError> {
    let mut statement = db.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
    Ok(statement.query_row([name], |row| row.get(0)).optional()?)
}

/// Sets a value of `meta` by its full name.
pub(crate) fn set_meta(
    db: &Connection,
    name: &str,
    value: impl rusqlite::ToSql,
) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2",
    )?
    .execute(params![name, value])?;
    Ok(())
}

/// Counts a counter in `meta` up and gives the new value: 1 at first.
pub(crate) fn count_up(db: &Connection, name: &str, by: u32) -> Result<u64, StoreError> {
    let mut statement = db.prepare_cached(
        "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = value + ?2
         RETURNING value",
    )?;
    Ok(statement
        .query_row(rusqlite::params![name, by], |row| row.get::<_, i64>(0))?
        .cast_unsigned())
}

/// Names in `meta` that are the store's own begin with this.
const RESERVED: &str = "store.";

pub(crate) const META_SEQNO: &str = "store.sn";
pub(crate) const META_USER: &str = "store.user";
pub(crate) const META_ORIGIN: &str = "store.api_origin";
pub(crate) const META_BOOT: &str = "store.boot_id";
pub(crate) const META_SALT: &str = "store.salt";
pub(crate) const META_CHECK: &str = "store.key_check";
pub(crate) const META_NEXT_LOCAL: &str = "store.last_local_id";
pub(crate) const META_NEXT_ATTEMPT: &str = "store.last_attempt_id";
pub(crate) const META_ARRIVAL: &str = "store.last_arrival";

/// Refuses names that are the store's own.
pub(crate) fn check_name(name: &str) -> Result<(), StoreError> {
    if name.starts_with(RESERVED) {
        return Err(StoreError::ReservedName(name.to_owned()));
    }
    Ok(())
}
