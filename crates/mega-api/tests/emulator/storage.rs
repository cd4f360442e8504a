//! Ciphertext up and down.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use mega_api::{ApiError, ChunkAck, Retry, StorageError};
use mega_crypto::ContentCipher;
use mega_emulator::{FaultAction, FaultRule, Fixture, pattern};
use mega_proto::{ErrorCode, NodeKind, UploadToken};

use crate::support::{EMAIL, Encrypted, World};

const SIZE: u64 = 1_500_000;

async fn upload(world: &World, data: &Encrypted, size: u64) -> Result<UploadToken, StorageError> {
    let url = world.api.upload_url(size).await.unwrap();
    let mut token = None;
    for (offset, piece) in &data.pieces {
        let body = Bytes::copy_from_slice(piece);
        let checksum = Encrypted::checksum(piece);
        match world
            .api
            .post_chunk(url.as_str(), *offset, body, checksum)
            .await?
        {
            ChunkAck::Stored => {}
            ChunkAck::Complete(complete) => token = Some(complete),
        }
    }
    Ok(token.expect("the last piece brings the token"))
}

async fn download(
    world: &World,
    url: &str,
    range: std::ops::Range<u64>,
) -> Result<Vec<u8>, StorageError> {
    let mut stream = world.api.get_range(url, range).await?;
    let mut data = Vec::new();
    while let Some(piece) = stream.next().await {
        data.extend_from_slice(&piece?);
    }
    assert!(stream.next().await.is_none());
    Ok(data)
}

/// A file in the cloud and its address.
async fn stored(world: &World) -> String {
    let handles = world
        .emulator
        .populate(EMAIL, &[Fixture::pattern("/f", SIZE, 3)])
        .unwrap();
    let target = world
        .api
        .download_url(handles[0].parse().unwrap())
        .await
        .unwrap();
    assert_eq!((target.size, target.urls.len()), (SIZE, 1));
    target.urls[0].clone()
}

#[tokio::test]
async fn a_file_goes_up_and_comes_down() {
    let world = World::logged_in().await;
    let root = world.root(NodeKind::Root).await;
    let plain = pattern(5, 0, SIZE);
    let data = Encrypted::new(&plain);
    let token = upload(&world, &data, SIZE).await.unwrap();
    let entry = data.entry(&world, token, "up.bin");
    let node = world
        .api
        .put_nodes(root, vec![entry], None)
        .await
        .unwrap()
        .remove(0);
    assert_eq!((node.size, node.kind), (SIZE, NodeKind::File));
    assert_eq!(
        world.emulator.content(&node.handle.to_string()).unwrap(),
        plain
    );

    let target = world.api.download_url(node.handle).await.unwrap();
    let key = data.key.as_file().unwrap();
    let cipher = ContentCipher::new(&key.aes_key(), &key.nonce());
    for range in [0..SIZE, 131_072..393_216, 17..18, SIZE - 1..SIZE, 5..5] {
        let mut bytes = download(&world, &target.urls[0], range.clone())
            .await
            .unwrap();
        cipher.apply(range.start, &mut bytes);
        assert_eq!(bytes, plain[range.start as usize..range.end as usize]);
    }
    world.no_violations();
}

#[tokio::test]
async fn an_empty_file() {
    let world = World::logged_in().await;
    let root = world.root(NodeKind::Root).await;
    let data = Encrypted::new(b"");
    let token = upload(&world, &data, 0).await.unwrap();
    let node = world
        .api
        .put_nodes(root, vec![data.entry(&world, token, "e")], None)
        .await
        .unwrap();
    let target = world.api.download_url(node[0].handle).await.unwrap();
    assert_eq!(target.size, 0);
    world.no_violations();
}

#[tokio::test]
async fn a_piece_can_be_posted_again() {
    let world = World::logged_in().await;
    let data = Encrypted::new(&pattern(1, 0, 200_000));
    let url = world.api.upload_url(200_000).await.unwrap();
    let post = |index: usize| {
        let (offset, piece) = &data.pieces[index];
        let body = Bytes::copy_from_slice(piece);
        world
            .api
            .post_chunk(url.as_str(), *offset, body, Encrypted::checksum(piece))
    };
    // Out of order; the token's answer is lost, the repeat brings it.
    assert_eq!(post(1).await.unwrap(), ChunkAck::Stored);
    world
        .emulator
        .faults()
        .add(FaultRule::once("ul", FaultAction::Lost));
    let error = post(0).await.unwrap_err();
    assert!(matches!(error, StorageError::Network(_)), "{error}");
    assert!(matches!(post(0).await.unwrap(), ChunkAck::Complete(_)));
    world.no_violations();
}

#[tokio::test]
async fn answers_to_pieces_have_their_meaning() {
    let world = World::logged_in().await;
    let data = Encrypted::new(&pattern(1, 0, 1000));
    let url = world.api.upload_url(1000).await.unwrap();
    let (offset, piece) = data.pieces[0].clone();
    let body = Bytes::from(piece);
    let sum = Encrypted::checksum(&body);
    let cases = [
        ("-3", Retry::After(Duration::from_millis(500))),
        ("-4", Retry::RestartUpload),
        ("-8", Retry::RestartUpload),
        ("-14", Retry::Backoff),
        ("-17", Retry::Never),
        ("nonsense", Retry::Backoff),
    ];
    for (text, retry) in cases {
        let rule = FaultRule::once("ul", FaultAction::Body { text: text.into() });
        world.emulator.faults().add(rule);
        let error = world
            .api
            .post_chunk(url.as_str(), offset, body.clone(), sum)
            .await
            .unwrap_err();
        assert_eq!(error.retry(), retry, "{text}");
    }
    let mut wrong = sum;
    wrong[0] ^= 1;
    let error = world
        .api
        .post_chunk(url.as_str(), offset, body.clone(), wrong)
        .await
        .unwrap_err();
    assert!(matches!(error, StorageError::Damaged), "{error}");
    let gone = format!("{}x", url.as_str());
    let error = world
        .api
        .post_chunk(&gone, offset, body, sum)
        .await
        .unwrap_err();
    assert_eq!(error.retry(), Retry::RestartUpload, "{error}");
    assert!(!error.to_string().contains("http"), "{error}");
}

#[tokio::test]
async fn failing_downloads_have_their_meaning() {
    let world = World::logged_in().await;
    let url = stored(&world).await;
    let status = |code| FaultAction::Status {
        code,
        headers: Vec::new(),
        text: String::new(),
    };
    let cases = [
        (status(403), Retry::FreshUrl),
        (status(404), Retry::FreshUrl),
        (status(429), Retry::After(Duration::from_millis(500))),
        (status(503), Retry::After(Duration::from_secs(5))),
        (status(500), Retry::Backoff),
        (FaultAction::Shorten { bytes: 100 }, Retry::Backoff),
        (FaultAction::Truncate { bytes: 100 }, Retry::Backoff),
        (FaultAction::ExtraByte, Retry::Backoff),
        (FaultAction::Reset, Retry::Backoff),
    ];
    for (fault, retry) in cases {
        world
            .emulator
            .faults()
            .add(FaultRule::once("dl", fault.clone()));
        let error = download(&world, &url, 0..1000).await.unwrap_err();
        assert_eq!(error.retry(), retry, "{fault:?}");
        assert!(!error.to_string().contains("http://"), "{error}");
    }
    world.emulator.expire_urls();
    let error = download(&world, &url, 0..1000).await.unwrap_err();
    assert!(matches!(error, StorageError::Expired), "{error}");
}

#[tokio::test]
async fn no_transfer_quota_is_remembered() {
    let world = World::logged_in().await;
    let url = stored(&world).await;
    let headers = vec![("X-MEGA-Time-Left".to_owned(), "90".to_owned())];
    let action = FaultAction::Status {
        code: 509,
        headers,
        text: String::new(),
    };
    world.emulator.faults().add(FaultRule::once("dl", action));
    let error = download(&world, &url, 0..10).await.unwrap_err();
    let StorageError::OverQuota { until } = error else {
        panic!("{error}")
    };
    let left = until - Instant::now();
    assert!(left <= Duration::from_secs(90) && left > Duration::from_secs(80));
    // Not asked again before.
    let before = world.emulator.counters().requests("dl");
    let error = download(&world, &url, 0..10).await.unwrap_err();
    assert!(matches!(error, StorageError::OverQuota { .. }), "{error}");
    assert_eq!(world.emulator.counters().requests("dl"), before);
    world.api.allow_downloads();
    assert_eq!(download(&world, &url, 0..10).await.unwrap().len(), 10);

    let reply = serde_json::json!({"e": -17, "tl": 30});
    world.emulator.faults().add(FaultRule::once(
        "cmd:g",
        FaultAction::CommandReply { reply },
    ));
    let node = world
        .emulator
        .find(EMAIL, "/f")
        .unwrap()
        .handle
        .parse()
        .unwrap();
    let error = world.api.download_url(node).await.unwrap_err();
    assert_eq!(error.retry(), Retry::After(Duration::from_secs(30)));
    assert!(matches!(
        error,
        ApiError::OverQuota {
            code: ErrorCode::OverQuota,
            ..
        }
    ));
}

#[tokio::test]
async fn a_stalled_download_ends() {
    let world = World::logged_in().await;
    let url = stored(&world).await;
    let short = mega_api::Api::new(mega_api::ApiConfig {
        timeout: Duration::from_millis(500),
        ..crate::support::config(&world.emulator)
    })
    .unwrap();
    let stall = FaultAction::Stall {
        after: 1000,
        ms: 3000,
    };
    world.emulator.faults().add(FaultRule::once("dl", stall));
    let mut stream = short.get_range(&url, 0..100_000).await.unwrap();
    let mut got = 0;
    let error = loop {
        match stream.next().await.unwrap() {
            Ok(piece) => got += piece.len(),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StorageError::Timeout), "{error}");
    assert!(got <= 1000);
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_slow_upload_that_moves_is_no_timeout() {
    let world = World::logged_in().await;
    let data = Encrypted::new(&pattern(1, 0, 1_048_576));
    let url = world.api.upload_url(1_048_576).await.unwrap();
    let (offset, piece) = data.pieces[3].clone();
    let sum = Encrypted::checksum(&piece);
    // The piece takes longer than the inactivity time.
    world
        .emulator
        .set(|knobs| knobs.up_per_connection = 256 << 10);
    let short = mega_api::Api::new(mega_api::ApiConfig {
        timeout: Duration::from_millis(700),
        ..crate::support::config(&world.emulator)
    })
    .unwrap();
    let ack = short
        .post_chunk(url.as_str(), offset, piece.into(), sum)
        .await;
    assert!(matches!(ack, Ok(ChunkAck::Stored)), "{ack:?}");
}
