//! Owns the RSA key pairs of fixture accounts and the one operation a server needs: encrypting with
//! the public key. The primes are published test data; such an account protects nothing.

use crate::codec::{mpi, unhex};

/// A 2048-bit pair with e = 17.
#[derive(Clone, Debug)]
pub(crate) struct KeyPair {
    p: Vec<u8>,
    q: Vec<u8>,
    d: Vec<u8>,
    u: Vec<u8>,
    n: Vec<u8>,
}

const PAIRS: &str = include_str!("../data/rsa_keys.txt");

impl KeyPair {
    /// One of the embedded pairs, chosen by `index` modulo their number.
    pub(crate) fn embedded(index: usize) -> Option<Self> {
        let count = PAIRS.lines().count().max(1);
        let line = PAIRS.lines().nth(index % count)?;
        let mut numbers = line.split(' ').map(unhex);
        let mut next = || numbers.next().flatten();
        Some(Self {
            p: next()?,
            q: next()?,
            d: next()?,
            u: next()?,
            n: next()?,
        })
    }

    /// `privk` before wrapping: p, q, d, u as MPIs.
    pub(crate) fn private_blob(&self) -> Vec<u8> {
        [mpi(&self.p), mpi(&self.q), mpi(&self.d), mpi(&self.u)].concat()
    }

    /// `pubk`: n and e as MPIs.
    pub(crate) fn public_blob(&self) -> Vec<u8> {
        [mpi(&self.n), mpi(&[17])].concat()
    }
}

/// Encrypts a 254-byte field under `pubk` (MPI n, MPI e = 17); the result is an MPI.
/// `None` when `pubk` is malformed.
pub(crate) fn encrypt(pubk: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
    let (n, rest) = take_mpi(pubk)?;
    let (e, _) = take_mpi(rest)?;
    let e = e
        .iter()
        .try_fold(0_u64, |a, b| a.checked_mul(256)?.checked_add(u64::from(*b)))?;
    let n = limbs(n);
    let m = limbs(plain);
    if e == 0 || !less(&m, &n) {
        return None;
    }
    let mut result: Option<Vec<u64>> = None;
    for bit in (0..64 - e.leading_zeros()).rev() {
        let squared = result.take().map(|r| mul_mod(&r, &r, &n));
        result = match (squared, e >> bit & 1 == 1) {
            (Some(s), true) => Some(mul_mod(&s, &m, &n)),
            (Some(s), false) => Some(s),
            (None, _) => Some(pad(&m, n.len())),
        };
    }
    let bytes: Vec<u8> = result?.iter().rev().flat_map(|l| l.to_be_bytes()).collect();
    Some(mpi(&bytes))
}

fn take_mpi(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = data.split_at_checked(2)?;
    let bits = usize::from(u16::from_be_bytes(len.try_into().ok()?));
    rest.split_at_checked(bits.div_ceil(8))
}

/// Little-endian 64-bit limbs of a big-endian number.
fn limbs(bytes: &[u8]) -> Vec<u64> {
    bytes
        .rchunks(8)
        .map(|c| c.iter().fold(0, |a, b| a << 8 | u64::from(*b)))
        .collect()
}

fn pad(a: &[u64], len: usize) -> Vec<u64> {
    let mut out = a.to_vec();
    out.resize(len, 0);
    out
}

fn less(a: &[u64], b: &[u64]) -> bool {
    let len = a.len().max(b.len());
    let at = |v: &[u64], i: usize| v.get(i).copied().unwrap_or(0);
    (0..len)
        .rev()
        .map(|i| at(a, i).cmp(&at(b, i)))
        .find(|o| o.is_ne())
        .is_some_and(|o| o.is_lt())
}

fn subtract(a: &mut [u64], b: &[u64]) {
    let mut borrow = false;
    for (i, x) in a.iter_mut().enumerate() {
        let (r, c1) = x.overflowing_sub(b.get(i).copied().unwrap_or(0));
        let (r, c2) = r.overflowing_sub(u64::from(borrow));
        *x = r;
        borrow = c1 || c2;
    }
}

/// a * b mod n by doubling and adding: slow, obviously right, and far below a millisecond.
fn mul_mod(a: &[u64], b: &[u64], n: &[u64]) -> Vec<u64> {
    let n = pad(n, n.len() + 1);
    let a = pad(a, n.len());
    let mut r = vec![0_u64; n.len()];
    for limb in b.iter().rev() {
        for bit in (0..64).rev() {
            let mut carry = 0;
            for x in &mut r {
                let next = *x >> 63;
                *x = *x << 1 | carry;
                carry = next;
            }
            if !less(&r, &n) {
                subtract(&mut r, &n);
            }
            if limb >> bit & 1 == 1 {
                let mut over = false;
                for (x, y) in r.iter_mut().zip(&a) {
                    let (s, c1) = x.overflowing_add(*y);
                    let (s, c2) = s.overflowing_add(u64::from(over));
                    *x = s;
                    over = c1 || c2;
                }
                if !less(&r, &n) {
                    subtract(&mut r, &n);
                }
            }
        }
    }
    r.truncate(n.len() - 1);
    r
}
