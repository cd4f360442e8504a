//! Public links, listed and copied from without a mount and without an account.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::process::Stdio;

use mega_emulator::{FaultAction, FaultRule, Fixture, pattern};
use megamount_tests::{World, done, fails, sh, wait_until};

/// 1 May 2024, 12:00 UTC.
const DAY: i64 = 1_714_564_800;

/// An account with an exported folder; its link, and the handle and key in it.
struct Exported {
    world: World,
    link: String,
    handle: String,
    key: String,
}

fn exported(more: &[Fixture]) -> Exported {
    let world = World::with(&[
        Fixture::file("/private", "nobody's business", DAY),
        Fixture::file("/open/a", "a", DAY),
        Fixture::pattern("/open/sub/large", 3_000_000, 1),
        Fixture::file("/open/sub/small", "small", DAY),
    ]);
    world.populate(more);
    world.expect_logins(0);
    let (handle, key) = link(&world, "/open");
    Exported {
        link: format!("https://mega.nz/folder/{handle}#{key}"),
        world,
        handle,
        key,
    }
}

fn link(world: &World, path: &str) -> (String, String) {
    let made = world.populate(&[Fixture::Link { path: path.into() }]);
    let (handle, key) = made[0].split_once('#').unwrap();
    (handle.to_owned(), key.to_owned())
}

impl Exported {
    /// What the command printed; it must succeed.
    #[track_caller]
    fn done(&self, args: &[&str]) -> String {
        done(&self.world, args)
    }

    /// What the command complained about, without the key; its exit code must be `code`.
    #[track_caller]
    fn fails(&self, args: &[&str], code: i32) -> String {
        let errors = fails(&self.world, args, code);
        assert!(!errors.contains(&self.key), "{errors}");
        errors
    }

    #[track_caller]
    fn is_read(&self, place: &str) {
        let text = self.done(&["ls", place]);
        assert_eq!(
            text,
            "        1 a\n  3000000 sub/large\n        5 sub/small\n"
        );
        let text = self.done(&["lsd", place]);
        assert!(text.ends_with(" sub\n"), "{text}");
        assert!(self.done(&["lsjson", place]).contains("\"Name\":\"sub\""));
        assert!(self.done(&["tree", place]).contains("sub\n"));
        self.done(&["copy", place, "down"]);
        let read = |name: &str| std::fs::read(self.world.path("out/down").join(name)).unwrap();
        assert_eq!(read("a"), b"a");
        assert!(read("sub/large") == pattern(1, 0, 3_000_000));
        std::fs::remove_dir_all(self.world.path("out/down")).unwrap();
    }
}

#[test]
fn a_link_is_listed_printed_and_copied() {
    let exported = exported(&[]);
    let world = &exported.world;
    exported.is_read(&exported.link);
    let small = world.node("/open/sub/small").unwrap().handle;
    let part = format!("{}/file/{small}", exported.link);
    assert_eq!(exported.done(&["cat", &part]), "small");
    let (file, file_key) = link(world, "/private");
    let file = format!("https://mega.nz/file/{file}#{file_key}");
    assert_eq!(exported.done(&["ls", &file]), "       17 private\n");
    assert_eq!(exported.done(&["cat", &file]), "nobody's business");
    exported.done(&["copy", &file, "file"]);
    assert!(world.path("out/file/private").exists());
    // What the owner does meanwhile is seen at once.
    world.populate(&[Fixture::file("/open/new", "new", DAY)]);
    assert!(exported.done(&["ls", &exported.link]).contains("3 new\n"));
    assert_eq!(world.emulator.counters().logins, 0);
}

#[test]
fn a_link_that_is_mounted_is_read_through_the_mount() {
    let exported = exported(&[]);
    let mount = exported.world.mount_with(&exported.link, &[]);
    exported.is_read(&exported.link);
    exported.fails(&["mkdir", &exported.link], 1);
    mount.unmount();
}

#[test]
fn a_remote_that_is_a_link_is_read_and_not_written() {
    let exported = exported(&[]);
    let world = &exported.world;
    std::fs::write(world.path("link"), &exported.link).unwrap();
    std::fs::write(world.path("out/f"), "f").unwrap();
    let file = world.path("link");
    world.configure(&format!(
        "[remote.remote]\nlink-file = \"{}\"\n",
        file.display()
    ));
    exported.is_read("remote:");
    assert_eq!(exported.done(&["cat", "remote:sub/small"]), "small");
    let before = world.paths();
    for args in [
        &["mkdir", "remote:d"][..],
        &["rm", "remote:a"],
        &["mv", "remote:a", "remote:b"],
        &["copy", "f", "remote:"],
        &["copy", "f", &exported.link],
        &["copy", "remote:a", "remote:d"],
        &["dedupe", "newest", "remote:"],
        &["link", "remote:a"],
        &["trash", "list", "remote:"],
        &["versions", "list", "remote:a"],
        &["cleanup", "remote:"],
        &["about", "remote:"],
        &["rm", &exported.link],
        &["about", &exported.link],
    ] {
        let text = exported.fails(args, 1);
        assert!(text.contains("this is a public link"), "{args:?}: {text}");
    }
    assert_eq!(world.paths(), before);
}

#[test]
fn links_that_cannot_be_read_say_why() {
    let exported = exported(&[]);
    let world = &exported.world;
    let handle = &exported.handle;
    let wrong = format!("https://mega.nz/folder/{handle}#AAAAAAAAAAAAAAAAAAAAAA");
    let text = exported.fails(&["ls", &wrong], 4);
    assert!(text.contains("key"), "{text}");
    let text = exported.fails(&["ls", &format!("https://mega.nz/folder/{handle}")], 1);
    assert!(text.contains("its key is missing"), "{text}");
    let text = exported.fails(
        &["copy", &format!("https://mega.nz/folder/{handle}"), "d"],
        1,
    );
    assert!(text.contains("its key is missing"), "{text}");
    let none = format!("https://mega.nz/folder/AAAAAAAA#{}", exported.key);
    let text = exported.fails(&["ls", &none], 3);
    assert!(text.contains("does not exist"), "{text}");
    let text = exported.fails(&["cat", &exported.link, &none], 1);
    assert!(text.contains("one public link at a time"), "{text}");
    // What is known is not what Mega has now.
    let (file, key) = link(world, "/private");
    let file = format!("https://mega.nz/file/{file}#{key}");
    exported.done(&["ls", &exported.link]);
    exported.done(&["ls", &file]);
    for place in ["cs", "sc", "wsc"] {
        let cut = FaultRule::new(place, FaultAction::Reset);
        world.emulator.faults().add(cut);
    }
    for link in [&exported.link, &file] {
        let text = exported.fails(&["ls", link, "--timeout", "500ms"], 5);
        assert!(text.contains("cannot reach Mega"), "{text}");
    }
}

#[test]
fn the_key_of_a_link_is_not_in_the_list_of_processes() {
    let many: Vec<_> = (0..5000)
        .map(|number| Fixture::file(&format!("/open/{number:0>200}"), "", DAY))
        .collect();
    let exported = exported(&many);
    let world = &exported.world;
    let mut command = world.program();
    command
        .args(["ls", &exported.link, "--log-level", "trace"])
        .current_dir(world.path("out"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    wait_until("it lists", || {
        rustix::io::ioctl_fionread(child.stdout.as_ref().unwrap()).unwrap() > 0
    });
    let arguments = std::fs::read(format!("/proc/{}/cmdline", child.id())).unwrap();
    let arguments = String::from_utf8(arguments).unwrap();
    assert!(arguments.contains("link:"), "{arguments}");
    assert!(!arguments.contains(&exported.key), "{arguments}");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains(&exported.key), "{errors}");
    let script = format!(
        "find . -name '*{0}*'; grep -rlaF -- '{0}' state cache || true",
        exported.key
    );
    assert_eq!(sh(&world.path(""), &script), "");
}
