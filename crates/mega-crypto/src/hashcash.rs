//! The proof of work behind HTTP 402 (protocol/01 section 8).
//!
//! A solution is a 4-byte prefix for which SHA-256 over the prefix and 12 MiB of repeated token
//! begins with a small enough number. The prefix stands first, so nothing can be computed ahead:
//! every attempt hashes everything.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use sha2::{Digest, Sha256};

use crate::b64;

/// Length of the token, in bytes and in characters.
const TOKEN: usize = 48;
const TOKEN_CHARACTERS: usize = 64;

/// How often the token stands behind the prefix.
const REPETITIONS: usize = 262_144;

/// Copies of the token held in memory: 48 KiB, hashed again and again.
const COPIES: usize = 1024;

/// What the server asks for in `X-Hashcash`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    easiness: u8,
    token_text: String,
    token: [u8; TOKEN],
}

impl Challenge {
    /// Reads the header's value; `None` unless it has exactly the known form, and then the reply
    /// is a plain failure.
    pub fn parse(header: &str) -> Option<Self> {
        let mut fields = header.split(':');
        let (version, easiness) = (fields.next()?, fields.next()?);
        let (_timestamp, token_text) = (fields.next()?, fields.next()?);
        if version != "1" || fields.next().is_some() || token_text.len() != TOKEN_CHARACTERS {
            return None;
        }
        if easiness.is_empty() || !easiness.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let token = b64::decode(token_text, "hashcash token").ok()?;
        Some(Self {
            easiness: easiness.parse().ok()?,
            token: token.try_into().ok()?,
            token_text: token_text.to_owned(),
        })
    }

    /// The easiness asked for, 0 to 255; less is harder.
    pub const fn easiness(&self) -> u8 {
        self.easiness
    }

    /// The largest number that solves the challenge; 2^32 divided by it attempts are expected.
    pub const fn threshold(&self) -> u32 {
        let easiness = self.easiness as u32;
        (2 * (easiness & 63) + 1) << (7 * (easiness >> 6) + 3)
    }

    /// The tokens that are hashed again and again.
    fn area(&self) -> Vec<u8> {
        self.token.repeat(COPIES)
    }

    fn hash_start(&self, prefix: u32, area: &[u8]) -> u32 {
        let mut hash = Sha256::new();
        hash.update(prefix.to_be_bytes());
        for _ in 0..REPETITIONS / COPIES {
            hash.update(area);
        }
        hash.finalize()
            .first_chunk()
            .copied()
            .map_or(u32::MAX, u32::from_be_bytes)
    }

    fn attempt(&self, prefix: u32, area: &[u8]) -> Option<String> {
        (self.hash_start(prefix, area) <= self.threshold()).then(|| {
            format!(
                "1:{}:{}",
                self.token_text,
                b64::encode(&prefix.to_be_bytes())
            )
        })
    }

    /// The number a prefix, taken as big-endian, leads to: it solves the challenge if it is not
    /// above [`Self::threshold`]. Hashes 12 MiB.
    pub fn number_of(&self, prefix: u32) -> u32 {
        self.hash_start(prefix, &self.area())
    }

    /// Tries one prefix, taken as a big-endian number; gives the value of the answering
    /// `X-Hashcash` header if it solves the challenge. Hashes 12 MiB.
    pub fn try_prefix(&self, prefix: u32) -> Option<String> {
        self.attempt(prefix, &self.area())
    }

    /// Searches with `threads` threads (at least one) until a solution is found or `stop` is set;
    /// blocks the caller. `stop` is looked at between attempts, so within some tens of
    /// milliseconds.
    pub fn solve(&self, stop: &AtomicBool, threads: usize) -> Option<String> {
        let area = self.area();
        let next = AtomicU32::new(0);
        let found = AtomicBool::new(false);
        let search = || {
            while !stop.load(Ordering::Relaxed) && !found.load(Ordering::Relaxed) {
                let prefix = next.fetch_add(1, Ordering::Relaxed);
                if let Some(solution) = self.attempt(prefix, &area) {
                    found.store(true, Ordering::Relaxed);
                    return Some(solution);
                }
                if prefix == u32::MAX {
                    found.store(true, Ordering::Relaxed);
                }
            }
            None
        };
        thread::scope(|scope| {
            let helpers: Vec<_> = (1..threads.max(1)).map(|_| scope.spawn(search)).collect();
            let mine = search();
            let theirs = helpers
                .into_iter()
                .map(|helper| helper.join().ok().flatten());
            // Every helper is joined here, whoever found it.
            theirs.fold(mine, Option::or)
        })
    }
}
