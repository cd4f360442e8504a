//! Names: made, moved, replaced, removed; the server agrees in the end, without a moment of loss.

use std::time::Duration;

use mega_emulator::{FaultAction, FaultRule, Fixture};
use mega_vfs::{RenameMode, VfsConfig};
use rustix::io::Errno;

use crate::support::{EMAIL, World, eager};

#[tokio::test(flavor = "multi_thread")]
async fn trees_are_made_moved_and_removed() {
    let world = World::new().await;
    world.mkdir("a").await;
    world.mkdir("a/b").await;
    world.mkdir("a/b/c").await;
    world.write("a/b/c/file", b"x").await;
    world.settled().await;
    assert_eq!(world.paths(), ["/a", "/a/b", "/a/b/c", "/a/b/c/file"]);
    world
        .rename("a/b", "moved", RenameMode::Replace)
        .await
        .unwrap();
    world.settled().await;
    assert_eq!(world.paths(), ["/a", "/moved", "/moved/c", "/moved/c/file"]);
    assert_eq!(world.rmdir("moved/c").await, Err(Errno::NOTEMPTY));
    world.unlink("moved/c/file").await.unwrap();
    world.rmdir("moved/c").await.unwrap();
    world.rmdir("moved").await.unwrap();
    world.settled().await;
    assert_eq!(world.paths(), ["/a"]);
    assert_eq!(world.names("").await, ["a"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_a_tree_is_one_move_of_its_top() {
    let world = World::with(
        VfsConfig {
            write_back: Duration::from_millis(300),
            ..eager()
        },
        |emulator| {
            let list: Vec<_> = (0..50)
                .map(|number| Fixture::file(&format!("/top/sub/f{number}"), "x", 1))
                .collect();
            emulator.populate(EMAIL, &list).unwrap();
        },
    )
    .await;
    for number in 0..50 {
        world.unlink(&format!("top/sub/f{number}")).await.unwrap();
    }
    world.rmdir("top/sub").await.unwrap();
    world.rmdir("top").await.unwrap();
    world.settled().await;
    assert_eq!(world.paths(), Vec::<String>::new());
    assert_eq!(world.emulator.counters().commands("m"), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn saving_through_a_temporary_file_is_one_new_version() {
    let world = World::with(
        VfsConfig {
            write_back: Duration::from_millis(200),
            ..eager()
        },
        |emulator| {
            emulator
                .populate(EMAIL, &[Fixture::file("/doc", "old", 1)])
                .unwrap();
        },
    )
    .await;
    world.write("doc.tmp", b"new").await;
    world
        .rename("doc.tmp", "doc", RenameMode::Replace)
        .await
        .unwrap();
    assert_eq!(world.read("doc").await.unwrap(), b"new");
    world.settled().await;
    assert_eq!(world.paths(), ["/doc"]);
    assert_eq!(world.remote("/doc"), b"new");
    let all = world.emulator.tree(EMAIL).unwrap();
    assert_eq!(
        all.iter().filter(|node| node.version_of.is_some()).count(),
        1
    );
    assert_eq!(
        all.iter()
            .filter(|node| node.in_bin && !node.folder)
            .count(),
        0
    );
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renaming_over_moves_the_old_file_to_the_bin() {
    let world = World::with(eager(), |emulator| {
        let list = [
            Fixture::file("/from", "mover", 1),
            Fixture::file("/to", "replaced", 1),
        ];
        emulator.populate(EMAIL, &list).unwrap();
    })
    .await;
    assert_eq!(
        world.rename("from", "to", RenameMode::NoReplace).await,
        Err(Errno::EXIST)
    );
    world
        .rename("from", "to", RenameMode::Replace)
        .await
        .unwrap();
    assert_eq!(world.names("").await, ["to"]);
    world.settled().await;
    assert_eq!(world.remote("/to"), b"mover");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exchange_swaps() {
    let world = World::with(eager(), |emulator| {
        let list = [
            Fixture::file("/d/one", "1", 1),
            Fixture::file("/two", "2", 1),
        ];
        emulator.populate(EMAIL, &list).unwrap();
    })
    .await;
    world
        .rename("d/one", "two", RenameMode::Exchange)
        .await
        .unwrap();
    assert_eq!(world.read("d/one").await.unwrap(), b"2");
    assert_eq!(world.read("two").await.unwrap(), b"1");
    world.settled().await;
    assert_eq!(world.remote("/d/one"), b"2");
    assert_eq!(world.remote("/two"), b"1");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_are_shown_under_stable_suffixes() {
    let world = World::with(eager(), |emulator| {
        let list: Vec<_> = ["first", "second", "third"]
            .map(|text| Fixture::file("/a.txt", text, 1))
            .into();
        emulator.populate(EMAIL, &list).unwrap();
        emulator
            .populate(EMAIL, &[Fixture::file("/a (1).txt", "real", 1)])
            .unwrap();
    })
    .await;
    let expected = ["a (1).txt", "a (2).txt", "a (3).txt", "a.txt"];
    assert_eq!(world.names("").await, expected);
    assert_eq!(world.read("a.txt").await.unwrap(), b"first");
    assert_eq!(world.read("a (1).txt").await.unwrap(), b"real");
    let second = world.read("a (2).txt").await.unwrap();
    world.unlink("a.txt").await.unwrap();
    world.settled().await;
    let world = world.restart(eager()).await;
    assert_eq!(world.names("").await, expected[..3]);
    assert_eq!(world.read("a (2).txt").await.unwrap(), second);
    // A suffixed spelling is replaced by content of the same stored name.
    world.write("new", b"over").await;
    world
        .rename("new", "a (2).txt", RenameMode::Replace)
        .await
        .unwrap();
    world.settled().await;
    assert_eq!(world.names("").await, expected[..3]);
    let named: Vec<_> = world.paths();
    assert_eq!(
        named.iter().filter(|path| *path == "/a.txt").count(),
        2,
        "{named:?}"
    );
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn made_and_removed_in_time_costs_nothing() {
    let world = World::with(
        VfsConfig {
            write_back: Duration::from_secs(30),
            ..eager()
        },
        |_| {},
    )
    .await;
    world.emulator.reset_counters();
    for number in 0..100 {
        world.write(&format!("f{number}"), b"short-lived").await;
        world.unlink(&format!("f{number}")).await.unwrap();
    }
    let counters = world.emulator.counters();
    assert_eq!((counters.commands("u"), counters.commands("p")), (0, 0));
    world.finish().await;
}

/// The put was on its way under the old name when the file was renamed over another one: that one goes
/// only after the new name is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_rename_over_during_a_put_never_leaves_the_name_without_a_file() {
    let world = World::with(eager(), |emulator| {
        emulator
            .populate(EMAIL, &[Fixture::file("/doc", "old", 1)])
            .unwrap();
    })
    .await;
    world
        .emulator
        .faults()
        .add(FaultRule::once("cmd:p", FaultAction::Slow { ms: 500 }));
    // The new name takes a while, too: whatever overtakes it shows.
    world.emulator.faults().add(FaultRule::once(
        "cmd:a",
        FaultAction::CommandError { code: -3 },
    ));
    world.write("tmp", b"new").await;
    world
        .until("the put is there", async |world| world.paths().len() == 2)
        .await;
    world
        .rename("tmp", "doc", RenameMode::Replace)
        .await
        .unwrap();
    world
        .until("it is renamed", async |world| {
            let paths = world.paths();
            assert!(paths.contains(&"/doc".to_owned()), "{paths:?}");
            paths == ["/doc"] && world.remote("/doc") == b"new"
        })
        .await;
    world.settled().await;
    world.finish().await;
}

/// The packet of a moved folder brings all that is in it, as it was then. What we did to those since is
/// told by packets of its own, and must not be undone in between.
#[tokio::test(flavor = "multi_thread")]
async fn moves_inside_of_a_moved_folder_stay() {
    let config = VfsConfig {
        write_back: Duration::from_millis(300),
        ..eager()
    };
    let world = World::with(config, |emulator| {
        let list = [
            Fixture::folder("/x"),
            Fixture::folder("/a"),
            Fixture::folder("/a/b"),
            Fixture::file("/a/b/f", "text", 1),
        ];
        emulator.populate(EMAIL, &list).unwrap();
    })
    .await;
    for (from, to) in [("a", "x/a"), ("x/a/b", "b"), ("b/f", "b/g")] {
        world.rename(from, to, RenameMode::Replace).await.unwrap();
    }
    world.settled().await;
    assert_eq!(world.paths(), ["/b", "/b/g", "/x", "/x/a"]);
    // Whatever comes before this sign has been applied when it is seen.
    let sign = Fixture::folder("/sign");
    world.emulator.populate(EMAIL, &[sign]).unwrap();
    world
        .until("the sign is seen", async |world| {
            world.names("").await == ["b", "sign", "x"]
        })
        .await;
    assert_eq!(world.names("b").await, ["g"]);
    world.finish().await;
}
