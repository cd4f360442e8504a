//! Chunk boundaries: the protocol's MAC units (protocol/04 section 3).
//!
//! Chunk `i` (from 0) has `min(i + 1, 8) * 128 KiB`; the last one is cut at the end of the file.
//! A file that ends on a boundary has no extra chunk, an empty file has none.

use core::ops::Range;

/// The growth step and first chunk length, in bytes.
const STEP: u64 = 128 * 1024;

/// The longest chunk, in bytes: eight steps.
pub const MAX_CHUNK: u64 = 8 * STEP;

/// Index of the first chunk of the final length's run: chunks 0 to 7 grow.
const GROWING: u64 = 8;

/// Where the growth ends: 1 + 2 + ... + 8 steps.
const RAMP_END: u64 = 36 * STEP;

/// Offset of a chunk's first byte. Saturates for indices no file can have.
pub const fn chunk_start(index: u64) -> u64 {
    if index < GROWING {
        STEP * (index * (index + 1) / 2)
    } else {
        (index - GROWING)
            .saturating_mul(MAX_CHUNK)
            .saturating_add(RAMP_END)
    }
}

/// The chunk that holds the byte at `offset`, whatever the file's size.
pub const fn chunk_index_at(offset: u64) -> u64 {
    if offset >= RAMP_END {
        return GROWING + (offset - RAMP_END) / MAX_CHUNK;
    }
    let mut index = 0;
    while chunk_start(index + 1) <= offset {
        index += 1;
    }
    index
}

/// How many chunks a file of `size` bytes has.
pub const fn chunk_count(size: u64) -> u64 {
    if size == 0 {
        0
    } else {
        chunk_index_at(size - 1) + 1
    }
}

/// The bytes of a chunk in a file of `file_size` bytes, or `None` behind its end.
pub fn chunk_range(index: u64, file_size: u64) -> Option<Range<u64>> {
    let start = chunk_start(index);
    (start < file_size).then(|| start..chunk_start(index.saturating_add(1)).min(file_size))
}
