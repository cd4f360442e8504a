//! The transfer quota: remembered for everybody, cached bytes stay readable.

use std::time::{Duration, Instant};

use mega_emulator::{FaultAction, pattern};
use mega_transfer::{Retry, TransferError};
use serde_json::json;

use crate::support::{MIB, World, read_at};

fn bandwidth_exceeded(headers: &[(&str, &str)]) -> FaultAction {
    let headers = headers
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect();
    FaultAction::Status {
        code: 509,
        headers,
        text: String::new(),
    }
}

fn wait_of(error: &TransferError) -> u64 {
    let TransferError::OverQuota { until } = error else {
        panic!("{error:?}")
    };
    assert!(matches!(error.retry(), Retry::After(_)));
    until.duration_since(Instant::now()).as_secs_f64().round() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_509_is_remembered_for_all_files() {
    for (headers, seconds) in [(&[("X-MEGA-Time-Left", "30")][..], 30), (&[][..], 3600)] {
        let world = World::new().await;
        let first = world.file(4 * MIB, 1).await;
        let second = world.file(4 * MIB, 2).await;
        read_at(&first, 0, 10).await.unwrap();
        world.fault("dl", bandwidth_exceeded(headers));
        let error = read_at(&first, 3 * MIB, 10).await.unwrap_err();
        assert_eq!(wait_of(&error), seconds);
        let (gets, urls) = (world.gets(), world.urls());
        let begun = Instant::now();
        assert_eq!(
            wait_of(&read_at(&second, 0, 10).await.unwrap_err()),
            seconds
        );
        assert!(begun.elapsed() < Duration::from_millis(500), "fails fast");
        assert_eq!(
            (world.gets(), world.urls()),
            (gets, urls),
            "nothing is asked"
        );
        assert_eq!(
            read_at(&first, 5, 10).await.unwrap(),
            pattern(1, 5, 10),
            "cached"
        );
        assert!(world.downloads.over_quota_until().is_some());
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_url_counts_too() {
    let world = World::new().await;
    let file = world.file(4 * MIB, 1).await;
    world.always(
        "cmd:g",
        FaultAction::CommandReply {
            reply: json!({"e": -17, "tl": 40}),
        },
    );
    let error = read_at(&file, 0, 10).await.unwrap_err();
    assert_eq!(wait_of(&error), 40);
    assert_eq!(wait_of(&read_at(&file, MIB, 10).await.unwrap_err()), 40);
    assert_eq!(world.urls(), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quota_that_is_there_again_at_once_is_waited_for() {
    let world = World::new().await;
    let file = world.file(4 * MIB, 1).await;
    world.fault("dl", bandwidth_exceeded(&[("X-MEGA-Time-Left", "1")]));
    assert_eq!(read_at(&file, 0, 10).await.unwrap(), pattern(1, 0, 10));
    assert!(world.downloads.over_quota_until().is_none());
    assert_eq!(world.urls(), 2, "a new URL, with the session's quota");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_go_on_once_the_time_has_passed() {
    let world = World::new().await;
    let file = world.file(4 * MIB, 1).await;
    world.fault("dl", bandwidth_exceeded(&[("X-MEGA-Time-Left", "3")]));
    read_at(&file, 0, 10).await.unwrap_err();
    crate::support::eventually("the gate opens", || {
        world.downloads.over_quota_until().is_none()
    })
    .await;
    assert_eq!(read_at(&file, 0, 10).await.unwrap(), pattern(1, 0, 10));
    assert_eq!(world.urls(), 2, "a new URL, with the session's quota");
    world.finish().await;
}
