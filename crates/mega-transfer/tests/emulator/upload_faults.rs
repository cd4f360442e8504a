//! What storage servers do wrong on uploads (protocol/06 section 8.6).

use std::sync::Arc;
use std::time::{Duration, Instant};

use mega_emulator::{FaultAction, FaultRule, pattern};
use mega_transfer::{Retry, TransferError, UploadProgress};

use crate::support::{MIB, World};

fn body(text: &str) -> FaultAction {
    FaultAction::Body {
        text: text.to_owned(),
    }
}

fn status(code: u16) -> FaultAction {
    FaultAction::Status {
        code,
        headers: Vec::new(),
        text: String::new(),
    }
}

/// Uploads with one fault at the piece number `skip`; the content arrives whole. Answers how often
/// the upload was begun again.
async fn restarts_after(world: &World, size: u64, skip: u64, action: FaultAction) -> u32 {
    world.emulator.reset_counters();
    let rule = world
        .emulator
        .faults()
        .add(FaultRule::once("ul", action.clone()).after(skip));
    let data: Arc<[u8]> = pattern(size, 0, size).into();
    let progress = Arc::new(UploadProgress::new());
    let uploaded = world
        .upload_with(Arc::clone(&data), &progress)
        .await
        .unwrap();
    assert_eq!(world.emulator.faults().fired(rule), 1, "{action:?}");
    let source = world.place(uploaded, "x").await;
    assert!(
        world.emulator.content(&source.handle.to_string()).unwrap() == data[..],
        "{action:?}"
    );
    let counters = world.emulator.counters();
    assert_eq!(counters.commands("u"), u64::from(progress.restarts()) + 1);
    assert_eq!(
        counters.violation_count, 0,
        "{action:?}: {:?}",
        counters.violations
    );
    progress.restarts()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_is_posted_again() {
    let world = World::new().await;
    for action in [
        body("-3"),
        body("-18"),
        body("-14"),
        body("<html>"),
        status(500),
        status(503),
        status(429),
        FaultAction::Reset,
        // Stored, but the answer is lost.
        FaultAction::Lost,
        FaultAction::Truncate { bytes: 0 },
    ] {
        assert_eq!(
            restarts_after(&world, 6 * MIB, 1, action.clone()).await,
            0,
            "{action:?}"
        );
        assert_eq!(
            restarts_after(&world, 10, 0, action.clone()).await,
            0,
            "{action:?}"
        );
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_file_survives_a_lost_answer() {
    let world = World::new().await;
    assert_eq!(restarts_after(&world, 0, 0, FaultAction::Lost).await, 0);
    assert_eq!(restarts_after(&world, 0, 0, status(500)).await, 0);
    assert_eq!(restarts_after(&world, 0, 0, body("-9")).await, 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_upload_begins_again_with_a_new_key() {
    let world = World::new().await;
    for action in [
        body("-4"),
        body("-5"),
        body("-8"),
        body("-9"),
        body("-20"),
        body("-7"),
        status(403),
        status(404),
    ] {
        assert_eq!(
            restarts_after(&world, 6 * MIB, 2, action.clone()).await,
            1,
            "{action:?}"
        );
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_token_begins_again() {
    let world = World::new().await;
    // Executed, but the completing piece is answered as if it were not the last.
    let lost = FaultAction::Reply {
        text: "0".to_owned(),
    };
    assert_eq!(restarts_after(&world, 1000, 0, lost).await, 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_token_is_not_believed() {
    let world = World::new().await;
    // The emulator does not count the piece it answers so, hence the upload cannot be completed.
    assert!(restarts_after(&world, 30 * MIB, 1, FaultAction::TokenEarly).await <= 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_lost_again_and_again_fails() {
    let world = World::new().await;
    world.always("ul", body("-4"));
    let progress = Arc::new(UploadProgress::new());
    let ended = world
        .upload_with(pattern(1, 0, 100).into(), &progress)
        .await;
    assert!(matches!(ended, Err(TransferError::UploadLost)));
    assert!(progress.restarts() >= 2);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_that_are_out_of_range_again_are_our_own_fault() {
    let world = World::new().await;
    world.always("ul", body("-7"));
    let progress = Arc::new(UploadProgress::new());
    let ended = world
        .upload_with(pattern(1, 0, 100).into(), &progress)
        .await;
    let Err(error) = ended else {
        panic!("uploaded although every piece was refused");
    };
    assert_eq!(error.retry(), Retry::Never, "{error}");
    assert_eq!(progress.restarts(), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_account_is_said_at_once() {
    for (at, action) in [
        ("cmd:u", FaultAction::CommandError { code: -17 }),
        ("cmd:u", FaultAction::CommandError { code: -24 }),
        ("ul", body("-17")),
    ] {
        let world = World::new().await;
        world.always(at, action);
        let ended = world.upload(pattern(1, 0, 100).into()).await;
        assert!(
            matches!(ended, Err(TransferError::StorageQuota)),
            "{ended:?}"
        );
        assert_eq!(world.emulator.counters().commands("u"), 1);
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_storage_server_ends_the_upload_after_its_patience() {
    let mut limits = crate::support::limits();
    limits.patience = std::time::Duration::from_millis(300);
    let world = World::with(limits, mega_store::StoreOptions::default()).await;
    world.always("ul", status(500));
    let ended = world.upload(pattern(1, 0, 100).into()).await;
    assert!(matches!(ended, Err(TransferError::Storage(_))), "{ended:?}");
    world.finish().await;
}

/// Limits under which a connection that does not move is soon given up.
fn hasty() -> mega_transfer::TransferLimits {
    mega_transfer::TransferLimits {
        stall: Duration::from_millis(400),
        timeout: Duration::from_millis(400),
        ..crate::support::limits()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_gives_no_answer_is_replaced() {
    let world = World::with(hasty(), mega_store::StoreOptions::default()).await;
    let begun = Instant::now();
    for skip in [0, 3] {
        // Stored, but the answer does not come.
        let slow = FaultAction::Slow { ms: 60_000 };
        assert_eq!(restarts_after(&world, 20 * MIB, skip, slow).await, 0);
    }
    assert!(begun.elapsed() < Duration::from_secs(15));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_line_is_not_a_dead_one() {
    let patient = mega_transfer::TransferLimits {
        timeout: Duration::from_secs(20),
        ..hasty()
    };
    let world = World::with(patient, mega_store::StoreOptions::default()).await;
    // A piece of 1 MiB takes twice the stall limit.
    world.emulator.set(|knobs| knobs.up_total = 8 * MIB);
    world.emulator.reset_counters();
    let data: Arc<[u8]> = pattern(1, 0, 24 * MIB).into();
    let uploaded = world.upload(Arc::clone(&data)).await.unwrap();
    let connections = world.emulator.counters().connections;
    assert!(connections <= 6, "{connections}");
    let source = world.place(uploaded, "x").await;
    assert!(world.emulator.content(&source.handle.to_string()).unwrap() == data[..]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_faults_at_once_cost_nothing_but_time() {
    let world = World::new().await;
    for action in [
        FaultAction::Reset,
        FaultAction::Lost,
        body("-3"),
        body("-14"),
        status(500),
    ] {
        let rule = FaultRule::new("ul", action).chance(0.12);
        world.emulator.faults().add(rule);
    }
    let data: Arc<[u8]> = pattern(2, 0, 60 * MIB + 1).into();
    let progress = Arc::new(UploadProgress::new());
    let uploaded = world.upload_with(Arc::clone(&data), &progress).await;
    assert_eq!(progress.restarts(), 0);
    world.emulator.faults().clear();
    let source = world.place(uploaded.unwrap(), "x").await;
    assert!(world.emulator.content(&source.handle.to_string()).unwrap() == data[..]);
    world.finish().await;
}
