//! Making and changing files: what is written here is on the server in the end, once.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use mega_emulator::{Fixture, pattern};
use megamount_tests::{World, sh};

/// A local tree: sizes around the chunk boundaries, Unicode, depth, empty things.
fn local_tree(world: &World) {
    let source = world.path("source");
    std::fs::create_dir_all(source.join("deep/er/and/deeper")).unwrap();
    std::fs::create_dir_all(source.join("void")).unwrap();
    for size in [0, 1, 15, 16, 131_071, 131_072, 131_073, 3_000_000] {
        std::fs::write(source.join(format!("size {size}")), pattern(9, 0, size)).unwrap();
    }
    std::fs::write(
        source.join("deep/er/and/deeper/gr\u{fc}\u{df}e \u{1f40e}"),
        "hi",
    )
    .unwrap();
    sh(
        &source,
        "touch -d '2001-02-03 04:05:06' 'size 16'; find . -type d -exec touch -d 2002-02-02 {} +",
    );
}

#[test]
fn trees_are_copied_in_unchanged() {
    let world = World::new();
    local_tree(&world);
    let mount = world.mount();
    mount.sh("cp -a ../source cp; rsync -a ../source/ rsync; mkdir tar; tar c -C ../source . | tar x -C tar");
    for tool in ["cp", "rsync", "tar"] {
        mount.sh(&format!("diff -r ../source {tool}"));
        assert_eq!(
            mount.sh(&format!("rsync -ain ../source/ {tool}/")),
            "",
            "{tool}"
        );
    }
    mount.unmount();
    let expected = sh(&world.path("source"), "find . -type f | wc -l");
    for tool in ["cp", "rsync", "tar"] {
        let nodes = world.nodes();
        let files: Vec<_> = nodes
            .iter()
            .filter(|node| node.path.starts_with(&format!("/{tool}/")) && !node.folder)
            .collect();
        assert_eq!(files.len().to_string(), expected.trim(), "{tool}");
        for node in files {
            let relative = node.path.strip_prefix(&format!("/{tool}/")).unwrap();
            let local = std::fs::read(world.path("source").join(relative)).unwrap();
            assert!(
                world.emulator.content(&node.handle).unwrap() == local,
                "{}",
                node.path
            );
        }
        let node = world.node(&format!("/{tool}/size 16")).unwrap();
        assert_eq!(node.mtime, Some(981_173_106), "{tool}");
        assert!(world.node(&format!("/{tool}/void")).unwrap().folder);
    }
    // And from the server, with a fresh cache, back again.
    std::fs::remove_dir_all(world.path("cache")).unwrap();
    let mount = world.mount();
    mount.sh("diff -r ../source cp");
    assert_eq!(mount.sh("rsync -ain ../source/ cp/"), "");
    mount.unmount();
}

#[test]
fn files_grow_shrink_and_change_in_place() {
    let world = World::with(&[
        Fixture::file("/log", "one\n", 1_600_000_000),
        Fixture::pattern("/large", 5_000_000, 4),
        Fixture::file("/cut", "0123456789", 1_600_000_000),
    ]);
    let mount = world.mount();
    mount.sh("echo two >>log
         printf XYZ | dd of=large bs=1 seek=2500000 conv=notrunc status=none
         truncate -s 4 cut
         truncate -s 6 cut
         echo new >new
         truncate -s 100000 sparse
         dd if=/dev/zero of=direct bs=64k count=4 status=none
         printf abc >twice; printf de >>twice");
    let mut large = pattern(4, 0, 5_000_000);
    large[2_500_000..2_500_003].copy_from_slice(b"XYZ");
    let expected: [(&str, Vec<u8>); 7] = [
        ("log", b"one\ntwo\n".to_vec()),
        ("large", large),
        ("cut", b"0123\0\0".to_vec()),
        ("new", b"new\n".to_vec()),
        ("sparse", vec![0; 100_000]),
        ("direct", vec![0; 262_144]),
        ("twice", b"abcde".to_vec()),
    ];
    for (name, content) in &expected {
        assert!(mount.read(name) == *content, "{name} before the upload");
    }
    mount.unmount();
    for (name, content) in &expected {
        assert!(
            world.content(&format!("/{name}")).unwrap() == *content,
            "{name}"
        );
    }
}

#[test]
fn overwriting_keeps_the_old_content_as_a_version() {
    let world = World::with(&[Fixture::file("/f", "old", 1_600_000_000)]);
    let mount = world.mount();
    mount.write("f", "new");
    assert_eq!(mount.names(""), ["f"]);
    world.wait_for_content("/f", b"new");
    assert_eq!(mount.names(""), ["f"], "versions are hidden");
    mount.unmount();
    let nodes = world.nodes();
    let versions: Vec<_> = nodes
        .iter()
        .filter(|node| node.version_of.is_some())
        .collect();
    assert_eq!(versions.len(), 1);
    assert_eq!(world.emulator.content(&versions[0].handle).unwrap(), b"old");
    assert_eq!(world.paths(), ["/f"]);
    assert_eq!(world.bin(), Vec::<String>::new());
}

#[test]
fn versions_made_elsewhere_are_hidden() {
    let world = World::with(&[
        Fixture::file("/f", "one", 1_600_000_000),
        Fixture::Overwrite {
            path: "/f".into(),
            content: mega_emulator::FixtureContent::Text("two".into()),
            mtime: Some(1_600_000_001),
        },
    ]);
    let mount = world.mount();
    assert_eq!(mount.names(""), ["f"]);
    assert_eq!(mount.read("f"), b"two");
    mount.unmount();
}

#[test]
fn folders_are_made() {
    let world = World::new();
    let mount = world.mount();
    mount.sh("mkdir -p a/b/c; mkdir a/d; touch a/b/c/f");
    assert!(mount.sh_fails("mkdir a").contains("File exists"));
    assert!(mount.sh_fails("mkdir x/y").contains("No such file"));
    assert!(mount.sh_fails("echo x >a").contains("Is a directory"));
    mount.unmount();
    assert_eq!(
        world.paths(),
        ["/a/", "/a/b/", "/a/b/c/", "/a/b/c/f", "/a/d/"]
    );
}

#[test]
fn what_mega_does_not_have_is_refused() {
    let world = World::with(&[Fixture::file("/f", "x", 1_600_000_000)]);
    let mount = world.mount();
    let socket = "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"s\")'";
    let devices = ["mknod c c 1 3", "mknod b b 7 0"];
    for script in ["ln f g", "mkfifo p", "chown 12345 f", socket]
        .into_iter()
        .chain(devices)
    {
        let text = mount.sh_fails(script);
        assert!(text.contains("Operation not permitted"), "{script}: {text}");
    }
    mount.sh("chown $(id -u) f");
    let long = "x".repeat(256);
    assert!(
        mount
            .sh_fails(&format!("touch {long}"))
            .contains("File name too long")
    );
    mount.unmount();
    assert_eq!(world.paths(), ["/f"]);
}

#[test]
fn fsync_and_locks_work() {
    let world = World::new();
    let mount = world.mount();
    mount.sh("dd if=/dev/zero of=f bs=1000 count=3 conv=fsync status=none; sync -d f; sync .");
    mount.sh("flock -n f true");
    mount.unmount();
    assert_eq!(world.content("/f").unwrap(), vec![0; 3000]);
}

#[test]
fn holes_are_punched_and_lengths_are_set() {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;

    let world = World::with(&[Fixture::pattern("/f", 3_000_000, 8)]);
    let mount = world.mount();
    let mut expected = pattern(8, 0, 3_000_000);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(mount.path("f"))
        .unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, punch, 1_000_001, 500_000).unwrap();
    expected[1_000_001..1_500_001].fill(0);
    // Over the end, and beyond it: the length stays.
    fallocate(&file, punch, 2_999_000, 50_000).unwrap();
    fallocate(&file, punch, 4_000_000, 1000).unwrap();
    expected[2_999_000..].fill(0);
    fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 5_000_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 3_000_000);
    fallocate(&file, FallocateFlags::empty(), 0, 3_000_100).unwrap();
    expected.resize(3_000_100, 0);
    fallocate(&file, FallocateFlags::ZERO_RANGE, 10, 10).unwrap();
    expected[10..20].fill(0);
    let collapsed = fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, 4096);
    assert_eq!(collapsed, Err(Errno::OPNOTSUPP));
    drop(file);
    assert!(mount.read("f") == expected);
    mount.unmount();
    assert!(world.content("/f").unwrap() == expected);
}

#[test]
fn replaced_content_goes_to_the_bin_when_asked() {
    let world = World::with(&[Fixture::file("/f", "old", 1_600_000_000)]);
    let mount = world.mount_with("remote:", &["--versions=replace"]);
    mount.write("f", "new");
    mount.unmount();
    assert_eq!(world.paths(), ["/f"]);
    assert_eq!(world.content("/f").unwrap(), b"new");
    assert!(world.nodes().iter().all(|node| node.version_of.is_none()));
    assert_eq!(world.bin(), ["f"]);
}

#[test]
fn cp_inside_the_mount_moves_no_bytes() {
    let big = Fixture::File {
        path: "/d/big".into(),
        content: mega_emulator::FixtureContent::Pattern {
            size: 20_000_000,
            seed: 5,
        },
        mtime: Some(1_600_000_000),
    };
    let world = World::with(&[big, Fixture::file("/d/small", "x", 1_600_000_000)]);
    let mount = world.mount();
    mount.sh("cp d/big copy; cp -r d e; cp -a d f");
    mount.unmount();
    let counters = world.emulator.counters();
    assert_eq!((counters.bytes_up, counters.bytes_down), (0, 0));
    let mut expected = vec!["/copy".to_owned()];
    for folder in ["d", "e", "f"] {
        expected.push(format!("/{folder}/"));
        expected.push(format!("/{folder}/big"));
        expected.push(format!("/{folder}/small"));
    }
    assert_eq!(world.paths(), expected);
    for path in ["/copy", "/e/big", "/f/big"] {
        assert!(world.content(path).unwrap() == mega_emulator::pattern(5, 0, 20_000_000));
    }
    assert_eq!(world.node("/f/big").unwrap().mtime, Some(1_600_000_000));
}

#[test]
fn content_that_the_account_has_is_not_sent_again() {
    let content = mega_emulator::pattern(5, 0, 20_000_000);
    let big = Fixture::File {
        path: "/d/big".into(),
        content: mega_emulator::FixtureContent::Pattern {
            size: 20_000_000,
            seed: 5,
        },
        mtime: Some(1_600_000_000),
    };
    let world = World::with(&[big]);
    let source = world.path("big");
    std::fs::write(&source, &content).unwrap();
    let mount = world.mount();
    mount.sh(&format!("cp {} new", source.display()));
    mount.sh(&format!("cp {} d/big", source.display()));
    mount.unmount();
    let counters = world.emulator.counters();
    assert_eq!((counters.bytes_up, counters.bytes_down), (0, 0));
    assert_eq!(world.paths(), ["/d/", "/d/big", "/new"]);
    assert!(world.content("/new").unwrap() == content);
    assert!(world.content("/d/big").unwrap() == content);
    assert!(world.node("/d/big").unwrap().mtime > Some(1_600_000_000));
    // Written as it was: no version.
    let nodes = world.nodes();
    assert!(nodes.iter().all(|node| node.version_of.is_none()));
}
