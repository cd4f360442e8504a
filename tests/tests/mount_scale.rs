//! Accounts of any size: what a mount costs follows what is used of it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;

use mega_emulator::Fixture;
use megamount_tests::{Mount, World};

/// An account with `folders` folders of 19 files, eight folders in each folder.
fn account(folders: u32) -> World {
    World::with(&[Fixture::Generated {
        parent: "/".into(),
        folders,
        fanout: 8,
        files_per_folder: 19,
        max_size: 1000,
    }])
}

/// A number from `/proc/PID/FILE`.
fn figure(mount: &Mount<'_>, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/{file}", mount.id())).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What a mount has cost when the root and one folder have been listed.
#[derive(Debug)]
struct Cost {
    /// Most memory held at any time, KiB.
    peak: u64,
    /// Bytes read from files: the database.
    read: u64,
}

fn look_around(world: &World) -> Cost {
    let mount = world.mount_with("remote:", &["--log-level", "info"]);
    let names = mount.sh("ls -la | wc -l; ls -la */ | wc -l");
    // The listings have 19 files, 8 folders (1 below the root), themselves and a total.
    assert_eq!(names, "4\n30\n");
    let cost = Cost {
        peak: figure(&mount, "status", "VmHWM:"),
        read: figure(&mount, "io", "rchar:"),
    };
    mount.unmount();
    cost
}

#[test]
fn memory_is_flat_in_the_number_of_nodes() {
    let (small, large) = (account(1_000), account(10_000));
    let cold = (look_around(&small), look_around(&large));
    let warm = (look_around(&small), look_around(&large));
    eprintln!("20,000 and 200,000 nodes: cold {cold:?}, warm {warm:?}");
    // A tree that is stored: nothing grows with it.
    assert!(warm.1.peak < warm.0.peak + 4 * 1024, "{warm:?}");
    assert!(warm.1.read < warm.0.read + (1 << 20), "{warm:?}");
    // The first load sorts in 40 MiB and spills the rest to the disk.
    assert!(cold.1.peak < cold.0.peak + 64 * 1024, "{cold:?}");
}
