//! Commands that change an account, with and without a mount: `copy`, `mkdir`, `mv`, `rm`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs::FileTimes;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use mega_emulator::{AccountSpec, FaultAction, FaultRule, Fixture, pattern};
use megamount_tests::{World, done, fails, wait_until};

/// 1 May 2024, 12:00 UTC.
const DAY: i64 = 1_714_564_800;

/// A local file with a time of its own.
fn local(world: &World, name: &str, content: &[u8]) {
    let path = world.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(DAY.unsigned_abs(), 123_456_789);
    file.set_times(FileTimes::new().set_modified(time)).unwrap();
}

/// A local folder to copy.
fn sources(world: &World) {
    local(world, "out/src/a.txt", b"first");
    local(world, "out/src/deep/er/b.bin", &pattern(3, 0, 300_000));
    local(world, "out/src/deep/run", b"#!/bin/sh\n");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(world.path("out/src/deep/run"), mode).unwrap();
    symlink("a.txt", world.path("out/src/link")).unwrap();
    std::fs::create_dir(world.path("out/src/nothing")).unwrap();
}

const COPIED: [&str; 6] = [
    "/up/",
    "/up/a.txt",
    "/up/deep/",
    "/up/deep/er/",
    "/up/deep/er/b.bin",
    "/up/deep/run",
];

#[track_caller]
fn goes_up_and_down(world: &World) {
    sources(world);
    let text = done(world, &["copy", "src", "remote:up"]);
    assert!(text.starts_with("Copied 4 files, "), "{text}");
    let mut expected: Vec<_> = COPIED.to_vec();
    expected.push("/up/link");
    let mut paths = world.paths();
    paths.retain(|path| path != "/elsewhere/");
    assert_eq!(paths, expected, "finished when Mega has it");
    assert_eq!(world.content("/up/a.txt").unwrap(), b"first");
    assert_eq!(
        done(world, &["lsl", "remote:up/a.txt"]),
        "        5 2024-05-01 12:00:00.123456789 a.txt\n"
    );
    let text = done(world, &["copy", "src", "remote:up"]);
    assert_eq!(text, "Copied 0 files, 0 B; 4 files the same already.\n");
    // Down again: content, times, permissions, links.
    done(world, &["copy", "remote:up", "down"]);
    let meta = |name: &str| world.path(name).symlink_metadata().unwrap();
    for name in ["a.txt", "deep/er/b.bin", "deep/run", "link"] {
        let (was, is) = (
            meta(&format!("out/src/{name}")),
            meta(&format!("out/down/{name}")),
        );
        assert_eq!(
            (is.mtime(), is.mtime_nsec()),
            (was.mtime(), was.mtime_nsec()),
            "{name}"
        );
        assert_eq!(is.mode() & 0o100, was.mode() & 0o100, "{name}");
    }
    assert_eq!(
        std::fs::read(world.path("out/down/deep/er/b.bin")).unwrap(),
        pattern(3, 0, 300_000)
    );
    let target = std::fs::read_link(world.path("out/down/link")).unwrap();
    assert_eq!(target.to_str(), Some("a.txt"));
    let text = done(world, &["copy", "remote:up", "down"]);
    assert_eq!(text, "Copied 0 files, 0 B; 4 files the same already.\n");
    // Within the account no byte moves.
    let before = world.emulator.counters();
    done(world, &["copy", "remote:up/deep", "remote:twice"]);
    let after = world.emulator.counters();
    assert_eq!(
        world.content("/twice/er/b.bin").unwrap(),
        pattern(3, 0, 300_000)
    );
    assert_eq!(after.commands("u"), before.commands("u"), "no upload");
    assert_eq!(
        done(world, &["lsl", "remote:twice/run"]),
        "       10 2024-05-01 12:00:00.123456789 run\n"
    );
    // A file goes into the folder.
    done(world, &["copy", "src/a.txt", "remote:up/a.txt2"]);
    assert_eq!(world.content("/up/a.txt2/a.txt").unwrap(), b"first");
}

#[test]
fn copies_go_up_down_and_within() {
    let world = World::new();
    goes_up_and_down(&world);
    assert_eq!(world.emulator.counters().logins, 1);
}

#[test]
fn copies_go_through_a_mount() {
    let world = World::new();
    let mount = world.mount();
    assert!(
        !mount.path("up").exists(),
        "the kernel remembers that it is not there"
    );
    goes_up_and_down(&world);
    assert_eq!(mount.read("up/a.txt"), b"first");
    local(&world, "out/src/a.txt", b"other");
    done(&world, &["copy", "-c", "src", "remote:up"]);
    assert_eq!(mount.read("up/a.txt"), b"other", "the kernel is told");
    mount.unmount();
    assert_eq!(world.emulator.counters().logins, 1);
}

#[test]
fn copies_go_to_what_a_mount_does_not_show() {
    let world = World::with(&[Fixture::folder("/elsewhere")]);
    let mount = world.mount_with("remote:elsewhere", &[]);
    goes_up_and_down(&world);
    mount.unmount();
}

#[test]
fn only_what_differs_is_copied() {
    let world = World::new();
    sources(&world);
    done(&world, &["copy", "src", "remote:"]);
    // Another time, the same content.
    std::fs::write(world.path("out/src/a.txt"), "first").unwrap();
    let text = done(&world, &["copy", "--checksum", "src", "remote:"]);
    assert!(text.starts_with("Copied 0 files"), "{text}");
    let text = done(&world, &["copy", "--size-only", "src", "remote:"]);
    assert!(text.starts_with("Copied 0 files"), "{text}");
    let text = done(&world, &["copy", "--dry-run", "src", "remote:"]);
    assert!(text.contains("would copy a.txt (5 B)\n"), "{text}");
    let text = done(&world, &["copy", "--verbose", "src", "remote:"]);
    assert_eq!(
        text,
        "a.txt\nCopied 1 file, 5 B; 3 files the same already.\n"
    );
    // The same time and size, another content.
    local(&world, "out/src/a.txt", b"FIRST");
    done(&world, &["copy", "src", "remote:"]);
    local(&world, "out/src/a.txt", b"other");
    let text = done(&world, &["copy", "src", "remote:"]);
    assert!(text.starts_with("Copied 0 files"), "{text}");
    let text = done(
        &world,
        &["copy", "--ignore-existing", "-c", "src", "remote:"],
    );
    assert!(text.starts_with("Copied 0 files"), "{text}");
    done(&world, &["copy", "-c", "src", "remote:"]);
    assert_eq!(world.content("/a.txt").unwrap(), b"other");
    assert!(world.node("/nothing").is_none(), "as rclone does");
    done(
        &world,
        &["copy", "--create-empty-src-dirs", "src", "remote:"],
    );
    assert!(world.node("/nothing").is_some());
}

#[test]
fn a_download_goes_on_where_it_was() {
    let size = 6_000_000;
    let world = World::with(&[Fixture::pattern("/big", size, 5)]);
    done(&world, &["ls", "remote:"]);
    let slow = FaultRule::new(
        "dl",
        FaultAction::Stall {
            after: 700_000,
            ms: 60_000,
        },
    );
    let slow = world.emulator.faults().add(slow);
    let mut command = world.program();
    command
        .args(["copy", "remote:big", "down", "--streams", "1"])
        .current_dir(world.path("out"))
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let partial = || {
        let entries = std::fs::read_dir(world.path("out/down")).ok()?;
        let path = entries.flatten().next()?.path();
        path.metadata().ok().map(|data| (path, data.len()))
    };
    wait_until("some of it is there", || {
        partial().is_some_and(|(_, length)| length > 0)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    world.emulator.faults().remove(slow);
    let (path, length) = partial().unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(
        name.starts_with(".megamount-") && name.ends_with(".partial"),
        "{name}"
    );
    assert!(length < size);
    // What an earlier run left is believed only if the checksum agrees.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 1);
    std::fs::write(&path, bytes).unwrap();
    done(&world, &["copy", "remote:big", "down"]);
    assert!(std::fs::read(world.path("out/down/big")).unwrap() == pattern(5, 0, size));
    assert!(!path.exists());
}

#[test]
fn half_a_file_never_shows() {
    let world = World::with(&[Fixture::file("/f", "old", DAY)]);
    local(&world, "out/f", &pattern(4, 0, 5_000_000));
    let slow = FaultRule::new("ul", FaultAction::Held);
    let slow = world.emulator.faults().add(slow);
    let mut command = world.program();
    command
        .args(["copy", "f", "remote:"])
        .current_dir(world.path("out"))
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    // Others are served meanwhile, and see it as it will be.
    wait_until("it is on its way", || {
        world.command(&["ls", "remote:"]).text == "  5000000 f\n"
    });
    assert_eq!(done(&world, &["status"]), "Nothing is mounted.\n");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(world.content("/f").unwrap(), b"old");
    world.emulator.faults().remove(slow);
    // It goes on with the next command.
    let text = done(&world, &["copy", "f", "remote:"]);
    assert!(text.starts_with("Copied"), "{text}");
    assert!(world.content("/f").unwrap() == pattern(4, 0, 5_000_000));
    assert_eq!(world.paths(), ["/f"]);
}

#[test]
fn two_accounts() {
    let world = World::new();
    world.expect_logins(2);
    world
        .emulator
        .add_account(AccountSpec::new("other@example.com", "other"));
    std::fs::write(world.path("other"), "other").unwrap();
    let text = std::fs::read_to_string(world.config()).unwrap();
    let other = world.path("other");
    world.configure(&format!(
        "{text}[remote.other]\nuser = \"other@example.com\"\npass-file = \"{}\"\n",
        other.display()
    ));
    sources(&world);
    done(&world, &["copy", "src", "remote:"]);
    done(&world, &["copy", "remote:", "other:from"]);
    assert_eq!(
        done(&world, &["lsl", "other:from/deep"]),
        "       10 2024-05-01 12:00:00.123456789 run\n   300000 2024-05-01 12:00:00.123456789 er/b.bin\n"
    );
    done(&world, &["copy", "other:from", "back"]);
    assert_eq!(
        std::fs::read(world.path("out/back/deep/er/b.bin")).unwrap(),
        pattern(3, 0, 300_000)
    );
    let text = fails(&world, &["mv", "remote:a.txt", "other:"], 1);
    assert!(text.contains("two remotes"), "{text}");
}

#[track_caller]
fn names_change(world: &World) {
    done(world, &["mkdir", "remote:new", "remote:new/sub"]);
    let text = fails(world, &["mkdir", "remote:new"], 2);
    assert!(text.contains("'new' exists already"), "{text}");
    let text = fails(world, &["mkdir", "remote:x/y"], 3);
    assert!(text.contains("there is no 'x'"), "{text}");
    done(world, &["mkdir", "-p", "remote:x/y", "remote:new"]);
    done(world, &["mv", "remote:f", "remote:new"]);
    done(world, &["mv", "remote:new/f", "remote:x/y/g"]);
    assert_eq!(
        world.paths(),
        ["/new/", "/new/sub/", "/x/", "/x/y/", "/x/y/g"]
    );
    let text = fails(world, &["mv", "remote:x", "remote:x/y"], 2);
    assert!(text.contains("into itself"), "{text}");
    let text = fails(world, &["mv", "remote:none", "remote:x"], 3);
    assert!(text.contains("there is no 'none'"), "{text}");
    let text = fails(world, &["rm", "remote:x"], 1);
    assert!(text.contains("Give -r"), "{text}");
    let text = fails(world, &["rm", "remote:none"], 3);
    assert!(text.contains("there is no 'none'"), "{text}");
    let text = fails(world, &["rm", "-r", "remote:"], 2);
    assert!(text.contains("the root of the account"), "{text}");
    done(world, &["rm", "-f", "remote:none"]);
    done(world, &["rm", "-r", "remote:x"]);
    assert_eq!(world.paths(), ["/new/", "/new/sub/"]);
    assert_eq!(world.bin(), ["x", "x/y", "x/y/g"]);
    done(world, &["rm", "-r", "remote:new/sub"]);
    assert_eq!(world.paths(), ["/new/"]);
}

#[test]
fn names_change_without_a_mount() {
    let world = World::with(&[Fixture::file("/f", "x", DAY)]);
    names_change(&world);
    done(&world, &["rm", "-r", "--hard-delete", "remote:new"]);
    assert!(!world.bin().contains(&"new".to_owned()));
}

#[test]
fn names_change_through_a_mount() {
    let world = World::with(&[Fixture::file("/f", "x", DAY)]);
    let mount = world.mount();
    assert_eq!(mount.names(""), ["f"]);
    names_change(&world);
    assert_eq!(mount.names(""), ["new"], "the kernel is told");
    mount.unmount();
}

#[test]
fn mistakes_are_explained() {
    let world = World::with(&[Fixture::file("/f", "x", DAY)]);
    local(&world, "out/a", b"a");
    let text = fails(&world, &["copy", "a"], 1);
    assert!(text.contains("SRC... DST"), "{text}");
    let text = fails(&world, &["copy", "a", "b"], 1);
    assert!(text.contains("are both local"), "{text}");
    let text = fails(&world, &["copy", "none", "remote:"], 3);
    assert!(text.contains("there is no local 'none'"), "{text}");
    assert!(text.contains("'work:none' would be on Mega"), "{text}");
    let text = fails(&world, &["copy", "a", "remotr:"], 3);
    assert!(text.contains("there is no remote 'remotr'"), "{text}");
    let text = fails(&world, &["copy", "remote:none", "."], 3);
    assert!(text.contains("there is no 'none'"), "{text}");
    let text = fails(&world, &["copy", "a", "remote:f"], 1);
    assert!(text.contains("'f' is a file"), "{text}");
    let text = fails(&world, &["copy", "--transfers", "0", "a", "remote:"], 1);
    assert!(text.contains("--transfers"), "{text}");
    let text = fails(&world, &["copy", "remote:f", "/proc/none"], 6);
    assert!(text.contains("/proc/none"), "{text}");
    let text = fails(&world, &["copy", "remote:f", "/dev/full/x"], 6);
    assert!(text.contains("/dev/full"), "{text}");
    std::fs::create_dir(world.path("out/f")).unwrap();
    let text = fails(&world, &["copy", "remote:f", "."], 6);
    assert!(
        text.contains("a folder of that name is in the way"),
        "{text}"
    );
    let text = fails(
        &world,
        &["mkdir", &format!("remote:{}", "x".repeat(256))],
        2,
    );
    assert!(text.contains("too long"), "{text}");
    assert_eq!(world.paths(), ["/f"]);
}

#[test]
fn a_full_account_is_told() {
    let world = World::new();
    local(&world, "out/a", &pattern(1, 0, 200_000));
    let full = FaultRule::new("cmd:u", FaultAction::CommandError { code: -17 });
    let full = world.emulator.faults().add(full);
    let text = fails(&world, &["copy", "a", "remote:"], 2);
    assert!(text.contains("the account is full"), "{text}");
    assert!(text.contains("It is kept"), "{text}");
    world.emulator.faults().remove(full);
    done(&world, &["copy", "a", "remote:"]);
    assert_eq!(world.paths(), ["/a"]);
}

#[test]
fn a_refusal_is_told_and_kept() {
    let world = World::with(&[Fixture::file("/f", "x", DAY)]);
    let refusal = FaultRule::new("cmd:a", FaultAction::CommandError { code: -11 });
    let refusal = world.emulator.faults().add(refusal);
    let text = fails(&world, &["mv", "remote:f", "remote:g"], 2);
    assert!(text.contains("Mega refused it"), "{text}");
    assert!(text.contains("It is kept"), "{text}");
    world.emulator.faults().remove(refusal);
    assert_eq!(done(&world, &["ls", "remote:"]), "        1 g\n");
    assert_eq!(world.paths(), ["/f"]);
}

#[test]
fn what_an_earlier_mount_has_queued_survives_a_command_that_fails() {
    let world = World::new();
    let full = FaultRule::new("cmd:u", FaultAction::CommandError { code: -17 });
    let full = world.emulator.faults().add(full);
    let only_copy = pattern(1, 0, 200_000);
    let mount = world.mount_with("remote:", &["--drain", "0s"]);
    mount.write("f", &only_copy);
    assert_eq!(mount.unmount_code(), 10);
    let text = fails(&world, &["mv", "remote:f", "remote:g"], 2);
    assert!(text.contains("the account is full"), "{text}");
    world.emulator.faults().remove(full);
    let mount = world.mount();
    assert!(mount.read("g") == only_copy);
    world.wait_for_content("/g", &only_copy);
    mount.unmount();
}

#[test]
fn a_command_waits_for_one_that_cannot_be_asked() {
    let world = World::with(&[Fixture::file("/f", "x", DAY)]);
    done(&world, &["ls", "remote:"]);
    let lock = std::fs::File::options()
        .write(true)
        .open(world.state().join("lock"))
        .unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let text = fails(&world, &["ls", "remote:", "--drain", "0s"], 6);
    assert!(text.contains("waiting for process"), "{text}");
    assert!(text.contains("'remote:' is in use"), "{text}");
    let waiting = std::thread::scope(|scope| {
        let command = scope.spawn(|| world.command(&["ls", "remote:"]));
        std::thread::sleep(Duration::from_millis(300));
        drop(lock);
        command.join().unwrap()
    });
    assert_eq!(waiting.text, "        1 f\n", "{waiting:?}");
}
