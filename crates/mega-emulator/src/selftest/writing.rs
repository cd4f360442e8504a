//! What a write-back engine sends: batches, trees and copies in one `p`, versions, tokens, `cr`.

use super::*;

fn folder(c: &Client, id: &str, name: &str, seed: u8) -> Value {
    c.entry(id, name, &NodeKey::Folder([seed; 16]))
}

fn below(mut entry: Value, parent: &str) -> Value {
    entry["p"] = json!(parent);
    entry
}

fn file_key(seed: u8, plain: &[u8]) -> NodeKey {
    let (key, nonce) = ([seed; 16], [seed; 8]);
    let mac = crypto::file_mac(&key, &nonce, plain);
    NodeKey::File { key, nonce, mac }
}

fn paths(emulator: &Emulator) -> Vec<String> {
    let tree = emulator.tree("a@example.com").unwrap();
    tree.into_iter().map(|n| n.path).collect()
}

fn violations(emulator: &Emulator) -> String {
    emulator.counters().violations.join("\n")
}

#[test]
fn one_request_takes_commands_of_all_kinds() {
    let (emulator, mut c) = start();
    let h = c.file("f", b"data", 1);
    let made = c.one(json!({"a":"p","t":c.root,"n":[folder(&c, "xxxxxxxx", "d", 2)]}));
    let dir = made["f"][0]["h"].clone();
    emulator.reset_counters();
    let at = b64(&crypto::seal_attributes(&[2; 16], r#"{"n":"renamed"}"#));
    let replies = c.cs(json!([
        {"a":"m","n":h,"t":dir,"i":"me"},
        {"a":"m","n":"AAAAAAAA","t":dir},
        {"a":"a","n":dir,"at":at},
        {"a":"p","t":dir,"n":[folder(&c, "xxxxxxxx", "sub", 3)],"i":"me"},
        {"a":"u","s":5,"v":2},
        {"a":"g","g":1,"n":h},
        {"a":"d","n":h},
        {"a":"d","n":h},
        {"a":"uq"},
    ]));
    let numbers: Vec<Option<i64>> = (0..9).map(|i| replies[i].as_i64()).collect();
    let wanted = [
        Some(0),
        Some(-9),
        Some(0),
        None,
        None,
        None,
        Some(0),
        Some(-9),
        None,
    ];
    assert_eq!(numbers, wanted);
    assert_eq!(replies[3]["f"][0]["p"], dir);
    assert!(replies[4]["p"].is_string() && replies[5]["g"].is_string());
    assert_eq!(paths(&emulator), ["/renamed", "/renamed/sub"]);
    let counters = emulator.counters();
    assert_eq!(counters.requests("cs"), 1);
    assert_eq!(
        (counters.commands("d"), counters.requests_with("d")),
        (2, 1)
    );
    assert_eq!((counters.largest_batch, counters.commands("k")), (9, 0));
    assert_clean(&emulator);
}

#[test]
fn one_p_puts_uploads_and_folder_trees() {
    let (emulator, mut c) = start();
    let (one, one_key) = c.upload(b"one", 1);
    let (two, two_key) = c.upload(b"two", 2);
    let n = json!([
        folder(&c, "AAAAAAAA", "top", 3),
        below(folder(&c, "BBBBBBBB", "sub", 4), "AAAAAAAA"),
        below(c.entry(&one, "one", &one_key), "BBBBBBBB"),
        c.entry(&two, "two", &two_key),
    ]);
    let p = c.one(json!({"a":"p","t":c.root,"n":n}));
    assert_eq!(p["f"][2]["p"], p["f"][1]["h"]);
    assert_eq!(p["f"][3]["i"], 3);
    let wanted = ["/top", "/two", "/top/sub", "/top/sub/one"];
    assert_eq!(paths(&emulator), wanted);
    // One packet tells of all.
    let events = c.events();
    assert_eq!(
        (events.len(), events[0]["t"]["f"].as_array().unwrap().len()),
        (1, 4)
    );
    assert_clean(&emulator);
    // Ids that two folders have, and parents that come later.
    let n = json!([
        folder(&c, "AAAAAAAA", "a", 5),
        folder(&c, "AAAAAAAA", "b", 6),
        below(folder(&c, "CCCCCCCC", "c", 7), "AAAAAAAA"),
    ]);
    c.one(json!({"a":"p","t":c.root,"n":n}));
    let n = json!([below(folder(&c, "CCCCCCCC", "c", 8), "BBBBBBBB")]);
    assert_eq!(c.one(json!({"a":"p","t":c.root,"n":n})), -9);
    let texts = violations(&emulator);
    assert!(
        texts.contains("two folders have") && texts.contains("not earlier"),
        "{texts}"
    );
}

#[test]
fn failed_entries_take_the_command_or_only_themselves() {
    let (emulator, mut c) = start();
    let n = json!([
        folder(&c, "AAAAAAAA", "a", 1),
        folder(&c, "BBBBBBBB", "b", 2),
        below(folder(&c, "CCCCCCCC", "c", 3), "BBBBBBBB"),
    ]);
    let fail = FaultAction::EntryError {
        index: 1,
        code: -11,
    };
    let fault = |count| FaultRule::once("cmd:p", fail.clone()).times(count);
    emulator.faults().add(fault(3));
    assert_eq!(c.one(json!({"a":"p","t":c.root,"n":n})), -11);
    assert!(paths(&emulator).is_empty() && c.events().is_empty());
    // Sparse: the folder below the failed one fails with it.
    let p = c.one(json!({"a":"p","t":c.root,"sm":1,"n":n}));
    assert_eq!(p["f"].as_array().unwrap().len(), 1);
    assert_eq!(
        (p["f"][0]["i"].as_u64(), paths(&emulator).len()),
        (Some(0), 1)
    );
    let body = json!([{"a":"p","v":4,"sm":1,"t":c.root,"n":n}]).to_string();
    let path = format!("/cs?id=x77&v=3&sid={}", c.sid);
    let p = http(c.address, "POST", &path, body.as_bytes(), "").unwrap();
    assert_eq!(p.json()[0][1]["e"], json!([0, -11, -9]));
    assert_clean(&emulator);
}

#[test]
fn copies_become_versions_and_late_overwrites_siblings() {
    let (emulator, mut c) = start();
    let source = c.file("source", b"content", 1);
    let old = c.file("target", b"old", 2);
    let key = file_key(1, b"content");
    let mut entry = c.entry(&source, "target", &key);
    entry["ov"] = json!(old);
    let p = c.one(json!({"a":"p","t":c.root,"n":[entry]}));
    let head = p["f"][0]["h"].as_str().unwrap().to_owned();
    assert_eq!(emulator.content(&head).unwrap(), b"content");
    let version = |h: &str| {
        let tree = emulator.tree("a@example.com").unwrap();
        tree.iter()
            .find(|n| n.handle == h)
            .unwrap()
            .version_of
            .clone()
    };
    assert_eq!(version(&old), Some(head.clone()));
    // `old` is no head any more; of two entries for one file only the first replaces it.
    let ov = |h: &str| {
        let mut entry = c.entry(&source, "target", &key);
        entry["ov"] = json!(h);
        entry
    };
    let n = json!([ov(&old), ov(&head), ov(&head)]);
    let p = c.one(json!({"a":"p","t":c.root,"n":n}));
    let heads = |i: usize| p["f"][i]["h"].as_str().unwrap().to_owned();
    assert_eq!(version(&head), Some(heads(1)));
    assert_eq!((version(&heads(0)), version(&heads(2))), (None, None));
    assert_eq!(emulator.counters().late_overwrites, 2);
    // A source that has gone.
    assert_eq!(c.one(json!({"a":"d","n":source})), 0);
    let entry = c.entry(&source, "late", &key);
    assert_eq!(c.one(json!({"a":"p","t":c.root,"n":[entry]})), -9);
    assert_clean(&emulator);
}

#[test]
fn tokens_work_once() {
    let (emulator, mut c) = start();
    let (token, key) = c.upload(b"one", 1);
    let entry = c.entry(&token, "one", &key);
    let twice = json!({"a":"p","t":c.root,"n":[entry, entry]});
    assert_eq!(c.one(twice), -9);
    assert!(violations(&emulator).contains("in two entries"));
    let put = json!({"a":"p","t":c.root,"n":[entry]});
    assert_eq!(c.one(put.clone())["f"][0]["s"], 3);
    // A client that never saw the reply asks once more: refused, but no violation.
    assert_eq!(c.one(put), -9);
    let counters = emulator.counters();
    assert_eq!((counters.token_repeats, counters.violation_count), (1, 1));
    let other = c.entry(&token, "one", &file_key(9, b"one"));
    assert_eq!(c.one(json!({"a":"p","t":c.root,"n":[other]})), -9);
    assert!(violations(&emulator).contains("used twice"));
    // Tokens that waited too long.
    let put = |c: &mut Client, seed: u8, expire: &dyn Fn()| {
        let (token, key) = c.upload(b"late", seed);
        expire();
        let entry = c.entry(&token, "late", &key);
        c.one(json!({"a":"p","t":c.root,"n":[entry]}))
    };
    assert_eq!(put(&mut c, 3, &|| emulator.expire_tokens()), -8);
    assert_eq!(
        put(&mut c, 4, &|| emulator.set(|k| k.token_life_ms = Some(0))),
        -8
    );
    emulator.set(|k| k.token_life_ms = None);
    assert!(put(&mut c, 5, &|| ())["f"].is_array());
    assert_eq!(emulator.counters().violation_count, 2);
}

#[test]
fn puts_into_the_bin_or_nowhere_land_in_the_bin() {
    let (emulator, mut c) = start();
    let list = [
        Fixture::folder("/a"),
        Fixture::folder("/b"),
        Fixture::Trash { path: "/a".into() },
    ];
    let made = emulator.populate("a@example.com", &list).unwrap();
    let put = |c: &mut Client, target: &str, seed| {
        let n = json!([folder(c, "xxxxxxxx", "new", seed)]);
        c.one(json!({"a":"p","t":target,"n":n}))["f"][0].clone()
    };
    assert_eq!(put(&mut c, &made[0], 1)["p"], json!(made[0]));
    assert_eq!(c.one(json!({"a":"d","n":made[1]})), 0);
    put(&mut c, &made[1], 2);
    assert_eq!(paths(&emulator), ["//bin/a", "//bin/new", "//bin/a/new"]);
    assert_clean(&emulator);
}

#[test]
fn keys_for_shares_are_checked() {
    let (emulator, mut c) = start();
    let list = [Fixture::folder("/s"), Fixture::Link { path: "/s".into() }];
    let made = emulator.populate("a@example.com", &list).unwrap();
    let (root, link) = (made[0].clone(), made[1].split_once('#').unwrap());
    let share = crypto::block_at(&unb64(link.1).unwrap());
    let wrapped = |key: &[u8]| b64(&crypto::ecb_encrypt(&share, key));
    let put = |c: &mut Client, cr: Value| {
        let n = json!([
            folder(c, "AAAAAAAA", "one", 1),
            folder(c, "AAAAAAAA", "two", 2)
        ]);
        let mut command = json!({"a":"p","t":root,"n":n});
        if !cr.is_null() {
            command["cr"] = cr;
        }
        assert!(c.one(command)["f"].is_array());
    };
    let (one, two) = (wrapped(&[1; 16]), wrapped(&[2; 16]));
    put(&mut c, json!([[root], [], [0, 0, one, 0, 1, two]]));
    put(
        &mut c,
        json!([[root], ["AAAAAAAA", "AAAAAAAA"], [0, 0, one, 0, 1, two]]),
    );
    assert_clean(&emulator);
    // The visitor can open what was put.
    let body = json!([{"a":"f","c":1,"r":1}]).to_string();
    let path = format!("/cs?id=v1&n={}", link.0);
    let f = http(c.address, "POST", &path, body.as_bytes(), "")
        .unwrap()
        .json();
    assert!(
        f[0]["f"]
            .as_array()
            .unwrap()
            .iter()
            .any(|n| n["k"] == format!("{root}:{two}"))
    );
    let mut expect = |cr: Value, text: &str| {
        emulator.reset_counters();
        put(&mut c, cr);
        let texts = violations(&emulator);
        assert!(texts.contains(text), "{text} missing in {texts}");
    };
    expect(Value::Null, "no key for share");
    expect(
        json!([[root], [], [0, 0, one, 0, 1, one]]),
        "entry 1 is not the node's",
    );
    expect(
        json!([[root], [], [0, 0, one, 0, 1, two, 0, 0, one]]),
        "two keys for one node",
    );
    expect(json!([[root], [], [0, 0, one, 0, 1]]), "consist of triples");
    expect(json!([[root], [], [0, 0, one, 0, 7, two]]), "no entry");
    expect(
        json!([[root], ["AAAAAAAA"], [0, 0, one, 0, 7, two]]),
        "beyond its list",
    );
    expect(json!([["AAAAAAAA"], [], [0, 0, one]]), "no share above");
    expect(json!([[root], [], [0, 0, "AAAA"]]), "canonical base64");
    expect(json!("x"), "three arrays");
    // A move into the share needs the keys of all that is moved.
    emulator.reset_counters();
    let n = json!([
        folder(&c, "AAAAAAAA", "t", 5),
        below(folder(&c, "BBBBBBBB", "u", 6), "AAAAAAAA")
    ]);
    let p = c.one(json!({"a":"p","t":c.root,"n":n}));
    let (t, u) = (p["f"][0]["h"].clone(), p["f"][1]["h"].clone());
    let cr = json!([
        [root],
        [t, u],
        [0, 0, wrapped(&[5; 16]), 0, 1, wrapped(&[6; 16])]
    ]);
    assert_eq!(c.one(json!({"a":"m","n":t,"t":root,"cr":cr})), 0);
    assert_clean(&emulator);
    assert_eq!(c.one(json!({"a":"m","n":t,"t":c.root})), 0);
    let cr = json!([[root], [t], [0, 0, wrapped(&[9; 16])]]);
    assert_eq!(c.one(json!({"a":"m","n":t,"t":root,"cr":cr})), 0);
    assert!(violations(&emulator).contains("is not that of"));
}

#[test]
fn deleting_a_folder_ends_the_shares_below_it() {
    let (emulator, mut c) = start();
    let mut b = Client::login(&emulator, "b@example.com");
    let list = [
        Fixture::folder("/top/shared/deep"),
        Fixture::Share {
            path: "/top/shared".into(),
            to: "b@example.com".into(),
            level: 2,
        },
    ];
    emulator.populate("a@example.com", &list).unwrap();
    b.events();
    let top = emulator.find("a@example.com", "/top").unwrap().handle;
    // On a folder `v` means nothing.
    assert_eq!(c.one(json!({"a":"d","n":top,"v":1})), 0);
    assert!(paths(&emulator).is_empty());
    let kinds: Vec<Value> = b.events().iter().map(|e| e["a"].clone()).collect();
    assert_eq!(kinds, ["s2", "d"]);
    assert_eq!(
        b.one(json!({"a":"f","c":1}))["f"].as_array().unwrap().len(),
        3
    );
    assert_clean(&emulator);
}
