//! Fuzzes `k` strings of every owner.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mega_crypto::{KeyRing, MasterKey, ShareKey};

fuzz_target!(|input: (&str, &str, bool)| {
    let (k, attrs, is_folder) = input;
    let me = Some("Kbocb5Q6ti4".to_owned());
    let mut ring = KeyRing::new(MasterKey::from_bytes([1; 16]), me, None);
    ring.insert_share("abcdEFGH", ShareKey::from_bytes([2; 16]));
    let _ = ring.resolve(k, is_folder, None);
    let _ = ring.resolve(k, is_folder, Some(attrs));
    let link = KeyRing::for_link("abcdEFGH", ShareKey::from_bytes([2; 16]));
    let _ = link.resolve(k, is_folder, Some(attrs));
});
