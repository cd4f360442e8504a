//! Logins, transfers, generated trees, persistence.

use super::*;

#[test]
fn uploads_and_downloads_agree() {
    let (emulator, mut c) = start();
    for (i, size) in [0_u64, 1, 131_072, 400_000, 3_000_000]
        .into_iter()
        .enumerate()
    {
        let plain = pattern(9, 0, size);
        let h = c.file("x", &plain, i as u8 + 1);
        assert_eq!(emulator.content(&h).unwrap(), plain);
        let g = c.one(json!({"a":"g","g":1,"n":h,"ssl":2}));
        assert_eq!(g["s"], size);
        let whole = c.get(g["g"].as_str().unwrap()).unwrap();
        assert_eq!((whole.status, whole.body.len() as u64), (200, size));
        if size > 100 {
            let part = c
                .get(&format!("{}/17-99", g["g"].as_str().unwrap()))
                .unwrap();
            assert_eq!(part.body, &whole.body[17..100]);
        }
    }
    let used = c.one(json!({"a":"uq","strg":1}))["cstrg"].as_u64().unwrap();
    assert_eq!(used, 1 + 131_072 + 400_000 + 3_000_000);
    assert_clean(&emulator);
}

#[test]
fn pieces_are_checked() {
    let (emulator, mut c) = start();
    let url = c.one(json!({"a":"u","s":400_000}))["p"]
        .as_str()
        .unwrap()
        .to_owned();
    let data = vec![5; 400_000];
    assert_eq!(c.put(&url, 1, &data[..131_072], "").text(), "-7");
    assert_eq!(c.put(&url, 0, &data[..131_071], "").text(), "-7");
    assert_eq!(
        c.put(&url, 0, &data[..131_072], "?d=AAAAAAAAAAAAAAAB")
            .text(),
        "-14"
    );
    assert_eq!(emulator.counters().violation_count, 3);
    assert_eq!(c.put(&url, 0, &data[..131_072], "").text(), "");
    // 21845 groups of 6 and 2 left: bytes 0 to 7 of the check are hit once more than the rest.
    let check = {
        let mut sum = [0_u8; 12];
        data[131_072..]
            .iter()
            .enumerate()
            .for_each(|(i, b)| sum[i % 12] ^= b);
        b64(&sum)
    };
    let token = c.put(&url, 131_072, &data[131_072..], &format!("?d={check}"));
    assert_eq!(token.body.len(), 36);
    // A repeated last piece gets the same token.
    assert_eq!(c.put(&url, 131_072, &data[131_072..], "").body, token.body);
    // Old-style `u`: the token is text and used as it is.
    let token = token.text();
    let key = NodeKey::File {
        key: [1; 16],
        nonce: [2; 8],
        mac: [3; 8],
    };
    let entry = c.entry(&token, "x", &key);
    c.one(json!({"a":"p","t":c.root.clone(),"n":[entry.clone()]}));
    let violations = emulator.counters().violations;
    assert!(
        violations.last().unwrap().contains("meta-MAC"),
        "{violations:?}"
    );
    assert_eq!(c.one(json!({"a":"p","t":c.root.clone(),"n":[entry]})), -9);
}

#[test]
fn content_that_is_not_kept_is_checked_and_gone() {
    let (emulator, mut c) = start();
    emulator.set(|k| k.keep_content = false);
    let plain: Vec<u8> = (0..900_000_u32).map(|i| (i % 251) as u8).collect();
    let handle = c.file("gone", &plain, 7);
    let node = emulator.find("a@example.com", "/gone").unwrap();
    assert_eq!((node.handle.as_str(), node.size), (&*handle, 900_000));
    let url = c.one(json!({"a":"g","g":1,"n":handle}))["g"].clone();
    assert_eq!(c.get(url.as_str().unwrap()).unwrap().status, 404);
    assert_clean(&emulator);
    let url = c.one(json!({"a":"u","s":131_072}))["p"].clone();
    let bad = c.put(
        url.as_str().unwrap(),
        0,
        &plain[..131_072],
        "?d=AAAAAAAAAAAAAAAB",
    );
    assert_eq!(bad.text(), "-14");
    // What is uploaded while it is on again is there.
    emulator.set(|k| k.keep_content = true);
    let handle = c.file("kept", &plain, 8);
    assert_eq!(emulator.content(&handle).unwrap(), plain);
}

#[test]
fn logins_check_password_code_and_hashcash() {
    let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
    let secret = "JBSWY3DPEHPK3PXP";
    emulator.add_account(AccountSpec {
        totp_secret: Some(secret.into()),
        ..account("t@x.y")
    });
    emulator.add_account(AccountSpec {
        no_rsa: true,
        ..AccountSpec::v1("o@x.y", "p\u{e4}ss")
    });
    let ask = |body: Value, headers: &str, id: u32| {
        let path = format!("/cs?id={id}");
        http(
            emulator.address(),
            "POST",
            &path,
            body.to_string().as_bytes(),
            headers,
        )
        .unwrap()
    };
    let key = crypto::password_key_v1("p\u{e4}ss");
    let uh = b64(&crypto::user_hash_v1("o@x.y", &key));
    assert_eq!(
        ask(json!([{"a":"us0","user":"o@x.y"}]), "", 1).json()[0]["v"],
        1
    );
    assert!(ask(json!([{"a":"us","user":"O@X.Y","uh":uh}]), "", 2).json()[0]["tsid"].is_string());
    assert_eq!(
        ask(json!([{"a":"us","user":"o@x.y","uh":"AAAAAAAAAAA"}]), "", 3).text(),
        "[-9]"
    );
    let salt = ask(json!([{"a":"us0","user":"t@x.y"}]), "", 4).json()[0]["s"].clone();
    let (_, auth) = crypto::derive_v2("secret", &unb64(salt.as_str().unwrap()).unwrap());
    let us = |mfa: Option<&str>| json!([{"a":"us","user":"t@x.y","uh":b64(&auth),"mfa":mfa}]);
    assert_eq!(ask(us(None), "", 5).text(), "[-26]");
    assert_eq!(ask(us(Some("000000")), "", 6).text(), "[-5]");
    assert!(ask(us(Some(&Emulator::totp_code(secret))), "", 7).json()[0]["k"].is_string());
    emulator.set(|k| k.hashcash = Some(255));
    let asked = ask(us(None), "", 8);
    assert_eq!((asked.status, asked.body.len()), (402, 0));
    let token = asked
        .head
        .split("X-Hashcash: ")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap();
    let token = token.rsplit(':').next().unwrap();
    let prefix = (0_u32..)
        .map(|i| b64(&i.to_be_bytes()))
        .find(|p| crate::commands::login::hashcash_holds(token, p, 255))
        .unwrap();
    let solved = ask(us(None), &format!("X-Hashcash: 1:{token}:{prefix}\r\n"), 8);
    assert_eq!(solved.text(), "[-26]");
    assert_clean(&emulator);
}

#[test]
fn a_generated_tree_lists_and_reads() {
    let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
    emulator.add_account(account("a@example.com"));
    let fixture = Fixture::Generated {
        parent: "/big".into(),
        folders: 100,
        fanout: 5,
        files_per_folder: 9,
        max_size: 2000,
    };
    emulator.populate("a@example.com", &[fixture]).unwrap();
    let mut c = Client::login(&emulator, "a@example.com");
    let f = c.one(json!({"a":"f","c":1}));
    assert_eq!(f["f"].as_array().unwrap().len(), 3 + 1 + 100 + 900);
    let tree = emulator.tree("a@example.com").unwrap();
    assert_eq!(tree.len(), 1001);
    let file = tree.iter().find(|n| !n.folder && n.size > 100).unwrap();
    assert_eq!(
        emulator.content(&file.handle).unwrap().len() as u64,
        file.size
    );
    // A renamed, a moved and a deleted one stay consistent with the rest.
    let folder = tree
        .iter()
        .find(|n| n.folder && n.path.matches('/').count() == 4)
        .unwrap();
    assert_eq!(
        c.one(json!({"a":"m","n":folder.handle,"t":c.root.clone()})),
        0
    );
    assert_eq!(c.one(json!({"a":"d","n":file.handle})), 0);
    let after = emulator.tree("a@example.com").unwrap();
    assert_eq!(after.len(), 1000);
    let moved = after.iter().filter(|n| {
        n.path
            .starts_with(&format!("/{}/", folder.name.clone().unwrap()))
    });
    let before = tree
        .iter()
        .filter(|n| n.path.starts_with(&format!("{}/", folder.path)));
    assert_eq!(moved.count(), before.count());
    let f = c.one(json!({"a":"f","c":1}));
    assert_eq!(f["f"].as_array().unwrap().len(), 3 + 1000);
    assert_clean(&emulator);
}

#[test]
fn state_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = || EmulatorConfig {
        data_dir: Some(dir.path().to_path_buf()),
        ..EmulatorConfig::default()
    };
    let emulator = Emulator::start(config()).unwrap();
    let mut c = Client::login(&emulator, "a@example.com");
    let plain = pattern(1, 0, 500_000);
    let h = c.file("kept", &plain, 1);
    let gone = c.file("gone", b"gone", 2);
    assert_eq!(c.one(json!({"a":"d","n":gone})), 0);
    c.events();
    let url = c.one(json!({"a":"u","s":200_000}))["p"]
        .as_str()
        .unwrap()
        .to_owned();
    c.put(&url, 0, &vec![1; 131_072], "");
    c.file("later", b"later", 3);
    let tree = emulator.tree("a@example.com").unwrap();
    drop(emulator);
    for _ in 0..2 {
        let emulator = Emulator::start(config()).unwrap();
        c.address = emulator.address();
        assert_eq!(emulator.tree("a@example.com").unwrap(), tree);
        assert_eq!(emulator.content(&h).unwrap(), plain);
    }
    let emulator = Emulator::start(config()).unwrap();
    c.address = emulator.address();
    // Session, events and the upload in progress are still there.
    let kinds: Vec<Value> = c.events().iter().map(|e| e["a"].clone()).collect();
    assert_eq!(kinds, ["t"]);
    assert_eq!(
        c.put(&url, 131_072, &vec![1; 200_000 - 131_072], "")
            .body
            .len(),
        36
    );
    let next = c.file("next", b"next", 4);
    assert!(!tree.iter().any(|n| n.handle == next || n.handle == gone));
    assert_clean(&emulator);
}

#[test]
fn raid_parts_rebuild_the_file() {
    let (emulator, mut c) = start();
    emulator.set(|k| k.raid_min_size = Some(1));
    let plain = pattern(4, 0, 100_003);
    let h = c.file("raid", &plain, 1);
    let one = c.one(json!({"a":"g","g":1,"n":h}));
    let whole = c.get(one["g"].as_str().unwrap()).unwrap().body;
    let six = c.one(json!({"a":"g","g":1,"n":h,"v":2}));
    let urls = six["g"].as_array().unwrap();
    let parts: Vec<Vec<u8>> = urls[1..]
        .iter()
        .map(|u| c.get(u.as_str().unwrap()).unwrap().body)
        .collect();
    let joined: Vec<u8> = (0..whole.len())
        .map(|i| parts[i % 80 / 16][i / 80 * 16 + i % 16])
        .collect();
    assert_eq!(joined, whole);
    let parity = c.get(urls[0].as_str().unwrap()).unwrap().body;
    assert_eq!(parity.len(), parts[0].len());
    assert!((0..parity.len()).all(|i| {
        parts
            .iter()
            .fold(parity[i], |a, p| a ^ p.get(i).copied().unwrap_or(0))
            == 0
    }));
}

#[test]
fn quota_and_block_are_enforced() {
    let (emulator, mut c) = start();
    emulator.set_account("a@example.com", Some(1000), None);
    assert_eq!(c.one(json!({"a":"u","s":1001})), -17);
    emulator.set(|k| k.transfer_left = Some(3));
    let h = c.file("f", b"12345", 1);
    let g = c.one(json!({"a":"g","g":1,"n":h}));
    assert_eq!((g["e"].clone(), g["tl"].clone()), (json!(-17), json!(3600)));
    emulator.set_account("a@example.com", None, Some(200));
    assert_eq!(c.one(json!({"a":"uq"})), -16);
    assert_eq!(c.one(json!({"a":"whyamiblocked"})), 200);
    emulator.end_sessions(None);
    assert_eq!(c.cs(json!([{"a":"uq"}])), -15);
}
