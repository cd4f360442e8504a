//! What the server gave, as ciphertext, by node.
#![expect(
    missing_docs,
    clippy::missing_errors_doc,
    unused_variables,
    reason = "signatures first"
)]

use std::ops::Range;
use std::sync::Arc;

use mega_proto::NodeHandle;

use crate::error::StoreError;
use crate::store::unbuilt;

pub const UNIT: u64 = 128 << 10;

#[derive(Debug)]
pub struct BlobCache(());

#[derive(Debug)]
pub struct Blob {
    handle: NodeHandle,
    size: u64,
}

/// Keeps a blob from being evicted.
#[derive(Debug)]
pub struct BlobPin(Arc<Blob>);

#[derive(Debug)]
pub struct PendingBlob(());

impl PendingBlob {
    /// Any order, any thread. `false`: not kept (no room); later writes are not kept either.
    pub fn write(&self, offset: u64, ciphertext: &[u8]) -> Result<bool, StoreError> {
        unbuilt()
    }
}

impl BlobCache {
    pub fn open(&self, handle: NodeHandle, size: u64) -> Result<Arc<Blob>, StoreError> {
        unbuilt()
    }
    pub fn begin_adopt(&self, size: u64) -> Result<PendingBlob, StoreError> {
        unbuilt()
    }
    pub fn adopt(&self, pending: PendingBlob, handle: NodeHandle) -> Result<Arc<Blob>, StoreError> {
        unbuilt()
    }
    pub fn used_bytes(&self) -> u64 {
        0
    }
    /// Writes the unit maps that changed to the database; once a second.
    pub fn flush_maps(&self) -> Result<(), StoreError> {
        unbuilt()
    }
    /// fsyncs the cache and marks its units as surviving a power cut; now and then.
    pub fn sync(&self) -> Result<(), StoreError> {
        unbuilt()
    }
    /// The node is gone: its blob may go.
    pub fn forget(&self, handle: NodeHandle) -> Result<(), StoreError> {
        unbuilt()
    }
}

impl Blob {
    pub fn handle(&self) -> NodeHandle {
        self.handle
    }
    pub fn size(&self) -> u64 {
        self.size
    }
    /// Unit aligned, cut at the end of the file.
    pub fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        Vec::new()
    }
    /// `false`: not all of it is here; the buffer's content is undefined then.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<bool, StoreError> {
        unbuilt()
    }
    /// `false`: not kept (no room). The bytes must be the whole unit, cut at the end of the file.
    pub fn write_unit(&self, index: u64, ciphertext: &[u8]) -> Result<bool, StoreError> {
        unbuilt()
    }
    pub fn is_complete(&self) -> bool {
        false
    }
    pub fn is_verified(&self) -> bool {
        false
    }
    pub fn set_verified(&self) {}
    pub fn chunk_mac(&self, chunk: u32) -> Option<[u8; 16]> {
        None
    }
    pub fn set_chunk_mac(&self, chunk: u32, mac: [u8; 16]) {}
    pub fn drop_content(&self) -> Result<(), StoreError> {
        unbuilt()
    }
    pub fn pin(self: &Arc<Self>) -> BlobPin {
        BlobPin(Arc::clone(self))
    }
}
