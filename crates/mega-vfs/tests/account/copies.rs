//! Copies inside the mount: the server makes them, and no byte moves.

use std::ffi::OsStr;
use std::time::Duration;

use mega_emulator::{FaultAction, FaultRule, Fixture, FixtureContent, pattern};
use mega_vfs::{CopyRange, OpenMode, VfsConfig, WriteAt};
use rustix::io::Errno;

use crate::support::{EMAIL, ROOT, World, eager};

const SIZE: u64 = 3_000_000;

fn source() -> Fixture {
    Fixture::File {
        path: "/source".into(),
        content: FixtureContent::Pattern {
            size: SIZE,
            seed: 7,
        },
        mtime: Some(1_600_000_000),
    }
}

async fn world_with(config: VfsConfig, fixtures: &[Fixture]) -> World {
    World::with(config, |emulator| {
        emulator.populate(EMAIL, fixtures).unwrap();
    })
    .await
}

fn slow() -> VfsConfig {
    VfsConfig {
        write_back: Duration::from_secs(60),
        ..eager()
    }
}

const READ: OpenMode = OpenMode {
    read: true,
    write: false,
    truncate: false,
    exclusive: false,
};
const WRITE: OpenMode = OpenMode {
    read: false,
    write: true,
    truncate: true,
    ..READ
};

/// What `cp` does: requests of `piece` bytes until there is no more, or until `most` are copied.
/// Returns the target's inode and handle, still open.
pub(crate) async fn copy(world: &World, from: &str, to: &str, piece: u64, most: u64) -> (u64, u64) {
    let from = world.ino(from).await.unwrap();
    let fh_in = world.vfs.open(from, READ).await.unwrap().fh;
    let (ino, fh_out) = match world.ino(to).await {
        Ok(ino) => (ino, world.vfs.open(ino, WRITE).await.unwrap().fh),
        Err(_) => {
            let made = world.vfs.create(ROOT, OsStr::new(to), 0o644, WRITE).await;
            let (entry, opened) = made.unwrap();
            (entry.attr.ino, opened.fh)
        }
    };
    let mut done = 0;
    while done < most {
        let range = CopyRange {
            fh_in,
            offset_in: done,
            fh_out,
            offset_out: done,
            length: piece.min(most - done),
        };
        match world.vfs.copy_file_range(range).await.unwrap() {
            0 => break,
            copied => done += copied,
        }
    }
    world.vfs.release(from, fh_in).await.unwrap();
    (ino, fh_out)
}

pub(crate) async fn close(world: &World, (ino, fh): (u64, u64)) {
    world.vfs.flush(ino, fh).await.unwrap();
    world.vfs.release(ino, fh).await.unwrap();
}

fn bytes_moved(world: &World) -> u64 {
    let counters = world.emulator.counters();
    counters.bytes_up + counters.bytes_down
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_clean_file_moves_no_bytes() {
    let world = world_with(eager(), &[source(), Fixture::file("/old", "old", 1)]).await;
    for (name, piece) in [("copy", u64::MAX), ("pieces", 1 << 20), ("old", u64::MAX)] {
        let target = copy(&world, "source", name, piece, u64::MAX).await;
        close(&world, target).await;
    }
    world.settled().await;
    assert_eq!(bytes_moved(&world), 0);
    assert_eq!(world.paths(), ["/copy", "/old", "/pieces", "/source"]);
    for name in ["copy", "pieces", "old"] {
        assert!(world.remote(&format!("/{name}")) == pattern(7, 0, SIZE));
        assert!(world.read(name).await.unwrap() == pattern(7, 0, SIZE));
    }
    // The old content is a version.
    let tree = world.emulator.tree(EMAIL).unwrap();
    assert_eq!(
        tree.iter().filter(|node| node.version_of.is_some()).count(),
        1
    );
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_part_is_uploaded() {
    let world = world_with(eager(), &[source()]).await;
    let target = copy(&world, "source", "part", 1 << 20, SIZE / 2).await;
    close(&world, target).await;
    world.settled().await;
    assert!(world.remote("/part") == pattern(7, 0, SIZE / 2));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_over_a_copy_is_kept() {
    let world = world_with(eager(), &[source()]).await;
    let (ino, fh) = copy(&world, "source", "longer", u64::MAX, u64::MAX).await;
    let (tail, head) = (WriteAt::Offset(SIZE), WriteAt::Offset(10));
    world.vfs.write(ino, fh, tail, b"tail").await.unwrap();
    world.vfs.write(ino, fh, head, b"head").await.unwrap();
    close(&world, (ino, fh)).await;
    world.settled().await;
    let mut expected = pattern(7, 0, SIZE);
    expected.extend_from_slice(b"tail");
    expected[10..14].copy_from_slice(b"head");
    assert!(world.remote("/longer") == expected);
    assert!(world.read("longer").await.unwrap() == expected);
    assert!(world.remote("/source") == pattern(7, 0, SIZE));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_source_stays_until_its_copies_are_made() {
    for hard_delete in [true, false] {
        let config = VfsConfig {
            hard_delete,
            write_back: Duration::from_millis(300),
            ..eager()
        };
        let world = world_with(config, &[source()]).await;
        let target = copy(&world, "source", "copy", u64::MAX, u64::MAX).await;
        close(&world, target).await;
        world.unlink("source").await.unwrap();
        world.settled().await;
        assert_eq!(bytes_moved(&world), 0);
        assert_eq!(world.paths(), ["/copy"]);
        assert!(world.read("copy").await.unwrap() == pattern(7, 0, SIZE));
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_survives_a_restart() {
    let world = world_with(slow(), &[source()]).await;
    let target = copy(&world, "source", "copy", u64::MAX, u64::MAX).await;
    close(&world, target).await;
    let world = world.restart(eager()).await;
    assert!(world.read("copy").await.unwrap() == pattern(7, 0, SIZE));
    world.settled().await;
    assert_eq!(world.emulator.counters().bytes_up, 0);
    assert!(world.remote("/copy") == pattern(7, 0, SIZE));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unanswered_copy_is_made_once() {
    let world = world_with(eager(), &[source()]).await;
    world
        .emulator
        .faults()
        .add(FaultRule::once("cmd:p", FaultAction::Slow { ms: 30_000 }));
    let target = copy(&world, "source", "copy", u64::MAX, u64::MAX).await;
    close(&world, target).await;
    world
        .until("the copy is made", async |world| world.paths().len() == 2)
        .await;
    let world = world.restart(eager()).await;
    world.settled().await;
    assert_eq!(world.paths(), ["/copy", "/source"]);
    assert_eq!(world.names("").await, ["copy", "source"]);
    assert!(world.read("copy").await.unwrap() == pattern(7, 0, SIZE));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_the_server_refuses_is_uploaded() {
    let world = world_with(eager(), &[source()]).await;
    world.emulator.faults().add(FaultRule::once(
        "cmd:p",
        FaultAction::CommandError { code: -9 },
    ));
    let target = copy(&world, "source", "copy", u64::MAX, u64::MAX).await;
    close(&world, target).await;
    world.settled().await;
    assert!(world.remote("/copy") == pattern(7, 0, SIZE));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_cannot_copy_is_left_to_the_tool() {
    let world = world_with(slow(), &[source()]).await;
    world.write("dirty", b"bytes").await;
    let from = world.ino("dirty").await.unwrap();
    let fh_in = world.vfs.open(from, READ).await.unwrap().fh;
    let made = world.vfs.create(ROOT, OsStr::new("to"), 0o644, WRITE).await;
    let (_, opened) = made.unwrap();
    let range = |fh_in, offset_in, offset_out| CopyRange {
        fh_in,
        offset_in,
        fh_out: opened.fh,
        offset_out,
        length: 10,
    };
    let refused = Err(Errno::OPNOTSUPP);
    assert_eq!(world.vfs.copy_file_range(range(fh_in, 0, 0)).await, refused);
    let clean = world.ino("source").await.unwrap();
    let fh_in = world.vfs.open(clean, READ).await.unwrap().fh;
    assert_eq!(world.vfs.copy_file_range(range(fh_in, 5, 0)).await, refused);
    assert_eq!(world.vfs.copy_file_range(range(fh_in, 5, 5)).await, refused);
    world.finish().await;
}
