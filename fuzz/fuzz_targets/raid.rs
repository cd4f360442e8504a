//! Fuzzes rebuilding a file from five parts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mega_crypto::raid;

fuzz_target!(|input: ([Option<&[u8]>; raid::PARTS], u16)| {
    let (parts, length) = input;
    if let Some(joined) = raid::join(&parts, usize::from(length)) {
        assert_eq!(joined.len(), usize::from(length));
    }
});
