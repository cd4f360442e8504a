//! An encrypted staging file: a header unit, then XTS-AES units of 4096 bytes.
//!
//! The header (unencrypted: magic, version, the wrapped random key) makes the file readable on its
//! own, also in `lost+found`, by whoever has the master key. Data unit `n` stands at
//! `(n + 1) * 4096` and is always stored whole.
//!
//! A partial write reads, decrypts, changes and rewrites its unit. That is safe against a torn write:
//! XTS encrypts each 16-byte block by itself, so blocks whose bytes do not change keep their
//! ciphertext, and a sector is old or new. Writers hold `&mut` on the layer above; readers of bytes
//! that are being rewritten see old or new bytes per block, as they would in any file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

use rustix::fs::{FallocateFlags, fallocate};
use zeroize::Zeroizing;

use super::directory::StagingDir;
use crate::durable::{private_file, remove_if_there};
use crate::error::{StoreError, is_disk_full};
use crate::failpoints::FailPoint;
use crate::range_set::RangeSet;
use crate::subject::StagingId;
use crate::vault::{SEAL_OVERHEAD, Slot};
use crate::xts::{STAGING_UNIT, Xts, XtsKey};

const UNIT: u64 = STAGING_UNIT as u64;
const MAGIC: &[u8; 8] = b"MGSTAGE\x01";
const WRAPPED: usize = 32 + SEAL_OVERHEAD;
/// Bytes encrypted and written at once: bounds the memory of a large write.
const PIECE: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct EncryptedFile {
    id: StagingId,
    xts: Xts,
    dir: Arc<StagingDir>,
    /// The file's place in the order of creation; 0: it was there at the start.
    number: u64,
    /// Once deleted: the file that readers of before go on with.
    deleted: OnceLock<Option<Arc<File>>>,
}

impl EncryptedFile {
    /// Makes a new file with a key of its own.
    pub(super) fn create(dir: &Arc<StagingDir>) -> Result<Self, StoreError> {
        let mut id = [0; 8];
        getrandom::fill(&mut id)?;
        // Positive as a database number.
        let id = StagingId(u64::from_be_bytes(id) >> 1);
        let mut key: XtsKey = Zeroizing::new([0; 32]);
        getrandom::fill(key.as_mut_slice())?;
        let mut header = vec![0; STAGING_UNIT];
        let wrapped = dir.vault.seal(Slot::StagingKey(id), key.as_slice())?;
        for (to, from) in header.iter_mut().zip(MAGIC.iter().chain(&wrapped)) {
            *to = *from;
        }
        let path = dir.file(id);
        let file = private_file()
            .create_new(true)
            .open(&path)
            .map_err(|source| StoreError::io(&path, source))?;
        dir.open_files.put(id, Arc::new(file));
        let (xts, number, dir) = (Xts::new(&key), dir.note_created(), Arc::clone(dir));
        let made = Self {
            id,
            xts,
            dir,
            number,
            deleted: OnceLock::new(),
        };
        if let Err(error) = made.write_all(&header, 0) {
            let _ = made.delete();
            return Err(error);
        }
        Ok(made)
    }

    /// Opens a file that a row names.
    pub(super) fn open(dir: &Arc<StagingDir>, id: StagingId) -> Result<Self, StoreError> {
        let path = dir.file(id);
        let file = private_file()
            .open(&path)
            .map_err(|source| StoreError::io(&path, source))?;
        let damaged = StoreError::Damaged {
            what: "a staging file",
        };
        let mut header = [0; 8 + WRAPPED];
        if file.read_exact_at(&mut header, 0).is_err() {
            return Err(damaged);
        }
        let Some(wrapped) = header.strip_prefix(MAGIC) else {
            return Err(damaged);
        };
        let plain = Zeroizing::new(dir.vault.open(Slot::StagingKey(id), wrapped)?);
        let key: XtsKey = Zeroizing::new(plain.as_slice().try_into().map_err(|_| damaged)?);
        dir.open_files.put(id, Arc::new(file));
        let (xts, number, dir) = (Xts::new(&key), dir.last_created(), Arc::clone(dir));
        Ok(Self {
            id,
            xts,
            dir,
            number,
            deleted: OnceLock::new(),
        })
    }

    fn file(&self) -> io::Result<Arc<File>> {
        match self.deleted.get() {
            Some(kept) => kept.clone().ok_or_else(|| io::ErrorKind::NotFound.into()),
            None => self
                .dir
                .open_files
                .get(self.id, || private_file().open(self.dir.file(self.id))),
        }
    }

    pub(super) const fn id(&self) -> StagingId {
        self.id
    }

    /// Writes, keeping what `present` says is there in the units at both ends.
    pub(super) fn write_at(
        &self,
        present: &RangeSet,
        offset: u64,
        data: &[u8],
    ) -> Result<(), StoreError> {
        let mut buffer = Vec::with_capacity(PIECE.min(data.len() + 2 * STAGING_UNIT));
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let skip = (at % UNIT) as usize;
            let (now, later) = rest.split_at(rest.len().min(PIECE - skip));
            let first = at / UNIT;
            let end_is_partial = !(skip + now.len()).is_multiple_of(STAGING_UNIT);
            buffer.clear();
            if skip == 0 && !end_is_partial {
                buffer.extend_from_slice(now);
            } else {
                buffer.resize((skip + now.len()).next_multiple_of(STAGING_UNIT), 0);
                let last = first + (buffer.len() / STAGING_UNIT) as u64 - 1;
                if skip > 0 || (first == last && end_is_partial) {
                    self.load_unit(present, first, buffer.get_mut(..STAGING_UNIT))?;
                }
                if end_is_partial && last > first {
                    let tail = buffer.len() - STAGING_UNIT;
                    self.load_unit(present, last, buffer.get_mut(tail..))?;
                }
                if let Some(place) = buffer.get_mut(skip..skip + now.len()) {
                    place.copy_from_slice(now);
                }
            }
            self.xts.encrypt(&mut buffer, first);
            self.write_all(&buffer, (first + 1) * UNIT)?;
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// Reads a whole unit in the clear, or leaves zeros if none of it counts.
    fn load_unit(
        &self,
        present: &RangeSet,
        unit: u64,
        into: Option<&mut [u8]>,
    ) -> Result<(), StoreError> {
        match into {
            Some(into) if present.intersects(unit * UNIT..(unit + 1) * UNIT) => {
                self.read_units(unit, into)
            }
            _ => Ok(()),
        }
    }

    fn read_units(&self, first: u64, into: &mut [u8]) -> Result<(), StoreError> {
        self.file()
            .and_then(|file| file.read_exact_at(into, (first + 1) * UNIT))
            .map_err(|source| self.failed(source))?;
        self.xts.decrypt(into, first);
        Ok(())
    }

    /// Reads bytes that the caller knows to be there.
    pub(super) fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        let mut unit = [0; STAGING_UNIT];
        let skip = (offset % UNIT) as usize;
        let mut next = offset / UNIT;
        let head_length = if skip == 0 {
            0
        } else {
            buf.len().min(STAGING_UNIT - skip)
        };
        let (head, rest) = buf.split_at_mut(head_length);
        if !head.is_empty() {
            self.read_units(next, &mut unit)?;
            copy_part(head, &unit, skip);
            next += 1;
        }
        let whole = rest.len() - rest.len() % STAGING_UNIT;
        let (middle, tail) = rest.split_at_mut(whole);
        if !middle.is_empty() {
            // In place: no copy for aligned reads.
            self.read_units(next, middle)?;
            next += (whole / STAGING_UNIT) as u64;
        }
        if !tail.is_empty() {
            self.read_units(next, &mut unit)?;
            copy_part(tail, &unit, 0);
        }
        Ok(())
    }

    fn write_all(&self, bytes: &[u8], at: u64) -> Result<(), StoreError> {
        let write = || self.file().and_then(|file| file.write_all_at(bytes, at));
        let outcome = match write() {
            Err(error) if is_disk_full(&error) && self.dir.make_room() => write(),
            other => other,
        };
        outcome.map_err(|source| {
            if is_disk_full(&source) {
                // The database needs room to finish the queue, or nothing would ever be freed.
                self.dir.db.reserve.release();
            }
            self.failed(source)
        })
    }

    /// Makes bytes, length and directory entry durable.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.dir.db.poison.check()?;
        let synced = self
            .file()
            .and_then(|file| file.sync_data())
            .and_then(|()| self.dir.sync_entry(self.number));
        synced.map_err(|error| self.dir.db.poison.set("fsync of staging", &error))
    }

    /// Gives back units that no extent touches. Best effort: some file systems cannot.
    pub(super) fn punch_gaps(&self, extents: &RangeSet) {
        let Ok(file) = self.file() else { return };
        let length = file
            .metadata()
            .map_or(0, |data| data.len().saturating_sub(UNIT));
        for gap in extents.gaps(0..length) {
            let start = gap.start.next_multiple_of(UNIT);
            let end = if gap.end == length {
                gap.end
            } else {
                gap.end - gap.end % UNIT
            };
            if start < end {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let _ = fallocate(&*file, flags, start + UNIT, end - start);
            }
        }
    }

    /// Removes the name; open readers go on.
    pub(super) fn delete(&self) -> Result<(), StoreError> {
        if self.deleted.get().is_some() {
            return Ok(());
        }
        let kept = self.file().ok();
        self.dir.open_files.take(&self.id);
        let _ = self.deleted.set(kept);
        remove_if_there(&self.dir.file(self.id))?;
        self.dir.db.failpoints.reach(FailPoint::StagingDropped);
        Ok(())
    }

    fn failed(&self, source: io::Error) -> StoreError {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            return StoreError::Damaged {
                what: "a staging file",
            };
        }
        StoreError::io(
            &self.dir.path().join(super::directory::file_name(self.id)),
            source,
        )
    }
}

fn copy_part(to: &mut [u8], unit: &[u8; STAGING_UNIT], skip: usize) {
    for (to, from) in to.iter_mut().zip(unit.iter().skip(skip)) {
        *to = *from;
    }
}
