//! Owns the wire spellings: the base64 variant, node handles, MPIs (protocol/README "Encoding
//! conventions"). Promises to produce only the canonical form and to say when a client did not.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Encodes without padding.
pub(crate) fn b64(data: &[u8]) -> String {
    let mut out = String::with_capacity(data.len().div_ceil(3) * 4);
    b64_into(data, &mut out);
    out
}

/// Appends the encoding of `data` to `out`.
pub(crate) fn b64_into(data: &[u8], out: &mut String) {
    let sextet = |v: u32| char::from(ALPHABET.get((v & 63) as usize).copied().unwrap_or(b'A'));
    for group in data.chunks(3) {
        let mut v = 0_u32;
        for i in 0..3 {
            v = (v << 8) | u32::from(group.get(i).copied().unwrap_or(0));
        }
        for i in 0..=group.len() {
            out.push(sextet(v >> (18 - 6 * i)));
        }
    }
}

/// Decodes tolerantly: both alphabets, `=` and `,` ignored, trailing bits ignored.
/// `None` when another character occurs or one character is left over.
pub(crate) fn unb64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut v, mut bits) = (0_u32, 0_u32);
    let mut count = 0_usize;
    for c in text.bytes() {
        let d = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'-' | b'+' => 62,
            b'_' | b'/' => 63,
            b'=' | b',' => continue,
            _ => return None,
        };
        count += 1;
        v = (v << 6) | u32::from(d);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push(((v >> bits) & 255) as u8);
        }
    }
    (count % 4 != 1).then_some(out)
}

/// Decodes into a fixed size, `None` for any other length.
pub(crate) fn unb64_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    unb64(text)?.try_into().ok()
}

/// Whether `text` is exactly what a conforming encoder produces for what it decodes to.
pub(crate) fn is_canonical(text: &str) -> bool {
    unb64(text).is_some_and(|raw| b64(&raw) == text)
}

/// Decodes lower- or upper-case hexadecimal; an odd count of digits gets a leading zero.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).map(|d| d as u8))
        .collect::<Option<_>>()?;
    let mut out = Vec::with_capacity(digits.len() / 2 + 1);
    let (head, rest) = digits.split_at(digits.len() % 2);
    out.extend_from_slice(head);
    for pair in rest.chunks_exact(2) {
        if let [hi, lo] = pair {
            out.push(hi << 4 | lo);
        }
    }
    Some(out)
}

/// Lower-case hexadecimal.
pub(crate) fn hex(data: &[u8]) -> String {
    data.iter().map(|b| format!("{b:02x}")).collect()
}

/// A big-endian integer as MPI: two bytes of bit length, then the bytes without leading zeros.
pub(crate) fn mpi(value: &[u8]) -> Vec<u8> {
    let start = value.iter().position(|b| *b != 0).unwrap_or(value.len());
    let bytes = value.get(start..).unwrap_or_default();
    let first = bytes.first().copied().unwrap_or(0);
    let bits = (bytes.len() * 8) as u16 - first.leading_zeros().min(8) as u16;
    let bits = if bytes.is_empty() { 0 } else { bits };
    let mut out = bits.to_be_bytes().to_vec();
    out.extend_from_slice(bytes);
    out
}

/// A node or public handle: six bytes, eight characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Handle(pub(crate) [u8; 6]);

impl Handle {
    /// Parses the eight-character form; `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() != 8 {
            return None;
        }
        unb64_array(text).map(Self)
    }

    /// The handle of the `index`-th node of `region`; handles look random but are a permutation,
    /// so two different pairs never share one.
    pub(crate) fn of(region: u16, index: u32) -> Self {
        let v = permute(u64::from(region) << 32 | u64::from(index));
        let [_, _, a, b, c, d, e, f] = v.to_be_bytes();
        Self([a, b, c, d, e, f])
    }

    /// Inverse of [`Handle::of`].
    pub(crate) fn place(self) -> (u16, u32) {
        let [a, b, c, d, e, f] = self.0;
        let v = unpermute(u64::from_be_bytes([0, 0, a, b, c, d, e, f]));
        ((v >> 32) as u16, v as u32)
    }
}

const MASK: u64 = (1 << 48) - 1;
const ODD: u64 = 0x9E37_79B9_7F4B;
const ODD_INVERSE: u64 = inverse(ODD);

const fn inverse(odd: u64) -> u64 {
    // Newton iteration doubles the correct low bits: 3, 6, 12, 24, 48, 96.
    let mut x = odd;
    let mut i = 0;
    while i < 6 {
        x = x.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(x)));
        i += 1;
    }
    x & MASK
}

const fn permute(mut v: u64) -> u64 {
    v = v.wrapping_mul(ODD) & MASK;
    v ^= v >> 24;
    v = v.wrapping_mul(ODD) & MASK;
    v ^ (v >> 24)
}

const fn unpermute(mut v: u64) -> u64 {
    v ^= v >> 24;
    v = v.wrapping_mul(ODD_INVERSE) & MASK;
    v ^= v >> 24;
    v.wrapping_mul(ODD_INVERSE) & MASK
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&b64(&self.0))
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Handle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Handle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a node handle"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_round_trips_and_tolerates() {
        for n in 0..40_usize {
            let data: Vec<u8> = (0..n).map(|i| (i * 37) as u8).collect();
            assert_eq!(unb64(&b64(&data)).unwrap(), data);
        }
        assert_eq!(unb64("+/+/").unwrap(), unb64("-_-_").unwrap());
        assert!(!is_canonical("+/+/"));
    }

    #[test]
    fn handles_are_a_permutation() {
        for (region, index) in [(0, 1), (0, 2), (1, 0), (65535, u32::MAX), (3, 999_999)] {
            assert_eq!(Handle::of(region, index).place(), (region, index));
        }
        let text = Handle::of(0, 7).to_string();
        assert_eq!(text.len(), 8);
        assert_eq!(Handle::parse(&text), Some(Handle::of(0, 7)));
    }
}
