//! Fuzzes attribute `c`, and feeding pieces in any order.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mega_crypto::{Fingerprint, FingerprintBuilder};

fuzz_target!(|input: (&str, u64, Vec<(u64, &[u8])>)| {
    let (text, size, pieces) = input;
    if let Some(parsed) = Fingerprint::parse(text) {
        assert_eq!(Fingerprint::parse(&parsed.to_attr()), Some(parsed));
    }
    let mut builder = FingerprintBuilder::new(size);
    for (offset, bytes) in pieces {
        builder.feed(offset, bytes);
    }
    let _ = builder.finish(0);
});
