//! Options whose effect shows in the mount.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

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
