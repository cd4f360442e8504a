//! Fuzzes the RSA private key and what is encrypted for it.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mega_crypto::{MasterKey, RsaPrivateKey, ecb_encrypt};
use mega_proto::b64;

/// A good key: random bytes never pass the checks.
static KEY: LazyLock<RsaPrivateKey> = LazyLock::new(|| {
    let vectors = include_str!("../../crates/mega-crypto/tests/vectors/07-test-vectors.json");
    let vectors: serde_json::Value = serde_json::from_str(vectors).unwrap();
    let owner = &vectors["groups"]["rsa_session"][0];
    let mut privk = b64::decode(owner["privk_plain_b64"].as_str().unwrap()).unwrap();
    privk.resize(privk.len().next_multiple_of(16), 0);
    let master = MasterKey::from_bytes([1; 16]);
    ecb_encrypt(master.as_bytes(), &mut privk);
    RsaPrivateKey::decrypt_from(&master, &privk).unwrap()
});

fuzz_target!(|data: &[u8]| {
    let master = MasterKey::from_bytes([1; 16]);
    let _ = RsaPrivateKey::decrypt_from(&master, data);
    let mut privk = data.to_vec();
    privk.resize(privk.len().next_multiple_of(16), 0);
    ecb_encrypt(master.as_bytes(), &mut privk);
    let _ = RsaPrivateKey::decrypt_from(&master, &privk);
    let _ = KEY.decrypt_session_id(data);
    if let Ok(field) = KEY.decrypt_key(data) {
        assert!(field.len() >= 254);
    }
});
