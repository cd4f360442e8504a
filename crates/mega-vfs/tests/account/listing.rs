//! Large directories: what is listed while entries come and go.

use std::collections::HashMap;

use mega_emulator::{FaultAction, FaultRule, Fixture};
use mega_vfs::{OpenedDirectory, RenameMode, VfsConfig};
use rustix::io::Errno;

use crate::support::{EMAIL, World, eager};

const FILES: u32 = 5_000;
const FOLDER: &str = "large/folder 000000";

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_is_listed_once_while_entries_come_and_go() {
    let world = World::with(eager(), |emulator| {
        let tree = Fixture::Generated {
            parent: "/large".into(),
            folders: 1,
            fanout: 0,
            files_per_folder: FILES,
            max_size: 0,
        };
        emulator.populate(EMAIL, &[tree]).unwrap();
    })
    .await;
    let ino = world.ino(FOLDER).await.unwrap();
    let fh = world.vfs.opendir(ino).await.unwrap().fh;
    let mut seen: HashMap<String, u32> = HashMap::new();
    let (mut offset, mut page) = (0, 0);
    loop {
        let entries = world.vfs.readdir(ino, fh, offset, 97).await.unwrap();
        let Some(last) = entries.last() else { break };
        offset = last.next_offset;
        for entry in &entries {
            let name = entry.name.to_str().unwrap().to_owned();
            *seen.entry(name).or_insert(0) += 1;
        }
        // One that was listed, one that was not, and a new one; and what somebody else does.
        let (before, after) = (page * 90 + 7, FILES - 1 - page);
        for number in [before, after] {
            let name = format!("{FOLDER}/file {:07}.txt", 1 + number);
            let _ = world.unlink(&name).await;
        }
        if page < 20 {
            world.write(&format!("{FOLDER}/here {page}"), b"x").await;
            let there = format!("/{FOLDER}/there {page}");
            let there = Fixture::Folder { path: there };
            world.emulator.populate(EMAIL, &[there]).unwrap();
        }
        page += 1;
    }
    assert!(page > 50, "{page}");
    world.vfs.releasedir(fh).await.unwrap();
    let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    world
        .until("all of it is seen", async |world| {
            world.ino(&format!("{FOLDER}/there 19")).await.is_ok()
        })
        .await;
    for name in world.names(FOLDER).await {
        let is_new = name.starts_with("here") || name.starts_with("there");
        assert!(is_new || seen.contains_key(&name), "{name} was left out");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_ends_when_its_directory_is_removed() {
    let world = World::with(eager(), |emulator| {
        emulator.populate(EMAIL, &[Fixture::folder("/d")]).unwrap();
    })
    .await;
    let held = FaultRule::new("cmd:m", FaultAction::Held);
    let rule = world.emulator.faults().add(held);
    let ino = world.ino("d").await.unwrap();
    let fh = world.vfs.opendir(ino).await.unwrap().fh;
    world.rmdir("d").await.unwrap();
    let rest = world.vfs.readdir(ino, fh, 2, 10).await.unwrap();
    assert!(rest.is_empty());
    assert_eq!(world.vfs.opendir(ino).await.err(), Some(Errno::NOENT));
    world.vfs.releasedir(fh).await.unwrap();
    world.emulator.faults().remove(rule);
    world.settled().await;
    world.finish().await;
}

/// Lists the whole of a directory, as the kernel does for `ls -l`, or without attributes.
async fn list(world: &World, ino: u64, with_attributes: bool) -> OpenedDirectory {
    let opened = world.vfs.opendir(ino).await.unwrap();
    let mut offset = 0;
    loop {
        let page = if with_attributes {
            world.vfs.readdirplus(ino, opened.fh, offset, 3).await
        } else {
            world.vfs.readdir(ino, opened.fh, offset, 3).await
        };
        let page = page.unwrap();
        let Some(last) = page.last() else { break };
        offset = last.next_offset;
    }
    world.vfs.releasedir(opened.fh).await.unwrap();
    opened
}

async fn is_kept(world: &World, ino: u64) -> bool {
    let opened = world.vfs.opendir(ino).await.unwrap();
    world.vfs.releasedir(opened.fh).await.unwrap();
    assert!(opened.may_cache);
    opened.keep_cache
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_keeps_a_listing_until_somebody_changes_it() {
    // Room for no directory: what is not loaded is watched over as well.
    for entry_budget in [VfsConfig::default().entry_budget, 1] {
        let config = VfsConfig {
            entry_budget,
            ..eager()
        };
        let world = World::with(config, |emulator| {
            let file = |path| Fixture::file(path, "x", 1_600_000_000);
            let files = ["/d/a", "/d/b", "/d/c", "/d/e", "/other/f"].map(file);
            emulator.populate(EMAIL, &files).unwrap();
        })
        .await;
        let folder = world.ino("d").await.unwrap();
        let other = world.ino("other").await.unwrap();
        // The kernel holds on to what it was told of.
        assert!(!list(&world, folder, true).await.keep_cache);
        assert!(is_kept(&world, folder).await);
        assert!(is_kept(&world, folder).await, "again and again");

        let write = async || world.write("d/new", b"x").await;
        write().await;
        assert!(!is_kept(&world, folder).await, "a new file");
        list(&world, folder, true).await;
        world
            .rename("d/new", "d/renamed", RenameMode::Replace)
            .await
            .unwrap();
        assert!(!is_kept(&world, folder).await, "another name");
        list(&world, folder, true).await;
        list(&world, other, true).await;
        world
            .rename("other/f", "d/a", RenameMode::Replace)
            .await
            .unwrap();
        assert!(!is_kept(&world, folder).await, "something came");
        assert!(!is_kept(&world, other).await, "something went");
        list(&world, folder, true).await;
        world.unlink("d/b").await.unwrap();
        assert!(!is_kept(&world, folder).await, "a removal");
        world.settled().await;
        list(&world, folder, true).await;
        assert!(is_kept(&world, folder).await);

        for (what, change) in [
            ("a new one elsewhere", Fixture::file("/d/there", "x", 1)),
            (
                "a rename elsewhere",
                Fixture::Rename {
                    path: "/d/c".into(),
                    name: "moved".into(),
                },
            ),
            (
                "a removal elsewhere",
                Fixture::Remove {
                    path: "/d/e".into(),
                },
            ),
        ] {
            list(&world, folder, true).await;
            assert!(is_kept(&world, folder).await, "{what}: before");
            world.emulator.populate(EMAIL, &[change]).unwrap();
            world
                .until(what, async |world| !is_kept(world, folder).await)
                .await;
        }
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_keeps_no_listing_that_lacks_attributes() {
    let world = World::with(eager(), |emulator| {
        let file = |path| Fixture::file(path, "x", 1_600_000_000);
        let files = ["/d/a", "/d/b", "/d/c", "/d/e"].map(file);
        emulator.populate(EMAIL, &files).unwrap();
    })
    .await;
    let folder = world.ino("d").await.unwrap();
    list(&world, folder, false).await;
    assert!(!is_kept(&world, folder).await, "names alone");
    let half = world.vfs.opendir(folder).await.unwrap();
    world.vfs.readdirplus(folder, half.fh, 0, 3).await.unwrap();
    world.vfs.releasedir(half.fh).await.unwrap();
    assert!(!is_kept(&world, folder).await, "half of it");
    list(&world, folder, true).await;
    assert!(is_kept(&world, folder).await);
    // The kernel has lost an entry, and perhaps all of them.
    world.ino("d/a").await.unwrap();
    assert!(!is_kept(&world, folder).await, "asked for an entry");
    list(&world, folder, true).await;
    world
        .vfs
        .rmdir(folder, "missing".as_ref())
        .await
        .unwrap_err();
    for name in ["a", "b", "c", "e"] {
        world.unlink(&format!("d/{name}")).await.unwrap();
    }
    list(&world, folder, true).await;
    assert!(is_kept(&world, folder).await, "an empty one");
    world.rmdir("d").await.unwrap();
    assert_eq!(world.vfs.opendir(folder).await.err(), Some(Errno::NOENT));
    world.finish().await;
}

/// A directory that alone is larger than the budget stays in memory while it is used, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn memory_is_given_back_when_nobody_lists() {
    let config = VfsConfig {
        entry_budget: 100,
        ..eager()
    };
    let world = World::with(config, |emulator| {
        let tree = Fixture::Generated {
            parent: "/large".into(),
            folders: 1,
            fanout: 0,
            files_per_folder: FILES,
            max_size: 0,
        };
        emulator.populate(EMAIL, &[tree]).unwrap();
    })
    .await;
    let entries = |world: &World| world.vfs.snapshot(0, None).entries;
    let ino = world.ino(FOLDER).await.unwrap();
    let fh = world.vfs.opendir(ino).await.unwrap().fh;
    let page = world.vfs.readdir(ino, fh, 0, 50).await.unwrap();
    assert_eq!(page.len(), 50);
    assert!(entries(&world) > FILES as usize);
    world.vfs.releasedir(fh).await.unwrap();
    world
        .until("it is given back", async |world| entries(world) <= 100)
        .await;
    assert_eq!(world.names(FOLDER).await.len(), FILES as usize);
    world.finish().await;
}
