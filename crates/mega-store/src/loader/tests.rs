//! First loads, reloads, interrupted ones, and what happens beside them.

use mega_proto::NodeKind;

use super::*;
use crate::store::Store;
use crate::store::tests::{handle, node, open};

fn load(store: &Store, rows: &[(u64, u64)], sn: &str) {
    let mut loader = store.begin_load().unwrap();
    loader.node(node(2, None, NodeKind::Root)).unwrap();
    for (number, parent) in rows {
        loader
            .node(node(*number, Some(*parent), NodeKind::File))
            .unwrap();
    }
    let replaced = loader.finish(&Seqno::from(sn)).unwrap();
    replaced.remove().unwrap();
}

/// Handle, arrival, suffix of the children of `parent`.
fn children(store: &Store, parent: u64) -> Vec<(u64, u64, Option<u32>)> {
    let rows = store.children(handle(parent)).unwrap();
    rows.iter()
        .map(|row| (row.handle.to_u48(), row.arrival, row.suffix))
        .collect()
}

fn tables(store: &Store) -> Vec<String> {
    let paths = store.paths().state_dir.join("state.db");
    let db =
        Connection::open_with_flags(paths, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut names = db
        .prepare("SELECT name FROM sqlite_schema WHERE name LIKE 'node%' OR name LIKE 'share%'")
        .unwrap();
    let names = names.query_map([], |row| row.get(0)).unwrap();
    let mut names: Vec<String> = names.map(Result::unwrap).collect();
    names.sort();
    names
}

#[test]
fn a_first_load_orders_by_time_and_leaves_no_scaffolding() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut loader = store.begin_load().unwrap();
    assert!(matches!(
        store.begin_load(),
        Err(StoreError::LoadInProgress)
    ));
    let mut late = node(10, Some(2), NodeKind::File);
    late.ts += 1_000_000;
    for row in [
        late,
        node(2, None, NodeKind::Root),
        node(12, Some(2), NodeKind::Folder),
        node(11, Some(2), NodeKind::File),
    ] {
        loader.node(row).unwrap();
    }
    loader
        .share(ShareRow::new(
            handle(12),
            crate::rows::ShareKind::OwnKey,
            "k",
        ))
        .unwrap();
    assert!(store.roots().unwrap().is_none() && store.seqno().unwrap().is_none());
    let replaced = loader.finish(&Seqno::from("one")).unwrap();
    replaced.remove().unwrap();
    assert_eq!(store.seqno().unwrap().unwrap().as_str(), "one");
    assert_eq!(store.roots().unwrap().unwrap().cloud, handle(2));
    assert_eq!(
        children(&store, 2),
        vec![(11, 0, None), (12, 0, None), (10, 0, None)]
    );
    assert_eq!(
        store.node(handle(12)).unwrap().unwrap().kind,
        NodeKind::Folder
    );
    assert_eq!(store.shares().unwrap().len(), 1);
    let names = tables(&store);
    assert_eq!(names, ["node", "node_parent", "node_size", "share"]);
}

#[test]
fn a_reload_keeps_what_was_assigned() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    load(&store, &[(10, 2), (11, 2), (12, 2), (13, 2)], "one");
    store
        .write(|tx| {
            tx.set_suffix(handle(11), Some(1))?;
            tx.upsert_node(&node(20, Some(2), NodeKind::File))
        })
        .unwrap();
    let arrived = store.node(handle(20)).unwrap().unwrap().arrival;
    assert!(arrived > 0);
    let mut loader = store.begin_load().unwrap();
    for (number, parent) in [(11, 2), (20, 2), (12, 10), (10, 2), (13, 2), (30, 2)] {
        loader
            .node(node(number, Some(parent), NodeKind::File))
            .unwrap();
    }
    // Meanwhile life goes on: the old truth is served, and numbers are assigned.
    assert_eq!(children(&store, 2).len(), 5);
    store
        .write(|tx| tx.set_suffix(handle(13), Some(4)))
        .unwrap();
    let replaced = loader.finish(&Seqno::from("two")).unwrap();
    replaced.remove().unwrap();
    let now = children(&store, 2);
    let new = store.node(handle(30)).unwrap().unwrap().arrival;
    assert!(new > arrived);
    assert_eq!(
        now,
        vec![
            (10, 0, None),
            (11, 0, Some(1)),
            (13, 0, Some(4)),
            (20, arrived, None),
            (30, new, None)
        ]
    );
    // Moved: it has arrived there now.
    assert_eq!(children(&store, 10), vec![(12, new, None)]);
    assert!(store.roots().unwrap().is_none());
    assert_eq!(tables(&store).len(), 4);
    // The counter goes on above.
    store
        .write(|tx| tx.upsert_node(&node(40, Some(2), NodeKind::File)))
        .unwrap();
    assert_eq!(store.node(handle(40)).unwrap().unwrap().arrival, new + 1);
}

#[test]
fn an_interrupted_load_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        load(&store, &[(10, 2)], "one");
        let mut loader = store.begin_load().unwrap();
        loader.node(node(99, Some(2), NodeKind::File)).unwrap();
        // As if it had stopped half way.
        drop(loader.target.fill_nodes(loader.nodes).unwrap());
        drop(loader.target);
        assert_eq!(children(&store, 2), vec![(10, 0, None)]);
        assert_eq!(store.seqno().unwrap().unwrap().as_str(), "one");
    }
    let store = open(dir.path());
    assert!(store.node(handle(99)).unwrap().is_none());
    load(&store, &[(10, 2), (11, 2)], "two");
    assert_eq!(children(&store, 2).len(), 2);
    assert!(store.node(handle(99)).unwrap().is_none());
    assert_eq!(tables(&store).len(), 4);
}

#[test]
fn a_handle_below_two_parents_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let twice = [(10, 2), (11, 2), (50, 10), (50, 11), (60, 2), (60, 2)];
    load(&store, &twice, "one");
    let seen = |store: &Store| children(store, 10).len() + children(store, 11).len();
    assert_eq!((seen(&store), children(&store, 2).len()), (1, 3));
    load(&store, &twice, "two");
    assert_eq!((seen(&store), children(&store, 2).len()), (1, 3));
}

#[test]
fn many_rows_go_through_in_turns() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let rows: Vec<(u64, u64)> = (100..70_100)
        .map(|number| (number, 2 + number % 50))
        .collect();
    load(&store, &rows, "one");
    load(&store, &rows, "two");
    let count: usize = (2..52).map(|parent| children(&store, parent).len()).sum();
    assert_eq!(count, rows.len());
    assert_eq!(store.node(handle(70_099)).unwrap().unwrap().arrival, 0);
    assert_eq!(tables(&store).len(), 4);
}

fn sized(number: u64, parent: u64, size: u64) -> NodeRow {
    let row = node(number, Some(parent), NodeKind::File);
    NodeRow { size, ..row }
}

fn of_size(store: &Store, size: u64) -> Vec<u64> {
    let rows = store.files_of_size(size, 16).unwrap();
    rows.iter().map(|row| row.handle.to_u48()).collect()
}

const SIZE: u64 = 1_000_000;

#[test]
fn files_are_found_by_their_size() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut loader = store.begin_load().unwrap();
    loader.node(node(2, None, NodeKind::Root)).unwrap();
    let mut folder = node(3, Some(2), NodeKind::Folder);
    folder.size = SIZE;
    loader.node(folder).unwrap();
    for (number, size) in [(12, SIZE), (10, SIZE + 1), (11, SIZE), (13, SIZE)] {
        loader.node(sized(number, 3, size)).unwrap();
    }
    loader.node(sized(14, 3, crate::SMALLEST_BY_SIZE)).unwrap();
    let replaced = loader.finish(&Seqno::from("one")).unwrap();
    replaced.remove().unwrap();
    assert_eq!(of_size(&store, SIZE), [11, 12, 13]);
    assert_eq!(of_size(&store, SIZE + 1), [10]);
    assert!(of_size(&store, crate::SMALLEST_BY_SIZE).is_empty());
    assert!(of_size(&store, u64::MAX).is_empty());
    assert_eq!(store.files_of_size(SIZE, 2).unwrap().len(), 2);
    // Whatever happens to them later.
    store
        .write(|tx| {
            tx.upsert_node(&sized(15, 3, SIZE))?;
            tx.upsert_node(&sized(12, 2, SIZE))?;
            tx.set_parent(handle(11), handle(2))?;
            tx.upsert_node(&sized(16, 11, SIZE + 2))?;
            tx.delete_subtree(handle(13))?;
            Ok(())
        })
        .unwrap();
    assert_eq!(of_size(&store, SIZE), [11, 12, 15]);
    store.write(|tx| tx.delete_subtree(handle(11))).unwrap();
    assert!(of_size(&store, SIZE + 2).is_empty());
    store.write(|tx| tx.delete_subtree(handle(2))).unwrap();
    assert!(of_size(&store, SIZE).is_empty());
    let path = store.paths().state_dir.join("state.db");
    let db = Connection::open(path).unwrap();
    let left: i64 = db
        .query_row("SELECT count(*) FROM node_size", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 0);
    // A reload begins anew.
    let mut loader = store.begin_load().unwrap();
    loader.node(node(2, None, NodeKind::Root)).unwrap();
    loader.node(sized(20, 2, SIZE)).unwrap();
    let replaced = loader.finish(&Seqno::from("two")).unwrap();
    replaced.remove().unwrap();
    assert_eq!(of_size(&store, SIZE), [20]);
    assert_eq!(
        tables(&store),
        ["node", "node_parent", "node_size", "share"]
    );
}

#[test]
fn a_state_of_the_first_version_learns_its_sizes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut loader = store.begin_load().unwrap();
    loader.node(node(2, None, NodeKind::Root)).unwrap();
    for number in 0..2000 {
        loader
            .node(sized(100 + number, 2, SIZE + number % 7))
            .unwrap();
    }
    let replaced = loader.finish(&Seqno::from("one")).unwrap();
    replaced.remove().unwrap();
    let path = store.paths().state_dir.join("state.db");
    drop(store);
    let edit = |sql: &str| Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    // What the first version had.
    edit("DROP TABLE node_size");
    let store = open(dir.path());
    assert_eq!(of_size(&store, SIZE + 3).len(), 16);
    assert_eq!(store.files_of_size(SIZE + 3, 1000).unwrap().len(), 286);
    drop(store);
    // What the first version leaves after using this one's: its reload does not know the table.
    edit("DELETE FROM node WHERE handle = 103; UPDATE node SET size = 1 WHERE handle = 110");
    let store = open(dir.path());
    assert_eq!(store.files_of_size(SIZE + 3, 1000).unwrap().len(), 284);
    assert_eq!(store.seqno().unwrap().unwrap().as_str(), "one");
}

/// Handles of what a load changed and the parents they had.
fn changed(replaced: &mut Replaced) -> Vec<(u64, Option<u64>)> {
    let mut found = Vec::new();
    loop {
        let portion = replaced.changed().unwrap();
        if portion.is_empty() {
            found.sort_unstable();
            found.dedup();
            return found;
        }
        found.extend(portion.iter().map(|changed| {
            let parent = changed.before.as_ref().and_then(|row| row.parent);
            (changed.handle.to_u48(), parent.map(NodeHandle::to_u48))
        }));
    }
}

fn reload(store: &Store, rows: &[(u64, u64, u8)]) -> Replaced {
    let mut loader = store.begin_load().unwrap();
    for (number, parent, content) in rows {
        let mut row = node(*number, Some(*parent), NodeKind::File);
        row.attrs = vec![*content];
        loader.node(row).unwrap();
    }
    loader.finish(&Seqno::from("sn")).unwrap()
}

#[test]
fn what_was_not_compared_is_left_over() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        // There is nothing to compare a first tree with.
        assert!(changed(&mut reload(&store, &[(10, 2, 0), (11, 2, 0)])).is_empty());
        assert!(store.left_over().unwrap().is_none());
        drop(reload(&store, &[(10, 3, 0), (12, 2, 0)]));
    }
    let store = open(dir.path());
    let mut replaced = store.left_over().unwrap().unwrap();
    let expected = [(10, Some(2)), (11, Some(2)), (12, None)];
    assert_eq!(changed(&mut replaced), expected);
    replaced.remove().unwrap();
    assert!(store.left_over().unwrap().is_none());
    assert_eq!(tables(&store).len(), 4);
}

#[test]
fn one_folder_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let rows = |content| -> Vec<_> {
        (100..140)
            .map(|number| (number, 50 + number % 3, content))
            .collect()
    };
    drop(reload(&store, &rows(0)));
    let mut replaced = reload(&store, &rows(1));
    let mut parents = HashSet::new();
    loop {
        let portion = replaced.changed().unwrap();
        if portion.is_empty() {
            break;
        }
        let here: HashSet<_> = portion
            .iter()
            .map(|changed| changed.before.as_ref().unwrap().parent)
            .collect();
        assert!(
            here.iter().all(|parent| parents.insert(*parent)),
            "{here:?} again"
        );
    }
    assert_eq!(parents.len(), 3);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    #[test]
    fn a_load_tells_what_it_changed(
        before in proptest::collection::btree_map(10_u64..60, (2_u64..6, 0_u8..2), 1..40),
        after in proptest::collection::btree_map(10_u64..60, (2_u64..6, 0_u8..2), 1..40),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let rows = |tree: &std::collections::BTreeMap<u64, (u64, u8)>| -> Vec<_> {
            tree.iter().map(|(number, (parent, content))| (*number, *parent, *content)).collect()
        };
        drop(reload(&store, &rows(&before)));
        let mut replaced = reload(&store, &rows(&after));
        let mut expected: Vec<_> = before.keys().chain(after.keys()).copied().collect();
        expected.sort_unstable();
        expected.dedup();
        let expected: Vec<_> = expected
            .into_iter()
            .filter(|number| before.get(number) != after.get(number))
            .map(|number| (number, before.get(&number).map(|(parent, _)| *parent)))
            .collect();
        proptest::prop_assert_eq!(changed(&mut replaced), expected);
        replaced.remove().unwrap();
        proptest::prop_assert_eq!(tables(&store).len(), 4);
    }
}
