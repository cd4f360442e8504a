//! What others do, as it happens.

use std::time::Duration;

use mega_api::{Api, ApiError, EventChannel, EventScheme, Retry};
use mega_emulator::{FaultAction, FaultRule, Fixture};
use mega_proto::{ActionPacket, ErrorCode, NodeKind, Packet, Seqno};

use crate::support::{EMAIL, World, config};

/// Packets until the stream is current again, from `sn` on.
async fn drain(world: &World, sn: &mut Seqno, channel: &mut EventChannel) -> Vec<Packet> {
    let mut packets = Vec::new();
    loop {
        let reply = tokio::time::timeout(Duration::from_secs(20), world.api.events(sn, channel))
            .await
            .expect("events within 20 s")
            .unwrap();
        packets.extend(reply.packets);
        *sn = reply.sn.unwrap_or_else(|| sn.clone());
        if !reply.more {
            return packets;
        }
    }
}

async fn start(world: &World, scheme: EventScheme) -> (Seqno, EventChannel) {
    let (_, end) = world.tree().await;
    let mut sn = end.sn.unwrap();
    let mut channel = EventChannel::new(scheme);
    assert!(drain(world, &mut sn, &mut channel).await.is_empty());
    assert!(channel.is_current());
    (sn, channel)
}

async fn foreign_changes_arrive(scheme: EventScheme) {
    let world = World::logged_in().await;
    let (mut sn, mut channel) = start(&world, scheme).await;
    // While we wait.
    let (packets, ()) = tokio::join!(drain(&world, &mut sn, &mut channel), async {
        while world.emulator.counters().requests("w") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        world
            .emulator
            .populate(EMAIL, &[Fixture::folder("/new")])
            .unwrap();
    });
    assert!(matches!(&packets[0].action, ActionPacket::Nodes { nodes, .. } if nodes.len() == 1));
    assert_eq!(packets[0].i, None);
    // Our own, with our id.
    let root = world.root(NodeKind::Root).await;
    let made = world.mkdir(root, "mine").await;
    let packets = drain(&world, &mut sn, &mut channel).await;
    assert_eq!(packets[0].i.as_deref(), Some("abcdefghij"));
    world.api.delete(made.handle).await.unwrap();
    let packets = drain(&world, &mut sn, &mut channel).await;
    let node = made.handle;
    assert_eq!(
        packets[0].action,
        ActionPacket::Delete { node, moved: false }
    );
    world.no_violations();
}

#[tokio::test]
async fn foreign_changes_arrive_blocking() {
    foreign_changes_arrive(EventScheme::Blocking).await;
}

#[tokio::test]
async fn foreign_changes_arrive_classic() {
    foreign_changes_arrive(EventScheme::Classic).await;
}

#[tokio::test]
async fn many_packets_come_in_portions() {
    let world = World::logged_in().await;
    let (mut sn, mut channel) = start(&world, EventScheme::Blocking).await;
    world.emulator.set(|knobs| knobs.events_per_reply = 3);
    let folders: Vec<Fixture> = (0..10).map(|i| Fixture::folder(&format!("/{i}"))).collect();
    world.emulator.populate(EMAIL, &folders).unwrap();
    assert_eq!(drain(&world, &mut sn, &mut channel).await.len(), 10);
}

#[tokio::test]
async fn a_channel_that_fails_recovers() {
    for scheme in [EventScheme::Blocking, EventScheme::Classic] {
        let world = World::logged_in().await;
        let (mut sn, mut channel) = start(&world, scheme).await;
        world.emulator.set(|knobs| knobs.hold_ms = 50);
        for at in ["w", "sc", "wsc"] {
            let failing = FaultAction::Status {
                code: 500,
                headers: Vec::new(),
                text: String::new(),
            };
            world.emulator.faults().add(FaultRule::once(at, failing));
            let busy = FaultAction::Body { text: "-3".into() };
            world.emulator.faults().add(FaultRule::once(at, busy));
            world
                .emulator
                .faults()
                .add(FaultRule::once(at, FaultAction::JunkEvents).after(1));
        }
        world
            .emulator
            .populate(EMAIL, &[Fixture::folder("/new")])
            .unwrap();
        let packets = drain(&world, &mut sn, &mut channel).await;
        let added = packets
            .iter()
            .any(|p| matches!(p.action, ActionPacket::Nodes { .. }));
        assert!(added, "{packets:?}");
        world.no_violations();
    }
}

#[tokio::test]
async fn a_position_too_old_means_a_new_tree() {
    let world = World::logged_in().await;
    let (sn, mut channel) = start(&world, EventScheme::Blocking).await;
    world.emulator.forget_events(EMAIL);
    let error = world.api.events(&sn, &mut channel).await.unwrap_err();
    assert!(
        matches!(error, ApiError::Refused(ErrorCode::TooMany)),
        "{error}"
    );
    assert_eq!(error.retry(), Retry::Refetch);
    start(&world, EventScheme::Blocking).await;
}

#[tokio::test]
async fn a_session_that_dies_while_waiting() {
    let world = World::logged_in().await;
    let (mut sn, mut channel) = start(&world, EventScheme::Blocking).await;
    let source = std::sync::Arc::new(|| Some(crate::support::credentials()));
    world.api.set_relogin(
        source,
        std::sync::Arc::new(|_: Result<&mega_api::Session, &ApiError>| {}),
    );
    world.emulator.end_sessions(None);
    world
        .emulator
        .populate(EMAIL, &[Fixture::folder("/new")])
        .unwrap();
    assert_eq!(drain(&world, &mut sn, &mut channel).await.len(), 1);
    assert_eq!(world.emulator.counters().logins, 2);
    // Without credentials it ends.
    let poor = Api::new(config(&world.emulator)).unwrap();
    poor.install((*world.session()).clone());
    world.emulator.end_sessions(None);
    let error = poor
        .events(&sn, &mut EventChannel::default())
        .await
        .unwrap_err();
    assert!(matches!(error, ApiError::SessionDead), "{error}");
}
