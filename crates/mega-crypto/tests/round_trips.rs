//! What must hold for every input: inverses, independence of order and of cuts, tolerances, and
//! that no input panics.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::sync::LazyLock;

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U2048};
use mega_crypto::{
    AttrKey, Attributes, Challenge, ChunkMac, ContentCipher, ContentKey, CryptoError, FileKey,
    Fingerprint, FingerprintBuilder, FolderKey, KeyRing, KeySource, MacVerdict, MasterKey, MetaMac,
    NodeKey, Nonce, RsaPrivateKey, ShareKey, UploadKey, WrapKey, chunk_count, chunk_index_at,
    chunk_range, chunk_start, decrypt_listing, ecb_encrypt, meta_mac, obscure, raid, reveal,
    session_user, upload_checksum, verify_meta_mac, verify_tsid,
};
use mega_proto::b64;
use proptest::prelude::*;
use serde_json::{Value, json};

const ME: &str = "Kbocb5Q6ti4";

static FILE: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("vectors/07-test-vectors.json")).unwrap());

/// The known RSA key and its master key.
fn rsa() -> (MasterKey, RsaPrivateKey) {
    let owner = &FILE["groups"]["rsa_session"][0];
    let master = u128::from_str_radix(owner["master_key_hex"].as_str().unwrap(), 16).unwrap();
    let master = MasterKey::from_bytes(master.to_be_bytes());
    let privk = b64::decode(owner["privk_b64"].as_str().unwrap()).unwrap();
    let key = RsaPrivateKey::decrypt_from(&master, &privk).unwrap();
    (master, key)
}

/// Encrypts for the known key as other users do: padded to 254 bytes, raw RSA, as an MPI.
fn rsa_encrypt(payload: &[u8]) -> Vec<u8> {
    let owner = &FILE["groups"]["rsa_session"][0];
    let modulus = U2048::from_be_hex(&format!("{:0>512}", owner["n_hex"].as_str().unwrap()));
    let exponent = owner["e"].as_u64().unwrap();
    let mut field = [0x5a; 256];
    field[..2].fill(0);
    field[2..2 + payload.len()].copy_from_slice(payload);
    let params = FixedMontyParams::new(Odd::new(modulus).unwrap());
    let number = FixedMontyForm::new(&U2048::from_be_slice(&field), &params);
    let cipher = number.pow(&crypto_bigint::U64::from(exponent)).retrieve();
    let digits = <[u8; 256]>::from(cipher.to_be_bytes());
    // As some writers do it: bytes times 8 instead of bits.
    [&2048u16.to_be_bytes(), digits.as_slice()].concat()
}

fn attrs_of(key: &NodeKey, name: &str) -> String {
    b64::encode(
        &Attributes::with_name(name)
            .encrypt(&key.attr_key())
            .unwrap(),
    )
}

fn encrypt_raw(key: &AttrKey, plain: &[u8]) -> Vec<u8> {
    let mut previous = [0; 16];
    let mut out = Vec::new();
    for chunk in plain.chunks(16) {
        let mut block = previous;
        for (byte, plain) in block.iter_mut().zip(chunk) {
            *byte ^= plain;
        }
        ecb_encrypt(key.as_bytes(), &mut block);
        out.extend_from_slice(&block);
        previous = block;
    }
    out
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e9..1e9f64).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,4}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn key16() -> impl Strategy<Value = [u8; 16]> {
    any::<[u8; 16]>()
}

mod attributes {
    use super::*;

    proptest! {
        #[test]
        fn come_back_with_order_and_types(
            key in key16(),
            members in prop::collection::vec(("[a-zA-Z0-9_-]{1,8}|mm[xln]", json_value()), 1..8),
        ) {
            let key = AttrKey::from_bytes(key);
            let mut written = Attributes::default();
            for (name, value) in &members {
                written.set_value(name, value.clone());
            }
            let blob = written.encrypt(&key).unwrap();
            let read = Attributes::decrypt(&key, &blob).unwrap();
            prop_assert_eq!(read.to_json(), written.to_json());
            prop_assert!(read.names().eq(written.names()));
            for (name, value) in read.names().map(|name| (name, written.get(name))) {
                prop_assert_eq!(read.get(name), value);
            }
            let listing = decrypt_listing(&key, &blob).unwrap();
            prop_assert_eq!(listing.name.as_deref(), read.name());
            prop_assert_eq!(listing.mtime, read.fingerprint().map(|c| c.mtime));
            prop_assert_eq!(listing.has_own, read.names().any(|name| name.starts_with("mm")));
            let other = AttrKey::from_bytes(key.as_bytes().map(|byte| !byte));
            let error = Attributes::decrypt(&other, &blob).unwrap_err();
            prop_assert_eq!(error, CryptoError::WrongKey { what: "attributes" });
        }

        #[test]
        fn never_panic(key in key16(), blob in prop::collection::vec(any::<u8>(), 0..100)) {
            let key = AttrKey::from_bytes(key);
            let _ = Attributes::decrypt(&key, &blob);
            // The same bytes behind a right key.
            let plain = [b"MEGA{\"".as_slice(), &blob].concat();
            let blob = encrypt_raw(&key, &plain);
            let full = Attributes::decrypt(&key, &blob);
            let listing = decrypt_listing(&key, &blob);
            prop_assert_eq!(full.is_ok(), listing.is_ok());
        }
    }

    fn decode(plain: &[u8]) -> Result<Attributes, CryptoError> {
        let key = AttrKey::from_bytes([9; 16]);
        let blob = encrypt_raw(&key, plain);
        let full = Attributes::decrypt(&key, &blob);
        match (&full, decrypt_listing(&key, &blob)) {
            (Ok(full), Ok(listing)) => {
                assert_eq!(full.name(), listing.name.as_deref());
                assert_eq!(full.fingerprint().map(|c| c.mtime), listing.mtime);
            }
            (Err(full), Err(listing)) => assert_eq!(*full, listing),
            (full, listing) => panic!("{full:?} but {listing:?}"),
        }
        full
    }

    #[test]
    fn unknown_members_keep_their_spelling() {
        let text = r#"{"z":1.50,"n":"a","s4":{"b":[1, 2 ],"a":1e400},"fav":1,"x":null,"t":true}"#;
        let mut attributes = decode(format!("MEGA{text}").as_bytes()).unwrap();
        assert_eq!(attributes.to_json(), text);
        attributes.set("n", "b");
        attributes.set("c", "q");
        let text = text
            .replace("\"a\",", "\"b\",")
            .replace("true}", "true,\"c\":\"q\"}");
        assert_eq!(attributes.to_json(), text);
        assert_eq!(attributes.text("fav"), Some("1"));
        assert_eq!(attributes.text("t"), Some("true"));
        assert_eq!(attributes.text("x"), None);
        assert_eq!(attributes.get("x"), Some(Value::Null));
        assert_eq!(attributes.get("fav"), Some(json!(1)));
        assert!(attributes.remove("z") && !attributes.remove("z"));
        assert!(attributes.to_json().starts_with(r#"{"n":"b""#));
    }

    #[test]
    fn what_exists_in_the_wild_is_read() {
        // Garbage behind the closing brace, also with another brace in it.
        assert_eq!(
            decode(b"MEGA{\"n\":\"a\"}\x01\x02rubbish").unwrap().name(),
            Some("a")
        );
        // Invalid UTF-8 is Latin-1.
        assert_eq!(
            decode(b"MEGA{\"n\":\"caf\xe9\"}").unwrap().name(),
            Some("caf\u{e9}")
        );
        // No members.
        assert_eq!(decode(b"MEGA{}").unwrap().name(), None);
        // A number as a name.
        assert_eq!(decode(b"MEGA{\"n\":7}").unwrap().name(), Some("7"));
        // Half a surrogate pair, which no Rust string holds; kept as it is.
        let broken = decode(br#"MEGA{"n":"a\ud83d\n\"b","k":1}"#).unwrap();
        assert_eq!(broken.name(), Some("a\u{fffd}\n\"b"));
        assert_eq!(broken.to_json(), r#"{"n":"a\ud83d\n\"b","k":1}"#);
        // A member twice: the last one counts.
        assert_eq!(
            decode(br#"MEGA{"n":"a","n":"b"}"#).unwrap().to_json(),
            r#"{"n":"b"}"#
        );
    }

    #[test]
    fn what_is_not_attributes_is_refused() {
        let wrong = |plain: &[u8]| matches!(decode(plain), Err(CryptoError::WrongKey { .. }));
        assert!(wrong(b"") && wrong(b"MEGB{\"n\":\"a\"}") && wrong(b"MEGA[\"n\"]"));
        assert!(wrong(b"MEGA{ \"n\":\"a\"}"));
        assert!(matches!(
            decode(b"MEGA{\"n\":"),
            Err(CryptoError::Malformed { .. })
        ));
        let key = AttrKey::from_bytes([9; 16]);
        let short = Attributes::decrypt(&key, &[0; 15]).unwrap_err();
        assert_eq!(
            short,
            CryptoError::NotBlocks {
                what: "attributes",
                got: 15
            }
        );
    }

    #[test]
    fn more_than_64_kib_is_not_sent() {
        let key = AttrKey::from_bytes([9; 16]);
        let fixed = "MEGA{\"n\":\"\"}".len();
        let fits = Attributes::with_name(&"x".repeat(65536 - fixed));
        assert_eq!(fits.encrypt(&key).unwrap().len(), 65536);
        let error = Attributes::with_name(&"x".repeat(65537 - fixed))
            .encrypt(&key)
            .unwrap_err();
        assert!(matches!(error, CryptoError::TooLarge { limit: 65536, .. }));
    }
}

mod keys {
    use super::*;

    proptest! {
        #[test]
        fn wrapping_is_undone(wrapper in key16(), bytes in any::<[u8; 32]>()) {
            let folder = NodeKey::from_slice(&bytes[..16], true).unwrap();
            let file = NodeKey::from_slice(&bytes, false).unwrap();
            let master = MasterKey::from_bytes(wrapper);
            let share = ShareKey::from_bytes(wrapper);
            for (key, is_folder) in [(&folder, true), (&file, false)] {
                let wrapped = master.wrap_node_key(key);
                prop_assert_eq!(wrapped.len(), key.as_bytes().len());
                prop_assert_eq!(&master.unwrap_node_key(&wrapped, is_folder).unwrap(), key);
                prop_assert_eq!(&share.unwrap_node_key(&wrapped, is_folder).unwrap(), key);
                prop_assert!(master.unwrap_node_key(&wrapped, !is_folder).is_err());
            }
            let wrapped = master.wrap_share_key(&share);
            prop_assert_eq!(master.unwrap_share_key(&wrapped).unwrap(), share);
        }

        #[test]
        fn a_file_key_gives_its_parts(key in key16(), tail in any::<([u8; 8], [u8; 8])>()) {
            let key = ContentKey::from_bytes(key);
            let (nonce, mac) = (Nonce::from_bytes(tail.0), MetaMac::from_bytes(tail.1));
            let file = FileKey::from_parts(&key, &nonce, &mac);
            prop_assert_eq!(file.aes_key(), key);
            prop_assert_eq!(file.nonce(), nonce);
            prop_assert_eq!(file.meta_mac(), mac);
        }

        #[test]
        fn k_strings_never_panic(k in "[A-Za-z0-9_:/,=+\u{e9}-]{0,80}", attrs in ".{0,40}") {
            let (master, key) = rsa();
            let mut ring = KeyRing::new(master, Some(ME.to_owned()), Some(key));
            ring.insert_share("abcdEFGH", ShareKey::from_bytes([1; 16]));
            for is_folder in [true, false] {
                let _ = ring.resolve(&k, is_folder, None);
                let _ = ring.resolve(&k, is_folder, Some(&attrs));
            }
        }
    }

    #[test]
    fn the_pair_that_fits_the_attributes_wins() {
        let master = MasterKey::from_bytes([1; 16]);
        let share = ShareKey::from_bytes([2; 16]);
        let key = NodeKey::Folder(FolderKey::from_bytes([3; 16]));
        let mut ring = KeyRing::new(master.clone(), Some(ME.to_owned()), None);
        let by_master = b64::encode(&master.wrap_node_key(&key));
        let by_share = b64::encode(&share.wrap_node_key(&key));
        let attrs = attrs_of(&key, "x");
        let wrong = b64::encode(&[7; 16]);

        let foreign = format!("AAAAAAAAAAA:{by_master}/abcdEFGH:{by_share}");
        assert_eq!(ring.resolve(&foreign, true, Some(&attrs)), None);
        ring.insert_share("abcdEFGH", share);
        let found = ring.resolve(&foreign, true, Some(&attrs)).unwrap();
        assert_eq!(found.key, key);
        assert_eq!(found.via, KeySource::Share("abcdEFGH".to_owned()));

        let stale = format!("{ME}:{wrong}/abcdEFGH:{by_share}");
        assert_eq!(ring.resolve(&stale, true, Some(&attrs)).unwrap().key, key);
        // Without attributes nothing speaks against the first.
        assert_ne!(ring.resolve(&stale, true, None).unwrap().key, key);
        assert_ne!(ring.resolve(&stale, true, Some("")).unwrap().key, key);

        let own = format!("{ME}:{by_master}/abcdEFGH:{by_share}");
        assert_eq!(
            ring.resolve(&own, true, Some(&attrs)).unwrap().via,
            KeySource::Master
        );
        assert_eq!(
            ring.resolve(&by_master, true, Some(&attrs)).unwrap().key,
            key
        );
        assert_eq!(ring.resolve(&own, false, Some(&attrs)), None);
        assert_eq!(ring.resolve("", true, Some(&attrs)), None);
        assert!(ring.remove_share("abcdEFGH"));
        assert_eq!(ring.resolve(&foreign, true, None), None);
        // The own handle is not known yet: the attributes decide.
        let ring = KeyRing::new(master, None, None);
        assert_eq!(ring.resolve(&foreign, true, Some(&attrs)).unwrap().key, key);
    }

    #[test]
    fn a_link_unwraps_what_belongs_to_its_root() {
        let link = ShareKey::from_bytes([2; 16]);
        let key = NodeKey::File(FileKey::from_bytes([3; 32]));
        let ring = KeyRing::for_link("rootROOT", link.clone());
        let wrapped = b64::encode(&link.wrap_node_key(&key));
        let attrs = attrs_of(&key, "x");
        let found = ring
            .resolve(&format!("rootROOT:{wrapped}"), false, Some(&attrs))
            .unwrap();
        assert_eq!((found.key, found.via), (key, KeySource::Link));
        assert_eq!(
            ring.resolve(&format!("otherOTH:{wrapped}"), false, Some(&attrs)),
            None
        );
        assert_eq!(ring.resolve(&wrapped, false, Some(&attrs)), None);
    }

    #[test]
    fn rsa_wrapped_keys_are_found() {
        let (master, rsa) = rsa();
        let key = NodeKey::File(FileKey::from_bytes([3; 32]));
        let k = format!("{ME}:{}", b64::encode(&rsa_encrypt(key.as_bytes())));
        let attrs = attrs_of(&key, "x");
        let mut ring = KeyRing::new(master, Some(ME.to_owned()), None);
        assert_eq!(ring.resolve(&k, false, Some(&attrs)), None);
        ring.set_rsa(Some(rsa));
        let found = ring.resolve(&k, false, Some(&attrs)).unwrap();
        assert_eq!((found.key, found.via), (key, KeySource::Rsa));
    }
}

mod rsa_and_sessions {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn what_was_encrypted_comes_back(payload in prop::collection::vec(any::<u8>(), 43)) {
            let (_, key) = rsa();
            let cipher = rsa_encrypt(&payload);
            let field = key.decrypt_key(&cipher).unwrap();
            prop_assert_eq!(&field[..43], payload.as_slice());
            prop_assert_eq!(field.len(), 254);
            let sid = key.decrypt_session_id(&cipher).unwrap();
            prop_assert_eq!(b64::decode(&sid).unwrap(), payload);
        }

        #[test]
        fn never_panic(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
            let (master, key) = rsa();
            let _ = key.decrypt_key(&bytes);
            let _ = key.decrypt_session_id(&bytes);
            let _ = RsaPrivateKey::decrypt_from(&master, &bytes);
        }
    }

    #[test]
    fn every_check_of_the_private_key_is_made() {
        let owner = &FILE["groups"]["rsa_session"][0];
        let master = MasterKey::from_bytes([1; 16]);
        let plain = b64::decode(owner["privk_plain_b64"].as_str().unwrap()).unwrap();
        let check = |plain: &[u8]| {
            let mut privk = plain.to_vec();
            privk.resize(privk.len().next_multiple_of(16), 0);
            ecb_encrypt(master.as_bytes(), &mut privk);
            RsaPrivateKey::decrypt_from(&master, &privk).map(drop)
        };
        let refusal = |plain: &[u8]| match check(plain) {
            Err(CryptoError::RsaKey { check }) => check,
            other => panic!("{other:?}"),
        };
        check(&plain).unwrap();
        let numbers = |numbers: [&[u8]; 4]| -> Vec<u8> {
            numbers
                .iter()
                .flat_map(|n| [&(n.len() as u16 * 8).to_be_bytes(), *n].concat())
                .collect()
        };
        let (p, rest) = plain[2..].split_at(128);
        let (q, rest) = rest[2..].split_at(128);
        let length = usize::from(u16::from_be_bytes([rest[0], rest[1]])).div_ceil(8);
        let (d, rest) = rest[2..].split_at(length);
        let u = &rest[2..130];
        check(&numbers([p, q, d, u])).unwrap();
        let mut even = p.to_vec();
        even[127] &= !1;
        let mut wrong = u.to_vec();
        wrong[127] ^= 1;
        let long = [&[1], p].concat();
        assert_eq!(refusal(&plain[..300]), "not four numbers");
        assert_eq!(
            refusal(&[plain.clone(), vec![0; 32]].concat()),
            "more than padding behind the numbers"
        );
        assert_eq!(refusal(&numbers([&long, q, d, u])), "a number is too large");
        assert_eq!(
            refusal(&numbers([p, q, &d[10..], u])),
            "the exponent is too short"
        );
        assert_eq!(
            refusal(&numbers([p, q, d, &u[10..]])),
            "a prime or the coefficient is too short"
        );
        assert_eq!(refusal(&numbers([&even, q, d, u])), "a prime is even");
        assert_eq!(
            refusal(&numbers([p, q, d, &wrong])),
            "the coefficient does not fit the primes"
        );
    }

    #[test]
    fn a_tsid_proves_the_master_key() {
        let master = MasterKey::from_bytes([5; 16]);
        let mut raw = [0; 43];
        raw[..16].copy_from_slice(b"0123456789abcdef");
        raw[16..27].copy_from_slice(ME.as_bytes());
        let mut proof = *b"0123456789abcdef";
        ecb_encrypt(master.as_bytes(), &mut proof);
        raw[27..].copy_from_slice(&proof);
        let sid = b64::encode(&raw);
        assert_eq!(verify_tsid(&master, &sid), Ok(true));
        assert_eq!(session_user(&sid).unwrap(), ME);
        assert_eq!(
            verify_tsid(&MasterKey::from_bytes([6; 16]), &sid),
            Ok(false)
        );
        assert!(verify_tsid(&master, &sid[..56]).is_err());
        assert!(session_user("").is_err());
    }
}

mod content {
    use super::*;

    fn cipher() -> ContentCipher {
        let (key, nonce) = ([4; 16], [5; 8]);
        ContentCipher::new(&ContentKey::from_bytes(key), &Nonce::from_bytes(nonce))
    }

    fn bytes(length: usize) -> Vec<u8> {
        let mut state = 1u64;
        (0..length)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn pieces_at_any_offset_give_the_whole(
            offset in 0..1u64 << 40,
            length in 0usize..300,
            cuts in prop::collection::vec(0usize..300, 0..4),
        ) {
            let plain = bytes(length);
            let mut whole = plain.clone();
            cipher().apply(offset, &mut whole);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(length)).collect();
            cuts.extend([0, length]);
            cuts.sort_unstable();
            let mut pieces = plain.clone();
            for range in cuts.windows(2) {
                cipher().apply(offset + range[0] as u64, &mut pieces[range[0]..range[1]]);
            }
            prop_assert_eq!(&pieces, &whole);
            cipher().apply(offset, &mut whole);
            prop_assert_eq!(whole, plain);
        }

        #[test]
        fn many_chains_are_as_good_as_one(
            lengths in prop::collection::vec(
                prop_oneof![0usize..40, 2000usize..2100, 4000usize..9000], 0..30),
        ) {
            let all = bytes(lengths.iter().sum());
            let mut rest = all.as_slice();
            let chunks: Vec<&[u8]> =
                lengths.iter().map(|length| rest.split_off(..*length).unwrap()).collect();
            let serial: Vec<ChunkMac> =
                chunks.iter().map(|chunk| cipher().chunk_mac(chunk)).collect();
            prop_assert_eq!(cipher().chunk_macs(&chunks), serial);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn chunks_of_any_piece_come_back(first in 0u64..12, length in 1usize..5_000_000) {
            let start = chunk_start(first);
            let plain = bytes(length);
            let mut expected = plain.clone();
            cipher().apply(start, &mut expected);
            let mut data = plain.clone();
            let macs = cipher().encrypt_chunks(start, &mut data);
            prop_assert!(data == expected);
            let end = start + length as u64;
            let serial: Vec<ChunkMac> = (first..chunk_count(end))
                .map(|index| {
                    let range = chunk_range(index, end).unwrap();
                    let (from, to) = (range.start - start, range.end - start);
                    cipher().chunk_mac(&plain[from as usize..to as usize])
                })
                .collect();
            prop_assert_eq!(&macs, &serial);
            prop_assert_eq!(cipher().decrypt_chunks(start, &mut data), macs);
            prop_assert!(data == plain);
        }
    }

    proptest! {
        #[test]
        fn every_offset_lies_in_its_chunk(offset in any::<u64>(), size in 0..1u64 << 62) {
            let index = chunk_index_at(offset);
            prop_assert!(chunk_start(index) <= offset);
            prop_assert!(chunk_start(index + 1) > offset || chunk_start(index + 1) == u64::MAX);
            let count = chunk_count(size);
            prop_assert_eq!(chunk_range(count, size), None);
            prop_assert_eq!(chunk_range(u64::MAX, size), None);
            if size > 0 {
                prop_assert_eq!(chunk_range(count - 1, size).unwrap().end, size);
            }
        }

        #[test]
        fn checksums_fold_every_twelfth_byte(data in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut slow = [0; 12];
            for (place, byte) in data.iter().enumerate() {
                slow[place % 12] ^= byte;
            }
            prop_assert_eq!(upload_checksum(&data), slow);
        }
    }

    #[test]
    fn one_lost_run_near_the_end_is_an_old_sdk() {
        let upload = UploadKey::from_journal(&[3; 24]);
        let size = chunk_start(200);
        let macs: Vec<ChunkMac> = (0..200u8)
            .map(|index| ChunkMac::from_bytes([index; 16]))
            .collect();
        let verdict = |kept: &[ChunkMac]| {
            let key = upload.seal(&meta_mac(upload.content_key(), kept));
            verify_meta_mac(&key, size, &macs)
        };
        let without = |run: std::ops::Range<usize>| [&macs[..run.start], &macs[run.end..]].concat();
        assert_eq!(verdict(&macs), MacVerdict::Match);
        for run in [104..105, 104..168, 150..170, 199..200, 136..200] {
            assert_eq!(
                verdict(&without(run.clone())),
                MacVerdict::ToleratedOldSdk,
                "{run:?}"
            );
        }
        // Too long, or too early.
        for run in [104..169, 103..104, 0..1] {
            assert_eq!(
                verdict(&without(run.clone())),
                MacVerdict::Mismatch,
                "{run:?}"
            );
        }
        // Never everything: the MAC of nothing proves nothing.
        let short = ChunkMac::from_bytes([1; 16]);
        let key = upload.seal(&MetaMac::from_bytes([0; 8]));
        assert_eq!(verify_meta_mac(&key, 5, &[short]), MacVerdict::Mismatch);
        // The number of MACs must be the file's.
        let key = upload.seal(&meta_mac(upload.content_key(), &macs));
        assert_eq!(verify_meta_mac(&key, size + 1, &macs), MacVerdict::Mismatch);
        assert_eq!(
            verify_meta_mac(&key, size, &macs[..199]),
            MacVerdict::Mismatch
        );
        assert!(!MacVerdict::Mismatch.is_acceptable());
        assert!(MacVerdict::ToleratedOldSdk.is_acceptable());
    }
}

mod fingerprints {
    use super::*;

    proptest! {
        #[test]
        fn any_order_gives_the_same(
            size in prop_oneof![0u64..40, 40u64..8300, 8000u64..200_000],
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
            mtime in any::<i64>(),
        ) {
            let data: Vec<u8> = (0..size).map(|i| ((i * i) >> 3) as u8).collect();
            let mut whole = FingerprintBuilder::new(size);
            whole.feed(0, &data);
            let mut cuts: Vec<usize> =
                cuts.iter().map(|cut| cut.index(data.len() + 1)).chain([0, data.len()]).collect();
            cuts.sort_unstable();
            let mut pieces = FingerprintBuilder::new(size);
            for range in cuts.windows(2).rev() {
                pieces.feed(range[0] as u64, &data[range[0]..range[1]]);
            }
            prop_assert!(pieces.is_complete());
            let fingerprint = pieces.finish(mtime);
            prop_assert_eq!(fingerprint, whole.finish(mtime));
            prop_assert_eq!(Fingerprint::parse(&fingerprint.to_attr()), Some(fingerprint));
            let windows = FingerprintBuilder::windows(size);
            prop_assert!(windows.windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert!(windows.iter().all(|w| w.start < w.end && w.end <= size));
            prop_assert!(windows.iter().map(|w| w.end - w.start).sum::<u64>() <= 8192);
        }

        #[test]
        fn no_text_panics(text in ".{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..30)) {
            let _ = Fingerprint::parse(&text);
            let parsed = Fingerprint::parse(&b64::encode(&bytes));
            if bytes.len() < 17 || bytes[16] > 8 {
                prop_assert_eq!(parsed, None);
            }
        }
    }

    #[test]
    fn the_largest_file_and_a_gap_are_no_trouble() {
        let mut builder = FingerprintBuilder::new(u64::MAX);
        builder.feed(u64::MAX - 10, &[1; 100]);
        builder.feed(0, &[1; 100]);
        assert!(!builder.is_complete());
        assert_eq!(builder.finish(1).mtime, 1);
        assert_eq!(FingerprintBuilder::windows(u64::MAX).len(), 128);
        assert!(FingerprintBuilder::new(0).is_complete());
    }
}

mod others {
    use super::*;

    proptest! {
        #[test]
        fn raid_gives_the_file_back(
            data in prop::collection::vec(any::<u8>(), 0..700),
            missing in 0usize..=raid::PARTS,
            read in any::<(prop::sample::Index, prop::sample::Index)>(),
        ) {
            let parts = raid::split(&data);
            for (part, size) in parts.iter().zip(raid::part_sizes(data.len() as u64)) {
                prop_assert_eq!(part.len() as u64, size);
            }
            for (offset, byte) in data.iter().enumerate() {
                let position = raid::locate(offset as u64);
                prop_assert_eq!(parts[position.part][position.offset as usize], *byte);
            }
            let given = |from: usize, to: usize| {
                std::array::from_fn(|part| {
                    let bytes = &parts[part];
                    (part != missing)
                        .then(|| &bytes[from.min(bytes.len())..to.min(bytes.len())])
                })
            };
            let whole = raid::join(&given(0, data.len()), data.len()).unwrap();
            prop_assert_eq!(&whole, &data);
            // A read from the middle.
            let (a, b) = (read.0.index(data.len() + 1), read.1.index(data.len() + 1));
            let (a, b) = (a.min(b) as u64, a.max(b) as u64);
            let range = raid::part_range(&(a..b));
            prop_assert_eq!(range.is_empty(), a == b);
            if a < b {
                let first = range.start / 16 * raid::LINE;
                let parts = given(range.start as usize, range.end as usize);
                let lines = raid::join(&parts, (b - first) as usize).unwrap();
                prop_assert_eq!(&lines[(a - first) as usize..], &data[a as usize..b as usize]);
            }
            let mut two = given(0, data.len());
            two[1] = None;
            two[2] = None;
            prop_assert_eq!(raid::join(&two, data.len()), None);
            let all = std::array::from_fn(|part| Some(parts[part].as_slice()));
            prop_assert_eq!(raid::join(&all, data.len() + 1), None);
        }

        #[test]
        fn obscured_passwords_are_revealed(clear in ".{0,40}") {
            let hidden = obscure(&clear).unwrap();
            let revealed = reveal(&hidden).unwrap();
            prop_assert_eq!(revealed.expose(), clear.as_str());
            prop_assert_ne!(obscure(&clear).unwrap(), hidden);
        }

        #[test]
        fn no_text_panics(text in "[A-Za-z0-9_:=-]{0,80}") {
            let _ = reveal(&text);
            let _ = session_user(&text);
            let _ = Challenge::parse(&text);
        }
    }

    #[test]
    fn too_short_for_an_obscured_password() {
        assert!(reveal("AAAA").is_err());
        assert!(reveal("not base64!").is_err());
    }

    #[test]
    fn only_the_exact_challenge_is_taken() {
        let token = "RUvIePV2PNO8ofg8xp1aT5ugBcKSEzwKoLBw9o4E6F_fmn44eC3oMpv388UtFl2K";
        assert!(Challenge::parse(&format!("1:0:1731410499:{token}")).is_some());
        for header in [
            String::new(),
            format!("2:0:1731410499:{token}"),
            format!("1:256:1731410499:{token}"),
            format!("1:-1:1731410499:{token}"),
            format!("1:+1:1731410499:{token}"),
            format!("1::1731410499:{token}"),
            format!("1:0:1731410499:{token}:"),
            format!("1:0:{token}"),
            format!("1:0:1731410499:{}", &token[1..]),
            format!("1:0:1731410499:{}!", &token[1..]),
        ] {
            assert_eq!(Challenge::parse(&header), None, "{header}");
        }
    }
}
