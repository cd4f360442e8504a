//! Request ids: ten lower-case letters, random at the start, counted up (`protocol/01` section 3).

use std::sync::{Mutex, PoisonError};

const LEN: usize = 10;

/// Gives every new request an id of its own.
#[derive(Debug)]
pub(crate) struct RequestIds(Mutex<[u8; LEN]>);

impl RequestIds {
    /// Starts anywhere.
    ///
    /// # Errors
    /// The operating system gave no random bytes.
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        let mut letters = [0_u8; LEN];
        getrandom::fill(&mut letters)?;
        // The small bias of `% 26` does not matter: ids must differ, not be secret.
        Ok(Self(Mutex::new(letters.map(|byte| b'a' + byte % 26))))
    }

    /// The next id.
    pub(crate) fn next(&self) -> String {
        let mut letters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = letters.iter().map(|letter| char::from(*letter)).collect();
        for letter in letters.iter_mut().rev() {
            if *letter < b'z' {
                *letter += 1;
                break;
            }
            *letter = b'a';
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_like_a_counter() {
        let ids = RequestIds(Mutex::new(*b"aaaaaaaayz"));
        assert_eq!([ids.next(), ids.next()], ["aaaaaaaayz", "aaaaaaaaza"]);
        let last = RequestIds(Mutex::new(*b"zzzzzzzzzz"));
        assert_eq!([last.next(), last.next()], ["zzzzzzzzzz", "aaaaaaaaaa"]);
        let id = RequestIds::new().unwrap().next();
        assert!(id.len() == 10 && id.bytes().all(|b| b.is_ascii_lowercase()));
    }
}
