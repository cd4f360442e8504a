//! Which pieces an upload consists of, and what has become of each.
//!
//! Owns the borders of the pieces, their MACs and states; no bytes and no clock. Pieces follow one
//! another without gaps, start and end on chunk borders, and never change once made: what is sent
//! again is the same piece, also after a restart. Stored pieces at the front are folded into the
//! meta-MAC and forgotten, so it holds no more than the window.
//!
//! ```text
//!            +-- prepared: its MACs are known
//! waiting -> sending -> stored -> folded, once everything before it is
//! ```

use std::collections::BTreeMap;
use std::ops::Range;

use mega_crypto::{ChunkMac, MetaMac, MetaMacFold, UploadKey, chunk_index_at, chunk_start};

use super::record::{PieceNote, ResumeRecord};
use crate::piece::piece_at;

/// The server refuses pieces that end further than this beyond the first byte it lacks (protocol/04
/// section 5).
pub(super) const WINDOW: u64 = 256 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Sending,
    Stored,
}

#[derive(Debug)]
struct Piece {
    end: u64,
    state: State,
    macs: Vec<ChunkMac>,
}

/// The bytes are not those that were encrypted before under this key (I4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Changed;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Ledger {
    size: u64,
    fold: MetaMacFold,
    /// Everything below is stored and folded.
    base: u64,
    /// From `base` on, by start.
    pieces: BTreeMap<u64, Piece>,
    /// Where the next piece to be made begins.
    planned: u64,
    stored: u64,
}

impl Ledger {
    /// Of an upload that begins.
    pub(super) fn new(key: &UploadKey, size: u64) -> Self {
        Self {
            size,
            fold: MetaMacFold::new(key.content_key()),
            base: 0,
            pieces: BTreeMap::new(),
            planned: 0,
            stored: 0,
        }
    }

    /// Of an upload that goes on.
    pub(super) fn resume(record: &ResumeRecord) -> Self {
        let base = chunk_start(record.chunks).min(record.size);
        let mut ledger = Self {
            size: record.size,
            fold: record.folded(),
            base,
            pieces: BTreeMap::new(),
            planned: base,
            stored: base,
        };
        for note in &record.pieces {
            let start = ledger.planned;
            let next = chunk_index_at(start) + u64::from(note.chunks);
            let end = chunk_start(next).min(ledger.size);
            let state = if note.is_stored {
                ledger.stored += end - start;
                State::Stored
            } else {
                State::Waiting
            };
            let macs = note.macs.clone();
            ledger.pieces.insert(start, Piece { end, state, macs });
            ledger.planned = end;
        }
        ledger.settle();
        ledger
    }

    /// Bytes of the file that no piece covers yet.
    pub(super) fn unplanned(&self) -> u64 {
        self.size - self.planned
    }

    /// Where the planned pieces end.
    pub(super) fn planned(&self) -> u64 {
        self.planned
    }

    /// Whether another piece could be planned.
    pub(super) fn has_room(&self) -> bool {
        self.planned < self.size && self.planned - self.base < WINDOW
    }

    /// Bytes of planned pieces that are not under way yet.
    pub(super) fn waiting(&self) -> u64 {
        let waiting = self
            .pieces
            .iter()
            .filter(|(_, p)| p.state == State::Waiting);
        waiting.map(|(start, piece)| piece.end - start).sum()
    }

    /// Bytes the server has.
    pub(super) fn stored(&self) -> u64 {
        self.stored
    }

    /// Makes one more piece of about `target` bytes; `false` if there is nothing left to be planned, or
    /// nothing that could be sent now.
    pub(super) fn plan(&mut self, target: u64) -> bool {
        let range = if self.size == 0 && self.pieces.is_empty() {
            0..0
        } else if self.has_room() {
            piece_at(self.planned, self.size, target)
        } else {
            return false;
        };
        let piece = Piece {
            end: range.end,
            state: State::Waiting,
            macs: Vec::new(),
        };
        self.pieces.insert(range.start, piece);
        self.planned = range.end;
        true
    }

    /// The first piece that waits, now under way; only pieces up to `limit`, and only within the window.
    pub(super) fn take(&mut self, limit: u64) -> Option<Range<u64>> {
        let waiting = self
            .pieces
            .iter_mut()
            .find(|(_, p)| p.state == State::Waiting);
        let (start, piece) = waiting?;
        if piece.end > limit || piece.end - self.base >= WINDOW {
            return None;
        }
        piece.state = State::Sending;
        Some(*start..piece.end)
    }

    /// The piece has been encrypted.
    pub(super) fn prepared(&mut self, start: u64, macs: Vec<ChunkMac>) -> Result<(), Changed> {
        // Once for each piece: the ciphertext is kept until it is stored.
        if let Some(piece) = self.pieces.get_mut(&start) {
            if !piece.macs.is_empty() && piece.macs != macs {
                return Err(Changed);
            }
            piece.macs = macs;
        }
        Ok(())
    }

    /// The server has the piece; answers its length.
    pub(super) fn acknowledge(&mut self, start: u64) -> u64 {
        let Some(piece) = self.pieces.get_mut(&start) else {
            return 0;
        };
        if piece.state == State::Stored {
            return 0;
        }
        piece.state = State::Stored;
        let length = piece.end - start;
        self.stored += length;
        self.settle();
        length
    }

    /// Folds what is stored at the front.
    fn settle(&mut self) {
        while let Some(entry) = self.pieces.first_entry() {
            if *entry.key() != self.base || entry.get().state != State::Stored {
                return;
            }
            let piece = entry.remove();
            piece.macs.iter().for_each(|mac| self.fold.push(mac));
            self.base = piece.end;
        }
    }

    /// Whether every piece was planned, taken and encrypted, so that the server can have everything.
    pub(super) fn is_all_sent(&self) -> bool {
        let made = |piece: &Piece| piece.state != State::Waiting && !piece.macs.is_empty();
        self.planned == self.size && (self.size == 0 || self.pieces.values().all(made))
    }

    /// The MAC of the whole content, if all of it was sent.
    pub(super) fn meta_mac(&self) -> Option<MetaMac> {
        self.is_all_sent().then(|| self.recorded_mac())?
    }

    /// The MAC of the whole content, if the MACs of all of it are known.
    pub(super) fn recorded_mac(&self) -> Option<MetaMac> {
        let mut fold = self.fold.clone();
        for piece in self.pieces.values() {
            piece.macs.iter().for_each(|mac| fold.push(mac));
        }
        (fold.chunks() == mega_crypto::chunk_count(self.size)).then(|| fold.finish())
    }

    /// What a record says about the pieces: chunks folded, their fold, and the rest.
    pub(super) fn note(&self) -> (u64, [u8; 16], Vec<PieceNote>) {
        let note = |(start, piece): (&u64, &Piece)| PieceNote {
            // At most the window, in chunks of 128 KiB or more.
            chunks: u16::try_from(
                chunk_index_at(piece.end.max(1) - 1) + 1 - chunk_index_at(*start),
            )
            .unwrap_or(u16::MAX),
            is_stored: piece.state == State::Stored,
            macs: piece.macs.clone(),
        };
        let pieces = self.pieces.iter().map(note).collect();
        (self.fold.chunks(), self.fold.expose_for_journal(), pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mega_crypto::{chunk_count, meta_mac};

    const MIB: u64 = 1 << 20;

    fn key() -> UploadKey {
        UploadKey::from_journal(&[5; 24])
    }

    fn macs(range: &Range<u64>) -> Vec<ChunkMac> {
        let (first, last) = (chunk_index_at(range.start), chunk_index_at(range.end - 1));
        (first..=last)
            .map(|n| ChunkMac::from_bytes([(n % 251) as u8; 16]))
            .collect()
    }

    fn record(ledger: &Ledger) -> ResumeRecord {
        let (chunks, fold, pieces) = ledger.note();
        let record = ResumeRecord {
            key: key(),
            size: ledger.size,
            generation: 1,
            fingerprint_crc: [0; 16],
            url: String::new(),
            token: None,
            chunks,
            fold,
            pieces,
        };
        ResumeRecord::from_bytes(&record.to_bytes()).unwrap()
    }

    /// Whatever is acknowledged in whatever order, and wherever it is interrupted: the pieces that are
    /// left keep their borders and the MAC is that of the whole.
    #[test]
    fn goes_on_with_the_same_pieces() {
        let size = 40 * MIB + 5;
        for stop in 0..20 {
            let mut ledger = Ledger::new(&key(), size);
            for _ in 0..12 {
                ledger.plan(3 * MIB);
            }
            let mut taken: Vec<Range<u64>> = Vec::new();
            for _ in 0..stop.min(9) {
                let range = ledger.take(u64::MAX).unwrap();
                ledger.prepared(range.start, macs(&range)).unwrap();
                taken.push(range);
            }
            for range in taken.iter().rev().take(stop / 2) {
                assert_eq!(ledger.acknowledge(range.start), range.end - range.start);
                assert_eq!(ledger.acknowledge(range.start), 0);
            }
            let mut later = Ledger::resume(&record(&ledger));
            assert_eq!(later.stored(), ledger.stored());
            assert_eq!(later.planned(), ledger.planned());
            let mut again = Vec::new();
            while later.take(0).is_none() && later.plan(MIB) {}
            while let Some(range) = later.take(u64::MAX) {
                later.prepared(range.start, macs(&range)).unwrap();
                again.push(range);
            }
            for range in &taken {
                let is_stored = ledger
                    .pieces
                    .get(&range.start)
                    .is_none_or(|p| p.state == State::Stored);
                assert_ne!(again.contains(range), is_stored, "{range:?} of {stop}");
            }
            assert!(later.is_all_sent());
            let all: Vec<ChunkMac> = macs(&(0..size));
            assert_eq!(all.len() as u64, chunk_count(size));
            assert_eq!(later.meta_mac(), Some(meta_mac(key().content_key(), &all)));
            for range in &again {
                later.acknowledge(range.start);
            }
            assert_eq!((later.stored(), later.pieces.len()), (size, 0));
            assert_eq!(later.meta_mac(), Some(meta_mac(key().content_key(), &all)));
        }
    }

    #[test]
    fn other_bytes_under_the_same_key_are_noticed() {
        let mut ledger = Ledger::new(&key(), 3 * MIB);
        ledger.plan(MIB);
        let range = ledger.take(u64::MAX).unwrap();
        ledger.prepared(range.start, macs(&range)).unwrap();
        let mut later = Ledger::resume(&record(&ledger));
        assert_eq!(later.take(u64::MAX), Some(range.clone()));
        let mut other = macs(&range);
        other[0] = ChunkMac::from_bytes([0xff; 16]);
        assert_eq!(later.prepared(range.start, other), Err(Changed));
    }

    #[test]
    fn stays_within_the_window() {
        let mut ledger = Ledger::new(&key(), 4 << 30);
        let mut sent = Vec::new();
        while ledger.plan(8 * MIB) {
            sent.extend(ledger.take(u64::MAX));
        }
        let end = sent.last().unwrap().end;
        assert!(end < WINDOW && end > WINDOW - 16 * MIB);
        assert_eq!(ledger.take(u64::MAX), None);
        // The first one lets the window move.
        ledger.acknowledge(sent[1].start);
        assert_eq!(ledger.take(u64::MAX), None);
        ledger.acknowledge(sent[0].start);
        assert!(ledger.take(u64::MAX).is_some());
    }

    #[test]
    fn an_empty_file_is_one_empty_piece() {
        let mut ledger = Ledger::new(&key(), 0);
        assert!(ledger.plan(1) && !ledger.plan(1));
        assert_eq!(ledger.take(u64::MAX), Some(0..0));
        ledger.prepared(0, Vec::new()).unwrap();
        assert!(ledger.is_all_sent());
        assert_eq!(ledger.meta_mac(), Some(meta_mac(key().content_key(), &[])));
    }
}
