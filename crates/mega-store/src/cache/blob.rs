//! One node's cached ciphertext.
//!
//! Locks: `disk` is held shared while bytes are read or written and exclusively while content is
//! taken away, so a reader never sees a hole under a set bit. The bits themselves need no lock. Files
//! are opened when needed ([`OpenFiles`](crate::open_files::OpenFiles)).

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use mega_proto::NodeHandle;

use super::table;
use super::unit_map::UnitMap;
use super::{Shared, UNIT, now_ms, on_disk, recovery};
use crate::db::lock;
use crate::durable;
use crate::error::{StoreError, is_disk_full};
use crate::range_set::RangeSet;

mod clear;
mod rows;

pub(super) use rows::Recorded;

/// The database learns of a mere read this often, in milliseconds.
const USE_EVERY: u64 = 60_000;

/// The cached ciphertext of one node. See [`BlobCache`](crate::BlobCache).
#[derive(Debug)]
pub struct Blob {
    me: Weak<Self>,
    shared: Arc<Shared>,
    handle: NodeHandle,
    size: u64,
    units: UnitMap,
    disk: RwLock<()>,
    macs: Mutex<BTreeMap<u32, [u8; 16]>>,
    verified: AtomicBool,
    /// It was this process that verified it.
    vouched: AtomicBool,
    pins: AtomicU32,
    last_use: AtomicU64,
    recorded_use: AtomicU64,
    /// The unit last read or written.
    near: AtomicU64,
    epoch: AtomicU64,
    /// Something is not in the row yet.
    changed: AtomicBool,
    /// The row says `active`: units may be written. Changes only inside write transactions.
    registered: AtomicBool,
    /// Content is being taken away: the row must not be written from the bits.
    clearing: AtomicBool,
}

/// Keeps a blob from being evicted while it exists.
#[derive(Debug)]
pub struct BlobPin(Arc<Blob>);

impl BlobPin {
    /// The pinned blob.
    #[must_use]
    pub const fn blob(&self) -> &Arc<Blob> {
        &self.0
    }
}

impl Drop for BlobPin {
    fn drop(&mut self) {
        self.0.pins.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Blob {
    /// A blob as its row and file say; anything doubtful counts as absent.
    pub(super) fn load(
        shared: Arc<Shared>,
        handle: NodeHandle,
        size: u64,
    ) -> Result<Arc<Self>, StoreError> {
        let row = match shared.memory {
            Some(_) => None,
            None => shared.db.read(|db| table::load(db, handle))?,
        };
        let row = match row {
            Some(row) => {
                let before = row.bytes;
                if let Some((row, opened)) = recovery::check(&shared.path(handle), row, size) {
                    if let Some(file) = opened {
                        shared.open_files.put(handle, Arc::new(file));
                    }
                    Some(row)
                } else {
                    tracing::warn!(node = %handle, "cached file damaged, dropped");
                    shared.budget.give_back(before);
                    // If this fails the row is replaced before the first write to the blob.
                    let dropped = shared.db.write(|db| table::delete(db, handle));
                    if let Err(error) = dropped.and_then(|()| shared.unlink(handle)) {
                        tracing::warn!(%error, "a damaged cached file stays for now");
                    }
                    None
                }
            }
            None => None,
        };
        let (units, macs, verified, epoch) = match row {
            Some(row) => (row.units, row.macs, row.verified, row.epoch),
            None => (RangeSet::new(), BTreeMap::new(), false, shared.new_epoch()),
        };
        Ok(Arc::new_cyclic(|me| Self {
            me: me.clone(),
            handle,
            size,
            units: UnitMap::new(size.div_ceil(UNIT), &units),
            disk: RwLock::new(()),
            macs: Mutex::new(macs),
            verified: AtomicBool::new(verified),
            vouched: AtomicBool::new(false),
            pins: AtomicU32::new(0),
            last_use: AtomicU64::new(now_ms()),
            recorded_use: AtomicU64::new(0),
            near: AtomicU64::new(0),
            epoch: AtomicU64::new(epoch),
            changed: AtomicBool::new(false),
            registered: AtomicBool::new(false),
            clearing: AtomicBool::new(false),
            shared,
        }))
    }

    /// The node.
    #[must_use]
    pub const fn handle(&self) -> NodeHandle {
        self.handle
    }

    /// Length of the node's content in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    fn unit_length(&self, unit: u64) -> u64 {
        self.size.saturating_sub(unit * UNIT).min(UNIT)
    }

    fn has(&self, unit: u64) -> bool {
        match &self.shared.memory {
            Some(memory) => lock(memory).contains(self.handle, unit),
            None => self.units.contains(unit),
        }
    }

    /// Disk space of the present units.
    fn bytes_of(&self, units: &RangeSet) -> u64 {
        units.iter().map(|run| space_of(self.size, &run)).sum()
    }

    /// Which parts of `range` are not here: whole units, the last one cut at the end of the file.
    #[must_use]
    pub fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let end = range.end.min(self.size);
        let mut missing: Vec<Range<u64>> = Vec::new();
        for unit in range.start / UNIT..end.div_ceil(UNIT) {
            if self.has(unit) {
                continue;
            }
            let (start, end) = (unit * UNIT, unit * UNIT + self.unit_length(unit));
            match missing.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => missing.push(start..end),
            }
        }
        missing
    }

    fn disk(&self) -> RwLockReadGuard<'_, ()> {
        self.disk.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk_alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.disk.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills `buf` with the ciphertext at `offset`. `false`: not all of it is here (any more), and
    /// the buffer's content means nothing.
    ///
    /// # Errors
    /// None at present: bytes that cannot be read count as not being here.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<bool, StoreError> {
        let Some(end) = offset
            .checked_add(buf.len() as u64)
            .filter(|end| *end <= self.size)
        else {
            return Ok(false);
        };
        if buf.is_empty() {
            return Ok(true);
        }
        if let Some(memory) = &self.shared.memory {
            return Ok(self.read_memory(memory, offset, buf));
        }
        let guard = self.disk();
        if !self.units.contains_all(offset / UNIT..end.div_ceil(UNIT)) {
            return Ok(false);
        }
        let read = self
            .existing()
            .and_then(|file| file.read_exact_at(buf, offset));
        if let Err(error) = read {
            drop(guard);
            self.give_up_on_file(&error);
            return Ok(false);
        }
        drop(guard);
        self.touch(end / UNIT);
        Ok(true)
    }

    fn read_memory(&self, memory: &Mutex<super::MemoryUnits>, offset: u64, buf: &mut [u8]) -> bool {
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let Some(unit) = lock(memory).get(self.handle, at / UNIT) else {
                return false;
            };
            let skip = (at % UNIT) as usize;
            let Some(from) = unit.get(skip..) else {
                return false;
            };
            let length = from.len().min(rest.len());
            if length == 0 {
                return false;
            }
            let (now, later) = rest.split_at_mut(length);
            for (to, from) in now.iter_mut().zip(from) {
                *to = *from;
            }
            at += length as u64;
            rest = later;
        }
        true
    }

    fn touch(&self, unit: u64) {
        self.near.store(unit, Ordering::Relaxed);
        let now = now_ms();
        self.last_use.store(now, Ordering::Relaxed);
        let recorded = self.recorded_use.load(Ordering::Relaxed);
        if now.saturating_sub(recorded) > USE_EVERY {
            self.recorded_use.store(now, Ordering::Relaxed);
            self.changed.store(true, Ordering::Release);
            self.keep_unsettled();
        }
    }

    fn keep_unsettled(&self) {
        if self.shared.closed.load(Ordering::Acquire) {
            return;
        }
        if let Some(me) = self.me.upgrade() {
            lock(&self.shared.table).unsettled.insert(self.handle, me);
        }
    }

    /// Keeps unit `index`, whose whole ciphertext (cut at the end of the file) is given. `false`: it
    /// was not kept, because there is no room for it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the length is not the unit's; if the file cannot be written.
    pub fn write_unit(&self, index: u64, ciphertext: &[u8]) -> Result<bool, StoreError> {
        let length = self.unit_length(index);
        if ciphertext.len() as u64 != length || length == 0 {
            return Err(StoreError::Damaged {
                what: "a unit of another length",
            });
        }
        if let Some(memory) = &self.shared.memory {
            lock(memory).put(self.handle, index, ciphertext);
            return Ok(true);
        }
        if self.units.contains(index) {
            return Ok(true);
        }
        let Some(claim) = self.shared.make_room_for(on_disk(length)) else {
            return Ok(false);
        };
        // Content may be taken away, or the row settled, between the steps; then once more.
        for _ in 0..8 {
            if !self.register()? {
                return Ok(false);
            }
            let guard = self.disk();
            if !self.registered.load(Ordering::Acquire) {
                continue;
            }
            let file = if self.units.is_empty() {
                self.created()
            } else {
                self.existing()
            };
            let file = match file {
                Ok(file) => file,
                Err(error) if is_disk_full(&error) => return Ok(false),
                Err(error) if !self.units.is_empty() => {
                    drop(guard);
                    self.give_up_on_file(&error);
                    continue;
                }
                Err(source) => return Err(StoreError::io(&self.shared.path(self.handle), source)),
            };
            if let Err(source) = file.write_all_at(ciphertext, index * UNIT) {
                drop((guard, claim));
                if is_disk_full(&source) {
                    return Ok(false);
                }
                return Err(StoreError::io(&self.shared.path(self.handle), source));
            }
            if self.units.set(index) {
                claim.keep();
            }
            self.changed.store(true, Ordering::Release);
            drop(guard);
            self.near.store(index, Ordering::Relaxed);
            self.last_use.store(now_ms(), Ordering::Relaxed);
            return Ok(true);
        }
        Ok(false)
    }

    /// The file under present units. Never made anew: a fresh file would be zeros under set bits.
    fn existing(&self) -> io::Result<Arc<File>> {
        self.shared.open_files.get(self.handle, || {
            let file = durable::private_file().open(self.shared.path(self.handle))?;
            if file.metadata()?.len() != self.size {
                return Err(io::ErrorKind::InvalidData.into());
            }
            Ok(file)
        })
    }

    /// The file for the first units. Not truncated: several threads may come here at once, and what
    /// a leftover holds counts for nothing.
    fn created(&self) -> io::Result<Arc<File>> {
        let path = self.shared.path(self.handle);
        let make = || {
            let file = durable::private_file()
                .create(true)
                .truncate(false)
                .open(&path)?;
            file.set_len(self.size)?;
            Ok(file)
        };
        self.shared.open_files.get(self.handle, || {
            make().or_else(|error: io::Error| {
                if error.kind() != io::ErrorKind::NotFound {
                    return Err(error);
                }
                path.parent().map_or(Ok(()), durable::make_private_dir)?;
                make()
            })
        })
    }

    fn give_up_on_file(&self, error: &io::Error) {
        tracing::warn!(node = %self.handle, %error, "cached file unusable, dropped");
        if let Err(error) = self.drop_content() {
            tracing::warn!(%error, "an unusable cached file stays for now");
        }
    }

    /// The blob, if it is as long as asked.
    pub(super) fn of_size(self: Arc<Self>, size: u64) -> Result<Arc<Self>, StoreError> {
        if self.size == size {
            Ok(self)
        } else {
            Err(StoreError::Damaged {
                what: "a blob's size",
            })
        }
    }

    #[cfg(test)]
    pub(super) fn recorded_use_is_old(&self) {
        self.recorded_use.store(0, Ordering::Relaxed);
    }

    pub(super) fn is_settled(&self) -> bool {
        !self.registered.load(Ordering::Acquire) && !self.changed.load(Ordering::Acquire)
    }

    /// Whether every unit is here.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        match &self.shared.memory {
            None => self.units.is_full(),
            Some(memory) => {
                let memory = lock(memory);
                (0..self.units.units()).all(|unit| memory.contains(self.handle, unit))
            }
        }
    }

    /// Whether the whole content was found to match its meta-MAC.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.verified.load(Ordering::Acquire)
    }

    /// Whether that was found by this process: bits flip on disks.
    #[must_use]
    pub fn is_verified_now(&self) -> bool {
        self.is_verified() && self.vouched.load(Ordering::Acquire)
    }

    /// The whole content matches its meta-MAC. It stays verified until a unit goes.
    pub fn set_verified(&self) {
        self.vouched.store(true, Ordering::Release);
        if !self.verified.swap(true, Ordering::AcqRel) {
            self.note_change();
        }
    }

    fn note_change(&self) {
        if self.shared.memory.is_none() {
            self.changed.store(true, Ordering::Release);
            self.keep_unsettled();
        }
    }

    /// The MAC of a chunk, if it was computed before.
    #[must_use]
    pub fn chunk_mac(&self, chunk: u32) -> Option<[u8; 16]> {
        lock(&self.macs).get(&chunk).copied()
    }

    /// Keeps the MAC of a chunk. It stays when units go (content never changes), until
    /// [`drop_content`](Self::drop_content).
    pub fn set_chunk_mac(&self, chunk: u32, mac: [u8; 16]) {
        lock(&self.macs).insert(chunk, mac);
        self.note_change();
    }

    /// Keeps the blob from being evicted as long as the pin exists.
    #[must_use]
    pub fn pin(self: &Arc<Self>) -> BlobPin {
        self.pins.fetch_add(1, Ordering::AcqRel);
        BlobPin(Arc::clone(self))
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.pins.load(Ordering::Acquire) > 0
    }

    pub(super) fn last_use(&self) -> u64 {
        self.last_use.load(Ordering::Relaxed)
    }

    /// Disk space it takes now.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes_of(&self.units.snapshot())
    }
}

/// Disk space of a run of units of a file of `size` bytes.
pub(super) fn space_of(size: u64, units: &Range<u64>) -> u64 {
    on_disk(
        (units.end * UNIT)
            .min(size)
            .saturating_sub(units.start * UNIT),
    )
}
