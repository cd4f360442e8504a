//! Somebody else was faster: what we put is not where we meant it, and nothing is lost.

use std::time::Duration;

use mega_emulator::{FaultAction, FaultRule, Fixture, FixtureContent};
use mega_vfs::{RenameMode, VfsConfig};

use crate::remote::delete;
use crate::support::{EMAIL, World, eager};

async fn world_with(fixtures: &[Fixture]) -> World {
    World::with(eager(), |emulator| {
        emulator.populate(EMAIL, fixtures).unwrap();
    })
    .await
}

/// What others do is not told from now on; returns the rules that keep it back.
pub(crate) async fn hold_events(world: &World) -> Vec<u64> {
    let broken = |at| {
        let action = FaultAction::Status {
            code: 500,
            headers: Vec::new(),
            text: String::new(),
        };
        world.emulator.faults().add(FaultRule::new(at, action))
    };
    let rules = ["sc", "wsc", "w"].map(broken).to_vec();
    // The poll that is waiting now still gets its answer.
    let sign = Fixture::folder("/sign");
    world.emulator.populate(EMAIL, &[sign]).unwrap();
    world
        .until("the channel is down", async |world| {
            !world.vfs.status().is_channel_up
        })
        .await;
    rules
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_came_too_late_gets_the_conflict_name() {
    let world = world_with(&[Fixture::file("/doc.txt", "old", 1)]).await;
    // They replace the file; we hear of it only after ours was put.
    // What an earlier run may have left is looked for first: after this the queue moves.
    world.write("first", b"").await;
    world.settled().await;
    world.unlink("first").await.unwrap();
    world.settled().await;
    let rules = hold_events(&world).await;
    let theirs = Fixture::Overwrite {
        path: "/doc.txt".into(),
        content: FixtureContent::Text("theirs".into()),
        mtime: Some(2),
    };
    world.emulator.populate(EMAIL, &[theirs]).unwrap();
    world.write("doc.txt", b"ours").await;
    world
        .until("ours was put", async |world| world.paths().len() == 3)
        .await;
    for rule in rules {
        world.emulator.faults().remove(rule);
    }
    world
        .until("both are there", async |world| {
            world.paths().len() == 3 && world.names("").await.len() == 3
        })
        .await;
    world
        .until("ours has its name", async |world| {
            world.paths().iter().any(|path| path.contains("conflict"))
        })
        .await;
    world.settled().await;
    let paths = world.paths();
    assert!(paths[0].starts_with("/doc (conflict "), "{paths:?}");
    assert_eq!(paths[1], "/doc.txt");
    assert_eq!(world.remote(&paths[0]), b"ours");
    assert_eq!(world.remote("/doc.txt"), b"theirs");
    let names = world.names("").await;
    assert_eq!(names, [&paths[0][1..], "doc.txt", "sign"]);
    assert_eq!(world.read("doc.txt").await.unwrap(), b"theirs");
    assert_eq!(world.read(&names[0]).await.unwrap(), b"ours");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_overwritten_elsewhere_during_its_upload_is_kept_twice() {
    let world = world_with(&[Fixture::file("/doc.txt", "old", 1)]).await;
    // The upload takes a while; their change is known before it is done.
    world
        .emulator
        .faults()
        .add(FaultRule::once("ul", FaultAction::Slow { ms: 1_500 }));
    world.write("doc.txt", b"ours").await;
    world
        .until("the upload runs", async |world| {
            world.emulator.counters().requests("ul") > 0
        })
        .await;
    let theirs = Fixture::Overwrite {
        path: "/doc.txt".into(),
        content: FixtureContent::Text("theirs".into()),
        mtime: Some(2),
    };
    world.emulator.populate(EMAIL, &[theirs]).unwrap();
    world
        .until("both are seen", async |world| {
            world.names("").await.len() == 2
        })
        .await;
    world.settled().await;
    let paths = world.paths();
    assert_eq!(paths.len(), 2, "{paths:?}");
    assert_eq!(world.remote("/doc.txt"), b"theirs");
    assert_eq!(world.remote(&paths[0]), b"ours");
    assert_eq!(world.names("").await, [&paths[0][1..], "doc.txt"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_that_landed_in_the_bin_is_placed_again() {
    let world = world_with(&[Fixture::folder("/d")]).await;
    world
        .emulator
        .faults()
        .add(FaultRule::once("cmd:p", FaultAction::ToRubbish));
    world.write("d/f", b"content").await;
    world.settled().await;
    assert_eq!(world.paths(), ["/d", "/d/f"]);
    assert_eq!(world.remote("/d/f"), b"content");
    assert_eq!(world.names("d").await, ["f"]);
    assert_eq!(world.read("d/f").await.unwrap(), b"content");
    world.finish().await;
}

/// The server puts it into the bin, and there is no folder to take it out to.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_below_a_folder_they_had_deleted_brings_it_back() {
    let world = world_with(&[Fixture::folder("/d")]).await;
    // What an earlier run may have left is looked for first: after this the queue moves.
    world.write("first", b"").await;
    world.settled().await;
    let rules = hold_events(&world).await;
    let other = world.other().await;
    delete(&world, &other, "/d").await;
    world.write("d/file", b"content").await;
    world.mkdir("d/folder").await;
    world
        .until("both moves are refused", async |world| {
            world.emulator.counters().commands("m") >= 2
        })
        .await;
    assert_eq!(world.names("d").await, ["file", "folder"]);
    for rule in rules {
        world.emulator.faults().remove(rule);
    }
    world
        .until("there again", async |world| {
            world.paths() == ["/d", "/d/file", "/d/folder", "/first", "/sign"]
        })
        .await;
    world.settled().await;
    assert_eq!(world.remote("/d/file"), b"content");
    assert_eq!(world.names("d").await, ["file", "folder"]);
    assert_eq!(world.read("d/file").await.unwrap(), b"content");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_content_that_landed_in_the_bin_is_placed_again() {
    let world = world_with(&[Fixture::file("/d/f", "old", 1)]).await;
    world
        .emulator
        .faults()
        .add(FaultRule::once("cmd:p", FaultAction::ToRubbish));
    world.write("d/f", b"content").await;
    world.settled().await;
    assert_eq!(world.paths(), ["/d", "/d/f"]);
    assert_eq!(world.remote("/d/f"), b"content");
    assert_eq!(world.names("d").await, ["f"]);
    assert_eq!(world.read("d/f").await.unwrap(), b"content");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_into_a_new_folder_survives_content_put_beside_it() {
    let config = VfsConfig {
        write_back: Duration::from_millis(400),
        ..eager()
    };
    let world = World::with(config, |emulator| {
        let list = [Fixture::file("/d/f", "old", 1)];
        emulator.populate(EMAIL, &list).unwrap();
    })
    .await;
    // The upload is under way when the file is moved into a folder that is not on the server yet.
    world
        .emulator
        .faults()
        .add(FaultRule::once("ul", FaultAction::Slow { ms: 1_000 }));
    world.write("d/f", b"content").await;
    world
        .until("the upload runs", async |world| {
            world.emulator.counters().requests("ul") > 0
        })
        .await;
    world.mkdir("new").await;
    let plain = RenameMode::Replace;
    world.rename("d/f", "new/f", plain).await.unwrap();
    world.settled().await;
    assert_eq!(world.paths(), ["/d", "/new", "/new/f"]);
    assert_eq!(world.remote("/new/f"), b"content");
    world.finish().await;
}
