//! Prints what the store does per second: `cargo run --release -p mega-store --example cache_speed`.
//!
//! Loading a million rows, thousands of rows per CPU second, two or more runs each on two cores shared
//! with compilers (so orientation only): rows inserted as they come with an index, 134-151 first, 43-44
//! reload grouped, 27-28 reload in no order; sorted first, 161-249, 86-121 and 99-140.
//! Since then `node_size` has the larger files, here seven of eight: 191-227, 111-123 and 98-113 where it was
//! 262-267, 151-163 and 138-151 without any in the same hour.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement, not a part of the program"
)]

use std::time::Instant;

use mega_crypto::MasterKey;
use mega_proto::{NodeHandle, NodeKind, Seqno};
use mega_store::{
    ChangeRow, ChangeState, ContentRow, LockHolder, NodeRow, Percent, Place, StatePaths, Store,
    StoreOptions, Subject, UNIT,
};

/// A number that looks random: handles are.
const fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ (x >> 32)
}

fn node(number: u64, parent: u64) -> NodeRow {
    NodeRow {
        handle: NodeHandle::from_u48(mix(number)),
        parent: Some(NodeHandle::from_u48(mix(parent))),
        kind: if number <= 20_000 {
            NodeKind::Folder
        } else {
            NodeKind::File
        },
        owner: Some(mega_proto::UserHandle([1; 8])),
        size: number,
        ts: 1_700_000_000,
        key: "Kbocb5Q6ti4:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned(),
        attrs: vec![number.to_le_bytes()[0]; 96],
        fa: None,
        arrival: 0,
        suffix: None,
    }
}

/// The folder of a file, given its number and how many there are.
type Order = fn(u64, u64) -> u64;

/// Wall clock and processor time of a step; the second says what a busy machine hides.
struct Began(Instant, f64);

/// Processor seconds of this process so far.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let ticks = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .skip(11)
        .take(2);
    ticks
        .map(|ticks| ticks.parse::<f64>().unwrap())
        .sum::<f64>()
        / 100.0
}

impl Began {
    fn now() -> Self {
        Self(Instant::now(), cpu())
    }
}

fn rate(what: &str, count: u64, unit: &str, began: Began) {
    let per_second = count as f64 / began.0.elapsed().as_secs_f64();
    let cpu = cpu() - began.1;
    println!(
        "{what:<40} {per_second:>12.0} {unit}/s, {:>12.0} per CPU second",
        count as f64 / cpu
    );
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap()
        .to_owned();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn main() {
    let rows: u64 = std::env::args()
        .nth(1)
        .map_or(1_000_000, |text| text.parse().unwrap());
    let dir = tempfile::tempdir_in(".").unwrap();
    let paths = StatePaths {
        state_dir: dir.path().join("state"),
        cache_dir: dir.path().join("cache"),
    };
    let holder = LockHolder {
        pid: 1,
        mountpoint: "/mnt".into(),
    };
    let options = StoreOptions {
        cache_min_free: Percent(0),
        ..StoreOptions::default()
    };
    let store = Store::open(&paths, &holder, options).unwrap();
    store.unlock(&MasterKey::from_bytes([5; 16])).unwrap();

    // Files below 20,000 folders: first in the order of the tree, then in no order at all.
    let orders: [(&str, Order); 3] = [
        ("load, grouped by folder", |at, rows| 1 + at * 20_000 / rows),
        ("reload, grouped by folder", |at, rows| {
            1 + at * 20_000 / rows
        }),
        ("reload, no order", |at, _| 1 + mix(at) % 20_000),
    ];
    for (what, parent) in orders {
        let began = Began::now();
        let mut loader = store.begin_load().unwrap();
        for at in 1..=rows {
            loader.node(node(at, parent(at, rows))).unwrap();
        }
        loader.finish(&Seqno::from("sn")).unwrap().remove().unwrap();
        rate(what, rows, "rows", began);
    }
    println!("{:<44} {:>12} KiB", "peak memory so far", resident());
    let size = std::fs::metadata(paths.state_dir.join("state.db"))
        .unwrap()
        .len();
    println!("{:<44} {:>12} KiB", "state.db", size >> 10);

    let began = Began::now();
    let mut entries = 0;
    for folder in 1..=20_000 {
        entries += store
            .children(NodeHandle::from_u48(mix(folder)))
            .unwrap()
            .len() as u64;
    }
    rate("children(), entries", entries, "rows", began);
    let began = Began::now();
    for at in 1..=100_000 {
        assert!(
            store
                .node(NodeHandle::from_u48(mix(at * 7 % rows + 1)))
                .unwrap()
                .is_some()
        );
    }
    rate("node()", 100_000, "look-ups", began);

    let change = |id: u64, layers| ChangeRow {
        subject: Subject::Local(mega_store::LocalId(id)),
        kind: NodeKind::File,
        place: Some(Place {
            parent: NodeHandle([1; 6]).into(),
            name: format!("file-{id}.txt"),
        }),
        attributes: None,
        content: Some(ContentRow {
            base: None,
            size: 4096,
            generation: 1,
            synced: false,
            layers,
        }),
        removed: false,
        replaces: None,
        state: ChangeState::Pending { due_ms: 0 },
        since_ms: 0,
    };
    let began = Began::now();
    for id in 0..20_000 {
        let mut layer = store.new_layer(0);
        layer.write_at(0, &[7; 4096]).unwrap();
        let row = change(id, vec![layer.row(false)]);
        store.write(|tx| tx.put_change(&row)).unwrap();
    }
    rate("create + 4 KiB inline + commit", 20_000, "files", began);
    let began = Began::now();
    for id in 0..500 {
        store
            .write(|tx| tx.put_change(&change(id, vec![])))
            .unwrap();
        store.sync().unwrap();
    }
    rate("commit + sync", 500, "commits", began);

    let piece = vec![7; UNIT as usize];
    let megabytes = 2048;
    let mut layer = store.new_layer(0);
    let began = Began::now();
    for at in (0..megabytes << 20).step_by(piece.len()) {
        layer.write_at(at, &piece).unwrap();
    }
    rate("staging write, 128 KiB", megabytes, "MiB", began);
    let mut buffer = vec![0; UNIT as usize];
    let began = Began::now();
    for at in (0..megabytes << 20).step_by(piece.len()) {
        layer.read_at(at, &mut buffer).unwrap();
    }
    rate("staging read, 128 KiB", megabytes, "MiB", began);
    layer.delete().unwrap();

    let blob = store
        .cache()
        .open(NodeHandle([9; 6]), megabytes << 20)
        .unwrap();
    let began = Began::now();
    for unit in 0..(megabytes << 20) / UNIT {
        assert!(blob.write_unit(unit, &piece).unwrap());
    }
    rate("cache write, 128 KiB", megabytes, "MiB", began);
    let began = Began::now();
    for unit in 0..(megabytes << 20) / UNIT {
        assert!(blob.read_at(unit * UNIT, &mut buffer).unwrap());
    }
    rate("cache read, 128 KiB", megabytes, "MiB", began);
    let began = Began::now();
    for number in 0..5000_u64 {
        let small = store
            .cache()
            .open(NodeHandle::from_u48(number), 4096)
            .unwrap();
        assert!(small.write_unit(0, &[1; 4096]).unwrap());
    }
    store.cache().flush_maps().unwrap();
    rate("small blobs: open, write, record", 5000, "blobs", began);
    println!("{:<44} {:>12} KiB", "peak memory", resident());
}
