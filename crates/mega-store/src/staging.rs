//! One layer's bytes.
#![expect(
    missing_docs,
    clippy::missing_errors_doc,
    unused_variables,
    reason = "signatures first"
)]

use std::ops::Range;

use crate::error::StoreError;
use crate::range_set::RangeSet;
use crate::rows::{LayerData, LayerRow};
use crate::store::unbuilt;

pub const STAGING_UNIT: usize = 4096;
pub const INLINE_LIMIT: u64 = 64 << 10;

#[derive(Debug)]
pub struct StagingFile {
    floor: u64,
    extents: RangeSet,
}

/// A read-only, shareable view of the layer's bytes as they are now (sealed layers: for good).
#[derive(Debug, Clone)]
pub struct LayerReader(());

impl LayerReader {
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        unbuilt()
    }
}

impl StagingFile {
    pub(crate) fn new(floor: u64) -> Self {
        Self {
            floor,
            extents: RangeSet::new(),
        }
    }
    pub fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), StoreError> {
        unbuilt()
    }
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        unbuilt()
    }
    pub fn extents(&self) -> &RangeSet {
        &self.extents
    }
    pub fn discard(&mut self, range: Range<u64>) {}
    /// Gives back the disk space of discarded ranges; only after a row without them is committed.
    pub fn reclaim(&self) {}
    pub fn floor(&self) -> u64 {
        self.floor
    }
    pub fn lower_floor(&mut self, to: u64) {
        self.floor = self.floor.min(to);
    }
    pub fn sync_data(&self) -> Result<(), StoreError> {
        unbuilt()
    }
    pub fn is_inline(&self) -> bool {
        true
    }
    pub fn row(&self, sealed: bool) -> LayerRow {
        let extents = self.extents.iter().collect();
        LayerRow {
            data: LayerData::Inline(Vec::new()),
            floor: self.floor,
            extents,
            sealed,
        }
    }
    pub fn reader(&self) -> LayerReader {
        LayerReader(())
    }
    pub fn delete(self) -> Result<(), StoreError> {
        unbuilt()
    }
}
