//! Owns stored ciphertext: in memory as the posted pieces themselves (never copied together), on
//! disk as one sparse file per upload, or generated on demand. Reads hand out slices of at most
//! 1 MiB so that a download costs no second buffer in memory mode.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use crate::generated::GeneratedFile;

/// Number of a stored content; equal to the number of the upload that made it.
pub(crate) type ContentId = u64;

/// Ciphertext of one file.
#[derive(Debug)]
pub(crate) enum Content {
    /// Pieces by offset, tiling the file.
    Memory(RwLock<BTreeMap<u64, Arc<Vec<u8>>>>),
    /// A file in the data directory.
    Disk(File),
    /// Computed from a generated node.
    Generated(GeneratedFile),
    /// Not kept (knob `keep_content`): nothing can be read.
    Dropped,
}

/// A borrowed or computed part of a content.
pub(crate) enum Slice {
    /// Part of a stored piece: the piece, first and last + 1 index.
    Piece(Arc<Vec<u8>>, usize, usize),
    /// Bytes read or computed now.
    Owned(Vec<u8>),
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Piece(data, from, to) => data.get(*from..*to).unwrap_or_default(),
            Self::Owned(data) => data,
        }
    }
}

const READ: u64 = 1 << 20;

impl Content {
    /// An empty content kept under `dir`, or in memory.
    pub(crate) fn create(dir: Option<&Path>, id: ContentId) -> std::io::Result<Self> {
        let Some(dir) = dir else {
            return Ok(Self::Memory(RwLock::default()));
        };
        let path = dir.join("content").join(id.to_string());
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        Ok(Self::Disk(file))
    }

    /// Stores a piece; an earlier piece at the same offset is replaced.
    pub(crate) fn store(&self, offset: u64, data: Arc<Vec<u8>>) -> std::io::Result<()> {
        match self {
            Self::Memory(pieces) => {
                pieces
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(offset, data);
                Ok(())
            }
            Self::Disk(file) => file.write_all_at(&data, offset),
            Self::Generated(_) | Self::Dropped => Ok(()),
        }
    }

    /// Whether a stored piece is kept as it is, in the memory it came in.
    pub(crate) fn keeps_buffers(&self) -> bool {
        matches!(self, Self::Memory(_))
    }

    /// Whether it was not kept.
    pub(crate) fn is_dropped(&self) -> bool {
        matches!(self, Self::Dropped)
    }

    /// The file behind it, when there is one.
    pub(crate) fn file(&self) -> Option<&File> {
        match self {
            Self::Disk(file) => Some(file),
            _ => None,
        }
    }

    /// The next slice of `[from, to)`, at least one byte unless the range is empty or damaged.
    pub(crate) fn slice(&self, from: u64, to: u64) -> std::io::Result<Slice> {
        let to = to.min(from + READ);
        match self {
            Self::Memory(pieces) => {
                let pieces = pieces.read().unwrap_or_else(PoisonError::into_inner);
                let found = pieces
                    .range(..=from)
                    .next_back()
                    .and_then(|(start, piece)| {
                        let end = (start + piece.len() as u64).min(to);
                        (end > from).then(|| {
                            Slice::Piece(
                                piece.clone(),
                                (from - start) as usize,
                                (end - start) as usize,
                            )
                        })
                    });
                found.ok_or_else(|| std::io::Error::other("content has a hole"))
            }
            Self::Disk(file) => {
                let mut data = vec![0; (to - from) as usize];
                file.read_exact_at(&mut data, from)?;
                Ok(Slice::Owned(data))
            }
            Self::Generated(file) => Ok(Slice::Owned(file.ciphertext(from, to))),
            Self::Dropped => Err(std::io::Error::other("content was not kept")),
        }
    }

    /// The whole range in one buffer.
    pub(crate) fn read(&self, from: u64, to: u64) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity((to - from) as usize);
        let mut at = from;
        while at < to {
            let slice = self.slice(at, to)?;
            if slice.as_ref().is_empty() {
                return Err(std::io::Error::other("content has a hole"));
            }
            at += slice.as_ref().len() as u64;
            out.extend_from_slice(slice.as_ref());
        }
        Ok(out)
    }
}

/// Sizes of the six parts of a CloudRAID file (protocol/04 section 4), parity first.
pub(crate) fn raid_part_size(size: u64, part: u64) -> u64 {
    let k = part.max(1);
    let rest = size % 80;
    (size - rest) / 5 + rest.saturating_sub(16 * (k - 1)).min(16)
}

/// Bytes `[from, to)` of a part, computed from the whole ciphertext.
pub(crate) fn raid_part(
    content: &Content,
    size: u64,
    part: u64,
    from: u64,
    to: u64,
) -> std::io::Result<Vec<u8>> {
    let first_line = from / 16;
    let last_line = to.div_ceil(16);
    let whole = content.read((first_line * 80).min(size), (last_line * 80).min(size))?;
    let mut out = Vec::with_capacity(((last_line - first_line) * 16) as usize);
    for line in whole.chunks(80) {
        let mut sectors = line.chunks(16);
        if part == 0 {
            let mut parity = sectors.next().unwrap_or_default().to_vec();
            for s in sectors {
                for (p, b) in parity.iter_mut().zip(s) {
                    *p ^= b;
                }
            }
            out.extend_from_slice(&parity);
        } else {
            out.extend_from_slice(sectors.nth(part as usize - 1).unwrap_or_default());
        }
    }
    let skip = (from - first_line * 16) as usize;
    let len = (to - from) as usize;
    Ok(out
        .get(skip..(skip + len).min(out.len()))
        .unwrap_or_default()
        .to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::hex;

    #[test]
    fn raid_parts_match_the_vectors() {
        let cases = [
            (1, ["03", "03", "", "", "", ""]),
            (
                17,
                [
                    "700a11181f262d343b424950575e656c",
                    "030a11181f262d343b424950575e656c",
                    "73",
                    "",
                    "",
                    "",
                ],
            ),
            (
                80,
                [
                    "030ad1d8042bd2f9254c531a21486f16",
                    "030a11181f262d343b424950575e656c",
                    "737a81888f969da4abb2b9c0c7ced5dc",
                    "e3eaf1f8040b121920272e353c434a51",
                    "585f666d747b828990979ea5acb3bac1",
                    "c8cfd6dde4ebf2f9050c131a21282f36",
                ],
            ),
            (
                97,
                [
                    "030ad1d8042bd2f9254c531a21486f1690444b525960676e757c838a91989fa6",
                    "030a11181f262d343b424950575e656c3d444b525960676e757c838a91989fa6",
                    "737a81888f969da4abb2b9c0c7ced5dcad",
                    "e3eaf1f8040b121920272e353c434a51",
                    "585f666d747b828990979ea5acb3bac1",
                    "c8cfd6dde4ebf2f9050c131a21282f36",
                ],
            ),
        ];
        for (size, parts) in cases {
            let content = Content::create(None, 1).unwrap();
            let data: Vec<u8> = (0..size).map(|i| ((i * 7 + 3) % 251) as u8).collect();
            content.store(0, Arc::new(data)).unwrap();
            for (part, wanted) in (0_u64..).zip(parts) {
                let len = raid_part_size(size, part);
                let got = raid_part(&content, size, part, 0, len).unwrap();
                assert_eq!(hex(&got), wanted, "part {part} of {size}");
            }
        }
    }
}
