//! Requests that a slow server executes after the process which sent them has been killed, and the next one
//! has gone on.

use std::time::Duration;

use mega_vfs::{SetAttr, Timestamp};

use crate::support::{World, eager};

/// Lets the request of the earlier run go on, once all that this run has to do is done.
async fn release(world: &World, rule: u64) {
    world.settled().await;
    world.emulator.faults().remove(rule);
    world
        .until("the late request is answered", async |world| {
            world.emulator.counters().replayed > 0
        })
        .await;
}

async fn set_mtime(world: &World, path: &str, secs: i64) {
    let ino = world.ino(path).await.unwrap();
    let wanted = SetAttr {
        mtime: Some(Timestamp::from_secs(secs)),
        ..SetAttr::default()
    };
    world.vfs.setattr(ino, wanted).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_time_does_not_come_back() {
    let world = World::new().await;
    world.write("file", b"x").await;
    world.settled().await;
    let late = world.hold_once("cmd:a");
    set_mtime(&world, "file", 1_000_000).await;
    world.until_fired(late).await;
    set_mtime(&world, "file", 2_000_000).await;
    let world = world.restart(eager()).await;
    release(&world, late).await;
    let ino = world.ino("file").await.unwrap();
    let entry = world.vfs.getattr(ino).await.unwrap();
    assert_eq!(entry.attr.mtime.secs, 2_000_000);
    let mtime = world.nodes()[0].mtime;
    assert_eq!(mtime, Some(2_000_000));
    world.finish_late().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_name_does_not_come_back() {
    let world = World::new().await;
    world.write("first", b"x").await;
    world.settled().await;
    let late = world.hold_once("cmd:a");
    let replace = mega_vfs::RenameMode::Replace;
    world.rename("first", "second", replace).await.unwrap();
    world.until_fired(late).await;
    world.rename("second", "third", replace).await.unwrap();
    let world = world.restart(eager()).await;
    release(&world, late).await;
    assert_eq!(world.paths(), ["/third"]);
    assert_eq!(world.names("").await, ["third"]);
    world.finish_late().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_was_replaced_does_not_come_back() {
    let world = World::new().await;
    world.write("file", b"first").await;
    world.settled().await;
    let late = world.hold_once("cmd:p");
    world.write("file", b"second").await;
    world.until_fired(late).await;
    world.write("file", b"third").await;
    let world = world.restart(eager()).await;
    release(&world, late).await;
    assert_eq!(world.remote("/file"), b"third");
    assert_eq!(world.read("file").await.unwrap(), b"third");
    world.finish_late().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_removed_does_not_come_back() {
    let world = World::new().await;
    world.mkdir("d").await;
    world.settled().await;
    let late = world.hold_once("cmd:p");
    world.write("d/file", b"x").await;
    world.until_fired(late).await;
    world.unlink("d/file").await.unwrap();
    world.rmdir("d").await.unwrap();
    let world = world.restart(eager()).await;
    release(&world, late).await;
    assert_eq!(world.paths(), [""; 0]);
    assert_eq!(world.names("").await, [""; 0]);
    world.finish_late().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_answered_is_not_repeated_after_a_clean_end() {
    let world = World::new().await;
    world.write("file", b"x").await;
    world.settled().await;
    let world = world.restart(eager()).await;
    world.mkdir("d").await;
    world.settled().await;
    assert_eq!(world.emulator.counters().replayed, 0);
    assert!(world.vfs.shutdown(Duration::ZERO).await.changes == 0);
    world.finish().await;
}

/// An upload that is confirmed between a listing and the open of what was listed.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_was_listed_stays_the_file() {
    let world = World::new().await;
    world.write("file", b"first").await;
    world.settled().await;
    let world = world.restart(eager()).await;
    let late = world.hold_once("cmd:p");
    world.write("file", b"second").await;
    // The kernel knows nothing of it.
    let ino = world.ino("file").await.unwrap();
    world.vfs.forget(ino, 1_000);
    world.until_fired(late).await;
    let root = crate::support::ROOT;
    let fh = world.vfs.opendir(root).await.unwrap().fh;
    let listed = world.vfs.readdirplus(root, fh, 0, 32).await.unwrap();
    let ino = listed.last().unwrap().ino;
    world.emulator.faults().remove(late);
    world.settled().await;
    let entry = world.vfs.getattr(ino).await.unwrap();
    assert_eq!(entry.attr.size, 6);
    world.vfs.releasedir(fh).await.unwrap();
    world.finish().await;
}
