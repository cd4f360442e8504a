//! `link`, `trash`, `versions`, `cleanup`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use mega_emulator::{FaultAction, FaultRule, Fixture, FixtureContent};
use megamount_tests::{World, done, fails, wait_until};

/// 1 May 2024, 12:00 UTC.
const DAY: i64 = 1_714_564_800;

#[test]
fn files_and_folders_get_links() {
    let world = World::with(&[
        Fixture::file("/d/f", "x", DAY),
        Fixture::file("/d/deep/g", "y", DAY),
    ]);
    let file = done(&world, &["link", "remote:d/f"]);
    assert!(file.starts_with("https://mega.nz/file/"), "{file}");
    let (_, key) = file.trim().split_once('#').unwrap();
    assert_eq!(key.len(), 43, "32 bytes: {file}");
    assert_eq!(
        done(&world, &["link", "remote:d/f"]),
        file,
        "the same again"
    );
    let folder = done(&world, &["link", "remote:d"]);
    assert!(folder.starts_with("https://mega.nz/folder/"), "{folder}");
    assert_eq!(
        folder.trim().split_once('#').unwrap().1.len(),
        22,
        "{folder}"
    );
    assert_eq!(
        done(&world, &["link", "remote:d"]),
        folder,
        "with the same key"
    );
    let links = world.emulator.counters().commands("l");
    assert_eq!(links, 4);
    // What is put there later has its key for the link: the emulator complains of what has none.
    std::fs::write(world.path("out/new"), "new").unwrap();
    done(&world, &["copy", "new", "remote:d/deep"]);
    done(&world, &["link", "--unlink", "remote:d/f"]);
    done(&world, &["link", "--unlink", "remote:d"]);
    assert_ne!(done(&world, &["link", "remote:d/f"]), file, "another link");
    let text = fails(&world, &["link", "remote:"], 1);
    assert!(text.contains("a whole account"), "{text}");
    let text = fails(&world, &["link", "remote:none"], 3);
    assert!(text.contains("there is no 'none'"), "{text}");
    let text = fails(&world, &["link", "--expire", "soon", "remote:d"], 1);
    assert!(text.contains("--expire"), "{text}");
    let refusal = FaultRule::new("cmd:l", FaultAction::CommandError { code: -11 });
    world.emulator.faults().add(refusal);
    let text = fails(&world, &["link", "--expire", "7d", "remote:d/f"], 2);
    assert!(text.contains("Mega refused it"), "{text}");
}

#[track_caller]
fn the_bin_gives_back(world: &World) {
    done(world, &["rm", "-r", "remote:d"]);
    done(world, &["rm", "remote:top"]);
    let text = done(world, &["trash", "list", "remote:"]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(
        lines[0].starts_with("        - 20") && lines[0].ends_with(" d/  (from /)"),
        "{text}"
    );
    assert_eq!(
        lines[1],
        "        3 2024-05-01 12:00:00.000000000 top  (from /)"
    );
    assert_eq!(
        done(world, &["trash", "restore", "remote:d"]),
        "Restored: /d\n"
    );
    done(
        world,
        &["trash", "restore", "remote:top", "--to", "d/other"],
    );
    assert_eq!(world.paths(), ["/d/", "/d/f", "/d/other"]);
    assert_eq!(world.bin(), Vec::<String>::new());
    let text = fails(world, &["trash", "restore", "remote:none"], 3);
    assert!(text.contains("'megamount trash list'"), "{text}");
    done(world, &["rm", "remote:d/f"]);
    std::fs::write(world.path("out/f"), "again").unwrap();
    done(world, &["copy", "f", "remote:d"]);
    let text = fails(world, &["trash", "restore", "remote:f", "--to", "d/f"], 2);
    assert!(text.contains("'d/f' exists already"), "{text}");
    let text = fails(world, &["trash", "empty", "remote:"], 1);
    assert!(text.contains("Give --yes"), "{text}");
    assert_eq!(world.bin(), ["f"]);
    done(world, &["trash", "empty", "--yes", "remote:"]);
    assert_eq!(world.bin(), Vec::<String>::new());
    assert_eq!(done(world, &["trash", "list", "remote:"]), "");
    done(world, &["rm", "remote:d/other"]);
    done(world, &["cleanup", "remote:"]);
    assert_eq!(world.bin(), Vec::<String>::new());
}

fn bin_world() -> World {
    World::with(&[
        Fixture::file("/d/f", "1", DAY),
        Fixture::file("/top", "333", DAY),
    ])
}

#[test]
fn the_bin_without_a_mount() {
    the_bin_gives_back(&bin_world());
}

#[test]
fn the_bin_through_a_mount() {
    let world = bin_world();
    let mount = world.mount();
    assert_eq!(mount.names(""), ["d", "top"]);
    the_bin_gives_back(&world);
    assert_eq!(mount.names(""), ["d"]);
    assert_eq!(mount.names("d"), ["f"]);
    mount.unmount();
}

#[test]
fn versions_come_back_and_go() {
    let over = |text: &str, later: i64| Fixture::Overwrite {
        path: "/f".to_owned(),
        content: FixtureContent::Text(text.to_owned()),
        mtime: Some(DAY + later),
    };
    let world = World::with(&[Fixture::file("/f", "1", DAY), over("22", 1), over("333", 2)]);
    let text = done(&world, &["versions", "list", "remote:f"]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(
        lines[0].starts_with("  0         3 2024-05-01 12:00:02."),
        "{text}"
    );
    assert!(
        lines[2].starts_with("  2         1 2024-05-01 12:00:00."),
        "{text}"
    );
    done(&world, &["versions", "restore", "remote:f", "2"]);
    assert_eq!(world.content("/f").unwrap(), b"1");
    assert_eq!(
        done(&world, &["lsl", "remote:f"]),
        "        1 2024-05-01 12:00:00.000000000 f\n"
    );
    let text = done(&world, &["versions", "list", "remote:f"]);
    assert_eq!(text.lines().count(), 4, "nothing is lost: {text}");
    let text = fails(&world, &["versions", "restore", "remote:f", "9"], 3);
    assert!(text.contains("no old version 9"), "{text}");
    let text = done(
        &world,
        &["versions", "prune", "--keep", "1", "--yes", "remote:"],
    );
    assert_eq!(text, "2 old versions deleted.\n");
    wait_until("they are gone", || {
        let nodes = world.nodes();
        nodes
            .iter()
            .filter(|node| node.version_of.is_some())
            .count()
            == 1
    });
    assert_eq!(
        done(&world, &["cleanup", "--old-versions", "remote:"]),
        "1 old version deleted.\n"
    );
    assert_eq!(world.content("/f").unwrap(), b"1");
    let text = fails(&world, &["versions", "list", "remote:none"], 3);
    assert!(text.contains("there is no 'none'"), "{text}");
    let text = fails(&world, &["versions", "list", "remote:"], 2);
    assert!(text.contains("is a folder"), "{text}");
}
