//! What is told about the queue, what a user can do about it, and room in the account.

use std::ffi::OsStr;
use std::time::Duration;

use mega_emulator::{FaultAction, FaultRule, Fixture};
use mega_vfs::{
    Change, ChangeKind, Exported, FsyncMode, OpenMode, RenameMode, ResolveError, Snapshot, Stage,
    VfsConfig, Where, WriteAt,
};
use rustix::io::Errno;

use crate::support::{EMAIL, ROOT, World, eager};

/// Changes wait long enough to be looked at.
fn patient() -> VfsConfig {
    VfsConfig {
        write_back: Duration::from_secs(600),
        ..eager()
    }
}

fn look(world: &World) -> Snapshot {
    world.vfs.snapshot(100, None)
}

fn change<'a>(snapshot: &'a Snapshot, path: &str) -> &'a Change {
    let at = Where::Inside(path.to_owned());
    let mut found = snapshot.changes.iter().filter(|change| change.at == at);
    found
        .next()
        .unwrap_or_else(|| panic!("no {path} in {snapshot:#?}"))
}

async fn state(world: &World, path: &str) -> String {
    let ino = world.ino(path).await.unwrap();
    let name = OsStr::new("user.mega.state");
    String::from_utf8(world.vfs.getxattr(ino, name).await.unwrap()).unwrap()
}

/// Writes a file whose upload is refused until it is parked; the rule that refuses.
async fn park(world: &World, path: &str, content: &[u8]) -> u64 {
    let refusal = FaultAction::CommandError { code: -11 };
    let rule = FaultRule::new("cmd:u", refusal);
    let rule = world.emulator.faults().add(rule);
    world.write(path, content).await;
    world
        .until("parked", async |world| {
            // Without the pauses between the attempts.
            world.vfs.flush_queue();
            !look(world).counts.is_moving()
        })
        .await;
    rule
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_tells_what_waits() {
    let world = World::with(patient(), |emulator| {
        emulator
            .populate(EMAIL, &[Fixture::file("/old", "12345", 1)])
            .unwrap();
    })
    .await;
    assert!(look(&world).counts.is_safe());
    world.mkdir("d").await;
    world.write("d/new", b"1234567").await;
    world.write("old", b"changed").await;
    let snapshot = look(&world);
    assert_eq!(snapshot.counts.bytes, 14);
    assert!(!snapshot.counts.is_safe());
    let new = change(&snapshot, "d/new");
    assert_eq!((new.kind, new.size), (ChangeKind::NewFile, 7));
    assert!(matches!(new.stage, Stage::Waiting { is_open: false, due_in } if !due_in.is_zero()));
    assert_eq!(change(&snapshot, "old").kind, ChangeKind::Content);
    assert_eq!(state(&world, "d/new").await, "queued");
    let mark = world.vfs.flush_queue();
    world
        .until("all is pushed", async |world| {
            world.vfs.snapshot(0, Some(mark)).counts.before_mark == 0
        })
        .await;
    world.settled().await;
    assert_eq!(state(&world, "d/new").await, "uploaded");
    assert!(look(&world).counts.is_safe());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_for_writing_waits_and_says_so() {
    let world = World::with(eager(), |_| {}).await;
    world.write("f", b"").await;
    world.settled().await;
    let ino = world.ino("f").await.unwrap();
    let mode = OpenMode {
        write: true,
        ..OpenMode::default()
    };
    let fh = world.vfs.open(ino, mode).await.unwrap().fh;
    world
        .vfs
        .write(ino, fh, WriteAt::Offset(0), b"unsaved")
        .await
        .unwrap();
    assert_eq!(state(&world, "f").await, "queued");
    let snapshot = look(&world);
    assert_eq!((snapshot.counts.waiting, snapshot.counts.open), (1, 1));
    let mark = world.vfs.flush_queue();
    assert_eq!(
        world.vfs.snapshot(0, Some(mark)).counts.before_mark,
        0,
        "a flush does not wait for it"
    );
    world.vfs.release(ino, fh).await.unwrap();
    world.settled().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_of_an_upload_is_told() {
    let world = World::with(eager(), |_| {}).await;
    // The first piece arrives, the others wait for ever.
    let rule = FaultRule::new("ul", FaultAction::Slow { ms: 60_000 }).after(1);
    let rule = world.emulator.faults().add(rule);
    let content = vec![7; 6 << 20];
    world.write("big", &content).await;
    world
        .until("a part is there", async |world| {
            let text = state(world, "big").await;
            text.strip_prefix("uploading ")
                .and_then(|text| text.strip_suffix('%')?.parse::<u8>().ok())
                .is_some_and(|percent| percent > 0)
        })
        .await;
    let snapshot = look(&world);
    assert_eq!(snapshot.counts.uploading, 1);
    let Stage::Uploading(progress) = change(&snapshot, "big").stage else {
        panic!("{snapshot:#?}");
    };
    assert_eq!(progress.total, 6 << 20);
    assert!(progress.sent > 0 && progress.sent < progress.total);
    assert!(matches!(
        world.vfs.discard("big"),
        Err(ResolveError::OnItsWay(_))
    ));
    world.emulator.faults().remove(rule);
    world.vfs.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_changes_are_kept_shown_and_tried_again() {
    let world = World::with(eager(), |_| {}).await;
    let rule = park(&world, "f", b"precious").await;
    let snapshot = look(&world);
    let Stage::Parked { reason } = &change(&snapshot, "f").stage else {
        panic!("{snapshot:#?}");
    };
    assert!(reason.contains("access denied"), "{reason}");
    assert_eq!(state(&world, "f").await, format!("failed: {reason}"));
    assert!(snapshot.last_error.unwrap().text.contains("access denied"));
    assert_eq!(world.read("f").await.unwrap(), b"precious");
    world.emulator.faults().remove(rule);
    assert_eq!(
        world.vfs.retry(Some("other")),
        Err(ResolveError::NoChange("other".to_owned()))
    );
    assert_eq!(world.vfs.retry(Some("f")), Ok(1));
    world.settled().await;
    assert_eq!(world.remote("/f"), b"precious");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discarding_brings_back_what_mega_has() {
    let world = World::with(eager(), |emulator| {
        emulator
            .populate(EMAIL, &[Fixture::file("/doc", "theirs", 1)])
            .unwrap();
    })
    .await;
    let rule = park(&world, "doc", b"ours").await;
    assert_eq!(world.read("doc").await.unwrap(), b"ours");
    assert_eq!(world.vfs.discard("doc").unwrap(), ["doc"]);
    assert_eq!(world.read("doc").await.unwrap(), b"theirs");
    assert!(look(&world).counts.is_safe());
    world.emulator.faults().remove(rule);
    assert_eq!(world.names("").await, ["doc"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discarding_a_replacement_brings_back_the_replaced() {
    let world = World::with(patient(), |emulator| {
        emulator
            .populate(EMAIL, &[Fixture::file("/doc", "theirs", 1)])
            .unwrap();
    })
    .await;
    world.write("tmp", b"ours").await;
    world
        .rename("tmp", "doc", RenameMode::Replace)
        .await
        .unwrap();
    assert_eq!(world.read("doc").await.unwrap(), b"ours");
    world.vfs.discard("doc").unwrap();
    assert_eq!(world.read("doc").await.unwrap(), b"theirs");
    assert_eq!(world.names("").await, ["doc"]);
    let world = world.restart(eager()).await;
    assert_eq!(world.read("doc").await.unwrap(), b"theirs");
    assert!(look(&world).counts.is_safe());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discarding_a_new_folder_empties_it_both_ways() {
    let world = World::with(eager(), |emulator| {
        emulator
            .populate(EMAIL, &[Fixture::file("/moved", "theirs", 1)])
            .unwrap();
    })
    .await;
    let refusal = FaultAction::CommandError { code: -11 };
    let rule = world
        .emulator
        .faults()
        .add(FaultRule::new("cmd:p", refusal));
    world.mkdir("d").await;
    world.mkdir("d/e").await;
    world.write("d/e/new", b"ours").await;
    world
        .rename("moved", "d/moved", RenameMode::Replace)
        .await
        .unwrap();
    world
        .until("the folder is not on its way", async |world| {
            world.vfs.discard("d").is_ok()
        })
        .await;
    assert_eq!(world.names("").await, ["moved"]);
    assert_eq!(world.read("moved").await.unwrap(), b"theirs");
    assert!(look(&world).counts.is_safe(), "{:?}", look(&world));
    world.emulator.faults().remove(rule);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_file_is_not_discarded() {
    let world = World::with(patient(), |_| {}).await;
    world.write("f", b"1").await;
    let ino = world.ino("f").await.unwrap();
    let mode = OpenMode {
        read: true,
        ..OpenMode::default()
    };
    let fh = world.vfs.open(ino, mode).await.unwrap().fh;
    assert_eq!(
        world.vfs.discard("f"),
        Err(ResolveError::Open("f".to_owned()))
    );
    world.vfs.release(ino, fh).await.unwrap();
    world.vfs.discard("f").unwrap();
    assert_eq!(world.ino("f").await, Err(Errno::NOENT));
    world.finish().await;
}

pub(crate) async fn exported(world: &World, path: &str) -> (Vec<u8>, u64) {
    let mut export = world.vfs.export(path).unwrap();
    let mut bytes = vec![0; usize::try_from(export.size()).unwrap()];
    let mut missing = 0;
    while let Some(piece) = export.next().await.unwrap() {
        match piece {
            Exported::Data(offset, data) => {
                let offset = usize::try_from(offset).unwrap();
                bytes[offset..offset + data.len()].copy_from_slice(&data);
            }
            Exported::Missing(range) => missing += range.end - range.start,
        }
    }
    (bytes, missing)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_has_what_is_here_and_says_what_is_not() {
    let world = World::with(patient(), |emulator| {
        emulator
            .populate(EMAIL, &[Fixture::pattern("/big", 2_000_000, 1)])
            .unwrap();
    })
    .await;
    let ino = world.ino("big").await.unwrap();
    let mode = OpenMode {
        write: true,
        ..OpenMode::default()
    };
    let fh = world.vfs.open(ino, mode).await.unwrap().fh;
    world
        .vfs
        .write(ino, fh, WriteAt::Offset(1_000_000), b"here")
        .await
        .unwrap();
    world.vfs.release(ino, fh).await.unwrap();
    let down = world.emulator.faults().add(FaultRule::new(
        "*",
        FaultAction::Status {
            code: 403,
            headers: Vec::new(),
            text: String::new(),
        },
    ));
    let (bytes, missing) = exported(&world, "big").await;
    assert_eq!(&bytes[1_000_000..1_000_004], b"here");
    assert_eq!(missing, 2_000_000 - 4);
    world.emulator.faults().remove(down);
    let (bytes, missing) = exported(&world, "big").await;
    assert_eq!(missing, 0);
    let mut expected = mega_emulator::pattern(1, 0, 2_000_000);
    expected[1_000_000..1_000_004].copy_from_slice(b"here");
    assert!(bytes == expected);
    assert!(matches!(
        world.vfs.export("none"),
        Err(ResolveError::NoChange(_))
    ));
    world.finish().await;
}

async fn write_at(world: &World, path: &str, offset: u64, data: &[u8]) -> Result<u32, Errno> {
    let ino = world.ino(path).await.unwrap();
    let mode = OpenMode {
        write: true,
        ..OpenMode::default()
    };
    let fh = world.vfs.open(ino, mode).await.unwrap().fh;
    let written = world
        .vfs
        .write(ino, fh, WriteAt::Offset(offset), data)
        .await;
    world.vfs.release(ino, fh).await.unwrap();
    written
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_fit_is_refused_before_it_is_queued() {
    const QUOTA: u64 = 1 << 20;
    let world = World::with(patient(), |emulator| {
        emulator.set_account(EMAIL, Some(QUOTA), None);
    })
    .await;
    world
        .until("the quota is known", async |world| {
            look(world).quota.is_some()
        })
        .await;
    let piece = vec![1; 300_000];
    world.write("a", &piece).await;
    world.write("b", &piece).await;
    let free = world.vfs.statfs().await.unwrap();
    assert_eq!(free.bavail, (QUOTA - 600_000) / 4096);
    world.write("c", b"").await;
    assert_eq!(
        write_at(&world, "c", 0, &vec![1; 500_000]).await,
        Err(Errno::NOSPC)
    );
    assert_eq!(
        write_at(&world, "a", 0, &piece).await,
        Ok(300_000),
        "bytes that are queued already"
    );
    world.unlink("b").await.unwrap();
    assert_eq!(
        write_at(&world, "c", 0, &vec![1; 500_000]).await,
        Ok(500_000),
        "what was deleted makes room at once"
    );
    world.vfs.flush_queue();
    world.settled().await;
    assert_eq!(
        write_at(&world, "a", 0, b"x").await,
        Err(Errno::NOSPC),
        "a file on Mega costs its size once more when it changes"
    );
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_server_is_edquot() {
    let world = World::with(eager(), |_| {}).await;
    world.emulator.faults().add(FaultRule::once(
        "cmd:p",
        FaultAction::CommandError { code: -17 },
    ));
    world.write("a", b"1").await;
    world
        .until("the server has refused", async |world| {
            look(world).quota.is_some_and(|quota| quota.is_full)
        })
        .await;
    assert_eq!(write_at(&world, "a", 1, b"2").await, Err(Errno::DQUOT));
    world.mkdir("d").await;
    assert_eq!(world.read("a").await.unwrap(), b"1");
    world.write("b", b"").await;
    world.unlink("a").await.unwrap();
    assert_eq!(
        write_at(&world, "b", 0, b"2").await,
        Ok(1),
        "what did not fit is gone"
    );
    world.vfs.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_fsync_to_a_full_account_is_edquot() {
    let config = VfsConfig {
        fsync: FsyncMode::Cloud,
        // Not the reason why it ends.
        timeout: Duration::from_secs(600),
        ..eager()
    };
    for (at, action) in [
        ("cmd:p", FaultAction::CommandError { code: -17 }),
        ("cmd:u", FaultAction::CommandError { code: -17 }),
    ] {
        let world = World::with(config.clone(), |_| {}).await;
        let rule = world.emulator.faults().add(FaultRule::new(at, action));
        let mode = OpenMode {
            write: true,
            ..OpenMode::default()
        };
        let made = world.vfs.create(ROOT, OsStr::new("a"), 0o644, mode).await;
        let (entry, opened) = made.unwrap();
        let (ino, fh) = (entry.attr.ino, opened.fh);
        let offset = WriteAt::Offset(0);
        world.vfs.write(ino, fh, offset, b"bytes").await.unwrap();
        assert_eq!(world.vfs.fsync(ino, fh, false).await, Err(Errno::DQUOT));
        world.vfs.release(ino, fh).await.unwrap();
        assert_eq!(world.vfs.fsyncdir(ROOT).await, Err(Errno::DQUOT));
        if at == "cmd:u" {
            // Names need no room.
            world.mkdir("d").await;
            let folder = world.ino("d").await.unwrap();
            assert_eq!(world.vfs.fsyncdir(folder).await, Ok(()));
        }
        assert_eq!(world.read("a").await.unwrap(), b"bytes");
        world.emulator.faults().remove(rule);
        world.vfs.shutdown(Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_a_full_account_refuses_is_not_asked_for_without_end() {
    let world = World::with(eager(), |_| {}).await;
    let rule = world.emulator.faults().add(FaultRule::new(
        "cmd:p",
        FaultAction::CommandError { code: -29 },
    ));
    world.mkdir("d").await;
    world
        .until("it was asked for three times", async |world| {
            world.emulator.faults().fired(rule) >= 3
        })
        .await;
    // The pause grows, so the next try is seconds away.
    assert_eq!(world.emulator.faults().fired(rule), 3);
    world.emulator.faults().remove(rule);
    world.settled().await;
    assert_eq!(world.paths(), ["/d"]);
    world.finish().await;
}
