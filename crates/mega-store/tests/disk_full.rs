//! A full disk: writers hear of it, nothing is poisoned, the queue can finish.
//!
//! Needs the right to mount a tmpfs; says so and passes without it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::process::Command;

use mega_crypto::MasterKey;
use mega_proto::NodeHandle;
use mega_store::{LockHolder, Percent, Space, StatePaths, Store, StoreError, StoreOptions, UNIT};

/// A small file system that goes away with the value.
struct SmallDisk(PathBuf, #[allow(dead_code)] tempfile::TempDir);

impl SmallDisk {
    fn new(megabytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "megamount-test"])
            .arg(dir.path())
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            println!("not tested: no right to mount a tmpfs");
            return None;
        }
        Some(Self(dir.path().to_path_buf(), dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn open(dir: &Path, cache_size: u64, min_free: u8) -> Store {
    let paths = StatePaths {
        state_dir: dir.join("state"),
        cache_dir: dir.join("cache"),
    };
    let holder = LockHolder {
        pid: 1,
        mountpoint: "/mnt".into(),
    };
    let options = StoreOptions {
        cache_size,
        cache_min_free: Percent(min_free),
        cache_on: true,
        ..StoreOptions::default()
    };
    let store = Store::open(&paths, &holder, options).unwrap();
    store.unlock(&MasterKey::from_bytes([5; 16])).unwrap();
    store
}

#[test]
fn a_full_disk_refuses_writers_and_lets_the_queue_finish() {
    let Some(disk) = SmallDisk::new(48) else {
        return;
    };
    let store = open(&disk.0, 1 << 30, 0);
    assert_eq!(store.space(), Space::Ample);
    let blob = store.cache().open(NodeHandle([1; 6]), 80 * UNIT).unwrap();
    for unit in 0..80 {
        assert!(blob.write_unit(unit, &vec![3; UNIT as usize]).unwrap());
    }
    drop(blob);
    let cached = store.cache().used_bytes();
    let mut layer = store.new_layer(0);
    let mut at = 0;
    let error = loop {
        match layer.write_at(at, &vec![7; 1 << 20]) {
            Ok(()) => at += 1 << 20,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::DiskFull), "{error:?}");
    // Clean cache went first, and nothing that was written before is gone.
    assert_eq!((cached, store.cache().used_bytes()), (80 * UNIT, 0));
    assert!(at >= 36 << 20, "{at}");
    assert_eq!(layer.extents().total(), at);
    let mut byte = [0];
    layer.read_at(at - 1, &mut byte).unwrap();
    assert_eq!(byte, [7]);
    assert!(store.poisoned().is_none());
    assert_eq!(store.space(), Space::Low);
    let mut other = store.new_layer(0);
    assert!(matches!(other.write_at(0, b"x"), Err(StoreError::DiskFull)));
    // The queue goes on: rows can be written, and made durable, from the reserve.
    for number in 0..200 {
        store
            .write(|tx| tx.meta_set(&format!("queue {number}"), &"x".repeat(4000)))
            .unwrap();
    }
    store.sync().unwrap();
    layer.delete().unwrap();
    store.cache().flush_maps().unwrap();
    assert_eq!(store.space(), Space::Ample);
    other.write_at(0, &vec![1; 1 << 20]).unwrap();
}

#[test]
fn a_database_that_meets_a_full_disk_is_not_poisoned() {
    let Some(disk) = SmallDisk::new(32) else {
        return;
    };
    let store = open(&disk.0, 0, 0);
    // Somebody else fills the disk.
    let _ = std::fs::write(disk.0.join("other"), vec![1; 64 << 20]);
    let mut refused = 0;
    for number in 0..3000 {
        let row = store.write(|tx| tx.meta_set(&format!("row {number}"), &"x".repeat(8000)));
        match row {
            Ok(()) => {}
            Err(StoreError::DiskFull) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(refused > 0);
    assert!(store.poisoned().is_none());
    std::fs::remove_file(disk.0.join("other")).unwrap();
    store.write(|tx| tx.meta_set("after", "all")).unwrap();
    store.sync().unwrap();
    drop(store);
    let store = open(&disk.0, 0, 0);
    assert_eq!(store.meta("after").unwrap().as_deref(), Some("all"));
}

#[test]
fn the_cache_leaves_the_disk_what_it_must() {
    let Some(disk) = SmallDisk::new(64) else {
        return;
    };
    let store = open(&disk.0, 1 << 30, 50);
    let blob = store.cache().open(NodeHandle([1; 6]), 400 * UNIT).unwrap();
    let kept = (0..400)
        .filter(|unit| blob.write_unit(*unit, &vec![3; UNIT as usize]).unwrap())
        .count() as u64;
    let stat = rustix::fs::statvfs(&disk.0).unwrap();
    assert!(
        stat.f_bavail * 2 >= stat.f_blocks,
        "{} of {}",
        stat.f_bavail,
        stat.f_blocks
    );
    assert!(kept * UNIT >= 16 << 20, "{kept}");
    let mut layer = store.new_layer(0);
    layer.write_at(0, &vec![7; 4 << 20]).unwrap();
}
