//! CloudRAID: how a ciphertext is striped over six parts (protocol/04 section 4).
//!
//! Lines of 80 bytes are cut into five sectors of 16; sector `j` goes to part `j + 1`, and part 0
//! holds the XOR of the five, missing bytes counting as zero. Pure layout: nothing here fetches or
//! authenticates anything, and parity does not authenticate either.

use core::ops::Range;

/// Parts of a file: one of parity, five of data.
pub const PARTS: usize = 6;

const SECTOR: u64 = 16;
const DATA_PARTS: u64 = 5;

/// Bytes of the file in one line.
pub const LINE: u64 = SECTOR * DATA_PARTS;

/// Where a byte of the file is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartPosition {
    /// The part, 1 to 5.
    pub part: usize,
    /// Offset in that part, in bytes.
    pub offset: u64,
}

/// Lengths of the six parts of a file of `size` bytes; index 0 is the parity.
pub fn part_sizes(size: u64) -> [u64; PARTS] {
    let rest = size % LINE;
    let base = size / LINE * SECTOR;
    core::array::from_fn(|part| {
        let before = SECTOR * (part as u64).saturating_sub(1);
        base + rest.saturating_sub(before).min(SECTOR)
    })
}

/// Where the byte at `offset` of the file is stored.
pub const fn locate(offset: u64) -> PartPosition {
    PartPosition {
        // 1 to 5, so it fits.
        part: 1 + (offset % LINE / SECTOR) as usize,
        offset: offset / LINE * SECTOR + offset % SECTOR,
    }
}

/// The range to ask of every part to rebuild the bytes `read` of the file: whole lines, not yet
/// cut at the parts' ends (see [`part_sizes`]). Empty for an empty read.
pub fn part_range(read: &Range<u64>) -> Range<u64> {
    if read.is_empty() {
        return 0..0;
    }
    read.start / LINE * SECTOR..read.end.div_ceil(LINE).saturating_mul(SECTOR)
}

/// Splits a whole ciphertext into its six parts.
pub fn split(cipher: &[u8]) -> [Vec<u8>; PARTS] {
    let mut parts: [Vec<u8>; PARTS] = Default::default();
    let [parity, data @ ..] = &mut parts;
    for line in cipher.chunks(LINE as usize) {
        let mut sum = [0; SECTOR as usize];
        for (sector, part) in line.chunks(SECTOR as usize).zip(data.iter_mut()) {
            part.extend_from_slice(sector);
            for (sum, byte) in sum.iter_mut().zip(sector) {
                *sum ^= byte;
            }
        }
        parity.extend(sum.iter().take(line.len()));
    }
    parts
}

/// Rebuilds `length` bytes of the file from at least five of six parts.
///
/// Each part given holds its bytes from the same line on, the one with which the result starts;
/// parts end where the file ends. `length` must not reach past that end, which a missing part
/// cannot show. `None` if more than one data part is missing, the parity is needed and missing, or
/// a part is too short for `length` bytes.
pub fn join(parts: &[Option<&[u8]>; PARTS], length: usize) -> Option<Vec<u8>> {
    let sizes = part_sizes(length as u64);
    for (part, size) in parts.iter().zip(sizes) {
        if part.is_some_and(|part| (part.len() as u64) < size) {
            return None;
        }
    }
    let [parity, data @ ..] = parts;
    let rebuilt = match data.iter().filter(|part| part.is_none()).count() {
        0 => Vec::new(),
        1 => {
            let mut sum = (*parity)?.to_vec();
            for part in data.iter().flatten() {
                for (sum, byte) in sum.iter_mut().zip(*part) {
                    *sum ^= byte;
                }
            }
            sum
        }
        _ => return None,
    };
    let mut sources = data.map(|part| part.unwrap_or(&rebuilt).chunks(SECTOR as usize));
    let mut out = Vec::with_capacity(length);
    while out.len() < length {
        for source in &mut sources {
            if let Some(sector) = source.next() {
                out.extend_from_slice(sector.get(..sector.len().min(length - out.len()))?);
            }
            if out.len() == length {
                break;
            }
        }
    }
    Some(out)
}
