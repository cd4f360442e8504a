//! Commands that look at an account, with and without a mount: `ls`, `lsl`, `lsd`, `lsjson`, `tree`, `about`,
//! `cat`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use mega_emulator::{FaultAction, FaultRule, Fixture, pattern};
use megamount_tests::{PASSWORD, USER, World, done, fails};
use serde_json::Value;

/// 1 May 2024, 12:00 UTC.
const DAY: i64 = 1_714_564_800;

fn world() -> World {
    World::with(&[
        Fixture::file("/a.txt", "first\n", DAY),
        Fixture::file("/docs/b.txt", "second line\n", DAY),
        Fixture::file("/docs/deep/c.bin", "third", DAY),
        Fixture::file("/docs/same.txt", "one", DAY),
        Fixture::file("/docs/same.txt", "two", DAY),
        Fixture::folder("/empty"),
        Fixture::pattern("/big", 3_000_000, 7),
    ])
}

/// What everything looks like, mounted or not.
#[track_caller]
fn looks_as_expected(world: &World) {
    assert_eq!(
        done(world, &["ls", "remote:docs"]),
        "       12 b.txt\n        3 same (1).txt\n        3 same.txt\n        5 deep/c.bin\n"
    );
    assert_eq!(
        done(world, &["lsl", "remote:a.txt"]),
        "        6 2024-05-01 12:00:00.000000000 a.txt\n"
    );
    let folders = done(world, &["lsd", "remote:"]);
    let folders: Vec<_> = folders.lines().collect();
    assert_eq!(folders.len(), 2, "{folders:?}");
    assert!(folders[0].starts_with("          -1 20"), "{folders:?}");
    assert!(folders[0].ends_with("        -1 docs"), "{folders:?}");
    assert!(folders[1].ends_with("        -1 empty"), "{folders:?}");
    let entries = done(world, &["lsjson", "-R", "remote:"]);
    let entries: Vec<Value> = serde_json::from_str(&entries).unwrap();
    assert_eq!(entries.len(), 9, "{entries:?}");
    let entry = |path: &str| entries.iter().find(|entry| entry["Path"] == path).unwrap();
    let file = entry("docs/deep/c.bin");
    assert_eq!(file["Name"], "c.bin");
    assert_eq!(file["Size"], 5);
    assert_eq!(file["MimeType"], "application/octet-stream");
    assert_eq!(file["ModTime"], "2024-05-01T12:00:00Z");
    assert_eq!(file["IsDir"], false);
    let handle = world.node("/docs/deep/c.bin").unwrap().handle;
    assert_eq!(file["ID"], handle.as_str());
    assert_eq!(entry("empty")["Size"], -1);
    assert_eq!(entry("empty")["MimeType"], "inode/directory");
    let one = done(world, &["lsjson", "--stat", "--hash", "remote:a.txt"]);
    let one: Value = serde_json::from_str(&one).unwrap();
    assert!(one["Hashes"]["fingerprint"].is_string(), "{one}");
    assert_eq!(done(world, &["lsjson", "remote:empty"]), "[\n]\n");
    assert_eq!(
        done(world, &["tree", "remote:docs"]),
        "/\n\u{251c}\u{2500}\u{2500} b.txt\n\u{251c}\u{2500}\u{2500} deep\n\
         \u{2502}   \u{2514}\u{2500}\u{2500} c.bin\n\u{251c}\u{2500}\u{2500} same (1).txt\n\
         \u{2514}\u{2500}\u{2500} same.txt\n\n1 directories, 4 files\n"
    );
    let about: Value = serde_json::from_str(&done(world, &["about", "--json", "remote:"])).unwrap();
    let (total, used) = (
        about["total"].as_u64().unwrap(),
        about["used"].as_u64().unwrap(),
    );
    assert!(
        used >= 3_000_000 && about["free"] == total - used,
        "{about}"
    );
    let about = done(world, &["about", "remote:"]);
    assert!(about.starts_with("Total:   "), "{about}");
    assert_eq!(done(world, &["cat", "remote:a.txt"]), "first\n");
    assert_eq!(
        done(world, &["cat", "remote:docs/b.txt", "remote:docs/deep"]),
        "second line\nthird"
    );
    assert_eq!(done(world, &["cat", "--head", "3", "remote:a.txt"]), "fir");
    assert_eq!(done(world, &["cat", "--tail", "3", "remote:a.txt"]), "st\n");
    let part = ["cat", "--offset", "-5", "--count", "2", "remote:a.txt"];
    assert_eq!(done(world, &part), "ir");
}

#[test]
fn an_account_is_looked_at_without_a_mount() {
    let world = world();
    looks_as_expected(&world);
    assert!(done(&world, &["status"]).contains("Nothing is mounted"));
    let counters = world.emulator.counters();
    assert_eq!(
        (counters.logins, counters.commands("f")),
        (1, 1),
        "one login, one tree"
    );
}

#[test]
fn a_mount_answers_for_its_remote() {
    let world = world();
    let mount = world.mount();
    looks_as_expected(&world);
    mount.write("docs/new", "not on Mega yet");
    assert!(done(&world, &["ls", "remote:docs"]).contains("       15 new\n"));
    mount.unmount();
}

#[test]
fn a_mount_of_one_folder_answers_for_all() {
    let world = world();
    let mount = world.mount_with("remote:docs/deep", &[]);
    looks_as_expected(&world);
    mount.unmount();
}

#[test]
fn what_others_changed_is_seen_at_once() {
    let world = world();
    done(&world, &["ls", "remote:"]);
    world.populate(&[Fixture::file("/later", "x", DAY)]);
    assert!(done(&world, &["ls", "remote:"]).contains("        1 later\n"));
}

#[test]
fn large_content_comes_whole() {
    let world = world();
    world.command(&["cat", "remote:big"]);
    let mut command = world.program();
    let output = command.args(["cat", "remote:big"]).output().unwrap();
    assert!(output.status.success());
    assert!(output.stdout == pattern(7, 0, 3_000_000));
}

#[test]
fn mistakes_are_explained() {
    let world = world();
    let text = fails(&world, &["ls", "remote"], 1);
    assert!(text.contains("'remote' is not a remote"), "{text}");
    let text = fails(&world, &["ls", "remotr:"], 3);
    assert!(text.contains("there is no remote 'remotr'"), "{text}");
    assert!(text.contains("Known are 'remote:'"), "{text}");
    let text = fails(&world, &["ls"], 1);
    assert!(text.contains("<REMOTE:[PATH]>"), "{text}");
    let text = fails(&world, &["ls", "--max-depth", "x", "remote:"], 1);
    assert!(text.contains("--max-depth"), "{text}");
    let text = fails(&world, &["ls", "--timeout", "soon", "remote:"], 1);
    assert!(text.contains("--timeout"), "{text}");
    for command in ["ls", "lsl", "lsd", "lsjson", "tree", "cat"] {
        let text = fails(&world, &[command, "remote:docs/none"], 3);
        let expected = "there is no 'docs/none' on this account";
        assert!(text.contains(expected), "{text}");
    }
    let text = fails(&world, &["ls", "remote:a.txt/b"], 2);
    assert!(text.contains("is not a folder"), "{text}");
}

#[test]
fn a_wrong_password_is_told() {
    let world = world();
    world.expect_logins(3);
    std::fs::write(world.path("password"), "wrong").unwrap();
    let text = fails(&world, &["ls", "remote:"], 4);
    assert!(text.contains(USER) && text.contains("wrong"), "{text}");
    assert!(!text.contains(PASSWORD), "{text}");
}

#[test]
fn no_network_is_told() {
    let world = world();
    let nowhere = ["--api-url", "http://127.0.0.1:9", "--timeout", "1s"];
    let text = fails(&world, &[&["ls", "remote:"], &nowhere[..]].concat(), 5);
    assert!(
        text.contains("cannot reach Mega at http://127.0.0.1:9"),
        "{text}"
    );
    // Also where the state could answer: it would be old.
    done(&world, &["ls", "remote:"]);
    for place in ["cs", "sc", "wsc"] {
        let rule = FaultRule::new(place, FaultAction::Reset);
        world.emulator.faults().add(rule);
    }
    let text = fails(&world, &["ls", "remote:", "--timeout", "1s"], 5);
    assert!(text.contains("cannot reach Mega"), "{text}");
}
