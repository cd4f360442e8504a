//! Fuzzes the envelope of a reply, in both versions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mega_proto::command::Traits;
use mega_proto::reply::{ApiVersion, decode};

fuzz_target!(|input: (&[u8], u8)| {
    let (body, count) = input;
    let commands: Vec<Traits> = ["f", "us", "p", "uga"]
        .into_iter()
        .cycle()
        .take(usize::from(count % 5))
        .map(Traits::of)
        .collect();
    for version in [ApiVersion::V1, ApiVersion::V3] {
        if let Ok(replies) = decode(body, &commands, version) {
            assert_eq!(replies.len(), commands.len());
        }
    }
});
