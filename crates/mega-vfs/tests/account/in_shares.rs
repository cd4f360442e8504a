//! Folders that others share with us: below `.mega/shares`, with what each level allows. The emulator opens
//! every key that is sent for a share, and refuses what the level does not allow.

use std::time::Duration;

use mega_emulator::{AccountSpec, Emulator, FaultAction, FaultRule, Fixture, KeyForm};
use mega_vfs::{RenameMode, VfsConfig};
use rustix::io::Errno;

use crate::support::{EMAIL, World, eager};

const FRIEND: &str = "friend@example.com";
/// Where their folder is shown.
const DOCS: &str = ".mega/shares/friend@example.com/docs";

fn share(level: i64, key: KeyForm) -> Fixture {
    Fixture::ShareAs {
        path: "/docs".into(),
        to: EMAIL.into(),
        level,
        key,
    }
}

fn at(path: &str) -> String {
    format!("{DOCS}/{path}")
}

/// A folder of a friend.
fn prepare(emulator: &Emulator, level: Option<i64>) {
    emulator.add_account(AccountSpec::new(FRIEND, "secret"));
    let mut list = vec![
        Fixture::file("/docs/file", "content", 1),
        Fixture::file("/docs/deep/inner", "inner", 1),
        Fixture::file("/secret", "not for us", 1),
    ];
    list.extend(level.map(|level| share(level, KeyForm::Legacy)));
    emulator.populate(FRIEND, &list).unwrap();
    let mine = Fixture::file("/mine", "mine", 1);
    emulator.populate(EMAIL, &[mine]).unwrap();
}

async fn world_with(config: VfsConfig, level: Option<i64>) -> World {
    World::with(config, |emulator| prepare(emulator, level)).await
}

async fn world(level: i64) -> World {
    world_with(eager(), Some(level)).await
}

impl World {
    /// What the friend has, current nodes only.
    fn theirs(&self) -> Vec<String> {
        let mut nodes = self.emulator.tree(FRIEND).unwrap();
        nodes.retain(|node| !node.in_bin && node.version_of.is_none() && node.path != "/");
        let mut paths: Vec<_> = nodes.into_iter().map(|node| node.path).collect();
        paths.sort();
        paths
    }

    fn their_content(&self, path: &str) -> Vec<u8> {
        let node = self.emulator.find(FRIEND, path).unwrap();
        self.emulator.content(&node.handle).unwrap()
    }

    async fn move_over(&self, from: &str, to: &str) -> Result<(), Errno> {
        self.rename(from, to, RenameMode::Replace).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_is_read_whatever_form_its_key_has() {
    for form in [
        KeyForm::Legacy,
        KeyForm::Rsa,
        KeyForm::Kept,
        KeyForm::Pending,
    ] {
        let world = World::with(eager(), |emulator| {
            prepare(emulator, None);
            emulator.populate(FRIEND, &[share(0, form)]).unwrap();
        })
        .await;
        world
            .until("its key is known", async |world| {
                world.ino(&at("file")).await.is_ok()
            })
            .await;
        assert_eq!(world.names(".mega/shares").await, [FRIEND]);
        let theirs = format!(".mega/shares/{FRIEND}");
        assert_eq!(world.names(&theirs).await, ["docs"], "{form:?}");
        assert_eq!(world.names(DOCS).await, ["deep", "file"]);
        assert_eq!(world.read(&at("deep/inner")).await.unwrap(), b"inner");
        assert_eq!(world.names("").await, ["mine"]);
        let world = world.restart(eager()).await;
        assert_eq!(world.read(&at("file")).await.unwrap(), b"content");
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_to_read_is_not_changed() {
    let world = world(0).await;
    let refused = Err(Errno::ROFS);
    assert_eq!(world.try_create(&at("x")).await, refused);
    assert_eq!(world.try_mkdir(&at("x")).await, refused);
    assert_eq!(world.open_to_write(&at("file")).await, refused);
    assert_eq!(world.try_set_time(&at("file")).await, refused);
    assert_eq!(world.unlink(&at("file")).await, refused);
    assert_eq!(world.move_over(&at("file"), &at("deep/f")).await, refused);
    assert_eq!(world.move_over("mine", &at("mine")).await, Err(Errno::XDEV));
    assert_eq!(world.move_over(&at("file"), "file").await, Err(Errno::XDEV));
    assert_eq!(world.move_over(DOCS, "docs").await, Err(Errno::XDEV));
    assert_eq!(
        world.rmdir(DOCS).await,
        Err(Errno::PERM),
        "leaving a share is not removing it"
    );
    world.settled().await;
    assert_eq!(world.theirs().len(), 5);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_to_write_takes_new_entries_and_contents() {
    let world = world(1).await;
    world.write(&at("new"), b"ours").await;
    world.mkdir(&at("folder")).await;
    world.write(&at("folder/below"), b"below").await;
    world.write(&at("file"), b"their file, our content").await;
    world.settled().await;
    assert_eq!(
        world.theirs(),
        [
            "/docs",
            "/docs/deep",
            "/docs/deep/inner",
            "/docs/file",
            "/docs/folder",
            "/docs/folder/below",
            "/docs/new",
            "/secret"
        ]
    );
    assert_eq!(world.their_content("/docs/folder/below"), b"below");
    assert_eq!(
        world.their_content("/docs/file"),
        b"their file, our content"
    );
    assert_eq!(
        world.read(&at("file")).await.unwrap(),
        b"their file, our content"
    );
    // What Mega has is neither renamed nor removed, nor gets another time.
    let refused = Err(Errno::ACCESS);
    assert_eq!(world.unlink(&at("new")).await, refused);
    assert_eq!(world.move_over(&at("new"), &at("n")).await, refused);
    assert_eq!(world.try_set_time(&at("new")).await, refused);
    let world = world.restart(eager()).await;
    assert_eq!(world.read(&at("new")).await.unwrap(), b"ours");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_sent_yet_is_ours_to_rename_and_remove() {
    let config = VfsConfig {
        write_back: Duration::from_millis(500),
        ..eager()
    };
    let world = world_with(config, Some(1)).await;
    // As an editor saves: another file, renamed over the one.
    world.write(&at("tmp"), b"saved").await;
    world.move_over(&at("tmp"), &at("file")).await.unwrap();
    world.write(&at("gone"), b"x").await;
    world.unlink(&at("gone")).await.unwrap();
    world.settled().await;
    assert_eq!(world.their_content("/docs/file"), b"saved");
    assert_eq!(world.names(DOCS).await, ["deep", "file"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_share_is_worked_in_but_nothing_goes_for_good() {
    let world = world(2).await;
    world.write(&at("a"), b"a").await;
    world.settled().await;
    world.move_over(&at("a"), &at("deep/b")).await.unwrap();
    world.try_set_time(&at("deep/b")).await.unwrap();
    world.settled().await;
    assert_eq!(world.their_content("/docs/deep/b"), b"a");
    let refused = Err(Errno::PERM);
    assert_eq!(world.unlink(&at("deep/b")).await, refused);
    assert_eq!(world.move_over(&at("deep/b"), &at("file")).await, refused);
    assert_eq!(world.try_mkdir(&at("empty")).await, Ok(()));
    world.settled().await;
    assert_eq!(world.rmdir(&at("empty")).await, refused);
    assert_eq!(world.theirs().len(), 7);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_hard_delete_a_full_share_is_removed_from() {
    let config = VfsConfig {
        hard_delete: true,
        ..eager()
    };
    let world = world_with(config, Some(2)).await;
    world.unlink(&at("deep/inner")).await.unwrap();
    world.rmdir(&at("deep")).await.unwrap();
    world.settled().await;
    assert_eq!(world.theirs(), ["/docs", "/docs/file", "/secret"]);
    let nodes = world.emulator.tree(FRIEND).unwrap();
    assert!(nodes.iter().all(|node| !node.in_bin));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_comes_and_goes_while_mounted() {
    let world = world_with(eager(), None).await;
    assert_eq!(world.names(".mega/shares").await, Vec::<String>::new());
    let begin = |level| {
        let list = [share(level, KeyForm::Legacy)];
        world.emulator.populate(FRIEND, &list).unwrap();
    };
    begin(0);
    world
        .until("the share is there", async |world| {
            world.read(&at("file")).await.as_deref() == Ok(b"content")
        })
        .await;
    assert_eq!(world.try_mkdir(&at("new")).await, Err(Errno::ROFS));
    begin(2);
    world
        .until("it may be written", async |world| {
            world.try_mkdir(&at("new")).await.is_ok()
        })
        .await;
    world.settled().await;
    // What they do in it is seen.
    let theirs = Fixture::file("/docs/new/late", "late", 1);
    world.emulator.populate(FRIEND, &[theirs]).unwrap();
    world
        .until("their file is there", async |world| {
            world.read(&at("new/late")).await.as_deref() == Ok(b"late")
        })
        .await;
    // Out of the share is out of our sight, though no removal is told.
    let theirs = Fixture::Move {
        path: "/docs/deep".into(),
        to: "/".into(),
    };
    world.emulator.populate(FRIEND, &[theirs]).unwrap();
    world
        .until("the folder has gone", async |world| {
            world.ino(&at("deep")).await == Err(Errno::NOENT)
        })
        .await;
    let end = Fixture::Unshare {
        path: "/docs".into(),
        to: EMAIL.into(),
    };
    world.emulator.populate(FRIEND, &[end]).unwrap();
    world
        .until("the share has gone", async |world| {
            world.names(".mega/shares").await.is_empty()
        })
        .await;
    assert_eq!(world.ino(DOCS).await, Err(Errno::NOENT));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_into_a_share_that_ends_is_kept() {
    let config = VfsConfig {
        write_back: Duration::from_secs(3),
        ..eager()
    };
    let world = world_with(config, Some(1)).await;
    world.write(&at("deep/new"), b"nowhere else").await;
    let end = Fixture::Unshare {
        path: "/docs".into(),
        to: EMAIL.into(),
    };
    world.emulator.populate(FRIEND, &[end]).unwrap();
    world
        .until("the share has gone", async |world| {
            world.names(".mega/shares").await.is_empty()
        })
        .await;
    world.settled().await;
    let kept: Vec<_> = world
        .paths()
        .into_iter()
        .filter(|path| path.ends_with("/new"))
        .collect();
    assert_eq!(kept.len(), 1, "{:?}", world.paths());
    assert_eq!(world.remote(&kept[0]), b"nowhere else");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_makes_no_second_node_in_a_share() {
    let world = world(1).await;
    let faults = world.emulator.faults();
    faults.add(FaultRule::once("cmd:p", FaultAction::Lost));
    world.write(&at("once"), b"once").await;
    world.settled().await;
    let count = world
        .theirs()
        .iter()
        .filter(|path| path.as_str() == "/docs/once")
        .count();
    assert_eq!(count, 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_of_one_name_are_told_apart() {
    let world = World::with(eager(), |emulator| {
        prepare(emulator, Some(0));
        let list = [
            Fixture::file("/other/docs/second", "2", 1),
            Fixture::Share {
                path: "/other/docs".into(),
                to: EMAIL.into(),
                level: 0,
            },
        ];
        emulator.populate(FRIEND, &list).unwrap();
    })
    .await;
    let theirs = format!(".mega/shares/{FRIEND}");
    assert_eq!(world.names(&theirs).await, ["docs", "docs (1)"]);
    let mut found = Vec::new();
    for name in ["docs", "docs (1)"] {
        found.push(world.names(&format!("{theirs}/{name}")).await);
    }
    assert!(found.contains(&vec!["second".to_owned()]));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_comes_later_makes_names_readable() {
    for form in [KeyForm::Kept, KeyForm::Pending] {
        let world = world_with(eager(), None).await;
        world.emulator.populate(FRIEND, &[share(1, form)]).unwrap();
        world
            .until("it can be read", async |world| {
                world.read(&at("deep/inner")).await.as_deref() == Ok(b"inner")
            })
            .await;
        // What we put there has the key that is kept elsewhere.
        world.write(&at("ours"), b"ours").await;
        world.settled().await;
        assert_eq!(world.their_content("/docs/ours"), b"ours");
        assert_eq!(world.names(DOCS).await, ["deep", "file", "ours"]);
        // Nothing was taken from where our other clients look for it.
        let counters = world.emulator.counters();
        assert_eq!(counters.commands("upv") + counters.commands("up2"), 0);
        let world = world.restart(eager()).await;
        assert_eq!(world.read(&at("ours")).await.unwrap(), b"ours");
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_ours_that_is_shared_the_new_way_gets_keys_too() {
    let world = World::with(eager(), |emulator| {
        emulator.add_account(AccountSpec::new(FRIEND, "secret"));
        let list = [
            Fixture::file("/ours/a", "a", 1),
            Fixture::ShareAs {
                path: "/ours".into(),
                to: FRIEND.into(),
                level: 0,
                key: KeyForm::Kept,
            },
        ];
        emulator.populate(EMAIL, &list).unwrap();
    })
    .await;
    world
        .until("the key was asked for", async |world| {
            world.emulator.counters().commands("pk") > 0
        })
        .await;
    // Without a key for the friend this would be a violation.
    world.write("ours/b", b"b").await;
    world.mkdir("ours/c").await;
    world.settled().await;
    world.finish().await;
}

/// The account's share keys are not told.
fn without_keys(emulator: &Emulator) -> u64 {
    let refusal = FaultAction::CommandError { code: -11 };
    emulator.faults().add(FaultRule::new("cmd:uga", refusal))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_put_into_a_share_whose_key_is_not_known() {
    let mut rule = 0;
    let world = World::with(eager(), |emulator| {
        prepare(emulator, None);
        let list = [share(2, KeyForm::Kept)];
        emulator.populate(FRIEND, &list).unwrap();
        rule = without_keys(emulator);
    })
    .await;
    let theirs = format!(".mega/shares/{FRIEND}");
    let names = world.names(&theirs).await;
    let unreadable = format!("{theirs}/{}", names[0]);
    let new = format!("{unreadable}/new");
    assert_eq!(world.try_create(&new).await, Err(Errno::ACCESS));
    assert_eq!(world.try_mkdir(&new).await, Err(Errno::ACCESS));
    world
        .until("the keys were asked for again", async |world| {
            world.emulator.faults().fired(rule) > 1
        })
        .await;
    // What goes wrong once is not left at that.
    world.emulator.faults().remove(rule);
    world
        .until("it can be read", async |world| {
            world.read(&at("file")).await.as_deref() == Ok(b"content")
        })
        .await;
    world.write(&at("new"), b"new").await;
    world.settled().await;
    assert_eq!(world.their_content("/docs/new"), b"new");
    assert_eq!(world.emulator.counters().commands("p"), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_share_whose_key_went_goes_when_it_is_there_again() {
    let config = VfsConfig {
        write_back: Duration::from_secs(60),
        ..eager()
    };
    let world = world_with(config, Some(1)).await;
    let refusal = FaultAction::CommandError { code: -11 };
    let rule = world
        .emulator
        .faults()
        .add(FaultRule::new("cmd:p", refusal));
    world.write(&at("new"), b"new").await;
    world.mkdir(&at("folder")).await;
    world.write(&at("folder/below"), b"below").await;
    world.write(&at("file"), b"our content").await;
    let world = world
        .restart_after(eager(), false, |store| {
            let mut shares = store.shares().unwrap();
            shares.retain(|share| !share.key_as_served.is_empty());
            for share in &mut shares {
                share.key_as_served = String::new();
            }
            let put = |tx: &mut mega_store::Tx<'_>| {
                shares.iter().try_for_each(|share| tx.put_share(share))
            };
            store.write(put).unwrap();
        })
        .await;
    world.emulator.faults().remove(rule);
    let mine = "sign";
    world.write(mine, b"").await;
    world
        .until("ours goes on", async |world| {
            world.paths().contains(&format!("/{mine}"))
        })
        .await;
    assert_eq!(world.theirs().len(), 5, "{:?}", world.theirs());
    let again = [share(1, KeyForm::Legacy)];
    world.emulator.populate(FRIEND, &again).unwrap();
    world.settled().await;
    assert_eq!(world.their_content("/docs/new"), b"new");
    assert_eq!(world.their_content("/docs/folder/below"), b"below");
    assert_eq!(world.their_content("/docs/file"), b"our content");
    assert_eq!(world.theirs().len(), 8);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_an_answer_does_not_show_is_not_put_again() {
    let world = world(1).await;
    let reply = FaultAction::CommandReply {
        reply: serde_json::json!({"f": []}),
    };
    let rule = world.emulator.faults().add(FaultRule::new("cmd:p", reply));
    world.write(&at("new"), b"new").await;
    world.mkdir(&at("folder")).await;
    world
        .until("the user is asked", async |world| {
            world.vfs.flush_queue();
            world.vfs.status().parked.len() == 2
        })
        .await;
    assert_eq!(world.emulator.faults().fired(rule), 2);
    world.vfs.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_saved_by_rename_again_while_the_first_is_on_its_way() {
    for (level, name) in [(1, "file"), (1, "new"), (2, "file"), (2, "new")] {
        let config = VfsConfig {
            write_back: Duration::from_secs(60),
            ..eager()
        };
        let world = world_with(config, Some(level)).await;
        let held = FaultRule::new("cmd:p", FaultAction::Held);
        let rule = world.emulator.faults().add(held);
        world.write(&at("tmp"), b"first").await;
        world.move_over(&at("tmp"), &at(name)).await.unwrap();
        world.vfs.flush_queue();
        world
            .until("the first is on its way", async |world| {
                world.emulator.faults().fired(rule) > 0
            })
            .await;
        world.write(&at("tmp"), b"second").await;
        world.move_over(&at("tmp"), &at(name)).await.unwrap();
        world.write(&at("tmp"), b"third").await;
        world.move_over(&at("tmp"), &at(name)).await.unwrap();
        // It stands for what Mega has or is about to have.
        let refused = if level == 1 {
            Errno::ACCESS
        } else {
            Errno::PERM
        };
        assert_eq!(world.unlink(&at(name)).await, Err(refused));
        world.emulator.faults().remove(rule);
        world.vfs.flush_queue();
        world.settled().await;
        let path = format!("/docs/{name}");
        assert_eq!(world.their_content(&path), b"third");
        assert_eq!(world.read(&at(name)).await.unwrap(), b"third");
        let expected = if name == "file" { 5 } else { 6 };
        assert_eq!(world.theirs().len(), expected, "{:?}", world.theirs());
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_bytes_are_being_sent_may_be_renamed() {
    let world = world(1).await;
    let held = FaultRule::new("ul", FaultAction::Held);
    let rule = world.emulator.faults().add(held);
    world.write(&at("tmp"), b"saved").await;
    world.write(&at("gone"), b"gone").await;
    world
        .until("both are on their way", async |world| {
            world.emulator.faults().fired(rule) == 2
        })
        .await;
    world.move_over(&at("tmp"), &at("file")).await.unwrap();
    world.unlink(&at("gone")).await.unwrap();
    world.emulator.faults().remove(rule);
    world.settled().await;
    assert_eq!(world.their_content("/docs/file"), b"saved");
    assert_eq!(world.theirs().len(), 5);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_file_is_not_removed_by_way_of_its_replacement() {
    let config = VfsConfig {
        write_back: Duration::from_secs(60),
        ..eager()
    };
    for (level, refused) in [(1, Errno::ACCESS), (2, Errno::PERM)] {
        let world = world_with(config.clone(), Some(level)).await;
        world.write(&at("tmp"), b"saved").await;
        world.move_over(&at("tmp"), &at("file")).await.unwrap();
        let refused = Err(refused);
        assert_eq!(world.unlink(&at("file")).await, refused, "level {level}");
        // Where it may be moved at all, it may once Mega has it.
        let moved = world.move_over(&at("file"), &at("deep/file")).await;
        let expected = if level == 1 {
            Errno::ACCESS
        } else {
            Errno::BUSY
        };
        assert_eq!(moved, Err(expected));
        assert_eq!(
            world.move_over(&at("deep/inner"), &at("file")).await,
            refused
        );
        // Replaced once more it still becomes a version.
        world.write(&at("tmp"), b"saved again").await;
        world.move_over(&at("tmp"), &at("file")).await.unwrap();
        // Under another name beside it, too.
        world.write(&at("tmp"), b"other").await;
        world.move_over(&at("tmp"), &at("more")).await.unwrap();
        let world = world.restart(eager()).await;
        world.settled().await;
        assert_eq!(world.their_content("/docs/file"), b"saved again");
        assert_eq!(world.their_content("/docs/more"), b"other");
        assert_eq!(world.theirs().len(), 6);
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_friend_without_space_does_not_hold_up_our_own_uploads() {
    let world = world(1).await;
    world.emulator.set_account(FRIEND, Some(20), None);
    world.write(&at("new"), &[1; 100]).await;
    world
        .until("it was refused", async |world| {
            world.emulator.counters().commands("p") > 0
        })
        .await;
    world.write("ours", b"ours").await;
    world
        .until("ours is there", async |world| {
            world.paths() == ["/mine", "/ours"]
        })
        .await;
    world
        .until("the user is told", async |world| {
            world.vfs.flush_queue();
            let parked = world.vfs.status().parked;
            parked.iter().any(|reason| reason.contains("shares"))
        })
        .await;
    assert_eq!(world.read(&at("new")).await.unwrap(), [1; 100]);
    world.emulator.set_account(FRIEND, Some(1 << 20), None);
    world.vfs.retry(None).unwrap();
    world.settled().await;
    assert_eq!(world.their_content("/docs/new"), [1; 100]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_for_a_friend_takes_none_of_our_space() {
    let config = VfsConfig {
        write_back: Duration::from_secs(60),
        ..eager()
    };
    let world = World::with(config, |emulator| {
        prepare(emulator, Some(1));
        emulator.set_account(EMAIL, Some(1 << 20), None);
    })
    .await;
    let free = async |world: &World| world.vfs.statfs().await.unwrap().bavail;
    world
        .until("the quota is known", async |world| {
            free(world).await <= (1 << 20) / 4096
        })
        .await;
    let before = free(&world).await;
    world.write(&at("large"), &vec![1; 1 << 21]).await;
    assert_eq!(free(&world).await, before);
    world.write("ours", &[1; 4096]).await;
    assert_eq!(free(&world).await, before - 1);
    world.unlink(&at("large")).await.unwrap();
    world.vfs.flush_queue();
    world.settled().await;
    world.finish().await;
}

/// A share in a share of the same friend.
async fn nested() -> World {
    let world = World::with(eager(), |emulator| {
        prepare(emulator, Some(1));
        let inner = Fixture::Share {
            path: "/docs/deep".into(),
            to: EMAIL.into(),
            level: 2,
        };
        emulator.populate(FRIEND, &[inner]).unwrap();
    })
    .await;
    let theirs = format!(".mega/shares/{FRIEND}");
    assert_eq!(world.names(&theirs).await, ["deep", "docs"]);
    assert_eq!(world.names(DOCS).await, ["deep", "file"]);
    world
}

async fn end_share(world: &World, path: &str, left: &str) {
    let end = Fixture::Unshare {
        path: path.into(),
        to: EMAIL.into(),
    };
    world.emulator.populate(FRIEND, &[end]).unwrap();
    let theirs = format!(".mega/shares/{FRIEND}");
    world
        .until("the share has ended", async |world| {
            world.names(&theirs).await == [left]
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_ends_in_a_share_is_still_part_of_that() {
    let world = nested().await;
    end_share(&world, "/docs/deep", "docs").await;
    assert_eq!(world.names(DOCS).await, ["deep", "file"]);
    assert_eq!(world.read(&at("deep/inner")).await.unwrap(), b"inner");
    let theirs = Fixture::file("/docs/deep/late", "late", 1);
    world.emulator.populate(FRIEND, &[theirs]).unwrap();
    world
        .until("what comes later is seen", async |world| {
            world.read(&at("deep/late")).await.as_deref() == Ok(b"late")
        })
        .await;
    // What is no longer shared at all goes.
    let end = Fixture::Unshare {
        path: "/docs".into(),
        to: EMAIL.into(),
    };
    world.emulator.populate(FRIEND, &[end]).unwrap();
    world
        .until("all has gone", async |world| {
            world.names(".mega/shares").await.is_empty()
        })
        .await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_outlives_the_one_it_is_in() {
    let world = nested().await;
    end_share(&world, "/docs", "deep").await;
    let inner = format!(".mega/shares/{FRIEND}/deep/inner");
    assert_eq!(world.read(&inner).await.unwrap(), b"inner");
    let world = world.restart(eager()).await;
    assert_eq!(world.read(&inner).await.unwrap(), b"inner");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ours_is_shared_with_us_by_nobody() {
    use mega_proto::{ActionPacket, NodeKind, Packet, RawNode, ShareTarget, UserHandle};
    use mega_tree::truth::{self, Scope};
    let world = World::with(eager(), |emulator| {
        emulator
            .populate(EMAIL, &[Fixture::folder("/mine")])
            .unwrap();
    })
    .await;
    let mine = world.emulator.find(EMAIL, "/mine").unwrap().handle;
    let mine = mine.parse().unwrap();
    let me = world.api.session().unwrap().user;
    let stranger = UserHandle([7; 8]);
    let world = world
        .restart_after(eager(), false, |store| {
            let scope = Scope {
                me: Some(me),
                is_current: true,
            };
            let mut node = RawNode::new(mine, None, NodeKind::Folder);
            node.sharer = Some(stranger);
            node.access = Some(0);
            let actions = [
                ActionPacket::Nodes {
                    nodes: vec![node],
                    users: Vec::new(),
                    client_id: None,
                },
                ActionPacket::Share {
                    node: mine,
                    owner: Some(stranger),
                    target: Some(ShareTarget::User(me)),
                    access: Some(0),
                    ts: None,
                    key: None,
                    owner_key: None,
                    ha: None,
                },
            ];
            let packets = actions.map(|action| Packet {
                i: None,
                st: None,
                action,
            });
            let apply = |tx: &mut mega_store::Tx<'_>| {
                truth::apply(store, tx, &packets, scope, |_| false).map(|_| ())
            };
            store.write(apply).unwrap();
        })
        .await;
    world.write("mine/new", b"new").await;
    world.settled().await;
    assert_eq!(world.remote("/mine/new"), b"new");
    assert_eq!(world.names(".mega/shares").await, Vec::<String>::new());
    world.finish().await;
}
