//! `dedupe`: several files and folders of one name, as rclone handles them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use mega_emulator::{Fixture, FixtureContent};
use megamount_tests::{World, done};

/// 1 May 2024, 12:00 UTC.
const DAY: i64 = 1_714_564_800;

fn pattern(path: &str, size: u64, seed: u64) -> Fixture {
    let content = FixtureContent::Pattern { size, seed };
    let (path, mtime) = (path.to_owned(), Some(DAY));
    Fixture::File {
        path,
        content,
        mtime,
    }
}

/// Three of one name: two the same, one newer and longer. And two large ones that are the same.
fn world() -> World {
    World::with(&[
        Fixture::file("/d/one.txt", "same", DAY),
        Fixture::file("/d/one.txt", "same", DAY + 5),
        Fixture::file("/d/one.txt", "longer", DAY + 9),
        pattern("/d/two.bin", 200_000, 1),
        pattern("/d/two.bin", 200_000, 1),
        Fixture::file("/single", "x", DAY),
    ])
}

/// The names in `/d`, sorted.
fn names(world: &World) -> Vec<String> {
    let mut paths = world.paths();
    paths.retain(|path| path.starts_with("/d/") && path != "/d/");
    paths
}

#[test]
fn they_are_listed() {
    let world = world();
    let text = done(&world, &["dedupe", "list", "remote:"]);
    assert!(
        text.starts_with("d/one.txt: 3 duplicates\n  1:            4 bytes, 2024-05-01 12:00:00."),
        "{text}"
    );
    assert!(text.contains("d/two.bin: 2 duplicates\n"), "{text}");
    assert!(!text.contains("single"), "{text}");
    assert_eq!(names(&world).len(), 5, "nothing changes");
}

#[test]
fn the_same_go_without_a_question() {
    let world = world();
    let text = done(&world, &["dedupe", "--mode", "skip", "remote:d"]);
    assert!(
        text.contains("one.txt: Deleting 1 identical duplicates\n"),
        "{text}"
    );
    assert!(text.contains("one.txt: 2 duplicates remain\n"), "{text}");
    assert_eq!(names(&world), ["/d/one.txt", "/d/one.txt", "/d/two.bin"]);
    assert_eq!(world.bin(), ["one.txt", "two.bin"]);
}

#[test]
fn modes_keep_one() {
    for (mode, kept) in [
        ("first", "same"),
        ("oldest", "same"),
        ("smallest", "same"),
        ("newest", "longer"),
        ("largest", "longer"),
    ] {
        let world = world();
        done(&world, &["dedupe", mode, "remote:"]);
        assert_eq!(names(&world), ["/d/one.txt", "/d/two.bin"], "{mode}");
        assert_eq!(
            world.content("/d/one.txt").unwrap(),
            kept.as_bytes(),
            "{mode}"
        );
        // The one that is left has its plain name.
        let listed = done(&world, &["ls", "remote:d"]);
        assert!(
            listed.contains(" one.txt\n") && !listed.contains('('),
            "{listed}"
        );
    }
}

#[test]
fn the_first_is_the_oldest_where_the_newest_has_the_name() {
    let world = World::with(&[
        Fixture::file("/d/f", "oldest", DAY),
        Fixture::file("/d/f", "newest", DAY + 5),
    ]);
    let mount = world.mount_with("remote:", &["--duplicates", "newest"]);
    assert_eq!(mount.sh("cat d/f 'd/f (1)'"), "newestoldest");
    done(&world, &["dedupe", "first", "remote:"]);
    assert_eq!(mount.names("d"), ["f"]);
    assert_eq!(mount.read("d/f"), b"oldest");
    mount.unmount();
    assert_eq!(world.content("/d/f").unwrap(), b"oldest");
}

#[test]
fn nothing_goes_but_what_was_shown() {
    let world = World::with(&[
        Fixture::file("/d/f", "oldest", DAY),
        Fixture::file("/d/f", "newest", DAY + 5),
    ]);
    let mount = world.mount_with("remote:", &["--duplicates", "newest"]);
    let text = done(&world, &["dedupe", "list", "remote:"]);
    let handle_of = |name: &str| {
        let line = text.lines().find(|line| line.ends_with(name)).unwrap();
        line.split(", ").nth(2).unwrap().to_owned()
    };
    let mut sockets = std::fs::read_dir(world.path("run/megamount")).unwrap();
    let socket = sockets.next().unwrap().unwrap().path();
    // As `dedupe` asks, when the name has become another's since it was shown.
    let ask = |ask: &str| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        let line = format!(
            r#"{{"v":1,"do":"files","ask":{{{ask},"handle":"{}"}}}}"#,
            handle_of(", f (1)")
        );
        stream.write_all((line + "\n").as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        answer
    };
    for other in [
        r#""do":"remove","path":"d/f","recursive":false"#,
        r#""do":"rename","from":"d/f","to":"d/g""#,
    ] {
        let answer = ask(other);
        assert!(answer.contains("replaced meanwhile"), "{answer}");
        assert_eq!(mount.names("d"), ["f", "f (1)"]);
    }
    let answer = ask(r#""do":"remove","path":"d/f (1)","recursive":false"#);
    assert!(!answer.contains("meanwhile"), "{answer}");
    assert_eq!(mount.names("d"), ["f"]);
    assert_eq!(mount.read("d/f"), b"newest");
    mount.unmount();
}

#[test]
fn all_can_be_renamed() {
    let world = world();
    let text = done(&world, &["dedupe", "--dedupe-mode", "rename", "remote:"]);
    assert!(
        text.contains("d/one-1.txt: renamed from: one.txt\n"),
        "{text}"
    );
    assert_eq!(
        names(&world),
        ["/d/one-1.txt", "/d/one-2.txt", "/d/two.bin"]
    );
}

#[test]
fn a_dry_run_changes_nothing() {
    let world = world();
    done(&world, &["dedupe", "-n", "newest", "remote:"]);
    assert_eq!(names(&world).len(), 5);
    assert_eq!(world.bin(), Vec::<String>::new());
}

#[test]
fn folders_of_one_name_are_merged() {
    let named = |parent: &str, name: &str, text: Option<&str>| Fixture::Named {
        parent: parent.to_owned(),
        name: name.to_owned(),
        content: text.map(|text| FixtureContent::Text(text.to_owned())),
        mtime: Some(DAY),
    };
    let world = World::with(&[
        named("/", "f", None),
        named("/f", "a", Some("a")),
        named("/f", "both", Some("same")),
    ]);
    let mount = world.mount();
    // The second folder of that name, by another client.
    world.populate(&[named("/", "f", None)]);
    mount.sh("until [ -d 'f (1)' ]; do sleep 0.05; done; echo -n b >'f (1)/b'; echo -n same >'f (1)/both'; mkdir 'f (1)/sub'; echo -n deep >'f (1)/sub/c'");
    done(&world, &["flush", "remote:"]);
    let text = done(&world, &["dedupe", "newest", "remote:"]);
    assert!(
        text.contains("f: Merging 2 folders of this name\n"),
        "{text}"
    );
    assert_eq!(
        world.paths(),
        ["/f/", "/f/a", "/f/b", "/f/both", "/f/sub/", "/f/sub/c"]
    );
    assert_eq!(mount.names(""), ["f"], "the kernel is told");
    mount.unmount();
}

#[test]
fn mistakes_are_explained() {
    let world = world();
    let answer = world.command(&["dedupe", "best", "remote:"]);
    assert_eq!(answer.code, 1);
    assert!(answer.errors.contains("'best' is no mode"), "{answer:?}");
    let answer = world.command(&["dedupe", "--mode", "best", "remote:"]);
    assert_eq!(answer.code, 1);
    assert!(answer.errors.contains("newest"), "{answer:?}");
    let answer = world.command(&["dedupe", "list", "remote:none"]);
    assert_eq!(answer.code, 3);
}
