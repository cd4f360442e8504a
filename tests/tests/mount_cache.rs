//! The cache.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use mega_emulator::{Fixture, pattern};
use megamount_tests::{World, sh};

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
