//! Loading a whole tree beside the present truth, which stays readable and writable meanwhile.
//!
//! Rows go to `node_next` in short transactions, sorted in batches so that neighbours in the tree
//! are neighbours on disk. [`TreeLoader::finish`] puts the new tables in the place of the old in one
//! transaction with the new `sn` (I1). Whatever happens before that, the old truth is untouched; what
//! an abandoned load left is removed by the next one.
//!
//! Memory is bounded by [`BATCH_BYTES`] and the connection's page cache, whatever the tree's size.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mega_proto::{NodeHandle, Seqno};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use crate::db::{Db, lock};
use crate::error::StoreError;
use crate::rows::{NodeRow, ShareRow};
use crate::schema;
use crate::truth::{self, handle_number, parent_number};

/// How long one transaction keeps other writers waiting.
const TURN: Duration = Duration::from_millis(40);
/// Rows inserted between looks at the clock.
const ROWS_PER_LOOK: usize = 512;
/// Rows sorted together. More means better locality, and memory.
const BATCH_ROWS: usize = 64 << 10;
/// Rough bound of a batch's memory.
const BATCH_BYTES: usize = 24 << 20;
/// Rows deleted by one statement when an old tree is removed.
const DELETE_ROWS: u32 = 8192;

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

/// A load in progress. Dropping it leaves the present truth as it is.
#[derive(Debug)]
pub struct TreeLoader {
    db: Arc<Db>,
    touched: Arc<Touched>,
    connection: Connection,
    /// No truth to keep anything from; nobody waits for the writer.
    is_first: bool,
    /// The arrival of nodes that are new: 0 in the first load.
    arrival: u64,
    batch: Vec<NodeRow>,
    batch_bytes: usize,
    shares: Vec<ShareRow>,
}

impl Drop for TreeLoader {
    fn drop(&mut self) {
        lock(&self.touched.handles).clear();
        self.touched.active.store(false, Ordering::Release);
    }
}

impl TreeLoader {
    pub(crate) fn begin(db: Arc<Db>, touched: Arc<Touched>) -> Result<Self, StoreError> {
        if touched.active.swap(true, Ordering::AcqRel) {
            return Err(StoreError::LoadInProgress);
        }
        let connection = db.bulk_connection();
        let connection =
            connection.inspect_err(|_| touched.active.store(false, Ordering::Release))?;
        // From here on Drop cleans up.
        let mut loader = Self {
            db,
            touched,
            connection,
            is_first: false,
            arrival: 0,
            batch: Vec::new(),
            batch_bytes: 0,
            shares: Vec::new(),
        };
        loader.remove_table("node_next")?;
        loader.remove_table("node_old")?;
        (loader.is_first, loader.arrival) =
            loader.db.write_on(&loader.connection, |connection| {
                connection.execute_batch("DROP TABLE IF EXISTS share_next")?;
                schema::create_next(connection)?;
                let any = connection.prepare("SELECT 1 FROM node")?.exists([])?;
                if !any {
                    return Ok((true, 0));
                }
                schema::index_by_handle(connection, "node_next")?;
                Ok((false, truth::count_up(connection, truth::META_ARRIVAL)?))
            })?;
        Ok(loader)
    }

    /// Takes one node. `arrival` and `suffix` are ignored: nodes that stay below their parent keep
    /// theirs. A handle that comes twice counts once, as it came last.
    ///
    /// # Errors
    /// If the database cannot be written. The load can only be dropped then.
    pub fn node(&mut self, row: NodeRow) -> Result<(), StoreError> {
        self.batch_bytes += size_of::<NodeRow>() + row.key.len() + row.attrs.len() + 64;
        self.batch.push(row);
        if self.batch.len() >= BATCH_ROWS || self.batch_bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
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

    /// Makes what was taken the truth as of `sn`, in one transaction, and removes the old tree.
    ///
    /// # Errors
    /// If the database cannot be written; the old truth is then untouched.
    pub fn finish(mut self, sn: &Seqno) -> Result<(), StoreError> {
        self.flush()?;
        self.flush_shares()?;
        let (touched, is_first) = (&self.touched, self.is_first);
        self.db.write_on(&self.connection, |connection| {
            if is_first {
                index_without_doubles(connection)?;
            } else {
                let handles = lock(&touched.handles);
                copy_touched(connection, &handles)?;
            }
            schema::swap_next(connection)?;
            truth::set_meta(connection, truth::META_SEQNO, sn.as_str())
        })?;
        // The new truth stands; what is left of the old one is only space.
        if let Err(error) = self.remove_table("node_old") {
            tracing::warn!(%error, "the old tree was not removed yet");
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let mut rows = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        // Stable, so that of two rows of one handle the later one is inserted later.
        rows.sort_by_key(|row| (parent_number(row.parent), row.handle));
        let mut rows = rows.as_slice();
        while !rows.is_empty() {
            let (is_first, arrival) = (self.is_first, self.arrival);
            let done = self.db.write_on(&self.connection, |connection| {
                let began = Instant::now();
                let sql = format!("INSERT OR REPLACE INTO node_next {}", truth::INSERT_COLUMNS);
                let mut insert = connection.prepare_cached(&sql)?;
                let mut known = connection.prepare_cached(
                    "SELECT arrival, suffix FROM node WHERE parent = ?1 AND handle = ?2",
                )?;
                let mut done = 0;
                for look in rows.chunks(ROWS_PER_LOOK) {
                    for row in look {
                        let kept = if is_first {
                            None
                        } else {
                            kept(&mut known, row)?
                        };
                        let (arrival, suffix) = kept.unwrap_or((arrival, None));
                        truth::insert_node(&mut insert, row, arrival, suffix)?;
                    }
                    done += look.len();
                    if began.elapsed() > TURN {
                        break;
                    }
                }
                Ok(done)
            })?;
            rows = rows.get(done..).unwrap_or_default();
        }
        Ok(())
    }

    fn flush_shares(&mut self) -> Result<(), StoreError> {
        let shares = std::mem::take(&mut self.shares);
        self.db.write_on(&self.connection, |connection| {
            shares
                .iter()
                .try_for_each(|row| truth::put_share(connection, "share_next", row))
        })
    }

    /// Removes a table of nodes bit by bit: index first, then rows in the order of the disk.
    fn remove_table(&self, table: &str) -> Result<(), StoreError> {
        if !schema::has_table(&self.connection, table)? {
            return Ok(());
        }
        for index in schema::indexes(&self.connection, table)? {
            self.db.write_on(&self.connection, |connection| {
                Ok(connection.execute_batch(&format!("DROP INDEX {index}"))?)
            })?;
        }
        let sql = format!(
            "DELETE FROM {table} WHERE (parent, handle) <=
             (SELECT parent, handle FROM {table} ORDER BY parent, handle LIMIT 1 OFFSET {DELETE_ROWS})"
        );
        loop {
            let more = self.db.write_on(&self.connection, |connection| {
                let began = Instant::now();
                let mut delete = connection.prepare(&sql)?;
                while delete.execute([])? > 0 {
                    if began.elapsed() > TURN {
                        return Ok(true);
                    }
                }
                Ok(false)
            })?;
            if !more {
                break;
            }
        }
        self.db.write_on(&self.connection, |connection| {
            Ok(connection.execute_batch(&format!("DROP TABLE {table}"))?)
        })
    }
}

fn kept(
    known: &mut rusqlite::Statement<'_>,
    row: &NodeRow,
) -> Result<Option<(u64, Option<u32>)>, StoreError> {
    let place = [parent_number(row.parent), handle_number(row.handle)];
    let found = known.query_row(place, |row| {
        Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?))
    });
    Ok(found.optional()?)
}

/// Brings what was assigned during the load to the new rows.
fn copy_touched(connection: &Connection, handles: &HashSet<NodeHandle>) -> Result<(), StoreError> {
    let mut copy = connection.prepare(
        "UPDATE node_next SET (arrival, suffix) =
         (SELECT arrival, suffix FROM node WHERE node.handle = ?1)
         WHERE handle = ?1 AND parent = (SELECT parent FROM node WHERE node.handle = ?1)",
    )?;
    for handle in handles {
        copy.execute(params![handle_number(*handle)])?;
    }
    Ok(())
}

/// Makes the index by handle; should a handle stand below two parents, one of them goes.
fn index_without_doubles(connection: &Connection) -> Result<(), StoreError> {
    match schema::index_by_handle(connection, "node_next") {
        Err(StoreError::Database(error))
            if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {}
        other => return other,
    }
    connection.execute_batch(
        "CREATE INDEX node_doubles ON node_next (handle);
         DELETE FROM node_next WHERE EXISTS (SELECT 1 FROM node_next AS other
             WHERE other.handle = node_next.handle AND other.parent > node_next.parent);
         DROP INDEX node_doubles;",
    )?;
    schema::index_by_handle(connection, "node_next")
}

#[cfg(test)]
mod tests;
