//! Prints how fast the emulator is: downloads over four loopback connections, from memory and from
//! a data directory, and the listing of a million generated nodes with the memory it takes.
//!
//! `cargo run --release -p mega-emulator --example emulator_speed [MIB] [NODES]`

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement by hand, not shipped"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use mega_emulator::{AccountSpec, Emulator, EmulatorConfig, Fixture};

const USER: &str = "a@example.com";

/// One request on a kept connection; returns the body's length and its first kilobyte.
fn ask(stream: &mut BufReader<TcpStream>, method: &str, path: &str, body: &str) -> (u64, Vec<u8>) {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.get_mut().write_all(head.as_bytes()).unwrap();
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        if let Some(n) = line.strip_prefix("Content-Length: ") {
            length = n.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut first = Vec::new();
    let mut left = length;
    let mut buffer = vec![0; 1 << 18];
    while left > 0 {
        let want = buffer.len().min(left as usize);
        let n = stream.read(&mut buffer[..want]).unwrap();
        assert!(n > 0, "short body");
        if first.len() < 1024 {
            first.extend_from_slice(&buffer[..n.min(1024)]);
        }
        left -= n as u64;
    }
    (length, first)
}

fn connect(address: SocketAddr) -> BufReader<TcpStream> {
    BufReader::with_capacity(4096, TcpStream::connect(address).unwrap())
}

fn rss_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        / 1024
}

/// The public link of a path; links need no login.
fn link(emulator: &Emulator, path: &str) -> String {
    let made = emulator.populate(USER, &[Fixture::Link { path: path.into() }]);
    made.unwrap()[0].split('#').next().unwrap().to_owned()
}

fn downloads(mib: u64, config: EmulatorConfig, what: &str) {
    let emulator = Emulator::start(config).unwrap();
    emulator.add_account(AccountSpec::new(USER, "secret"));
    let fixture = Fixture::pattern("/big", mib << 20, 1);
    emulator.populate(USER, &[fixture]).unwrap();
    let ph = link(&emulator, "/big");
    let body = format!(r#"[{{"a":"g","g":1,"p":"{ph}"}}]"#);
    let (_, reply) = ask(&mut connect(emulator.address()), "POST", "/cs?id=1", &body);
    let reply = String::from_utf8(reply).unwrap();
    let at = reply.find("/dl/").unwrap();
    let path = &reply[at..at + reply[at..].find('"').unwrap()];
    for connections in [1_u64, 4] {
        let started = Instant::now();
        std::thread::scope(|scope| {
            for c in 0..connections {
                let (mut stream, size) = (connect(emulator.address()), mib << 20);
                scope.spawn(move || {
                    let each = size / connections;
                    let mut from = c * each;
                    while from < (c + 1) * each {
                        let to = (from + (16 << 20)).min((c + 1) * each);
                        let range = format!("{path}/{from}-{}", to - 1);
                        assert_eq!(ask(&mut stream, "GET", &range, "").0, to - from);
                        from = to;
                    }
                });
            }
        });
        let rate = (mib << 20) as f64 / started.elapsed().as_secs_f64() / 1e6;
        println!("download {what}, {connections} connections: {rate:.0} MB/s");
    }
}

fn listing(nodes: u32) {
    let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
    emulator.add_account(AccountSpec::new(USER, "secret"));
    let folders = nodes / 20;
    let fixture = Fixture::Generated {
        parent: "/generated".into(),
        folders,
        fanout: 20,
        files_per_folder: 19,
        max_size: 100_000,
    };
    let before = rss_mib();
    emulator.populate(USER, &[fixture]).unwrap();
    // An ephemeral session would see its own tree only, so the session comes from the library.
    let sid = emulator.session(USER).unwrap();
    let started = Instant::now();
    let peak = std::thread::scope(|scope| {
        let path = format!("/cs?id=2&sid={sid}");
        let (address, mut peak) = (emulator.address(), 0);
        let asked = scope
            .spawn(move || ask(&mut connect(address), "POST", &path, r#"[{"a":"f","c":1}]"#).0);
        while !asked.is_finished() {
            peak = peak.max(rss_mib());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        (peak, asked.join().unwrap())
    });
    let took = started.elapsed().as_secs_f64();
    println!(
        "f of {} nodes: {} MB in {took:.2} s, RSS {before} MiB before, {} MiB at most",
        u64::from(folders) * 20,
        peak.1 / 1_000_000,
        peak.0
    );
}

fn main() {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<u32>().unwrap());
    let mib = u64::from(args.next().unwrap_or(1024));
    let nodes = args.next().unwrap_or(1_000_000);
    listing(nodes);
    downloads(mib, EmulatorConfig::default(), "from memory");
    let dir = std::env::temp_dir().join(format!("mega-emulator-speed-{}", std::process::id()));
    let config = EmulatorConfig {
        data_dir: Some(dir.clone()),
        ..EmulatorConfig::default()
    };
    downloads(mib, config, "from a data directory");
    std::fs::remove_dir_all(dir).unwrap();
}
