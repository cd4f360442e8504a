//! Moving and renaming.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::atomic::{AtomicBool, Ordering};

use mega_emulator::Fixture;
use megamount_tests::World;

/// Ends the other thread of a test, also when this one fails.
struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn files_and_folders_are_moved() {
    let world = World::with(&[
        Fixture::file("/a", "a", 1_600_000_000),
        Fixture::file("/d/b", "b", 1_600_000_000),
        Fixture::file("/d/e/c", "c", 1_600_000_000),
        Fixture::folder("/x"),
    ]);
    let before = ["/a", "/d/b", "/d/e/c"].map(|path| world.node(path).unwrap().handle);
    let mount = world.mount();
    mount.sh("mv a a2; mv d/b x/b2; mv d/e x; mv x y; mkdir n; mv y n/");
    assert_eq!(mount.sh("cat a2 n/y/b2 n/y/e/c"), "abc");
    assert!(
        mount
            .sh_fails("mv n n/y/")
            .contains("subdirectory of itself")
    );
    mount.unmount();
    assert_eq!(
        world.paths(),
        [
            "/a2", "/d/", "/n/", "/n/y/", "/n/y/b2", "/n/y/e/", "/n/y/e/c"
        ]
    );
    let after = ["/a2", "/n/y/b2", "/n/y/e/c"].map(|path| world.node(path).unwrap().handle);
    assert_eq!(before, after, "moved, not copied");
    assert_eq!(world.emulator.counters().requests("ul"), 0);
}

#[test]
fn a_file_replaces_another() {
    let world = World::with(&[
        Fixture::file("/old", "old", 1_600_000_000),
        Fixture::file("/new", "new", 1_600_000_001),
        Fixture::file("/d/old", "old", 1_600_000_000),
        Fixture::file("/d/new", "new", 1_600_000_001),
    ]);
    let mount = world.mount();
    mount.sh(
        "mv new old; mv -n d/new d/old; mv --exchange --no-copy d/new d/old 2>/dev/null || true",
    );
    assert_eq!(mount.read("old"), b"new");
    mount.unmount();
    assert_eq!(world.content("/old").unwrap(), b"new");
    assert_eq!(
        world
            .paths()
            .iter()
            .filter(|path| path.starts_with("/d/"))
            .count(),
        3
    );
    assert!(world.node("/new").is_none());
}

#[test]
fn folders_replace_only_empty_folders() {
    let world = World::with(&[
        Fixture::file("/full/f", "x", 1_600_000_000),
        Fixture::folder("/void"),
        Fixture::file("/file", "x", 1_600_000_000),
    ]);
    let mount = world.mount();
    assert!(mount.sh_fails("mv -T void full").contains("not empty"));
    assert!(
        mount
            .sh_fails("mv -T file full")
            .contains("cannot overwrite directory")
    );
    mount.sh("mv -T full void");
    mount.unmount();
    assert_eq!(world.paths(), ["/file", "/void/", "/void/f"]);
}

#[test]
fn rename_over_is_atomic_for_readers() {
    let world = World::with(&[Fixture::file("/doc", "version 0", 1_600_000_000)]);
    let mount = world.mount();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !is_done.load(Ordering::Relaxed) {
                let text = std::fs::read_to_string(mount.path("doc")).unwrap();
                assert!(text.starts_with("version ") && text.len() >= 9, "{text:?}");
                reads += 1;
            }
            reads
        });
        let finish = Finish(&is_done);
        for number in 1..=50 {
            mount.write("doc.tmp", format!("version {number}"));
            std::fs::rename(mount.path("doc.tmp"), mount.path("doc")).unwrap();
        }
        drop(finish);
        assert!(reader.join().unwrap() > 0);
    });
    mount.unmount();
    assert_eq!(world.paths(), ["/doc"]);
    assert_eq!(world.content("/doc").unwrap(), b"version 50");
}

#[test]
fn the_name_always_has_a_file_on_the_server() {
    let world = World::with(&[Fixture::file("/doc", "version 0", 1_600_000_000)]);
    let mount = world.mount_with("remote:", &["--write-back", "1ms"]);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                assert!(world.node("/doc").is_some(), "the name has no file");
                std::thread::yield_now();
            }
        });
        let finish = Finish(&is_done);
        for number in 1..=10 {
            let text = format!("version {number}");
            if number % 2 == 0 {
                mount.write("doc", &text);
            } else {
                mount.write("doc.tmp", &text);
                std::fs::rename(mount.path("doc.tmp"), mount.path("doc")).unwrap();
            }
            world.wait_for_content("/doc", text.as_bytes());
        }
        drop(finish);
        watcher.join().unwrap();
    });
    mount.unmount();
    assert_eq!(world.paths(), ["/doc"]);
}

#[test]
fn renaming_can_refuse_to_replace_and_can_exchange() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;

    let world = World::with(&[
        Fixture::file("/one", "1", 1_600_000_000),
        Fixture::file("/two", "2", 1_600_000_000),
        Fixture::file("/d/f", "f", 1_600_000_000),
    ]);
    let before = ["/one", "/two", "/d"].map(|path| world.node(path).unwrap().handle);
    let mount = world.mount();
    let rename = |from: &str, to: &str, flags| {
        renameat_with(CWD, mount.path(from), CWD, mount.path(to), flags)
    };
    let (noreplace, exchange) = (RenameFlags::NOREPLACE, RenameFlags::EXCHANGE);
    assert_eq!(rename("one", "two", noreplace), Err(Errno::EXIST));
    assert_eq!(rename("one", "missing", exchange), Err(Errno::NOENT));
    assert_eq!(rename("d", "d/f", exchange), Err(Errno::INVAL));
    assert_eq!(
        rename("one", "two", RenameFlags::WHITEOUT),
        Err(Errno::INVAL)
    );
    rename("one", "three", noreplace).unwrap();
    rename("three", "two", exchange).unwrap();
    // A file and a folder.
    rename("two", "d", exchange).unwrap();
    assert_eq!(mount.sh("cat d three two/f"), "12f");
    mount.unmount();
    assert_eq!(world.paths(), ["/d", "/three", "/two/", "/two/f"]);
    let after = ["/d", "/three", "/two"].map(|path| world.node(path).unwrap().handle);
    assert_eq!(before, after, "moved, not copied");
}
