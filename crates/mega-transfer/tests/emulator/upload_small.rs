//! Many small files: few requests for addresses, one post each, connections that are used again.

use std::sync::Arc;

use mega_emulator::pattern;

use crate::support::{World, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_asked_for_together() {
    const FILES: u64 = 300;
    let world = Arc::new(World::new().await);
    world.emulator.set(|knobs| knobs.latency_ms = 50);
    world.emulator.reset_counters();
    let uploads: Vec<_> = (0..FILES)
        .map(|number| {
            let world = Arc::clone(&world);
            let data = pattern(number, 0, 4096 + number).into();
            tokio::spawn(async move { world.upload(data).await.unwrap() })
        })
        .collect();
    let mut finished = Vec::new();
    for upload in uploads {
        finished.push(upload.await.unwrap());
    }
    let counters = world.emulator.counters();
    assert_eq!(counters.commands("u"), FILES);
    assert_eq!(counters.requests("ul"), FILES);
    let requests = counters.requests("cs");
    assert!(
        requests <= FILES / 10,
        "{requests} requests for {FILES} addresses"
    );
    world.emulator.set(|knobs| knobs.latency_ms = 0);
    for (number, uploaded) in finished.into_iter().enumerate().step_by(40) {
        let data = pattern(number as u64, 0, 4096 + number as u64);
        let source = world.place(uploaded, &number.to_string()).await;
        assert!(world.emulator.content(&source.handle.to_string()).unwrap() == data);
    }
    let world = Arc::into_inner(world).unwrap();
    eventually("memory given back", || world.limits.memory.in_use() == 0).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_refused_address_does_not_fail_its_neighbours() {
    let world = Arc::new(World::new().await);
    world.emulator.set(|knobs| knobs.latency_ms = 30);
    world.fault(
        "cmd:u",
        mega_emulator::FaultAction::CommandError { code: -17 },
    );
    let uploads: Vec<_> = (0..40_u64)
        .map(|number| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.upload(pattern(number, 0, 100).into()).await })
        })
        .collect();
    let mut refused = 0;
    for upload in uploads {
        refused += usize::from(upload.await.unwrap().is_err());
    }
    assert_eq!(refused, 1);
    Arc::into_inner(world).unwrap().finish().await;
}
