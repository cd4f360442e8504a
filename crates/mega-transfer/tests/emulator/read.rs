//! Reading without faults: bytes, bounds, concurrency, cache off or small.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use mega_emulator::pattern;
use mega_store::StoreOptions;
use mega_transfer::{MemoryBudget, ReadCursor, TransferLimits};

use crate::support::{MIB, SIZES, World, eventually, limits, read_all, read_at};

#[tokio::test(flavor = "multi_thread")]
async fn files_of_all_sizes_are_read_whole_and_in_parts() {
    let world = World::new().await;
    for (seed, size) in SIZES.into_iter().enumerate() {
        let seed = seed as u64;
        let file = world.file(size, seed).await;
        let whole = pattern(seed, 0, size);
        assert!(read_all(&file).await.unwrap() == whole, "size {size}");
        eventually("verified", || file.is_verified()).await;
        world.moved(size).await;
        // From the cache now, in odd places.
        for (offset, len) in [
            (0, 1),
            (1, 31),
            (size / 2, 4096),
            (size.saturating_sub(3), 10),
        ] {
            let got = file.try_read(offset, len).unwrap().expect("cached");
            let (start, end) = (offset.min(size), (offset + len as u64).min(size));
            assert_eq!(&got[..], &whole[start as usize..end as usize]);
        }
        assert!(read_at(&file, size + 5, 10).await.unwrap().is_empty());
        world.moved(size).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_places_of_a_cold_file() {
    let world = World::new().await;
    let size = 20 * MIB + 77;
    let file = world.file(size, 5).await;
    let mut place = 12345u64;
    for _ in 0..60 {
        place = place
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let offset = (place >> 20) % size;
        let len = 1 + (place % 200_000) as usize;
        let expected = pattern(5, offset, (len as u64).min(size - offset));
        assert!(read_at(&file, offset, len).await.unwrap() == expected);
    }
    assert!(world.bytes_down() <= size);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_probe_moves_little() {
    let world = World::new().await;
    let file = world.file(100 * MIB, 1).await;
    assert_eq!(read_at(&file, 0, 4096).await.unwrap(), pattern(1, 0, 4096));
    assert_eq!(
        read_at(&file, 100 * MIB - 4096, 4096).await.unwrap().len(),
        4096
    );
    world.moved(256 << 10).await;
    assert_eq!((world.urls(), world.gets()), (1, 2));
    assert!(!file.is_verified());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_readers_fetch_every_unit_once() {
    let world = World::new().await;
    let size = 24 * MIB;
    let file = world.file(size, 9).await;
    let expected = Arc::new(pattern(9, 0, size));
    let readers: Vec<_> = (0..50)
        .map(|_| {
            let (file, expected) = (Arc::clone(&file), Arc::clone(&expected));
            tokio::spawn(async move { read_all(&file).await.unwrap() == *expected })
        })
        .collect();
    for reader in readers {
        assert!(reader.await.unwrap());
    }
    // No unit twice; what a connection had sent beyond the place where it was cut off is lost.
    assert!(
        world.bytes_down() <= size + size / 4,
        "{}",
        world.bytes_down()
    );
    assert_eq!(world.urls(), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sequential_reading_takes_few_large_ranges() {
    let world = World::new().await;
    let size = 64 * MIB;
    let file = world.file(size, 2).await;
    assert!(read_all(&file).await.unwrap() == pattern(2, 0, size));
    world.moved(size).await;
    assert!(world.gets() <= 100, "{} requests", world.gets());
    eventually("verified", || file.is_verified()).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seek_ends_reading_ahead() {
    let world = World::new().await;
    let file = world.file(100 * MIB, 3).await;
    // Slow enough that what is read ahead cannot all be here before the seek.
    world.emulator.set(|knobs| knobs.down_total = 20 << 20);
    let cursor = ReadCursor::new();
    for step in 0..16 {
        file.read(step * 128 * 1024, 128 << 10, &cursor)
            .await
            .unwrap();
    }
    for step in 0..16u64 {
        let offset = (50 + 3 * step) * MIB;
        assert_eq!(
            file.read(offset, 4096, &cursor).await.unwrap(),
            pattern(3, offset, 4096)
        );
    }
    assert!(world.bytes_down() < 32 * MIB, "{}", world.bytes_down());
    drop(cursor);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cache_reads_work_from_memory() {
    let options = StoreOptions {
        cache_on: false,
        ..StoreOptions::default()
    };
    let world = World::with(limits(), options).await;
    for size in [5, 700_000, MIB, 3 * MIB, 80 * MIB] {
        let file = world.file(size, size).await;
        assert!(read_all(&file).await.unwrap() == pattern(size, 0, size));
        let most = size + size / 2 + 64 * 1024;
        assert!(
            world.bytes_down() <= most,
            "{} for {size}",
            world.bytes_down()
        );
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_cache_is_not_an_obstacle() {
    let options = StoreOptions {
        cache_size: 4 * MIB,
        ..StoreOptions::default()
    };
    let world = World::with(limits(), options).await;
    let size = 48 * MIB;
    let file = world.file(size, 4).await;
    assert!(read_all(&file).await.unwrap() == pattern(4, 0, size));
    assert!(world.store.cache().used_bytes() <= 4 * MIB);
    assert!(world.bytes_down() <= 2 * size, "{}", world.bytes_down());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_within_a_small_budget() {
    let small = TransferLimits {
        memory: MemoryBudget::new(16 * MIB),
        ..limits()
    };
    let world = World::with(small, StoreOptions::default()).await;
    let mut readers = Vec::new();
    for seed in 0..12 {
        let file = world.file(8 * MIB, seed).await;
        readers.push(tokio::spawn(async move {
            read_all(&file).await.unwrap() == pattern(seed, 0, 8 * MIB)
        }));
    }
    for reader in readers {
        assert!(reader.await.unwrap());
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hydrating_gives_every_byte_once() {
    let world = World::new().await;
    let file = world.file(9 * MIB, 6).await;
    let mut got = Vec::new();
    let range = 100..9 * MIB - 5;
    let expected = pattern(6, range.start, range.end - range.start);
    file.hydrate(range.clone(), |offset, bytes| {
        assert_eq!(offset, range.start + got.len() as u64);
        got.extend_from_slice(&bytes);
        Ok(())
    })
    .await
    .unwrap();
    assert!(got == expected);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_may_be_polled_outside_of_the_runtime() {
    let world = World::new().await;
    let file = world.file(5 * MIB, 7).await;
    let outside = std::thread::scope(|scope| {
        let poll = || {
            let cursor = ReadCursor::new();
            let mut read = pin!(file.read(MIB, 100, &cursor));
            let mut context = Context::from_waker(Waker::noop());
            let cold = read.as_mut().poll(&mut context);
            // Ready already on a day when this thread is slow and the server is not.
            matches!(cold, Poll::Pending | Poll::Ready(Ok(_)))
        };
        scope.spawn(poll).join()
    });
    assert!(outside.expect("no panic"));
    assert_eq!(
        read_at(&file, MIB, 100).await.unwrap(),
        pattern(7, MIB, 100)
    );
    world.finish().await;
}
