//! Large directories: what is listed while entries come and go.

use std::collections::HashMap;

use mega_emulator::{FaultAction, FaultRule, Fixture};
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
    let fh = world.vfs.opendir(ino).await.unwrap();
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
    let fh = world.vfs.opendir(ino).await.unwrap();
    world.rmdir("d").await.unwrap();
    let rest = world.vfs.readdir(ino, fh, 2, 10).await.unwrap();
    assert!(rest.is_empty());
    assert_eq!(world.vfs.opendir(ino).await, Err(Errno::NOENT));
    world.vfs.releasedir(fh).await.unwrap();
    world.emulator.faults().remove(rule);
    world.settled().await;
    world.finish().await;
}
