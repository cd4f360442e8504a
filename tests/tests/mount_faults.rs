//! Servers that misbehave: nothing is lost, doubled or hung.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use mega_emulator::{FaultAction, FaultRule, Fixture, pattern};
use megamount_tests::{World, wait_until};

#[test]
fn a_lost_reply_makes_no_second_node() {
    let world = World::with(&[
        Fixture::file("/moved", "m", 1_600_000_000),
        Fixture::file("/gone", "g", 1_600_000_000),
    ]);
    for command in ["cmd:p", "cmd:m", "cmd:a", "cmd:u", "ul"] {
        world
            .emulator
            .faults()
            .add(FaultRule::new(command, FaultAction::Lost).times(2));
    }
    let mount = world.mount();
    mount.sh("mkdir d; echo 1 >d/one; echo 2 >two; mv moved d/; rm gone; mv two 2");
    mount.unmount();
    assert_eq!(world.paths(), ["/2", "/d/", "/d/moved", "/d/one"]);
    assert_eq!(world.bin(), ["gone"]);
    assert_eq!(world.content("/2").unwrap(), b"2\n");
}

#[test]
fn servers_that_are_busy_are_asked_again() {
    let world = World::with(&[Fixture::pattern("/f", 400_000, 1)]);
    let faults = world.emulator.faults();
    for at in ["cs", "dl", "ul"] {
        let code = FaultAction::Status {
            code: 500,
            headers: vec![],
            text: String::new(),
        };
        faults.add(FaultRule::once(at, code).after(1));
        faults.add(FaultRule::once(at, FaultAction::Reset).after(2));
    }
    faults.add(FaultRule::once("cs", FaultAction::Body { text: "-3".into() }).after(3));
    let mount = world.mount();
    assert!(mount.read("f") == pattern(1, 0, 400_000));
    mount.write("g", pattern(2, 0, 400_000));
    mount.unmount();
    assert!(world.content("/g").unwrap() == pattern(2, 0, 400_000));
}

#[test]
fn a_silent_server_times_a_read_out() {
    let world = World::with(&[Fixture::pattern("/f", 3_000_000, 1)]);
    let mount = world.mount_with("remote:", &["--timeout", "1s"]);
    let rule = world.emulator.faults().add(FaultRule::new(
        "dl",
        FaultAction::Stall {
            after: 1000,
            ms: 40_000,
        },
    ));
    let started = Instant::now();
    let text = mount.sh_fails("cat f >/dev/null");
    assert!(
        text.contains("timed out") || text.contains("Input/output error"),
        "{text}"
    );
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
    world.emulator.faults().remove(rule);
    // Connections that are still silent may cost a reader his patience once more.
    wait_until("the file is read", || {
        std::fs::read(mount.path("f")).is_ok_and(|bytes| bytes == pattern(1, 0, 3_000_000))
    });
    mount.unmount();
}

#[test]
fn unmount_works_while_the_server_is_silent() {
    let world = World::with(&[Fixture::file("/f", "x", 1_600_000_000)]);
    let mount = world.mount_with("remote:", &["--drain", "1s"]);
    world
        .emulator
        .faults()
        .add(FaultRule::new("*", FaultAction::Slow { ms: 45_000 }));
    mount.write("new", "y");
    let started = Instant::now();
    assert_eq!(mount.unmount_code(), 10, "work left");
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "{:?}",
        started.elapsed()
    );
    world.emulator.faults().clear();
    let mount = world.mount();
    assert_eq!(mount.read("new"), b"y");
    mount.unmount();
    assert_eq!(world.paths(), ["/f", "/new"]);
}

#[test]
fn a_refused_upload_is_kept_and_visible() {
    let world = World::new();
    let refusal = FaultAction::CommandError { code: -11 };
    let rule = world
        .emulator
        .faults()
        .add(FaultRule::new("cmd:p", refusal));
    let mount = world.mount_with("remote:", &["--drain", "500ms"]);
    mount.write("f", "precious");
    wait_until("the log says why", || mount.log().contains("access denied"));
    let state = mount.sh("getfattr --only-values -n user.mega.state f");
    assert_ne!(state, "uploaded");
    assert_eq!(mount.read("f"), b"precious");
    assert_eq!(mount.unmount_code(), 10, "work left");
    world.emulator.faults().remove(rule);
    let mount = world.mount();
    assert_eq!(mount.read("f"), b"precious");
    mount.unmount();
    assert_eq!(world.content("/f").unwrap(), b"precious");
}

#[test]
fn without_transfer_quota_reads_fail_at_once_and_status_says_so() {
    let world = World::with(&[
        Fixture::pattern("/here", 3_000_000, 1),
        Fixture::pattern("/there", 3_000_000, 2),
    ]);
    let mount = world.mount();
    assert!(mount.read("here") == pattern(1, 0, 3_000_000));
    world.emulator.set(|knobs| {
        knobs.transfer_left = Some(0);
        knobs.transfer_wait = 7200;
    });
    let refused = || std::fs::read(mount.path("there")).unwrap_err();
    assert_eq!(refused().kind(), std::io::ErrorKind::QuotaExceeded);
    let asked = world.emulator.counters().requests("cs");
    assert_eq!(refused().kind(), std::io::ErrorKind::QuotaExceeded);
    assert_eq!(
        world.emulator.counters().requests("cs"),
        asked,
        "not asked again"
    );
    // What is here is read, and names are served.
    mount.sh("cat here >../out/copy; ls -l there");
    assert!(std::fs::read(world.path("out/copy")).unwrap() == pattern(1, 0, 3_000_000));
    let answer = world.command(&["status", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
    let left = document["mounts"][0]["downloads_blocked_seconds"].as_u64();
    assert!(
        left.is_some_and(|left| (7000..=7200).contains(&left)),
        "{left:?}"
    );
    let answer = world.command(&["status"]);
    assert!(
        answer.text.contains("the transfer quota is used up"),
        "{answer:?}"
    );
    mount.unmount();
}
