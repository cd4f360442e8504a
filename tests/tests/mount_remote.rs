//! What others do with the account while it is mounted.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use mega_emulator::{Fixture, FixtureContent};
use megamount_tests::{World, wait_until};

#[test]
fn a_remote_upload_appears_within_a_second() {
    let world = World::with(&[Fixture::folder("/d")]);
    let mount = world.mount();
    // The kernel now remembers the listing and that there is no such name.
    assert_eq!(mount.names("d"), Vec::<String>::new());
    assert!(!mount.path("d/new").exists());
    let started = Instant::now();
    world.populate(&[Fixture::file("/d/new", "from elsewhere", 1_600_000_000)]);
    wait_until("the name is there", || mount.path("d/new").exists());
    let took = started.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(mount.names("d"), ["new"]);
    assert_eq!(mount.read("d/new"), b"from elsewhere");
    mount.unmount();
}

#[test]
fn a_remote_rename_and_delete_appear() {
    let world = World::with(&[
        Fixture::file("/a", "a", 1_600_000_000),
        Fixture::file("/b", "b", 1_600_000_000),
        Fixture::file("/c", "c", 1_600_000_000),
        Fixture::folder("/d"),
    ]);
    let mount = world.mount();
    assert_eq!(mount.names(""), ["a", "b", "c", "d"]);
    assert_eq!(mount.sh("cat a b c"), "abc");
    world.populate(&[
        Fixture::Rename {
            path: "/a".into(),
            name: "renamed".into(),
        },
        Fixture::Trash { path: "/b".into() },
        Fixture::Move {
            path: "/c".into(),
            to: "/d".into(),
        },
    ]);
    wait_until("all of it is seen", || {
        mount.names("") == ["d", "renamed"] && mount.names("d") == ["c"]
    });
    // The kernel forgets single names right after it is told of the listing.
    wait_until("the old names are gone", || {
        ["a", "b", "c"]
            .iter()
            .all(|name| !mount.path(name).exists())
    });
    assert_eq!(mount.sh("cat renamed d/c"), "ac");
    world.populate(&[Fixture::Remove { path: "/d".into() }]);
    wait_until("the folder is gone", || mount.names("") == ["renamed"]);
    mount.unmount();
}

#[test]
fn a_listing_that_the_kernel_kept_is_the_present_one() {
    let world = World::with(&[
        Fixture::file("/d/a", "a", 1_600_000_000),
        Fixture::file("/d/b", "b", 1_600_000_000),
    ]);
    let mount = world.mount();
    // Held open all the time, and read again and again from its beginning.
    let held = std::fs::File::open(mount.path("d")).unwrap();
    let mut held = rustix::fs::Dir::new(held).unwrap();
    let mut held_names = || {
        held.rewind();
        let mut names = Vec::new();
        while let Some(entry) = held.read() {
            names.push(entry.unwrap().file_name().to_str().unwrap().to_owned());
        }
        names.retain(|name| name != "." && name != "..");
        names.sort();
        names
    };
    for round in 0..5 {
        let own = format!("own {round}");
        let their = format!("their {round}");
        let has = |names: &[String], name: &str| names.iter().any(|known| known == name);
        for _ in 0..3 {
            assert_eq!(mount.names("d"), held_names());
        }
        mount.write(&format!("d/{own}"), "mine");
        assert!(has(&mount.names("d"), &own), "at once");
        assert!(has(&held_names(), &own), "at once in an open one");
        world.populate(&[Fixture::file(&format!("/d/{their}"), "theirs", 1)]);
        wait_until("what came is listed", || has(&mount.names("d"), &their));
        wait_until("it is in the open one", || has(&held_names(), &their));
        world.populate(&[Fixture::Rename {
            path: format!("/d/{their}"),
            name: format!("renamed {round}"),
        }]);
        wait_until("the old name is gone", || !has(&mount.names("d"), &their));
        wait_until("it is in no open one", || !has(&held_names(), &their));
        std::fs::remove_file(mount.path(&format!("d/{own}"))).unwrap();
        assert!(!has(&mount.names("d"), &own), "gone at once");
        assert!(!has(&held_names(), &own), "gone at once in an open one");
        mount.sh("ls -l d > /dev/null; find d -newer d/a > /dev/null");
    }
    let renamed = (0..5).map(|round| format!("renamed {round}"));
    let all: Vec<_> = ["a", "b"]
        .map(String::from)
        .into_iter()
        .chain(renamed)
        .collect();
    assert_eq!(mount.names("d"), all);
    drop(held);
    mount.unmount();
}

#[test]
fn a_remote_overwrite_shows_the_new_content() {
    let world = World::with(&[Fixture::file("/f", "old", 1_600_000_000)]);
    let mount = world.mount();
    assert_eq!(mount.read("f"), b"old");
    world.populate(&[Fixture::Overwrite {
        path: "/f".into(),
        content: FixtureContent::Text("much newer".into()),
        mtime: Some(1_700_000_000),
    }]);
    wait_until("the new content is read", || {
        mount.read("f") == b"much newer"
    });
    assert_eq!(mount.sh("stat -c '%s %Y' f"), "10 1700000000\n");
    assert_eq!(mount.names(""), ["f"]);
    mount.unmount();
}

#[test]
fn what_happened_while_it_was_not_mounted_is_seen() {
    let world = World::with(&[
        Fixture::file("/a", "a", 1_600_000_000),
        Fixture::file("/b", "b", 1_600_000_000),
    ]);
    let mount = world.mount();
    assert_eq!(mount.names(""), ["a", "b"]);
    mount.unmount();
    world.populate(&[
        Fixture::file("/c", "c", 1_600_000_000),
        Fixture::Rename {
            path: "/a".into(),
            name: "z".into(),
        },
        Fixture::Remove { path: "/b".into() },
    ]);
    let mount = world.mount();
    wait_until("the changes are seen", || mount.names("") == ["c", "z"]);
    mount.unmount();
    // And when the server has forgotten what happened since.
    world.populate(&[Fixture::file("/late", "x", 1_600_000_000)]);
    world.emulator.forget_events(megamount_tests::USER);
    let mount = world.mount();
    wait_until("the tree is loaded anew", || {
        mount.names("") == ["c", "late", "z"]
    });
    mount.unmount();
}

#[test]
fn two_mounts_of_one_account_see_each_other() {
    let world = World::new();
    world.expect_logins(2);
    let text = std::fs::read_to_string(world.config()).unwrap();
    world.configure(&format!(
        "{text}\n{}",
        text.replace("[remote.remote]", "[remote.other]")
    ));
    let one = world.mount();
    let two = world.mount_at("other:", "mnt2", &[]);
    one.sh("mkdir d; echo hello >d/f");
    wait_until("the other side sees it", || {
        std::fs::read(two.path("d/f")).is_ok_and(|content| content == b"hello\n")
    });
    two.sh("echo changed >d/f; mv d e");
    wait_until("and back", || {
        std::fs::read(one.path("e/f")).is_ok_and(|content| content == b"changed\n")
    });
    two.unmount();
    one.unmount();
    assert_eq!(world.paths(), ["/e/", "/e/f"]);
}
