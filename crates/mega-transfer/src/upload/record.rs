//! What is written down of an upload so that a later run can go on with it.
//!
//! Owns the format (docs/STATE.md, "Uploads in progress"). The server cannot be asked what it has, so
//! the record says it: everything below some chunk is stored and folded into 16 bytes, and the few
//! pieces above are listed with their borders, because a piece that is sent again must be the same
//! piece. So a record is a few KiB whatever the size of the file.
//!
//! It holds the upload's key in the clear: it belongs into `attempt.body`, which the store seals, and
//! nowhere else.

use std::fmt;

use mega_crypto::{ChunkMac, MetaMacFold, UploadKey, chunk_count};
use mega_proto::UploadToken;

/// Stands first, so that it is told from other bodies of the `attempt` table.
const MAGIC: &[u8; 4] = b"MGUP";
const VERSION: u8 = 1;

const STORED: u8 = 1;
const WITH_MACS: u8 = 2;

/// How far an upload is. See the module's description.
#[derive(Clone)]
pub struct ResumeRecord {
    pub(super) key: UploadKey,
    pub(super) size: u64,
    pub(super) generation: u64,
    /// Of the whole content, so that other content under the same number is noticed.
    pub(super) fingerprint_crc: [u8; 16],
    pub(super) url: String,
    /// Everything is stored and this is the token.
    pub(super) token: Option<UploadToken>,
    /// Chunks from the beginning that are stored.
    pub(super) chunks: u64,
    /// Their MACs, folded.
    pub(super) fold: [u8; 16],
    /// What follows, in order and without gaps.
    pub(super) pieces: Vec<PieceNote>,
}

/// A piece that was sent or may have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PieceNote {
    pub(super) chunks: u16,
    pub(super) is_stored: bool,
    /// Empty if it was not encrypted yet.
    pub(super) macs: Vec<ChunkMac>,
}

impl ResumeRecord {
    /// The bytes for the journal. They hold a key: only for a place that is encrypted.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&self.key.expose_for_journal());
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.fingerprint_crc);
        put_text(&mut out, &self.url);
        put_text(
            &mut out,
            self.token.as_ref().map_or("", UploadToken::as_str),
        );
        out.extend_from_slice(&self.chunks.to_le_bytes());
        out.extend_from_slice(&self.fold);
        // A window of 256 MiB has far fewer.
        let count = u16::try_from(self.pieces.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&count.to_le_bytes());
        for piece in self.pieces.iter().take(usize::from(count)) {
            let macs = if piece.macs.is_empty() { 0 } else { WITH_MACS };
            let stored = if piece.is_stored { STORED } else { 0 };
            out.push(stored | macs);
            out.extend_from_slice(&piece.chunks.to_le_bytes());
            for mac in &piece.macs {
                out.extend_from_slice(mac.as_bytes());
            }
        }
        out
    }

    /// Whether a journalled body is one of these, of whatever version.
    #[must_use]
    pub fn is_record(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// The inverse of [`to_bytes`](Self::to_bytes); `None` for anything else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        if from.array()? != *MAGIC || from.array()? != [VERSION] {
            return None;
        }
        let key = UploadKey::from_journal(&from.array()?);
        let size = u64::from_le_bytes(from.array()?);
        let generation = u64::from_le_bytes(from.array()?);
        let fingerprint_crc = from.array()?;
        let url = from.text()?;
        let token = Some(from.text()?).filter(|token| !token.is_empty());
        let chunks = u64::from_le_bytes(from.array()?);
        let fold = from.array()?;
        let count = u16::from_le_bytes(from.array()?);
        let mut pieces = Vec::with_capacity(usize::from(count));
        let mut end = chunks;
        for _ in 0..count {
            let [flags] = from.array()?;
            let chunks = u16::from_le_bytes(from.array()?);
            let macs: Vec<ChunkMac> = if flags & WITH_MACS == 0 {
                Vec::new()
            } else {
                let macs = (0..chunks).map(|_| from.array().map(ChunkMac::from_bytes));
                macs.collect::<Option<_>>()?
            };
            let is_stored = flags & STORED != 0;
            if chunks == 0 || (is_stored && macs.is_empty()) {
                return None;
            }
            end = end.checked_add(u64::from(chunks))?;
            pieces.push(PieceNote {
                chunks,
                is_stored,
                macs,
            });
        }
        let is_whole = from.0.is_empty() && end <= chunk_count(size);
        is_whole.then_some(Self {
            key,
            size,
            generation,
            fingerprint_crc,
            url,
            token: token.map(UploadToken::new),
            chunks,
            fold,
            pieces,
        })
    }

    /// Which content it is of: the number its source was given.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The content's length in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn folded(&self) -> MetaMacFold {
        MetaMacFold::from_journal(self.key.content_key(), self.chunks, self.fold)
    }
}

impl fmt::Debug for ResumeRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResumeRecord")
            .field("size", &self.size)
            .field("generation", &self.generation)
            .field("chunks", &self.chunks)
            .field("is_complete", &self.token.is_some())
            .finish_non_exhaustive()
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(0);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend(text.bytes().take(usize::from(length)));
}

/// Takes from the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn text(&mut self) -> Option<String> {
        let length = u16::from_le_bytes(self.array()?);
        let (head, rest) = self.0.split_at_checked(usize::from(length))?;
        self.0 = rest;
        String::from_utf8(head.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ResumeRecord {
        let mac = |n| ChunkMac::from_bytes([n; 16]);
        ResumeRecord {
            key: UploadKey::from_journal(&[3; 24]),
            size: 30 << 20,
            generation: 7,
            fingerprint_crc: [9; 16],
            url: "http://127.0.0.1:1/ul/5".to_owned(),
            token: None,
            chunks: 9,
            fold: [4; 16],
            pieces: vec![
                PieceNote {
                    chunks: 2,
                    is_stored: false,
                    macs: vec![mac(1), mac(2)],
                },
                PieceNote {
                    chunks: 1,
                    is_stored: true,
                    macs: vec![mac(3)],
                },
                PieceNote {
                    chunks: 4,
                    is_stored: false,
                    macs: Vec::new(),
                },
            ],
        }
    }

    #[test]
    fn comes_back_as_it_went() {
        for token in [None, Some(UploadToken::new("t0ken"))] {
            let wanted = ResumeRecord { token, ..record() };
            let bytes = wanted.to_bytes();
            assert!(ResumeRecord::is_record(&bytes));
            let got = ResumeRecord::from_bytes(&bytes).unwrap();
            assert_eq!(got.to_bytes(), bytes);
            assert_eq!(got.pieces, wanted.pieces);
            assert_eq!(got.token, wanted.token);
            assert_eq!((got.size(), got.generation()), (30 << 20, 7));
        }
        assert!(!format!("{:?}", record()).contains("127.0.0.1"));
    }

    #[test]
    fn anything_else_is_refused() {
        let good = record().to_bytes();
        for length in 0..good.len() {
            assert!(ResumeRecord::from_bytes(&good[..length]).is_none());
        }
        assert!(ResumeRecord::from_bytes(&[&good[..], &[0]].concat()).is_none());
        for at in 0..good.len() {
            let mut other = good.clone();
            other[at] ^= 0xff;
            // Whatever it says, reading it is harmless.
            drop(ResumeRecord::from_bytes(&other));
        }
        let beyond = ResumeRecord {
            size: 5 << 20,
            ..record()
        };
        assert!(ResumeRecord::from_bytes(&beyond.to_bytes()).is_none());
    }
}
