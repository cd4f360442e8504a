//! Faults, the reply cache, strictness, the control interface.

use super::*;

#[test]
fn a_held_request_is_executed_when_its_rule_goes_although_the_client_has_gone() {
    let (emulator, mut c) = start();
    let entry = c.entry("xxxxxxxx", "late", &NodeKey::Folder([1; 16]));
    let body = json!([{"a":"p","t":c.root,"n":[entry]}]);
    let rule = emulator
        .faults()
        .add(FaultRule::once("cmd:p", FaultAction::Held));
    c.id += 1;
    let id = c.id;
    std::thread::scope(|scope| {
        let held = scope.spawn(|| c.post(id, &body).is_err());
        while emulator.faults().fired(rule) == 0 {
            std::thread::yield_now();
        }
        emulator.cut_connections();
        assert!(held.join().unwrap());
    });
    assert_eq!(emulator.tree("a@example.com").unwrap().len(), 0);
    emulator.faults().remove(rule);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while emulator.tree("a@example.com").unwrap().is_empty() {
        assert!(
            std::time::Instant::now() < deadline,
            "it was never executed"
        );
        std::thread::yield_now();
    }
    assert_clean(&emulator);
}

#[test]
fn a_lost_reply_is_executed_once() {
    let (emulator, mut c) = start();
    let entry = c.entry("xxxxxxxx", "once", &NodeKey::Folder([1; 16]));
    let body = json!([{"a":"p","t":c.root,"n":[entry]}]);
    let rule = emulator
        .faults()
        .add(FaultRule::once("cmd:p", FaultAction::Lost));
    c.id += 1_000_000;
    assert!(c.post(c.id, &body).is_err());
    let again = c.post(c.id, &body).unwrap().json();
    assert_eq!(emulator.faults().fired(rule), 1);
    assert_eq!(emulator.tree("a@example.com").unwrap().len(), 1);
    assert_eq!(c.events().len(), 1);
    assert_eq!(
        again[0]["f"][0]["h"],
        json!(emulator.tree("a@example.com").unwrap()[0].handle)
    );
    assert_eq!(emulator.counters().replayed, 1);
    assert_clean(&emulator);
    // The same id with another body is executed, and a violation.
    c.post(c.id, &json!([{"a":"uq"}])).unwrap();
    assert_eq!(emulator.counters().violation_count, 1);
}

#[test]
fn faults_on_requests_and_commands() {
    let (emulator, mut c) = start();
    let once = |at: &str, action| emulator.faults().add(FaultRule::once(at, action));
    once("cs", FaultAction::Body { text: "-3".into() });
    assert_eq!(c.cs(json!([{"a":"uq"}])), -3);
    once(
        "cmd:uq",
        FaultAction::Status {
            code: 500,
            headers: Vec::new(),
            text: String::new(),
        },
    );
    assert_eq!(c.post(900, &json!([{"a":"uq"}])).unwrap().status, 500);
    once("cs", FaultAction::Reset);
    assert!(c.post(901, &json!([{"a":"uq"}])).is_err());
    once("cmd:u", FaultAction::CommandError { code: -17 });
    assert_eq!(c.one(json!({"a":"u","s":1})), -17);
    once("cs", FaultAction::Truncate { bytes: 5 });
    assert!(c.post(902, &json!([{"a":"uq"}])).is_err());
    let h = c.file("f", &pattern(1, 0, 100_000), 1);
    let url = c.one(json!({"a":"g","g":1,"n":h}))["g"]
        .as_str()
        .unwrap()
        .to_owned();
    let right = c.get(&url).unwrap().body;
    once("dl", FaultAction::FlipBit { byte: 70_000 });
    let flipped = c.get(&url).unwrap().body;
    let differ: Vec<usize> = (0..right.len())
        .filter(|i| right[*i] != flipped[*i])
        .collect();
    assert_eq!(differ, [70_000]);
    once("dl", FaultAction::Shorten { bytes: 10 });
    assert_eq!(c.get(&url).unwrap().body, &right[..10]);
    once("dl", FaultAction::ExtraByte);
    assert_eq!(c.get(&url).unwrap().body.len(), right.len() + 1);
    once(
        "dl",
        FaultAction::Stall {
            after: 1000,
            ms: 30,
        },
    );
    assert_eq!(c.get(&url).unwrap().body, right);
    once("dl", FaultAction::Trickle { rate: 1_000_000 });
    assert_eq!(c.get(&url).unwrap().body, right);
    emulator.expire_urls();
    assert_eq!(c.get(&url).unwrap().status, 403);
    once("cmd:p", FaultAction::ToRubbish);
    let entry = c.entry("xxxxxxxx", "bin", &NodeKey::Folder([1; 16]));
    c.one(json!({"a":"p","t":c.root.clone(),"n":[entry]}));
    assert!(
        emulator
            .tree("a@example.com")
            .unwrap()
            .iter()
            .any(|n| n.in_bin)
    );
    assert_clean(&emulator);
}

#[test]
fn event_faults_change_replies_only() {
    let (emulator, mut c) = start();
    let list = [
        Fixture::folder("/a/b"),
        Fixture::folder("/c"),
        Fixture::Move {
            path: "/a".into(),
            to: "/c".into(),
        },
    ];
    emulator.populate("a@example.com", &list).unwrap();
    let (sn, n) = (c.sn.clone(), c.events().len());
    for action in [
        FaultAction::DuplicateEvents,
        FaultAction::SplitEvents,
        FaultAction::JunkEvents,
        FaultAction::ReverseNodes,
    ] {
        c.sn.clone_from(&sn);
        let id = emulator.faults().add(FaultRule::new("sc", action.clone()));
        let got = c.events();
        emulator.faults().remove(id);
        let wanted = match action {
            FaultAction::DuplicateEvents => 2 * n,
            FaultAction::JunkEvents => n + 2,
            _ => n,
        };
        assert_eq!(got.len(), wanted, "{action:?}");
    }
}

#[test]
fn probabilities_follow_the_seed() {
    let run = |seed| {
        let config = EmulatorConfig {
            seed,
            ..EmulatorConfig::default()
        };
        let emulator = Emulator::start(config).unwrap();
        let action = FaultAction::Body { text: "-3".into() };
        emulator
            .faults()
            .add(FaultRule::new("sc", action).chance(0.5));
        (0..40)
            .map(|_| {
                http(emulator.address(), "POST", "/sc", b"", "")
                    .unwrap()
                    .text()
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(run(5), run(5));
    let texts = run(5);
    assert!(texts.contains(&"-3".to_owned()) && texts.contains(&"-15".to_owned()));
}

#[test]
fn wrong_nodes_are_violations() {
    let (emulator, mut c) = start();
    let good = c.entry("xxxxxxxx", "d", &NodeKey::Folder([1; 16]));
    let mut bad_key = good.clone();
    bad_key["k"] = json!(b64(&[1; 15]));
    assert_eq!(c.one(json!({"a":"p","t":c.root.clone(),"n":[bad_key]})), -2);
    let mut bad_attributes = good.clone();
    bad_attributes["a"] = json!(b64(&[1; 32]));
    c.one(json!({"a":"p","t":c.root.clone(),"n":[bad_attributes]}));
    c.one(json!({"a":"nonsense"}));
    c.cs(json!([{"a":"f","c":1},{"a":"uq"}]));
    http(c.address, "POST", "/cs", b"[]", "").unwrap();
    let texts = emulator.counters().violations.join("\n");
    for text in [
        "key of 15 bytes",
        "MEGA{",
        "unknown command",
        "in a batch",
        "non-empty",
    ] {
        assert!(texts.contains(text), "{text} missing in {texts}");
    }
}

#[test]
fn the_control_interface_does_what_the_library_does() {
    let (emulator, mut c) = start();
    let post = |path: &str, body: Value| {
        let path = format!("/_control/{path}");
        http(
            emulator.address(),
            "POST",
            &path,
            body.to_string().as_bytes(),
            "",
        )
        .unwrap()
    };
    let fixtures = json!([
        {"kind": "file", "path": "/x/y.txt", "content": {"text": "hello"}, "mtime": 5},
        {"kind": "broken", "path": "/x/z", "how": "no-key"},
        {"kind": "named", "parent": "/x", "name": "a/b", "content": {"pattern": {"size": 10}}},
    ]);
    let handles = post("populate?email=a@example.com", fixtures).json();
    let get = |path: &str| {
        http(
            emulator.address(),
            "GET",
            &format!("/_control/{path}"),
            b"",
            "",
        )
        .unwrap()
    };
    let content = get(&format!(
        "content?handle={}",
        handles["handles"][0].as_str().unwrap()
    ));
    assert_eq!(content.text(), "hello");
    let tree: Vec<PlainNode> =
        serde_json::from_value(get("tree?email=a@example.com").json()).unwrap();
    assert_eq!(tree, emulator.tree("a@example.com").unwrap());
    assert_eq!(
        tree.iter().find(|n| n.path == "/x/y.txt").unwrap().mtime,
        Some(5)
    );
    post("knobs", json!({"latency_ms": 1, "down_total": 1_000_000}));
    assert_eq!(
        (emulator.knobs().latency_ms, emulator.knobs().down_total),
        (1, 1_000_000)
    );
    assert_eq!(post("knobs", json!({"no_such": 1})).status, 400);
    let rule = json!({"at": "cmd:uq", "count": 1, "do": "command-error", "code": -6});
    assert_eq!(post("faults", rule).status, 200);
    assert_eq!(c.one(json!({"a":"uq"})), -6);
    let counters: Counters = serde_json::from_value(get("counters").json()).unwrap();
    assert_eq!(counters.commands("uq"), 1);
    assert_eq!(get("nothing").status, 404);
}

#[test]
fn caps_slow_downloads_down() {
    let (emulator, mut c) = start();
    let h = c.file("f", &pattern(1, 0, 300_000), 1);
    let url = c.one(json!({"a":"g","g":1,"n":h}))["g"]
        .as_str()
        .unwrap()
        .to_owned();
    emulator.set(|k| k.down_per_connection = 1_000_000);
    let start = std::time::Instant::now();
    assert_eq!(c.get(&url).unwrap().body.len(), 300_000);
    let took = start.elapsed().as_secs_f64();
    assert!(took > 0.25, "{took}");
}
