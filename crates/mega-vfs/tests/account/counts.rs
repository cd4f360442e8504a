//! What changes cost on a slow line: requests are counted while every one takes 100 ms.

use std::time::Duration;

use mega_emulator::Fixture;
use mega_vfs::{RenameMode, VfsConfig};

use crate::support::{EMAIL, ROOT, World, eager};

/// An account as users have it by default, on a line with 100 ms per request.
async fn slow(fixtures: &[Fixture]) -> World {
    let config = VfsConfig {
        write_back: Duration::from_secs(1),
        ..eager()
    };
    let world = World::with(config, |emulator| {
        emulator.populate(EMAIL, fixtures).unwrap();
    })
    .await;
    world.emulator.set(|knobs| knobs.latency_ms = 100);
    world
}

impl World {
    fn requests(&self) -> u64 {
        self.emulator.counters().requests("cs")
    }

    /// The requests that `change` and its way to the server take.
    async fn cost(&self, change: impl AsyncFnOnce(&Self)) -> u64 {
        // The quota is asked for at a start.
        self.until("idle", async |world| {
            world.emulator.counters().commands("uq") > 0
        })
        .await;
        let before = self.requests();
        change(self).await;
        self.settled().await;
        self.requests() - before
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_ten_thousand_files_takes_three_requests() {
    let files: Vec<_> = (0..10_000)
        .map(|n| Fixture::file(&format!("/d/{n}"), "", 1_600_000_000))
        .collect();
    let world = slow(&files).await;
    let cost = world
        .cost(async |world| {
            let parent = world.ino("d").await.unwrap();
            for n in 0..10_000 {
                world
                    .vfs
                    .unlink(parent, n.to_string().as_ref())
                    .await
                    .unwrap();
            }
            world.rmdir("d").await.unwrap();
        })
        .await;
    assert!(cost <= 3, "{cost} requests");
    assert_eq!(world.paths(), Vec::<String>::new());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn making_a_thousand_folders_takes_twenty_requests() {
    let world = slow(&[]).await;
    let cost = world
        .cost(async |world| {
            let make = async |parent: u64, number: u32| {
                let name = number.to_string();
                let made = world.vfs.mkdir(parent, name.as_ref(), 0o755).await;
                made.unwrap().attr.ino
            };
            for a in 0..10 {
                let top = make(ROOT, a).await;
                for b in 0..9 {
                    let middle = make(top, b).await;
                    for c in 0..10 {
                        make(middle, c).await;
                    }
                }
            }
        })
        .await;
    assert!(cost <= 20, "{cost} requests");
    assert_eq!(world.paths().len(), 1_000);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renaming_a_thousand_files_takes_twenty_requests() {
    let files: Vec<_> = (0..1_000)
        .map(|n| Fixture::file(&format!("/{n}"), "", 1_600_000_000))
        .collect();
    let world = slow(&files).await;
    let cost = world
        .cost(async |world| {
            for n in 0..1_000 {
                let (from, to) = (n.to_string(), format!("{n}.new"));
                world.rename(&from, &to, RenameMode::Replace).await.unwrap();
            }
        })
        .await;
    assert!(cost <= 20, "{cost} requests");
    assert!(world.paths().iter().all(|path| path.ends_with(".new")));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_before_it_is_due_costs_nothing() {
    let world = slow(&[]).await;
    let cost = world
        .cost(async |world| {
            for n in 0..1_000 {
                let name = n.to_string();
                world.write(&name, b"x").await;
                world.unlink(&name).await.unwrap();
            }
        })
        .await;
    assert_eq!(cost, 0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_share_requests() {
    let world = slow(&[]).await;
    let cost = world
        .cost(async |world| {
            for n in 0..300 {
                world.write(&format!("{n}"), b"content").await;
            }
        })
        .await;
    // A place to upload to and a node for each: both in batches.
    assert!(cost <= 60, "{cost} requests");
    assert_eq!(world.paths().len(), 300);
    world.finish().await;
}
