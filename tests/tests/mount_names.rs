//! Names: duplicates, and those that Linux cannot have.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::os::unix::fs::FileExt;

use mega_emulator::{Brokenness, Fixture, FixtureContent};
use megamount_tests::{World, wait_until};

fn named(name: &str, content: &str) -> Fixture {
    Fixture::Named {
        parent: "/".into(),
        name: name.into(),
        content: Some(FixtureContent::Text(content.into())),
        mtime: Some(1_600_000_000),
    }
}

#[test]
fn duplicates_have_stable_suffixes() {
    let world = World::new();
    let handles = world.populate(&[
        Fixture::file("/a.txt", "first", 1_600_000_000),
        Fixture::file("/a.txt", "second", 1_600_000_000),
        Fixture::file("/a.txt", "third", 1_600_000_000),
    ]);
    let mount = world.mount();
    let spelled = ["a (1).txt", "a (2).txt", "a.txt"];
    assert_eq!(mount.names(""), spelled);
    let contents = |mount: &megamount_tests::Mount<'_>| {
        mount
            .names("")
            .iter()
            .map(|name| (name.clone(), mount.read(name)))
            .collect::<Vec<_>>()
    };
    let before = contents(&mount);
    mount.unmount();
    let mount = world.mount();
    assert_eq!(contents(&mount), before);
    // One goes: the others keep their spelling.
    mount.sh("rm 'a (1).txt'");
    assert_eq!(mount.names(""), ["a (2).txt", "a.txt"]);
    mount.unmount();
    let mount = world.mount();
    assert_eq!(mount.names(""), ["a (2).txt", "a.txt"]);
    // Moving an entry under its shown name keeps its stored name; another target is literal.
    mount.sh("mkdir d; mv 'a (2).txt' d/; mv a.txt 'b (1).txt'");
    mount.unmount();
    assert_eq!(world.paths(), ["/b (1).txt", "/d/", "/d/a.txt"]);
    assert!(handles.contains(&world.node("/d/a.txt").unwrap().handle));
}

/// A path that a program remembers goes on naming the file, also when its number is no longer needed.
#[test]
fn a_duplicate_replaced_elsewhere_keeps_its_path() {
    let world = World::with(&[named("f", "one"), named("f", "two")]);
    let mount = world.mount();
    assert_eq!(mount.names(""), ["f", "f (1)"]);
    mount.sh("mv f other");
    world.wait_for_paths(&["/f", "/other"]);
    world.populate(&[Fixture::Overwrite {
        path: "/f".into(),
        content: FixtureContent::Text("new".into()),
        mtime: Some(1_600_000_001),
    }]);
    wait_until("their content is seen", || {
        std::fs::read(mount.path("f (1)")).is_ok_and(|bytes| bytes == b"new")
    });
    assert_eq!(mount.names(""), ["f (1)", "other"]);
    mount.unmount();
    let mount = world.mount();
    assert_eq!(mount.names(""), ["f (1)", "other"]);
    mount.unmount();
}

#[test]
fn the_newest_of_a_name_can_have_it() {
    let newer = |text: &str, mtime| Fixture::Named {
        parent: "/".into(),
        name: "f".into(),
        content: Some(FixtureContent::Text(text.into())),
        mtime: Some(mtime),
    };
    let world = World::with(&[newer("one", 1_600_000_000), newer("two", 1_600_000_001)]);
    // They have numbers by the other rule when it changes.
    let mount = world.mount();
    assert_eq!(mount.sh("cat f 'f (1)'"), "onetwo");
    mount.unmount();
    let options = ["--duplicates", "newest", "--write-back", "1h"];
    let mount = world.mount_with("remote:", &options);
    assert_eq!(mount.names(""), ["f", "f (1)"]);
    assert_eq!(mount.sh("cat f 'f (1)'"), "twoone");
    let open = std::fs::File::open(mount.path("f")).unwrap();
    // The kernel knows who had the name, and that the other name was free.
    assert!(!mount.path("f (2)").exists());
    world.populate(&[newer("three", 1_600_000_002)]);
    wait_until("the newest has the name", || mount.read("f") == b"three");
    wait_until("the one before has a number", || {
        mount.path("f (2)").exists()
    });
    assert_eq!(mount.names(""), ["f", "f (1)", "f (2)"]);
    assert_eq!(mount.sh("cat 'f (1)' 'f (2)'"), "onetwo");
    let mut held = [0; 3];
    open.read_exact_at(&mut held, 0).unwrap();
    assert_eq!(&held, b"two", "who has it open keeps it");
    drop(open);
    // A name that was given here stays until Mega has it.
    mount.sh("mv f g; echo four >f");
    world.populate(&[newer("five", 1_600_000_003)]);
    wait_until("theirs is seen", || mount.path("f (3)").exists());
    assert_eq!(mount.sh("cat f"), "four\n");
    mount.kill_9();
    // A command that does not mount follows the same rule.
    let listed = world.command(&["ls", "remote:"]);
    assert!(listed.text.contains("f (3)"), "{listed:?}");
    let mount = world.mount_with("remote:", &options);
    assert_eq!(mount.names(""), ["f", "f (1)", "f (2)", "f (3)", "g"]);
    assert_eq!(mount.sh("cat f 'f (3)'"), "four\nfive");
    mount.unmount();
    assert_eq!(world.paths(), ["/f", "/f", "/f", "/f", "/g"]);
    // Back to the first.
    let mount = world.mount();
    assert_eq!(mount.sh("cat f"), "one");
    mount.unmount();
}

#[test]
fn a_real_suffix_keeps_its_name() {
    let world = World::with(&[
        named("a (1).txt", "really"),
        named("a.txt", "one"),
        named("a.txt", "two"),
    ]);
    let mount = world.mount();
    assert_eq!(mount.names(""), ["a (1).txt", "a (2).txt", "a.txt"]);
    assert_eq!(mount.read("a (1).txt"), b"really");
    mount.unmount();
}

#[test]
fn writing_to_a_duplicate_changes_that_one_only() {
    let world = World::with(&[named("f", "one"), named("f", "two")]);
    let mount = world.mount();
    let plain = mount.read("f");
    mount.sh("echo more >>'f (1)'");
    mount.unmount();
    let mount = world.mount();
    assert_eq!(mount.names(""), ["f", "f (1)"]);
    assert_eq!(mount.read("f"), plain);
    assert!(mount.read("f (1)").ends_with(b"more\n"));
    mount.unmount();
    assert_eq!(world.paths(), ["/f", "/f"]);
}

#[test]
fn folders_of_one_name_are_both_there() {
    let folder = || Fixture::Named {
        parent: "/".into(),
        name: "d".into(),
        content: None,
        mtime: None,
    };
    let world = World::with(&[folder(), folder()]);
    let mount = world.mount();
    assert_eq!(mount.names(""), ["d", "d (1)"]);
    mount.sh("echo 1 >d/one; echo 2 >'d (1)/two'");
    mount.unmount();
    assert_eq!(world.paths(), ["/d/", "/d/", "/d/one", "/d/two"]);
}

#[test]
fn illegal_names_are_listed_read_renamed_and_deleted() {
    let long = "\u{e4}".repeat(200);
    let names = [
        ("a/b", "a%2fb"),
        ("nul\0", "nul%00"),
        (".", "%2e"),
        ("..", "%2e%2e"),
        ("100%", "100%"),
        ("x%2fy", "x%252fy"),
        ("back\\slash: *?", "back\\slash: *?"),
        ("new\nline", "new\nline"),
    ];
    let mut fixtures: Vec<_> = names.iter().map(|(name, _)| named(name, name)).collect();
    fixtures.push(named(&long, "long"));
    fixtures.push(named("", "empty"));
    let world = World::new();
    let handles = world.populate(&fixtures);
    let mount = world.mount();
    let listed = mount.names("");
    assert_eq!(listed.len(), 10, "{listed:?}");
    for (name, spelled) in names {
        assert_eq!(mount.read(spelled), name.as_bytes(), "{spelled:?}");
    }
    let long_spelled = listed.iter().find(|name| name.contains('\u{e4}')).unwrap();
    assert!(long_spelled.len() <= 255 && long_spelled.ends_with(&format!("~{}", handles[8])));
    assert_eq!(mount.read(long_spelled), b"long");
    let empty = format!("NO_NAME_{}", handles[9]);
    assert_eq!(mount.read(&empty), b"empty");

    // Moved under their own spelling they keep their stored name; others are literal or reversed.
    mount.sh(&format!(
        "mkdir d; mv -- 'a%2fb' '{long_spelled}' d/; mv %2e dot; mv {empty} named; rm ./%2e%2e"
    ));
    mount.unmount();
    assert_eq!(world.node("/d/a/b").unwrap().handle, handles[0]);
    assert_eq!(
        world.node(&format!("/d/{long}")).unwrap().handle,
        handles[8]
    );
    assert_eq!(world.node("/dot").unwrap().handle, handles[2]);
    assert_eq!(world.node("/named").unwrap().handle, handles[9]);
    assert_eq!(world.bin(), [".."]);
}

#[test]
fn undecryptable_nodes_are_listed() {
    let world = World::new();
    let kinds = [
        Brokenness::NoKey,
        Brokenness::WrongKey,
        Brokenness::BadAttributes,
        Brokenness::NoName,
    ];
    let handles = world.populate(&kinds.map(|how| Fixture::Broken {
        path: format!("/{how:?}"),
        how,
    }));
    let mount = world.mount();
    let listed = mount.names("");
    assert_eq!(listed.len(), 4, "{listed:?}");
    for handle in &handles {
        assert!(
            listed.iter().any(|name| name.ends_with(handle.as_str())),
            "{handle} in {listed:?}"
        );
    }
    mount.sh("ls -la; stat *");
    // The key of a node without a name is known.
    let nameless = format!("NO_NAME_{}", handles[3]);
    assert_eq!(
        mount.read(&nameless),
        world.emulator.content(&handles[3]).unwrap()
    );
    assert!(
        mount
            .sh_fails(&format!("cat NO_KEY_{}", handles[0]))
            .contains("Permission denied")
    );
    mount.sh("rm -f *");
    assert_eq!(mount.names(""), Vec::<String>::new());
    mount.unmount();
    assert_eq!(world.paths(), Vec::<String>::new());
    assert_eq!(world.bin().len(), 4);
}

#[test]
fn unicode_is_kept_as_it_is() {
    // Composed and decomposed forms are two names.
    let names = ["\u{e9}", "e\u{301}", "\u{1f4a9}", "\u{65e5}\u{672c}"];
    let world = World::new();
    let mount = world.mount();
    for name in names {
        mount.write(name, name);
    }
    mount.unmount();
    for name in names {
        assert_eq!(world.content(&format!("/{name}")).unwrap(), name.as_bytes());
    }
}

#[test]
fn a_duplicate_that_appears_later_changes_no_spelling() {
    let world = World::with(&[named("f", "here first")]);
    let mount = world.mount();
    assert_eq!(mount.names(""), ["f"]);
    world.populate(&[named("f", "later")]);
    wait_until("both are listed", || mount.names("") == ["f", "f (1)"]);
    assert_eq!(mount.read("f"), b"here first");
    assert_eq!(mount.read("f (1)"), b"later");
    mount.unmount();
}

#[test]
fn a_name_has_up_to_255_bytes() {
    let world = World::new();
    let mount = world.mount();
    let longest = ["n".repeat(255), "\u{e9}".repeat(127)];
    for name in &longest {
        mount.write(name, name);
        assert_eq!(mount.read(name), name.as_bytes());
    }
    let longer = "x".repeat(256);
    for script in [
        format!("touch {longer}"),
        format!("mkdir {longer}"),
        format!("ln -s target {longer}"),
        format!("mv {} {longer}", longest[0]),
        format!("mv {longer} short"),
        format!("rm {longer}"),
        format!("cat {longer}"),
    ] {
        let text = mount.sh_fails(&script);
        assert!(text.contains("File name too long"), "{script}: {text}");
    }
    mount.unmount();
    let mount = world.mount();
    assert_eq!(mount.names(""), longest);
    mount.unmount();
}

#[test]
fn names_are_shown_composed_and_found_in_either_form() {
    let world = World::with(&[Fixture::file(
        "/re\u{301}sume\u{301}",
        "theirs",
        1_600_000_000,
    )]);
    let mount = world.mount_with("remote:", &["--normalize"]);
    assert_eq!(mount.names(""), ["r\u{e9}sum\u{e9}"]);
    for name in ["r\u{e9}sum\u{e9}", "re\u{301}sume\u{301}"] {
        assert_eq!(mount.read(name), b"theirs");
    }
    mount.write("cafe\u{301}", "ours");
    assert_eq!(mount.read("caf\u{e9}"), b"ours");
    std::fs::rename(mount.path("re\u{301}sume\u{301}"), mount.path("a\u{308}")).unwrap();
    assert_eq!(mount.names(""), ["caf\u{e9}", "\u{e4}"]);
    std::fs::remove_file(mount.path("a\u{308}")).unwrap();
    assert!(!mount.path("\u{e4}").exists());
    mount.unmount();
    assert_eq!(world.paths(), ["/caf\u{e9}"]);
}

#[test]
fn case_can_be_ignored() {
    let world = World::with(&[
        Fixture::file("/Readme", "one", 1_600_000_000),
        Fixture::file("/README", "two", 1_600_000_000),
        Fixture::folder("/Photos"),
    ]);
    let mount = world.mount_with("remote:", &["--ignore-case"]);
    assert_eq!(mount.names(""), ["Photos", "README", "Readme"]);
    assert_eq!(mount.sh("cat Readme README readme"), "onetwoone");
    // What does not exist in any case is made as it was written.
    assert!(!mount.path("new").exists());
    mount.write("PHOTOS/New", "new");
    assert_eq!(mount.read("photos/new"), b"new");
    assert!(mount.sh_fails("mkdir photos").contains("File exists"));
    mount.sh("rm readme; rm -r pHOTOS/NEW");
    assert_eq!(mount.names(""), ["Photos", "README"]);
    assert!(!mount.path("Photos/New").exists());
    assert_eq!(mount.read("Readme"), b"two");
    mount.unmount();
    assert_eq!(world.paths(), ["/Photos/", "/README"]);
}
