//! What the proof has found, each reduced to what it takes.

use std::time::{Duration, Instant};

use mega_emulator::{FaultAction, FaultRule, Fixture};
use mega_vfs::VfsConfig;

use crate::script::{Act, Picture, act, look};
use crate::world::{EMAIL, World};

fn eager() -> VfsConfig {
    VfsConfig {
        write_back: Duration::ZERO,
        timeout: Duration::from_secs(20),
        ..VfsConfig::default()
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn write(path: &'static str, seed: u64, size: usize) -> Act {
    Act::Write { path, seed, size }
}

/// Does `acts` and returns what there should be.
fn play(world: &World, acts: &[Act], picture: &mut Picture) {
    for one in acts {
        act(world.life(), one).unwrap();
        picture.apply(one);
    }
}

fn check(world: &World, picture: &Picture) {
    assert_eq!(look(world.life()).unwrap().brief(), picture.brief());
    assert!(look(world.life()).unwrap() == *picture, "other bytes");
}

fn check_settled(world: &World, picture: &Picture) {
    world.settle().unwrap();
    check(world, picture);
    let server = Picture::of_server(&world.emulator).unwrap();
    assert_eq!(server.brief(), picture.brief(), "on Mega");
    assert!(server == *picture, "other bytes on Mega");
    let violations = world.emulator.counters().violations;
    assert_eq!(violations, Vec::<String>::new());
}

/// The server has the new version, the answer did not come, the process died: the packet that tells of
/// the version is our own.
#[test]
fn our_own_version_seen_after_a_crash_is_no_conflict() {
    let mut world = World::new(eager(), false);
    let mut picture = Picture::default();
    play(&world, &[write("doc", 1, 100)], &mut picture);
    world.settle().unwrap();
    let slow = FaultRule::once("cmd:p", FaultAction::Slow { ms: 20_000 });
    world.emulator.faults().add(slow);
    play(&world, &[write("doc", 2, 200)], &mut picture);
    until("the new version is on the server", || {
        world.nodes().iter().any(|node| node.size == 200)
    });
    world.crash();
    check_settled(&world, &picture);
}

/// After a crash a file is removed before it is known that the server has made it already.
#[test]
fn a_file_removed_before_its_put_is_looked_up_stays_removed() {
    let mut world = World::new(eager(), false);
    let mut picture = Picture::default();
    play(&world, &[Act::Mkdir { path: "d" }], &mut picture);
    world.settle().unwrap();
    let slow = FaultRule::once("cmd:p", FaultAction::Slow { ms: 20_000 });
    world.emulator.faults().add(slow);
    play(&world, &[write("d/f", 1, 100)], &mut picture);
    until("the node is on the server", || {
        world.nodes().iter().any(|node| node.size == 100)
    });
    // The next life hears nothing for a while.
    world.stop();
    for at in ["sc", "wsc"] {
        let slow = FaultRule::once(at, FaultAction::Slow { ms: 1500 });
        world.emulator.faults().add(slow);
    }
    world.crash();
    let acts = [Act::Unlink { path: "d/f" }, Act::Rmdir { path: "d" }];
    play(&world, &acts, &mut picture);
    check_settled(&world, &picture);
}

/// As the first one, for content written over the old and a new place: what was acknowledged is there.
#[test]
fn an_unanswered_version_of_a_file_that_moved_keeps_its_bytes() {
    let mut world = World::new(eager(), false);
    let mut picture = Picture::default();
    let acts = [
        Act::Mkdir { path: "d" },
        Act::Mkdir { path: "d/e" },
        write("d/e/small", 3, 10),
    ];
    play(&world, &acts, &mut picture);
    world.settle().unwrap();
    world.life().store.failpoints().hold(true);
    let slow = FaultRule::once("cmd:p", FaultAction::Slow { ms: 20_000 });
    world.emulator.faults().add(slow);
    let patch = Act::Patch {
        path: "d/e/small",
        offset: 5,
        seed: 6,
        size: 70_000,
    };
    let rename = Act::Rename {
        from: "d/e",
        to: "moved",
    };
    let chmod = Act::Chmod {
        path: "moved/small",
    };
    play(&world, &[patch, rename, chmod], &mut picture);
    world.life().store.failpoints().hold(false);
    until("the new version is on the server", || {
        world.nodes().iter().any(|node| node.size == 70_005)
    });
    world.crash();
    check_settled(&world, &picture);
}

fn check_no_stray(world: &World) {
    until("staging is empty", || world.stray_files().is_empty());
}

#[test]
fn staging_of_a_dirty_file_that_is_replaced_goes() {
    let world = World::new(eager(), true);
    let mut picture = Picture::default();
    play(&world, &[write("doc", 1, 100)], &mut picture);
    world.settle().unwrap();
    let rename = Act::Rename {
        from: "tmp",
        to: "doc",
    };
    let acts = [write("doc", 2, 80_000), write("tmp", 3, 90_000), rename];
    play(&world, &acts, &mut picture);
    check_settled(&world, &picture);
    check_no_stray(&world);
}

#[test]
fn staging_of_a_removed_file_that_they_delete_goes() {
    let world = World::new(eager(), true);
    let mut picture = Picture::default();
    play(&world, &[write("doc", 1, 100)], &mut picture);
    world.settle().unwrap();
    let acts = [write("doc", 2, 80_000), Act::Unlink { path: "doc" }];
    play(&world, &acts, &mut picture);
    let path = "/doc".to_owned();
    let theirs = [Fixture::Remove { path }];
    world.emulator.populate(EMAIL, &theirs).unwrap();
    until("their deletion is applied", || {
        world.life().store.changes().unwrap().is_empty()
    });
    check_settled(&world, &picture);
    check_no_stray(&world);
}

fn theirs(world: &World, list: &[Fixture]) {
    let mut list = list.to_vec();
    list.push(Fixture::folder("/~seen"));
    world.emulator.populate(EMAIL, &list).unwrap();
    // A look while something vanishes may fail.
    let is_seen = || Some(look(world.life()).ok()?.0.contains_key("~seen"));
    until("their changes are seen", || is_seen() == Some(true));
    let path = "/~seen".to_owned();
    let list = [Fixture::Remove { path }];
    world.emulator.populate(EMAIL, &list).unwrap();
    until("the marker is gone", || is_seen() == Some(false));
}

/// The table: deleted there, only a name here: gone. For both ways to delete, in place or moved.
fn a_deleted_folder_is_gone(to: &'static str, for_good: bool) {
    let world = World::new(eager(), true);
    let mut picture = Picture::default();
    theirs(&world, &[Fixture::folder("/x"), Fixture::folder("/y")]);
    play(
        &world,
        &[Act::Rename { from: "x", to }],
        &mut Picture::default(),
    );
    let path = "/x".to_owned();
    theirs(
        &world,
        &[if for_good {
            Fixture::Remove { path }
        } else {
            Fixture::Trash { path }
        }],
    );
    picture.apply(&Act::Mkdir { path: "y" });
    check(&world, &picture);
    check_settled(&world, &picture);
}

#[test]
fn a_folder_renamed_here_and_deleted_there_is_gone() {
    a_deleted_folder_is_gone("z", true);
}

#[test]
fn a_folder_renamed_here_and_thrown_away_there_is_gone() {
    a_deleted_folder_is_gone("z", false);
}

#[test]
fn a_folder_moved_here_and_deleted_there_is_gone() {
    a_deleted_folder_is_gone("y/z", true);
}

#[test]
fn a_folder_moved_here_and_thrown_away_there_is_gone() {
    a_deleted_folder_is_gone("y/z", false);
}

fn patient() -> VfsConfig {
    VfsConfig {
        write_back: Duration::from_millis(400),
        write_back_max: Duration::from_secs(2),
        ..eager()
    }
}

/// The write-back delay counts from the last close of a writer.
#[test]
fn reading_does_not_put_an_upload_off() {
    let world = World::new(patient(), false);
    let mut picture = Picture::default();
    play(&world, &[write("doc", 1, 100)], &mut picture);
    until("it is uploaded while it is read", || {
        check(&world, &picture);
        !world.nodes().is_empty()
    });
    check_settled(&world, &picture);
}

/// As a log is: opened, written and closed without a pause as long as the delay.
#[test]
fn a_file_that_is_written_again_and_again_is_uploaded() {
    let world = World::new(patient(), false);
    let mut picture = Picture::default();
    let mut seed = 0;
    until("it is uploaded while it is written", || {
        seed += 1;
        play(&world, &[write("doc", seed, 100)], &mut picture);
        !world.nodes().is_empty()
    });
    check_settled(&world, &picture);
}

#[test]
fn a_conflict_copy_keeps_its_attributes() {
    let world = World::new(eager(), true);
    let acts = [write("doc", 1, 100), Act::Chmod { path: "doc" }];
    play(&world, &acts, &mut Picture::default());
    world.settle().unwrap();
    play(&world, &[write("doc", 2, 200)], &mut Picture::default());
    let overwrite = Fixture::Overwrite {
        path: "/doc".to_owned(),
        content: mega_emulator::FixtureContent::Text("theirs".to_owned()),
        mtime: Some(1_700_000_000),
    };
    theirs(&world, &[overwrite]);
    world.settle().unwrap();
    let seen = look(world.life()).unwrap().brief();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(seen.iter().any(|line| line.ends_with(" 200x")), "{seen:?}");
}

/// What is done while an answer is out counts, whatever the answer is.
fn a_name_survives(is_new: bool) {
    let mut world = World::new(eager(), false);
    let mut picture = Picture::default();
    if !is_new {
        play(&world, &[write("doc", 1, 100)], &mut picture);
        world.settle().unwrap();
    }
    let slow = FaultRule::once("cmd:p", FaultAction::Slow { ms: 20_000 });
    world.emulator.faults().add(slow);
    play(&world, &[write("doc", 2, 200)], &mut picture);
    until("it is on the server", || {
        world.nodes().iter().any(|node| node.size == 200)
    });
    let rename = Act::Rename {
        from: "doc",
        to: "doc2",
    };
    play(&world, &[rename], &mut picture);
    world.crash();
    check_settled(&world, &picture);
}

#[test]
fn a_name_given_while_a_new_file_is_unanswered_survives_a_crash() {
    a_name_survives(true);
}

#[test]
fn a_name_given_while_a_version_is_unanswered_survives_a_crash() {
    a_name_survives(false);
}

/// The table: deleted there, new content here: put again, its path too.
fn content_in_a_deleted_folder_is_kept(for_good: bool) {
    let world = World::new(eager(), true);
    let mut picture = Picture::default();
    let acts = [Act::Mkdir { path: "d" }, write("d/f", 1, 100)];
    play(&world, &acts, &mut picture);
    world.settle().unwrap();
    play(&world, &[write("d/f", 2, 200)], &mut picture);
    let path = "/d".to_owned();
    theirs(
        &world,
        &[if for_good {
            Fixture::Remove { path }
        } else {
            Fixture::Trash { path }
        }],
    );
    check(&world, &picture);
    check_settled(&world, &picture);
}

#[test]
fn content_in_a_folder_that_they_delete_is_kept() {
    content_in_a_deleted_folder_is_kept(true);
}

#[test]
fn content_in_a_folder_that_they_throw_away_is_kept() {
    content_in_a_deleted_folder_is_kept(false);
}

/// The content goes where the node is, in one request with the folder that the file was moved to.
#[test]
fn a_move_into_a_new_folder_survives_content_put_beside_it() {
    let world = World::new(eager(), false);
    let mut picture = Picture::default();
    play(&world, &[write("f", 1, 100)], &mut picture);
    world.settle().unwrap();
    let posts = world.emulator.counters().requests("ul");
    let slow = FaultRule::once("ul", FaultAction::Slow { ms: 200 });
    world.emulator.faults().add(slow);
    play(&world, &[write("f", 2, 200)], &mut picture);
    until("the bytes are on their way", || {
        world.emulator.counters().requests("ul") > posts
    });
    world.life().store.failpoints().hold(true);
    let rename = Act::Rename {
        from: "f",
        to: "d/f2",
    };
    play(&world, &[Act::Mkdir { path: "d" }, rename], &mut picture);
    // Held, the pusher still collects the upload that has ended.
    let held_since = Instant::now();
    until("the upload has ended", || {
        held_since.elapsed() > Duration::from_millis(300)
    });
    check_settled(&world, &picture);
}

/// A put that is still unknown counts on the layers it was made of: what is written before it is looked
/// up goes above them.
#[test]
fn bytes_written_before_a_put_is_looked_up_survive() {
    let mut world = World::new(eager(), false);
    let mut picture = Picture::default();
    play(&world, &[write("doc", 1, 100)], &mut picture);
    world.settle().unwrap();
    let slow = FaultRule::once("cmd:p", FaultAction::Slow { ms: 20_000 });
    world.emulator.faults().add(slow);
    play(&world, &[write("doc", 2, 80_000)], &mut picture);
    until("the new version is on the server", || {
        world.nodes().iter().any(|node| node.size == 80_000)
    });
    world.stop();
    for at in ["sc", "wsc"] {
        let slow = FaultRule::once(at, FaultAction::Slow { ms: 1500 });
        world.emulator.faults().add(slow);
    }
    world.crash();
    let patch = Act::Patch {
        path: "doc",
        offset: 79_990,
        seed: 3,
        size: 5000,
    };
    play(&world, &[patch], &mut picture);
    check_settled(&world, &picture);
}

/// The table: base deleted for good: what the file shows of it comes from the cache.
#[test]
fn a_patched_file_survives_the_deletion_of_its_base() {
    let world = World::new(eager(), true);
    let mut picture = Picture::default();
    play(&world, &[write("doc", 1, 70_000)], &mut picture);
    world.settle().unwrap();
    let patch = Act::Patch {
        path: "doc",
        offset: 5,
        seed: 2,
        size: 10,
    };
    play(&world, &[patch], &mut picture);
    let path = "/doc".to_owned();
    theirs(&world, &[Fixture::Remove { path }]);
    check(&world, &picture);
    check_settled(&world, &picture);
}

/// Ours was shown with a number, so theirs is.
#[test]
fn a_folder_merged_into_theirs_keeps_its_path_across_a_crash() {
    let mut world = World::new(eager(), true);
    let ignored = &mut Picture::default();
    let path = || "/a".to_owned();
    play(&world, &[write("a", 1, 100)], ignored);
    theirs(&world, &[Fixture::folder("/a")]);
    play(&world, &[write("a (1)/b", 2, 200)], ignored);
    theirs(&world, &[Fixture::Trash { path: path() }]);
    theirs(&world, &[Fixture::folder("/a")]);
    play(&world, &[Act::Unlink { path: "a" }], ignored);
    let seen = look(world.life()).unwrap().brief();
    assert!(
        seen.iter().any(|line| line.starts_with("a (1)/b")),
        "{seen:?}"
    );
    world.crash();
    theirs(&world, &[]);
    assert_eq!(look(world.life()).unwrap().brief(), seen);
}
