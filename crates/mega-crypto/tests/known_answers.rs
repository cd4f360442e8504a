//! Every group of the protocol's known answers, each entry made by an independent implementation.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;

use mega_crypto::{
    AttrKey, Attributes, Challenge, ChunkMac, ContentCipher, ContentKey, FileKey, Fingerprint,
    FingerprintBuilder, KeyRing, KeySource, MacVerdict, MasterKey, MetaMac, NodeKey, Nonce,
    PasswordKey, RsaPrivateKey, UploadKey, WrapKey, chunk_count, chunk_index_at, chunk_range,
    chunk_start, decrypt_listing, derive_v2, ecb_decrypt, ecb_encrypt, meta_mac, normalise_email,
    obscure_with_iv, password_key_v1, password_key_v1_utf8, raid, reveal, session_user,
    share_handle_auth, upload_checksum, user_hash_v1, verify_meta_mac, verify_share_handle_auth,
};
use mega_proto::b64;
use serde_json::Value;
use sha2::{Digest, Sha256, Sha512_256};

static FILE: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("vectors/07-test-vectors.json")).unwrap());

fn group(name: &str) -> &'static [Value] {
    FILE["groups"][name].as_array().unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).unwrap() as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Members of one entry, by name.
trait Entry {
    fn text(&self, name: &str) -> &str;
    fn number(&self, name: &str) -> u64;
    fn bytes(&self, name: &str) -> Vec<u8>;
    fn b64(&self, name: &str) -> Vec<u8>;
}

impl Entry for Value {
    fn text(&self, name: &str) -> &str {
        self[name]
            .as_str()
            .unwrap_or_else(|| panic!("no text {name} in {self}"))
    }
    fn number(&self, name: &str) -> u64 {
        self[name]
            .as_u64()
            .unwrap_or_else(|| panic!("no number {name} in {self}"))
    }
    fn bytes(&self, name: &str) -> Vec<u8> {
        unhex(self.text(name))
    }
    fn b64(&self, name: &str) -> Vec<u8> {
        b64::decode(self.text(name)).unwrap()
    }
}

/// The generator of file contents.
fn content(size: u64) -> Vec<u8> {
    (0..size).map(|i| ((i * 7 + 3) % 251) as u8).collect()
}

fn cipher_of(entry: &Value) -> (ContentKey, Nonce, ContentCipher) {
    let key = ContentKey::from_slice(&entry.bytes("aes_key_hex")).unwrap();
    let nonce = Nonce::from_slice(&entry.bytes("nonce_hex")).unwrap();
    let cipher = ContentCipher::new(&key, &nonce);
    (key, nonce, cipher)
}

/// One test per group, and one that no group is missing.
macro_rules! groups {
    ($($name:ident),* $(,)?) => {
        #[test]
        fn no_group_is_left_out() {
            let mut known = vec![$(stringify!($name)),*];
            known.sort_unstable();
            let mut all: Vec<&str> =
                FILE["groups"].as_object().unwrap().keys().map(String::as_str).collect();
            all.sort_unstable();
            assert_eq!(known, all);
        }

        mod of_group {
            $(#[test]
            fn $name() {
                let entries = super::group(stringify!($name));
                assert!(!entries.is_empty());
                for entry in entries {
                    super::check::$name(entry);
                }
            })*
        }
    };
}

groups!(
    attributes,
    base64,
    base64_decode_tolerance,
    chunk_boundaries,
    ctr,
    derived_key_v2,
    file_key_compose,
    fingerprint,
    fingerprint_mtime,
    hashcash,
    hashcash_threshold,
    key_unwrap,
    login_exchange,
    mac,
    nodes_written_by_clients,
    password_key_v1,
    password_key_v1_non_ascii,
    raid_part_sizes,
    raid_parts,
    rclone_obscure,
    rsa_session,
    share_handle_auth,
    upload_checksum,
    user_hash_v1,
);

mod check {
    use super::*;

    pub(super) fn base64(entry: &Value) {
        assert_eq!(b64::encode(&entry.bytes("hex")), entry.text("b64"));
        assert_eq!(entry.b64("b64"), entry.bytes("hex"));
    }

    pub(super) fn base64_decode_tolerance(entry: &Value) {
        assert_eq!(entry.b64("b64"), entry.bytes("hex"));
    }

    pub(super) fn password_key_v1(entry: &Value) {
        let password = entry.text("password");
        let key = super::password_key_v1(password);
        assert_eq!(hex(key.as_bytes()), entry.text("key_hex"));
        assert!(password.is_ascii());
        assert_eq!(password_key_v1_utf8(password), key);
    }

    pub(super) fn password_key_v1_non_ascii(entry: &Value) {
        let password = entry.text("password");
        let key = super::password_key_v1(password);
        assert_eq!(hex(key.as_bytes()), entry.text("key_hex"));
        let variant = entry.text("utf8_variant_hex_used_by_third_party_clients");
        assert_eq!(hex(password_key_v1_utf8(password).as_bytes()), variant);
    }

    pub(super) fn user_hash_v1(entry: &Value) {
        let email = entry.text("email");
        assert_eq!(normalise_email(email), entry.text("email_hashed_as"));
        let key = super::password_key_v1(entry.text("password"));
        assert_eq!(super::user_hash_v1(email, &key), entry.text("uh"));
    }

    pub(super) fn derived_key_v2(entry: &Value) {
        let keys = derive_v2(entry.text("password"), &entry.b64("salt_b64"));
        assert_eq!(
            hex(keys.password_key.as_bytes()),
            entry.text("password_key_hex")
        );
        assert_eq!(keys.auth_key, entry.text("uh_b64"));
        let auth = b64::decode(&keys.auth_key).unwrap();
        assert_eq!(hex(&auth), entry.text("auth_key_hex"));
        let derived = [keys.password_key.as_bytes().as_slice(), &auth].concat();
        assert_eq!(hex(derived), entry.text("derived_hex"));
        let server_side = hex(&Sha256::digest(&auth)[..16]);
        assert_eq!(server_side, entry.text("hashed_auth_key_hex_server_side"));
    }

    pub(super) fn key_unwrap(entry: &Value) {
        let master = MasterKey::from_slice(&entry.bytes("master_key_hex")).unwrap();
        let wrapped = entry.b64("wrapped_b64");
        let is_folder = entry.text("kind") == "folder";
        let key = master.unwrap_node_key(&wrapped, is_folder).unwrap();
        assert_eq!(hex(key.as_bytes()), entry.text("node_key_hex"));
        assert_eq!(master.wrap_node_key(&key), wrapped);
        let mut again = wrapped.clone();
        ecb_decrypt(master.as_bytes(), &mut again);
        assert_eq!(again, key.as_bytes());
        ecb_encrypt(master.as_bytes(), &mut again);
        assert_eq!(again, wrapped);
        match key {
            NodeKey::Folder(key) => {
                assert!(is_folder);
                assert_eq!(key.attr_key().as_bytes(), key.as_bytes());
            }
            NodeKey::File(key) => {
                assert_eq!(hex(key.aes_key().as_bytes()), entry.text("aes_key_hex"));
                assert_eq!(hex(key.attr_key().as_bytes()), entry.text("aes_key_hex"));
                assert_eq!(hex(key.nonce().as_bytes()), entry.text("nonce_hex"));
                assert_eq!(hex(key.meta_mac().as_bytes()), entry.text("meta_mac_hex"));
                // The counter block and the first MAC state show in what they encrypt to.
                let cipher = ContentCipher::new(&key.aes_key(), &key.nonce());
                let (mut stream, mut counter) = ([0; 16], [0; 16]);
                cipher.apply(0, &mut stream);
                counter.copy_from_slice(&entry.bytes("ctr_iv_at_0_hex"));
                ecb_encrypt(key.aes_key().as_bytes(), &mut counter);
                assert_eq!(stream, counter);
                let mut start = [0; 16];
                start.copy_from_slice(&entry.bytes("mac_iv_hex"));
                assert_eq!(cipher.chunk_mac(&[]).as_bytes(), &start);
                ecb_encrypt(key.aes_key().as_bytes(), &mut start);
                assert_eq!(cipher.chunk_mac(&[0; 16]).as_bytes(), &start);
            }
        }
    }

    pub(super) fn file_key_compose(entry: &Value) {
        let journal = [entry.bytes("transfer_key_hex"), entry.bytes("nonce_hex")].concat();
        let upload = UploadKey::from_journal(&journal.try_into().unwrap());
        let cipher = ContentCipher::new(upload.content_key(), upload.nonce());
        let size = entry.number("size");
        let macs = cipher.encrypt_chunks(0, &mut content(size));
        let mac = meta_mac(upload.content_key(), &macs);
        assert_eq!(hex(mac.as_bytes()), entry.text("meta_mac_hex"));
        let key = upload.seal(&mac);
        assert_eq!(hex(key.as_bytes()), entry.text("node_key_hex"));
        assert_eq!(b64::encode(key.as_bytes()), entry.text("link_key_b64"));
        assert_eq!(verify_meta_mac(&key, size, &macs), MacVerdict::Match);
    }

    pub(super) fn attributes(entry: &Value) {
        let key = AttrKey::from_slice(&entry.bytes("aes_key_hex")).unwrap();
        let blob = entry.b64("encrypted_b64");
        assert_eq!(blob.len() as u64, entry.number("plaintext_padded_len"));
        let attributes = Attributes::decrypt(&key, &blob).unwrap();
        assert_eq!(
            format!("MEGA{}", attributes.to_json()),
            entry.text("plaintext_utf8")
        );
        let decoded = entry["decoded"].as_object().unwrap();
        for (name, value) in decoded {
            assert_eq!(attributes.get(name).as_ref(), Some(value));
        }
        assert_eq!(attributes.names().count(), decoded.len());
        assert_eq!(attributes.name(), decoded["n"].as_str());
        assert_eq!(attributes.encrypt(&key).unwrap(), blob);
        let listing = decrypt_listing(&key, &blob).unwrap();
        assert_eq!(listing.name.as_deref(), attributes.name());
        assert_eq!(listing.mtime, attributes.fingerprint().map(|c| c.mtime));
        assert_eq!(listing.mtime.is_some(), decoded.contains_key("c"));
    }

    pub(super) fn chunk_boundaries(entry: &Value) {
        let size = entry.number("size");
        let count = entry.number("count");
        assert_eq!(chunk_count(size), count);
        let chunks: Vec<[u64; 2]> = (0..count)
            .map(|index| {
                let range = chunk_range(index, size).unwrap();
                assert_eq!(chunk_start(index), range.start);
                assert_eq!(chunk_index_at(range.start), index);
                assert_eq!(chunk_index_at(range.end - 1), index);
                [range.start, range.end - range.start]
            })
            .collect();
        assert_eq!(chunk_range(count, size), None);
        let pairs = |name: &str| -> Option<Vec<[u64; 2]>> {
            serde_json::from_value(entry.get(name)?.clone()).unwrap()
        };
        if let Some(all) = pairs("offset_length") {
            assert_eq!(chunks, all);
        } else {
            assert_eq!(chunks[..14], pairs("first_14").unwrap());
            let last: [u64; 2] = serde_json::from_value(entry["last"].clone()).unwrap();
            assert_eq!(*chunks.last().unwrap(), last);
        }
    }

    pub(super) fn mac(entry: &Value) {
        let size = entry.number("size");
        let (key, nonce, cipher) = cipher_of(entry);
        let plain = content(size);
        let expected: Vec<&str> = entry["chunk_macs_hex"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m.as_str().unwrap())
            .collect();
        let as_hex = |macs: &[ChunkMac]| macs.iter().map(|m| hex(m.as_bytes())).collect::<Vec<_>>();

        let chunks: Vec<&[u8]> = (0..chunk_count(size))
            .map(|index| {
                let range = chunk_range(index, size).unwrap();
                &plain[range.start as usize..range.end as usize]
            })
            .collect();
        let serial: Vec<ChunkMac> = chunks.iter().map(|chunk| cipher.chunk_mac(chunk)).collect();
        assert_eq!(as_hex(&serial), expected);
        assert_eq!(as_hex(&cipher.chunk_macs(&chunks)), expected);
        let mut data = plain.clone();
        assert_eq!(as_hex(&cipher.encrypt_chunks(0, &mut data)), expected);
        assert_eq!(hex(Sha512_256::digest(&data)), entry.text("ct_sha512_256"));
        assert_eq!(
            hex(&data[..data.len().min(64)]),
            entry.text("ct_first64_hex")
        );
        let macs = cipher.decrypt_chunks(0, &mut data);
        assert_eq!(as_hex(&macs), expected);
        assert!(data == plain);

        let mac = meta_mac(&key, &macs);
        assert_eq!(hex(mac.as_bytes()), entry.text("meta_mac_hex"));
        let verdict =
            |mac: &MetaMac| verify_meta_mac(&FileKey::from_parts(&key, &nonce, mac), size, &macs);
        let wrong = MetaMac::from_bytes(*b"01234567");
        if size == 0 {
            assert_eq!(verdict(&mac), MacVerdict::Empty);
            assert_eq!(verdict(&wrong), MacVerdict::Empty);
        } else {
            assert_eq!(verdict(&mac), MacVerdict::Match);
            assert_eq!(verdict(&wrong), MacVerdict::Mismatch);
        }
        for (client, value) in entry["nonconforming_values_seen_in_the_wild"]
            .as_object()
            .into_iter()
            .flatten()
        {
            let value = MetaMac::from_slice(&unhex(value.as_str().unwrap())).unwrap();
            let tolerated = match size {
                0 => MacVerdict::Empty,
                _ => MacVerdict::ToleratedMegajs,
            };
            assert_eq!(verdict(&value), tolerated, "{client}, {size} bytes");
        }
    }

    pub(super) fn upload_checksum(entry: &Value) {
        let (_, _, cipher) = cipher_of(&group("mac")[0]);
        let mut body = content(entry.number("size"));
        cipher.apply(0, &mut body);
        assert_eq!(
            b64::encode(&super::upload_checksum(&body)),
            entry.text("d_param_b64")
        );
    }

    pub(super) fn ctr(entry: &Value) {
        let (key, _, cipher) = cipher_of(entry);
        let offset = entry.number("offset");
        let mut data = entry.bytes("plain_hex");
        cipher.apply(offset, &mut data);
        assert_eq!(hex(&data), entry.text("cipher_hex"));
        let mut counter = entry.bytes("counter_block_hex");
        ecb_encrypt(key.as_bytes(), &mut counter);
        let skip = entry
            .get("skip_in_first_block")
            .map_or(0, |skip| skip.as_u64().unwrap());
        assert_eq!(offset % 16, skip);
        let mut stream = vec![0; 16 - skip as usize];
        cipher.apply(offset, &mut stream);
        assert_eq!(stream, counter[skip as usize..]);
    }

    pub(super) fn fingerprint(entry: &Value) {
        let size = entry.number("size");
        let plain = content(size);
        let mtime = entry["mtime"].as_i64().unwrap();
        let mut whole = FingerprintBuilder::new(size);
        whole.feed(0, &plain);
        assert!(whole.is_complete());
        let made = whole.finish(mtime);
        assert_eq!(hex(made.crc), entry.text("crc_hex"));
        assert_eq!(made.to_attr(), entry.text("c"));
        let mut sampled = FingerprintBuilder::new(size);
        for window in FingerprintBuilder::windows(size).into_iter().rev() {
            sampled.feed(
                window.start,
                &plain[window.start as usize..window.end as usize],
            );
        }
        assert!(sampled.is_complete());
        assert_eq!(sampled.finish(mtime), made);
        assert_eq!(Fingerprint::parse(entry.text("c")), Some(made));
    }

    pub(super) fn fingerprint_mtime(entry: &Value) {
        let size = entry.number("size");
        let mtime = entry["mtime"].as_i64().unwrap();
        let mut builder = FingerprintBuilder::new(size);
        builder.feed(0, &content(size));
        assert_eq!(builder.finish(mtime).to_attr(), entry.text("c"));
        let parsed = Fingerprint::parse(entry.text("c")).unwrap();
        assert_eq!(parsed.mtime, mtime);
        assert_eq!(builder.finish(0).with_mtime(mtime), parsed);
    }

    pub(super) fn rsa_session(entry: &Value) {
        // The second entry uses the key of the first.
        let owner = &group("rsa_session")[0];
        let master = MasterKey::from_slice(&owner.bytes("master_key_hex")).unwrap();
        let privk = owner.b64("privk_b64");
        let mut plain = privk.clone();
        ecb_decrypt(master.as_bytes(), &mut plain);
        let stated = owner.b64("privk_plain_b64");
        assert_eq!(plain[..stated.len()], stated);
        let key = RsaPrivateKey::decrypt_from(&master, &privk).unwrap();
        assert_eq!(key.sealed(), privk);
        let csid = entry.b64("csid_b64");
        let sid = key.decrypt_session_id(&csid).unwrap();
        assert_eq!(sid, entry.text("sid_b64"));
        assert_eq!(session_user(&sid).unwrap(), owner.text("user_handle"));
        let field = key.decrypt_key(&csid).unwrap();
        assert_eq!(field.len(), 254);
        if entry.get("rsa_plaintext_254_hex").is_some() {
            assert_eq!(hex(&field), entry.text("rsa_plaintext_254_hex"));
            assert_eq!(hex(b64::decode(&sid).unwrap()), entry.text("sid_raw_hex"));
        } else {
            assert_eq!(field[0], 0);
        }
        let other = MasterKey::from_bytes([1; 16]);
        assert!(RsaPrivateKey::decrypt_from(&other, &privk).is_err());
    }

    pub(super) fn share_handle_auth(entry: &Value) {
        let master = MasterKey::from_slice(&entry.bytes("master_key_hex")).unwrap();
        let handle = entry.text("handle");
        let ha = super::share_handle_auth(&master, handle).unwrap();
        assert_eq!(b64::encode(&ha), entry.text("ha_b64"));
        assert!(verify_share_handle_auth(&master, handle, &ha));
        assert!(!verify_share_handle_auth(&master, "abcdEFGI", &ha));
        assert!(!verify_share_handle_auth(&master, handle, &[0; 16]));
        assert!(!verify_share_handle_auth(&master, handle, &ha[..15]));
    }

    pub(super) fn hashcash(entry: &Value) {
        let challenge = Challenge::parse(entry.text("header_from_server")).unwrap();
        assert_eq!(u64::from(challenge.easiness()), entry.number("easiness"));
        assert_eq!(
            format!("{:08x}", challenge.threshold()),
            entry.text("threshold_hex")
        );
        let prefix = u32::from_str_radix(entry.text("prefix_hex"), 16).unwrap();
        let number = challenge.number_of(prefix);
        assert_eq!(format!("{number:08x}"), entry.text("sha256_first4_hex"));
        if entry.get("valid").is_some() {
            assert_eq!(entry["valid"], false);
            assert_eq!(challenge.try_prefix(prefix), None);
        } else {
            let solution = challenge.try_prefix(prefix).unwrap();
            assert_eq!(solution, entry.text("solution_header"));
        }
    }

    pub(super) fn hashcash_threshold(entry: &Value) {
        let token = "A".repeat(64);
        let header = format!("1:{}:0:{token}", entry.number("easiness"));
        let threshold = Challenge::parse(&header).unwrap().threshold();
        assert_eq!(format!("{threshold:x}"), entry.text("threshold_hex"));
    }

    pub(super) fn raid_part_sizes(entry: &Value) {
        let sizes: Vec<u64> = serde_json::from_value(entry["part_sizes"].clone()).unwrap();
        assert_eq!(raid::part_sizes(entry.number("size")).to_vec(), sizes);
    }

    pub(super) fn raid_parts(entry: &Value) {
        let cipher = content(entry.number("size"));
        let parts = raid::split(&cipher);
        let expected = entry["parts_hex"].as_array().unwrap();
        for (part, expected) in parts.iter().zip(expected) {
            assert_eq!(hex(part), expected.as_str().unwrap());
        }
        for missing in 0..raid::PARTS {
            let given =
                std::array::from_fn(|part| (part != missing).then(|| parts[part].as_slice()));
            assert_eq!(raid::join(&given, cipher.len()).unwrap(), cipher);
        }
    }

    pub(super) fn rclone_obscure(entry: &Value) {
        let iv = entry.bytes("iv_hex").try_into().unwrap();
        assert_eq!(
            obscure_with_iv(entry.text("clear"), iv),
            entry.text("obscured")
        );
        assert_eq!(
            reveal(entry.text("obscured")).unwrap().expose(),
            entry.text("clear")
        );
    }

    pub(super) fn nodes_written_by_clients(entry: &Value) {
        let master = MasterKey::from_slice(&entry.bytes("master_key_hex")).unwrap();
        let k = entry.text("k_full");
        let (me, _) = k.split_once(':').unwrap();
        let ring = KeyRing::new(master.clone(), Some(me.to_owned()), None);
        let is_folder = entry.number("type") == 1;
        let a = entry.text("a");
        for k in [k, entry.text("k_without_owner")] {
            for attrs in [Some(a), None] {
                let found = ring.resolve(k, is_folder, attrs).unwrap();
                assert_eq!(found.via, KeySource::Master);
                assert_eq!(hex(found.key.as_bytes()), entry.text("node_key_hex"));
            }
        }
        let key = ring.resolve(k, is_folder, Some(a)).unwrap().key;
        assert_eq!(
            b64::encode(&master.wrap_node_key(&key)),
            entry.text("k_without_owner")
        );
        assert_eq!(hex(key.attr_key().as_bytes()), entry.text("aes_key_hex"));
        let blob = b64::decode(a).unwrap();
        let attributes = Attributes::decrypt(&key.attr_key(), &blob).unwrap();
        assert_eq!(attributes.name(), Some(entry.text("name")));
        let listing = decrypt_listing(&key.attr_key(), &blob).unwrap();
        assert_eq!(listing.name.as_deref(), Some(entry.text("name")));
        let plain = entry.text("attributes_plain").replace("\": \"", "\":\"");
        assert_eq!(format!("MEGA{}", attributes.to_json()), plain);

        let Some(key) = key.as_file() else { return };
        assert_eq!(hex(key.nonce().as_bytes()), entry.text("nonce_hex"));
        assert_eq!(hex(key.meta_mac().as_bytes()), entry.text("meta_mac_hex"));
        let size = entry.number("size");
        let mut data = content(size);
        let cipher = ContentCipher::new(&key.aes_key(), &key.nonce());
        let macs = cipher.encrypt_chunks(0, &mut data);
        assert_eq!(verify_meta_mac(key, size, &macs), MacVerdict::Match);
        for piece in entry["upload_checksums"].as_array().into_iter().flatten() {
            let start = piece.number("offset") as usize;
            let body = &data[start..start + piece.number("length") as usize];
            let check = b64::encode(&super::upload_checksum(body));
            assert_eq!(check, piece.text("check_b64"));
        }
    }

    pub(super) fn login_exchange(entry: &Value) {
        let (email, password) = (entry.text("email_typed"), entry.text("password"));
        let request = &entry["us_request"][0];
        assert_eq!(normalise_email(email), request.text("user"));
        assert_eq!(normalise_email(email), entry["us0_request"][0].text("user"));
        let prelogin = &entry["us0_reply"][0];
        assert_eq!(prelogin["v"], entry["account_version"]);
        let (key, hash): (PasswordKey, String) = match entry.number("account_version") {
            1 => {
                let key = super::password_key_v1(password);
                let hash = super::user_hash_v1(email, &key);
                (key, hash)
            }
            _ => {
                let keys = derive_v2(password, &prelogin.b64("s"));
                (keys.password_key.clone(), keys.auth_key)
            }
        };
        let (reply, expected) = (&entry["us_reply"][0], &entry["expected"]);
        assert_eq!(hash, request.text("uh"));
        assert_eq!(hex(key.as_bytes()), expected.text("password_key_hex"));
        let master = key.unwrap_master_key(&reply.b64("k")).unwrap();
        assert_eq!(hex(master.as_bytes()), expected.text("master_key_hex"));
        let rsa = RsaPrivateKey::decrypt_from(&master, &reply.b64("privk")).unwrap();
        let sid = rsa.decrypt_session_id(&reply.b64("csid")).unwrap();
        assert_eq!(sid, expected.text("sid"));
        assert_eq!(session_user(&sid).unwrap(), reply.text("u"));
        assert_eq!(reply.text("u"), expected.text("user_handle"));
    }
}

#[test]
fn a_challenge_is_solved_by_several_threads_and_can_be_stopped() {
    let easy = group("hashcash")
        .iter()
        .find(|entry| entry.number("easiness") == 255)
        .unwrap();
    let challenge = Challenge::parse(easy.text("header_from_server")).unwrap();
    for threads in [0, 1, 3] {
        let solution = challenge.solve(&AtomicBool::new(false), threads).unwrap();
        let prefix = b64::decode(solution.rsplit(':').next().unwrap()).unwrap();
        let prefix = u32::from_be_bytes(prefix.try_into().unwrap());
        assert_eq!(challenge.try_prefix(prefix).as_ref(), Some(&solution));
    }
    assert_eq!(challenge.solve(&AtomicBool::new(true), 2), None);
}
