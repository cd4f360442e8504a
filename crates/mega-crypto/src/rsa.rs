//! The account's RSA key: raw RSA by the Chinese remainder theorem (protocol/02 section 5).
//!
//! All arithmetic on secrets is the constant-time kind of `crypto-bigint`, with fixed widths: every
//! Mega key has two primes of at most 1024 bits.

use core::fmt;

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{NonZero, Odd, U1024, U2048};
use zeroize::{Zeroize, Zeroizing};

use crate::login::SESSION_LEN;
use crate::{CryptoError, MasterKey, b64, ecb_decrypt};

/// Bits the private exponent must exceed.
const MIN_EXPONENT_BITS: u32 = 2000;

/// Bits the primes and the coefficient must exceed.
const MIN_PRIME_BITS: u32 = 1000;

/// An RSA private key that passed all checks.
#[derive(Clone)]
pub struct RsaPrivateKey {
    p: FixedMontyParams<{ U1024::LIMBS }>,
    q: FixedMontyParams<{ U1024::LIMBS }>,
    /// Private exponent modulo `p - 1`.
    dp: U1024,
    /// Private exponent modulo `q - 1`.
    dq: U1024,
    /// Inverse of `p` modulo `q`.
    u: U1024,
    /// Length of the plaintext field, in bytes: 254 for a 2048-bit key.
    field: usize,
    /// What it was decrypted from.
    sealed: Box<[u8]>,
}

impl Drop for RsaPrivateKey {
    fn drop(&mut self) {
        self.dp.zeroize();
        self.dq.zeroize();
        self.u.zeroize();
        // The parameters hold the primes and cannot be zeroed in place; a dummy overwrites them.
        let dummy = FixedMontyParams::new(Odd::new(U1024::ONE).expect("one is odd"));
        self.p = dummy;
        self.q = dummy;
        core::hint::black_box(&*self);
    }
}

impl fmt::Debug for RsaPrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RsaPrivateKey")
    }
}

/// Takes one MPI off the front: a 2-byte bit count, then that many bits in whole bytes.
fn take_mpi<'a>(data: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (bits, rest) = data.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*bits)).div_ceil(8);
    let (value, rest) = rest.split_at_checked(length)?;
    *data = rest;
    Some(value)
}

/// The value of big-endian digits, if it fits `N` bytes.
fn fixed<const N: usize>(digits: &[u8]) -> Option<Zeroizing<[u8; N]>> {
    let first = digits
        .iter()
        .position(|byte| *byte != 0)
        .unwrap_or(digits.len());
    let digits = digits.get(first..)?;
    let mut out = Zeroizing::new([0; N]);
    let start = N.checked_sub(digits.len())?;
    out.get_mut(start..)?.copy_from_slice(digits);
    Some(out)
}

fn u1024(digits: &[u8]) -> Option<U1024> {
    fixed::<128>(digits).map(|bytes| U1024::from_be_slice(bytes.as_slice()))
}

fn u2048(digits: &[u8]) -> Option<U2048> {
    fixed::<256>(digits).map(|bytes| U2048::from_be_slice(bytes.as_slice()))
}

impl RsaPrivateKey {
    /// Decrypts and checks `privk`. A failed check means a wrong master key, and so a wrong
    /// password.
    pub fn decrypt_from(master: &MasterKey, privk: &[u8]) -> Result<Self, CryptoError> {
        if privk.is_empty() || !privk.len().is_multiple_of(16) {
            return Err(CryptoError::NotBlocks {
                what: "RSA private key",
                got: privk.len(),
            });
        }
        let mut plain = Zeroizing::new(privk.to_vec());
        ecb_decrypt(master.as_bytes(), &mut plain);
        Self::from_plain(&plain, privk)
    }

    /// The key as Mega keeps it, encrypted by the master key: what
    /// [`decrypt_from`](Self::decrypt_from) took. Not a secret of its own.
    #[must_use]
    pub fn sealed(&self) -> &[u8] {
        &self.sealed
    }

    fn from_plain(plain: &[u8], sealed: &[u8]) -> Result<Self, CryptoError> {
        let failed = |check| CryptoError::RsaKey { check };
        let mut rest = plain;
        let mut take = || take_mpi(&mut rest);
        let (Some(p), Some(q), Some(d), Some(u)) = (take(), take(), take(), take()) else {
            return Err(failed("not four numbers"));
        };
        if rest.len() >= 16 {
            return Err(failed("more than padding behind the numbers"));
        }
        let (Some(p), Some(q), Some(d), Some(u)) = (u1024(p), u1024(q), u2048(d), u1024(u)) else {
            return Err(failed("a number is too large"));
        };
        if d.bits() <= MIN_EXPONENT_BITS {
            return Err(failed("the exponent is too short"));
        }
        if [p, q, u].iter().any(|value| value.bits() <= MIN_PRIME_BITS) {
            return Err(failed("a prime or the coefficient is too short"));
        }
        let odd = |value: U1024| Odd::new(value).into_option();
        let (Some(odd_p), Some(odd_q)) = (odd(p), odd(q)) else {
            return Err(failed("a prime is even"));
        };
        let params_q = FixedMontyParams::new(odd_q);
        let in_q = |value: &U1024| FixedMontyForm::new(&value.rem(odd_q.as_nz_ref()), &params_q);
        if in_q(&u).mul(&in_q(&p)).retrieve() != U1024::ONE {
            return Err(failed("the coefficient does not fit the primes"));
        }
        let exponent = |prime: &U1024| {
            let order = NonZero::new(prime.wrapping_sub(&U1024::ONE)).into_option()?;
            Some(d.rem(&order))
        };
        let (Some(dp), Some(dq)) = (exponent(&p), exponent(&q)) else {
            return Err(failed("a prime is one"));
        };
        let bytes = p.bits().div_ceil(8) + q.bits().div_ceil(8);
        Ok(Self {
            p: FixedMontyParams::new(odd_p),
            q: params_q,
            dp,
            dq,
            u,
            // More than 250, by the checks above.
            field: bytes as usize - 2,
            sealed: sealed.into(),
        })
    }

    /// `cipher ^ d mod p*q`.
    fn decrypt_number(&self, cipher: &U2048) -> U2048 {
        let (p, q) = (self.p.modulus(), self.q.modulus());
        let in_p = FixedMontyForm::new(&cipher.rem(p.as_nz_ref()), &self.p);
        let in_q = FixedMontyForm::new(&cipher.rem(q.as_nz_ref()), &self.q);
        let mp = in_p.pow(&self.dp).retrieve();
        let mq = in_q.pow(&self.dq);
        let mp_in_q = FixedMontyForm::new(&mp.rem(q.as_nz_ref()), &self.q);
        let u = FixedMontyForm::new(&self.u.rem(q.as_nz_ref()), &self.q);
        let t = mq.sub(&mp_in_q).mul(&u).retrieve();
        let product: U2048 = t.concatenating_mul(p.as_ref());
        product.wrapping_add(&mp.resize())
    }

    /// Decrypts an MPI to its plaintext field: 254 bytes, or more if the number is longer. The
    /// payload stands at its beginning, what follows is random.
    pub fn decrypt_key(&self, mpi: &[u8]) -> Result<Vec<u8>, CryptoError> {
        const WHAT: &str = "RSA ciphertext";
        let mut rest = mpi;
        let digits = take_mpi(&mut rest).ok_or(CryptoError::Malformed { what: WHAT })?;
        let cipher = u2048(digits).ok_or(CryptoError::Malformed { what: WHAT })?;
        let mut number = self.decrypt_number(&cipher);
        let length = self.field.max(number.bits().div_ceil(8) as usize);
        let bytes = Zeroizing::new(<[u8; 256]>::from(number.to_be_bytes()));
        number.zeroize();
        let start = bytes.len().saturating_sub(length);
        Ok(bytes.get(start..).unwrap_or_default().to_vec())
    }

    /// Decrypts `csid` to the session id as it goes on the wire: 58 characters. The caller
    /// compares [`session_user`](crate::session_user) with the reply's `u`.
    pub fn decrypt_session_id(&self, csid: &[u8]) -> Result<String, CryptoError> {
        let plain = Zeroizing::new(self.decrypt_key(csid)?);
        let sid = plain
            .get(..SESSION_LEN)
            .ok_or(CryptoError::Malformed { what: "session id" })?;
        Ok(b64::encode(sid))
    }
}
