//! The content of one open or dirty file: layers of local bytes over a base node.
//!
//! # Layers
//! The bottom is the base node (immutable ciphertext, through the cache). Above it lie one or more
//! layers of staging. A layer shows its own extents; elsewhere, below its *floor*, what lies under it
//! shows through; beyond the floor there are zeros. Truncation lowers the floor, so bytes that were cut
//! off never come back.
//!
//! # Sealing
//! An upload reads all layers present when it started; they are *sealed*: a later write goes to a new
//! layer above. When the upload is confirmed its layers go and the new node is the base. When it was
//! cancelled or failed, the top layer is opened again by the next write.
//!
//! Lock order: a file's content lock comes before the state lock, never after it.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mega_proto::NodeHandle;
use mega_store::{ContentRow, StagingFile, Store, StoreError};
use mega_transfer::{RemoteFile, UploadProgress};
use tokio_util::sync::CancellationToken;

use crate::types::Timestamp;

/// The server's content below the local layers.
#[derive(Clone)]
pub(crate) struct Base {
    pub(crate) handle: NodeHandle,
    pub(crate) size: u64,
    pub(crate) remote: Arc<RemoteFile>,
}

pub(crate) struct Layer {
    pub(crate) file: StagingFile,
    pub(crate) sealed: bool,
}

/// An upload of this file that is going on.
pub(crate) struct Attempt {
    pub(crate) cancel: CancellationToken,
    /// The node is being put: too late to cancel.
    pub(crate) is_frozen: bool,
    /// How much of it the server has.
    pub(crate) progress: Arc<UploadProgress>,
    /// Bytes read to find out whether the account has them already.
    pub(crate) compared: Arc<AtomicU64>,
}

impl Attempt {
    /// Bytes that were looked at or that the server has.
    pub(crate) fn moved(&self) -> u64 {
        let compared = self.compared.load(Ordering::Relaxed);
        compared.saturating_add(self.progress.acknowledged())
    }
}

pub(crate) struct Content {
    pub(crate) base: Option<Base>,
    /// There was a base, and its node is gone: what still shows of it cannot be read.
    pub(crate) is_base_lost: bool,
    pub(crate) layers: Vec<Layer>,
    pub(crate) size: u64,
    pub(crate) generation: u64,
    /// Differs from what the change row in the store says.
    pub(crate) is_uncommitted: bool,
    /// Differs from the base.
    pub(crate) is_dirty: bool,
    pub(crate) attempt: Option<Attempt>,
    /// A put of these layers is in doubt: they stay sealed, because the node that it may have made takes
    /// their place.
    pub(crate) is_doubted: bool,
    /// Handles that may write.
    pub(crate) writers: u32,
    /// All handles.
    pub(crate) openers: u32,
    /// The name is gone; the bytes live until the last release.
    pub(crate) is_unlinked: bool,
    /// No longer the shared content of its inode: whoever locked this too late asks again.
    pub(crate) is_detached: bool,
}

/// Where bytes of a read come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Layer(usize),
    Base,
    Zero,
}

impl Content {
    /// Splits `range` (within the size) by source, in order, seen through the lowest `layers` layers.
    pub(crate) fn plan(&self, range: Range<u64>, layers: usize) -> Vec<(Range<u64>, Source)> {
        let mut pieces = Vec::new();
        self.plan_into(range, layers, &mut pieces);
        pieces
    }

    fn plan_into(&self, range: Range<u64>, below: usize, out: &mut Vec<(Range<u64>, Source)>) {
        if range.is_empty() {
            return;
        }
        let Some(index) = below.checked_sub(1) else {
            let shown = match &self.base {
                Some(base) => base.size,
                None if self.is_base_lost => u64::MAX,
                None => 0,
            };
            push_split(range, shown, Source::Base, out);
            return;
        };
        let Some(layer) = self.layers.get(index) else {
            self.plan_into(range, index, out);
            return;
        };
        let floor = layer.file.floor();
        let mut at = range.start;
        for extent in layer.file.extents().intersect(range.clone()) {
            self.plan_under(at..extent.start, floor, index, out);
            out.push((extent.clone(), Source::Layer(index)));
            at = extent.end;
        }
        self.plan_under(at..range.end, floor, index, out);
    }

    fn plan_under(
        &self,
        range: Range<u64>,
        floor: u64,
        below: usize,
        out: &mut Vec<(Range<u64>, Source)>,
    ) {
        if range.is_empty() {
            return;
        }
        let visible = range.end.min(floor).max(range.start);
        self.plan_into(range.start..visible, below, out);
        if visible < range.end {
            out.push((visible..range.end, Source::Zero));
        }
    }

    /// Fills `buffer` with what the layers have of `range`; base pieces are left to the caller.
    pub(crate) fn read_layers(
        &self,
        pieces: &[(Range<u64>, Source)],
        start: u64,
        buffer: &mut [u8],
    ) -> Result<(), StoreError> {
        for (range, source) in pieces {
            let Source::Layer(index) = source else {
                continue;
            };
            let (Some(layer), Some(target)) =
                (self.layers.get(*index), slice_of(buffer, start, range))
            else {
                continue;
            };
            layer.file.read_at(range.start, target)?;
        }
        Ok(())
    }

    /// The layer that takes writes now.
    pub(crate) fn top(&mut self, store: &Store) -> Result<&mut StagingFile, StoreError> {
        let attempt_running = self.attempt.is_some() || self.is_doubted;
        let usable = match self.layers.last_mut() {
            Some(layer) if !layer.sealed => true,
            Some(layer) if !attempt_running => {
                layer.sealed = false;
                true
            }
            _ => false,
        };
        if !usable {
            let lower = if self.layers.is_empty() {
                self.base
                    .as_ref()
                    .map_or(0, |base| base.size)
                    .min(self.size)
            } else {
                self.size
            };
            self.layers.push(Layer {
                file: store.new_layer(lower),
                sealed: false,
            });
        }
        match self.layers.last_mut() {
            Some(layer) => Ok(&mut layer.file),
            None => Err(StoreError::NotPresent),
        }
    }

    pub(crate) fn touched(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.is_uncommitted = true;
        self.is_dirty = true;
        if let Some(attempt) = &self.attempt
            && !attempt.is_frozen
        {
            attempt.cancel.cancel();
        }
    }

    /// Writes bytes at `offset`.
    pub(crate) fn write(
        &mut self,
        store: &Store,
        offset: u64,
        data: &[u8],
    ) -> Result<(), StoreError> {
        let is_unlinked = self.is_unlinked;
        let top = self.top(store)?;
        top.write_at(offset, data)?;
        if is_unlinked {
            crate::ops::hide(top);
        }
        self.size = self.size.max(offset.saturating_add(data.len() as u64));
        self.touched();
        Ok(())
    }

    /// Sets the length; new bytes are zero.
    pub(crate) fn truncate(&mut self, store: &Store, size: u64) -> Result<(), StoreError> {
        let top = self.top(store)?;
        top.discard(size..u64::MAX);
        top.lower_floor(size);
        self.size = size;
        self.touched();
        Ok(())
    }

    /// What the change row has to say about the content now.
    pub(crate) fn row(&self) -> ContentRow {
        ContentRow {
            base: self.base.as_ref().map(|base| base.handle),
            size: self.size,
            generation: self.generation,
            synced: false,
            layers: self
                .layers
                .iter()
                .map(|layer| layer.file.row(layer.sealed))
                .collect(),
        }
    }
}

fn push_split(range: Range<u64>, shown: u64, source: Source, out: &mut Vec<(Range<u64>, Source)>) {
    let visible = range.end.min(shown).max(range.start);
    if range.start < visible {
        out.push((range.start..visible, source));
    }
    if visible < range.end {
        out.push((visible..range.end, Source::Zero));
    }
}

/// The part of `buffer` (which begins at file offset `start`) that holds `range`.
pub(crate) fn slice_of<'a>(
    buffer: &'a mut [u8],
    start: u64,
    range: &Range<u64>,
) -> Option<&'a mut [u8]> {
    let from = usize::try_from(range.start.checked_sub(start)?).ok()?;
    let to = usize::try_from(range.end.checked_sub(start)?).ok()?;
    buffer.get_mut(from..to)
}

/// A file that is open or dirty, shared by its handles and its upload.
pub(crate) struct FileNode {
    pub(crate) ino: u64,
    content: Mutex<Content>,
    size: AtomicU64,
    mtime_secs: AtomicI64,
    mtime_nanos: AtomicU32,
    writers: AtomicU32,
    openers: AtomicU32,
    is_unlinked: AtomicBool,
    wanted: AtomicU32,
}

/// Somebody waits for a file to be on the server; ends when dropped.
pub(crate) struct Wanted<'f>(&'f FileNode);

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        self.0.wanted.fetch_sub(1, Ordering::AcqRel);
    }
}

impl FileNode {
    pub(crate) fn new(ino: u64, content: Content, mtime: Timestamp) -> Self {
        Self {
            ino,
            size: AtomicU64::new(content.size),
            content: Mutex::new(content),
            mtime_secs: AtomicI64::new(mtime.secs),
            mtime_nanos: AtomicU32::new(mtime.nanos),
            writers: AtomicU32::new(0),
            openers: AtomicU32::new(0),
            is_unlinked: AtomicBool::new(false),
            wanted: AtomicU32::new(0),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes readable without the content lock what others ask for.
    pub(crate) fn publish(&self, content: &Content) {
        self.size.store(content.size, Ordering::Release);
        self.writers.store(content.writers, Ordering::Release);
        self.openers.store(content.openers, Ordering::Release);
        self.is_unlinked
            .store(content.is_unlinked, Ordering::Release);
    }

    /// Whether its name is gone, as last published.
    pub(crate) fn is_unlinked(&self) -> bool {
        self.is_unlinked.load(Ordering::Acquire)
    }

    /// Whether nothing but the kernel's knowledge of its inode keeps it, as last published.
    pub(crate) fn is_orphan(&self) -> bool {
        self.is_unlinked() && self.openers.load(Ordering::Acquire) == 0
    }

    /// Handles that may write, as last published.
    pub(crate) fn writers(&self) -> u32 {
        self.writers.load(Ordering::Acquire)
    }

    /// Asks for an upload without delay, also while the file is being written.
    pub(crate) fn want(&self) -> Wanted<'_> {
        self.wanted.fetch_add(1, Ordering::AcqRel);
        Wanted(self)
    }

    /// Whether somebody waits for the upload.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire) > 0
    }

    /// Bytes of the upload under way that were looked at or that the server has.
    pub(crate) fn moved(&self) -> u64 {
        let content = self.lock();
        let attempt = content.attempt.as_ref();
        attempt.map_or(0, Attempt::moved)
    }

    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    pub(crate) fn mtime(&self) -> Timestamp {
        Timestamp {
            secs: self.mtime_secs.load(Ordering::Acquire),
            nanos: self.mtime_nanos.load(Ordering::Acquire),
        }
    }

    pub(crate) fn set_mtime(&self, mtime: Timestamp) {
        self.mtime_nanos.store(mtime.nanos, Ordering::Release);
        self.mtime_secs.store(mtime.secs, Ordering::Release);
    }
}
