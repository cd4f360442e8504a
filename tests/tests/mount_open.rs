//! What the flags of open(2) do: appending, exclusive creation, truncation.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};

use mega_emulator::Fixture;
use megamount_tests::World;
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl};

const WRITERS: usize = 4;
const LINES: usize = 100;

#[test]
fn several_writers_append_without_losing_a_line() {
    let world = World::with(&[Fixture::file("/log", "first\n", 1_600_000_000)]);
    let mount = world.mount();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let path = mount.path("log");
            scope.spawn(move || {
                let mut file = OpenOptions::new().append(true).open(path).unwrap();
                for line in 0..LINES {
                    let text = format!("{writer}:{line}\n");
                    assert_eq!(file.write(text.as_bytes()).unwrap(), text.len());
                }
            });
        }
    });
    let check = |content: Vec<u8>| {
        let text = String::from_utf8(content).unwrap();
        let lines: HashSet<_> = text.lines().collect();
        assert_eq!(lines.len(), 1 + WRITERS * LINES, "{text}");
        assert_eq!(text.lines().count(), 1 + WRITERS * LINES);
    };
    check(mount.read("log"));
    mount.unmount();
    check(world.content("/log").unwrap());
}

#[test]
fn the_append_flag_can_be_set_and_cleared_on_an_open_file() {
    let world = World::with(&[Fixture::file("/f", "0123456789", 1_600_000_000)]);
    let mount = world.mount();
    let file = OpenOptions::new()
        .append(true)
        .open(mount.path("f"))
        .unwrap();
    let flags = fcntl_getfl(&file).unwrap();
    fcntl_setfl(&file, flags - OFlags::APPEND).unwrap();
    file.write_all_at(b"AB", 0).unwrap();
    fcntl_setfl(&file, flags).unwrap();
    (&file).write_all(b"end").unwrap();
    drop(file);
    assert_eq!(mount.read("f"), b"AB23456789end");
    mount.unmount();
    assert_eq!(world.content("/f").unwrap(), b"AB23456789end");
}

#[test]
fn of_several_exclusive_creations_one_succeeds() {
    let world = World::new();
    let mount = world.mount();
    mount.sh("ln -s nowhere link");
    let won = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                for number in 0..50 {
                    let path = mount.path(&format!("lock-{number}"));
                    match OpenOptions::new().write(true).create_new(true).open(path) {
                        Ok(_) => {
                            won.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists),
                    }
                }
            });
        }
    });
    assert_eq!(won.into_inner(), 50);
    let link = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(mount.path("link"));
    assert_eq!(link.unwrap_err().kind(), ErrorKind::AlreadyExists);
    mount.unmount();
}

#[test]
fn opening_with_truncation_empties_whatever_the_access() {
    let world = World::with(&[
        Fixture::file("/written", "content", 1_600_000_000),
        Fixture::file("/read", "content", 1_600_000_000),
    ]);
    let mount = world.mount();
    for (name, access) in [("written", OFlags::WRONLY), ("read", OFlags::RDONLY)] {
        let flags = access | OFlags::TRUNC;
        let file = rustix::fs::open(mount.path(name), flags, Mode::empty()).unwrap();
        assert_eq!(rustix::fs::fstat(&file).unwrap().st_size, 0, "{name}");
        drop(file);
        assert_eq!(mount.read(name), b"", "{name}");
    }
    mount.unmount();
    for path in ["/written", "/read"] {
        assert_eq!(world.content(path).unwrap(), b"", "{path}");
    }
}
