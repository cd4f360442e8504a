//! Breaks while writing: uploads that are cut, lost, expire or do not fit; sessions that die.

use super::*;

const SIZE: usize = 400_000;

/// An upload of [`SIZE`] bytes: its URL and ciphertext.
fn begin(c: &mut Client) -> (String, Vec<u8>) {
    let u = c.one(json!({"a":"u","s":SIZE,"v":2}));
    (
        u["p"].as_str().unwrap().to_owned(),
        pattern(3, 0, SIZE as u64),
    )
}

fn post(c: &Client, url: &str, from: usize, data: &[u8]) -> std::io::Result<Answer> {
    let at = url.match_indices('/').nth(2).unwrap().0;
    http(
        c.address,
        "POST",
        &format!("{}/{from}", &url[at..]),
        data,
        "",
    )
}

#[test]
fn a_cut_or_lost_piece_is_posted_again() {
    let (emulator, mut c) = start();
    let (url, data) = begin(&mut c);
    let once = |action| emulator.faults().add(FaultRule::once("ul", action));
    // Cut in its middle: nothing is stored.
    once(FaultAction::Cut { after: 70_000 });
    assert!(post(&c, &url, 0, &data[..131_072]).is_err());
    // Stored, but the client never knew; it posts the bytes again, cut in another way.
    once(FaultAction::Lost);
    assert!(post(&c, &url, 131_072, &data[131_072..393_216]).is_err());
    assert_eq!(post(&c, &url, 0, &data[..393_216]).unwrap().text(), "");
    // Acknowledged, but lost by the server: no token although all was posted.
    once(FaultAction::Forget);
    assert_eq!(
        post(&c, &url, 393_216, &data[393_216..]).unwrap().text(),
        ""
    );
    once(FaultAction::Status {
        code: 500,
        headers: Vec::new(),
        text: String::new(),
    });
    assert_eq!(
        post(&c, &url, 393_216, &data[393_216..]).unwrap().status,
        500
    );
    once(FaultAction::Slow { ms: 5 });
    let token = post(&c, &url, 393_216, &data[393_216..]).unwrap().body;
    assert_eq!(token.len(), 36);
    assert_eq!(emulator.counters().faults, 5);
    assert_clean(&emulator);
    // Its content is what was posted.
    let (mut plain, key, nonce) = (data, [1; 16], [2; 8]);
    crypto::ctr(&key, &nonce, 0, &mut plain);
    let mac = crypto::file_mac(&key, &nonce, &plain);
    let entry = c.entry(&b64(&token), "x", &NodeKey::File { key, nonce, mac });
    let p = c.one(json!({"a":"p","t":c.root,"n":[entry]}));
    assert_eq!(
        emulator.content(p["f"][0]["h"].as_str().unwrap()).unwrap(),
        plain
    );
    assert_clean(&emulator);
}

#[test]
fn other_bytes_in_the_place_of_a_piece_are_refused() {
    let (emulator, mut c) = start();
    let (url, mut data) = begin(&mut c);
    assert_eq!(post(&c, &url, 0, &data[..131_072]).unwrap().text(), "");
    data[7] ^= 1;
    assert_eq!(post(&c, &url, 0, &data[..393_216]).unwrap().text(), "-7");
    assert!(emulator.counters().violations[0].contains("other bytes"));
}

#[test]
fn upload_urls_expire_in_every_way() {
    let (emulator, mut c) = start();
    let piece =
        |c: &Client, url: &str, data: &[u8]| post(c, url, 0, &data[..131_072]).unwrap().text();
    let control = |path: &str| {
        let path = format!("/_control/{path}");
        assert_eq!(
            http(emulator.address(), "POST", &path, b"", "")
                .unwrap()
                .status,
            200
        );
    };
    let (url, data) = begin(&mut c);
    emulator.expire_uploads();
    assert_eq!(piece(&c, &url, &data), "-8");
    let (url, data) = begin(&mut c);
    assert_eq!(piece(&c, &url, &data), "");
    control("expire-uploads");
    assert_eq!(piece(&c, &url, &data), "-8");
    let (url, data) = begin(&mut c);
    emulator
        .faults()
        .add(FaultRule::once("ul", FaultAction::ExpireUpload));
    assert_eq!(piece(&c, &url, &data), "-8");
    assert_eq!(piece(&c, &url, &data), "-8");
    let (url, data) = begin(&mut c);
    emulator.set(|k| k.upload_life_ms = Some(0));
    assert_eq!(piece(&c, &url, &data), "-8");
    emulator.set(|k| k.upload_life_ms = None);
    assert_eq!(piece(&c, &url, &data), "");
    // A complete upload gives its token also when its URL is old; the token has a life of its own.
    let (token, key) = c.upload(b"done", 1);
    emulator.expire_uploads();
    let entry = c.entry(&token, "done", &key);
    assert!(c.one(json!({"a":"p","t":c.root,"n":[entry]}))["f"].is_array());
    let (token, key) = c.upload(b"late", 2);
    control("expire-tokens");
    let entry = c.entry(&token, "late", &key);
    assert_eq!(c.one(json!({"a":"p","t":c.root,"n":[entry]})), -8);
    // Download URLs: the next `g` gives one that works.
    let h = c.file("f", b"12345", 3);
    let url = |c: &mut Client| {
        c.one(json!({"a":"g","g":1,"n":h}))["g"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let first = url(&mut c);
    emulator.set(|k| k.download_life_ms = Some(0));
    assert_eq!(c.get(&first).unwrap().status, 403);
    emulator.set(|k| k.download_life_ms = None);
    let second = url(&mut c);
    assert_eq!(c.get(&second).unwrap().status, 200);
    assert_clean(&emulator);
}

#[test]
fn quota_is_refused_at_every_step() {
    let (emulator, mut c) = start();
    let mut b = Client::login(&emulator, "b@example.com");
    let list = [
        Fixture::folder("/s"),
        Fixture::Share {
            path: "/s".into(),
            to: "b@example.com".into(),
            level: 1,
        },
    ];
    let shared = emulator.populate("a@example.com", &list).unwrap()[0].clone();
    let (token, key) = c.upload(b"12345", 1);
    let (foreign, foreign_key) = b.upload(b"54321", 2);
    let (url, data) = begin(&mut c);
    let full = FaultAction::Body { text: "-17".into() };
    emulator.faults().add(FaultRule::once("ul", full));
    assert_eq!(post(&c, &url, 0, &data[..131_072]).unwrap().text(), "-17");
    emulator.set_account("a@example.com", Some(4), None);
    assert_eq!(c.one(json!({"a":"u","s":5})), -17);
    assert_eq!(b.one(json!({"a":"u","s":5,"t":[shared]})), -24);
    let entry = c.entry(&token, "x", &key);
    assert_eq!(c.one(json!({"a":"p","t":c.root,"n":[entry]})), -17);
    let share = emulator.find("a@example.com", "/s").unwrap();
    let state = emulator.shared.state();
    let root = crate::codec::Handle::parse(&share.handle).unwrap();
    let wrapped = b64(&crypto::ecb_encrypt(
        &state.share_key(root).unwrap(),
        &foreign_key.raw(),
    ));
    drop(state);
    let n = json!([b.entry(&foreign, "y", &foreign_key)]);
    let cr = json!([[shared], [], [0, 0, wrapped]]);
    let put = json!({"a":"p","t":shared,"n":n,"cr":cr});
    assert_eq!(b.one(put.clone()), -24);
    // Refused is not used up.
    emulator.set_account("a@example.com", Some(1 << 20), None);
    assert!(b.one(put)["f"].is_array());
    assert!(c.one(json!({"a":"p","t":c.root,"n":[entry]}))["f"].is_array());
    for code in [-29, -17] {
        let fault = FaultAction::CommandError { code };
        emulator.faults().add(FaultRule::once("cmd:p", fault));
        let n = json!([c.entry("xxxxxxxx", "z", &NodeKey::Folder([3; 16]))]);
        assert_eq!(c.one(json!({"a":"p","t":c.root,"n":n})), code);
    }
    assert_clean(&emulator);
}

#[test]
fn sessions_die_before_or_after_a_request() {
    let (emulator, mut c) = start();
    let entry = |c: &Client, seed| c.entry("xxxxxxxx", "d", &NodeKey::Folder([seed; 16]));
    let made = || emulator.tree("a@example.com").unwrap().len();
    let rule = FaultRule::once("cmd:p", FaultAction::EndSession).after(1);
    emulator.faults().add(rule);
    let put = json!([{"a":"p","t":c.root,"n":[entry(&c, 1)]}]);
    assert!(c.cs(put.clone())[0]["f"].is_array());
    assert_eq!(
        (c.cs(put), c.cs(json!([{"a":"uq"}]))),
        (json!(-15), json!(-15))
    );
    assert_eq!(made(), 1);
    // Executed, but neither the reply nor a repeat of it can be had.
    let mut c = Client::login(&emulator, "a@example.com");
    emulator
        .faults()
        .add(FaultRule::once("cmd:p", FaultAction::LostSession));
    let put = json!([{"a":"p","t":c.root,"n":[entry(&c, 2)]}]);
    c.id += 1_000_000;
    assert!(c.post(c.id, &put).is_err());
    assert_eq!(c.post(c.id, &put).unwrap().text(), "-15");
    assert_eq!(made(), 2);
    let sc = format!("/sc?sn={}&sid={}", c.sn, c.sid);
    assert_eq!(http(c.address, "POST", &sc, b"", "").unwrap().text(), "-15");
    // A session from the library, and its end while it listens.
    c.sid = emulator.session("a@example.com").unwrap();
    assert!(c.one(json!({"a":"uq"})).is_object());
    emulator
        .faults()
        .add(FaultRule::once("sc", FaultAction::EndSession));
    let sc = format!("/sc?sn={}&sid={}", c.sn, c.sid);
    assert_eq!(http(c.address, "POST", &sc, b"", "").unwrap().text(), "-15");
    assert_clean(&emulator);
}

#[test]
fn a_challenge_stands_until_it_is_solved() {
    let (emulator, c) = start();
    let fault = FaultAction::Hashcash { easiness: 255 };
    emulator.faults().add(FaultRule::once("cmd:uq", fault));
    let body = json!([{"a":"uq"}]);
    let first = c.post(5000, &body).unwrap();
    assert_eq!(first.status, 402);
    let again = c.post(5000, &body).unwrap();
    assert_eq!(again.status, 402);
    let line = again
        .head
        .lines()
        .find_map(|l| l.strip_prefix("X-Hashcash: "));
    let token = line.unwrap().rsplit(':').next().unwrap();
    let prefix = (0_u32..)
        .map(|i| b64(&i.to_be_bytes()))
        .find(|p| crate::commands::login::hashcash_holds(token, p, 255))
        .unwrap();
    let path = format!("/cs?id=5000&sid={}", c.sid);
    let header = format!("X-Hashcash: 1:{token}:{prefix}\r\n");
    let text = body.to_string();
    let solved = http(c.address, "POST", &path, text.as_bytes(), &header).unwrap();
    assert_eq!(solved.status, 200);
    assert_clean(&emulator);
}

#[test]
fn requests_are_outstanding_while_they_travel() {
    let (emulator, c) = start();
    emulator.set(|k| k.latency_ms = 1000);
    let body = json!([{"a":"dr"}]);
    std::thread::scope(|scope| {
        for id in [6000, 6001] {
            let (c, body) = (&c, &body);
            scope.spawn(move || c.post(id, body).unwrap());
        }
    });
    assert!(emulator.counters().violations[0].contains("at a time"));
}

#[test]
fn connections_are_cut_from_outside() {
    let (emulator, c) = start();
    let mut idle = TcpStream::connect(c.address).unwrap();
    idle.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    // Answered, so that the server knows the connection.
    idle.write_all(b"GET /none HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    assert!(idle.read(&mut [0; 4096]).unwrap() > 0);
    let path = "/_control/cut-connections";
    assert_eq!(
        http(emulator.address(), "POST", path, b"", "")
            .unwrap()
            .status,
        200
    );
    assert!(matches!(idle.read(&mut [0; 1]), Ok(0) | Err(_)));
}

#[test]
fn odd_trees_are_listed() {
    let (emulator, mut c) = start();
    let list = [
        Fixture::file("/d/f", "12345", -5),
        Fixture::Clock {
            path: "/d".into(),
            ts: 0,
        },
        Fixture::Cycle {
            name: "ring".into(),
        },
    ];
    emulator.populate("a@example.com", &list).unwrap();
    let f = c.one(json!({"a":"f","c":1}))["f"].clone();
    let f: Vec<Value> = f.as_array().unwrap().iter().skip(3).cloned().collect();
    assert_eq!((f.len(), f[0]["ts"].as_i64()), (4, Some(0)));
    assert_eq!(
        (f[2]["p"].clone(), f[3]["p"].clone()),
        (f[3]["h"].clone(), f[2]["h"].clone())
    );
    let counts = c.one(json!({"a":"uq","strg":1}))["cstrgn"][&c.root].clone();
    assert_eq!(counts, json!([5, 1, 3, 0, 0]));
    assert_eq!(
        emulator.find("a@example.com", "/d/f").unwrap().mtime,
        Some(-5)
    );
    assert_clean(&emulator);
}

#[test]
fn a_data_directory_serves_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let config = EmulatorConfig {
        data_dir: Some(dir.path().to_path_buf()),
        ..EmulatorConfig::default()
    };
    let emulator = Emulator::start(config).unwrap();
    let mut c = Client::login(&emulator, "a@example.com");
    let plain = pattern(8, 0, 3_000_000);
    let h = c.file("f", &plain, 1);
    let g = c.one(json!({"a":"g","g":1,"n":h}));
    let url = g["g"].as_str().unwrap().to_owned();
    let mut whole = plain.clone();
    crypto::ctr(&[1; 16], &[1; 8], 0, &mut whole);
    assert_eq!(c.get(&url).unwrap().body, whole);
    emulator.set(|k| k.down_total = 50_000_000);
    let part = c.get(&format!("{url}/1000-2500000")).unwrap().body;
    assert_eq!(part, &whole[1000..=2_500_000]);
    // Damage goes the other way through the server.
    emulator
        .faults()
        .add(FaultRule::once("dl", FaultAction::FlipBit { byte: 0 }));
    assert_ne!(c.get(&url).unwrap().body[0], whole[0]);
    assert_eq!(emulator.counters().bytes_down, 3_000_000 * 2 + 2_499_001);
}
