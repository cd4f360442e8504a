//! Options whose effect shows in the mount.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use mega_emulator::{FaultAction, FaultRule, Fixture, pattern};
use megamount_tests::{World, wait_until};

#[test]
fn owner_and_permissions_are_what_the_options_say() {
    let world = World::with(&[Fixture::file("/d/f", "x", 1_600_000_000)]);
    let options = [
        "--uid",
        "1234",
        "--gid",
        "2345",
        "--umask",
        "027",
        "--dir-perms",
        "775",
        "--file-perms",
        "664",
    ];
    let mount = world.mount_with("remote:", &options);
    mount.sh("mkdir new; echo x >new/g");
    let seen = mount.sh("stat -c '%u %g %a' . d d/f new new/g");
    let (directory, file) = ("1234 2345 750\n", "1234 2345 640\n");
    assert_eq!(seen, [directory, directory, file, directory, file].concat());
    mount.unmount();
    let mount = world.mount_with("remote:", &["--umask", "0"]);
    assert_eq!(mount.sh("stat -c %a d d/f"), "777\n666\n");
    mount.unmount();
}

#[test]
fn verified_before_it_is_read_a_damaged_file_gives_no_byte() {
    let size = 9_000_000;
    let world = World::with(&[Fixture::pattern("/f", size, 5)]);
    let flip = FaultAction::FlipBit { byte: 1000 };
    let rule = world.emulator.faults().add(FaultRule::new("dl", flip));
    let mount = world.mount_with("remote:", &["--verify", "before-read"]);
    // Not even from a part that is not damaged.
    let text = mount.sh_fails("head -c 10 f");
    assert!(text.contains("Input/output error"), "{text}");
    world.emulator.faults().remove(rule);
    wait_until("it is fetched anew", || {
        std::fs::read(mount.path("f")).is_ok_and(|bytes| bytes == pattern(5, 0, size))
    });
    mount.unmount();
}

#[test]
fn the_bandwidth_is_limited_and_can_be_changed() {
    let size = 4_000_000;
    let world = World::with(&[Fixture::pattern("/f", size, 5)]);
    let mount = world.mount_with("remote:", &["--bwlimit", "off:500k"]);
    let mountpoint = world.path("mnt");
    let place = mountpoint.to_str().unwrap();
    let shown = world.command(&["bwlimit", place]);
    assert_eq!(
        (shown.code, shown.text.as_str()),
        (
            0,
            "Up:   without limit\nDown: 500.00 KiB/s\nRule: off:500k\n"
        ),
        "{}",
        shown.errors
    );
    let begun = Instant::now();
    assert!(mount.read("f") == pattern(5, 0, size));
    // 512,000 bytes a second, and what may come at once.
    assert!(begun.elapsed() > Duration::from_secs(7));
    let begun = Instant::now();
    let changed = world.command(&["bwlimit", "remote:", "1M:off"]);
    assert!(changed.text.contains("Up:   1.00 MiB/s"), "{changed:?}");
    mount.write("g", pattern(6, 0, 3_000_000));
    wait_until("it is on the server", || {
        world
            .content("/g")
            .is_some_and(|bytes| bytes.len() == 3_000_000)
    });
    assert!(begun.elapsed() > Duration::from_millis(2500));
    let refused = world.command(&["bwlimit", "remote:", "fast"]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.errors.contains("'fast' is no bandwidth"),
        "{refused:?}"
    );
    mount.unmount();
}

/// The answer to an HTTP request.
fn http(port: u16, request: &str) -> String {
    http_as(port, request, &format!("localhost:{port}"))
}

fn http_as(port: u16, request: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head = format!("{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn figures_are_served_to_this_machine() {
    let world = World::with(&[Fixture::pattern("/f", 300_000, 5)]);
    let options = ["--metrics-addr", "localhost:0", "--write-back", "1h"];
    let mount = world.mount_with("remote:", &options);
    let log = mount.log();
    let (_, place) = log.split_once("http://127.0.0.1:").unwrap();
    let port = place.split_once('/').unwrap().0.parse().unwrap();
    let figure = |name: &str| {
        let answer = http(port, "GET /metrics");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("openmetrics-text"), "{answer}");
        assert!(answer.ends_with("# EOF\n"), "{answer}");
        let line = answer.lines().find_map(|line| line.strip_prefix(name));
        let value = line.unwrap_or_else(|| panic!("no {name} in {answer}"));
        value.trim().parse::<u64>().unwrap()
    };
    let waiting = "megamount_queue_changes{state=\"waiting\"}";
    assert_eq!((figure("megamount_safe"), figure(waiting)), (1, 0));
    assert_eq!(figure("megamount_session_alive"), 1);
    assert!(figure("megamount_api_requests_total") > 0);
    assert_eq!(mount.read("f").len(), 300_000);
    assert!(figure("megamount_downloaded_bytes_total") >= 300_000);
    assert!(figure("megamount_cache_bytes") >= 300_000);
    mount.write("new", b"12345");
    assert_eq!((figure("megamount_safe"), figure(waiting)), (0, 1));
    assert_eq!(figure("megamount_queue_bytes"), 5);
    assert_eq!(figure("megamount_uploaded_bytes_total"), 0);
    let flushed = world.command(&["flush", world.path("mnt").to_str().unwrap()]);
    assert_eq!(flushed.code, 0, "{}", flushed.errors);
    assert_eq!((figure("megamount_safe"), figure(waiting)), (1, 0));
    assert_eq!(figure("megamount_uploaded_bytes_total"), 5);
    // Nothing of what is in the account, and no page whose name was made to lead here.
    let answer = http(port, "GET /metrics");
    assert!(!answer.contains("path="), "{answer}");
    for (host, code) in [
        ("localhost", 200),
        ("[::1]:9184", 200),
        ("pages.example", 403),
    ] {
        let answer = http_as(port, "GET /metrics", host);
        let wanted = format!("HTTP/1.1 {code} ");
        assert!(answer.starts_with(&wanted), "{host}: {answer}");
    }
    let answer = http(port, "POST /metrics");
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    let answer = http(port, "GET /");
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    // Another mount cannot have the same place, and nothing is mounted then.
    let other = world.path("other");
    std::fs::create_dir(&other).unwrap();
    let taken = format!("localhost:{port}");
    let second = world.command(&["demo:", other.to_str().unwrap(), "--metrics-addr", &taken]);
    assert_eq!(second.code, 1, "{}", second.errors);
    let said = format!("--metrics-addr {taken} cannot be used");
    assert!(second.errors.contains(&said), "{}", second.errors);
    mount.unmount();
}

#[test]
fn clients_of_the_figures_take_a_bounded_share() {
    let world = World::with(&[]);
    let mount = world.mount_with("remote:", &["--metrics-addr", "localhost:0"]);
    let log = mount.log();
    let (_, place) = log.split_once("http://127.0.0.1:").unwrap();
    let port = place.split_once('/').unwrap().0.parse().unwrap();
    let open = || {
        std::fs::read_dir(format!("/proc/{}/fd", mount.id()))
            .unwrap()
            .count()
    };
    assert!(http(port, "GET /metrics").starts_with("HTTP/1.1 200 "));
    let before = open();
    let idle: Vec<_> = (0..100)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    wait_until("as many as may be are accepted", || open() >= before + 15);
    let mut most = 0;
    for _ in 0..200 {
        most = most.max(open());
        std::thread::yield_now();
    }
    assert!(
        most <= before + 20,
        "{most} are open and {before} were before"
    );
    // Each that ends makes room for one, and those that do nothing are let go of.
    drop(idle);
    assert!(http(port, "GET /metrics").starts_with("HTTP/1.1 200 "));
    let idle: Vec<_> = (0..16)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    // Ten seconds later.
    assert!(http(port, "GET /metrics").starts_with("HTTP/1.1 200 "));
    drop(idle);
    mount.unmount();
}

#[test]
fn requests_to_the_api_keep_to_their_rate() {
    let world = World::with(&[Fixture::file("/f", "x", 1)]);
    let mount = world.mount_with("remote:", &["--api-rate", "5", "--write-back", "0"]);
    world.emulator.reset_counters();
    let begun = Instant::now();
    for number in 0..10 {
        // Each has a request of its own: the one before has to be there first.
        mount.sh(&format!("mkdir d{number}"));
        wait_until("it is on the server", || {
            world.node(&format!("/d{number}")).is_some()
        });
    }
    let took = begun.elapsed();
    let requests = world.emulator.counters().requests_with("p");
    assert!(requests >= 10, "{requests}");
    // One was free at the start.
    assert!(took > Duration::from_millis(1_700), "{took:?}");
    mount.unmount();
}
