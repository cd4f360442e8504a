//! What another client does shows up, and local changes keep their bytes.

use std::ffi::OsStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mega_api::Api;
use mega_emulator::{FaultAction, FaultRule, Fixture, FixtureContent};
use mega_vfs::{KernelNotifier, OpenMode, RenameMode, VfsConfig, WriteAt};

use crate::support::{EMAIL, World, eager};

fn slow() -> VfsConfig {
    VfsConfig {
        write_back: Duration::from_secs(60),
        ..eager()
    }
}

/// The other client deletes `path` for good.
pub(crate) async fn delete(world: &World, other: &Api, path: &str) {
    let tree = world.emulator.tree(EMAIL).unwrap();
    let node = tree.iter().find(|node| node.path == path).unwrap();
    other.delete(node.handle.parse().unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn new_files_appear_and_removed_ones_go() {
    let world = World::new().await;
    assert_eq!(world.names("").await, Vec::<String>::new());
    world
        .emulator
        .populate(EMAIL, &[Fixture::file("/d/new", "hello", 5)])
        .unwrap();
    world
        .until("appears", async |world| world.names("").await == ["d"])
        .await;
    world
        .until("inside", async |world| world.names("d").await == ["new"])
        .await;
    assert_eq!(world.read("d/new").await.unwrap(), b"hello");
    let other = world.other().await;
    delete(&world, &other, "/d/new").await;
    world
        .until("goes", async |world| world.names("d").await.is_empty())
        .await;
    world.finish().await;
}

/// The path stays what it was, also when nothing else has the name any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_they_replace_keeps_its_number() {
    let world = World::new().await;
    world.mkdir("g").await;
    world.settled().await;
    let theirs = |text| Fixture::file("/g", text, 5);
    world.emulator.populate(EMAIL, &[theirs("one")]).unwrap();
    world
        .until("appears", async |world| {
            world.names("").await == ["g", "g (1)"]
        })
        .await;
    world.rename("g", "c", RenameMode::Replace).await.unwrap();
    world.settled().await;
    let content = FixtureContent::Text("second".to_owned());
    world
        .emulator
        .populate(
            EMAIL,
            &[Fixture::Overwrite {
                path: "/g".to_owned(),
                content,
                mtime: Some(6),
            }],
        )
        .unwrap();
    world
        .until("replaced", async |world| {
            world
                .read("g (1)")
                .await
                .is_ok_and(|bytes| bytes == b"second")
        })
        .await;
    assert_eq!(world.names("").await, ["c", "g (1)"]);
    let world = world.restart(eager()).await;
    assert_eq!(world.names("").await, ["c", "g (1)"]);
    world.finish().await;
}

/// What is made here has its number stored too, as soon as it is shown with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_made_again_keeps_its_number() {
    let world = World::with(slow(), |emulator| {
        emulator.populate(EMAIL, &[Fixture::folder("/f")]).unwrap();
    })
    .await;
    let numbered = async |world: &World| world.names("").await == ["g", "g (1)"];
    world.mkdir("f/b").await;
    world.write("g", b"mine").await;
    let (path, name) = ("/f".to_owned(), "g".to_owned());
    let renamed = Fixture::Rename { path, name };
    world.emulator.populate(EMAIL, &[renamed]).unwrap();
    world.until("renamed", numbered).await;
    let gone = Fixture::Trash {
        path: "/g".to_owned(),
    };
    world.emulator.populate(EMAIL, &[gone]).unwrap();
    world
        .until("made again", async |world| {
            world.emulator.counters().commands("p") > 0 && world.paths().contains(&"/g".to_owned())
        })
        .await;
    assert!(numbered(&world).await);
    let world = world.restart(eager()).await;
    world.settled().await;
    assert!(numbered(&world).await);
    assert_eq!(world.names("g (1)").await, ["b"]);
    let world = world.restart(eager()).await;
    assert!(numbered(&world).await);
    assert_eq!(world.names("g (1)").await, ["b"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_of_a_file_deleted_elsewhere_is_kept() {
    let world = World::with(slow(), |emulator| {
        emulator
            .populate(EMAIL, &[Fixture::file("/doc", "base", 1)])
            .unwrap();
    })
    .await;
    world.write("doc", b"mine").await;
    let other = world.other().await;
    delete(&world, &other, "/doc").await;
    // Kept as a new file, and pushed at once: it is the only copy.
    world
        .until("put again", async |world| world.paths() == ["/doc"])
        .await;
    assert_eq!(world.remote("/doc"), b"mine");
    assert_eq!(world.read("doc").await.unwrap(), b"mine");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_deleted_elsewhere_comes_back_for_what_was_made_in_it() {
    let world = World::with(slow(), |emulator| {
        emulator
            .populate(EMAIL, &[Fixture::file("/a/b/old", "x", 1)])
            .unwrap();
    })
    .await;
    world.write("a/b/mine", b"mine").await;
    let other = world.other().await;
    delete(&world, &other, "/a").await;
    world
        .until("made again", async |world| world.paths() == ["/a", "/a/b"])
        .await;
    assert_eq!(world.read("a/b/mine").await.unwrap(), b"mine");
    let world = world.restart(eager()).await;
    world.settled().await;
    assert_eq!(world.paths(), ["/a", "/a/b", "/a/b/mine"]);
    assert_eq!(world.remote("/a/b/mine"), b"mine");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_moved_into_a_folder_that_they_throw_away_brings_it_back_as_one() {
    let world = World::with(slow(), |emulator| {
        let list = [Fixture::folder("/moved"), Fixture::folder("/target")];
        emulator.populate(EMAIL, &list).unwrap();
    })
    .await;
    world.write("moved/mine", b"mine").await;
    world
        .rename("moved", "target/moved", RenameMode::Replace)
        .await
        .unwrap();
    let theirs = [
        Fixture::Trash {
            path: "/target".into(),
        },
        Fixture::folder("/moved/theirs"),
    ];
    world.emulator.populate(EMAIL, &theirs).unwrap();
    world
        .until("theirs is seen", async |world| {
            world.names("target/moved").await == ["mine", "theirs"]
        })
        .await;
    assert_eq!(world.names("").await, ["target"]);
    let world = world.restart(eager()).await;
    world.settled().await;
    assert_eq!(
        world.paths(),
        [
            "/target",
            "/target/moved",
            "/target/moved/mine",
            "/target/moved/theirs"
        ]
    );
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_made_on_both_sides_is_one() {
    let world = World::with(slow(), |_| {}).await;
    world.mkdir("d").await;
    world.write("d/mine", b"mine").await;
    world
        .emulator
        .populate(EMAIL, &[Fixture::file("/d/theirs", "theirs", 1)])
        .unwrap();
    world
        .until("merged", async |world| {
            world.names("d").await == ["mine", "theirs"]
        })
        .await;
    assert_eq!(world.names("").await, ["d"]);
    let world = world.restart(eager()).await;
    world.settled().await;
    assert_eq!(world.paths(), ["/d", "/d/mine", "/d/theirs"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_below_a_folder_thrown_away_elsewhere() {
    let world = World::with(slow(), |emulator| {
        let list = [
            Fixture::file("/d/sub/written", "old", 1),
            Fixture::file("/d/renamed", "x", 1),
            Fixture::file("/d/saved", "y", 1),
        ];
        emulator.populate(EMAIL, &list).unwrap();
    })
    .await;
    world.write("d/sub/written", b"mine").await;
    let plain = RenameMode::Replace;
    world.rename("d/renamed", "d/other", plain).await.unwrap();
    world.rename("d/saved", "saved", plain).await.unwrap();
    let trash = Fixture::Trash { path: "/d".into() };
    let seen = Fixture::folder("/seen");
    world.emulator.populate(EMAIL, &[trash, seen]).unwrap();
    world
        .until("seen", async |world| world.ino("seen").await.is_ok())
        .await;
    // New bytes bring their folders back; a mere name goes; what was moved out stays.
    assert_eq!(world.names("").await, ["d", "saved", "seen"]);
    assert_eq!(world.names("d").await, ["sub"]);
    assert_eq!(world.read("d/sub/written").await.unwrap(), b"mine");
    let world = world.restart(eager()).await;
    world.settled().await;
    assert_eq!(
        world.paths(),
        ["/d", "/d/sub", "/d/sub/written", "/saved", "/seen"]
    );
    assert_eq!(world.remote("/d/sub/written"), b"mine");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_to_an_open_file_that_they_replaced_or_deleted_is_kept() {
    let world = World::with(eager(), |emulator| {
        let list = [
            Fixture::file("/d/deleted", "old", 1),
            Fixture::file("/d/replaced", "old", 1),
        ];
        emulator.populate(EMAIL, &list).unwrap();
    })
    .await;
    let mode = OpenMode {
        read: true,
        write: true,
        ..OpenMode::default()
    };
    let mut open = Vec::new();
    for name in ["d/deleted", "d/replaced"] {
        let ino = world.ino(name).await.unwrap();
        open.push((ino, world.vfs.open(ino, mode).await.unwrap().fh));
    }
    let other = world.other().await;
    delete(&world, &other, "/d/deleted").await;
    let theirs = Fixture::Overwrite {
        path: "/d/replaced".into(),
        content: FixtureContent::Text("theirs".into()),
        mtime: Some(2),
    };
    world.emulator.populate(EMAIL, &[theirs]).unwrap();
    world
        .emulator
        .populate(EMAIL, &[Fixture::folder("/seen")])
        .unwrap();
    world
        .until("seen", async |world| world.ino("seen").await.is_ok())
        .await;
    for (ino, fh) in open {
        let at = WriteAt::Offset(0);
        world.vfs.write(ino, fh, at, b"mine, longer").await.unwrap();
        world.vfs.flush(ino, fh).await.unwrap();
        world.vfs.release(ino, fh).await.unwrap();
    }
    world.settled().await;
    let paths = world.paths();
    assert_eq!(paths.len(), 5, "{paths:?}");
    assert_eq!(world.remote("/d/deleted"), b"mine, longer");
    assert_eq!(world.remote("/d/replaced"), b"theirs");
    let conflict = paths
        .iter()
        .find(|path| path.contains("(conflict "))
        .unwrap();
    assert_eq!(world.remote(conflict), b"mine, longer");
    world.finish().await;
}

/// What the kernel was told.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl KernelNotifier for Told {
    fn entry(&self, _: u64, name: &OsStr) {
        self.0
            .lock()
            .unwrap()
            .push(name.to_str().unwrap().to_owned());
    }
    fn inode(&self, _: u64) {}
    fn delete(&self, _: u64, _: u64, _: &OsStr) {}
}

/// No packets from now on; what happens until [`too_late`] is seen by a new tree only.
async fn out_of_touch(world: &World) {
    for at in ["w", "wsc", "sc"] {
        let action = FaultAction::Status {
            code: 500,
            headers: Vec::new(),
            text: String::new(),
        };
        world.emulator.faults().add(FaultRule::new(at, action));
    }
    world.emulator.cut_connections();
    world
        .until("out of touch", async |world| {
            world.emulator.counters().faults > 0
        })
        .await;
}

fn too_late(world: &World) {
    world.emulator.forget_events(EMAIL);
    world.emulator.faults().clear();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_fetched_anew_is_shown_like_changes() {
    // Nothing that is not open stays loaded: the kernel knows more names than we do.
    let config = VfsConfig {
        entry_budget: 1,
        ..slow()
    };
    let world = World::with(config, |emulator| {
        let file = |path| Fixture::file(path, "base", 1);
        let files = ["/d/goes", "/d/stays", "/d/moves", "/e/mine", "/f/a", "/f/b"].map(file);
        emulator.populate(EMAIL, &files).unwrap();
    })
    .await;
    let told = Arc::new(Told::default());
    world
        .vfs
        .set_notifier(Arc::clone(&told) as Arc<dyn KernelNotifier>);
    assert_eq!(world.names("d").await, ["goes", "moves", "stays"]);
    let kept = world.ino("d/stays").await.unwrap();
    // Somebody is in the middle of a listing.
    let folder = world.ino("f").await.unwrap();
    let fh = world.vfs.opendir(folder).await.unwrap().fh;
    let mut listed = world.vfs.readdir(folder, fh, 0, 3).await.unwrap();
    world.write("e/mine", b"mine").await;
    out_of_touch(&world).await;
    let changes = [
        Fixture::Remove {
            path: "/d/goes".into(),
        },
        Fixture::Rename {
            path: "/d/moves".into(),
            name: "moved".into(),
        },
        Fixture::file("/d/comes", "new", 1),
        Fixture::Remove {
            path: "/e/mine".into(),
        },
    ];
    world.emulator.populate(EMAIL, &changes).unwrap();
    too_late(&world);
    world
        .until("the new tree is seen", async |world| {
            world.names("d").await == ["comes", "moved", "stays"]
        })
        .await;
    // What was written here to a file that has gone is kept as a new one.
    world
        .until("put again", async |world| {
            world.paths().contains(&"/e/mine".to_owned())
        })
        .await;
    assert_eq!(world.remote("/e/mine"), b"mine");
    assert_eq!(world.ino("d/stays").await.unwrap(), kept);
    // The kernel was told of all the names, and of no other in that folder.
    for name in ["goes", "moves", "moved", "comes"] {
        world
            .until(name, async |_| {
                told.0.lock().unwrap().iter().any(|told| told == name)
            })
            .await;
    }
    assert!(!told.0.lock().unwrap().iter().any(|told| told == "stays"));
    let offset = listed.last().unwrap().next_offset;
    listed.extend(world.vfs.readdir(folder, fh, offset, 9).await.unwrap());
    let mut listed: Vec<_> = listed
        .iter()
        .map(|entry| entry.name.to_str().unwrap())
        .collect();
    listed.sort_unstable();
    assert_eq!(listed, [".", "..", "a", "b"]);
    world.vfs.releasedir(fh).await.unwrap();
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_fetched_after_a_restart_takes_the_ground_from_changes() {
    let world = World::with(slow(), |emulator| {
        let file = |path| Fixture::file(path, "base", 1);
        emulator
            .populate(EMAIL, &["/doc", "/a/old"].map(file))
            .unwrap();
    })
    .await;
    world.write("doc", b"mine").await;
    world.write("a/mine", b"mine too").await;
    out_of_touch(&world).await;
    let remove = |path: &str| Fixture::Remove { path: path.into() };
    world
        .emulator
        .populate(EMAIL, &["/doc", "/a"].map(remove))
        .unwrap();
    let world = world.restart_after(eager(), false, |_| {}).await;
    too_late(&world);
    world
        .until("put again", async |world| {
            world.paths() == ["/a", "/a/mine", "/doc"]
        })
        .await;
    assert_eq!(world.remote("/doc"), b"mine");
    assert_eq!(world.remote("/a/mine"), b"mine too");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_into_a_removed_folder_brings_it_back() {
    let world = World::with(eager(), |emulator| {
        let files = ["/a/b/c", "/other"].map(|path| Fixture::file(path, "x", 1));
        emulator.populate(EMAIL, &files).unwrap();
    })
    .await;
    // The server takes no removals for now.
    let busy = FaultAction::CommandError { code: -3 };
    let rule = world.emulator.faults().add(FaultRule::new("cmd:m", busy));
    world.unlink("a/b/c").await.unwrap();
    world.rmdir("a/b").await.unwrap();
    world.rmdir("a").await.unwrap();
    assert_eq!(world.names("").await, ["other"]);
    let new = Fixture::file("/a/b/new", "from elsewhere", 1);
    world.emulator.populate(EMAIL, &[new]).unwrap();
    world
        .until("the folder is back", async |world| {
            world.names("").await == ["a", "other"]
        })
        .await;
    assert_eq!(world.names("a").await, ["b"]);
    assert_eq!(world.names("a/b").await, ["new"]);
    assert_eq!(world.read("a/b/new").await.unwrap(), b"from elsewhere");
    world.emulator.faults().remove(rule);
    world.settled().await;
    assert_eq!(world.paths(), ["/a", "/a/b", "/a/b/new", "/other"]);
    let world = world.restart(eager()).await;
    assert_eq!(world.names("a/b").await, ["new"]);
    world.finish().await;
}
