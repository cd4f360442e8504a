//! Ciphertext of an upload, kept so that what was just written need not be fetched again.
//!
//! Large files are written past the page cache: nobody reads them now, they would push out what somebody
//! does read, and filling fresh pages costs more than all the encryption (0.9 s/GB against 0.3; written
//! directly: 0.04). Such writes wait for the disk.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mega_proto::NodeHandle;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::blob::{Blob, space_of};
use super::{Shared, UNIT, on_disk, recovery};
use crate::db::lock;
use crate::durable;
use crate::error::{StoreError, is_disk_full};
use crate::range_set::RangeSet;

/// Files of at least this size are written past the page cache, where memory and offset are aligned.
pub const DIRECT_FROM: u64 = 16 << 20;
/// Alignment of memory, offset and length that every disk takes for that, in bytes.
pub const DIRECT_ALIGNMENT: usize = 4096;

/// What is written at once through the page cache.
const STEP: usize = 256 << 10;

/// Bytes by offset that will belong to a node that does not exist yet. Counted in the cache's bound
/// like any other; dropped with its file unless adopted.
#[derive(Debug)]
pub struct PendingBlob {
    shared: Arc<Shared>,
    size: u64,
    name: u64,
    path: PathBuf,
    /// The same file, written past the page cache; `None` for small ones, and where that is not possible.
    direct: Option<File>,
    written: Mutex<RangeSet>,
    claimed: AtomicU64,
    /// Not kept: the cache is off, or there was no room.
    given_up: AtomicBool,
}

impl PendingBlob {
    pub(super) fn begin(shared: Arc<Shared>, size: u64) -> Result<Self, StoreError> {
        let mut name = [0; 8];
        getrandom::fill(&mut name)?;
        let name = u64::from_be_bytes(name);
        let dir = shared.dir.join(recovery::PENDING);
        let path = dir.join(format!("{name:016x}"));
        let mut is_kept = shared.memory.is_none() && size <= shared.budget.limit();
        if is_kept {
            let make = || {
                durable::private_dir(&dir)?;
                let fail = |source| StoreError::io(&path, source);
                let file = durable::private_file()
                    .create_new(true)
                    .open(&path)
                    .map_err(fail)?;
                file.set_len(size).map_err(fail)?;
                shared.open_pending.put(name, Arc::new(file));
                Ok::<_, StoreError>(())
            };
            is_kept = make()
                .inspect_err(|error| tracing::warn!(%error, "upload is not cached"))
                .is_ok();
        }
        let is_direct = is_kept && size >= DIRECT_FROM;
        let direct = is_direct.then(|| open_direct(&path)).flatten();
        let given_up = AtomicBool::new(!is_kept);
        let (written, claimed) = (Mutex::new(RangeSet::new()), AtomicU64::new(0));
        Ok(Self {
            shared,
            size,
            name,
            path,
            direct,
            written,
            claimed,
            given_up,
        })
    }

    fn file(&self) -> std::io::Result<Arc<File>> {
        self.shared
            .open_pending
            .get(self.name, || durable::private_file().open(&self.path))
    }

    /// Keeps bytes at `offset`, from any thread and in any order. `false`: they are not kept, and
    /// none will be from now on.
    ///
    /// # Errors
    /// None at present: bytes that cannot be written are not kept.
    pub fn write(&self, offset: u64, ciphertext: &[u8]) -> Result<bool, StoreError> {
        let length = ciphertext.len() as u64;
        let fits = offset
            .checked_add(length)
            .is_some_and(|end| end <= self.size);
        if !fits || self.given_up.load(Ordering::Acquire) {
            return Ok(false);
        }
        let Some(claim) = self.shared.make_room_for(on_disk(length)) else {
            self.given_up.store(true, Ordering::Release);
            return Ok(false);
        };
        let written = self
            .file()
            .and_then(|file| write_through(self.direct.as_ref(), &file, ciphertext, offset));
        if let Err(error) = written {
            if !is_disk_full(&error) {
                tracing::warn!(%error, "upload is not cached");
            }
            self.given_up.store(true, Ordering::Release);
            return Ok(false);
        }
        claim.keep();
        self.claimed.fetch_add(on_disk(length), Ordering::AcqRel);
        lock(&self.written).insert(offset..offset + length);
        Ok(true)
    }

    pub(super) fn adopt(self, handle: NodeHandle) -> Result<Arc<Blob>, StoreError> {
        let blob = self.shared.open(handle, self.size)?;
        let written = lock(&self.written).clone();
        let is_present =
            |unit: &u64| written.contains(unit * UNIT..((unit + 1) * UNIT).min(self.size));
        let units: RangeSet = (0..self.size.div_ceil(UNIT))
            .filter(is_present)
            .map(|unit| unit..unit + 1)
            .collect();
        if units.is_empty() {
            return Ok(blob);
        }
        let file = self
            .file()
            .map_err(|source| StoreError::io(&self.path, source))?;
        // What lies outside whole units does not count and must not take space.
        let gaps = units.gaps(0..self.size.div_ceil(UNIT));
        let cut = gaps
            .iter()
            .try_for_each(|gap| recovery::punch(&file, gap.start * UNIT..gap.end * UNIT));
        if cut.is_err() {
            return Ok(blob);
        }
        if blob.take_over(file, &self.path, &units)? {
            // The blob's units are counted from here on, this claim ends in Drop.
            self.shared
                .budget
                .add(units.iter().map(|run| space_of(self.size, &run)).sum());
        }
        Ok(blob)
    }
}

fn open_direct(path: &Path) -> Option<File> {
    let flag = OFlags::DIRECT.bits().cast_signed();
    let opened = durable::private_file().custom_flags(flag).open(path);
    opened
        .inspect_err(|error| tracing::debug!(%error, "the cache goes through the page cache"))
        .ok()
}

/// Writes what can be written directly that way, the rest through the page cache.
fn write_through(
    direct: Option<&File>,
    file: &File,
    bytes: &[u8],
    offset: u64,
) -> std::io::Result<()> {
    let is_aligned = bytes.as_ptr().addr().is_multiple_of(DIRECT_ALIGNMENT)
        && offset.is_multiple_of(DIRECT_ALIGNMENT as u64);
    let whole = bytes.len() - bytes.len() % DIRECT_ALIGNMENT;
    let Some((direct, (blocks, rest))) = direct
        .filter(|_| is_aligned)
        .zip(bytes.split_at_checked(whole))
    else {
        return write_in_steps(file, bytes, offset);
    };
    match direct.write_all_at(blocks, offset) {
        Ok(()) => write_in_steps(file, rest, offset + whole as u64),
        // Some file systems take the flag and refuse the write.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
            write_in_steps(file, bytes, offset)
        }
        Err(error) => Err(error),
    }
}

/// Writes through the page cache in steps. One system call for many MiB takes five times the processor
/// time of the same bytes in steps (seen on ext4: 1.0 s against 0.19 s for 768 MiB).
fn write_in_steps(file: &File, bytes: &[u8], offset: u64) -> std::io::Result<()> {
    let mut at = offset;
    for step in bytes.chunks(STEP) {
        file.write_all_at(step, at)?;
        at += step.len() as u64;
    }
    Ok(())
}

impl Drop for PendingBlob {
    fn drop(&mut self) {
        self.shared.open_pending.take(&self.name);
        let _ = durable::remove_if_there(&self.path);
        self.shared
            .budget
            .give_back(self.claimed.load(Ordering::Acquire));
    }
}
