//! Fuzzes session ids, hashcash challenges and obscured passwords.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mega_crypto::{Challenge, MasterKey, reveal, session_user, verify_tsid};

fuzz_target!(|text: &str| {
    let _ = session_user(text);
    let _ = verify_tsid(&MasterKey::from_bytes([1; 16]), text);
    let _ = reveal(text);
    if let Some(challenge) = Challenge::parse(text) {
        let _ = challenge.threshold();
    }
});
