//! Two people change one thing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use mega_emulator::{FaultAction, FaultRule, Fixture, FixtureContent};
use megamount_tests::{World, wait_until};

fn overwrite(path: &str, text: &str) -> Fixture {
    Fixture::Overwrite {
        path: path.into(),
        content: FixtureContent::Text(text.into()),
        mtime: Some(1_700_000_000),
    }
}

#[test]
fn new_content_on_both_sides_is_kept_twice() {
    let world = World::with(&[
        Fixture::file("/f.txt", "old", 1_600_000_000),
        Fixture::folder("/sign"),
    ]);
    let mount = world.mount_with("remote:", &["--write-back", "10m"]);
    mount.write("f.txt", "ours");
    world.populate(&[overwrite("/f.txt", "theirs"), Fixture::folder("/seen")]);
    wait_until("their change is seen", || mount.path("seen").exists());
    mount.unmount();
    assert_eq!(world.content("/f.txt").unwrap(), b"theirs");
    let paths = world.paths();
    let ours: Vec<_> = paths
        .iter()
        .filter(|path| path.starts_with("/f (conflict ") && path.ends_with(").txt"))
        .collect();
    assert_eq!(ours.len(), 1, "{paths:?}");
    assert_eq!(world.content(ours[0]).unwrap(), b"ours");
}

#[test]
fn deleted_there_and_written_here_is_uploaded() {
    let world = World::with(&[Fixture::file("/d/f", "old", 1_600_000_000)]);
    let mount = world.mount_with("remote:", &["--write-back", "10m"]);
    mount.write("d/f", "ours");
    world.populate(&[
        Fixture::Trash {
            path: "/d/f".into(),
        },
        Fixture::folder("/seen"),
    ]);
    wait_until("their change is seen", || mount.path("seen").exists());
    assert_eq!(mount.read("d/f"), b"ours");
    mount.unmount();
    assert_eq!(world.content("/d/f").unwrap(), b"ours");
}

#[test]
fn our_new_name_wins_over_theirs() {
    let world = World::with(&[Fixture::file("/f", "x", 1_600_000_000)]);
    let mount = world.mount_with("remote:", &["--write-back", "10m"]);
    mount.sh("mv f ours");
    world.populate(&[
        Fixture::Rename {
            path: "/f".into(),
            name: "theirs".into(),
        },
        Fixture::folder("/seen"),
    ]);
    wait_until("their change is seen", || mount.path("seen").exists());
    mount.unmount();
    assert_eq!(world.paths(), ["/ours", "/seen/"]);
}

#[test]
fn deleted_there_and_renamed_here_is_gone() {
    let world = World::with(&[
        Fixture::file("/d/f", "x", 1_600_000_000),
        Fixture::file("/d/touched", "y", 1_600_000_000),
    ]);
    let mount = world.mount_with("remote:", &["--write-back", "10m"]);
    mount.sh("mv d/f d/ours; touch -d 2001-01-01 d/touched");
    world.populate(&[
        Fixture::Trash {
            path: "/d/f".into(),
        },
        Fixture::Remove {
            path: "/d/touched".into(),
        },
        Fixture::folder("/seen"),
    ]);
    wait_until("their change is seen", || mount.path("seen").exists());
    assert_eq!(mount.names("d"), Vec::<String>::new());
    mount.unmount();
    assert_eq!(world.paths(), ["/d/", "/seen/"]);
    // In the bin under the name it had there.
    assert_eq!(world.bin(), ["f"]);
    let mount = world.mount();
    assert_eq!(mount.names("d"), Vec::<String>::new());
    mount.unmount();
}

#[test]
fn folders_of_one_name_made_on_both_sides_become_one() {
    let world = World::new();
    // Ours stays in the queue: Mega is out of reach for it until theirs is there.
    let busy = FaultAction::CommandError { code: -3 };
    let rule = world.emulator.faults().add(FaultRule::new("cmd:p", busy));
    let mount = world.mount_with("remote:", &["--write-back", "10m"]);
    mount.sh("mkdir -p same/deep; echo ours >same/ours; echo ours >same/deep/ours");
    world.populate(&[
        Fixture::file("/same/theirs", "theirs", 1_600_000_000),
        Fixture::file("/same/deep/theirs", "theirs", 1_600_000_000),
        Fixture::folder("/seen"),
    ]);
    wait_until("their change is seen", || mount.path("seen").exists());
    assert_eq!(mount.names(""), ["same", "seen"]);
    assert_eq!(mount.names("same"), ["deep", "ours", "theirs"]);
    assert_eq!(mount.names("same/deep"), ["ours", "theirs"]);
    world.emulator.faults().remove(rule);
    mount.unmount();
    assert_eq!(
        world.paths(),
        [
            "/same/",
            "/same/deep/",
            "/same/deep/ours",
            "/same/deep/theirs",
            "/same/ours",
            "/same/theirs",
            "/seen/"
        ]
    );
}
