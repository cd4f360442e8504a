//! Striped files (CloudRAID): any part may be missing, die, or be slow.

use std::time::Duration;

use mega_emulator::{FaultAction, pattern};
use mega_transfer::{TransferError, TransferLimits};

use crate::support::{MIB, SIZES, World, eventually, limits, read_all, read_at};

const DATA: u64 = 3;

fn status(code: u16) -> FaultAction {
    FaultAction::Status {
        code,
        headers: Vec::new(),
        text: String::new(),
    }
}

/// A silent part is called slow soon.
fn impatient() -> TransferLimits {
    TransferLimits {
        stall: Duration::from_secs(2),
        ..limits()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_parts_are_the_file() {
    let world = World::striped(limits()).await;
    for (seed, size) in (0..).zip(SIZES).chain([(90, 79), (91, 80), (92, 81)]) {
        let file = world.file(size, seed).await;
        assert!(
            read_all(&file).await.unwrap() == pattern(seed, 0, size),
            "{size}"
        );
        eventually("verified", || file.is_verified()).await;
        assert_eq!(world.urls(), u64::from(size > 0));
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_part_may_be_missing() {
    for part in 0..6 {
        let world = World::striped(limits()).await;
        let dead = world.always(&format!("dl:{part}"), status(503));
        for size in [5, 77, 131_073, 3 * MIB + 41] {
            let file = world.file(size, size).await;
            let whole = read_all(&file).await.unwrap();
            assert!(whole == pattern(size, 0, size), "{size} without {part}");
            eventually("verified", || file.is_verified()).await;
            assert_eq!(world.urls(), 1, "the other five do");
        }
        // The parity is not even asked for while the others answer.
        assert_eq!(world.emulator.faults().fired(dead) > 0, part > 0);
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_places_with_a_missing_part() {
    let world = World::striped(limits()).await;
    world.always("dl:2", status(404));
    let size = 20 * MIB + 77;
    let file = world.file(size, 5).await;
    let mut place = 54321_u64;
    for _ in 0..60 {
        place = place
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let offset = (place >> 20) % size;
        let len = 1 + (place % 200_000) as usize;
        let expected = pattern(5, offset, (len as u64).min(size - offset));
        assert!(read_at(&file, offset, len).await.unwrap() == expected);
    }
    assert_eq!(world.urls(), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_may_die_in_the_middle() {
    let breaks = [
        FaultAction::Truncate { bytes: 10_007 },
        FaultAction::Shorten { bytes: 20_000 },
        FaultAction::Stall {
            after: 10_000,
            ms: 600_000,
        },
    ];
    for action in breaks {
        let world = World::striped(impatient()).await;
        let fault = world.always("dl:3", action);
        let file = world.file(9 * MIB + 5, DATA).await;
        let whole = read_all(&file).await.unwrap();
        assert!(whole == pattern(DATA, 0, 9 * MIB + 5));
        eventually("verified", || file.is_verified()).await;
        assert!(world.emulator.faults().fired(fault) > 0);
        assert_eq!(world.urls(), 1);
        world.emulator.faults().clear();
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_part_is_left_out() {
    for action in [
        FaultAction::Trickle { rate: 2000 },
        FaultAction::Slow { ms: 600_000 },
    ] {
        let world = World::striped(impatient()).await;
        let fault = world.always("dl:4", action);
        // With this part it would take ten minutes, and each read has twenty seconds.
        let file = world.file(6 * MIB, DATA).await;
        assert!(read_all(&file).await.unwrap() == pattern(DATA, 0, 6 * MIB));
        eventually("verified", || file.is_verified()).await;
        // Those that were under way when that was found, and none after them.
        let asked = world.emulator.faults().fired(fault);
        assert!((1..=8).contains(&asked), "{asked}");
        assert_eq!(world.urls(), 1);
        world.emulator.faults().clear();
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_bad_parts_need_other_addresses() {
    let world = World::striped(limits()).await;
    for part in ["dl:1", "dl:5"] {
        world.fault(part, status(500));
    }
    let file = world.file(100_000, DATA).await;
    assert!(read_all(&file).await.unwrap() == pattern(DATA, 0, 100_000));
    assert_eq!(world.urls(), 2);
    // For good: an error, not a hang.
    let file = world.file(100_000, DATA + 1).await;
    for part in ["dl:1", "dl:5"] {
        world.always(part, status(404));
    }
    let error = read_at(&file, 0, 10).await.unwrap_err();
    assert!(matches!(error, TransferError::Expired), "{error:?}");
    world.emulator.faults().clear();
    assert_eq!(
        read_at(&file, 0, 10).await.unwrap(),
        pattern(DATA + 1, 0, 10)
    );
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_bit_in_a_part_is_found() {
    for size in [300_000, 9 * MIB] {
        let world = World::striped(limits()).await;
        world.fault("dl:2", FaultAction::FlipBit { byte: 1000 });
        let file = world.file(size, DATA).await;
        let first = read_all(&file).await.unwrap();
        assert!(size > MIB || first == pattern(DATA, 0, size));
        eventually("verified", || file.is_verified()).await;
        assert!(read_all(&file).await.unwrap() == pattern(DATA, 0, size));
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quota_counts_for_all_parts() {
    let world = World::striped(limits()).await;
    let headers = vec![("X-MEGA-Time-Left".to_owned(), "30".to_owned())];
    let text = String::new();
    let code = 509;
    world.always(
        "dl:1",
        FaultAction::Status {
            code,
            headers,
            text,
        },
    );
    let file = world.file(MIB, DATA).await;
    let error = read_at(&file, 0, 10).await.unwrap_err();
    assert!(
        matches!(error, TransferError::OverQuota { .. }),
        "{error:?}"
    );
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_parts_who_did_not_ask() {
    let world = World::new().await;
    world.emulator.set(|knobs| knobs.raid_min_size = Some(1));
    let parts = world.always("dl:1", status(500));
    let file = world.file(100_000, DATA).await;
    assert!(read_all(&file).await.unwrap() == pattern(DATA, 0, 100_000));
    assert_eq!((world.emulator.faults().fired(parts), world.gets()), (0, 1));
    world.finish().await;
}
