//! What storage servers do wrong on downloads (protocol/06 section 8.5), and that readers do not notice.

use std::time::{Duration, Instant};

use mega_emulator::{FaultAction, pattern};
use mega_transfer::{TransferError, TransferLimits};

use crate::support::{MIB, World, limits, read_all, read_at};

fn status(code: u16) -> FaultAction {
    FaultAction::Status {
        code,
        headers: Vec::new(),
        text: String::new(),
    }
}

/// Reads a large and a small file while the first requests for each fail.
async fn survives(action: FaultAction) -> World {
    let world = World::new().await;
    for (seed, size) in [(1, 3 * MIB + 5), (2, 300_000)] {
        let file = world.file(size, seed).await;
        world.fault("dl", action.clone());
        assert!(
            read_all(&file).await.unwrap() == pattern(seed, 0, size),
            "{action:?}"
        );
    }
    assert_eq!(
        world
            .emulator
            .faults()
            .rules()
            .iter()
            .map(|rule| rule.fired)
            .sum::<u64>(),
        2
    );
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn short_and_broken_bodies_are_completed() {
    for bytes in [0, 1, 100_000] {
        survives(FaultAction::Shorten { bytes })
            .await
            .finish()
            .await;
        survives(FaultAction::Truncate { bytes })
            .await
            .finish()
            .await;
    }
    survives(FaultAction::ExtraByte).await.finish().await;
    survives(FaultAction::Reset).await.finish().await;
    survives(FaultAction::Lost).await.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_servers_are_asked_again() {
    for code in [429, 500, 502, 503] {
        let world = survives(status(code)).await;
        assert_eq!(world.urls(), 1, "{code}: the URL is still good");
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_keeps_failing_is_replaced() {
    let world = World::new().await;
    let file = world.file(MIB, 3).await;
    for _ in 0..3 {
        world.fault("dl", status(500));
    }
    assert!(read_all(&file).await.unwrap() == pattern(3, 0, MIB));
    assert_eq!(world.urls(), 2);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_urls_are_replaced_at_once() {
    for code in [403, 404] {
        let world = survives(status(code)).await;
        assert_eq!(world.urls(), 2);
        world.finish().await;
    }
    let world = World::new().await;
    let file = world.file(20 * MIB, 8).await;
    read_at(&file, 0, 10).await.unwrap();
    world.emulator.expire_urls();
    assert!(read_all(&file).await.unwrap() == pattern(8, 0, 20 * MIB));
    assert_eq!(world.urls(), 2);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn urls_that_expire_for_ever_end_the_read() {
    let world = World::new().await;
    let file = world.file(MIB, 8).await;
    world.always("dl", status(403));
    assert!(matches!(
        read_at(&file, 0, 10).await,
        Err(TransferError::Expired)
    ));
    world.emulator.faults().clear();
    assert_eq!(read_at(&file, 0, 10).await.unwrap(), pattern(8, 0, 10));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_connection_is_replaced() {
    let hasty = TransferLimits {
        stall: Duration::from_millis(400),
        ..limits()
    };
    let world = World::with(hasty, mega_store::StoreOptions::default()).await;
    let file = world.file(2 * MIB, 4).await;
    world.fault(
        "dl",
        FaultAction::Stall {
            after: 50_000,
            ms: 60_000,
        },
    );
    let begun = Instant::now();
    assert!(read_all(&file).await.unwrap() == pattern(4, 0, 2 * MIB));
    assert!(begun.elapsed() < Duration::from_secs(15));
    // What came before the stall was not asked for again, but for one unit's worth on slow days.
    assert!(world.bytes_down() <= 3 * MIB, "{}", world.bytes_down());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crawling_connection_is_replaced() {
    let hasty = TransferLimits {
        stall: Duration::from_millis(200),
        ..limits()
    };
    let world = World::with(hasty, mega_store::StoreOptions::default()).await;
    let size = 4 * MIB;
    let file = world.file(size, 4).await;
    // Never silent, but the whole file would take a day.
    let crawl = world.fault("dl", FaultAction::Trickle { rate: 100 });
    assert!(read_all(&file).await.unwrap() == pattern(4, 0, size));
    assert!(world.bytes_down() <= size + MIB, "{}", world.bytes_down());
    assert_eq!(world.emulator.faults().fired(crawl), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_are_replaced() {
    let world = World::new().await;
    let file = world.file(4 * MIB, 4).await;
    read_at(&file, 0, 10).await.unwrap();
    world.emulator.cut_connections();
    assert!(read_all(&file).await.unwrap() == pattern(4, 0, 4 * MIB));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_ends_at_its_deadline() {
    let impatient = TransferLimits {
        timeout: Duration::from_millis(300),
        stall: Duration::from_secs(20),
        ..limits()
    };
    let world = World::with(impatient, mega_store::StoreOptions::default()).await;
    let file = world.file(4 * MIB, 4).await;
    world.always("dl", FaultAction::Slow { ms: 60_000 });
    let begun = Instant::now();
    assert!(matches!(
        read_at(&file, 0, 10).await,
        Err(TransferError::Timeout)
    ));
    assert!(begun.elapsed() < Duration::from_secs(5));
    let counters = world.emulator.counters();
    assert_eq!(counters.violation_count, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_node_is_gone() {
    let world = World::new().await;
    let file = world.file(4 * MIB, 4).await;
    world.api.delete(file.handle()).await.unwrap();
    assert!(matches!(
        read_at(&file, 0, 10).await,
        Err(TransferError::Gone)
    ));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_node_is_refused() {
    let world = World::new().await;
    let file = world.file(4 * MIB, 4).await;
    world.always("cmd:g", FaultAction::CommandError { code: -16 });
    let refused = read_at(&file, 0, 10).await;
    assert!(
        matches!(refused, Err(TransferError::Refused)),
        "{refused:?}"
    );
    world.finish().await;
}
