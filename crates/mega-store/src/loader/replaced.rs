//! What a load changed: the former truth beside the new one, in the order of both on disk.
//!
//! The former nodes stay in `node_old` until [`Replaced::remove`]. Memory is bounded by two pages and by
//! what changed in one folder.

use std::cmp::Ordering;
use std::sync::Arc;

use mega_proto::NodeHandle;
use rusqlite::{Connection, OptionalExtension};

use super::{COMPARED, LEFTOVERS, Target, Touched};
use crate::db::Db;
use crate::error::StoreError;
use crate::rows::NodeRow;
use crate::schema;
use crate::truth::{self, handle_number, parent_number};

/// Rows of each table that are compared at a time.
const PAGE: usize = if cfg!(test) { 4 } else { 2048 };
/// Changes that are handed out at a time, unless one folder has more.
const ENOUGH: usize = if cfg!(test) { 3 } else { 200 };

/// A place in the order of nodes: parent, handle.
type Place = (i64, i64);

/// A node that is not what it was before a load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Which. It may be told twice, when it has another parent.
    pub handle: NodeHandle,
    /// What it was; `None` when it is new.
    pub before: Option<NodeRow>,
}

/// The truth that a load took the place of. Dropping it leaves it for `Replaced::left_over`.
#[derive(Debug)]
pub struct Replaced {
    target: Target,
    at: Place,
    is_done: bool,
}

fn place(row: &NodeRow) -> Place {
    (parent_number(row.parent), handle_number(row.handle))
}

/// Whether anything is the same but what this program assigned.
fn is_same(one: &NodeRow, other: &NodeRow) -> bool {
    (one.kind, one.owner, one.size, one.ts) == (other.kind, other.owner, other.size, other.ts)
        && (&one.key, &one.attrs, &one.fa) == (&other.key, &other.attrs, &other.fa)
}

impl Replaced {
    pub(super) fn new(target: Target) -> Self {
        Self {
            at: (i64::MIN, i64::MIN),
            // Nothing was there before a first load.
            is_done: target.is_first,
            target,
        }
    }

    /// What an earlier run did not come to compare; `None` if nothing is left.
    pub(crate) fn left_over(
        db: &Arc<Db>,
        touched: &Arc<Touched>,
    ) -> Result<Option<Self>, StoreError> {
        if !db.read(|connection| schema::has_table(connection, "node_old"))? {
            return Ok(None);
        }
        Ok(Some(Self::new(Target::new(
            Arc::clone(db),
            Arc::clone(touched),
        )?)))
    }

    /// Some changed nodes, whole folders at a time; none when there are no more.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn changed(&mut self) -> Result<Vec<Changed>, StoreError> {
        let mut found: Vec<(Place, Changed)> = Vec::new();
        while !self.is_done {
            let folder = self.at.0;
            self.compare(&mut found)?;
            let is_folder_open = found
                .last()
                .is_some_and(|((parent, _), _)| *parent >= self.at.0)
                || self.at.0 == folder;
            if found.len() >= ENOUGH && !is_folder_open {
                break;
            }
        }
        Ok(found.into_iter().map(|(_, changed)| changed).collect())
    }

    /// Compares one page.
    fn compare(&mut self, found: &mut Vec<(Place, Changed)>) -> Result<(), StoreError> {
        let connection = &self.target.connection;
        let page = |table| truth::nodes_after(connection, table, self.at, PAGE);
        let (old, new) = (page("node_old")?, page("node")?);
        // Behind the end of a page that is full there may be more.
        let end_of = |rows: &[NodeRow]| rows.last().filter(|_| rows.len() == PAGE).map(place);
        let end = [end_of(&old), end_of(&new)].into_iter().flatten().min();
        let is_within = |row: &NodeRow| end.is_none_or(|end| place(row) <= end);
        let mut old = old.into_iter().filter(is_within).peekable();
        let mut new = new.into_iter().filter(is_within).peekable();
        loop {
            let order = match (old.peek(), new.peek()) {
                (Some(old), Some(new)) => place(old).cmp(&place(new)),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            let (before, now) = match order {
                Ordering::Less => (old.next(), None),
                Ordering::Greater => (None, new.next()),
                Ordering::Equal => (old.next(), new.next()),
            };
            let Some(row) = before.as_ref().or(now.as_ref()) else {
                break;
            };
            let (at, handle) = (place(row), row.handle);
            let before = match (before, now) {
                (Some(before), Some(now)) if is_same(&before, &now) => continue,
                (None, _) => former(connection, handle)?,
                (before, _) => before,
            };
            found.push((at, Changed { handle, before }));
        }
        match end {
            Some(end) => self.at = end,
            None => self.is_done = true,
        }
        Ok(())
    }

    /// Removes the former truth.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn remove(self) -> Result<(), StoreError> {
        self.target.write(|connection| {
            if schema::has_table(connection, "node_old")? {
                connection.execute_batch(&format!("ALTER TABLE node_old RENAME TO {COMPARED}"))?;
            }
            Ok(())
        })?;
        // What is left is only space.
        for (table, order) in LEFTOVERS {
            if let Err(error) = self.target.remove_table(table, order) {
                tracing::warn!(%error, table, "an old tree was not removed yet");
            }
        }
        Ok(())
    }
}

/// A node as it was before the load, wherever it was.
fn former(connection: &Connection, handle: NodeHandle) -> Result<Option<NodeRow>, StoreError> {
    let parent: Option<i64> = connection
        .prepare_cached("SELECT parent FROM node_parent_old WHERE handle = ?1")?
        .query_row([handle_number(handle)], |row| row.get(0))
        .optional()?;
    match parent {
        Some(parent) => truth::node_at(connection, "node_old", (parent, handle_number(handle))),
        None => Ok(None),
    }
}
