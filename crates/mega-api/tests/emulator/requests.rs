//! Changing the account, with a network and a service that fail.

use std::time::{Duration, Instant};

use mega_api::{Api, ApiConfig, ApiError, ErrorClass, Frozen, Retry};
use mega_emulator::{FaultAction, FaultRule};
use mega_proto::{Command, ErrorCode, NodeKind};

use crate::support::{EMAIL, World, config};

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

#[tokio::test]
async fn put_move_rename_delete() {
    let world = World::logged_in().await;
    let root = world.root(NodeKind::Root).await;
    let bin = world.root(NodeKind::Rubbish).await;
    let a = world.mkdir(root, "a").await;
    let b = world.mkdir(root, "b").await;
    assert_eq!((a.parent, a.kind), (Some(root), NodeKind::Folder));
    world.api.move_node(b.handle, a.handle, None).await.unwrap();
    assert!(world.emulator.find(EMAIL, "/a/b").is_some());
    world
        .api
        .set_attributes(b.handle, world.renamed(&b, "c d"))
        .await
        .unwrap();
    assert!(world.emulator.find(EMAIL, "/a/c d").is_some());
    let error = world
        .api
        .move_node(a.handle, b.handle, None)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ApiError::Refused(ErrorCode::Circular)),
        "{error}"
    );
    world.api.move_node(b.handle, bin, None).await.unwrap();
    world.api.empty_rubbish().await.unwrap();
    world.api.delete(a.handle).await.unwrap();
    let error = world.api.delete(a.handle).await.unwrap_err();
    assert!(
        matches!(error, ApiError::Refused(ErrorCode::NotFound)),
        "{error}"
    );
    assert!(world.emulator.tree(EMAIL).unwrap().is_empty());
    world.no_violations();
}

#[tokio::test]
async fn public_links() {
    let world = World::logged_in().await;
    let handles = world
        .emulator
        .populate(
            EMAIL,
            &[mega_emulator::Fixture::file("/f.txt", *b"hello", 7)],
        )
        .unwrap();
    let node = handles[0].parse().unwrap();
    let link = world.api.export_link(node).await.unwrap();
    assert_eq!(world.api.export_link(node).await.unwrap(), link);
    world.api.remove_link(node).await.unwrap();
    world.no_violations();
}

/// Each fault once, then a folder is made: exactly one.
async fn mkdir_despite(faults: &[FaultAction]) -> World {
    let world = World::logged_in().await;
    let root = world.root(NodeKind::Root).await;
    for fault in faults {
        world
            .emulator
            .faults()
            .add(FaultRule::once("cmd:p", fault.clone()));
    }
    let made = world.mkdir(root, "once").await;
    let tree = world.emulator.tree(EMAIL).unwrap();
    assert_eq!(tree.len(), 1, "{tree:?}");
    assert_eq!(tree[0].handle, made.handle.to_string());
    assert_eq!(world.emulator.counters().faults, faults.len() as u64);
    world.no_violations();
    world
}

#[tokio::test]
async fn a_lost_reply_makes_no_duplicate() {
    let world = mkdir_despite(&[FaultAction::Lost]).await;
    assert_eq!(world.emulator.counters().replayed, 1);
    assert_eq!(world.emulator.counters().commands("p"), 1);
}

#[tokio::test]
async fn damaged_replies_make_no_duplicate() {
    let faults = [
        FaultAction::Truncate { bytes: 5 },
        FaultAction::Reply {
            text: "<html>".into(),
        },
    ];
    mkdir_despite(&faults).await;
    mkdir_despite(&[
        FaultAction::Shorten { bytes: 9 },
        FaultAction::Reply { text: "[]".into() },
    ])
    .await;
}

#[tokio::test]
async fn busy_service_in_every_form() {
    mkdir_despite(&[body("-3"), body("-4"), body("{\"err\":-3}")]).await;
    mkdir_despite(&[body(""), status(500), status(503)]).await;
    mkdir_despite(&[FaultAction::Reset, body("<html>"), body("-1")]).await;
}

#[tokio::test]
async fn one_busy_command_is_sent_again_alone() {
    let world = World::logged_in().await;
    let root = world.root(NodeKind::Root).await;
    let (a, b) = (world.mkdir(root, "a").await, world.mkdir(root, "b").await);
    let busy = FaultRule::once("cmd:m", FaultAction::CommandError { code: -3 });
    world.emulator.faults().add(busy);
    let frozen = world.api.freeze(vec![
        world.api.move_command(b.handle, a.handle, None),
        world
            .api
            .attributes_command(b.handle, world.renamed(&b, "c")),
        world.api.delete_command("AAAAAAAA".parse().unwrap()),
    ]);
    let answers = world.api.send(&frozen).await.unwrap();
    assert!(answers[0].is_ok() && answers[1].is_ok());
    assert_eq!(answers[2], Err(ErrorCode::NotFound));
    assert!(world.emulator.find(EMAIL, "/a/c").is_some());
    assert_eq!(world.emulator.counters().commands("a"), 1);
    // Sent again, the answers are known already.
    let before = world.emulator.counters().requests("cs");
    assert_eq!(world.api.send(&frozen).await.unwrap(), answers);
    assert_eq!(world.emulator.counters().requests("cs"), before);
    world.no_violations();
}

#[tokio::test]
async fn a_journalled_request_is_executed_once() {
    let world = World::logged_in().await;
    let root = world.root(NodeKind::Root).await;
    let frozen = world
        .api
        .freeze([world.api.put_command(root, vec![world.folder("x")], None)]);
    let copy = Frozen::from_bytes(&frozen.to_bytes()).unwrap();
    let first = world.api.send(&frozen).await.unwrap();
    let second = world.api.send(&copy).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(world.emulator.tree(EMAIL).unwrap().len(), 1);
    assert_eq!(world.emulator.counters().replayed, 1);
}

#[tokio::test]
async fn an_unknown_outcome_in_a_dead_session_is_said() {
    let world = World::logged_in().await;
    let root = world.root(NodeKind::Root).await;
    let told = std::sync::Arc::new(|_: Result<&mega_api::Session, &ApiError>| {});
    let source = std::sync::Arc::new(|| Some(crate::support::credentials()));
    world.api.set_relogin(source, told);
    // Executed, reply lost; then the session is gone: nobody can tell any more.
    world
        .emulator
        .faults()
        .add(FaultRule::once("cmd:p", FaultAction::Lost));
    world
        .emulator
        .faults()
        .add(FaultRule::once("cmd:p", body("-15")));
    let entry = world.folder("x");
    let error = world
        .api
        .put_nodes(root, vec![entry], None)
        .await
        .unwrap_err();
    assert!(matches!(error, ApiError::OutcomeUnknown(_)), "{error}");
    assert_eq!(error.retry(), Retry::Look);
    assert_eq!(world.emulator.tree(EMAIL).unwrap().len(), 1);
    // A request whose outcome is known is simply sent in the new session.
    world.emulator.end_sessions(None);
    let error = world.mkdir_result(root).await.unwrap_err();
    assert!(matches!(error, ApiError::SessionDead), "{error}");
}

impl World {
    async fn mkdir_result(&self, parent: mega_proto::NodeHandle) -> Result<(), ApiError> {
        self.api
            .put_nodes(parent, vec![self.folder("y")], None)
            .await
            .map(drop)
    }
}

#[tokio::test]
async fn patience_ends() {
    let world = World::logged_in().await;
    let short = Api::new(ApiConfig {
        timeout: Duration::from_secs(1),
        ..config(&world.emulator)
    })
    .unwrap();
    short.install((*world.session()).clone());
    let rule = world
        .emulator
        .faults()
        .add(FaultRule::new("cs", body("-3")));
    let started = Instant::now();
    let error = short.quota().await.unwrap_err();
    assert!(matches!(error, ApiError::Busy(ErrorCode::Again)), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    world.emulator.faults().remove(rule);
    // Silence.
    let rule = FaultRule::once("cs", FaultAction::Slow { ms: 2500 });
    world.emulator.faults().add(rule);
    let error = short.quota().await.unwrap_err();
    assert!(matches!(error, ApiError::Timeout), "{error}");
}

#[tokio::test]
async fn nobody_there() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let api = Api::new(ApiConfig {
        base_url: url.parse().unwrap(),
        timeout: Duration::from_secs(1),
        proxy: Some(String::new()),
        ..ApiConfig::default()
    })
    .unwrap();
    let error = api.login(&crate::support::credentials()).await.unwrap_err();
    assert!(matches!(error, ApiError::Network(_)), "{error}");
    assert_eq!(error.class(), ErrorClass::Network);
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn quota_errors_keep_their_code() {
    let world = World::logged_in().await;
    for code in [-17, -24, -29] {
        let rule = FaultRule::once("cmd:u", FaultAction::CommandError { code });
        world.emulator.faults().add(rule);
        let error = world.api.upload_url(5).await.unwrap_err();
        assert!(matches!(error, ApiError::OverQuota { .. }), "{error}");
        assert_eq!(error.code().map(ErrorCode::code), Some(code));
    }
}

#[tokio::test]
async fn changes_wait_for_each_other_and_reading_does_not() {
    let world = World::logged_in().await;
    let root = world.root(NodeKind::Root).await;
    let slow = FaultRule::once("cmd:p", FaultAction::Slow { ms: 1500 });
    world.emulator.faults().add(slow);
    let started = Instant::now();
    let first = world.api.put_nodes(root, vec![world.folder("1")], None);
    let more = async {
        while world.emulator.counters().commands("p") == 0 {
            tokio::task::yield_now().await;
        }
        world.api.quota().await.unwrap();
        let reading = started.elapsed();
        let puts: Vec<Command> = ["2", "3", "4"]
            .map(|name| world.api.put_command(root, vec![world.folder(name)], None))
            .into();
        world.api.send(&world.api.freeze(puts)).await.unwrap();
        reading
    };
    let (first, reading) = tokio::join!(first, more);
    first.unwrap();
    assert!(reading < Duration::from_millis(1400), "{reading:?}");
    assert!(started.elapsed() >= Duration::from_millis(1400));
    assert_eq!(world.emulator.tree(EMAIL).unwrap().len(), 4);
    world.no_violations();
}

#[tokio::test]
async fn a_request_dropped_under_way_stays_in_doubt() {
    let world = World::logged_in().await;
    let root = world.root(NodeKind::Root).await;
    let told = std::sync::Arc::new(|_: Result<&mega_api::Session, &ApiError>| {});
    let source = std::sync::Arc::new(|| Some(crate::support::credentials()));
    world.api.set_relogin(source, told);
    let frozen = world
        .api
        .freeze([world.api.put_command(root, vec![world.folder("x")], None)]);
    let slow = FaultRule::once("cmd:p", FaultAction::Slow { ms: 60_000 });
    world.emulator.faults().add(slow);
    let executed = async {
        while world.emulator.tree(EMAIL).unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        answer = world.api.send(&frozen) => panic!("{answer:?}"),
        () = executed => {}
    }
    // The same session would know the answer; another one cannot.
    world.emulator.end_sessions(None);
    world.api.quota().await.unwrap();
    let error = world.api.send(&frozen).await.unwrap_err();
    assert!(matches!(error, ApiError::OutcomeUnknown(_)), "{error}");
    assert_eq!(world.emulator.tree(EMAIL).unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_asked_together_share_requests() {
    let world = World::logged_in().await;
    world.emulator.set(|knobs| knobs.latency_ms = 50);
    let before = world.emulator.counters().requests("cs");
    let asked = (0..200).map(|size| {
        let api = world.api.clone();
        tokio::spawn(async move { api.upload_url(size).await })
    });
    let asked: Vec<_> = asked.collect();
    let mut urls = std::collections::HashSet::new();
    for url in asked {
        urls.insert(url.await.unwrap().unwrap());
    }
    assert_eq!(urls.len(), 200);
    assert_eq!(world.emulator.counters().commands("u"), 200);
    let requests = world.emulator.counters().requests("cs") - before;
    assert!(requests <= 12, "{requests} requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_refused_question_does_not_hurt_the_others() {
    let world = World::logged_in().await;
    let nothing: mega_proto::NodeHandle = "AAAAAAAA".parse().unwrap();
    let (gone, url) = tokio::join!(world.api.download_url(nothing), world.api.upload_url(1));
    assert!(matches!(
        gone,
        Err(ApiError::Refused(mega_proto::ErrorCode::NotFound))
    ));
    url.unwrap();
}
