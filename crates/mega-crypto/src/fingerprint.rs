//! The fingerprint, attribute `c`: a sparse checksum and the modification time
//! (protocol/03 section 8).

use core::ops::Range;

use crate::b64;

/// Up to this size the content itself stands in place of the checksums.
const VERBATIM: u64 = 16;

/// Up to this size every byte is summed.
const SMALL: u64 = 8192;

/// Length of a sampled block of a larger file, in bytes.
const SAMPLE: usize = 64;

/// Checksums in a fingerprint.
const SUMS: u64 = 4;

/// Sampled blocks per checksum.
const SAMPLES_PER_SUM: u64 = 32;

/// What attribute `c` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// Four CRC-32 values, big-endian; or the content of a file of at most 16 bytes.
    pub crc: [u8; 16],
    /// Modification time in seconds since 1970.
    pub mtime: i64,
}

impl Fingerprint {
    /// The attribute's value.
    pub fn to_attr(&self) -> String {
        let mut bytes = Vec::with_capacity(25);
        bytes.extend_from_slice(&self.crc);
        let time = self.mtime.to_le_bytes();
        let significant = time
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        // At most 8, so it fits.
        bytes.push(significant as u8);
        bytes.extend(time.iter().take(significant));
        b64::encode(&bytes)
    }

    /// Reads the attribute's value; `None` when it is not a fingerprint. Bytes behind the time
    /// are ignored.
    pub fn parse(attr: &str) -> Option<Self> {
        let bytes = b64::decode(attr, "fingerprint").ok()?;
        let (crc, rest) = bytes.split_first_chunk::<16>()?;
        let (length, rest) = rest.split_first()?;
        let digits = rest
            .get(..usize::from(*length))
            .filter(|digits| digits.len() <= 8)?;
        let mut time = [0; 8];
        for (byte, digit) in time.iter_mut().zip(digits) {
            *byte = *digit;
        }
        Some(Self {
            crc: *crc,
            mtime: i64::from_le_bytes(time),
        })
    }

    /// The same checksum with another time: how a client changes the mtime alone.
    #[must_use]
    pub const fn with_mtime(self, mtime: i64) -> Self {
        Self {
            crc: self.crc,
            mtime,
        }
    }
}

/// A block of content that goes into the checksum.
#[derive(Debug, Clone)]
struct Sample {
    offset: u64,
    length: usize,
    bytes: [u8; SAMPLE],
    /// Bit `i` is set once byte `i` has been fed.
    have: u64,
}

impl Sample {
    const fn new(offset: u64, length: usize) -> Self {
        Self {
            offset,
            length,
            bytes: [0; SAMPLE],
            have: 0,
        }
    }

    const fn end(&self) -> u64 {
        self.offset + self.length as u64
    }

    fn content(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn is_complete(&self) -> bool {
        self.have.count_ones() as usize == self.length
    }

    /// Copies what `data`, at `offset` of the file, has of this block.
    fn feed(&mut self, offset: u64, data: &[u8]) {
        for (place, byte) in self.bytes.iter_mut().take(self.length).enumerate() {
            let wanted = self.offset + place as u64;
            let source = wanted
                .checked_sub(offset)
                .and_then(|at| usize::try_from(at).ok());
            if let Some(source) = source.and_then(|at| data.get(at)) {
                *byte = *source;
                self.have |= 1 << place;
            }
        }
    }
}

/// Computes a fingerprint from content fed in any order, keeping at most 8 KiB of it.
#[derive(Debug, Clone)]
pub struct FingerprintBuilder {
    size: u64,
    samples: Vec<Sample>,
}

/// The blocks of a file that matter, in rising order.
fn samples(size: u64) -> Vec<Sample> {
    if size <= SMALL {
        return (0..size)
            .step_by(SAMPLE)
            .map(|offset| Sample::new(offset, (size - offset).min(SAMPLE as u64) as usize))
            .collect();
    }
    let last = u128::from(size - SAMPLE as u64);
    let count = SUMS * SAMPLES_PER_SUM;
    (0..count)
        .map(|index| {
            // Below `size`, so it fits.
            let offset = (last * u128::from(index) / u128::from(count - 1)) as u64;
            Sample::new(offset, SAMPLE)
        })
        .collect()
}

impl FingerprintBuilder {
    /// For a file of `size` bytes.
    pub fn new(size: u64) -> Self {
        Self {
            size,
            samples: samples(size),
        }
    }

    /// The parts of a file of `size` bytes that must be fed, in rising order and without overlap:
    /// about 8 KiB in all.
    pub fn windows(size: u64) -> Vec<Range<u64>> {
        let mut windows: Vec<Range<u64>> = Vec::new();
        for sample in samples(size) {
            match windows.last_mut() {
                Some(last) if last.end >= sample.offset => last.end = last.end.max(sample.end()),
                _ => windows.push(sample.offset..sample.end()),
            }
        }
        windows
    }

    /// Takes what matters of `data`, which stands at `offset` of the file. Pieces may come in any
    /// order, overlap, and hold more than asked for.
    pub fn feed(&mut self, offset: u64, data: &[u8]) {
        let end = offset.saturating_add(data.len() as u64);
        let first = self
            .samples
            .partition_point(|sample| sample.end() <= offset);
        for sample in self
            .samples
            .iter_mut()
            .skip(first)
            .take_while(|s| s.offset < end)
        {
            sample.feed(offset, data);
        }
    }

    /// Whether everything that matters has been fed.
    pub fn is_complete(&self) -> bool {
        self.samples.iter().all(Sample::is_complete)
    }

    /// The fingerprint. Bytes that were not fed count as zero: see [`Self::is_complete`].
    pub fn finish(&self, mtime: i64) -> Fingerprint {
        let mut crc = [0; 16];
        if self.size <= VERBATIM {
            let content = self.samples.iter().flat_map(Sample::content);
            for (out, byte) in crc.iter_mut().zip(content) {
                *out = *byte;
            }
            return Fingerprint { crc, mtime };
        }
        for (lane, out) in (0..SUMS).zip(crc.as_chunks_mut::<4>().0) {
            *out = self.lane_sum(lane).to_be_bytes();
        }
        Fingerprint { crc, mtime }
    }

    fn lane_sum(&self, lane: u64) -> u32 {
        let bytes = self.samples.iter().flat_map(Sample::content);
        let (from, to) = if self.size <= SMALL {
            (lane * self.size / SUMS, (lane + 1) * self.size / SUMS)
        } else {
            let length = SAMPLES_PER_SUM * SAMPLE as u64;
            (lane * length, (lane + 1) * length)
        };
        // Both are at most 8192.
        crc32(bytes.skip(from as usize).take((to - from) as usize))
    }
}

/// CRC-32 as in zlib. Only 8 KiB per file pass through here, so a small table is fast enough.
fn crc32<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    const TABLE: [u32; 256] = crc_table();
    !bytes.fold(!0u32, |crc, byte| {
        let index = usize::from((crc as u8) ^ byte);
        (crc >> 8) ^ TABLE.get(index).copied().unwrap_or_default()
    })
}

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, within bounds"
)]
const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < table.len() {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = (value >> 1) ^ (0xedb8_8320 * (value & 1));
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}
