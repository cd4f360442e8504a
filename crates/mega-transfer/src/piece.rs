//! Runs of whole chunks: what is posted in one request and what is MACed in one go.

use std::ops::Range;

use mega_crypto::{chunk_index_at, chunk_start};

/// The run of whole chunks that starts at `offset` (a chunk boundary below `size`): as many as fit
/// into `target` bytes, at least one, the last one cut at the end of the file.
pub(crate) fn piece_at(offset: u64, size: u64, target: u64) -> Range<u64> {
    let first = chunk_index_at(offset);
    debug_assert_eq!(
        chunk_start(first),
        offset,
        "a piece starts at a chunk boundary"
    );
    let mut end = chunk_start(first + 1).min(size);
    let mut index = first + 1;
    while end < size {
        let next = chunk_start(index + 1).min(size);
        if next - offset > target {
            break;
        }
        end = next;
        index += 1;
    }
    offset..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_tile_the_file_on_chunk_boundaries() {
        for size in [
            1, 131_072, 131_073, 393_216, 4_718_592, 4_718_593, 40_000_000,
        ] {
            for target in [1, 300_000, 1 << 20, 8 << 20] {
                let mut offset = 0;
                while offset < size {
                    let piece = piece_at(offset, size, target);
                    assert_eq!(piece.start, offset);
                    assert!(piece.end > offset);
                    let boundary = chunk_start(chunk_index_at(piece.end)) == piece.end;
                    assert!(boundary || piece.end == size);
                    let one_chunk = chunk_index_at(piece.end - 1) == chunk_index_at(offset);
                    assert!(one_chunk || piece.end - offset <= target);
                    offset = piece.end;
                }
                assert_eq!(offset, size);
            }
        }
    }
}
