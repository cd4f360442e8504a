//! Checks a file because somebody asks for it, whatever was found before and whether or not the cache
//! can hold it, and tells how far it is.
//!
//! Bytes that are here are read again, others are fetched. A mismatch is left to the ordinary check, which
//! drops everything and fetches it once more; only where that needs a cache and has none, the same
//! is done here.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use mega_crypto::{ChunkMac, verify_meta_mac};
use mega_store::UNIT;
use tokio_util::sync::CancellationToken;

use super::file::RemoteFile;
use crate::error::TransferError;
use crate::piece::piece_at;

/// What is held at a time.
const STEP: u64 = 1 << 20;

impl RemoteFile {
    /// Compares the whole content with its meta-MAC, fetching what is missing, and fetching it anew
    /// if it does not match. Calls `told` with how many bytes were read; it may begin again at 0.
    ///
    /// # Errors
    /// [`TransferError::Corrupt`]: what Mega serves does not match. Others: it could not be checked.
    pub async fn audit(
        self: &Arc<Self>,
        mut told: impl FnMut(u64) + Send,
    ) -> Result<(), TransferError> {
        if self.matches(&mut told).await? {
            return Ok(());
        }
        match self.verified().await {
            Err(TransferError::CannotVerify) => {}
            checked => return checked.map(|_| ()),
        }
        self.distrust().await?;
        if self.matches(&mut told).await? {
            return Ok(());
        }
        tracing::error!(node = %self.handle(), "content does not match its MAC, twice");
        Err(TransferError::Corrupt)
    }

    async fn matches(
        self: &Arc<Self>,
        told: &mut (impl FnMut(u64) + Send),
    ) -> Result<bool, TransferError> {
        // Read-ahead of this check ends with it.
        let cancel = CancellationToken::new();
        let _ended = cancel.clone().drop_guard();
        let mut macs = Vec::new();
        let mut offset = 0;
        told(0);
        while offset < self.size() {
            let piece = piece_at(offset, self.size(), STEP);
            self.launch_onwards(offset, &cancel);
            // Chunk boundaries are unit boundaries.
            let units = piece.start / UNIT..piece.end.div_ceil(UNIT);
            let pieces = self.collect(units).await?;
            macs.append(&mut self.macs_of(offset, pieces).await?);
            offset = piece.end;
            told(offset);
        }
        Ok(verify_meta_mac(self.key(), self.size(), &macs).is_acceptable())
    }

    async fn macs_of(
        self: &Arc<Self>,
        offset: u64,
        pieces: Vec<Bytes>,
    ) -> Result<Vec<ChunkMac>, TransferError> {
        let memory = self.shared().limits.memory.background(STEP).await;
        let this = Arc::clone(self);
        let macs = self.blocking(move || {
            let _memory = memory;
            let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
            pieces
                .iter()
                .for_each(|piece| whole.extend_from_slice(piece));
            this.cipher().decrypt_chunks(offset, &mut whole)
        });
        macs.await
    }
}
