//! One write transaction, as [`Store::write`](crate::Store::write) hands it to its closure.
//!
//! Truth and changes are written together, so "the upload is done" is one commit and `sn` is
//! committed with the rows it describes (I1). Reads here see the transaction's own writes.

use std::fmt;

use mega_proto::{NodeHandle, Seqno};
use rusqlite::Connection;

use crate::change_rows;
use crate::error::StoreError;
use crate::loader::Touched;
use crate::rows::{AttemptRow, ChangeRow, NodeRow, ShareKind, ShareRow};
use crate::subject::{AttemptId, Subject};
use crate::truth::{self, handle_number, number_handle};
use crate::vault::Vault;

/// An open write transaction. Errors are [`StoreError`]; returning one from the closure undoes
/// everything.
pub struct Tx<'a> {
    db: &'a Connection,
    vault: &'a Vault,
    touched: &'a Touched,
}

impl fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tx")
    }
}

impl<'a> Tx<'a> {
    pub(crate) const fn new(db: &'a Connection, vault: &'a Vault, touched: &'a Touched) -> Self {
        Self { db, vault, touched }
    }

    /// A node as this transaction sees it.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn node(&self, handle: NodeHandle) -> Result<Option<NodeRow>, StoreError> {
        truth::node(self.db, handle)
    }

    /// A node's children as this transaction sees them, ordered by arrival, `ts`, handle.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn children(&self, parent: NodeHandle) -> Result<Vec<NodeRow>, StoreError> {
        truth::children(self.db, Some(parent))
    }

    /// A change row as this transaction sees it.
    ///
    /// # Errors
    /// If the database cannot be read, or the keys are locked.
    pub fn change(&self, subject: Subject) -> Result<Option<ChangeRow>, StoreError> {
        change_rows::change(self.db, self.vault, subject)
    }

    /// Writes a node. All of `row` counts but `arrival`: a node that is new here, or new below this
    /// parent, gets the next number; otherwise it keeps its own.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn upsert_node(&mut self, row: &NodeRow) -> Result<(), StoreError> {
        let known = truth::node(self.db, row.handle)?;
        let arrival = match &known {
            Some(known) if known.parent == row.parent => known.arrival,
            _ => truth::count_up(self.db, truth::META_ARRIVAL, 1)?,
        };
        if known.is_some_and(|known| known.parent != row.parent) {
            truth::delete_node(self.db, row.handle)?;
        }
        truth::put_node(self.db, row, arrival)?;
        self.touched.note(row.handle);
        Ok(())
    }

    /// Replaces a node's attribute block. An unknown node is left unknown.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn set_attrs(
        &mut self,
        handle: NodeHandle,
        attrs: impl AsRef<[u8]>,
    ) -> Result<(), StoreError> {
        truth::set_column(self.db, handle, "attrs", attrs.as_ref())
    }

    /// Moves a node below another parent: it arrives there now, and its suffix goes.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn set_parent(&mut self, handle: NodeHandle, parent: NodeHandle) -> Result<(), StoreError> {
        let Some(row) = truth::node(self.db, handle)? else {
            return Ok(());
        };
        if row.parent == Some(parent) {
            return Ok(());
        }
        self.upsert_node(&NodeRow {
            parent: Some(parent),
            suffix: None,
            ..row
        })
    }

    /// Replaces a node's key as served. An unknown node is left unknown.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn set_key(&mut self, handle: NodeHandle, key: &str) -> Result<(), StoreError> {
        truth::set_column(self.db, handle, "key", key)
    }

    /// Assigns or takes away the number that tells a node from equally named siblings.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn set_suffix(
        &mut self,
        handle: NodeHandle,
        suffix: Option<u32>,
    ) -> Result<(), StoreError> {
        truth::set_column(self.db, handle, "suffix", suffix)?;
        self.touched.note(handle);
        Ok(())
    }

    /// Takes all numbers away, so that they are given anew.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn clear_suffixes(&mut self) -> Result<(), StoreError> {
        truth::clear_suffixes(self.db)
    }

    /// Deletes a node and all below it, versions too. Says which went, parents before children;
    /// nothing if the node is unknown.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn delete_subtree(&mut self, handle: NodeHandle) -> Result<Vec<NodeHandle>, StoreError> {
        let is_known = truth::delete_node(self.db, handle)?;
        // What is below a node that has gone already goes too.
        let mut gone = vec![handle];
        let mut below = self
            .db
            .prepare_cached("SELECT handle, size FROM node WHERE parent = ?1")?;
        let mut delete = self
            .db
            .prepare_cached("DELETE FROM node WHERE parent = ?1")?;
        let mut forget = self
            .db
            .prepare_cached("DELETE FROM node_parent WHERE handle = ?1")?;
        let mut next = 0;
        // Rows are deleted as they are found, so that a circle of parents ends too.
        while let Some(parent) = gone.get(next).copied() {
            next += 1;
            let parent = handle_number(parent);
            let before = gone.len();
            for child in below.query_map([parent], |row| Ok((row.get(0)?, row.get(1)?)))? {
                let (child, size): (i64, i64) = child?;
                forget.execute([child])?;
                truth::forget_size(self.db, child, size)?;
                gone.push(number_handle(child));
            }
            if gone.len() > before {
                delete.execute([parent])?;
            }
        }
        if !is_known {
            gone.remove(0);
        }
        Ok(gone)
    }

    /// Sets the event position that the rows of this transaction bring the truth to (I1).
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn set_seqno(&mut self, sn: &Seqno) -> Result<(), StoreError> {
        truth::set_meta(self.db, truth::META_SEQNO, sn.as_str())
    }

    /// Inserts or replaces a share row.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn put_share(&mut self, share: &ShareRow) -> Result<(), StoreError> {
        truth::put_share(self.db, "share", share)
    }

    /// All share rows as this transaction sees them.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn shares(&self) -> Result<Vec<ShareRow>, StoreError> {
        truth::shares(self.db)
    }

    /// Deletes every share row of this node and kind; whether there was any.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn delete_share(
        &mut self,
        handle: NodeHandle,
        kind: ShareKind,
    ) -> Result<bool, StoreError> {
        truth::delete_share(self.db, handle, kind)
    }

    /// Writes a change row, replacing the whole former row with its layers and extents, and whatever
    /// doubt a power cut had put on it.
    ///
    /// # Errors
    /// If the database cannot be written, or the keys are locked.
    pub fn put_change(&mut self, row: &ChangeRow) -> Result<(), StoreError> {
        change_rows::put(self.db, self.vault, row)
    }

    /// Deletes a change row and its layers' rows. Staging files are the caller's, after the commit.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn delete_change(&mut self, subject: Subject) -> Result<(), StoreError> {
        change_rows::delete(self.db, subject)
    }

    /// Notes that the staged bytes of this generation were fsynced (I2); a row that has moved on is
    /// left alone.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn mark_synced(&mut self, subject: Subject, generation: u64) -> Result<(), StoreError> {
        change_rows::mark_synced(self.db, subject, generation)
    }

    /// Rewrites every place whose parent is `from`: a folder made here was confirmed.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn retarget_children(&mut self, from: Subject, to: Subject) -> Result<(), StoreError> {
        change_rows::retarget_children(self.db, from, to)
    }

    /// Inserts or replaces an attempt.
    ///
    /// # Errors
    /// If the database cannot be written, or the keys are locked.
    pub fn put_attempt(&mut self, row: &AttemptRow) -> Result<(), StoreError> {
        change_rows::put_attempt(self.db, self.vault, row)
    }

    /// Deletes an attempt.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn delete_attempt(&mut self, id: AttemptId) -> Result<(), StoreError> {
        self.db
            .prepare_cached("DELETE FROM attempt WHERE id = ?1")?
            .execute([id.0.cast_signed()])?;
        Ok(())
    }

    /// Notes a node that has to go from the server.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn put_doomed(&mut self, handle: NodeHandle) -> Result<(), StoreError> {
        self.db
            .prepare_cached("INSERT OR IGNORE INTO doomed VALUES (?1)")?
            .execute([handle_number(handle)])?;
        Ok(())
    }

    /// The node is gone from the server.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn delete_doomed(&mut self, handle: NodeHandle) -> Result<(), StoreError> {
        self.db
            .prepare_cached("DELETE FROM doomed WHERE handle = ?1")?
            .execute([handle_number(handle)])?;
        Ok(())
    }

    /// A value of the caller's, not encrypted at rest.
    ///
    /// # Errors
    /// [`StoreError::ReservedName`] for names that begin with `store.`, or if the database cannot be
    /// read.
    pub fn meta_get(&self, name: &str) -> Result<Option<String>, StoreError> {
        truth::check_name(name)?;
        truth::meta(self.db, name)
    }

    /// Sets a value of the caller's, not encrypted at rest.
    ///
    /// # Errors
    /// [`StoreError::ReservedName`] for names that begin with `store.`, or if the database cannot be
    /// written.
    pub fn meta_set(&mut self, name: &str, value: &str) -> Result<(), StoreError> {
        truth::check_name(name)?;
        truth::set_meta(self.db, name, value)
    }

    /// Numbers for what is made here, from the one returned on; never given out again once this
    /// transaction is committed.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub(crate) fn reserve_local_ids(&mut self, count: u32) -> Result<u64, StoreError> {
        let last = truth::count_up(self.db, truth::META_NEXT_LOCAL, count)?;
        Ok(last.saturating_sub(u64::from(count)) + 1)
    }

    /// A number for an attempt; never given out again once this transaction is committed.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn next_attempt_id(&mut self) -> Result<AttemptId, StoreError> {
        truth::count_up(self.db, truth::META_NEXT_ATTEMPT, 1).map(AttemptId)
    }
}
