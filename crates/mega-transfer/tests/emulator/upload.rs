//! Uploading without faults: sizes, fingerprint, cache, memory, cancellation.

use std::sync::Arc;
use std::time::Duration;

use mega_crypto::FingerprintBuilder;
use mega_emulator::pattern;
use mega_store::StoreOptions;
use mega_transfer::{MemoryBudget, SealedSource, TransferError, TransferLimits, UploadProgress};
use tokio_util::sync::CancellationToken;

use crate::support::{MIB, Memory, SIZES, World, eventually, limits, read_all};

fn data(size: u64) -> Arc<[u8]> {
    pattern(size + 1, 0, size).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_all_sizes_arrive_and_are_cached() {
    let world = World::new().await;
    for size in SIZES {
        let data = data(size);
        let progress = Arc::new(UploadProgress::new());
        let uploaded = world
            .upload_with(Arc::clone(&data), &progress)
            .await
            .unwrap();
        let mut fingerprint = FingerprintBuilder::new(size);
        fingerprint.feed(0, &data);
        assert_eq!(uploaded.fingerprint_crc, fingerprint.finish(0).crc);
        assert_eq!((progress.acknowledged(), progress.total()), (size, size));
        assert_eq!((progress.percent(), progress.restarts()), (100, 0));
        assert!(uploaded.blob.is_some(), "size {size}");
        let source = world.place(uploaded, &format!("up-{size}")).await;
        assert!(world.emulator.content(&source.handle.to_string()).unwrap() == data[..]);
        let file = world.downloads.open(source);
        assert!(read_all(&file).await.unwrap() == data[..], "size {size}");
    }
    assert_eq!(world.bytes_down(), 0, "what was uploaded is cached");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_goes_in_parallel_pieces_within_the_budget() {
    let small = TransferLimits {
        memory: MemoryBudget::new(32 * MIB),
        ..limits()
    };
    let world = World::with(small, StoreOptions::default()).await;
    let data = data(100 * MIB + 12345);
    let uploaded = world.upload(Arc::clone(&data)).await.unwrap();
    let counters = world.emulator.counters();
    assert_eq!(counters.bytes_up, data.len() as u64);
    assert!(counters.requests("ul") >= 10);
    let source = world.place(uploaded, "large").await;
    assert!(world.emulator.content(&source.handle.to_string()).unwrap() == data[..]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_uploads_share_the_budget() {
    let small = TransferLimits {
        memory: MemoryBudget::new(16 * MIB),
        ..limits()
    };
    let world = Arc::new(World::with(small, StoreOptions::default()).await);
    let uploads: Vec<_> = (0..20u64)
        .map(|number| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.upload(data(3 * MIB + number)).await.unwrap() })
        })
        .collect();
    for (number, upload) in uploads.into_iter().enumerate() {
        let uploaded = upload.await.unwrap();
        world.place(uploaded, &number.to_string()).await;
    }
    Arc::into_inner(world).unwrap().finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_two_uploads_have_the_same_key() {
    let world = World::new().await;
    let first = world.upload(data(10)).await.unwrap();
    let second = world.upload(data(10)).await.unwrap();
    assert_ne!(first.key, second.key);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_is_off_or_too_small_is_no_obstacle() {
    for options in [
        StoreOptions {
            cache_on: false,
            ..StoreOptions::default()
        },
        StoreOptions {
            cache_size: MIB,
            ..StoreOptions::default()
        },
    ] {
        let world = World::with(limits(), options).await;
        let data = data(6 * MIB);
        let uploaded = world.upload(Arc::clone(&data)).await.unwrap();
        assert!(uploaded.blob.is_none());
        let source = world.place(uploaded, "x").await;
        let file = world.downloads.open(source);
        assert!(read_all(&file).await.unwrap() == data[..]);
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_ends_an_upload_soon() {
    let world = World::new().await;
    world.emulator.set(|knobs| knobs.up_total = 4 << 20);
    let cancel = CancellationToken::new();
    let progress = Arc::new(UploadProgress::new());
    let source: Arc<dyn SealedSource> = Arc::new(Memory(data(60 * MIB)));
    let upload = {
        let (uploads, progress) = (world.uploads.clone(), Arc::clone(&progress));
        let cancel = cancel.clone();
        tokio::spawn(async move { uploads.upload(source, progress, cancel).await })
    };
    eventually("the first piece", || progress.acknowledged() > 0).await;
    cancel.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(3), upload)
        .await
        .expect("soon");
    assert!(matches!(ended.unwrap(), Err(TransferError::Cancelled)));
    assert!(progress.acknowledged() < 60 * MIB);
    eventually("memory given back", || world.limits.memory.in_use() == 0).await;
    eventually("the cache to keep nothing of it", || {
        world.store.cache().used_bytes() == 0
    })
    .await;
    world.finish().await;
}

struct Unreadable;

impl SealedSource for Unreadable {
    fn size(&self) -> u64 {
        5 * MIB
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        buf.fill(1);
        if offset < 2 * MIB {
            Ok(())
        } else {
            Err(std::io::Error::other("lost"))
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_fails_fails_the_upload() {
    let world = World::new().await;
    let ended = world.uploads.upload(
        Arc::new(Unreadable),
        Arc::new(UploadProgress::new()),
        CancellationToken::new(),
    );
    assert!(matches!(ended.await, Err(TransferError::Source(_))));
    world.finish().await;
}
