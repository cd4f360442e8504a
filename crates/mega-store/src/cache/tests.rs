//! The cache as its users see it, and what is on the disk under it.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::*;
use crate::store::tests::{handle, holder, open, options, paths};
use crate::store::{Store, StoreOptions};

const SIZE: u64 = 5 * UNIT + 1000;

fn small(dir: &Path, limit: u64) -> Store {
    Store::open(&paths(dir), &holder(), options(limit)).unwrap()
}

fn unit(number: u64, length: u64) -> Vec<u8> {
    (0..length)
        .map(|at| (at as u8).wrapping_mul(13).wrapping_add(number as u8))
        .collect()
}

fn fill(blob: &Blob) {
    for number in 0..blob.size().div_ceil(UNIT) {
        let length = (blob.size() - number * UNIT).min(UNIT);
        assert!(blob.write_unit(number, &unit(number, length)).unwrap());
    }
}

fn whole(blob: &Blob) -> Option<Vec<u8>> {
    let mut bytes = vec![0; blob.size() as usize];
    blob.read_at(0, &mut bytes).unwrap().then_some(bytes)
}

fn expected(size: u64) -> Vec<u8> {
    (0..size.div_ceil(UNIT))
        .flat_map(|number| unit(number, (size - number * UNIT).min(UNIT)))
        .collect()
}

fn file(dir: &Path, number: u64) -> PathBuf {
    blob_path(&paths(dir).cache_dir, handle(number))
}

/// Bytes of blobs on disk.
fn on_disk_now(dir: &Path) -> u64 {
    let mut sum = 0;
    for shelf in std::fs::read_dir(paths(dir).cache_dir).unwrap() {
        let shelf = shelf.unwrap().path();
        if shelf.is_dir() {
            for file in std::fs::read_dir(shelf).unwrap() {
                sum += file.unwrap().metadata().unwrap().blocks() * 512;
            }
        }
    }
    sum
}

#[test]
fn units_are_kept_read_and_missed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let blob = store.cache().open(handle(1), SIZE).unwrap();
    assert_eq!(blob.missing(0..SIZE), vec![0..SIZE]);
    assert_eq!(blob.missing(UNIT + 5..UNIT + 6), vec![UNIT..2 * UNIT]);
    assert!(blob.write_unit(1, &unit(1, UNIT)).unwrap());
    assert!(blob.write_unit(5, &unit(5, 1000)).unwrap());
    assert_eq!(blob.missing(0..u64::MAX), vec![0..UNIT, 2 * UNIT..5 * UNIT]);
    assert!(blob.missing(SIZE..SIZE + 5).is_empty());
    let mut bytes = [0; 100];
    assert!(blob.read_at(UNIT + 17, &mut bytes).unwrap());
    assert_eq!(bytes, unit(1, UNIT)[17..117]);
    assert!(!blob.read_at(UNIT - 1, &mut bytes).unwrap());
    assert!(!blob.read_at(SIZE - 1, &mut bytes).unwrap());
    assert!(!blob.read_at(u64::MAX, &mut bytes).unwrap());
    assert!(blob.write_unit(2, b"short").is_err() && blob.write_unit(6, b"").is_err());
    assert!(!blob.is_complete());
    fill(&blob);
    assert!(blob.is_complete() && whole(&blob).unwrap() == expected(SIZE));
    assert_eq!(store.cache().used_bytes(), 5 * UNIT + 4096);
    assert!(Arc::ptr_eq(
        &blob,
        &store.cache().open(handle(1), SIZE).unwrap()
    ));
    assert!(store.cache().open(handle(1), SIZE + 1).is_err());
    let empty = store.cache().open(handle(2), 0).unwrap();
    assert!(empty.is_complete() && empty.read_at(0, &mut []).unwrap());
}

#[test]
fn maps_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        let blob = store.cache().open(handle(1), SIZE).unwrap();
        fill(&blob);
        blob.set_verified();
        blob.set_chunk_mac(3, [7; 16]);
        let part = store.cache().open(handle(2), SIZE).unwrap();
        assert!(part.write_unit(3, &unit(3, UNIT)).unwrap());
    }
    let store = open(dir.path());
    assert_eq!(store.cache().used_bytes(), 6 * UNIT + 4096);
    let blob = store.cache().open(handle(1), SIZE).unwrap();
    assert!(blob.is_complete() && blob.is_verified());
    assert_eq!(
        (blob.chunk_mac(3), blob.chunk_mac(2)),
        (Some([7; 16]), None)
    );
    assert!(whole(&blob).unwrap() == expected(SIZE));
    let part = store.cache().open(handle(2), SIZE).unwrap();
    assert_eq!(part.missing(0..SIZE), vec![0..3 * UNIT, 4 * UNIT..SIZE]);
    blob.drop_content().unwrap();
    assert!(!blob.is_complete() && !blob.is_verified() && blob.chunk_mac(3).is_none());
    assert!(!file(dir.path(), 1).exists());
    assert_eq!(store.cache().used_bytes(), UNIT);
    // It can be filled again.
    fill(&blob);
    assert!(whole(&blob).unwrap() == expected(SIZE));
}

#[test]
fn a_file_that_changed_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        for number in 1..=3 {
            fill(&store.cache().open(handle(number), SIZE).unwrap());
        }
    }
    std::fs::OpenOptions::new()
        .write(true)
        .open(file(dir.path(), 1))
        .unwrap()
        .set_len(7)
        .unwrap();
    std::fs::remove_file(file(dir.path(), 2)).unwrap();
    let store = open(dir.path());
    for number in 1..=2 {
        let blob = store.cache().open(handle(number), SIZE).unwrap();
        assert_eq!(blob.missing(0..SIZE), vec![0..SIZE]);
        assert!(!blob.read_at(0, &mut [0]).unwrap());
    }
    // While it is open: the bytes are gone, reading says so and the network is asked again.
    let blob = store.cache().open(handle(3), SIZE).unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(file(dir.path(), 3))
        .unwrap()
        .set_len(7)
        .unwrap();
    assert!(!blob.read_at(UNIT, &mut [0; 9]).unwrap());
    assert_eq!(blob.missing(0..SIZE), vec![0..SIZE]);
    assert_eq!(store.cache().used_bytes(), 0);
    fill(&blob);
    assert!(whole(&blob).is_some());
}

#[test]
fn the_bound_holds_before_each_write() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 20 * UNIT;
    let store = small(dir.path(), limit);
    let mut last = None;
    for number in 0..40 {
        let blob = store.cache().open(handle(number), 3 * UNIT).unwrap();
        for unit_number in 0..3 {
            assert!(
                blob.write_unit(unit_number, &unit(unit_number, UNIT))
                    .unwrap()
            );
            assert!(store.cache().used_bytes() <= limit);
            assert!(on_disk_now(dir.path()) <= limit);
        }
        if number % 5 == 0 {
            store.cache().flush_maps().unwrap();
        }
        last = Some(blob);
    }
    assert!(last.unwrap().is_complete());
    assert!(store.cache().used_bytes() > limit / 2);
    let is_there = |number| {
        store
            .cache()
            .open(handle(number), 3 * UNIT)
            .unwrap()
            .is_complete()
    };
    assert!(is_there(38) && !is_there(0) && !is_there(20));
}

#[test]
fn the_least_recently_used_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = small(dir.path(), 10 * UNIT);
    for number in 0..5 {
        fill(&store.cache().open(handle(number), 2 * UNIT).unwrap());
        // Times are milliseconds: let the clock move on.
        let now = now_ms();
        while now_ms() == now {
            std::thread::yield_now();
        }
    }
    let touched = store.cache().open(handle(0), 2 * UNIT).unwrap();
    touched.recorded_use_is_old();
    assert!(whole(&touched).is_some());
    drop(touched);
    fill(&store.cache().open(handle(9), 2 * UNIT).unwrap());
    let is_there = |number| {
        store
            .cache()
            .open(handle(number), 2 * UNIT)
            .unwrap()
            .is_complete()
    };
    assert!(is_there(0) && is_there(9) && !is_there(1));
}

#[test]
fn what_is_pinned_or_in_use_stays_and_the_rest_is_declined() {
    let dir = tempfile::tempdir().unwrap();
    let store = small(dir.path(), 4 * UNIT);
    let pinned = store.cache().open(handle(1), 2 * UNIT).unwrap();
    fill(&pinned);
    let pin = pinned.pin();
    drop(pinned);
    let used = store.cache().open(handle(2), 2 * UNIT).unwrap();
    fill(&used);
    let third = store.cache().open(handle(3), 2 * UNIT).unwrap();
    assert!(!third.write_unit(0, &unit(0, UNIT)).unwrap());
    assert!(whole(pin.blob()).is_some() && whole(&used).is_some());
    assert!(on_disk_now(dir.path()) <= 4 * UNIT);
    drop(used);
    assert!(third.write_unit(0, &unit(0, UNIT)).unwrap());
    assert!(whole(pin.blob()).is_some());
    let huge = store.cache().open(handle(4), 50 * UNIT).unwrap();
    assert!(huge.write_unit(7, &unit(7, UNIT)).unwrap());
    store.cache().forget(handle(1)).unwrap();
    assert!(whole(pin.blob()).is_some());
    drop(pin);
    store.cache().forget(handle(1)).unwrap();
    assert!(!file(dir.path(), 1).exists());
}

#[test]
fn a_file_larger_than_the_cache_streams_through_it() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 200 * UNIT;
    let store = small(dir.path(), limit);
    let blob = store.cache().open(handle(1), 600 * UNIT).unwrap();
    for number in 0..600 {
        assert!(
            blob.write_unit(number, &unit(number, UNIT)).unwrap(),
            "{number}"
        );
        let mut bytes = vec![0; UNIT as usize];
        assert!(blob.read_at(number * UNIT, &mut bytes).unwrap());
        assert!(bytes == unit(number, UNIT));
        assert!(store.cache().used_bytes() <= limit);
    }
    assert!(on_disk_now(dir.path()) <= limit);
    assert!(!blob.read_at(0, &mut [0]).unwrap());
    // What the map says is what the file has, also after a reopening.
    let missing = blob.missing(0..blob.size());
    drop(blob);
    drop(store);
    let store = small(dir.path(), limit);
    assert_eq!(
        store
            .cache()
            .open(handle(1), 600 * UNIT)
            .unwrap()
            .missing(0..600 * UNIT),
        missing
    );
}

#[test]
fn rows_are_settled_when_idle_and_empty_ones_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let count = |condition: &str| -> i64 {
        let sql = format!("SELECT count(*) FROM blob WHERE {condition}");
        store
            .cache()
            .shared
            .db
            .read(|db| Ok(db.query_row(&sql, [], |row| row.get(0))?))
            .unwrap()
    };
    let blob = store.cache().open(handle(1), SIZE).unwrap();
    assert_eq!(count("1"), 0);
    fill(&blob);
    assert_eq!(count("active = 1 AND bytes = 0"), 1);
    store.cache().flush_maps().unwrap();
    assert_eq!(count("active = 1 AND bytes > 0"), 1);
    store.cache().flush_maps().unwrap();
    assert_eq!(count("active = 0 AND bytes > 0"), 1);
    assert!(lock(&store.cache().shared.table).unsettled.is_empty());
    blob.drop_content().unwrap();
    assert_eq!(count("active = 1 AND bytes = 0"), 1);
    store.cache().flush_maps().unwrap();
    store.cache().flush_maps().unwrap();
    assert_eq!(count("1"), 0);
}

/// Written past the page cache where that is possible, and read through it.
#[test]
fn large_uploads_are_adopted_wherever_their_memory_lies() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let size = DIRECT_FROM + 3 * UNIT + 4097;
    let bytes = expected(size);
    let pending = store.cache().begin_adopt(size).unwrap();
    let piece = 4 << 20;
    for (number, part) in bytes.chunks(piece).enumerate() {
        let mut memory = vec![0; piece + 2 * DIRECT_ALIGNMENT];
        let aligned = memory.as_ptr().align_offset(DIRECT_ALIGNMENT);
        let start = aligned + if number == 1 { 16 } else { 0 };
        let place = &mut memory[start..start + part.len()];
        place.copy_from_slice(part);
        assert!(pending.write((number * piece) as u64, place).unwrap());
    }
    let blob = store.cache().adopt(pending, handle(1)).unwrap();
    assert!(blob.is_complete() && whole(&blob).unwrap() == bytes);
    assert_eq!(store.cache().used_bytes(), size.next_multiple_of(4096));
}

#[test]
fn uploads_are_adopted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let bytes = expected(SIZE);
    let pending = store.cache().begin_adopt(SIZE).unwrap();
    std::thread::scope(|scope| {
        for (piece, part) in bytes
            .chunks(200_000)
            .enumerate()
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
        {
            let pending = &pending;
            scope.spawn(move || assert!(pending.write(piece as u64 * 200_000, part).unwrap()));
        }
    });
    assert!(!pending.write(SIZE, b"beyond").unwrap());
    let blob = store.cache().adopt(pending, handle(1)).unwrap();
    assert!(blob.is_complete() && whole(&blob).unwrap() == bytes);
    assert_eq!(store.cache().used_bytes(), 5 * UNIT + 4096);
    // Only whole units count.
    let pending = store.cache().begin_adopt(SIZE).unwrap();
    assert!(
        pending
            .write(10, &bytes[10..2 * UNIT as usize + 10])
            .unwrap()
    );
    let part = store.cache().adopt(pending, handle(2)).unwrap();
    assert_eq!(part.missing(0..SIZE), vec![0..UNIT, 2 * UNIT..SIZE]);
    // What is there already stays; what is dropped leaves nothing.
    let pending = store.cache().begin_adopt(SIZE).unwrap();
    assert!(pending.write(0, &[0; 300_000]).unwrap());
    assert!(whole(&store.cache().adopt(pending, handle(1)).unwrap()).unwrap() == bytes);
    drop(store.cache().begin_adopt(SIZE).unwrap());
    assert_eq!(store.cache().used_bytes(), 6 * UNIT + 4096);
    assert_eq!(
        std::fs::read_dir(paths(dir.path()).cache_dir.join("pending"))
            .unwrap()
            .count(),
        0
    );
    let huge = store.cache().begin_adopt(2 << 30).unwrap();
    assert!(!huge.write(0, b"x").unwrap());
    drop((blob, part, huge, store));
    let store = open(dir.path());
    assert!(store.cache().open(handle(1), SIZE).unwrap().is_complete());
}

#[test]
fn after_a_power_cut_only_synced_units_are_believed() {
    let dir = tempfile::tempdir().unwrap();
    let open = |boot: &str| {
        Store::open_in_boot(&paths(dir.path()), &holder(), options(1 << 30), boot).unwrap()
    };
    {
        let store = open("a");
        for number in 1..=3 {
            let blob = store.cache().open(handle(number), SIZE).unwrap();
            fill(&blob);
            blob.set_verified();
        }
        let part = store.cache().open(handle(4), SIZE).unwrap();
        assert!(part.write_unit(0, &unit(0, UNIT)).unwrap());
        store.cache().sync().unwrap();
        assert!(part.write_unit(2, &unit(2, UNIT)).unwrap());
        let late = store.cache().open(handle(5), SIZE).unwrap();
        fill(&late);
        // Taken away and brought back: the sync no longer vouches for it.
        let again = store.cache().open(handle(3), SIZE).unwrap();
        again.drop_content().unwrap();
        fill(&again);
    }
    // The power cut took bytes of blob 2 that its row still counts.
    let holes = std::fs::OpenOptions::new()
        .write(true)
        .open(file(dir.path(), 2))
        .unwrap();
    recovery::punch(&holes, 0..UNIT).unwrap();
    let stray = blob_path(&paths(dir.path()).cache_dir, handle(0x1234));
    std::fs::create_dir_all(stray.parent().unwrap()).unwrap();
    std::fs::write(&stray, b"unknown").unwrap();
    {
        let store = open("a");
        assert!(store.cache().open(handle(5), SIZE).unwrap().is_complete());
    }
    let store = open("b");
    let blob = |number| store.cache().open(handle(number), SIZE).unwrap();
    assert!(blob(1).is_complete() && blob(1).is_verified());
    assert!(whole(&blob(1)).unwrap() == expected(SIZE));
    assert_eq!(blob(2).missing(0..SIZE), vec![0..SIZE]);
    assert_eq!(blob(3).missing(0..SIZE), vec![0..SIZE]);
    assert_eq!(blob(4).missing(0..SIZE), vec![UNIT..SIZE]);
    assert_eq!(blob(5).missing(0..SIZE), vec![0..SIZE]);
    assert!(!stray.exists() && !file(dir.path(), 5).exists());
    assert_eq!(store.cache().used_bytes(), 6 * UNIT + 4096);
    assert!(on_disk_now(dir.path()) <= 6 * UNIT + 4096);
}

#[test]
fn off_means_nothing_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let off = StoreOptions {
        cache_on: false,
        ..options(1 << 30)
    };
    let store = Store::open(&paths(dir.path()), &holder(), off).unwrap();
    let blob = store.cache().open(handle(1), SIZE).unwrap();
    fill(&blob);
    assert!(blob.is_complete() && whole(&blob).unwrap() == expected(SIZE));
    let mut bytes = [0; 100];
    assert!(blob.read_at(UNIT - 50, &mut bytes).unwrap());
    assert_eq!(
        bytes,
        expected(SIZE)[UNIT as usize - 50..UNIT as usize + 50]
    );
    let pending = store.cache().begin_adopt(10).unwrap();
    assert!(!pending.write(0, b"x").unwrap());
    assert!(
        !store
            .cache()
            .adopt(pending, handle(2))
            .unwrap()
            .is_complete()
    );
    store.cache().flush_maps().unwrap();
    store.cache().sync().unwrap();
    blob.drop_content().unwrap();
    assert_eq!(store.cache().used_bytes(), 0);
    assert!(!paths(dir.path()).cache_dir.exists());
}

#[test]
fn many_threads_agree() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 64 * UNIT;
    let store = small(dir.path(), limit);
    std::thread::scope(|scope| {
        for thread in 0..6_u64 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..120_u64 {
                    let number = (round * 7 + thread * 3) % 30;
                    let blob = store.cache().open(handle(number), SIZE).unwrap();
                    let at = (round + thread) % 6;
                    let length = (SIZE - at * UNIT).min(UNIT);
                    let mut bytes = vec![0; length as usize];
                    if blob.read_at(at * UNIT, &mut bytes).unwrap() {
                        assert!(bytes == unit(at, length), "blob {number} unit {at}");
                    } else {
                        blob.write_unit(at, &unit(at, length)).unwrap();
                    }
                    assert!(store.cache().used_bytes() <= limit);
                    if round % 40 == 7 {
                        blob.drop_content().unwrap();
                    }
                    if thread == 0 && round % 5 == 0 {
                        store.cache().flush_maps().unwrap();
                    }
                }
            });
        }
    });
    let used = store.cache().used_bytes();
    drop(store);
    let store = small(dir.path(), limit);
    assert_eq!(store.cache().used_bytes(), used);
    for number in 0..30 {
        let blob = store.cache().open(handle(number), SIZE).unwrap();
        for at in 0..6 {
            let length = (SIZE - at * UNIT).min(UNIT);
            let mut bytes = vec![0; length as usize];
            if blob.read_at(at * UNIT, &mut bytes).unwrap() {
                assert!(bytes == unit(at, length));
            }
        }
    }
}

#[test]
fn thousands_of_blobs_need_few_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut held = Vec::new();
    let mut layers = Vec::new();
    for number in 0..600 {
        let blob = store.cache().open(handle(number), UNIT + 1).unwrap();
        assert!(blob.write_unit(0, &unit(number, UNIT)).unwrap());
        held.push(blob);
        let mut layer = store.new_layer(0);
        layer.write_at(70_000, &number.to_le_bytes()).unwrap();
        layers.push(layer);
    }
    assert!(descriptors() < 400, "{}", descriptors());
    for (number, blob) in (0..).zip(&held) {
        assert!(blob.write_unit(1, &[5]).unwrap());
        let mut bytes = vec![0; UNIT as usize];
        assert!(blob.read_at(0, &mut bytes).unwrap() && bytes == unit(number, UNIT));
    }
    for (number, layer) in (0_u64..).zip(layers) {
        let reader = layer.reader();
        layer.delete().unwrap();
        let mut bytes = [0; 8];
        reader.read_at(70_000, &mut bytes).unwrap();
        assert_eq!(bytes, number.to_le_bytes());
    }
    assert!(descriptors() < 400);
}

#[test]
fn a_file_that_vanishes_is_not_read_as_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let blob = store.cache().open(handle(1), SIZE).unwrap();
    fill(&blob);
    std::fs::remove_file(file(dir.path(), 1)).unwrap();
    store.cache().shared.open_files.take(&handle(1));
    let mut bytes = [1; 10];
    assert!(!blob.read_at(0, &mut bytes).unwrap());
    assert_eq!(blob.missing(0..SIZE), vec![0..SIZE]);
    assert!(blob.write_unit(0, &unit(0, UNIT)).unwrap());
    std::fs::remove_file(file(dir.path(), 1)).unwrap();
    store.cache().shared.open_files.take(&handle(1));
    assert!(blob.write_unit(1, &unit(1, UNIT)).unwrap());
    assert_eq!(blob.missing(0..SIZE), vec![0..UNIT, 2 * UNIT..SIZE]);
}
