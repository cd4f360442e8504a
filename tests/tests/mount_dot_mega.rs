//! `.mega` at the mount's root: status, bin, versions, and folders that others share.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::os::unix::fs::MetadataExt;

use mega_emulator::{AccountSpec, Fixture, FixtureContent};
use megamount_tests::{USER, World, wait_until};

const FRIEND: &str = "friend@example.com";

#[test]
fn it_is_always_there_and_never_listed() {
    let world = World::with(&[
        Fixture::file("/.mega/inner", "x", 1_600_000_000),
        Fixture::folder("/d"),
    ]);
    let mount = world.mount();
    assert_eq!(mount.names(""), [".mega (1)", "d"]);
    assert_eq!(mount.sh("ls -A"), ".mega (1)\nd\n");
    let top = std::fs::metadata(mount.path(".mega")).unwrap();
    assert_eq!(top.mode() & 0o7777, 0o700);
    assert_eq!(top.ino() & (7 << 60), 1 << 60);
    assert_eq!(
        mount.names(".mega"),
        ["shares", "status", "trash", "versions"]
    );
    assert!(mount.sh_fails("mkdir .mega").contains("File exists"));
    assert!(mount.sh_fails("rmdir .mega").contains("not permitted"));
    assert!(
        mount
            .sh_fails("touch .mega/new")
            .contains("Operation not permitted")
    );
    mount.sh("find . -name inner | grep -q '^./.mega (1)/inner$'");
    mount.sh("cd .mega/versions/d && ls -la .. && cd ../../trash && ls -la ..");
    mount.unmount();
    assert_eq!(world.paths(), ["/.mega/", "/.mega/inner", "/d/"]);
}

#[test]
fn the_status_can_be_read() {
    let world = World::new();
    let mount = world.mount();
    let text = mount.sh("cat .mega/status; cp .mega/status ../copy");
    let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown["version"], 1);
    assert_eq!(shown["mounts"][0]["safe"], true);
    let place = mount.path("");
    let place = place.to_str().unwrap().trim_end_matches('/');
    assert_eq!(shown["mounts"][0]["mountpoint"], place);
    let copy = std::fs::read(world.path("copy")).unwrap();
    assert!(serde_json::from_slice::<serde_json::Value>(&copy).is_ok());
    mount.unmount();
}

#[test]
fn what_was_removed_is_in_the_trash_and_comes_back() {
    let world = World::with(&[
        Fixture::file("/docs/a", "content", 1_600_000_000),
        Fixture::file("/docs/tree/deep/b", "deep", 1_600_000_000),
        Fixture::file("/old", "old", 1_600_000_000),
        Fixture::Trash {
            path: "/old".into(),
        },
    ]);
    // Long enough for the whole tree to go as one.
    let mount = world.mount_with("remote:", &["--write-back", "1s"]);
    assert_eq!(mount.names(".mega/trash"), ["old"]);
    mount.sh("rm -r docs/tree docs/a");
    wait_until("both are in the trash", || {
        mount.names(".mega/trash") == ["a", "old", "tree"]
    });
    assert_eq!(mount.read(".mega/trash/tree/deep/b"), b"deep");
    mount.sh("mv .mega/trash/tree docs/tree; mv .mega/trash/a .");
    assert_eq!(mount.read("docs/tree/deep/b"), b"deep");
    assert_eq!(mount.read("a"), b"content");
    assert!(
        mount
            .sh_fails("touch .mega/trash/new")
            .contains("permitted")
    );
    assert!(
        mount
            .sh_fails("echo x >> .mega/trash/old")
            .contains("permitted")
    );
    mount.sh("rm .mega/trash/old");
    assert_eq!(mount.names(".mega/trash"), Vec::<String>::new());
    mount.unmount();
    assert_eq!(world.bin(), Vec::<String>::new());
    assert_eq!(
        world.paths(),
        [
            "/a",
            "/docs/",
            "/docs/tree/",
            "/docs/tree/deep/",
            "/docs/tree/deep/b"
        ]
    );
}

#[test]
fn the_place_something_was_removed_from_is_kept() {
    let world = World::with(&[Fixture::file("/docs/a", "content", 1_600_000_000)]);
    let docs = world.node("/docs").unwrap().handle;
    let mount = world.mount();
    mount.sh("rm docs/a");
    wait_until("it is in the trash", || mount.names(".mega/trash") == ["a"]);
    let nodes = world.nodes();
    let binned = nodes.iter().find(|node| node.in_bin).unwrap();
    assert_eq!(binned.attributes.as_ref().unwrap()["rr"], docs.as_str());
    mount.sh("mv .mega/trash/a docs/b");
    mount.unmount();
    let back = world.node("/docs/b").unwrap();
    assert!(back.attributes.unwrap().get("rr").is_none());
}

#[test]
fn older_contents_are_read_and_copied_back() {
    let world = World::with(&[
        Fixture::file("/docs/report.txt", "first", 1_600_000_000),
        Fixture::Overwrite {
            path: "/docs/report.txt".into(),
            content: FixtureContent::Text("second".into()),
            mtime: Some(1_600_000_001),
        },
    ]);
    let mount = world.mount();
    assert_eq!(mount.names(".mega/versions/docs"), ["report.txt"]);
    let names = mount.names(".mega/versions/docs/report.txt");
    assert_eq!(names.len(), 1);
    let old = format!(".mega/versions/docs/report.txt/{}", names[0]);
    assert_eq!(mount.read(&old), b"first");
    assert!(mount.sh_fails(&format!("rm '{old}'")).contains("Read-only"));
    assert!(
        mount
            .sh_fails(&format!("echo x > '{old}'"))
            .contains("Read-only")
    );
    mount.sh(&format!("cp '{old}' docs/report.txt"));
    assert_eq!(mount.read("docs/report.txt"), b"first");
    mount.unmount();
    assert_eq!(world.content("/docs/report.txt").unwrap(), b"first");
}

fn shared(level: i64) -> World {
    let world = World::new();
    world
        .emulator
        .add_account(AccountSpec::new(FRIEND, "secret"));
    let list = [
        Fixture::file("/docs/file", "content", 1_600_000_000),
        Fixture::Share {
            path: "/docs".into(),
            to: USER.into(),
            level,
        },
    ];
    world.emulator.populate(FRIEND, &list).unwrap();
    world
}

const DOCS: &str = ".mega/shares/friend@example.com/docs";

#[test]
fn a_share_is_there_with_what_its_level_allows() {
    for (level, create, remove) in [
        (0, Err("Read-only"), "Read-only"),
        (1, Ok(()), "Permission denied"),
        (2, Ok(()), "not permitted"),
    ] {
        let world = shared(level);
        let mount = world.mount();
        assert_eq!(mount.read(&format!("{DOCS}/file")), b"content");
        let script = format!("echo ours > {DOCS}/new; mkdir {DOCS}/folder");
        match create {
            Ok(()) => drop(mount.sh(&script)),
            Err(text) => assert!(mount.sh_fails(&script).contains(text)),
        }
        let refused = mount.sh_fails(&format!("rm -f {DOCS}/file"));
        assert!(refused.contains(remove), "{level}: {refused}");
        mount.unmount();
        let theirs = world.emulator.find(FRIEND, "/docs/new");
        assert_eq!(theirs.is_some(), create.is_ok(), "{level}");
    }
}

#[test]
fn moving_across_the_border_of_a_share_copies() {
    let world = shared(1);
    let mount = world.mount();
    mount.sh(&format!(
        "echo mine > mine; mv mine {DOCS}/; cp {DOCS}/file ."
    ));
    assert_eq!(mount.names(""), ["file"]);
    mount.unmount();
    assert_eq!(world.content("/file").unwrap(), b"content");
    let theirs = world.emulator.find(FRIEND, "/docs/mine").unwrap();
    assert_eq!(world.emulator.content(&theirs.handle).unwrap(), b"mine\n");
}

#[test]
fn a_share_comes_and_goes_while_mounted() {
    let world = shared(0);
    let mount = world.mount();
    assert_eq!(mount.names(".mega/shares"), [FRIEND]);
    let end = Fixture::Unshare {
        path: "/docs".into(),
        to: USER.into(),
    };
    world.emulator.populate(FRIEND, &[end]).unwrap();
    wait_until("the share has gone", || {
        mount.names(".mega/shares").is_empty()
    });
    let begin = Fixture::Share {
        path: "/docs".into(),
        to: USER.into(),
        level: 1,
    };
    world.emulator.populate(FRIEND, &[begin]).unwrap();
    wait_until("the share and what is in it are there again", || {
        mount.names(".mega/shares") == [FRIEND]
            && std::fs::read(mount.path(&format!("{DOCS}/file"))).is_ok()
    });
    mount.unmount();
}
