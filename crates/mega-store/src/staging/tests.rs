//! Staging files against a plain vector.

use proptest::prelude::*;

use super::*;
use crate::store::tests::open;

#[derive(Debug, Clone)]
enum Step {
    Write(u64, Vec<u8>),
    Discard(u64, u64),
    Reopen,
    Reclaim,
    Sync,
}

fn steps(limit: u64) -> impl Strategy<Value = Vec<Step>> {
    let bytes = (any::<u8>(), 1_usize..20_000).prop_map(|(seed, length)| {
        (0..length)
            .map(|at| (at as u8).wrapping_mul(31) ^ seed)
            .collect()
    });
    let step = prop_oneof![
        4 => (0..limit, bytes).prop_map(|(at, bytes)| Step::Write(at, bytes)),
        2 => (0..limit, 0..limit / 2).prop_map(|(at, length)| Step::Discard(at, at + length)),
        1 => Just(Step::Reopen),
        1 => Just(Step::Reclaim),
        1 => Just(Step::Sync),
    ];
    prop::collection::vec(step, 1..25)
}

/// The layer has exactly the model's bytes.
fn compare(layer: &StagingFile, model: &[Option<u8>]) {
    let mut extents = RangeSet::new();
    for (at, byte) in (0..).zip(model) {
        if byte.is_some() {
            extents.insert(at..at + 1);
        }
    }
    assert_eq!(layer.extents(), &extents);
    let reader = layer.reader();
    for range in extents.iter() {
        let expected: Vec<u8> = model[range.start as usize..range.end as usize]
            .iter()
            .map(|byte| byte.unwrap())
            .collect();
        let mut found = vec![0; expected.len()];
        layer.read_at(range.start, &mut found).unwrap();
        assert!(found == expected, "{range:?}");
        // Somewhere in the middle, unaligned.
        let (skip, length) = (expected.len() / 3, expected.len() / 2);
        let mut part = vec![0; length];
        reader
            .read_at(range.start + skip as u64, &mut part)
            .unwrap();
        assert!(part == expected[skip..skip + length]);
    }
    for gap in extents.gaps(0..model.len() as u64) {
        assert!(matches!(
            layer.read_at(gap.start, &mut [0]),
            Err(StoreError::NotPresent)
        ));
    }
}

fn run(limit: u64, steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut layer = store.new_layer(limit);
    let mut model: Vec<Option<u8>> = vec![None; limit as usize + 20_000];
    for step in steps {
        match step {
            Step::Write(at, bytes) => {
                layer.write_at(at, &bytes).unwrap();
                for (place, byte) in model[at as usize..].iter_mut().zip(&bytes) {
                    *place = Some(*byte);
                }
            }
            Step::Discard(start, end) => {
                layer.discard(start..end);
                let end = (end as usize).min(model.len());
                model[start as usize..end].fill(None);
            }
            Step::Reopen => {
                let row = layer.row(false);
                layer = store.open_layer(&row).unwrap();
                assert_eq!(layer.row(false), row);
            }
            Step::Reclaim => layer.reclaim(),
            Step::Sync => layer.sync_data().unwrap(),
        }
    }
    compare(&layer, &model);
    layer.delete().unwrap();
    assert_eq!(
        std::fs::read_dir(store.paths().state_dir.join("staging"))
            .unwrap()
            .count(),
        0
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_layer_is_a_vector_with_holes(steps in steps(200_000)) {
        run(200_000, steps);
    }

    #[test]
    fn around_the_inline_limit_too(steps in steps(70_000)) {
        run(70_000, steps);
    }
}

#[test]
fn a_layer_spills_once_it_outgrows_its_row() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut layer = store.new_layer(5);
    layer.write_at(INLINE_LIMIT - 3, b"abc").unwrap();
    assert!(layer.is_inline());
    layer.write_at(10, b"start").unwrap();
    layer.write_at(INLINE_LIMIT - 1, b"cd").unwrap();
    assert!(!layer.is_inline());
    let mut bytes = [0; 4];
    layer.read_at(INLINE_LIMIT - 3, &mut bytes).unwrap();
    assert_eq!(&bytes, b"abcd");
    layer.lower_floor(9);
    assert_eq!(layer.floor(), 5);
    layer.lower_floor(2);
    assert_eq!(layer.row(true).floor, 2);
    // Enormous offsets are sparse; impossible ones are refused.
    layer.write_at(1 << 40, b"far").unwrap();
    assert!(layer.write_at(u64::MAX - 1, b"too far").is_err());
    assert!(layer.read_at(u64::MAX - 1, &mut [0; 4]).is_err());
}

#[test]
fn reclaim_gives_space_back() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut layer = store.new_layer(0);
    layer.write_at(0, &vec![7; 4 << 20]).unwrap();
    let LayerData::File(id) = layer.row(false).data else {
        panic!("inline")
    };
    let path = store
        .paths()
        .state_dir
        .join("staging")
        .join(directory::file_name(id));
    let blocks = || std::fs::metadata(&path).unwrap().blocks() * 512;
    layer.sync_data().unwrap();
    assert!(blocks() >= 4 << 20);
    layer.discard(100..(4 << 20));
    assert!(blocks() >= 4 << 20);
    layer.reclaim();
    assert!(blocks() < 1 << 20);
    let mut bytes = [0; 100];
    layer.read_at(0, &mut bytes).unwrap();
    assert_eq!(bytes, [7; 100]);
}

#[test]
fn damaged_files_are_errors_and_not_garbage() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut layer = store.new_layer(0);
    layer.write_at(0, &vec![7; 100_000]).unwrap();
    let row = layer.row(false);
    let LayerData::File(id) = row.data else {
        panic!("inline")
    };
    let path = store
        .paths()
        .state_dir
        .join("staging")
        .join(directory::file_name(id));
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..50_000]).unwrap();
    assert!(matches!(
        layer.read_at(90_000, &mut [0]),
        Err(StoreError::Damaged { .. })
    ));
    let mut broken = whole.clone();
    broken[50] ^= 1;
    std::fs::write(&path, &broken).unwrap();
    assert!(matches!(
        store.open_layer(&row),
        Err(StoreError::Damaged { .. })
    ));
    std::fs::write(&path, b"").unwrap();
    assert!(matches!(
        store.open_layer(&row),
        Err(StoreError::Damaged { .. })
    ));
    let short = LayerRow {
        data: LayerData::Inline(vec![1]),
        floor: 0,
        extents: std::iter::once(0..2).collect(),
        sealed: true,
    };
    assert!(matches!(
        store.open_layer(&short),
        Err(StoreError::Damaged { .. })
    ));
}
