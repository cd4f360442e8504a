//! The daemon dies at the worst moment; the next mount has everything, once.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use mega_emulator::{FaultAction, FaultRule, Fixture, pattern};
use megamount_tests::{World, sh, wait_until};
use rustix::process::{Pid, Signal, kill_process};

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

/// A disk for the state directory alone: a file with ext4 in it, of which copies can be taken.
struct Disk {
    at: PathBuf,
}

impl Disk {
    /// Makes and mounts one; none where this machine does not allow it.
    fn make(world: &World) -> Option<Self> {
        let image = world.path("disk");
        File::create(&image).unwrap().set_len(96 << 20).unwrap();
        let made = Command::new("/sbin/mkfs.ext4")
            .args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
            .arg(&image)
            .status();
        if !made.is_ok_and(|status| status.success()) {
            return None;
        }
        let at = world.path("state");
        fs::create_dir_all(&at).unwrap();
        Self::mount(&image, at)
    }

    fn mount(image: &Path, at: PathBuf) -> Option<Self> {
        // Nothing is written to it of itself while the test lasts.
        let done = Command::new("mount")
            .args(["-t", "ext4", "-o", "loop,commit=600"])
            .args([image, &at])
            .status();
        done.is_ok_and(|status| status.success())
            .then_some(Self { at })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

/// A daemon that does nothing any more, and dies before anybody waits for it, whatever the test does.
struct Stopped(Pid);

impl Stopped {
    fn new(id: u32) -> Self {
        let daemon = Self(Pid::from_raw(id.cast_signed()).unwrap());
        kill_process(daemon.0, Signal::STOP).unwrap();
        daemon
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// The power goes the moment `fsync` has returned.
///
/// The state directory is on a disk of its own, a loop device over a file. When the last `fsync` has
/// returned, the daemon is stopped, before it can do anything more, and the file is copied: it holds
/// what the file system had handed to the disk by then, and nothing that was only in memory. The next
/// mount works on that copy.
///
/// This shows that everything `fsync` promises is on its way to the disk in time, and in an order that
/// the next start can use. A file written past the daemon shows that what was not synced is indeed
/// missing. It does not show what a disk does that loses or reorders what it was given: whether the
/// file system asks it to flush its own cache is the file system's business.
#[test]
fn power_cut_after_fsync_loses_nothing() {
    let world = World::with(&[
        Fixture::pattern("/large", 3_000_000, 4),
        Fixture::file("/moved", "m", 1_600_000_000),
        Fixture::file("/gone", "x", 1_600_000_000),
    ]);
    let Some(disk) = Disk::make(&world) else {
        eprintln!("skipped: only root can mount a disk image");
        return;
    };
    let mount = world.mount_with("remote:", &["--write-back", "10m"]);
    let synced = |name: &str, bytes: &[u8]| {
        let mut file = File::create(mount.path(name)).unwrap();
        file.write_all(bytes).unwrap();
        file.sync_all().unwrap();
        file
    };
    mount.sh("mkdir -p d/e; mv moved d/; rm gone");
    for directory in ["", "d"] {
        let directory = File::open(mount.path(directory)).unwrap();
        directory.sync_all().unwrap();
    }
    let new = pattern(5, 0, 2_000_000);
    // Nobody asks for this one; it is older than a second, though, as the row says in the end.
    mount.write("d/early", &new);
    let database = world.state().join("state.db");
    wait_until("the second is over", || {
        let unsynced = "select count(*) from change where size > 1000000 and synced = 0";
        sh(
            &world.path(""),
            &format!("sqlite3 '{}' '{unsynced}'", database.display()),
        ) == "0\n"
    });
    synced("d/small", b"small");
    synced("d/empty", b"");
    let still_open = synced("d/e/new", &new);
    // Closed and not synced: a second may not have passed.
    mount.write("d/closed", &new);
    let control = world.path("state/control");
    fs::write(&control, &new).unwrap();
    let part = OpenOptions::new().write(true).open(mount.path("large"));
    let part = part.unwrap();
    part.write_at(b"changed", 1_000_000).unwrap();
    part.sync_data().unwrap();
    let stopped = Stopped::new(mount.id());
    // In this process: a child would close its copies of our open files, and wait for the daemon.
    let copied = fs::copy(world.path("disk"), world.path("copy"));
    drop(stopped);
    copied.unwrap();
    mount.kill_9();
    drop((still_open, part, disk));

    let _disk = Disk::mount(&world.path("copy"), world.path("state")).unwrap();
    // The machine has been started since.
    let reboot = "update meta set value = 'another' where name = 'store.boot_id'";
    sh(
        &world.path(""),
        &format!("sqlite3 '{}' \"{reboot}\"", database.display()),
    );
    assert!(
        fs::read(&control).unwrap_or_default() != new,
        "the copy has what was never synced: it proves nothing"
    );
    let mut large = pattern(4, 0, 3_000_000);
    large[1_000_000..1_000_007].copy_from_slice(b"changed");
    let mount = world.mount();
    assert_eq!(mount.names(""), ["d", "large"]);
    let mut names = mount.names("d");
    names.retain(|name| name != "closed");
    assert_eq!(names, ["e", "early", "empty", "moved", "small"]);
    // What was written in the last second is there, or an error, but never something else.
    let closed = fs::read(mount.path("d/closed"));
    assert!(closed.as_ref().map_or(true, |bytes| *bytes == new));
    assert!(mount.read("d/early") == new);
    assert_eq!(mount.read("d/small"), b"small");
    assert!(mount.read("d/e/new") == new);
    assert!(mount.read("large") == large);
    let is_set_aside = closed.is_err_and(|error| error.raw_os_error() == Some(5));
    assert_eq!(mount.unmount_code(), if is_set_aside { 10 } else { 0 });
    assert!(world.content("/d/closed").is_none_or(|bytes| bytes == new));
    assert!(world.content("/large").unwrap() == large);
    assert!(world.content("/d/e/new").unwrap() == new);
    assert!(world.content("/d/early").unwrap() == new);
    assert_eq!(world.content("/d/small").unwrap(), b"small");
    assert_eq!(world.content("/d/empty").unwrap(), b"");
    assert_eq!(world.content("/d/moved").unwrap(), b"m");
    assert_eq!(world.bin(), ["gone"]);
}
