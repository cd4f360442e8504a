//! Tests of the whole server through its socket, with a client of a hundred lines.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::codec::{b64, unb64};
use crate::crypto::{self, NodeKey};
use crate::*;

mod breaks;
mod changes;
mod faulty;
mod serving;
mod writing;

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// One request on a connection of its own; an error when the connection broke.
pub(super) fn http(
    address: std::net::SocketAddr,
    method: &str,
    path: &str,
    body: &[u8],
    headers: &str,
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    let broken = || std::io::Error::other("no head");
    let end = all
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .ok_or_else(broken)?
        + 4;
    let head = String::from_utf8(all[..end].to_vec()).unwrap();
    let body = all[end..].to_vec();
    let length = head
        .lines()
        .find_map(|l| l.strip_prefix("Content-Length: "));
    if length.unwrap().parse::<usize>().unwrap() != body.len() {
        return Err(std::io::Error::other("short body"));
    }
    Ok(Answer {
        status: head[9..12].parse().unwrap(),
        head,
        body,
    })
}

/// Logged in as `a@example.com`, an account without RSA key so that the session comes in clear.
pub(super) struct Client {
    pub(super) address: std::net::SocketAddr,
    pub(super) sid: String,
    pub(super) mk: [u8; 16],
    pub(super) id: u64,
    pub(super) root: String,
    pub(super) sn: String,
}

pub(super) fn account(email: &str) -> AccountSpec {
    AccountSpec {
        no_rsa: true,
        ..AccountSpec::new(email, "secret")
    }
}

impl Client {
    fn next_id() -> u64 {
        // Requests without session share one id space, so clients must not start at the same.
        static IDS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1000);
        IDS.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }

    pub(super) fn login(emulator: &Emulator, email: &str) -> Self {
        emulator.add_account(account(email));
        let mut c = Self {
            address: emulator.address(),
            sid: String::new(),
            mk: [0; 16],
            id: Self::next_id(),
            root: String::new(),
            sn: String::new(),
        };
        let salt = c.cs(json!([{"a":"us0","user":email}]))[0]["s"]
            .as_str()
            .unwrap()
            .to_owned();
        let (key, auth) = crypto::derive_v2("secret", &unb64(&salt).unwrap());
        let us = c.cs(json!([{"a":"us","user":email,"uh":b64(&auth)}]))[0].clone();
        c.mk = crypto::block_at(&crypto::ecb_decrypt(
            &key,
            &unb64(us["k"].as_str().unwrap()).unwrap(),
        ));
        c.sid = us["tsid"].as_str().unwrap().to_owned();
        let f = c.cs(json!([{"a":"f","c":1}]))[0].clone();
        c.root = f["f"][0]["h"].as_str().unwrap().to_owned();
        c.sn = f["sn"].as_str().unwrap().to_owned();
        c
    }

    pub(super) fn post(&self, id: u64, body: &Value) -> std::io::Result<Answer> {
        let path = format!("/cs?id={id}&sid={}", self.sid);
        http(self.address, "POST", &path, body.to_string().as_bytes(), "")
    }

    pub(super) fn cs(&mut self, body: Value) -> Value {
        self.id = Self::next_id();
        self.post(self.id, &body).unwrap().json()
    }

    pub(super) fn one(&mut self, command: Value) -> Value {
        self.cs(json!([command]))[0].clone()
    }

    pub(super) fn get(&self, url: &str) -> std::io::Result<Answer> {
        let at = url.match_indices('/').nth(2).unwrap().0;
        http(self.address, "GET", &url[at..], b"", "")
    }

    pub(super) fn put(&self, url: &str, offset: u64, data: &[u8], query: &str) -> Answer {
        let at = url.match_indices('/').nth(2).unwrap().0;
        let path = format!("{}/{offset}{query}", &url[at..]);
        http(self.address, "POST", &path, data, "").unwrap()
    }

    /// Packets since the last call.
    pub(super) fn events(&mut self) -> Vec<Value> {
        let mut out = Vec::new();
        loop {
            let path = format!("/sc?sn={}&sid={}", self.sn, self.sid);
            let r = http(self.address, "POST", &path, b"", "").unwrap().json();
            self.sn = r["sn"].as_str().unwrap().to_owned();
            match r["a"].as_array() {
                Some(a) => out.extend(a.clone()),
                None => return out,
            }
        }
    }

    pub(super) fn entry(&self, h: &str, name: &str, key: &NodeKey) -> Value {
        let kind = u8::from(matches!(key, NodeKey::Folder(_)));
        let a = crypto::seal_attributes(&key.aes_key(), &json!({"n": name}).to_string());
        json!({"h": h, "t": kind, "a": b64(&a), "k": b64(&crypto::ecb_encrypt(&self.mk, &key.raw()))})
    }

    /// Uploads and returns token and key.
    pub(super) fn upload(&mut self, plain: &[u8], seed: u8) -> (String, NodeKey) {
        let u = self.one(json!({"a":"u","s":plain.len(),"v":2,"ssl":2}));
        let url = u["p"].as_str().unwrap().to_owned();
        let (key, nonce) = ([seed; 16], [seed; 8]);
        let mut data = plain.to_vec();
        crypto::ctr(&key, &nonce, 0, &mut data);
        let mut token = Vec::new();
        let mut pieces: Vec<(u64, u64)> = crypto::chunks(data.len() as u64).collect();
        if pieces.is_empty() {
            pieces.push((0, 0));
        }
        pieces.reverse();
        for (start, len) in pieces {
            let r = self.put(
                &url,
                start,
                &data[start as usize..(start + len) as usize],
                "",
            );
            assert!(token.is_empty());
            token = r.body;
        }
        assert_eq!((token.len(), token[35]), (36, 1));
        let mac = crypto::file_mac(&key, &nonce, plain);
        (b64(&token), NodeKey::File { key, nonce, mac })
    }

    /// Uploads a file into the root; returns its handle.
    pub(super) fn file(&mut self, name: &str, plain: &[u8], seed: u8) -> String {
        let (token, key) = self.upload(plain, seed);
        let entry = self.entry(&token, name, &key);
        let p = self.one(json!({"a":"p","t":self.root,"n":[entry]}));
        p["f"][0]["h"].as_str().unwrap().to_owned()
    }
}

pub(super) fn start() -> (Emulator, Client) {
    let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
    let client = Client::login(&emulator, "a@example.com");
    (emulator, client)
}

#[track_caller]
pub(super) fn assert_clean(emulator: &Emulator) {
    assert_eq!(emulator.counters().violations, Vec::<String>::new());
}
