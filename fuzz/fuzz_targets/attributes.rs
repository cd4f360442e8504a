//! Fuzzes attributes, behind a wrong key and behind the right one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mega_crypto::{AttrKey, Attributes, decrypt_listing, ecb_encrypt};

fuzz_target!(|data: &[u8]| {
    let key = AttrKey::from_bytes([9; 16]);
    let _ = Attributes::decrypt(&key, data);
    let mut blob = [b"MEGA{\"", data].concat();
    blob.resize(blob.len().next_multiple_of(16), 0);
    let mut previous = [0; 16];
    for block in blob.as_chunks_mut::<16>().0 {
        for (byte, other) in block.iter_mut().zip(previous) {
            *byte ^= other;
        }
        ecb_encrypt(key.as_bytes(), block);
        previous = *block;
    }
    let full = Attributes::decrypt(&key, &blob);
    let listing = decrypt_listing(&key, &blob);
    assert_eq!(full.is_ok(), listing.is_ok());
    let (Ok(full), Ok(listing)) = (full, listing) else {
        return;
    };
    assert_eq!(full.name(), listing.name.as_deref());
    assert_eq!(full.fingerprint().map(|c| c.mtime), listing.mtime);
    // What was read can be written and read again.
    if let Ok(again) = full.encrypt(&key) {
        if full.names().next().is_some() {
            assert_eq!(Attributes::decrypt(&key, &again), Ok(full));
        }
    }
});
