//! One layer's bytes: what the user wrote and the server does not have.
//!
//! Small layers live in memory and travel inside their change row; once a byte at or above
//! [`INLINE_LIMIT`] is written the layer *spills* to an encrypted file `staging/<id>` and stays there.
//! Which bytes the layer has is said by its extents alone, never by holes or by the file's length.
//!
//! Promises: a write that returned survives `kill -9` of the process (it is in the page cache) and,
//! after [`StagingFile::sync_data`], a power cut. The file is removed by [`StagingFile::delete`] only,
//! and space of discarded bytes is given back by [`StagingFile::reclaim`] only, because a committed
//! row may still count on them. Nothing here commits rows (I2 is the caller's order:
//! `sync_data`, then the row marked synced, then [`Store::sync`](crate::Store::sync)).

mod directory;
mod file;

use std::ops::Range;
use std::sync::Arc;

pub(crate) use directory::{StagingDir, id_of};
use file::EncryptedFile;

use crate::error::StoreError;
use crate::range_set::RangeSet;
use crate::rows::{LayerData, LayerRow};

/// Layers whose bytes all lie below this offset (64 KiB) live in their row.
pub const INLINE_LIMIT: u64 = 64 << 10;

/// A layer that can be written. See the module documentation.
#[derive(Debug)]
pub struct StagingFile {
    dir: Arc<StagingDir>,
    floor: u64,
    extents: RangeSet,
    body: Body,
}

#[derive(Debug, Clone)]
enum Body {
    /// From offset 0; bytes outside the extents are zeros or leftovers.
    Inline(Arc<Vec<u8>>),
    File(Arc<EncryptedFile>),
}

impl Body {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        match self {
            Self::File(file) => file.read_at(offset, buf),
            Self::Inline(bytes) => {
                let present = usize::try_from(offset)
                    .ok()
                    .and_then(|start| bytes.get(start..start.checked_add(buf.len())?))
                    .ok_or(StoreError::NotPresent)?;
                buf.copy_from_slice(present);
                Ok(())
            }
        }
    }
}

fn end_of(offset: u64, length: usize) -> Result<u64, StoreError> {
    // Offsets are stored as signed numbers, as everywhere in Unix.
    offset
        .checked_add(length as u64)
        .filter(|end| i64::try_from(*end).is_ok())
        .ok_or(StoreError::NotPresent)
}

impl StagingFile {
    pub(crate) fn new(dir: Arc<StagingDir>, floor: u64) -> Self {
        let body = Body::Inline(Arc::default());
        Self {
            dir,
            floor,
            extents: RangeSet::new(),
            body,
        }
    }

    pub(crate) fn open(dir: Arc<StagingDir>, row: &LayerRow) -> Result<Self, StoreError> {
        let extents: RangeSet = row.extents.iter().cloned().collect();
        let body = match &row.data {
            LayerData::Inline(bytes) => {
                if extents.end() > bytes.len() as u64 {
                    return Err(StoreError::Damaged {
                        what: "an inline layer",
                    });
                }
                Body::Inline(Arc::new(bytes.clone()))
            }
            LayerData::File(id) => Body::File(Arc::new(EncryptedFile::open(&dir, *id)?)),
        };
        Ok(Self {
            dir,
            floor: row.floor,
            extents,
            body,
        })
    }

    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Poisoned`], [`StoreError::LockedKeys`], or the file
    /// cannot be written. The extents then are as before; bytes inside them may be old or new.
    pub fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), StoreError> {
        if data.is_empty() {
            return Ok(());
        }
        let end = end_of(offset, data.len())?;
        self.dir.check_writable()?;
        if end > INLINE_LIMIT {
            self.spill()?;
        }
        match &mut self.body {
            Body::Inline(bytes) => {
                let bytes = Arc::make_mut(bytes);
                let (start, end) = (to_usize(offset)?, to_usize(end)?);
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes
                    .get_mut(start..end)
                    .ok_or(StoreError::NotPresent)?
                    .copy_from_slice(data);
            }
            Body::File(file) => file.write_at(&self.extents, offset, data)?,
        }
        self.extents.insert(offset..end);
        Ok(())
    }

    /// Moves to a file what is inline and will be larger than fits a row. Whoever commits the row before
    /// he writes leaves no file that no row counts on, should the process end.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at); the layer then is as it was.
    pub fn prepare(&mut self, size: u64) -> Result<(), StoreError> {
        self.dir.check_writable()?;
        if size > INLINE_LIMIT {
            self.spill()?;
        }
        Ok(())
    }

    /// Moves an inline layer to a file.
    fn spill(&mut self) -> Result<(), StoreError> {
        let Body::Inline(bytes) = &self.body else {
            return Ok(());
        };
        let file = EncryptedFile::create(&self.dir)?;
        let mut written = RangeSet::new();
        for part in self.extents.iter() {
            let inside = bytes.get(to_usize(part.start)?..to_usize(part.end)?);
            let outcome = inside
                .ok_or(StoreError::Damaged {
                    what: "an inline layer",
                })
                .and_then(|data| file.write_at(&written, part.start, data));
            if let Err(error) = outcome {
                let _ = file.delete();
                return Err(error);
            }
            written.insert(part);
        }
        self.body = Body::File(Arc::new(file));
        Ok(())
    }

    /// Fills `buf` with the bytes at `offset`.
    ///
    /// # Errors
    /// [`StoreError::NotPresent`] unless all of them lie inside the extents, or the file cannot be
    /// read.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        if !self.extents.contains(offset..end_of(offset, buf.len())?) {
            return Err(StoreError::NotPresent);
        }
        if buf.is_empty() {
            Ok(())
        } else {
            self.body.read_at(offset, buf)
        }
    }

    /// Which bytes the layer has.
    #[must_use]
    pub const fn extents(&self) -> &RangeSet {
        &self.extents
    }

    /// Takes bytes out of the extents. The disk keeps them until [`reclaim`](Self::reclaim).
    pub fn discard(&mut self, range: Range<u64>) {
        self.extents.remove(range);
        let keep = self.extents.end();
        if let Body::Inline(bytes) = &mut self.body
            && (bytes.len() as u64) > keep
            && let Ok(keep) = usize::try_from(keep)
        {
            Arc::make_mut(bytes).truncate(keep);
        }
    }

    /// Gives the disk space outside the extents back. Only call it once a row without the discarded
    /// ranges is committed: a row that still had them would count on lost bytes after a crash.
    pub fn reclaim(&self) {
        if let Body::File(file) = &self.body {
            file.punch_gaps(&self.extents);
        }
    }

    /// What lies under this layer shows only below this offset.
    #[must_use]
    pub const fn floor(&self) -> u64 {
        self.floor
    }

    /// Lowers the floor: the file was cut at `to`.
    pub fn lower_floor(&mut self, to: u64) {
        self.floor = self.floor.min(to);
    }

    /// Whether the bytes live in the row.
    #[must_use]
    pub const fn is_inline(&self) -> bool {
        matches!(self.body, Body::Inline(_))
    }

    /// Makes the file's bytes durable; nothing to do for an inline layer, whose row has them.
    ///
    /// # Errors
    /// A failed fsync poisons the store (I8).
    pub fn sync_data(&self) -> Result<(), StoreError> {
        match &self.body {
            Body::Inline(_) => Ok(()),
            Body::File(file) => file.sync(),
        }
    }

    /// The layer as part of a change row.
    #[must_use]
    pub fn row(&self, sealed: bool) -> LayerRow {
        let data = match &self.body {
            Body::Inline(bytes) => LayerData::Inline(bytes.to_vec()),
            Body::File(file) => LayerData::File(file.id()),
        };
        LayerRow {
            data,
            floor: self.floor,
            extents: self.extents.iter().collect(),
            sealed,
        }
    }

    /// A view for readers on other threads, with the extents of now. Later writes to bytes it has
    /// may or may not show, so it is meant for sealed layers (I4). It stays readable after
    /// [`delete`](Self::delete).
    #[must_use]
    pub fn reader(&self) -> LayerReader {
        LayerReader {
            extents: Arc::new(self.extents.clone()),
            body: self.body.clone(),
        }
    }

    /// Removes the file. Only once no row needs it (I5).
    ///
    /// # Errors
    /// If the file cannot be removed; recovery then moves it to `lost+found`.
    pub fn delete(self) -> Result<(), StoreError> {
        match &self.body {
            Body::Inline(_) => Ok(()),
            Body::File(file) => file.delete(),
        }
    }
}

impl StagingFile {
    /// Takes the layer's file out of the directory; reading and writing go on. For content that must not
    /// outlive its last user: no start will find it.
    ///
    /// # Errors
    /// If the file cannot be removed; recovery then moves it to `lost+found`.
    pub fn hide(&self) -> Result<(), StoreError> {
        match &self.body {
            Body::Inline(_) => Ok(()),
            Body::File(file) => file.delete(),
        }
    }
}

/// An unchanging view of a layer's bytes.
#[derive(Debug, Clone)]
pub struct LayerReader {
    extents: Arc<RangeSet>,
    body: Body,
}

impl LayerReader {
    /// Which bytes the layer had.
    #[must_use]
    pub fn extents(&self) -> &RangeSet {
        &self.extents
    }

    /// Fills `buf` with the bytes at `offset`.
    ///
    /// # Errors
    /// As [`StagingFile::read_at`].
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        if !self.extents.contains(offset..end_of(offset, buf.len())?) {
            return Err(StoreError::NotPresent);
        }
        if buf.is_empty() {
            Ok(())
        } else {
            self.body.read_at(offset, buf)
        }
    }
}

fn to_usize(number: u64) -> Result<usize, StoreError> {
    usize::try_from(number).map_err(|_| StoreError::NotPresent)
}

#[cfg(test)]
mod tests;
