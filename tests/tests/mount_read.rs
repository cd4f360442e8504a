//! Looking and reading: listings, attributes, whole files, parts of files, damaged files.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use mega_emulator::{Brokenness, FaultAction, FaultRule, Fixture, pattern};
use megamount_tests::{World, sh, wait_until};

fn sample() -> World {
    World::with(&[
        Fixture::file("/a.txt", "hello\n", 1_600_000_000),
        Fixture::file("/empty", "", 1_600_000_000),
        Fixture::file("/dir/deep/er/b.txt", "deep\n", 1_500_000_000),
        Fixture::folder("/dir/void"),
        Fixture::pattern("/dir/large", 9_000_000, 7),
    ])
}

#[test]
fn ls_find_and_stat_show_the_account() {
    let world = sample();
    let mount = world.mount();
    assert_eq!(mount.names(""), ["a.txt", "dir", "empty"]);
    assert_eq!(
        mount.sh("find . -printf '%y %s %P\\n' | grep -v '^d' | sort"),
        "f 0 empty\nf 5 dir/deep/er/b.txt\nf 6 a.txt\nf 9000000 dir/large\n"
    );
    assert_eq!(
        mount.sh("find . -type d | sort"),
        ".\n./dir\n./dir/deep\n./dir/deep/er\n./dir/void\n"
    );
    assert_eq!(
        mount.sh("stat -c '%F %s %Y %h %u' a.txt"),
        format!(
            "regular file 6 1600000000 1 {}\n",
            rustix::process::getuid().as_raw()
        )
    );
    assert_eq!(mount.sh("ls -la | wc -l"), "6\n");
    assert!(mount.sh_fails("cat missing").contains("No such file"));
    assert!(mount.sh_fails("ls a.txt/x").contains("Not a directory"));
    mount.unmount();
}

#[test]
fn files_read_whole_are_what_was_uploaded() {
    let world = sample();
    let mount = world.mount();
    assert_eq!(mount.read("a.txt"), b"hello\n");
    assert_eq!(mount.read("empty"), b"");
    assert!(mount.read("dir/large") == pattern(7, 0, 9_000_000));
    let bytes = world.emulator.counters().bytes_down;
    assert!(mount.read("dir/large") == pattern(7, 0, 9_000_000));
    assert_eq!(
        world.emulator.counters().bytes_down,
        bytes,
        "from the cache"
    );
    mount.unmount();
    // The cache outlives the daemon.
    let mount = world.mount();
    assert!(mount.read("dir/large") == pattern(7, 0, 9_000_000));
    assert_eq!(
        world.emulator.counters().bytes_down,
        bytes,
        "from the cache"
    );
    mount.unmount();
}

#[test]
fn the_middle_of_a_large_file_costs_one_command_and_one_get() {
    let world = World::with(&[Fixture::pattern("/large", 200_000_000, 3)]);
    let mount = world.mount();
    world.emulator.reset_counters();
    let part = mount
        .sh("dd if=large bs=1000 count=1 skip=100000000 iflag=skip_bytes status=none | md5sum");
    std::fs::write(world.path("part"), pattern(3, 100_000_000, 1000)).unwrap();
    assert_eq!(part, sh(&world.path(""), "md5sum <part"));
    let counters = world.emulator.counters();
    assert_eq!(counters.commands("g"), 1);
    assert_eq!(counters.requests("dl"), 1, "{counters:?}");
    assert!(counters.bytes_down < 20_000_000, "{}", counters.bytes_down);
    mount.unmount();
}

#[test]
fn programs_that_look_into_media_files_do_not_download_them() {
    let mut files: Vec<_> = (0..200)
        .map(|n| Fixture::pattern(&format!("/media/{n:03}.mkv"), 2 << 20, n))
        .collect();
    files.extend((0..40).map(|n| Fixture::pattern(&format!("/film/{n:02}.mkv"), 16 << 20, n)));
    let world = World::with(&files);
    let mount = world.mount();
    // What a file manager reads of each.
    mount.sh("for f in media/*; do head -c 4096 $f >/dev/null; done");
    let heads = world.emulator.counters().bytes_down;
    assert!(heads <= 200 * (512 << 10), "{heads} for the heads");
    // Of what it does not recognise 'file' reads as much as it is told; the kernel reads ahead.
    assert_eq!(mount.sh("file -P bytes=1048576 -b film/* | wc -l"), "40\n");
    let moved = world.emulator.counters().bytes_down - heads;
    assert!(moved <= 40 * (3 << 20), "{moved} for 'file'");
    mount.unmount();
}

#[test]
fn a_library_that_is_scanned_is_not_downloaded() {
    // Two hundred films, some 300 GB, most of them larger than 20 MB.
    let world = World::with(&[Fixture::Generated {
        parent: "/films".into(),
        folders: 1,
        fanout: 0,
        files_per_folder: 200,
        max_size: 20_000_000_000,
    }]);
    let mount = world.mount();
    let moved = |script: &str| {
        let before = world.emulator.counters().bytes_down;
        mount.sh(&format!("cd films/*; {script}"));
        (world.emulator.counters().bytes_down - before) >> 20
    };
    // ffprobe: the header, the index at the end, and again some of the first frames.
    let probe = "for f in *; do head -c 300000 \"$f\"; tail -c 200000 \"$f\"; head -c 700000 \"$f\"; done >/dev/null";
    let probed = moved(probe);
    assert!(probed * 2 <= 200 * 3, "{probed} MiB for the probes");
    // 'file' as it comes reads 7 MiB at the beginning and as much at the end. It takes its time over them.
    let sniffed = moved("all=(*); file -b \"${all[@]:0:12}\" >/dev/null");
    assert!(sniffed <= 12 * 16, "{sniffed} MiB for 'file'");
    mount.unmount();
}

#[test]
fn ffprobe_of_two_hundred_films_fetches_little_of_them() {
    const FILMS: u64 = 200;
    let world = World::new();
    let out = world.path("out");
    sh(
        &out,
        "ffmpeg -v error -f lavfi -i testsrc2=size=1280x720:rate=25 -f lavfi -i sine -t 20 \
             -c:v mpeg4 -q:v 1 -c:a aac film.mp4
         ffmpeg -v error -i film.mp4 -c copy film.mkv",
    );
    let mount = world.mount();
    // The copies are made by the server.
    mount.sh(&format!(
        "cp ../out/film.* . && for n in $(seq 2 {}); do cp film.mp4 $n.mp4; cp film.mkv $n.mkv; done",
        FILMS / 2
    ));
    wait_until("all films are on the server", || {
        world.nodes().iter().filter(|node| !node.folder).count() as u64 == FILMS
    });
    mount.unmount();
    let size = std::fs::metadata(out.join("film.mp4")).unwrap().len();
    let mount = world.mount_with("remote:", &["--cache-dir", out.to_str().unwrap()]);
    let before = world.emulator.counters().bytes_down;
    let mut found = String::new();
    // In parts, because a script has half a minute.
    for names in ["[0-4]*", "[5-9]*", "f*"] {
        found += &mount.sh(&format!(
            "for f in {names}; do ffprobe -v error -of csv=p=0 -show_entries format=duration:stream=codec_name $f; done | sort | uniq -c"
        ));
    }
    let moved = world.emulator.counters().bytes_down - before;
    for part in ["mpeg4", "aac", "20.0"] {
        assert!(found.contains(part), "{found}");
    }
    assert!(size > 20_000_000, "{size}");
    assert!(
        moved <= FILMS * (768 << 10),
        "{} KiB a film",
        moved / FILMS / 1024
    );
    mount.unmount();
}

#[test]
fn striped_files_are_read_without_one_of_their_parts() {
    let world = World::with(&[Fixture::pattern("/f", 9_000_000, 5)]);
    world
        .emulator
        .set(|knobs| knobs.raid_min_size = Some(1 << 20));
    let dead = FaultAction::Status {
        code: 500,
        headers: Vec::new(),
        text: String::new(),
    };
    let dead = world.emulator.faults().add(FaultRule::new("dl:3", dead));
    let mount = world.mount_with("remote:", &["--cloudraid"]);
    assert!(mount.read("f") == pattern(5, 0, 9_000_000));
    assert!(world.emulator.faults().fired(dead) > 0);
    wait_until("it is verified", || {
        mount.log().contains("content verified")
    });
    mount.unmount();
}

#[test]
fn trees_are_copied_out_unchanged() {
    let world = sample();
    let mount = world.mount();
    mount.sh("cp -a . ../out/cp; rsync -a ./ ../out/rsync; mkdir ../out/tar; tar c . | tar x -C ../out/tar");
    for tool in ["cp", "rsync", "tar"] {
        mount.sh(&format!("diff -r . ../out/{tool}"));
        assert_eq!(
            mount.sh(&format!(
                "cd ../out/{tool}; stat -c %Y a.txt dir/deep/er/b.txt"
            )),
            "1600000000\n1500000000\n"
        );
    }
    mount.unmount();
}

#[test]
fn df_shows_the_quota() {
    let world = sample();
    let mount = world.mount();
    let size = mount.sh("df --output=size -B1 . | tail -1");
    assert_eq!(size.trim(), (20_u64 << 30).to_string());
    let used: u64 = mount
        .sh("df --output=used -B1 . | tail -1")
        .trim()
        .parse()
        .unwrap();
    assert!((9_000_000..10_000_000).contains(&used), "{used}");
    assert!(
        mount
            .sh("df --output=source,fstype .")
            .contains("megamount:remote fuse.megamount")
    );
    mount.unmount();
}

#[test]
fn a_corrupt_small_file_is_an_error() {
    let world = World::with(&[Fixture::Broken {
        path: "/wrong".into(),
        how: Brokenness::WrongMac,
    }]);
    let mount = world.mount();
    assert!(mount.sh_fails("cat wrong").contains("Input/output error"));
    mount.unmount();
}

#[test]
fn a_corrupt_large_file_is_found_when_complete() {
    let size = 9_000_000;
    let world = World::with(&[Fixture::pattern("/f", size, 5)]);
    // One bit of every answer is wrong, as from a disk that has gone bad.
    let flip = FaultAction::FlipBit { byte: 1000 };
    let rule = world.emulator.faults().add(FaultRule::new("dl", flip));
    let mount = world.mount();
    // No part of it can be checked alone, so the first reader may get the wrong bit ...
    let first = std::fs::read(mount.path("f"));
    assert!(first.map_or(true, |bytes| bytes != pattern(5, 0, size)));
    // ... but with the last byte the whole is compared with its checksum, and is not kept.
    wait_until("the damage is found", || {
        mount.log().contains("does not match its MAC")
    });
    wait_until("a reader is told", || {
        std::fs::File::open(mount.path("f"))
            .and_then(|mut file| std::io::copy(&mut file, &mut std::io::sink()))
            .is_err_and(|error| error.raw_os_error() == Some(5))
    });
    world.emulator.faults().remove(rule);
    wait_until("it is fetched anew", || {
        std::fs::read(mount.path("f")).is_ok_and(|bytes| bytes == pattern(5, 0, size))
    });
    mount.unmount();
}

#[test]
fn old_uploads_with_a_tolerated_mac_are_read() {
    let kinds = [
        ("/megajs", Brokenness::MegajsMac),
        ("/chunk", Brokenness::MissingChunk),
        ("/garbage", Brokenness::TrailingGarbage),
    ];
    let world = World::new();
    let handles = world.populate(&kinds.map(|(path, how)| Fixture::Broken {
        path: path.into(),
        how,
    }));
    let mount = world.mount();
    for ((path, _), handle) in kinds.iter().zip(handles) {
        let expected = world.emulator.content(&handle).unwrap();
        assert!(mount.read(&path[1..]) == expected, "{path}");
    }
    mount.unmount();
}

#[test]
fn a_bit_that_flips_on_the_way_is_fetched_again_or_an_error() {
    let world = World::with(&[Fixture::pattern("/f", 300_000, 1)]);
    world
        .emulator
        .faults()
        .add(FaultRule::once("dl", FaultAction::FlipBit { byte: 1000 }));
    let mount = world.mount();
    let first = std::fs::read(mount.path("f"));
    assert!(first.map_or(true, |bytes| bytes == pattern(1, 0, 300_000)));
    assert!(mount.read("f") == pattern(1, 0, 300_000));
    mount.unmount();
}

#[test]
fn sub_folders_can_be_mounted() {
    let world = sample();
    let mount = world.mount_with("remote:dir/deep", &[]);
    assert_eq!(mount.read("er/b.txt"), b"deep\n");
    mount.write("new", "x");
    mount.unmount();
    assert_eq!(world.content("/dir/deep/new").unwrap(), b"x");
}

#[test]
fn read_only_refuses_every_change() {
    let world = sample();
    let mount = world.mount_with("remote:", &["--read-only"]);
    assert_eq!(mount.read("a.txt"), b"hello\n");
    for script in [
        "touch new",
        "echo x >>a.txt",
        "rm a.txt",
        "mkdir d",
        "mv a.txt b",
        "chmod +x a.txt",
        "truncate -s 0 a.txt",
        "ln -s a b",
        "setfattr -n user.x -v y a.txt",
    ] {
        let text = mount.sh_fails(script);
        assert!(text.contains("Read-only file system"), "{script}: {text}");
    }
    mount.unmount();
}
