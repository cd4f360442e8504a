//! Changes and the packets that announce them.

use super::*;

fn kinds(events: &[Value]) -> Vec<String> {
    events
        .iter()
        .map(|e| e["a"].as_str().unwrap_or("?").to_owned())
        .collect()
}

#[test]
fn every_change_reaches_other_sessions() {
    let (emulator, mut c) = start();
    let mut other = Client::login(&emulator, "a@example.com");
    let dir = c.entry("xxxxxxxx", "dir", &NodeKey::Folder([1; 16]));
    let mut sub = c.entry("yyyyyyyy", "sub", &NodeKey::Folder([2; 16]));
    sub["p"] = json!("xxxxxxxx");
    let p = c.one(json!({"a":"p","t":c.root.clone(),"i":"abc","n":[dir, sub]}));
    let (dir, sub) = (p["f"][0]["h"].clone(), p["f"][1]["h"].clone());
    assert_eq!(p["f"][1]["p"], dir);
    let file = c.file("f", b"data", 3);
    assert_eq!(c.one(json!({"a":"m","n":file,"t":sub})), 0);
    assert_eq!(c.one(json!({"a":"m","n":dir,"t":sub})), -10);
    assert_eq!(
        c.one(json!({"a":"m","n":sub,"t":c.root.clone(),"i":"me"})),
        0
    );
    let at = b64(&crypto::seal_attributes(&[1; 16], r#"{"n":"renamed"}"#));
    assert_eq!(c.one(json!({"a":"a","n":dir,"at":at})), 0);
    assert_eq!(c.one(json!({"a":"d","n":sub})), 0);
    let events = other.events();
    assert_eq!(kinds(&events), ["t", "t", "d", "t", "d", "t", "u", "d"]);
    assert_eq!(events[0]["i"], "abc");
    assert_eq!(events[0]["t"]["f"][1]["i"], 1);
    // A move: no tag on its second half, the whole subtree in it.
    assert_eq!(
        (events[4]["m"].clone(), events[4]["i"].clone()),
        (json!(1), json!("me"))
    );
    assert!(events[4]["st"].is_string() && events[5]["st"].is_null());
    assert_eq!(events[5]["t"]["f"].as_array().unwrap().len(), 2);
    assert_eq!(emulator.tree("a@example.com").unwrap().len(), 1);
    // Member order of packets.
    let raw = http(
        c.address,
        "POST",
        &format!("/sc?sn=AAAAAAAAAAA&sid={}", c.sid),
        b"",
        "",
    );
    assert!(
        raw.unwrap()
            .text()
            .starts_with(r#"{"a":[{"a":"t","i":"abc","st":""#)
    );
    assert_clean(&emulator);
}

#[test]
fn long_polls_end_with_a_change() {
    let (emulator, mut c) = start();
    let path = format!("/sc?sn={}&sid={}", c.sn, c.sid);
    let w = http(c.address, "POST", &path, b"", "").unwrap().json()["w"]
        .as_str()
        .unwrap()
        .to_owned();
    let (address, sn, sid) = (c.address, c.sn.clone(), c.sid.clone());
    let at = w.match_indices('/').nth(2).unwrap().0;
    let plain = w[at..].to_owned();
    let direct = format!("{plain}?sn={sn}&sid={sid}");
    let both = [plain, direct].map(|path| {
        std::thread::spawn(move || http(address, "POST", &path, b"", "").unwrap().text())
    });
    emulator
        .populate("a@example.com", &[Fixture::folder("/new")])
        .unwrap();
    let texts = both.map(|t| t.join().unwrap());
    assert_eq!(texts[0], "0");
    assert!(texts[1].contains(r#""a":"t""#), "{}", texts[1]);
    assert_eq!(kinds(&c.events()), ["t"]);
    let malformed = http(address, "POST", &format!("/sc?sn=x&sid={sid}"), b"", "").unwrap();
    assert_eq!(malformed.text(), "-2");
    emulator.forget_events("a@example.com");
    let late = http(
        address,
        "POST",
        &format!("/sc?sn={}&sid={sid}", c.sn),
        b"",
        "",
    )
    .unwrap();
    assert_eq!(late.text(), "-6");
}

#[test]
fn versions_chain_and_close() {
    let (emulator, mut c) = start();
    let mut handles = vec![c.file("v", b"one", 1)];
    for (seed, text) in [(2, "two"), (3, "three")] {
        let (token, key) = c.upload(text.as_bytes(), seed);
        let mut entry = c.entry(&token, "v", &key);
        entry["ov"] = json!(handles.last().unwrap());
        let p = c.one(json!({"a":"p","t":c.root.clone(),"n":[entry]}));
        handles.push(p["f"][0]["h"].as_str().unwrap().to_owned());
    }
    let events = c.events();
    assert_eq!(events[2]["t"]["f2"][0]["p"], json!(handles[2]));
    let f = c.one(json!({"a":"f","c":1}));
    assert_eq!(f["f2"].as_array().unwrap().len(), 2);
    // The middle one goes, the oldest moves up.
    assert_eq!(c.one(json!({"a":"d","n":handles[1],"v":1})), 0);
    let events = c.events();
    assert_eq!(kinds(&events), ["d", "t"]);
    assert_eq!(events[1]["t"]["f2"][0]["p"], json!(handles[2]));
    assert_eq!(events[0]["st"], events[1]["st"]);
    // The head goes, the older one becomes the file.
    assert_eq!(c.one(json!({"a":"d","n":handles[2],"v":1})), 0);
    assert_eq!(c.events()[1]["t"]["f"][0]["h"], json!(handles[0]));
    let tree = emulator.tree("a@example.com").unwrap();
    assert_eq!((tree.len(), tree[0].version_of.clone()), (1, None));
    // Without versions.
    let (token, key) = c.upload(b"four", 4);
    let mut entry = c.entry(&token, "v", &key);
    entry["ov"] = json!(handles[0]);
    c.one(json!({"a":"p","t":c.root.clone(),"n":[entry],"vb":0}));
    assert_eq!(kinds(&c.events()), ["d", "t"]);
    assert_eq!(emulator.tree("a@example.com").unwrap().len(), 1);
    assert_clean(&emulator);
}

#[test]
fn copies_share_content_and_bins_empty() {
    let (emulator, mut c) = start();
    let h = c.file("a", b"content", 1);
    let key = NodeKey::File {
        key: [1; 16],
        nonce: [1; 8],
        mac: crypto::file_mac(&[1; 16], &[1; 8], b"content"),
    };
    let entry = c.entry(&h, "b", &key);
    let copy = c.one(json!({"a":"p","t":c.root.clone(),"n":[entry]}));
    let copy = copy["f"][0]["h"].as_str().unwrap().to_owned();
    assert_eq!(c.one(json!({"a":"d","n":h})), 0);
    assert_eq!(emulator.content(&copy).unwrap(), b"content");
    emulator
        .populate("a@example.com", &[Fixture::Trash { path: "/b".into() }])
        .unwrap();
    c.events();
    assert_eq!(c.one(json!({"a":"dr"})), 0);
    assert_eq!(kinds(&c.events()), ["d"]);
    assert!(emulator.tree("a@example.com").unwrap().is_empty());
    // A vanished target: the bin takes the node.
    let folder = c.entry("xxxxxxxx", "late", &NodeKey::Folder([4; 16]));
    let p = c.one(json!({"a":"p","t":copy,"n":[folder]}));
    assert!(p["f"][0]["p"].is_string());
    assert!(emulator.tree("a@example.com").unwrap()[0].in_bin);
    assert_clean(&emulator);
}

#[test]
fn shares_and_links_show_the_subtree() {
    let (emulator, mut c) = start();
    let mut b = Client::login(&emulator, "b@example.com");
    let list = [
        Fixture::file("/s/deep/f.txt", "shared", 1),
        Fixture::Share {
            path: "/s".into(),
            to: "b@example.com".into(),
            level: 0,
        },
        Fixture::Link { path: "/s".into() },
        Fixture::Link {
            path: "/s/deep/f.txt".into(),
        },
    ];
    let made = emulator.populate("a@example.com", &list).unwrap();
    assert_eq!(kinds(&b.events()), ["s2", "t"]);
    let f = b.one(json!({"a":"f","c":1}));
    let shared: Vec<&Value> = f["f"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|n| n["t"].as_u64() < Some(2))
        .collect();
    assert_eq!(shared.len(), 3);
    assert_eq!(shared[0]["r"], 0);
    let sk = crypto::ecb_decrypt(&b.mk, &unb64(shared[0]["sk"].as_str().unwrap()).unwrap());
    let k = shared[2]["k"].as_str().unwrap().split_once(':').unwrap();
    assert_eq!(k.0, shared[0]["h"]);
    let raw = crypto::ecb_decrypt(&crypto::block_at(&sk), &unb64(k.1).unwrap());
    let key = NodeKey::parse(&raw).unwrap();
    let at = unb64(shared[2]["a"].as_str().unwrap()).unwrap();
    let text = crypto::attribute_text(&crypto::open_attributes(&key.aes_key(), &at)).unwrap();
    assert!(text.contains("f.txt"));
    assert_eq!(b.one(json!({"a":"d","n":shared[2]["h"]})), -11);
    // The folder link, without session; its key is the share key.
    let (ph, link_key) = made[2].split_once('#').unwrap();
    assert_eq!(unb64(link_key).unwrap(), sk);
    let body = json!([{"a":"f","c":1,"r":1}]).to_string();
    let f = http(
        c.address,
        "POST",
        &format!("/cs?id=1&n={ph}"),
        body.as_bytes(),
        "",
    )
    .unwrap()
    .json();
    assert_eq!(f[0]["f"].as_array().unwrap().len(), 3);
    let body = json!([{"a":"g","g":1,"n":shared[2]["h"]}]).to_string();
    let g = http(
        c.address,
        "POST",
        &format!("/cs?id=2&n={ph}"),
        body.as_bytes(),
        "",
    )
    .unwrap()
    .json();
    assert!(g[0]["g"].is_string());
    // A change below reaches the recipient under the share key; the share's end takes all away.
    emulator
        .populate("a@example.com", &[Fixture::folder("/s/more")])
        .unwrap();
    let t = b.events();
    assert!(t[0]["t"]["f"][0]["k"].as_str().unwrap().starts_with(k.0));
    let user = f[0]["f"][0]["u"].clone();
    assert_eq!(
        c.one(json!({"a":"s2","n":shared[0]["h"],"s":[{"u":"b@example.com"}]}))["r"][0],
        0
    );
    assert_eq!(kinds(&b.events()), ["s2", "d"]);
    assert!(user.is_string());
    assert_clean(&emulator);
}

#[test]
fn version_three_replies_carry_tags() {
    let (emulator, mut c) = start();
    let entry = c.entry("AAAAAAAA", "x", &NodeKey::Folder([1; 16]));
    let body = json!([{"a":"p","v":4,"t":c.root,"n":[entry]}]).to_string();
    let path = format!("/cs?id=77&v=3&sid={}", c.sid);
    let p = http(c.address, "POST", &path, body.as_bytes(), "")
        .unwrap()
        .json();
    let st = p[0][0].as_str().unwrap();
    assert_eq!(p[0][1]["e"], json!([]));
    let t = &c.events()[0];
    assert_eq!(
        (t["st"].as_str(), t["t"]["f"][0]["i"].as_u64()),
        (Some(st), Some(0))
    );
    let body = json!([{"a":"d","n":t["t"]["f"][0]["h"]}]).to_string();
    let path = format!("/cs?id=78&v=3&sid={}", c.sid);
    let d = http(c.address, "POST", &path, body.as_bytes(), "")
        .unwrap()
        .json();
    assert_eq!(d[0], c.events()[0]["st"]);
    assert_clean(&emulator);
}
