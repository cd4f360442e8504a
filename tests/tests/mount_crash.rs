//! The daemon dies at the worst moment; the next mount has everything, once.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use mega_emulator::{FaultAction, FaultRule, Fixture, pattern};
use megamount_tests::{World, wait_until};

#[test]
fn kill_after_close_loses_nothing() {
    let world = World::with(&[
        Fixture::file("/old", "old", 1_600_000_000),
        Fixture::file("/gone", "x", 1_600_000_000),
        Fixture::file("/moved", "m", 1_600_000_000),
    ]);
    let mount = world.mount_with("remote:", &["--write-back", "10m"]);
    mount.sh("mkdir -p a/b; for n in $(seq 30); do echo $n >a/b/$n; done
         echo new >old; rm gone; mv moved a/; touch -d 2001-01-01 a/b/7; ln -s b a/link");
    mount.write("large", pattern(2, 0, 3_000_000));
    mount.kill_9();

    let mount = world.mount();
    assert_eq!(mount.names(""), ["a", "large", "old"]);
    assert_eq!(mount.names("a/b").len(), 30);
    assert_eq!(mount.read("a/b/30"), b"30\n");
    assert_eq!(mount.read("old"), b"new\n");
    assert!(mount.read("large") == pattern(2, 0, 3_000_000));
    mount.unmount();
    assert_eq!(world.content("/old").unwrap(), b"new\n");
    assert_eq!(world.content("/a/moved").unwrap(), b"m");
    assert_eq!(world.node("/a/b/7").unwrap().mtime, Some(978_307_200));
    assert!(world.content("/large").unwrap() == pattern(2, 0, 3_000_000));
    // 30 files, 2 folders, moved, link, large, old: each once.
    assert_eq!(world.paths().len(), 36, "{:?}", world.paths());
    assert_eq!(world.bin(), ["gone"]);
}

#[test]
fn kill_during_upload_leaves_one_copy() {
    let world = World::new();
    world.emulator.set(|knobs| knobs.up_total = 2_000_000);
    let content = pattern(3, 0, 4_000_000);
    let mount = world.mount();
    mount.write("large", &content);
    for number in 0..5 {
        mount.write(&format!("small {number}"), "x");
    }
    wait_until("the upload has begun", || {
        world.emulator.counters().bytes_up > 500_000
    });
    mount.kill_9();
    world.emulator.set(|knobs| knobs.up_total = 0);

    let mount = world.mount();
    assert!(mount.read("large") == content);
    mount.unmount();
    assert_eq!(
        world.paths(),
        [
            "/large", "/small 0", "/small 1", "/small 2", "/small 3", "/small 4"
        ]
    );
    assert!(world.content("/large").unwrap() == content);
}

#[test]
fn kill_before_the_reply_arrives_leaves_one_copy() {
    let world = World::new();
    // The node is made; the reply would come in half a minute.
    world
        .emulator
        .faults()
        .add(FaultRule::once("cmd:p", FaultAction::Slow { ms: 30_000 }));
    let mount = world.mount();
    mount.write("f", "content");
    wait_until("the node is made", || world.node("/f").is_some());
    mount.kill_9();
    let mount = world.mount();
    assert_eq!(mount.names(""), ["f"]);
    mount.unmount();
    assert_eq!(world.paths(), ["/f"]);
    assert_eq!(world.content("/f").unwrap(), b"content");
}

#[test]
fn kill_before_the_reply_to_an_overwrite_arrives_leaves_one_copy() {
    let world = World::with(&[Fixture::file("/f", "old", 1_600_000_000)]);
    world
        .emulator
        .faults()
        .add(FaultRule::once("cmd:p", FaultAction::Slow { ms: 30_000 }));
    let mount = world.mount();
    mount.write("f", "content");
    world.wait_for_content("/f", b"content");
    mount.kill_9();
    let mount = world.mount();
    assert_eq!(mount.names(""), ["f"]);
    assert_eq!(mount.read("f"), b"content");
    mount.unmount();
    assert_eq!(world.paths(), ["/f"]);
    assert_eq!(world.content("/f").unwrap(), b"content");
}

#[test]
fn an_unanswered_put_is_never_a_second_entry() {
    // An overwritten file and a new one.
    for (name, all) in [
        ("f", ["f", "later"].as_slice()),
        ("g", &["f", "g", "later"]),
    ] {
        let world = World::with(&[Fixture::file("/f", "old", 1_600_000_000)]);
        // The node is made; the reply would come in half a minute.
        world
            .emulator
            .faults()
            .add(FaultRule::once("cmd:p", FaultAction::Slow { ms: 30_000 }));
        let mount = world.mount();
        mount.write(name, "content");
        world.wait_for_content(&format!("/{name}"), b"content");
        mount.kill_9();
        // Without its queue the mount cannot ask; what the event stream says has to be enough.
        world.populate(&[Fixture::file("/later", "x", 1_600_000_000)]);
        let mount = world.mount_with("remote:", &["--read-only"]);
        wait_until("the mount is up to date", || {
            mount.names("").contains(&"later".to_owned())
        });
        assert_eq!(mount.names(""), all);
        assert_eq!(mount.read(name), b"content");
        mount.unmount();
        world.mount().unmount();
        assert_eq!(world.paths().len(), all.len());
    }
}

#[test]
fn killed_many_times_in_the_middle_of_work_everything_arrives_once() {
    let world = World::new();
    for round in 0..4 {
        let mount = world.mount_with("remote:", &["--write-back", "1ms"]);
        mount.sh(&format!(
            "mkdir r{round}; for n in 1 2 3 4 5 6; do echo {round} >r{round}/$n; done
             test {round} = 0 || mv r0/{round} r{round}/moved; echo {round} >state.tmp; mv state.tmp state"
        ));
        mount.kill_9();
    }
    let mount = world.mount();
    mount.unmount();
    assert_eq!(world.content("/state").unwrap(), b"3\n");
    // 4 folders, 24 files, the state.
    assert_eq!(world.paths().len(), 29, "{:?}", world.paths());
}
