//! Fuzzes encryption at any offset and chains of any length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mega_crypto::{ContentCipher, ContentKey, Nonce, chunk_start};

fuzz_target!(|input: (u64, u8, &[u8], Vec<&[u8]>)| {
    let (offset, index, data, chunks) = input;
    let cipher = ContentCipher::new(&ContentKey::from_bytes([1; 16]), &Nonce::from_bytes([2; 8]));
    let mut bytes = data.to_vec();
    cipher.apply(offset, &mut bytes);
    cipher.apply(offset, &mut bytes);
    assert_eq!(bytes, data);
    let macs = cipher.chunk_macs(&chunks);
    assert!(
        chunks
            .iter()
            .zip(&macs)
            .all(|(chunk, mac)| cipher.chunk_mac(chunk) == *mac)
    );
    let start = chunk_start(u64::from(index));
    let macs = cipher.encrypt_chunks(start, &mut bytes);
    assert_eq!(cipher.decrypt_chunks(start, &mut bytes), macs);
    assert_eq!(bytes, data);
});
