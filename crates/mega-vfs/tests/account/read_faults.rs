//! What a reader sees of a storage server that goes on failing (protocol/06 section 8.5).

use std::time::Duration;

use mega_emulator::{FaultAction, FaultRule, Fixture, pattern};
use mega_transfer::TransferLimits;
use rustix::io::Errno;
use serde_json::json;

use crate::support::{EMAIL, World, eager};

const SIZE: u64 = 3 << 20;

async fn world() -> World {
    let limits = TransferLimits {
        timeout: Duration::from_secs(3),
        stall: Duration::from_millis(300),
        backoff: Duration::from_millis(2),
        ..TransferLimits::default()
    };
    World::with_limits(eager(), limits, |emulator| {
        let mut files = vec![Fixture::pattern("/f", SIZE, 1)];
        // Each in a directory of its own, so that none is fetched ahead.
        files.extend((0..20).map(|n| Fixture::pattern(&format!("/{n}/small"), 1000, 2)));
        emulator.populate(EMAIL, &files).unwrap();
    })
    .await
}

fn status(code: u16) -> FaultAction {
    FaultAction::Status {
        code,
        headers: Vec::new(),
        text: String::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_lasting_fault_has_its_errno_and_an_end() {
    let world = world().await;
    let code = |code| FaultAction::CommandError { code };
    let inside = |reply| FaultAction::CommandReply { reply };
    let flip = FaultAction::FlipBit { byte: 500 };
    let silence = FaultAction::Stall {
        after: 0,
        ms: 60_000,
    };
    let table = [
        ("dl", status(403), Errno::IO),
        ("dl", status(404), Errno::IO),
        ("dl", status(429), Errno::TIMEDOUT),
        ("dl", status(503), Errno::TIMEDOUT),
        ("dl", status(500), Errno::IO),
        ("dl", FaultAction::Shorten { bytes: 0 }, Errno::IO),
        ("dl", FaultAction::Truncate { bytes: 0 }, Errno::IO),
        ("dl", FaultAction::ExtraByte, Errno::IO),
        ("dl", FaultAction::Reset, Errno::IO),
        ("dl", silence, Errno::TIMEDOUT),
        ("dl", FaultAction::Slow { ms: 60_000 }, Errno::TIMEDOUT),
        ("dl", FaultAction::Trickle { rate: 50 }, Errno::TIMEDOUT),
        ("cmd:g", code(-9), Errno::STALE),
        ("cmd:g", code(-11), Errno::ACCESS),
        ("cmd:g", code(-16), Errno::ACCESS),
        ("cmd:g", inside(json!({"s": 1000, "e": -16})), Errno::ACCESS),
        ("cmd:g", inside(json!({"s": 1000, "d": 1})), Errno::ACCESS),
        (
            "cmd:g",
            inside(json!({"s": 999, "g": "http://127.0.0.1:1/x"})),
            Errno::IO,
        ),
        ("dl", flip, Errno::IO),
    ];
    // What was begun for one row may go on after it, so each has a file of its own.
    for (row, (at, action, expected)) in table.into_iter().enumerate() {
        let (path, text) = (format!("{row}/small"), format!("{at} {action:?}"));
        let rule = world.emulator.faults().add(FaultRule::new(at, action));
        let read = tokio::time::timeout(Duration::from_secs(20), world.read(&path)).await;
        let errno = read.expect(&text).err();
        assert_eq!(errno, Some(expected), "{text}");
        world.emulator.faults().remove(rule);
    }
    world
        .until("read at last", async |world| {
            world.read("0/small").await == Ok(pattern(2, 0, 1000))
        })
        .await;
    world.vfs.shutdown(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_transfer_quota_cached_bytes_stay_readable() {
    let world = world().await;
    assert!(world.read("f").await.unwrap() == pattern(1, 0, SIZE));
    world.emulator.set(|knobs| {
        knobs.transfer_left = Some(10);
        knobs.transfer_wait = 1000;
    });
    assert_eq!(world.read("0/small").await, Err(Errno::DQUOT));
    let asked = world.emulator.counters();
    assert_eq!(world.read("0/small").await, Err(Errno::DQUOT), "at once");
    let after = world.emulator.counters();
    assert_eq!(asked.requests("dl"), after.requests("dl"));
    assert_eq!(asked.commands("g"), after.commands("g"));
    assert!(world.read("f").await.unwrap() == pattern(1, 0, SIZE));
    world.finish().await;
}
