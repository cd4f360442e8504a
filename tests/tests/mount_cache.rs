//! The cache.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use mega_emulator::{Fixture, pattern};
use megamount_tests::{World, sh, wait_until};

#[test]
fn the_cache_stays_below_its_size() {
    let files: Vec<_> = (0..12)
        .map(|number| Fixture::pattern(&format!("/f{number}"), 2_000_000, number))
        .collect();
    let world = World::with(&files);
    let mount = world.mount_with("remote:", &["--cache-size", "8MiB"]);
    for number in 0..12 {
        assert!(mount.read(&format!("f{number}")) == pattern(number, 0, 2_000_000));
        let used: u64 = sh(&world.path("cache"), "du -sB1 --apparent-size . | cut -f1")
            .trim()
            .parse()
            .unwrap();
        // Directories and the index come on top.
        assert!(used < (8 << 20) + (256 << 10), "{used} after {number}");
    }
    mount.unmount();
}

#[test]
fn without_a_cache_nothing_is_kept() {
    let world = World::with(&[Fixture::pattern("/f", 2_000_000, 1)]);
    let mount = world.mount_with("remote:", &["--cache", "off"]);
    assert!(mount.read("f") == pattern(1, 0, 2_000_000));
    mount.unmount();
    let used: u64 = sh(
        &world.path(""),
        "{ du -sB1 --apparent-size cache 2>/dev/null || echo 0; } | cut -f1",
    )
    .trim()
    .parse()
    .unwrap();
    assert!(used < 200_000, "{used}");
}

/// The one file in the cache that is about `size` bytes long.
fn cached(world: &World, size: u64) -> std::path::PathBuf {
    let script = format!("find -type f -size +{}k", size / 1024 - 512);
    let found = sh(&world.path("cache"), &script);
    let mut lines = found.lines();
    let path = world.path("cache").join(lines.next().unwrap());
    assert!(lines.next().is_none(), "{found}");
    path
}

#[test]
fn what_was_read_survives_a_killed_daemon() {
    let size = 6_000_000;
    let world = World::with(&[Fixture::pattern("/f", size, 1)]);
    let mount = world.mount();
    assert!(mount.read("f") == pattern(1, 0, size));
    // What was kept is written down about once a second.
    wait_until("it is written down", || {
        let query = "sqlite3 -readonly state.db 'SELECT coalesce(sum(bytes), 0) FROM blob'";
        let kept: u64 = sh(&world.state(), query).trim().parse().unwrap();
        kept >= size
    });
    mount.kill_9();
    let moved = world.emulator.counters().bytes_down;
    let mount = world.mount();
    assert!(mount.read("f") == pattern(1, 0, size));
    let again = world.emulator.counters().bytes_down - moved;
    assert_eq!(again, 0, "fetched again");
    mount.unmount();
}

#[test]
fn what_was_read_survives_a_restart_of_the_machine() {
    let size = 6_000_000;
    let world = World::with(&[Fixture::pattern("/f", size, 1)]);
    let mount = world.mount();
    assert!(mount.read("f") == pattern(1, 0, size));
    mount.unmount();
    // What differs after a restart: only what a sync vouched for is believed then.
    let update = "sqlite3 state.db \"UPDATE meta SET value = 'another' WHERE name = 'store.boot_id'; SELECT changes()\"";
    assert_eq!(sh(&world.state(), update), "1\n");
    let moved = world.emulator.counters().bytes_down;
    let mount = world.mount();
    assert!(mount.read("f") == pattern(1, 0, size));
    let again = world.emulator.counters().bytes_down - moved;
    assert_eq!(again, 0, "fetched again");
    mount.unmount();
}

#[test]
fn a_bit_that_flips_in_a_small_cached_file_is_found_when_it_is_read() {
    let size = 600_000;
    let world = World::with(&[Fixture::pattern("/f", size, 1)]);
    let mount = world.mount();
    assert!(mount.read("f") == pattern(1, 0, size));
    mount.unmount();
    let path = cached(&world, size);
    sh(
        &world.path(""),
        &format!(
            "cp -a '{0}' copy; printf x | dd of='{0}' bs=1 seek=300000 conv=notrunc status=none
             cmp '{0}' copy && exit 1; touch -r copy '{0}'",
            path.display()
        ),
    );
    let mount = world.mount();
    assert!(mount.read("f") == pattern(1, 0, size));
    assert!(mount.log().contains("fetching it again"));
    mount.unmount();
    // What is still good is not fetched again.
    let moved = world.emulator.counters().bytes_down;
    let mount = world.mount();
    assert!(mount.read("f") == pattern(1, 0, size));
    mount.unmount();
    assert_eq!(world.emulator.counters().bytes_down, moved);
}

#[test]
fn damage_to_cached_bytes_is_repaired() {
    let size = 6_000_000;
    let world = World::with(&[Fixture::pattern("/f", size, 1)]);
    let mount = world.mount();
    assert!(mount.read("f") == pattern(1, 0, size));
    mount.unmount();
    // A bit that flips on the disk changes neither length nor times, so a check has to find it.
    let path = cached(&world, size);
    sh(
        &world.path(""),
        &format!(
            "cp -a '{0}' copy; printf x | dd of='{0}' bs=1 seek=3000000 conv=notrunc status=none
             cmp '{0}' copy && exit 1; touch -r copy '{0}'",
            path.display()
        ),
    );
    let mount = world.mount();
    let answer = world.command(&["verify", mount.path("f").to_str().unwrap()]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(
        mount
            .log()
            .contains("does not match its MAC: fetching it again")
    );
    assert!(mount.read("f") == pattern(1, 0, size));
    mount.unmount();
    // A file that was cut off is found without one.
    let path = cached(&world, size);
    sh(
        &world.path(""),
        &format!("truncate -s 1000000 '{}'", path.display()),
    );
    let mount = world.mount();
    assert!(mount.read("f") == pattern(1, 0, size));
    mount.unmount();
}
