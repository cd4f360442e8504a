//! What was acknowledged is there after the end of the process.

use std::time::Duration;

use mega_emulator::{FaultAction, FaultRule, Fixture};
use mega_store::{AttemptId, ChangeState, LayerData};
use mega_vfs::{
    FsyncMode, OpenMode, RenameMode, ResolveError, SetAttr, Timestamp, VfsConfig, WriteAt,
};
use rustix::io::Errno;

use crate::status::exported;
use crate::support::{EMAIL, ROOT, World, eager};

fn slow() -> VfsConfig {
    VfsConfig {
        write_back: Duration::from_secs(60),
        ..eager()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_survives() {
    let world = World::with(slow(), |_| {}).await;
    world.mkdir("d").await;
    world.write("d/small", b"inline").await;
    world.write("d/large", &vec![7; 300_000]).await;
    world.write("other", b"renamed later").await;
    world
        .rename("other", "d/renamed", RenameMode::Replace)
        .await
        .unwrap();
    let world = world.restart(slow()).await;
    assert_eq!(world.names("d").await, ["large", "renamed", "small"]);
    assert_eq!(world.read("d/small").await.unwrap(), b"inline");
    let world = world.restart(eager()).await;
    world.settled().await;
    assert_eq!(world.paths(), ["/d", "/d/large", "/d/renamed", "/d/small"]);
    assert!(world.remote("/d/large") == vec![7; 300_000]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_makes_no_second_node() {
    let world = World::new().await;
    world.write("warm", b"up").await;
    world.settled().await;
    let rule = FaultRule::once("cmd:p", FaultAction::Lost).times(2);
    let lost = world.emulator.faults().add(rule);
    world.mkdir("folder").await;
    world.write("file", b"once").await;
    world.settled().await;
    assert_eq!(world.emulator.faults().fired(lost), 2);
    assert_eq!(world.paths(), ["/file", "/folder", "/warm"]);
    assert_eq!(world.names("").await, ["file", "folder", "warm"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_upload_goes_on() {
    const SIZE: u64 = 40 << 20;
    let world = World::new().await;
    world.emulator.set(|knobs| knobs.up_total = 8 << 20);
    let data = mega_emulator::pattern(1, 0, SIZE);
    world.write("large", &data).await;
    let up = |world: &World| world.emulator.counters().bytes_up;
    world
        .until("half of it is sent", async |world| up(world) > SIZE / 2)
        .await;
    let world = world.restart(eager()).await;
    world.emulator.cut_connections();
    world.emulator.set(|knobs| knobs.up_total = 0);
    world.settled().await;
    assert!(world.remote("/large") == data);
    // The same address, and less than all of it again.
    assert_eq!(world.emulator.counters().commands("u"), 1);
    assert!(up(&world) < SIZE + SIZE / 2, "{}", up(&world));
    world.finish().await;
}

/// What the server has refused for good is an error to whoever waits for it, at once.
#[tokio::test(flavor = "multi_thread")]
async fn fsync_of_a_refused_change_fails() {
    let cloud = || VfsConfig {
        fsync: FsyncMode::Cloud,
        ..slow()
    };
    let world = World::with(cloud(), |_| {}).await;
    world.write("parked", b"bytes").await;
    world.write("fine", b"bytes").await;
    let world = world
        .restart_after(cloud(), false, |store| {
            for mut row in store.changes().unwrap() {
                if row.place.as_ref().unwrap().name == "parked" {
                    row.state = ChangeState::Parked {
                        error: "access denied".to_owned(),
                    };
                    store.write(|tx| tx.put_change(&row)).unwrap();
                }
            }
        })
        .await;
    for (path, expected) in [("parked", Err(Errno::IO)), ("fine", Ok(()))] {
        let ino = world.ino(path).await.unwrap();
        let mode = OpenMode {
            read: true,
            ..OpenMode::default()
        };
        let fh = world.vfs.open(ino, mode).await.unwrap().fh;
        assert_eq!(world.vfs.fsync(ino, fh, false).await, expected, "{path}");
        world.vfs.release(ino, fh).await.unwrap();
    }
    assert_eq!(world.remote("/fine"), b"bytes");
    assert_eq!(world.vfs.fsyncdir(ROOT).await, Err(Errno::IO));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_power_cut_unsynced_bytes_are_set_aside() {
    let world = World::with(slow(), |_| {}).await;
    for name in ["synced", "large"] {
        world.write(name, &vec![7; 300_000]).await;
    }
    world.write("small", b"inline").await;
    let world = world
        .restart_after(eager(), true, |store| {
            for mut row in store.changes().unwrap() {
                let content = row.content.as_mut().unwrap();
                // By the last second's round, without any fsync of an application.
                let is_inline = content.size < 65536;
                assert!(content.synced || is_inline, "{:?}", row.subject);
                if row.place.as_ref().unwrap().name == "large" {
                    content.synced = false;
                    store.write(|tx| tx.put_change(&row)).unwrap();
                }
            }
        })
        .await;
    world
        .until("the others are there", async |world| {
            world.paths() == ["/small", "/synced"]
        })
        .await;
    assert_eq!(world.names("").await, ["large", "small", "synced"]);
    assert_eq!(world.vfs.status().parked.len(), 1);
    assert_eq!(world.read("large").await, Err(Errno::IO));
    // It can be saved, and is not pushed by mistake.
    assert_eq!(
        world.vfs.retry(Some("large")),
        Err(ResolveError::SetAside("large".to_owned()))
    );
    assert_eq!(world.vfs.retry(None), Ok(0));
    let (bytes, missing) = exported(&world, "large").await;
    assert!(bytes == vec![7; 300_000] && missing == 0);
    assert_eq!(world.read("large").await, Err(Errno::IO));
    assert_eq!(world.vfs.status().parked.len(), 1);
    // Not under another name either, and not after another start.
    world
        .rename("large", "renamed", RenameMode::Replace)
        .await
        .unwrap();
    let world = world.restart(eager()).await;
    assert_eq!(world.read("renamed").await, Err(Errno::IO));
    assert_eq!(world.paths(), ["/small", "/synced"]);
    // A new file takes its place.
    world.write("new", b"new").await;
    world
        .rename("new", "renamed", RenameMode::Replace)
        .await
        .unwrap();
    assert_eq!(world.read("renamed").await.unwrap(), b"new");
    world.settled().await;
    assert_eq!(world.paths(), ["/renamed", "/small", "/synced"]);
    world.finish().await;
}

/// As temporary files are: open and without a name. They end with the process, and leave nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn content_without_a_name_leaves_nothing_behind() {
    let world = World::with(slow(), |_| {}).await;
    let mode = OpenMode {
        read: true,
        write: true,
        ..OpenMode::default()
    };
    for (name, before, after) in [
        ("one", 200_000, 0),
        ("two", 0, 200_000),
        ("three", 200_000, 9),
    ] {
        world.write(name, &vec![1; before]).await;
        let ino = world.ino(name).await.unwrap();
        let fh = world.vfs.open(ino, mode).await.unwrap().fh;
        world.unlink(name).await.unwrap();
        let data = vec![2; after];
        let at = WriteAt::Offset(0);
        world.vfs.write(ino, fh, at, &data).await.unwrap();
        let seen = world.vfs.read(ino, fh, 0, 1 << 20).await.unwrap();
        assert_eq!(seen.len(), before.max(after), "{name}");
        assert!(seen.starts_with(&data), "{name}");
    }
    let world = world.restart(slow()).await;
    for directory in ["staging", "lost+found"] {
        let path = world.dir.path().join("state").join(directory);
        let left = std::fs::read_dir(path).unwrap().count();
        assert_eq!(left, 0, "{directory}");
    }
    world.finish().await;
}

/// An upload fetches what was not written of a file. That is kept for the next try, and is nobody's litter.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_upload_fetched_before_the_end_is_there_after_it() {
    const SIZE: u64 = 3_000_000;
    let world = World::with(eager(), |emulator| {
        let list = [Fixture::pattern("/old", SIZE, 1)];
        emulator.populate(EMAIL, &list).unwrap();
    })
    .await;
    let refused = FaultAction::Status {
        code: 500,
        headers: Vec::new(),
        text: String::new(),
    };
    let rule = world.emulator.faults().add(FaultRule::new("ul", refused));
    let ino = world.ino("old").await.unwrap();
    let mode = OpenMode {
        write: true,
        ..OpenMode::default()
    };
    let fh = world.vfs.open(ino, mode).await.unwrap().fh;
    let at = WriteAt::Offset(1000);
    world.vfs.write(ino, fh, at, b"patch").await.unwrap();
    world.vfs.release(ino, fh).await.unwrap();
    world
        .until("the upload is refused", async |world| {
            world.emulator.counters().requests_with("u") > 0
                && world.emulator.counters().bytes_down >= SIZE - 5
        })
        .await;
    let world = world.restart(eager()).await;
    let lost = world.dir.path().join("state/lost+found");
    assert_eq!(std::fs::read_dir(lost).unwrap().count(), 0);
    world.emulator.faults().remove(rule);
    world.settled().await;
    let mut expected = mega_emulator::pattern(1, 0, SIZE);
    expected[1000..1005].copy_from_slice(b"patch");
    assert!(world.remote("/old") == expected);
    let staging = world.dir.path().join("state/staging");
    assert_eq!(std::fs::read_dir(staging).unwrap().count(), 0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_power_cut_left_can_be_saved_and_discarded() {
    let fixtures = [Fixture::pattern("/old", 400_000, 1)];
    let world = World::with(slow(), |emulator| {
        emulator.populate(EMAIL, &fixtures).unwrap();
    })
    .await;
    for name in ["cut", "lost", "old"] {
        world.write(name, &vec![7; 300_000]).await;
    }
    let staging = world.dir.path().join("state/staging");
    let world = world
        .restart_after(eager(), true, |store| {
            for mut row in store.changes().unwrap() {
                let content = row.content.as_mut().unwrap();
                content.synced = false;
                let LayerData::File(id) = content.layers[0].data else {
                    panic!("inline");
                };
                let file = staging.join(format!("{:016x}", id.0));
                let name = row.place.as_ref().map(|place| place.name.as_str());
                match name {
                    Some("cut") => {
                        let file = std::fs::File::options().write(true).open(file);
                        file.unwrap().set_len(200_000).unwrap();
                    }
                    Some("lost") => std::fs::remove_file(file).unwrap(),
                    _ => {}
                }
                store.write(|tx| tx.put_change(&row)).unwrap();
            }
        })
        .await;
    assert_eq!(world.vfs.status().parked.len(), 3);
    let (bytes, missing) = exported(&world, "cut").await;
    assert!(bytes[..131_072] == vec![7; 131_072]);
    assert!(missing > 0);
    assert!(matches!(
        world.vfs.export("lost"),
        Err(ResolveError::Lost(_))
    ));
    assert!(exported(&world, "old").await == (vec![7; 300_000], 0));
    for name in ["cut", "lost", "old"] {
        world.vfs.discard(name).unwrap();
    }
    assert_eq!(world.names("").await, ["old"]);
    assert!(world.read("old").await.unwrap() == mega_emulator::pattern(1, 0, 400_000));
    // And back from where it was saved.
    world.write("cut", &bytes).await;
    world.settled().await;
    assert_eq!(world.paths(), ["/cut", "/old"]);
    world.finish().await;
}

/// What comes in many replies is seen as a whole: no name is between two of them what it once was.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_in_many_replies_is_applied_at_once() {
    let world = World::with(eager(), |emulator| {
        emulator
            .populate(EMAIL, &[Fixture::file("/0", "x", 1)])
            .unwrap();
    })
    .await;
    world
        .until("idle", async |world| world.vfs.status().is_channel_up)
        .await;
    world.emulator.set(|knobs| knobs.events_per_reply = 1);
    // A rename a packet; a restart asks for all of them.
    let names: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    world.vfs.shutdown(Duration::ZERO).await;
    for pair in names.windows(2) {
        let rename = Fixture::Rename {
            path: format!("/{}", pair[0]),
            name: pair[1].clone(),
        };
        world.emulator.populate(EMAIL, &[rename]).unwrap();
    }
    let world = world.restart(eager()).await;
    let last = names.last().unwrap();
    world
        .until("the last name is there", async |world| {
            let seen = world.names("").await;
            assert!(seen == ["0"] || seen == [last.as_str()], "{seen:?}");
            seen == [last.as_str()]
        })
        .await;
    world.finish().await;
}

/// The next run comes later than the server is trusted to remember a request: it is not sent again.
async fn restart_much_later(world: World) -> World {
    world
        .restart_after(eager(), false, |store| {
            store.write(|tx| tx.delete_attempt(AttemptId(0))).unwrap();
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_put_late_is_not_uploaded_twice() {
    let world = World::new().await;
    world.write("warm", b"up").await;
    world.settled().await;
    let late = world.hold_once("cmd:p");
    world.write("file", b"once").await;
    world.until_fired(late).await;
    // The next run asks with the same token; the late request is faster after all.
    let again = world.hold_once("cmd:p");
    let world = restart_much_later(world).await;
    world.until_fired(again).await;
    world.emulator.faults().remove(late);
    world
        .until("the late request is executed", async |world| {
            world.paths() == ["/file", "/warm"]
        })
        .await;
    world.emulator.faults().remove(again);
    world.settled().await;
    assert_eq!(world.paths(), ["/file", "/warm"]);
    assert_eq!(world.names("").await, ["file", "warm"]);
    assert_eq!(world.emulator.counters().commands("u"), 2);
    world.finish_late().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_put_late_is_not_there_twice() {
    let world = World::new().await;
    world.write("warm", b"up").await;
    world.settled().await;
    let late = world.hold_once("cmd:p");
    world.mkdir("folder").await;
    world.until_fired(late).await;
    let world = restart_much_later(world).await;
    world.write("folder/file", b"once").await;
    world
        .until("it was put again", async |world| {
            world.paths() == ["/folder", "/folder/file", "/warm"]
        })
        .await;
    world.emulator.faults().remove(late);
    let put_twice = async |world: &World| world.emulator.counters().commands("p") == 4;
    world.until("the late request is executed", put_twice).await;
    world
        .until("the second one is gone", async |world| {
            world.paths() == ["/folder", "/folder/file", "/warm"]
                && world.emulator.counters().commands("m") == 1
        })
        .await;
    world.settled().await;
    assert_eq!(world.paths(), ["/folder", "/folder/file", "/warm"]);
    assert_eq!(world.names("").await, ["folder", "warm"]);
    world.finish_late().await;
}

/// A folder that somebody else makes: everything that happened before it is seen when it is.
async fn seen_so_far(world: &World, marker: &str) {
    let folder = [Fixture::folder(&format!("/{marker}"))];
    world.emulator.populate(EMAIL, &folder).unwrap();
    world
        .until("all events were seen", async |world| {
            world.ino(marker).await.is_ok()
        })
        .await;
}

/// What tells of the put comes after what was changed since: it must not bring the older state back for good.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_after_a_put_was_repeated_stays_changed() {
    let world = World::new().await;
    world.write("warm", b"up").await;
    world.settled().await;
    let late = world.hold_once("cmd:p");
    world.write("file", b"once").await;
    world.until_fired(late).await;
    let wanted = SetAttr {
        mtime: Some(Timestamp::from_secs(2_000_000)),
        ..SetAttr::default()
    };
    let ino = world.ino("file").await.unwrap();
    world.vfs.setattr(ino, wanted).await.unwrap();
    let replace = RenameMode::Replace;
    world.rename("file", "renamed", replace).await.unwrap();
    let events = world
        .emulator
        .faults()
        .add(FaultRule::new("w", FaultAction::Held));
    let world = restart_much_later(world).await;
    world.settled().await;
    assert_eq!(world.paths(), ["/renamed", "/warm"]);
    world.emulator.faults().remove(events);
    seen_so_far(&world, "marker").await;
    assert_eq!(world.names("").await, ["marker", "renamed", "warm"]);
    let ino = world.ino("renamed").await.unwrap();
    let entry = world.vfs.getattr(ino).await.unwrap();
    assert_eq!(entry.attr.mtime.secs, 2_000_000);
    world.emulator.faults().remove(late);
    world.finish_late().await;
}

/// After a restart our own changes are told once more, from the first: a file passes again through the places it
/// had.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_outlasts_what_is_told_again() {
    let world = World::with(eager(), |emulator| {
        let files = [
            Fixture::folder("/e"),
            Fixture::file("/e/x", "one", 1),
            Fixture::file("/e/x", "two", 1),
            Fixture::file("/e/x", "three", 1),
        ];
        emulator.populate(EMAIL, &files).unwrap();
    })
    .await;
    world.unlink("e/x (1)").await.unwrap();
    world.settled().await;
    assert_eq!(world.names("e").await, ["x", "x (2)"]);
    let kept = world.read("e/x").await.unwrap();
    let events = world
        .emulator
        .faults()
        .add(FaultRule::new("w", FaultAction::Held));
    // The wait that is under way ends with this; the next one lasts.
    seen_so_far(&world, "before").await;
    world.write("m", b"mine").await;
    world.settled().await;
    let replace = RenameMode::Replace;
    world.rename("m", "e/x (2)", replace).await.unwrap();
    world.settled().await;
    assert_eq!(world.read("e/x (2)").await.unwrap(), b"mine");
    let world = world.restart(eager()).await;
    world.emulator.faults().remove(events);
    seen_so_far(&world, "marker").await;
    let world = world.restart(eager()).await;
    assert_eq!(world.names("e").await, ["x", "x (2)"]);
    assert_eq!(world.read("e/x (2)").await.unwrap(), b"mine");
    assert_eq!(world.read("e/x").await.unwrap(), kept);
    world.finish().await;
}
