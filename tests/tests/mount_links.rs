//! Public links, mounted without an account.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use mega_emulator::{FaultAction, FaultRule, Fixture, FixtureContent, pattern};
use megamount_tests::{World, sh, wait_until};

/// An account with an exported folder, and the link's handle and key.
fn exported() -> (World, String, String) {
    let world = World::with(&[
        Fixture::file("/private", "nobody's business", 1_600_000_000),
        Fixture::file("/open/a", "a", 1_600_000_000),
        Fixture::pattern("/open/sub/large", 3_000_000, 1),
        Fixture::file("/open/sub/small", "small", 1_600_000_000),
    ]);
    world.expect_logins(0);
    let (handle, key) = link(&world, "/open");
    (world, handle, key)
}

fn link(world: &World, path: &str) -> (String, String) {
    let made = world.populate(&[Fixture::Link { path: path.into() }]);
    let (handle, key) = made[0].split_once('#').unwrap();
    (handle.to_owned(), key.to_owned())
}

/// What the account calls a path.
fn node(world: &World, path: &str) -> String {
    world.node(path).unwrap().handle
}

#[test]
fn a_folder_link_is_a_read_only_directory() {
    let (world, handle, key) = exported();
    let mount = world.mount_with(&format!("https://mega.nz/folder/{handle}#{key}"), &[]);
    assert_eq!(mount.names(""), ["a", "sub"]);
    assert_eq!(mount.names("sub"), ["large", "small"]);
    assert_eq!(mount.read("a"), b"a");
    assert!(mount.read("sub/large") == pattern(1, 0, 3_000_000));
    assert_eq!(mount.sh("stat -c '%s %Y' sub/small"), "5 1600000000\n");
    for change in [
        "echo x >new",
        "echo x >>a",
        "mkdir d",
        "rm a",
        "mv a b",
        "touch a",
        "truncate -s 0 a",
    ] {
        let error = mount.sh_fails(change);
        assert!(error.contains("Read-only file system"), "{change}: {error}");
    }
    mount.sh("df .");
    let status = world.command(&["status", &format!("link-{handle}:")]);
    assert_eq!(status.code, 0, "{status:?}");
    let verify = world.command(&["verify", &mount.path("").to_string_lossy()]);
    assert_eq!(verify.code, 0, "{verify:?}");
    assert_eq!(mount.unmount_code(), 0);
    assert_eq!(world.emulator.counters().logins, 0);
}

#[test]
fn every_form_of_a_link_is_mounted() {
    let (world, handle, key) = exported();
    let (file, file_key) = link(&world, "/private");
    let (sub, small) = (node(&world, "/open/sub"), node(&world, "/open/sub/small"));
    let (all, below): (&[&str], &[&str]) = (&["a", "sub"], &["large", "small"]);
    for (text, names) in [
        (format!("/folder/{handle}#{key}"), all),
        (format!("#F!{handle}!{key}"), all),
        (
            format!("https://mega.nz/folder/{handle}#{key}/folder/{sub}"),
            below,
        ),
        (format!("https://mega.co.nz/#F!{handle}!{key}!{sub}"), below),
        (
            format!("https://mega.nz/folder/{handle}#{key}/file/{small}"),
            &["small"],
        ),
        (
            format!("https://mega.nz/file/{file}#{file_key}"),
            &["private"],
        ),
        (format!("#!{file}!{file_key}"), &["private"]),
    ] {
        let mount = world.mount_with(&text, &[]);
        assert_eq!(mount.names(""), names, "{text}");
        match names {
            ["small"] => assert_eq!(mount.read("small"), b"small"),
            ["private"] => assert_eq!(mount.read("private"), b"nobody's business"),
            ["large", ..] => assert!(mount.read("large") == pattern(1, 0, 3_000_000)),
            _ => assert_eq!(mount.read("a"), b"a"),
        }
        assert_eq!(mount.unmount_code(), 0);
    }
}

#[test]
fn a_second_mount_of_a_link_starts_from_what_is_known() {
    let (world, handle, key) = exported();
    let (file, file_key) = link(&world, "/private");
    for (text, name) in [
        (format!("/folder/{handle}#{key}"), "a"),
        (format!("/file/{file}#{file_key}"), "private"),
    ] {
        let mount = world.mount_with(&text, &[]);
        let first = mount.read(name);
        mount.unmount();
        let rule = FaultRule::new("cs", FaultAction::Reset);
        let rule = world.emulator.faults().add(rule);
        let mount = world.mount_with(&text, &[]);
        assert_eq!(mount.read(name), first, "without the server");
        world.emulator.faults().remove(rule);
        mount.unmount();
    }
}

#[test]
fn a_linked_folder_follows_its_owner() {
    let (world, handle, key) = exported();
    let mount = world.mount_with(&format!("/folder/{handle}#{key}"), &[]);
    assert_eq!(mount.names("sub"), ["large", "small"]);
    world.populate(&[
        Fixture::file("/open/sub/new", "new", 1_600_000_000),
        Fixture::Rename {
            path: "/open/a".into(),
            name: "b".into(),
        },
        // Out of what was exported, though not out of the account.
        Fixture::Move {
            path: "/open/sub/small".into(),
            to: "/".into(),
        },
    ]);
    wait_until("the changes are seen", || {
        mount.names("") == ["b", "sub"] && mount.names("sub") == ["large", "new"]
    });
    assert_eq!(mount.read("sub/new"), b"new");
    world.populate(&[
        Fixture::Move {
            path: "/open/sub".into(),
            to: "/".into(),
        },
        Fixture::Overwrite {
            path: "/open/b".into(),
            content: FixtureContent::Bytes(b"newer".to_vec()),
            mtime: Some(1_600_000_001),
        },
    ]);
    wait_until("the folder has gone", || mount.names("") == ["b"]);
    wait_until("the content is new", || mount.read("b") == b"newer");
    // What happens while nobody looks is seen by the next mount.
    mount.unmount();
    world.populate(&[Fixture::file("/open/later", "later", 1_600_000_000)]);
    let mount = world.mount_with(&format!("/folder/{handle}#{key}"), &[]);
    wait_until("it is there", || mount.names("") == ["b", "later"]);
    mount.unmount();
}

#[test]
fn links_that_cannot_be_opened_say_why() {
    let (world, handle, key) = exported();
    let mnt = world.path("mnt");
    let refused = |text: &str, code, parts: &[&str]| {
        let refusal = world.refused(text, &mnt, &["-f"]);
        refusal.is(code, parts);
        assert!(!refusal.text.contains(&key), "{}", refusal.text);
    };
    let wrong = "AAAAAAAAAAAAAAAAAAAAAA";
    let folder = format!("https://mega.nz/folder/{handle}#{key}");
    refused(
        &format!("https://mega.nz/folder/{handle}#{wrong}"),
        4,
        &["key", "wrong"],
    );
    refused(
        &format!("https://mega.nz/folder/{handle}#{}", &key[..20]),
        1,
        &["incomplete"],
    );
    refused(
        &format!("https://mega.nz/folder/{handle}"),
        1,
        &["key is missing"],
    );
    refused(
        &format!("/folder/AAAAAAAA#{key}"),
        3,
        &["AAAAAAAA", "does not exist"],
    );
    refused(&format!("{folder}/folder/AAAAAAAA"), 3, &["not in it"]);
    let down = FaultAction::CommandError { code: -16 };
    let down = world.emulator.faults().add(FaultRule::new("cmd:pli", down));
    refused(&folder, 3, &["taken it down"]);
    world.emulator.faults().remove(down);

    // A wrong key is no reason to refuse the right one, before or after.
    world.mount_with(&folder, &[]).unmount();
    refused(
        &format!("https://mega.nz/folder/{handle}#{wrong}"),
        4,
        &["key", "wrong"],
    );
    world.mount_with(&folder, &[]).unmount();
    // Also a link that was mounted before can have gone.
    world.populate(&[Fixture::Remove {
        path: "/open".into(),
    }]);
    refused(&folder, 3, &["does not exist"]);
}

#[test]
fn the_key_of_a_link_is_nowhere() {
    let (world, handle, key) = exported();
    let mount = world.mount_with(
        &format!("https://mega.nz/folder/{handle}#{key}"),
        &["--log-level", "trace"],
    );
    assert_eq!(mount.read("a"), b"a");
    let arguments = std::fs::read(format!("/proc/{}/cmdline", mount.id())).unwrap();
    let arguments = String::from_utf8(arguments).unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(mounts.contains(&format!("megamount:link-{handle}")));
    for (place, text) in [
        ("log", mount.log()),
        ("arguments", arguments),
        ("mounts", mounts),
    ] {
        assert!(!text.contains(&key), "{place}: {text}");
    }
    mount.unmount();
    let script = format!("find . -name '*{key}*'; grep -rlaF -- '{key}' state cache || true");
    assert_eq!(sh(&world.path(""), &script), "");
}

#[test]
fn a_remote_of_the_configuration_can_be_a_link() {
    let (world, handle, key) = exported();
    let link = format!("https://mega.nz/folder/{handle}#{key}");
    std::fs::write(world.path("link"), format!("{link}\n")).unwrap();
    let file = world.path("link");
    for source in [
        format!("link = \"{link}\""),
        format!("link-file = \"{}\"", file.display()),
        format!("link-command = \"cat '{}'\"", file.display()),
    ] {
        world.configure(&format!("[remote.remote]\n{source}\n"));
        let mount = world.mount_with("remote:sub", &[]);
        assert_eq!(mount.names(""), ["large", "small"], "{source}");
        mount.unmount();
    }
}
