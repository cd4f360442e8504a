//! Fuzzes base64, handles and upload tokens.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mega_proto::{NodeHandle, PublicHandle, UploadToken, UserHandle, b64};

fuzz_target!(|data: &[u8]| {
    let _ = UploadToken::from_reply(data);
    assert_eq!(b64::decode(&b64::encode(data)).as_deref(), Ok(data));
    let Ok(text) = core::str::from_utf8(data) else {
        return;
    };
    let _ = b64::decode(text);
    let _ = text.parse::<PublicHandle>();
    let _ = text.parse::<UserHandle>();
    if let Ok(handle) = text.parse::<NodeHandle>() {
        assert_eq!(NodeHandle::from_u48(handle.to_u48()), handle);
    }
});
