//! Content that the account has already is not sent again.

use std::time::Duration;

use mega_emulator::{FaultAction, FaultRule, Fixture, FixtureContent, pattern};
use mega_vfs::{RenameMode, Versions, VfsConfig};

use crate::races::hold_events;
use crate::support::{EMAIL, World, eager};

const SIZE: u64 = 3_000_000;
const OLD: i64 = 1_600_000_000;
/// The server answers that there is no such node.
const GONE: FaultAction = FaultAction::CommandError { code: -9 };

fn file(path: &str, size: u64) -> Fixture {
    Fixture::File {
        path: path.into(),
        content: FixtureContent::Pattern { size, seed: 7 },
        mtime: Some(OLD),
    }
}

async fn world_with(config: VfsConfig, fixtures: &[Fixture]) -> World {
    World::with(config, |emulator| {
        emulator.populate(EMAIL, fixtures).unwrap();
    })
    .await
}

fn content() -> Vec<u8> {
    pattern(7, 0, SIZE)
}

fn sent(world: &World) -> u64 {
    world.emulator.counters().bytes_up
}

fn bytes_moved(world: &World) -> u64 {
    world.emulator.counters().bytes_down + sent(world)
}

/// All nodes of the account, versions and the bin too.
fn node_count(world: &World) -> usize {
    world.emulator.tree(EMAIL).unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_the_account_has_is_not_sent() {
    let world = world_with(
        eager(),
        &[file("/d/source", SIZE), Fixture::file("/old", "old", 1)],
    )
    .await;
    world.write("again", &content()).await;
    world.write("old", &content()).await;
    world.settled().await;
    assert_eq!(bytes_moved(&world), 0);
    assert_eq!(world.paths(), ["/again", "/d", "/d/source", "/old"]);
    for name in ["again", "old"] {
        assert!(world.remote(&format!("/{name}")) == content());
        let node = world.emulator.find(EMAIL, &format!("/{name}")).unwrap();
        assert!(node.mtime.unwrap() > OLD, "it has its own time: {node:?}");
    }
    let world = world.restart(eager()).await;
    for name in ["again", "old", "d/source"] {
        assert!(world.read(name).await.unwrap() == content());
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_written_as_it_was_stays_the_same_node() {
    for versions in [Versions::Keep, Versions::Replace] {
        let config = VfsConfig {
            versions,
            ..eager()
        };
        let world = world_with(config, &[file("/source", SIZE)]).await;
        let before = world.emulator.find(EMAIL, "/source").unwrap();
        let count = node_count(&world);
        world.write("source", &content()).await;
        world.settled().await;
        let after = world.emulator.find(EMAIL, "/source").unwrap();
        assert_eq!((bytes_moved(&world), node_count(&world)), (0, count));
        assert_eq!(after.handle, before.handle);
        assert!(after.mtime.unwrap() > OLD);
        // And goes on to be an ordinary file.
        assert!(world.read("source").await.unwrap() == content());
        world.write("source", b"other").await;
        world.settled().await;
        assert_eq!(world.remote("/source"), b"other");
        let world = world.restart(eager()).await;
        assert_eq!(world.read("source").await.unwrap(), b"other");
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_saved_over_itself_by_rename_keeps_its_content() {
    let world = world_with(
        VfsConfig {
            write_back: Duration::from_millis(300),
            ..eager()
        },
        &[file("/source", SIZE)],
    )
    .await;
    world.write("temporary", &content()).await;
    world
        .rename("temporary", "source", RenameMode::Replace)
        .await
        .unwrap();
    world.settled().await;
    assert_eq!(world.paths(), ["/source"]);
    assert!(world.remote("/source") == content());
    assert!(world.read("source").await.unwrap() == content());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_checksum_is_not_enough() {
    let world = world_with(eager(), &[file("/source", SIZE)]).await;
    let mut other = content();
    // Not among the blocks that the checksum covers.
    other[1000] ^= 1;
    world.write("other", &other).await;
    world.settled().await;
    let crc = |path: &str| {
        let node = world.emulator.find(EMAIL, path).unwrap();
        node.attributes.unwrap()["c"].as_str().unwrap()[..21].to_owned()
    };
    assert_eq!(crc("/other"), crc("/source"));
    assert!(sent(&world) >= SIZE);
    assert!(world.remote("/other") == other);
    assert!(world.remote("/source") == content());
    // In place, too.
    world.write("source", &other).await;
    world.settled().await;
    assert!(world.remote("/source") == other);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_are_just_sent() {
    let size = 100_000;
    let world = world_with(eager(), &[file("/source", size)]).await;
    world.write("again", &pattern(7, 0, size)).await;
    world.settled().await;
    assert_eq!(sent(&world), size);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twin_that_is_gone_by_now_is_uploaded() {
    let world = world_with(eager(), &[file("/source", SIZE)]).await;
    // Nothing is pushed before the channel was up once.
    world.write("warm", b"up").await;
    world.settled().await;
    let rules = hold_events(&world).await;
    let other = world.other().await;
    let source = world.emulator.find(EMAIL, "/source").unwrap();
    other.delete(source.handle.parse().unwrap()).await.unwrap();
    world.write("again", &content()).await;
    world
        .until("it is uploaded", async |world| {
            world.paths().contains(&"/again".to_owned())
        })
        .await;
    assert!(sent(&world) >= SIZE);
    for rule in rules {
        world.emulator.faults().remove(rule);
    }
    world.settled().await;
    assert!(world.remote("/again") == content());
    assert!(world.read("again").await.unwrap() == content());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_twin_is_uploaded() {
    let world = world_with(eager(), &[file("/source", SIZE)]).await;
    world.emulator.faults().add(FaultRule::once("cmd:p", GONE));
    world.write("again", &content()).await;
    world.settled().await;
    assert!(sent(&world) >= SIZE);
    assert!(world.remote("/again") == content());
    // The next one is asked for again.
    world.emulator.reset_counters();
    world.write("third", &content()).await;
    world.settled().await;
    assert_eq!(sent(&world), 0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twin_is_removed_right_away() {
    for hard_delete in [true, false] {
        let config = VfsConfig {
            hard_delete,
            ..eager()
        };
        let world = world_with(config, &[file("/source", SIZE)]).await;
        world.write("again", &content()).await;
        world.unlink("source").await.unwrap();
        world.settled().await;
        assert_eq!(world.paths(), ["/again"]);
        assert!(world.remote("/again") == content());
        assert!(world.read("again").await.unwrap() == content());
        world.finish().await;
    }
}

/// Ends the client between a put and its answer. The next one learns of the node from an event, or from the
/// whole tree.
async fn unanswered(path: &str, nodes: &[&str], fetch_tree: bool) {
    let fixtures = [file("/source", SIZE), Fixture::file("/old", "old", 1)];
    let world = world_with(eager(), &fixtures).await;
    let count = node_count(&world);
    world
        .emulator
        .faults()
        .add(FaultRule::once("cmd:p", FaultAction::Slow { ms: 30_000 }));
    world.write(path, &content()).await;
    world
        .until("the copy is made", async |world| node_count(world) > count)
        .await;
    if fetch_tree {
        world.emulator.forget_events(EMAIL);
    }
    let world = world.restart(eager()).await;
    world.settled().await;
    assert_eq!(sent(&world), 0);
    assert_eq!(world.paths(), nodes);
    assert_eq!(node_count(&world), count + 1);
    assert!(world.remote(&format!("/{path}")) == content());
    assert!(world.read(path).await.unwrap() == content());
    let world = world.restart(eager()).await;
    assert!(world.read(path).await.unwrap() == content());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unanswered_twin_is_made_once() {
    unanswered("old", &["/old", "/source"], false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unanswered_twin_is_found_in_a_fetched_tree() {
    unanswered("again", &["/again", "/old", "/source"], true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twin_whose_put_was_never_executed_starts_over() {
    let world = world_with(eager(), &[file("/source", SIZE)]).await;
    let held = world
        .emulator
        .faults()
        .add(FaultRule::once("cmd:p", FaultAction::Reset).times(u64::MAX));
    world.write("again", &content()).await;
    world
        .until("a put is tried", async |world| {
            world.emulator.faults().fired(held) > 0
        })
        .await;
    let world = world.restart(eager()).await;
    assert!(world.read("again").await.unwrap() == content());
    world.emulator.faults().remove(held);
    world.settled().await;
    assert_eq!(sent(&world), 0);
    assert_eq!(world.paths(), ["/again", "/source"]);
    assert!(world.remote("/again") == content());
    world.finish().await;
}
