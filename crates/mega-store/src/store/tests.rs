//! Round trips through a real directory, reopened.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use mega_crypto::MasterKey;
use mega_proto::{NodeHandle, NodeKind, Seqno, UserHandle};
use serde_json::json;

use super::*;
use crate::rows::*;
use crate::subject::*;

pub(crate) fn paths(dir: &Path) -> StatePaths {
    StatePaths {
        state_dir: dir.join("state"),
        cache_dir: dir.join("cache"),
    }
}

pub(crate) fn holder() -> LockHolder {
    LockHolder {
        pid: std::process::id(),
        mountpoint: "/mnt/mega".into(),
    }
}

pub(crate) fn key() -> MasterKey {
    MasterKey::from_bytes([9; 16])
}

/// Without the share of the disk that must stay free: the test's disk may be any.
pub(crate) fn options(cache_size: u64) -> StoreOptions {
    StoreOptions {
        cache_size,
        cache_min_free: Percent(0),
        cache_on: true,
        ..StoreOptions::default()
    }
}

pub(crate) fn open(dir: &Path) -> Store {
    let store = Store::open(&paths(dir), &holder(), options(1 << 30)).unwrap();
    store.unlock(&key()).unwrap();
    store
}

pub(crate) fn handle(number: u64) -> NodeHandle {
    NodeHandle::from_u48(number)
}

pub(crate) fn node(number: u64, parent: Option<u64>, kind: NodeKind) -> NodeRow {
    NodeRow {
        handle: handle(number),
        parent: parent.map(handle),
        kind,
        owner: Some(UserHandle([0xff, 1, 2, 3, 4, 5, 6, number as u8])),
        size: number * 10,
        ts: 1_700_000_000 + number as i64,
        key: format!("owner:key{number}"),
        attrs: vec![number as u8; 32],
        fa: number.is_multiple_of(2).then(|| "924:1*abc".to_owned()),
        arrival: 0,
        suffix: None,
    }
}

fn change(subject: Subject) -> ChangeRow {
    ChangeRow {
        subject,
        kind: NodeKind::File,
        place: Some(Place {
            parent: handle(2).into(),
            name: "g\u{fc}nstig/\u{1f600}".to_owned(),
        }),
        attributes: json!({"mmx": 1, "mml": null}).as_object().cloned(),
        content: Some(ContentRow {
            base: Some(handle(77)),
            size: 4711,
            generation: 3,
            synced: false,
            layers: vec![
                LayerRow {
                    data: LayerData::File(StagingId(u64::MAX >> 1)),
                    floor: u64::MAX >> 1,
                    extents: vec![0..10, 4096..9000],
                    sealed: true,
                },
                LayerRow {
                    data: LayerData::Inline(b"very secret bytes".to_vec()),
                    floor: 17,
                    extents: vec![0..5, 6..17],
                    sealed: false,
                },
            ],
        }),
        removed: false,
        replaces: Some(handle(5)),
        state: ChangeState::Parked {
            error: "the folder secret-plans is gone".to_owned(),
        },
        since_ms: 1_700_000_000_123,
    }
}

#[test]
fn a_change_row_survives_reopening_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (
        Subject::Local(LocalId(7)),
        Subject::Node(handle(0xffff_ffff_ffff)),
    );
    let attempt = AttemptRow {
        id: AttemptId(3),
        subject: here,
        body: b"secret journal".to_vec(),
    };
    {
        let store = open(dir.path());
        store
            .write(|tx| {
                tx.put_change(&change(here))?;
                tx.put_change(&change(there))?;
                tx.put_attempt(&attempt)?;
                tx.put_doomed(handle(9))?;
                tx.put_doomed(handle(9))
            })
            .unwrap();
    }
    let store = open(dir.path());
    assert_eq!(store.change(here).unwrap().unwrap(), change(here));
    assert_eq!(store.changes().unwrap().len(), 2);
    let of = store.attempts_of(attempt.subject).unwrap();
    assert_eq!(of, std::slice::from_ref(&attempt));
    assert_eq!(store.attempts().unwrap(), vec![attempt]);
    assert_eq!(store.doomed().unwrap(), vec![handle(9)]);
    // A smaller row leaves nothing of the larger one.
    let small = ChangeRow {
        content: None,
        place: None,
        attributes: None,
        replaces: None,
        removed: true,
        state: ChangeState::Pushing {
            attempt: AttemptId(3),
        },
        ..change(here)
    };
    store.write(|tx| tx.put_change(&small)).unwrap();
    assert_eq!(store.change(here).unwrap().unwrap(), small);
    store
        .write(|tx| {
            tx.delete_change(here)?;
            tx.delete_attempt(AttemptId(3))?;
            tx.delete_doomed(handle(9))
        })
        .unwrap();
    assert_eq!(store.change(here).unwrap(), None);
    assert!(store.attempts().unwrap().is_empty() && store.doomed().unwrap().is_empty());
    assert_eq!(store.changes().unwrap().len(), 1);
}

#[test]
fn nothing_of_the_user_is_on_the_disk_in_the_clear() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut layer = store.new_layer(0);
    layer
        .write_at(100_000, &b"very secret bytes".repeat(1000))
        .unwrap();
    let mut row = change(Subject::Local(LocalId(1)));
    row.content.as_mut().unwrap().layers[0] = layer.row(true);
    store.write(|tx| tx.put_change(&row)).unwrap();
    let blob = store.cache().open(handle(1), 5).unwrap();
    assert!(blob.write_unit(0, b"12345").unwrap());
    let mut looked_at = 0;
    let mut queue = vec![dir.path().to_path_buf()];
    while let Some(path) = queue.pop() {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        if path.is_dir() {
            assert!(path == dir.path() || mode == 0o700, "{path:?} {mode:o}");
            queue.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            continue;
        }
        assert_eq!(mode, 0o600, "{path:?}");
        let bytes = std::fs::read(&path).unwrap();
        looked_at += bytes.len();
        for secret in ["secret", "nstig", "mmx"] {
            let found = bytes
                .windows(secret.len())
                .any(|part| part == secret.as_bytes());
            assert!(!found, "{secret} in {path:?}");
        }
    }
    assert!(looked_at > 17_000);
}

#[test]
fn another_master_key_is_refused_and_locked_parts_stay_locked() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let store = Store::open(&paths(dir.path()), &holder(), options(0)).unwrap();
    let row = change(Subject::Local(LocalId(1)));
    assert!(matches!(
        store.write(|tx| tx.put_change(&row)),
        Err(StoreError::LockedKeys)
    ));
    let mut layer = store.new_layer(0);
    assert!(matches!(
        layer.write_at(1 << 20, b"x"),
        Err(StoreError::LockedKeys)
    ));
    let other = store.unlock(&MasterKey::from_bytes([1; 16]));
    assert!(matches!(other, Err(StoreError::WrongKey)));
    assert!(matches!(store.change(row.subject), Ok(None)));
    store.unlock(&key()).unwrap();
    store.write(|tx| tx.put_change(&row)).unwrap();
}

#[test]
fn a_second_opener_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let second = Store::open(&paths(dir.path()), &holder(), options(0));
    assert!(matches!(second, Err(StoreError::Locked { holder: who }) if who == holder()));
    // Another state directory with the same cache is refused too.
    let mixed = StatePaths {
        state_dir: dir.path().join("other"),
        ..paths(dir.path())
    };
    assert!(matches!(
        Store::open(&mixed, &holder(), options(0)),
        Err(StoreError::Locked { .. })
    ));
    drop(store);
    drop(open(dir.path()));
}

#[test]
fn an_unknown_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let db = rusqlite::Connection::open(paths(dir.path()).state_dir.join("state.db")).unwrap();
    db.execute("UPDATE meta SET value = 2 WHERE name = 'store.format'", [])
        .unwrap();
    drop(db);
    let found = Store::open(&paths(dir.path()), &holder(), options(0));
    assert!(matches!(found, Err(StoreError::UnknownFormat { found, .. }) if found == "2"));
}

#[test]
fn session_and_pin() {
    let dir = tempfile::tempdir().unwrap();
    let session = SavedSession {
        sid: "s".repeat(58),
        master_key: [3; 16],
        user: "Kbocb5Q6ti4".to_owned(),
        email: "a@b.c".to_owned(),
    };
    {
        let store = open(dir.path());
        assert!(store.session().unwrap().is_none());
        store.save_session(&session).unwrap();
        store
            .pin("Kbocb5Q6ti4", "https://g.api.mega.co.nz")
            .unwrap();
    }
    let store = open(dir.path());
    assert!(store.session().unwrap().unwrap() == session);
    store
        .pin("Kbocb5Q6ti4", "https://g.api.mega.co.nz")
        .unwrap();
    let other = store.pin("Kbocb5Q6ti4", "http://127.0.0.1:1");
    assert!(matches!(
        other,
        Err(StoreError::Pinned {
            what: "API origin",
            ..
        })
    ));
    assert!(matches!(
        store.pin("x", "y"),
        Err(StoreError::Pinned { what: "user", .. })
    ));
    store.clear_session().unwrap();
    assert!(store.session().unwrap().is_none());
    std::fs::write(store.session_path(), b"{").unwrap();
    assert!(matches!(store.session(), Err(StoreError::Damaged { .. })));
}

#[test]
fn a_session_in_the_keyring_is_on_no_disk() {
    let dir = tempfile::tempdir().unwrap();
    let state_dir = paths(dir.path()).state_dir;
    let session = SavedSession {
        sid: "s".repeat(58),
        master_key: [3; 16],
        user: "Kbocb5Q6ti4".to_owned(),
        email: "a@b.c".to_owned(),
    };
    open(dir.path()).save_session(&session).unwrap();
    let in_keyring = || {
        let options = StoreOptions {
            session: SessionPlace::Keyring,
            ..options(0)
        };
        Store::open(&paths(dir.path()), &holder(), options).unwrap()
    };
    let store = in_keyring();
    match store.session() {
        Err(StoreError::Keyring(why)) => {
            eprintln!("skipped: {why}");
            // Nothing was lost for that.
            assert!(store.session_path().exists());
            return;
        }
        found => assert!(found.unwrap().unwrap() == session, "it has moved"),
    }
    assert!(!store.session_path().exists());
    drop(store);
    let store = in_keyring();
    assert!(store.session().unwrap().unwrap() == session);
    let mut newer = session.clone();
    newer.sid = "t".repeat(58);
    store.save_session(&newer).unwrap();
    assert!(store.session().unwrap().unwrap() == newer);
    assert!(!store.session_path().exists());
    // A crash between the steps of moving it leaves both, and so does a login where the keyring cannot be used: then
    // the file has the newer one.
    session_file::save(&store.session_path(), &session).unwrap();
    assert!(store.session().unwrap().unwrap() == session);
    assert!(!store.session_path().exists());
    assert!(session_keyring::load(&state_dir).unwrap().unwrap() == session);
    drop(store);
    // A command that knows nothing of the option uses it, and does not bring it onto the disk.
    let store = open(dir.path());
    assert!(store.session().unwrap().unwrap() == session);
    assert_eq!(store.session_kept_in(), "the kernel's keyring");
    assert!(!store.session_path().exists());
    // A new one is where it is to be kept, and nowhere else.
    store.save_session(&newer).unwrap();
    assert!(store.session_path().exists());
    assert!(store.session_kept_in().ends_with("/session"));
    assert!(session_keyring::load(&state_dir).unwrap().is_none());
    drop(store);
    // It goes whatever the option is by then.
    drop(in_keyring().session().unwrap().unwrap());
    open(dir.path()).clear_session().unwrap();
    assert!(in_keyring().session().unwrap().is_none());
}

#[test]
fn truth_is_written_with_its_seqno_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let failed: Result<(), _> = store.write(|tx| {
        tx.upsert_node(&node(2, None, NodeKind::Root))?;
        tx.set_seqno(&Seqno::from("abc"))?;
        Err(StoreError::NotPresent)
    });
    assert!(matches!(failed, Err(StoreError::NotPresent)));
    assert!(store.roots().unwrap().is_none() && store.seqno().unwrap().is_none());
    store
        .write(|tx| {
            tx.upsert_node(&node(2, None, NodeKind::Root))?;
            tx.upsert_node(&node(4, None, NodeKind::Rubbish))?;
            tx.set_seqno(&Seqno::from("abc"))
        })
        .unwrap();
    let roots = Roots {
        cloud: handle(2),
        vault: None,
        rubbish: Some(handle(4)),
    };
    assert_eq!(store.roots().unwrap().unwrap(), roots);
    assert_eq!(store.seqno().unwrap().unwrap().as_str(), "abc");
}

#[test]
fn a_panic_in_a_transaction_undoes_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        store.write(|tx| -> Result<(), StoreError> {
            tx.upsert_node(&node(2, None, NodeKind::Root))?;
            panic!("on purpose")
        })
    }));
    assert!(panicked.is_err());
    store
        .write(|tx| tx.upsert_node(&node(4, None, NodeKind::Rubbish)))
        .unwrap();
    assert!(store.node(handle(2)).unwrap().is_none());
    assert!(store.node(handle(4)).unwrap().is_some());
}

#[test]
fn nodes_arrive_move_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let arrivals = |parent| -> Vec<(u64, u64)> {
        let rows = store.children(handle(parent)).unwrap();
        rows.iter()
            .map(|row| (row.handle.to_u48(), row.arrival))
            .collect()
    };
    store
        .write(|tx| {
            tx.upsert_node(&node(2, None, NodeKind::Root))?;
            tx.upsert_node(&node(10, Some(2), NodeKind::Folder))?;
            tx.upsert_node(&node(30, Some(10), NodeKind::File))?;
            tx.upsert_node(&node(20, Some(10), NodeKind::File))?;
            // An old version below a file.
            tx.upsert_node(&node(21, Some(20), NodeKind::File))
        })
        .unwrap();
    assert_eq!(arrivals(10), vec![(30, 3), (20, 4)]);
    assert!(store.has_children(handle(20)).unwrap() && !store.has_children(handle(30)).unwrap());
    let versioned = store.files_with_versions(handle(10)).unwrap();
    assert_eq!(versioned, [handle(20)].into());
    assert!(store.files_with_versions(handle(2)).unwrap().is_empty());
    let mut changed = node(30, Some(10), NodeKind::File);
    changed.suffix = Some(2);
    store.write(|tx| tx.upsert_node(&changed)).unwrap();
    changed.arrival = 3;
    assert_eq!(store.node(handle(30)).unwrap().unwrap(), changed);
    store
        .write(|tx| tx.set_parent(handle(30), handle(2)))
        .unwrap();
    let moved = store.node(handle(30)).unwrap().unwrap();
    assert_eq!(
        (moved.parent, moved.arrival, moved.suffix),
        (Some(handle(2)), 6, None)
    );
    store
        .write(|tx| {
            tx.set_attrs(handle(30), b"new")?;
            tx.set_key(handle(30), "AAAAAAAAAAA:mine/BBBBBBBBBBB:theirs")?;
            tx.set_suffix(handle(30), Some(1))?;
            tx.set_attrs(handle(99), b"unknown")
        })
        .unwrap();
    let find = |key| store.find_by_keys(&HashSet::from([key])).unwrap();
    assert!(find("their").is_empty() && find("AAAAAAAAAAA").is_empty());
    let found = find("theirs");
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].attrs.as_slice(), found[0].suffix),
        (&b"new"[..], Some(1))
    );
    let gone = store.write(|tx| tx.delete_subtree(handle(10))).unwrap();
    assert_eq!(gone, vec![handle(10), handle(20), handle(21)]);
    assert!(store.node(handle(21)).unwrap().is_none());
    assert!(
        store
            .write(|tx| tx.delete_subtree(handle(10)))
            .unwrap()
            .is_empty()
    );
}

/// Packets that are applied again may bring a node below a folder that is deleted after it and has gone.
#[test]
fn what_is_below_an_unknown_node_is_deleted_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let gone = store
        .write(|tx| {
            tx.upsert_node(&node(6, Some(5), NodeKind::Folder))?;
            tx.upsert_node(&node(7, Some(6), NodeKind::File))?;
            tx.delete_subtree(handle(5))
        })
        .unwrap();
    assert_eq!(gone, vec![handle(6), handle(7)]);
    assert!(store.node(handle(6)).unwrap().is_none());
}

#[test]
fn a_circle_of_parents_can_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let gone = store
        .write(|tx| {
            tx.upsert_node(&node(5, Some(6), NodeKind::Folder))?;
            tx.upsert_node(&node(6, Some(5), NodeKind::Folder))?;
            tx.delete_subtree(handle(5))
        })
        .unwrap();
    assert_eq!(gone, vec![handle(5), handle(6)]);
}

#[test]
fn shares_meta_and_counters() {
    let dir = tempfile::tempdir().unwrap();
    let share = ShareRow {
        user: Some(UserHandle([0x80; 8])),
        access: Some(2),
        extra: Some("{}".to_owned()),
        ..ShareRow::new(handle(3), ShareKind::Outgoing, "k")
    };
    {
        let store = open(dir.path());
        store
            .write(|tx| {
                tx.put_share(&share)?;
                tx.put_share(&ShareRow::new(handle(3), ShareKind::OwnKey, "x"))?;
                tx.put_share(&ShareRow::new(handle(3), ShareKind::OwnKey, "key"))?;
                tx.meta_set("client_id", "abcdefghij")?;
                assert_eq!(tx.meta_get("client_id")?.as_deref(), Some("abcdefghij"));
                assert!(matches!(
                    tx.meta_get("store.sn"),
                    Err(StoreError::ReservedName(_))
                ));
                assert!(matches!(
                    tx.meta_set("store.x", ""),
                    Err(StoreError::ReservedName(_))
                ));
                Ok(())
            })
            .unwrap();
        assert_eq!(store.next_local_id().unwrap(), LocalId(1));
        for id in 2..200 {
            assert_eq!(store.next_local_id().unwrap(), LocalId(id));
        }
        assert_eq!(store.next_attempt_id().unwrap(), AttemptId(1));
    }
    let store = open(dir.path());
    let mut found = store.shares().unwrap();
    found.sort_by_key(|row| row.kind);
    let own = ShareRow::new(handle(3), ShareKind::OwnKey, "key");
    assert_eq!(found, vec![own, share]);
    store
        .write(|tx| tx.delete_share(handle(3), ShareKind::Outgoing))
        .unwrap();
    assert_eq!(store.shares().unwrap().len(), 1);
    assert_eq!(
        store.meta("client_id").unwrap().as_deref(),
        Some("abcdefghij")
    );
    // Those that were taken and not given out are not used.
    assert!(store.next_local_id().unwrap() >= LocalId(200));
}

#[test]
fn confirming_a_folder_retargets_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let folder = Subject::Local(LocalId(1));
    let mut child = change(Subject::Local(LocalId(2)));
    child.place.as_mut().unwrap().parent = folder;
    store.write(|tx| tx.put_change(&child)).unwrap();
    store
        .write(|tx| tx.retarget_children(folder, handle(40).into()))
        .unwrap();
    let row = store.change(child.subject).unwrap().unwrap();
    assert_eq!(row.place.unwrap().parent, Subject::Node(handle(40)));
}

#[test]
fn readers_do_not_wait_for_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store
        .write(|tx| tx.upsert_node(&node(2, None, NodeKind::Root)))
        .unwrap();
    store
        .write(|tx| {
            tx.upsert_node(&node(3, Some(2), NodeKind::Folder))?;
            // Inside the transaction, on this very thread: it would deadlock if it waited.
            assert!(store.children(handle(2))?.is_empty());
            assert_eq!(tx.children(handle(2))?.len(), 1);
            Ok(())
        })
        .unwrap();
    assert_eq!(store.children(handle(2)).unwrap().len(), 1);
}

#[test]
fn sync_is_shared_and_the_log_stays_short() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let log = || {
        std::fs::metadata(paths(dir.path()).state_dir.join("state.db-wal"))
            .unwrap()
            .len()
    };
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..50 {
                    let mut row = node(1000 * thread + number, Some(2), NodeKind::File);
                    row.attrs = vec![1; 20_000];
                    store.write(|tx| tx.upsert_node(&row)).unwrap();
                    store.sync().unwrap();
                }
            });
        }
    });
    assert!(log() > 4 << 20);
    store.cache().flush_maps().unwrap();
    // The log starts again from its beginning instead of growing.
    let before = log();
    for number in 9000..9020 {
        store
            .write(|tx| tx.upsert_node(&node(number, None, NodeKind::File)))
            .unwrap();
    }
    assert_eq!(log(), before);
    assert_eq!(store.children(handle(2)).unwrap().len(), 200);
}

#[test]
fn unsynced_bytes_are_doubtful_after_a_power_cut_only() {
    let dir = tempfile::tempdir().unwrap();
    let open = |boot: &str| {
        let store = Store::open_in_boot(&paths(dir.path()), &holder(), options(0), boot).unwrap();
        store.unlock(&key()).unwrap();
        store
    };
    let row = |number, data, synced| {
        let mut row = change(Subject::Local(LocalId(number)));
        let content = row.content.as_mut().unwrap();
        content.synced = synced;
        content.layers = vec![LayerRow {
            data,
            floor: 0,
            extents: vec![],
            sealed: false,
        }];
        row
    };
    let file = |number| LayerData::File(StagingId(number));
    {
        let store = open("a");
        store
            .write(|tx| {
                tx.put_change(&row(1, file(1), false))?;
                tx.put_change(&row(2, file(2), true))?;
                tx.put_change(&row(3, LayerData::Inline(vec![1]), false))?;
                tx.put_change(&row(4, file(4), false))?;
                tx.put_change(&row(5, file(5), false))?;
                tx.mark_synced(Subject::Local(LocalId(4)), 3)?;
                tx.mark_synced(Subject::Local(LocalId(5)), 2)
            })
            .unwrap();
    }
    // kill -9 only: nothing is lost.
    assert!(open("a").unsynced_after_power_loss().unwrap().is_empty());
    let doubtful = vec![Subject::Local(LocalId(1)), Subject::Local(LocalId(5))];
    assert_eq!(open("b").unsynced_after_power_loss().unwrap(), doubtful);
    // It stays known until somebody deals with it.
    let store = open("b");
    assert_eq!(store.unsynced_after_power_loss().unwrap(), doubtful);
    store
        .write(|tx| tx.put_change(&row(1, file(1), false)))
        .unwrap();
    assert_eq!(store.unsynced_after_power_loss().unwrap(), doubtful[1..]);
}

#[test]
fn staging_without_a_row_goes_to_lost_and_found() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, lost) = {
        let store = open(dir.path());
        let mut kept = store.new_layer(0);
        kept.write_at(70_000, b"kept").unwrap();
        let mut lost = store.new_layer(0);
        lost.write_at(70_000, b"lost").unwrap();
        let mut row = change(Subject::Local(LocalId(1)));
        row.content.as_mut().unwrap().layers = vec![kept.row(false)];
        store.write(|tx| tx.put_change(&row)).unwrap();
        std::fs::write(store.staging.path().join("0123456789abcdef"), b"MGSTAGE").unwrap();
        (kept.row(false), lost.row(false))
    };
    let store = open(dir.path());
    let layer = store.open_layer(&kept).unwrap();
    let mut bytes = [0; 4];
    layer.read_at(70_000, &mut bytes).unwrap();
    assert_eq!(&bytes, b"kept");
    assert!(matches!(
        store.open_layer(&lost),
        Err(StoreError::Io { .. })
    ));
    let names = |part: &str| {
        std::fs::read_dir(store.paths.state_dir.join(part))
            .unwrap()
            .count()
    };
    assert_eq!((names("staging"), names("lost+found")), (1, 1));
}

#[test]
fn a_poisoned_store_reads_and_does_not_write() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store
        .write(|tx| tx.upsert_node(&node(2, None, NodeKind::Root)))
        .unwrap();
    let mut layer = store.new_layer(0);
    layer.write_at(0, b"before").unwrap();
    assert!(store.poisoned().is_none());
    let _ = store.db.poison.set("fsync", &"no such luck");
    assert!(store.poisoned().unwrap().contains("no such luck"));
    assert!(store.node(handle(2)).unwrap().is_some());
    layer.read_at(0, &mut [0; 6]).unwrap();
    assert!(matches!(
        store.write(|_| Ok(())),
        Err(StoreError::Poisoned { .. })
    ));
    assert!(matches!(store.sync(), Err(StoreError::Poisoned { .. })));
    assert!(matches!(
        layer.write_at(0, b"x"),
        Err(StoreError::Poisoned { .. })
    ));
    // The cache declines, reading goes on without it.
    let blob = store.cache().open(handle(9), 10).unwrap();
    assert!(!blob.write_unit(0, &[0; 10]).unwrap());
}

#[test]
fn the_store_and_a_load_may_go_to_other_threads() {
    fn everywhere<T: Send + Sync + 'static>() {}
    fn moves<T: Send + 'static>() {}
    everywhere::<Store>();
    everywhere::<crate::StagingFile>();
    everywhere::<crate::LayerReader>();
    everywhere::<crate::Blob>();
    everywhere::<crate::PendingBlob>();
    moves::<TreeLoader>();
}
