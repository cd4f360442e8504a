//! What commands must not do: lose one of two things, write where nobody pointed, or say that it is done
//! before it is.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::os::unix::fs::symlink;
use std::process::Stdio;

use mega_emulator::{AccountSpec, FaultAction, FaultRule, Fixture, FixtureContent, pattern};
use megamount_tests::{World, done, fails, wait_until};

/// 1 May 2024, 12:00 UTC.
const DAY: i64 = 1_714_564_800;

fn local(world: &World, name: &str, content: &[u8]) {
    let path = world.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
}

/// Leaves some of `remote:big`, 6000000 bytes, in `out/down`, as a download does that was killed.
fn half_a_download(world: &World) {
    let slow = FaultAction::Stall {
        after: 700_000,
        ms: 60_000,
    };
    let slow = world.emulator.faults().add(FaultRule::new("dl", slow));
    let mut command = world.program();
    command
        .args(["copy", "remote:big", "down", "--streams", "1"])
        .current_dir(world.path("out"))
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    wait_until("some of it is there", || {
        let entries = std::fs::read_dir(world.path("out/down"));
        let mut entries = entries.into_iter().flatten().flatten();
        entries.any(|entry| entry.metadata().is_ok_and(|data| data.len() > 0))
    });
    child.kill().unwrap();
    child.wait().unwrap();
    world.emulator.faults().remove(slow);
}

#[test]
fn a_download_of_what_mega_does_not_have_yet_begins_anew() {
    let size = 6_000_000;
    let world = World::with(&[Fixture::pattern("/big", size, 5)]);
    done(&world, &["ls", "remote:"]);
    half_a_download(&world);
    let held = world
        .emulator
        .faults()
        .add(FaultRule::new("ul", FaultAction::Held));
    let mount = world.mount_with("remote:", &["--drain", "0s"]);
    // The same node still, and the same length.
    mount.write("big", pattern(6, 0, size));
    done(&world, &["copy", "remote:big", "down"]);
    assert!(std::fs::read(world.path("out/down/big")).unwrap() == pattern(6, 0, size));
    assert_eq!(mount.unmount_code(), 10);
    world.emulator.faults().remove(held);
}

#[test]
fn a_download_without_a_checksum_begins_anew() {
    let size = 6_000_000;
    let content = FixtureContent::Pattern { size, seed: 5 };
    let world = World::with(&[Fixture::File {
        path: "/big".into(),
        content,
        mtime: None,
    }]);
    done(&world, &["ls", "remote:"]);
    half_a_download(&world);
    // What an earlier run has left cannot be proved.
    for entry in std::fs::read_dir(world.path("out/down")).unwrap().flatten() {
        let mut bytes = std::fs::read(entry.path()).unwrap();
        bytes.iter_mut().for_each(|byte| *byte ^= 1);
        std::fs::write(entry.path(), bytes).unwrap();
    }
    done(&world, &["copy", "remote:big", "down"]);
    assert!(std::fs::read(world.path("out/down/big")).unwrap() == pattern(5, 0, size));
}

#[test]
fn a_link_that_mega_refuses_replaces_nothing() {
    let world = World::with(&[Fixture::file("/l", "old", DAY)]);
    std::fs::create_dir(world.path("out/src")).unwrap();
    symlink("elsewhere", world.path("out/src/l")).unwrap();
    let refusal = FaultRule::new("cmd:p", FaultAction::CommandError { code: -11 });
    let refusal = world.emulator.faults().add(refusal);
    let text = fails(&world, &["copy", "src", "remote:"], 2);
    assert!(text.contains("Mega refused it"), "{text}");
    assert_eq!(world.content("/l").unwrap(), b"old", "it stays until then");
    world.emulator.faults().remove(refusal);
    // The same through a mount, which sees one or the other.
    let world = World::with(&[Fixture::file("/l", "old", DAY)]);
    std::fs::create_dir(world.path("out/src")).unwrap();
    symlink("elsewhere", world.path("out/src/l")).unwrap();
    let mount = world.mount();
    assert_eq!(mount.read("l"), b"old");
    done(&world, &["copy", "src", "remote:"]);
    let target = std::fs::read_link(mount.path("l")).unwrap();
    assert_eq!(target.to_str(), Some("elsewhere"));
    assert_eq!(mount.names(""), ["l"]);
    assert_eq!(world.paths(), ["/l"]);
    mount.unmount();
}

#[test]
fn a_link_comes_down_in_place_of_a_file() {
    let world = World::new();
    local(&world, "out/src/f", b"f");
    symlink("f", world.path("out/src/l")).unwrap();
    done(&world, &["copy", "src", "remote:"]);
    local(&world, "out/down/l", b"old");
    done(&world, &["copy", "remote:", "down"]);
    let target = std::fs::read_link(world.path("out/down/l")).unwrap();
    assert_eq!(target.to_str(), Some("f"));
    let entries = std::fs::read_dir(world.path("out/down")).unwrap();
    assert_eq!(entries.count(), 2, "nothing else is left");
}

#[test]
fn nothing_is_written_through_a_link_in_the_target() {
    let world = World::with(&[
        Fixture::file("/a/in/x", "x", DAY),
        Fixture::file("/a/in/deep/y", "y", DAY),
        Fixture::file("/a/other/z", "z", DAY),
        Fixture::file("/a/w", "w", DAY),
        Fixture::folder("/a/file"),
        Fixture::file("/a/file/v", "v", DAY),
    ]);
    for name in ["out/down", "out/elsewhere/deep"] {
        std::fs::create_dir_all(world.path(name)).unwrap();
    }
    symlink("../elsewhere", world.path("out/down/in")).unwrap();
    local(&world, "out/down/file", b"mine");
    let text = fails(&world, &["copy", "remote:a", "down"], 6);
    assert!(text.contains("'down/in'"), "{text}");
    assert!(text.contains("symbolic link"), "{text}");
    assert!(text.contains("'down/file'"), "{text}");
    for name in ["out/elsewhere/x", "out/elsewhere/deep/y"] {
        assert!(!world.path(name).exists(), "{name}");
    }
    let read = |name: &str| std::fs::read(world.path(name)).unwrap();
    assert_eq!(read("out/down/other/z"), b"z");
    assert_eq!(read("out/down/w"), b"w");
    assert_eq!(read("out/down/file"), b"mine");
    // A target that was named may be one.
    symlink("elsewhere", world.path("out/named")).unwrap();
    done(&world, &["copy", "remote:a/in", "named"]);
    assert_eq!(read("out/elsewhere/deep/y"), b"y");
}

#[test]
fn two_things_do_not_get_one_name() {
    let world = World::with(&[
        Fixture::file("/a/x", "first", DAY),
        Fixture::file("/b/x", "second", DAY),
        Fixture::file("/c/x/y", "third", DAY),
        Fixture::folder("/d"),
    ]);
    local(&world, "out/a/x", b"first");
    local(&world, "out/b/x", b"second");
    local(&world, "out/c/x/y", b"third");
    let before = world.paths();
    for args in [
        ["copy", "a/x", "b/x", "remote:d"],
        ["copy", "a", "b", "remote:d"],
        ["copy", "a", "c", "remote:d"],
        ["copy", "c", "a", "remote:d"],
        ["copy", "remote:a", "remote:b/x", "down"],
        ["copy", "remote:a", "remote:b", "remote:d"],
        ["mv", "remote:a/x", "remote:b/x", "remote:d"],
    ] {
        let text = fails(&world, &args, 1);
        assert!(text.contains("'x'"), "{args:?}: {text}");
        assert!(text.contains("Nothing was"), "{args:?}: {text}");
        assert_eq!(world.paths(), before, "{args:?}");
        assert!(!world.path("out/down").exists(), "{args:?}");
    }
    // The same thing twice is one thing.
    done(&world, &["copy", "a/x", "a/x", "remote:d"]);
}

#[test]
fn what_waits_for_its_turn_is_not_stuck() {
    let world = World::new();
    local(&world, "out/src/a", &pattern(1, 0, 3_000_000));
    local(&world, "out/src/b", &pattern(2, 0, 3_000_000));
    // Each piece takes a while, and none takes too long.
    let slow = FaultRule::new("ul", FaultAction::Slow { ms: 700 });
    let slow = world.emulator.faults().add(slow);
    let mount = world.mount_with("remote:", &["--uploads", "1", "--timeout", "1s"]);
    done(&world, &["copy", "src", "remote:", "--transfers", "2"]);
    world.emulator.faults().remove(slow);
    assert_eq!(world.paths(), ["/a", "/b"]);
    mount.unmount();
}

#[test]
fn what_is_replaced_has_gone_too() {
    let cases: [(&[&str], &[u8]); 3] = [
        (&["mv", "remote:a", "remote:b"], b"a"),
        (&["copy", "b", "remote:", "--versions", "replace"], b"newer"),
        (
            &["copy", "src", "remote:", "--versions", "replace"],
            b"elsewhere",
        ),
    ];
    for (args, content) in cases {
        let world = World::with(&[
            Fixture::file("/a", "a", DAY),
            Fixture::file("/b", "old", DAY),
        ]);
        local(&world, "out/b", b"newer");
        std::fs::create_dir(world.path("out/src")).unwrap();
        symlink("elsewhere", world.path("out/src/b")).unwrap();
        done(&world, &["ls", "remote:"]);
        let held = FaultRule::new("cmd:m", FaultAction::Held);
        let held = world.emulator.faults().add(held);
        let text = fails(&world, &[args, &["--timeout", "1s"]].concat(), 10);
        assert!(text.contains("'b' is not on Mega yet"), "{text}");
        world.emulator.faults().remove(held);
        wait_until("the old one is in the bin", || world.bin() == ["b"]);
        assert_eq!(world.content("/b").unwrap(), content, "{args:?}");
        let count = world.paths().iter().filter(|path| *path == "/b").count();
        assert_eq!(count, 1, "{args:?}");
    }
}

/// A command that is served and whose output nobody takes.
fn paused(world: &World, args: &[&str]) -> std::process::Child {
    let mut command = world.program();
    command
        .args(args)
        .current_dir(world.path("out"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    command.spawn().unwrap()
}

/// What it prints when somebody takes it; it must succeed.
#[track_caller]
fn taken(child: std::process::Child) -> Vec<u8> {
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    output.stdout
}

/// Many names, more than fit between a server, a client and its reader.
fn many() -> Vec<Fixture> {
    let path = |number| format!("/many/{number:0>200}");
    (0..5000)
        .map(|number| Fixture::file(&path(number), "", DAY))
        .collect()
}

#[test]
fn a_paused_listing_holds_up_nothing() {
    let world = World::with(&many());
    let mount = world.mount();
    let listing = paused(&world, &["ls", "remote:many"]);
    let other = done(&world, &["ls", "remote:many"]);
    assert_eq!(other.lines().count(), 5000);
    assert_eq!(taken(listing).len(), other.len());
    let listing = paused(&world, &["ls", "remote:many"]);
    wait_until("it has begun", || {
        rustix::io::ioctl_fionread(listing.stdout.as_ref().unwrap()).unwrap() > 0
    });
    mount.unmount();
    assert_ne!(listing.wait_with_output().unwrap().status.code(), Some(0));
}

#[test]
fn a_command_serves_others_to_their_end() {
    let mut files = many();
    files.push(Fixture::pattern("/two/a", 3_000_000, 1));
    files.push(Fixture::pattern("/two/b", 3_000_000, 2));
    let world = World::with(&files);
    local(&world, "out/f", b"f");
    let held = FaultRule::new("cmd:p", FaultAction::Held);
    let held = world.emulator.faults().add(held);
    let mut first = paused(&world, &["copy", "f", "remote:"]);
    wait_until("it serves", || {
        world.command(&["ls", "remote:"]).text.contains(" f\n")
    });
    let served = [
        paused(&world, &["ls", "remote:many"]),
        paused(&world, &["cat", "remote:two"]),
    ];
    wait_until("they have begun", || {
        served
            .iter()
            .all(|child| rustix::io::ioctl_fionread(child.stdout.as_ref().unwrap()).unwrap() > 0)
    });
    world.emulator.faults().remove(held);
    wait_until("its own work is done", || world.content("/f").is_some());
    // The next file is asked for when the first one has been printed.
    let [listing, content] = served;
    assert!(taken(content) == [pattern(1, 0, 3_000_000), pattern(2, 0, 3_000_000)].concat());
    assert!(first.try_wait().unwrap().is_none(), "somebody is served");
    assert_eq!(taken(listing).split(|byte| *byte == b'\n').count(), 5001);
    assert_eq!(first.wait().unwrap().code(), Some(0));
    assert_eq!(world.emulator.counters().logins, 1);
}

#[test]
fn two_commands_that_go_through_each_other_end() {
    let world = World::with(&[Fixture::pattern("/a", 2_000_000, 1)]);
    world.expect_logins(2);
    let user = "other@example.com";
    world.emulator.add_account(AccountSpec::new(user, "other"));
    let files = [Fixture::pattern("/b", 2_000_000, 2)];
    world.emulator.populate(user, &files).unwrap();
    std::fs::write(world.path("other"), "other").unwrap();
    let text = std::fs::read_to_string(world.config()).unwrap();
    world.configure(&format!(
        "{text}[remote.other]\nuser = \"{user}\"\npass-file = \"{}\"\n",
        world.path("other").display()
    ));
    done(&world, &["ls", "remote:"]);
    done(&world, &["ls", "other:"]);
    // Each opens its target first, and finds the other one at the source.
    let slow = FaultRule::new("wsc", FaultAction::Slow { ms: 500 });
    world.emulator.faults().add(slow);
    let mut both = [
        paused(&world, &["copy", "other:b", "remote:from"]),
        paused(&world, &["copy", "remote:a", "other:from"]),
    ];
    wait_until("both have ended", || {
        both.iter_mut()
            .all(|child| child.try_wait().unwrap().is_some())
    });
    for child in both {
        taken(child);
    }
    assert!(world.content("/from/b").unwrap() == pattern(2, 0, 2_000_000));
    let copied = world.emulator.find(user, "/from/a").unwrap();
    assert!(world.emulator.content(&copied.handle).unwrap() == pattern(1, 0, 2_000_000));
}
