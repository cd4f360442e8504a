//! Without the server.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use mega_emulator::{FaultAction, FaultRule, Fixture, pattern};
use megamount_tests::World;

#[test]
fn names_and_cached_bytes_are_served_without_the_server() {
    let world = World::with(&[
        Fixture::pattern("/cached", 3_000_000, 1),
        Fixture::file("/d/e/f", "not cached", 1_600_000_000),
    ]);
    let mount = world.mount_with("remote:", &["--timeout", "1s"]);
    assert!(mount.read("cached") == pattern(1, 0, 3_000_000));
    world
        .emulator
        .faults()
        .add(FaultRule::new("*", FaultAction::Reset));
    world.emulator.cut_connections();
    assert_eq!(
        mount.sh("find . | sort"),
        ".\n./cached\n./d\n./d/e\n./d/e/f\n"
    );
    assert!(mount.read("cached") == pattern(1, 0, 3_000_000));
    mount.sh("df . >/dev/null; mkdir -p d/new; mv cached d/new/; echo mine >d/new/f; cat d/new/f; stat d/e/f");
    mount.sh_fails("cat d/e/f");
    world.emulator.faults().clear();
    assert_eq!(mount.sh("cat d/e/f"), "not cached");
    mount.unmount();
    assert_eq!(
        world.paths(),
        [
            "/d/",
            "/d/e/",
            "/d/e/f",
            "/d/new/",
            "/d/new/cached",
            "/d/new/f"
        ]
    );
}

#[test]
fn a_known_account_is_mounted_without_the_server() {
    let world = World::with(&[Fixture::file("/d/f", "x", 1_600_000_000)]);
    let mount = world.mount();
    assert_eq!(mount.read("d/f"), b"x");
    mount.unmount();
    world
        .emulator
        .faults()
        .add(FaultRule::new("*", FaultAction::Reset));
    let mount = world.mount_with("remote:", &["--timeout", "2s"]);
    assert_eq!(mount.read("d/f"), b"x");
    mount.write("d/new", "y");
    world.emulator.faults().clear();
    world.wait_for_content("/d/new", b"y");
    mount.unmount();
}
