//! Streaming the tree.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mega_api::ApiError;
use mega_emulator::{FaultAction, FaultRule, Fixture};
use mega_proto::{NodeKind, TreeItem};

use crate::support::{EMAIL, World};

fn nodes(items: &[TreeItem]) -> usize {
    items
        .iter()
        .filter(|item| matches!(item, TreeItem::Node(_)))
        .count()
}

#[tokio::test]
async fn everything_is_there() {
    let world = World::logged_in().await;
    let fixtures = [
        Fixture::folder("/d"),
        Fixture::file("/d/f.txt", *b"one", 7),
        Fixture::Overwrite {
            path: "/d/f.txt".into(),
            content: mega_emulator::FixtureContent::Text("two".into()),
            mtime: None,
        },
        Fixture::file("/\u{fc}.txt", *b"x", 8),
    ];
    world.emulator.populate(EMAIL, &fixtures).unwrap();
    let (items, end) = world.tree().await;
    assert_eq!(nodes(&items), 3 + 4);
    assert_eq!((end.nodes, end.skipped), (7, 0));
    assert_eq!(end.sn.unwrap().as_str().len(), 11);
    let roots = items
        .iter()
        .filter(|item| matches!(item, TreeItem::Node(n) if n.kind.is_root()));
    assert_eq!(roots.count(), 3);
    let file = items.iter().find_map(|item| match item {
        TreeItem::Node(node) if node.kind == NodeKind::File && node.size == 3 => Some(node),
        _ => None,
    });
    assert!(file.unwrap().key.as_deref().unwrap().contains(':'));
    assert!(
        items
            .iter()
            .any(|item| matches!(item, TreeItem::User(u) if u.email.is_some()))
    );
    world.no_violations();
}

#[tokio::test]
async fn errors_at_the_start_are_retried() {
    let world = World::logged_in().await;
    for text in ["[-3]", "", "{\"err\":-4}", "<html>"] {
        world.emulator.faults().add(FaultRule::once(
            "cmd:f",
            FaultAction::Body { text: text.into() },
        ));
    }
    let (items, _) = world.tree().await;
    assert_eq!(nodes(&items), 3);
    assert_eq!(world.emulator.counters().faults, 4);
}

#[tokio::test]
async fn a_broken_stream_is_no_tree() {
    let world = World::logged_in().await;
    world
        .emulator
        .populate(EMAIL, &[Fixture::folder("/a"), Fixture::folder("/b")])
        .unwrap();
    for fault in [
        FaultAction::Truncate { bytes: 700 },
        FaultAction::Shorten { bytes: 700 },
    ] {
        world.emulator.faults().add(FaultRule::once("cmd:f", fault));
        let error = world.api.fetch_tree(|_| Ok(())).await.unwrap_err();
        assert!(
            matches!(error, ApiError::Network(_) | ApiError::BadReply(_)),
            "{error}"
        );
    }
    let error = world
        .api
        .fetch_tree(|_| Err("full".into()))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ApiError::Sink(e) if e.to_string() == "full"),
        "{error}"
    );
    // The client is as good as before.
    assert_eq!(nodes(&world.tree().await.0), 5);
}

#[tokio::test]
async fn a_large_tree_streams() {
    let world = World::logged_in().await;
    let many = Fixture::Generated {
        parent: "/".into(),
        folders: 100,
        fanout: 10,
        files_per_folder: 1000,
        max_size: 1000,
    };
    world.emulator.populate(EMAIL, &[many]).unwrap();
    let count = Arc::new(AtomicU64::new(0));
    let sink = {
        let count = Arc::clone(&count);
        move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    };
    let started = std::time::Instant::now();
    let end = world.api.fetch_tree(sink).await.unwrap();
    assert!(end.nodes >= 100_000 && end.skipped == 0, "{end:?}");
    assert!(count.load(Ordering::Relaxed) >= end.nodes);
    println!("{} nodes in {:?}", end.nodes, started.elapsed());
}
