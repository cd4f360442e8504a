//! `kill -9` at any moment: what was acknowledged is there, and nothing is there that is not.
//!
//! The test starts itself again as a child that works and prints a line after each acknowledged step;
//! the parent kills it after so many lines, reopens the directory and looks at everything.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use mega_crypto::MasterKey;
use mega_proto::{NodeHandle, NodeKind};
use mega_store::{
    ChangeRow, ChangeState, ContentRow, LockHolder, Percent, Place, StatePaths, Store,
    StoreOptions, Subject, UNIT,
};

const DIR: &str = "MEGA_STORE_KILL_DIR";
const LIMIT: u64 = 40 * UNIT;
const BLOB: u64 = 7 * UNIT + 5;

fn open(dir: &Path) -> Store {
    let paths = StatePaths {
        state_dir: dir.join("state"),
        cache_dir: dir.join("cache"),
    };
    let holder = LockHolder {
        pid: 1,
        mountpoint: "/mnt".into(),
    };
    let options = StoreOptions {
        cache_size: LIMIT,
        cache_min_free: Percent(0),
        cache_on: true,
        ..StoreOptions::default()
    };
    let store = Store::open(&paths, &holder, options).unwrap();
    store.unlock(&MasterKey::from_bytes([5; 16])).unwrap();
    store
}

fn bytes(seed: u64, length: u64) -> Vec<u8> {
    (0..length)
        .map(|at| (at.wrapping_mul(31) ^ seed.wrapping_mul(97)) as u8)
        .collect()
}

/// Offset and length of what step `id` writes: inline, spilled, and sparse ones.
fn span(id: u64) -> (u64, u64) {
    match id % 3 {
        0 => (id % 100, 1 + id * 37 % 9000),
        1 => (id % 7, 70_000 + id * 101 % 60_000),
        _ => (100_000 + id, 5000),
    }
}

#[test]
#[ignore = "the other half of the test below"]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let store = open(Path::new(&dir));
    let mut out = std::io::stdout().lock();
    loop {
        let id = store.next_local_id().unwrap();
        let (at, length) = span(id.0);
        let mut layer = store.new_layer(0);
        layer.write_at(at, &bytes(id.0, length)).unwrap();
        let place = Place {
            parent: NodeHandle([1; 6]).into(),
            name: format!("file {}", id.0),
        };
        let content = ContentRow {
            base: None,
            size: at + length,
            generation: 1,
            synced: false,
            layers: vec![layer.row(false)],
        };
        let row = ChangeRow {
            subject: Subject::Local(id),
            kind: NodeKind::File,
            place: Some(place),
            attributes: None,
            content: Some(content),
            removed: false,
            replaces: None,
            state: ChangeState::Pending { due_ms: 0 },
            since_ms: 0,
        };
        store.write(|tx| tx.put_change(&row)).unwrap();
        writeln!(out, "ack {}", id.0).unwrap();
        out.flush().unwrap();
        // Something in the cache, evicting and recording all the while.
        let blob = store
            .cache()
            .open(NodeHandle::from_u48(id.0 % 20), BLOB)
            .unwrap();
        for unit in 0..8 {
            let length = (BLOB - unit * UNIT).min(UNIT);
            blob.write_unit(unit, &bytes(id.0 % 20 + unit, length))
                .unwrap();
        }
        if id.0.is_multiple_of(3) {
            store.cache().flush_maps().unwrap();
        }
        if id.0.is_multiple_of(11) {
            blob.drop_content().unwrap();
        }
        if id.0.is_multiple_of(50) {
            layer.sync_data().unwrap();
            store.sync().unwrap();
        }
    }
}

fn disk_use(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let shelves = std::fs::read_dir(dir.join("cache")).unwrap().flatten();
    let shelves = shelves.filter(|shelf| shelf.path().is_dir());
    let files = shelves.flat_map(|shelf| std::fs::read_dir(shelf.path()).unwrap().flatten());
    files
        .map(|file| file.metadata().unwrap().blocks() * 512)
        .sum()
}

#[test]
fn what_was_acknowledged_survives() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<u64> = Vec::new();
    let mut killed = 0;
    let mut cached = 0;
    for stop_after in [1, 3, 10, 40, 41, 97, 200, 5, 120] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        for line in lines {
            let line = line.unwrap();
            let Some((_, id)) = line.split_once("ack ") else {
                continue;
            };
            acknowledged.push(id.trim().parse().unwrap());
            seen += 1;
            if seen == stop_after {
                child.kill().unwrap();
                killed += 1;
            }
        }
        assert!(
            !child.wait().unwrap().success(),
            "the child ended by itself"
        );
        let store = open(dir.path());
        let rows = store.changes().unwrap();
        for id in &acknowledged {
            let row = rows
                .iter()
                .find(|row| row.subject == Subject::Local(mega_store::LocalId(*id)));
            let row = row.unwrap_or_else(|| panic!("{id} is lost"));
            assert_eq!(row.place.as_ref().unwrap().name, format!("file {id}"));
            let layer = store
                .open_layer(&row.content.as_ref().unwrap().layers[0])
                .unwrap();
            let (at, length) = span(*id);
            let mut found = vec![0; length as usize];
            layer.read_at(at, &mut found).unwrap();
            assert!(found == bytes(*id, length), "{id} has other bytes");
        }
        // At most the one step that was not acknowledged.
        assert!(rows.len() <= acknowledged.len() + killed);
        assert!(store.unsynced_after_power_loss().unwrap().is_empty());
        // I3: every unit that is said to be there is there; the bound holds at once.
        assert!(store.cache().used_bytes() <= LIMIT);
        assert!(disk_use(dir.path()) <= LIMIT);
        for number in 0..20 {
            let blob = store
                .cache()
                .open(NodeHandle::from_u48(number), BLOB)
                .unwrap();
            for unit in 0..8 {
                let length = (BLOB - unit * UNIT).min(UNIT);
                let mut found = vec![0; length as usize];
                if blob.read_at(unit * UNIT, &mut found).unwrap() {
                    cached += 1;
                    assert!(
                        found == bytes(number + unit, length),
                        "blob {number} unit {unit}"
                    );
                }
            }
        }
    }
    assert_eq!(killed, 9);
    assert!(cached > 50, "hardly anything was cached: {cached}");
}
