//! fsync: where data is when it returns.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use mega_emulator::{FaultAction, FaultRule, Fixture, pattern};
use megamount_tests::{World, wait_until};

/// Nothing is uploaded before somebody asks for it.
const CLOUD: [&str; 4] = ["--fsync", "cloud", "--write-back", "10m"];

#[test]
fn fsync_cloud_returns_when_the_node_exists() {
    let world = World::with(&[Fixture::file("/old", "old", 1_600_000_000)]);
    let mount = world.mount_with("remote:", &CLOUD);
    // In a folder that is not on Mega either.
    mount.sh("mkdir -p a/b");
    let mut file = File::create(mount.path("a/b/new")).unwrap();
    file.write_all(&pattern(1, 0, 3_000_000)).unwrap();
    file.sync_all().unwrap();
    assert!(world.content("/a/b/new").unwrap() == pattern(1, 0, 3_000_000));
    // Still open: the next bytes are new content of the same file.
    file.write_all(b"more").unwrap();
    file.sync_data().unwrap();
    assert_eq!(world.node("/a/b/new").unwrap().size, 3_000_004);
    file.seek(SeekFrom::Start(0)).unwrap();
    file.sync_all().unwrap();
    drop(file);

    let file = OpenOptions::new().write(true).open(mount.path("old"));
    let file = file.unwrap();
    file.write_at(b"NEW", 0).unwrap();
    file.sync_all().unwrap();
    assert_eq!(world.content("/old").unwrap(), b"NEW");
    drop(file);
    // Who waits is not told more than is true: nobody asked for this one.
    mount.write("later", "x");
    assert_eq!(world.node("/later"), None);
    mount.unmount();
    assert_eq!(
        world.paths(),
        ["/a/", "/a/b/", "/a/b/new", "/later", "/old"]
    );
}

#[test]
fn fsync_cloud_of_a_folder_is_about_its_names() {
    let world = World::with(&[
        Fixture::file("/d/gone", "x", 1_600_000_000),
        Fixture::file("/d/moved", "x", 1_600_000_000),
        Fixture::file("/d/named", "x", 1_600_000_000),
    ]);
    let mount = world.mount_with("remote:", &CLOUD);
    mount.sh("cd d; mkdir new; mv moved ..; mv named other; rm gone; echo file >file");
    File::open(mount.path("d")).unwrap().sync_all().unwrap();
    assert_eq!(
        world.paths(),
        ["/d/", "/d/file", "/d/new/", "/d/other", "/moved"]
    );
    mount.unmount();
}

#[test]
fn fsync_cloud_fails_when_nothing_moves() {
    let world = World::new();
    let options = [&CLOUD[..], &["--timeout", "1s", "--drain", "0s"]].concat();
    let mount = world.mount_with("remote:", &options);
    let faults = world.emulator.faults();
    for (at, action) in [
        ("ul", FaultAction::Slow { ms: 60_000 }),
        ("cmd:p", FaultAction::Slow { ms: 60_000 }),
        ("cmd:p", FaultAction::CommandError { code: -11 }),
    ] {
        let rule = faults.add(FaultRule::new(at, action.clone()));
        let mut file = File::create(mount.path("f")).unwrap();
        file.write_all(b"content").unwrap();
        let started = Instant::now();
        let error = file.sync_all().unwrap_err();
        // ETIMEDOUT.
        assert_eq!(error.raw_os_error(), Some(110), "{at} {action:?}: {error}");
        assert!(
            started.elapsed() < Duration::from_secs(15),
            "{:?}",
            started.elapsed()
        );
        faults.remove(rule);
    }
    // What could not be waited for is not lost.
    assert_eq!(mount.read("f"), b"content");
    wait_until("the file is there all the same", || {
        world.content("/f").as_deref() == Some(b"content")
    });
    drop(mount);
    assert_eq!(world.paths(), ["/f"]);
}

#[test]
fn fsync_to_disk_asks_nobody() {
    let world = World::new();
    let mount = world.mount_with("remote:", &["--drain", "0s"]);
    let silence = FaultAction::Slow { ms: 60_000 };
    world.emulator.faults().add(FaultRule::new("*", silence));
    let mut file = File::create(mount.path("f")).unwrap();
    file.write_all(b"content").unwrap();
    let started = Instant::now();
    file.sync_all().unwrap();
    File::open(mount.path("")).unwrap().sync_all().unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    drop(file);
    assert_eq!(mount.unmount_code(), 10, "work left");
}
