//! Bytes: what is written is read back, and is on the server afterwards.

use std::ffi::OsStr;
use std::time::Duration;

use mega_emulator::{FaultAction, FaultRule, Fixture, pattern};
use mega_vfs::{OpenMode, RenameMode, SetAttr, Timestamp, Versions, VfsConfig, WriteAt};
use rustix::io::Errno;

use crate::support::{EMAIL, World, eager};

#[tokio::test(flavor = "multi_thread")]
async fn files_of_all_sizes_arrive() {
    let world = World::new().await;
    for size in [
        0, 1, 15, 16, 17, 65_535, 65_536, 131_072, 131_073, 400_000, 3_000_000,
    ] {
        let path = format!("f{size}");
        let bytes = pattern(size, 0, size);
        world.write(&path, &bytes).await;
        assert!(
            world.read(&path).await.unwrap() == bytes,
            "{size} before the upload"
        );
    }
    world.settled().await;
    for size in [
        0, 1, 15, 16, 17, 65_535, 65_536, 131_072, 131_073, 400_000, 3_000_000,
    ] {
        let bytes = pattern(size, 0, size);
        assert!(
            world.remote(&format!("/f{size}")) == bytes,
            "{size} on the server"
        );
        assert!(
            world.read(&format!("f{size}")).await.unwrap() == bytes,
            "{size} after"
        );
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn overwriting_makes_a_version_and_keeps_the_inode() {
    let world = World::new().await;
    world.write("a", b"first").await;
    world.settled().await;
    let ino = world.ino("a").await.unwrap();
    world.write("a", b"second").await;
    world.settled().await;
    assert_eq!(world.ino("a").await.unwrap(), ino);
    assert_eq!(world.remote("/a"), b"second");
    assert_eq!(world.read("a").await.unwrap(), b"second");
    let versions = world.emulator.tree(EMAIL).unwrap();
    assert_eq!(
        versions
            .iter()
            .filter(|node| node.version_of.is_some())
            .count(),
        1
    );
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn appending_keeps_what_was_there() {
    let world = World::with(eager(), |emulator| {
        emulator
            .populate(EMAIL, &[Fixture::pattern("/big", 700_000, 3)])
            .unwrap();
    })
    .await;
    let ino = world.ino("big").await.unwrap();
    let mode = OpenMode {
        write: true,
        ..OpenMode::default()
    };
    let fh = world.vfs.open(ino, mode).await.unwrap().fh;
    world
        .vfs
        .write(ino, fh, WriteAt::End, b"tail")
        .await
        .unwrap();
    world.vfs.flush(ino, fh).await.unwrap();
    world.vfs.release(ino, fh).await.unwrap();
    let mut expected = pattern(3, 0, 700_000);
    expected.extend_from_slice(b"tail");
    assert!(world.read("big").await.unwrap() == expected);
    world.settled().await;
    assert!(world.remote("/big") == expected);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn truncation_up_and_down_reads_zeros() {
    let world = World::with(eager(), |emulator| {
        emulator
            .populate(EMAIL, &[Fixture::pattern("/t", 300_000, 4)])
            .unwrap();
    })
    .await;
    let ino = world.ino("t").await.unwrap();
    for size in [100_000, 200_000] {
        let wanted = SetAttr {
            size: Some(size),
            ..SetAttr::default()
        };
        assert_eq!(world.vfs.setattr(ino, wanted).await.unwrap().size, size);
    }
    let mut expected = pattern(4, 0, 100_000);
    expected.resize(200_000, 0);
    assert!(world.read("t").await.unwrap() == expected);
    world.settled().await;
    assert!(world.remote("/t") == expected);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn truncating_what_somebody_else_reads_or_writes_survives_us() {
    for write in [false, true] {
        let world = World::new().await;
        world.write("file", b"abcdef").await;
        world.settled().await;
        let ino = world.ino("file").await.unwrap();
        let mode = OpenMode {
            read: true,
            write,
            ..OpenMode::default()
        };
        let fh = world.vfs.open(ino, mode).await.unwrap().fh;
        let wanted = SetAttr {
            size: Some(1),
            ..SetAttr::default()
        };
        world.vfs.setattr(ino, wanted).await.unwrap();
        if !write {
            // Nothing more is to come: it is uploaded while it is read.
            world
                .until("the server has it", async |world| {
                    world.remote("/file") == b"a"
                })
                .await;
        }
        assert_eq!(&world.vfs.read(ino, fh, 0, 10).await.unwrap()[..], b"a");
        let world = world.restart(eager()).await;
        let ino = world.ino("file").await.unwrap();
        assert_eq!(world.vfs.getattr(ino).await.unwrap().attr.size, 1);
        world.settled().await;
        assert_eq!(world.remote("/file"), b"a");
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn times_and_bits_are_kept_on_the_server() {
    let world = World::new().await;
    world.write("x", b"#!/bin/sh\n").await;
    let ino = world.ino("x").await.unwrap();
    let mtime = Timestamp {
        secs: 1_000_000_000,
        nanos: 123_456_789,
    };
    let wanted = SetAttr {
        mtime: Some(mtime),
        mode: Some(0o755),
        ..SetAttr::default()
    };
    world.vfs.setattr(ino, wanted).await.unwrap();
    world.settled().await;
    let node = world.nodes().remove(0);
    assert_eq!(node.mtime, Some(1_000_000_000));
    let attr = world.vfs.getattr(ino).await.unwrap().attr;
    assert_eq!(attr.mtime, mtime);
    assert_eq!(attr.perm, 0o755);
    let world = world.restart(eager()).await;
    let ino = world.ino("x").await.unwrap();
    let attr = world.vfs.getattr(ino).await.unwrap().attr;
    assert_eq!((attr.mtime, attr.perm, attr.size), (mtime, 0o755, 10));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_file_outlives_its_name() {
    let world = World::new().await;
    world.write("gone", b"still here").await;
    let ino = world.ino("gone").await.unwrap();
    let mode = OpenMode {
        read: true,
        write: true,
        ..OpenMode::default()
    };
    let fh = world.vfs.open(ino, mode).await.unwrap().fh;
    world.unlink("gone").await.unwrap();
    world
        .vfs
        .write(ino, fh, WriteAt::Offset(5), b"!")
        .await
        .unwrap();
    assert_eq!(
        &world.vfs.read(ino, fh, 0, 100).await.unwrap()[..],
        b"still!here"
    );
    world.vfs.flush(ino, fh).await.unwrap();
    world.vfs.release(ino, fh).await.unwrap();
    world.settled().await;
    assert_eq!(world.paths(), Vec::<String>::new());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_replaced_between_looking_up_and_opening_is_opened() {
    let config = VfsConfig {
        write_back: Duration::from_secs(3600),
        ..eager()
    };
    let world = World::with(config, |_| {}).await;
    let large = vec![7; 200_000];
    world.write("doc", &large).await;
    let old = world.ino("doc").await.unwrap();
    let read = OpenMode {
        read: true,
        ..OpenMode::default()
    };
    world.write("doc.tmp", b"new").await;
    world
        .rename("doc.tmp", "doc", RenameMode::Replace)
        .await
        .unwrap();
    for _ in 0..2 {
        let fh = world.vfs.open(old, read).await.unwrap().fh;
        let bytes = world.vfs.read(old, fh, 199_999, 10).await.unwrap();
        assert_eq!(&bytes[..], [7]);
        world.vfs.release(old, fh).await.unwrap();
    }
    let attr = world.vfs.getattr(old).await.unwrap().attr;
    assert_eq!((attr.nlink, attr.size), (0, 200_000));
    let staging = world.dir.path().join("state/staging");
    assert_eq!(std::fs::read_dir(&staging).unwrap().count(), 0);
    assert_eq!(world.read("doc").await.unwrap(), b"new");
    // As often as it was looked up, and made.
    world.vfs.forget(old, 2);
    let gone = world.vfs.open(old, read).await.map(|opened| opened.fh);
    assert_eq!(gone, Err(Errno::STALE));
    world.vfs.flush_queue();
    world.settled().await;
    assert_eq!(world.paths(), ["/doc"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_comes_back_from_the_bin_is_another_than_its_open_handles_have() {
    let world = World::with(eager(), |emulator| {
        let list = [Fixture::file("/doc", "content", 1)];
        emulator.populate(EMAIL, &list).unwrap();
    })
    .await;
    let ino = world.ino("doc").await.unwrap();
    let mode = OpenMode {
        read: true,
        write: true,
        ..OpenMode::default()
    };
    let fh = world.vfs.open(ino, mode).await.unwrap().fh;
    world.unlink("doc").await.unwrap();
    world.settled().await;
    world
        .until("it is in the bin", async |world| {
            world.names(".mega/trash").await == ["doc"]
        })
        .await;
    world
        .rename(".mega/trash/doc", "doc", RenameMode::Replace)
        .await
        .unwrap();
    world.settled().await;
    world.write("doc", b"written after it came back").await;
    let late = world.vfs.write(ino, fh, WriteAt::Offset(0), b"late").await;
    assert_eq!(late, Ok(4), "into what was removed");
    world.vfs.flush(ino, fh).await.unwrap();
    world.vfs.release(ino, fh).await.unwrap();
    world.settled().await;
    assert_eq!(
        world.read("doc").await.unwrap(),
        b"written after it came back"
    );
    assert_eq!(world.remote("/doc"), b"written after it came back");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_while_it_comes_back_from_the_bin_is_pushed() {
    let world = World::with(eager(), |emulator| {
        let list = [Fixture::file("/doc", "content", 1)];
        emulator.populate(EMAIL, &list).unwrap();
    })
    .await;
    world.unlink("doc").await.unwrap();
    world
        .until("it is in the bin", async |world| {
            world.names(".mega/trash").await == ["doc"]
        })
        .await;
    world.settled().await;
    let wait = FaultAction::Slow { ms: 300 };
    world.emulator.faults().add(FaultRule::once("cmd:m", wait));
    world
        .rename(".mega/trash/doc", "doc", RenameMode::Replace)
        .await
        .unwrap();
    let moves = world.emulator.counters().commands("m");
    world
        .until("it is on its way", async |world| {
            world.vfs.status().in_flight > 0 || world.emulator.counters().commands("m") > moves
        })
        .await;
    world.write("doc", b"written meanwhile").await;
    world.settled().await;
    assert_eq!(world.read("doc").await.unwrap(), b"written meanwhile");
    assert_eq!(world.remote("/doc"), b"written meanwhile");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_can_still_be_asked_about() {
    for hard_delete in [false, true] {
        let config = VfsConfig {
            hard_delete,
            ..eager()
        };
        let world = World::with(config, |emulator| {
            emulator
                .populate(EMAIL, &[Fixture::pattern("/file", 300_000, 5)])
                .unwrap();
            emulator
                .populate(EMAIL, &[Fixture::folder("/folder")])
                .unwrap();
        })
        .await;
        world.mkdir("made here").await;
        let folders = [
            world.ino("folder").await.unwrap(),
            world.ino("made here").await.unwrap(),
        ];
        let ino = world.ino("file").await.unwrap();
        let mode = OpenMode {
            read: true,
            write: true,
            ..OpenMode::default()
        };
        let fh = world.vfs.open(ino, mode).await.unwrap().fh;
        world.unlink("file").await.unwrap();
        world.rmdir("folder").await.unwrap();
        world.rmdir("made here").await.unwrap();
        if !hard_delete {
            // With hard deletion the file stays until it is closed.
            world.settled().await;
        }
        for folder in folders {
            let attr = world.vfs.getattr(folder).await.unwrap().attr;
            assert_eq!((attr.ino, attr.nlink), (folder, 0));
            world.vfs.forget(folder, 1);
        }
        let at = WriteAt::Offset(300_000);
        world.vfs.write(ino, fh, at, b"more").await.unwrap();
        let wanted = SetAttr {
            mtime: Some(Timestamp::from_secs(7)),
            ..SetAttr::default()
        };
        world.vfs.setattr(ino, wanted).await.unwrap();
        let attr = world.vfs.getattr(ino).await.unwrap().attr;
        assert_eq!((attr.ino, attr.nlink, attr.size), (ino, 0, 300_004));
        assert_eq!(attr.mtime, Timestamp::from_secs(7));
        let bytes = world.vfs.read(ino, fh, 0, 300_000).await.unwrap();
        assert!(bytes[..] == pattern(5, 0, 300_000));
        world.vfs.release(ino, fh).await.unwrap();
        world.vfs.forget(ino, 1);
        world.settled().await;
        assert_eq!(world.paths(), Vec::<String>::new());
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn times_that_only_we_know_last_until_the_kernel_forgets() {
    let world = World::new().await;
    world.write("f", b"x").await;
    world.settled().await;
    let ino = world.ino("f").await.unwrap();
    let before = world.vfs.getattr(ino).await.unwrap().attr;
    let wanted = SetAttr {
        atime: Some(Timestamp::from_secs(1_000)),
        mtime: Some(Timestamp::from_secs(2_000)),
        ..SetAttr::default()
    };
    let attr = world.vfs.setattr(ino, wanted).await.unwrap();
    assert_eq!(attr.atime, Timestamp::from_secs(1_000));
    assert_eq!(attr.mtime, Timestamp::from_secs(2_000));
    assert!(attr.ctime > before.ctime, "{attr:?} after {before:?}");
    world.settled().await;
    let pushed = world.vfs.getattr(ino).await.unwrap().attr;
    assert_eq!((pushed.atime, pushed.mtime), (attr.atime, attr.mtime));
    world.rename("f", "g", RenameMode::Replace).await.unwrap();
    let renamed = world.vfs.getattr(ino).await.unwrap().attr;
    assert!(renamed.ctime > attr.ctime);
    assert_eq!(world.nodes()[0].mtime, Some(2_000));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_while_uploading_ends_with_the_last_bytes() {
    let world = World::new().await;
    for round in 0..10_u8 {
        world.write("busy", &vec![round; 200_000]).await;
    }
    world.settled().await;
    assert!(world.remote("/busy") == vec![9; 200_000]);
    assert_eq!(world.paths(), ["/busy"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_and_attributes_survive() {
    let world = World::new().await;
    let entry = world
        .vfs
        .symlink(1, OsStr::new("link"), OsStr::new("../target"))
        .await
        .unwrap();
    world
        .vfs
        .setxattr(entry.attr.ino, OsStr::new("user.k"), b"v", 0)
        .await
        .unwrap();
    world.settled().await;
    assert_eq!(world.remote("/link"), b"../target");
    let world = world.restart(eager()).await;
    let ino = world.ino("link").await.unwrap();
    assert_eq!(world.vfs.readlink(ino).await.unwrap(), b"../target");
    assert_eq!(
        world.vfs.getxattr(ino, OsStr::new("user.k")).await.unwrap(),
        b"v"
    );
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_content_can_go_to_the_bin() {
    let config = VfsConfig {
        versions: Versions::Replace,
        ..eager()
    };
    let world = World::with(config, |emulator| {
        let list = [Fixture::file("/f", "old", 1), Fixture::file("/g", "old", 1)];
        emulator.populate(EMAIL, &list).unwrap();
    })
    .await;
    world.write("f", b"new").await;
    world.write("tmp", b"newer").await;
    world.rename("tmp", "g", RenameMode::Replace).await.unwrap();
    world.settled().await;
    assert_eq!(world.paths(), ["/f", "/g"]);
    assert_eq!(world.remote("/f"), b"new");
    assert_eq!(world.remote("/g"), b"newer");
    assert_eq!(world.names("").await, ["f", "g"]);
    let tree = world.emulator.tree(EMAIL).unwrap();
    assert!(tree.iter().all(|node| node.version_of.is_none()));
    let bin = tree.iter().filter(|node| node.in_bin && !node.folder);
    assert_eq!(bin.count(), 2);
    world.finish().await;
}
