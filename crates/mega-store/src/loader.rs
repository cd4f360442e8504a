//! Loading a whole tree beside the present truth, which stays readable and writable meanwhile.
//!
//! Rows may come in any order. They are sorted first ([`sorter`]), so that each page of the new
//! tables is written once and neighbours in the tree are neighbours on disk; an unsorted load of a
//! large tree would write every page many times. [`TreeLoader::finish`] then fills `node_next` in the
//! order of parents, `node_parent_next` in the order of handles and `node_size_next` in that of sizes, in
//! short transactions, and puts
//! the new tables in the place of the old in one with the new `sn` (I1). Whatever happens before
//! that, the old truth is untouched; what an abandoned load left is removed by the next one. The old
//! tables stay until they were compared with the new ones ([`Replaced`]).
//!
//! Memory is bounded by [`SORT_BYTES`], [`SORT_POSITIONS`], [`SORT_SIZES`] and the connection's page cache, whatever
//! the tree's size.

mod record;
mod replaced;
mod sorter;

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mega_proto::{NodeHandle, NodeKind, Seqno};
use rusqlite::{Connection, OptionalExtension};

use crate::db::{Db, lock};
use crate::error::StoreError;
use crate::rows::{NodeRow, ShareRow};
use crate::schema;
use crate::truth::{self, handle_number, parent_number};
use record::{OfSize, Position};
pub use replaced::{Changed, Replaced};
use sorter::{Sorted, Sorter};

/// How long one transaction keeps other writers waiting.
const TURN: Duration = Duration::from_millis(40);
/// Rows written between looks at the clock.
const ROWS_PER_LOOK: usize = 512;
/// Memory for sorting nodes.
const SORT_BYTES: usize = 32 << 20;
/// Memory for sorting handles.
const SORT_POSITIONS: usize = 8 << 20;
/// Memory for sorting sizes.
const SORT_SIZES: usize = 4 << 20;
/// Rows deleted by one statement when an old tree is removed.
const DELETE_ROWS: u32 = 8192;

/// `node_old` when it has been compared.
const COMPARED: &str = "node_gone";

/// Tables that may be left over, and their columns in the order of the disk.
const LEFTOVERS: [(&str, &str); 7] = [
    ("node_next", "parent, handle"),
    ("node_parent_next", "handle"),
    ("node_size_next", "size, handle"),
    ("node_old", "parent, handle"),
    (COMPARED, "parent, handle"),
    ("node_parent_old", "handle"),
    ("node_size_old", "size, handle"),
];

/// Which nodes got a suffix or an arrival while a load was running: it copied older values.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    active: AtomicBool,
    handles: Mutex<HashSet<NodeHandle>>,
}

impl Touched {
    pub(crate) fn note(&self, handle: NodeHandle) {
        if self.active.load(Ordering::Acquire) {
            lock(&self.handles).insert(handle);
        }
    }
}

/// The right to load; ends with the value.
#[derive(Debug)]
struct Turnstile(Arc<Touched>);

impl Drop for Turnstile {
    fn drop(&mut self) {
        lock(&self.0.handles).clear();
        self.0.active.store(false, Ordering::Release);
    }
}

/// A load in progress. Dropping it leaves the present truth as it is.
#[derive(Debug)]
pub struct TreeLoader {
    target: Target,
    nodes: Sorter<NodeRow>,
    shares: Vec<ShareRow>,
}

/// Where the rows go.
#[derive(Debug)]
struct Target {
    db: Arc<Db>,
    touched: Turnstile,
    connection: Connection,
    /// No truth to keep anything from.
    is_first: bool,
    /// The arrival of nodes that are new: 0 in the first load.
    arrival: u64,
}

impl TreeLoader {
    pub(crate) fn begin(db: Arc<Db>, touched: Arc<Touched>) -> Result<Self, StoreError> {
        let nodes = Sorter::new(db.dir(), SORT_BYTES);
        let mut target = Target::new(db, touched)?;
        for (table, order) in LEFTOVERS {
            target.remove_table(table, order)?;
        }
        (target.is_first, target.arrival) = target.write(|connection| {
            schema::create_next(connection)?;
            let is_first = !connection.prepare("SELECT 1 FROM node")?.exists([])?;
            let arrival = if is_first {
                0
            } else {
                truth::count_up(connection, truth::META_ARRIVAL, 1)?
            };
            Ok((is_first, arrival))
        })?;
        let shares = Vec::new();
        Ok(Self {
            target,
            nodes,
            shares,
        })
    }

    /// Takes one node. `arrival` and `suffix` are ignored: nodes that stay below their parent keep
    /// theirs. A node that comes twice counts once, as it came last; a handle below two parents
    /// counts below one of them.
    ///
    /// # Errors
    /// If the disk cannot be written. The load can only be dropped then.
    pub fn node(&mut self, row: NodeRow) -> Result<(), StoreError> {
        self.nodes.push(row)
    }

    /// Takes one share row.
    ///
    /// # Errors
    /// If the database cannot be written. The load can only be dropped then.
    pub fn share(&mut self, row: ShareRow) -> Result<(), StoreError> {
        self.shares.push(row);
        if self.shares.len() >= ROWS_PER_LOOK {
            self.flush_shares()?;
        }
        Ok(())
    }

    fn flush_shares(&mut self) -> Result<(), StoreError> {
        let shares = std::mem::take(&mut self.shares);
        self.target.write(|connection| {
            shares
                .iter()
                .try_for_each(|row| truth::put_share(connection, "share_next", row))
        })
    }

    /// Makes what was taken the truth as of `sn`, in one transaction. Most of the work of a load is done
    /// here. The old truth can then be compared, and has to be removed.
    ///
    /// # Errors
    /// If the disk cannot be written; the old truth is then untouched.
    pub fn finish(mut self, sn: &Seqno) -> Result<Replaced, StoreError> {
        self.flush_shares()?;
        let Self { target, nodes, .. } = self;
        let (positions, sizes) = target.fill_nodes(nodes)?;
        target.fill_positions(positions)?;
        target.fill_sizes(sizes)?;
        target.write(|connection| {
            if !target.is_first {
                copy_touched(connection, &lock(&target.touched.0.handles))?;
            }
            schema::swap_next(connection)?;
            if target.is_first {
                // Empty: there is nothing to compare.
                schema::drop_old(connection)?;
            }
            truth::set_meta(connection, truth::META_SEQNO, sn.as_str())
        })?;
        Ok(Replaced::new(target))
    }
}

impl Target {
    fn new(db: Arc<Db>, touched: Arc<Touched>) -> Result<Self, StoreError> {
        if touched.active.swap(true, Ordering::AcqRel) {
            return Err(StoreError::LoadInProgress);
        }
        let touched = Turnstile(touched);
        let connection = db.bulk_connection()?;
        Ok(Self {
            db,
            touched,
            connection,
            is_first: false,
            arrival: 0,
        })
    }

    fn write<T>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.db.write_on(&self.connection, f)
    }

    /// Writes the nodes in the order of the disk; gives their positions and sizes to sort.
    fn fill_nodes(
        &self,
        nodes: Sorter<NodeRow>,
    ) -> Result<(Sorter<Position>, Sorter<OfSize>), StoreError> {
        let mut positions = Sorter::new(self.db.dir(), SORT_POSITIONS);
        let mut sizes = Sorter::new(self.db.dir(), SORT_SIZES);
        let mut sorted = nodes.sorted()?;
        let mut is_done = false;
        while !is_done {
            is_done = self.write(|connection| {
                let began = Instant::now();
                let mut insert = connection.prepare_cached(&truth::insert_next())?;
                let mut known = connection.prepare_cached(
                    "SELECT arrival, suffix FROM node WHERE parent = ?1 AND handle = ?2",
                )?;
                loop {
                    for _ in 0..ROWS_PER_LOOK {
                        let Some(row) = sorted.next()? else {
                            return Ok(true);
                        };
                        let position = Position {
                            handle: handle_number(row.handle),
                            parent: parent_number(row.parent),
                        };
                        let kept = match self.is_first {
                            true => None,
                            false => kept(&mut known, position)?,
                        };
                        let (arrival, suffix) = kept.unwrap_or((self.arrival, None));
                        truth::insert_node(&mut insert, &row, arrival, suffix)?;
                        positions.push(position)?;
                        if truth::is_found_by_size(row.kind, row.size) {
                            sizes.push(OfSize {
                                size: row.size.cast_signed(),
                                handle: position.handle,
                            })?;
                        }
                    }
                    if began.elapsed() > TURN {
                        return Ok(false);
                    }
                }
            })?;
        }
        Ok((positions, sizes))
    }

    /// Writes the sizes in their order.
    fn fill_sizes(&self, sizes: Sorter<OfSize>) -> Result<(), StoreError> {
        let mut sorted = sizes.sorted()?;
        let mut is_done = false;
        while !is_done {
            is_done = self.write(|connection| {
                let began = Instant::now();
                let mut insert = connection
                    .prepare_cached("INSERT OR IGNORE INTO node_size_next VALUES (?1, ?2)")?;
                loop {
                    for _ in 0..ROWS_PER_LOOK {
                        let Some(OfSize { size, handle }) = sorted.next()? else {
                            return Ok(true);
                        };
                        insert.execute([size, handle])?;
                    }
                    if began.elapsed() > TURN {
                        return Ok(false);
                    }
                }
            })?;
        }
        Ok(())
    }

    /// Writes the positions in the order of handles.
    fn fill_positions(&self, positions: Sorter<Position>) -> Result<(), StoreError> {
        let mut sorted: Sorted<Position> = positions.sorted()?;
        let mut last: Option<Position> = None;
        let mut is_done = false;
        while !is_done {
            is_done = self.write(|connection| {
                let began = Instant::now();
                let mut insert =
                    connection.prepare_cached("INSERT INTO node_parent_next VALUES (?1, ?2)")?;
                loop {
                    for _ in 0..ROWS_PER_LOOK {
                        let Some(position) = sorted.next()? else {
                            return Ok(true);
                        };
                        match last {
                            Some(last) if last == position => continue,
                            Some(last) if last.handle == position.handle => {
                                drop_double(connection, position)?;
                                continue;
                            }
                            _ => insert.execute([position.handle, position.parent])?,
                        };
                        last = Some(position);
                    }
                    if began.elapsed() > TURN {
                        return Ok(false);
                    }
                }
            })?;
        }
        Ok(())
    }

    /// Removes a table bit by bit, in the order of the disk.
    fn remove_table(&self, table: &str, order: &str) -> Result<(), StoreError> {
        if !schema::has_table(&self.connection, table)? {
            return Ok(());
        }
        let sql = format!(
            "DELETE FROM {table} WHERE ({order}) <=
             (SELECT {order} FROM {table} ORDER BY {order} LIMIT 1 OFFSET {DELETE_ROWS})"
        );
        let mut is_done = false;
        while !is_done {
            is_done = self.write(|connection| {
                let began = Instant::now();
                let mut delete = connection.prepare(&sql)?;
                while delete.execute([])? > 0 {
                    if began.elapsed() > TURN {
                        return Ok(false);
                    }
                }
                Ok(true)
            })?;
        }
        self.write(|connection| Ok(connection.execute_batch(&format!("DROP TABLE {table}"))?))
    }
}

/// Makes `node_size` for a state that has none. In one transaction, at the first start after an update,
/// when nobody else uses the database; sorted, so that memory is bounded as in a load.
pub(crate) fn find_sizes(connection: &Connection, dir: &Path) -> Result<(), StoreError> {
    let mut sizes = Sorter::new(dir, SORT_SIZES);
    let transaction = connection.unchecked_transaction()?;
    schema::create_sizes(&transaction)?;
    {
        let mut nodes =
            transaction.prepare("SELECT size, handle FROM node WHERE kind = ?1 AND size > ?2")?;
        let smallest = truth::SMALLEST_BY_SIZE.cast_signed();
        let mut rows = nodes.query([i64::from(NodeKind::File.code()), smallest])?;
        while let Some(row) = rows.next()? {
            let (size, handle) = (row.get(0)?, row.get(1)?);
            sizes.push(OfSize { size, handle })?;
        }
        let mut insert = transaction.prepare("INSERT OR IGNORE INTO node_size VALUES (?1, ?2)")?;
        let mut sorted = sizes.sorted()?;
        while let Some(OfSize { size, handle }) = sorted.next()? {
            insert.execute([size, handle])?;
        }
    }
    Ok(transaction.commit()?)
}

/// What a node below this parent was assigned before.
fn kept(
    known: &mut rusqlite::Statement<'_>,
    position: Position,
) -> Result<Option<(u64, Option<u32>)>, StoreError> {
    let found = known.query_row([position.parent, position.handle], |row| {
        Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?))
    });
    Ok(found.optional()?)
}

/// A handle stands below two parents: this one does not count.
fn drop_double(connection: &Connection, position: Position) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM node_next WHERE parent = ?1 AND handle = ?2")?
        .execute([position.parent, position.handle])?;
    Ok(())
}

/// Brings what was assigned during the load to the new rows.
fn copy_touched(connection: &Connection, handles: &HashSet<NodeHandle>) -> Result<(), StoreError> {
    let mut copy = connection.prepare(
        "UPDATE node_next SET (arrival, suffix) =
         (SELECT arrival, suffix FROM node WHERE node.handle = ?1 AND node.parent = ?2)
         WHERE handle = ?1 AND parent = ?2",
    )?;
    let mut parent = connection.prepare("SELECT parent FROM node_parent WHERE handle = ?1")?;
    for handle in handles {
        let handle = handle_number(*handle);
        let parent: Option<i64> = parent.query_row([handle], |row| row.get(0)).optional()?;
        if let Some(parent) = parent {
            copy.execute([handle, parent])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
