//! Fuzzes the body of an event poll.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let _ = mega_proto::event::decode(body);
});
