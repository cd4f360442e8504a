//! `.mega`: always there and never listed; the status, the bin, and older contents.

use std::ffi::OsStr;

use mega_emulator::{FaultAction, FaultRule, Fixture, FixtureContent};
use mega_vfs::{FileKind, Lookup, OpenMode, RenameMode, SetAttr, Timestamp, VfsConfig};
use rustix::io::Errno;

use crate::copies::{close, copy};
use crate::support::{EMAIL, ROOT, World, eager};

async fn world(fixtures: &[Fixture]) -> World {
    World::with(eager(), |emulator| {
        emulator.populate(EMAIL, fixtures).unwrap();
    })
    .await
}

impl World {
    async fn kind(&self, path: &str) -> Result<FileKind, Errno> {
        let ino = self.ino(path).await?;
        Ok(self.vfs.getattr(ino).await?.attr.kind)
    }

    /// Opening for writing, without writing.
    pub(crate) async fn open_to_write(&self, path: &str) -> Result<(), Errno> {
        let ino = self.ino(path).await?;
        let mode = OpenMode {
            write: true,
            ..OpenMode::default()
        };
        let fh = self.vfs.open(ino, mode).await?.fh;
        self.vfs.release(ino, fh).await
    }

    /// Making an empty file.
    pub(crate) async fn try_create(&self, path: &str) -> Result<(), Errno> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.ino(parent).await?;
        let mode = OpenMode {
            write: true,
            exclusive: true,
            ..OpenMode::default()
        };
        let (entry, opened) = self
            .vfs
            .create(parent, OsStr::new(name), 0o644, mode)
            .await?;
        self.vfs.release(entry.attr.ino, opened.fh).await
    }

    pub(crate) async fn try_mkdir(&self, path: &str) -> Result<(), Errno> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.ino(parent).await?;
        let made = self.vfs.mkdir(parent, OsStr::new(name), 0o755).await;
        made.map(|_| ())
    }

    pub(crate) async fn try_set_time(&self, path: &str) -> Result<(), Errno> {
        let wanted = SetAttr {
            mtime: Some(Timestamp::from_secs(77)),
            ..SetAttr::default()
        };
        let ino = self.ino(path).await?;
        self.vfs.setattr(ino, wanted).await.map(|_| ())
    }

    /// Names in the bin, once the account's own bin has them too.
    async fn trash(&self) -> Vec<String> {
        self.names(".mega/trash").await
    }

    fn in_bin(&self, name: &str) -> mega_emulator::PlainNode {
        let nodes = self.emulator.tree(EMAIL).unwrap();
        let mut found = nodes
            .into_iter()
            .filter(|node| node.in_bin && node.name.as_deref() == Some(name));
        found.next().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_always_there_and_never_listed() {
    let world = world(&[Fixture::folder("/a")]).await;
    assert_eq!(world.names("").await, ["a"]);
    let ino = world.ino(".mega").await.unwrap();
    assert_eq!(ino & (7 << 60), 1 << 60);
    let attr = world.vfs.getattr(ino).await.unwrap().attr;
    assert_eq!((attr.kind, attr.perm), (FileKind::Directory, 0o700));
    assert_eq!(
        world.names(".mega").await,
        ["shares", "status", "trash", "versions"]
    );
    assert_eq!(world.try_mkdir(".mega").await, Err(Errno::EXIST));
    assert_eq!(world.rmdir(".mega").await, Err(Errno::PERM));
    assert_eq!(world.try_mkdir(".mega/x").await, Err(Errno::PERM));
    assert_eq!(world.try_create(".mega/shares/x").await, Err(Errno::PERM));
    assert_eq!(world.try_set_time(".mega").await, Err(Errno::PERM));
    let replace = RenameMode::Replace;
    assert_eq!(world.rename("a", ".mega", replace).await, Err(Errno::PERM));
    assert_eq!(world.rename(".mega", "b", replace).await, Err(Errno::PERM));
    assert_eq!(
        world.rename(".mega/trash", "b", replace).await,
        Err(Errno::PERM)
    );
    assert_eq!(world.ino(".mega/nothing").await, Err(Errno::NOENT));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_that_name_is_shown_under_a_number() {
    let world = world(&[Fixture::file("/.mega/inner", "x", 1)]).await;
    assert_eq!(world.names("").await, [".mega (1)"]);
    assert_eq!(world.read(".mega (1)/inner").await.unwrap(), b"x");
    // Another client makes one while it is mounted.
    let made = Fixture::File {
        path: "/.mega".to_owned(),
        content: FixtureContent::Text("y".to_owned()),
        mtime: None,
    };
    world.emulator.populate(EMAIL, &[made]).unwrap();
    world
        .until("the other one is seen", async |world| {
            world.names("").await == [".mega (1)", ".mega (2)"]
        })
        .await;
    assert_eq!(world.read(".mega (2)").await.unwrap(), b"y");
    let world = world.restart(eager()).await;
    assert_eq!(world.names("").await, [".mega (1)", ".mega (2)"]);
    world
        .rename(".mega (2)", "plain", RenameMode::Replace)
        .await
        .unwrap();
    world.settled().await;
    assert_eq!(world.remote("/plain"), b"y");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_is_made_when_it_is_opened() {
    let world = world(&[]).await;
    assert_eq!(world.read(".mega/status").await.unwrap(), b"");
    let text = "{\"safe\":true}\n".repeat(20_000);
    let made = text.clone().into_bytes();
    world.vfs.show_status(move || made.clone());
    let ino = world.ino(".mega/status").await.unwrap();
    let attr = world.vfs.getattr(ino).await.unwrap().attr;
    assert_eq!((attr.kind, attr.perm), (FileKind::File, 0o400));
    assert_eq!(attr.size, text.len() as u64);
    assert_eq!(world.read(".mega/status").await.unwrap(), text.as_bytes());
    assert_eq!(world.open_to_write(".mega/status").await, Err(Errno::PERM));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_is_in_the_bin_and_comes_back() {
    // Long enough for the whole tree to go as one.
    let config = VfsConfig {
        write_back: std::time::Duration::from_millis(500),
        ..eager()
    };
    let world = World::with(config, |emulator| {
        let list = [
            Fixture::file("/docs/a", "content", 1),
            Fixture::file("/docs/tree/deep/b", "deep", 1),
        ];
        emulator.populate(EMAIL, &list).unwrap();
    })
    .await;
    let docs = world.emulator.find(EMAIL, "/docs").unwrap().handle;
    assert_eq!(world.trash().await, Vec::<String>::new());
    world.unlink("docs/a").await.unwrap();
    world.unlink("docs/tree/deep/b").await.unwrap();
    world.rmdir("docs/tree/deep").await.unwrap();
    world.rmdir("docs/tree").await.unwrap();
    world.settled().await;
    assert_eq!(world.trash().await, ["a", "tree"]);
    assert_eq!(world.read(".mega/trash/a").await.unwrap(), b"content");
    assert_eq!(
        world.read(".mega/trash/tree/deep/b").await.unwrap(),
        b"deep"
    );
    // Where it came from, for every client's "restore".
    for name in ["a", "tree"] {
        let attributes = world.in_bin(name).attributes.unwrap();
        assert_eq!(attributes["rr"], docs.as_str(), "{name}");
        let ino = world.ino(&format!(".mega/trash/{name}")).await.unwrap();
        let value = world.vfs.getxattr(ino, "user.mega.restore-to".as_ref());
        assert_eq!(value.await.unwrap(), b"docs");
    }
    world
        .rename(".mega/trash/tree", "docs/back", RenameMode::Replace)
        .await
        .unwrap();
    world
        .rename(".mega/trash/a", "a", RenameMode::Replace)
        .await
        .unwrap();
    assert_eq!(world.read("docs/back/deep/b").await.unwrap(), b"deep");
    assert_eq!(world.trash().await, Vec::<String>::new());
    world.settled().await;
    assert_eq!(
        world.paths(),
        [
            "/a",
            "/docs",
            "/docs/back",
            "/docs/back/deep",
            "/docs/back/deep/b"
        ]
    );
    for path in ["/a", "/docs/back"] {
        let attributes = world.emulator.find(EMAIL, path).unwrap().attributes;
        assert!(attributes.unwrap().get("rr").is_none(), "{path}");
    }
    // What came back can be worked on.
    world.write("docs/back/new", b"new").await;
    world.settled().await;
    assert_eq!(world.remote("/docs/back/new"), b"new");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_in_the_bin_is_for_good() {
    let world = world(&[
        Fixture::file("/a", "a", 1),
        Fixture::file("/d/b", "b", 1),
        Fixture::file("/d/c", "c", 1),
        Fixture::Trash { path: "/a".into() },
        Fixture::Trash { path: "/d".into() },
    ])
    .await;
    assert_eq!(world.trash().await, ["a", "d"]);
    world.unlink(".mega/trash/a").await.unwrap();
    world.unlink(".mega/trash/d/b").await.unwrap();
    assert_eq!(world.trash().await, ["d"]);
    world.settled().await;
    let left = |world: &World| {
        let nodes = world.emulator.tree(EMAIL).unwrap();
        nodes.into_iter().filter_map(|node| node.name).count()
    };
    assert_eq!(left(&world), 2);
    world.unlink(".mega/trash/d/c").await.unwrap();
    world.rmdir(".mega/trash/d").await.unwrap();
    world.settled().await;
    assert_eq!(left(&world), 0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_removal_never_becomes_one_for_good() {
    // Somebody throws the folder away while our removal of what is in it waits.
    let config = VfsConfig {
        write_back: std::time::Duration::from_secs(1),
        ..eager()
    };
    let world = World::with(config, |emulator| {
        let list = [Fixture::file("/d/a", "a", 1), Fixture::file("/d/b", "b", 1)];
        emulator.populate(EMAIL, &list).unwrap();
    })
    .await;
    world.unlink("d/a").await.unwrap();
    let theirs = Fixture::Trash { path: "/d".into() };
    world.emulator.populate(EMAIL, &[theirs]).unwrap();
    world.settled().await;
    world.in_bin("a");
    world.in_bin("b");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_changed_in_the_bin() {
    let world = world(&[
        Fixture::file("/d/b", "b", 1),
        Fixture::file("/mine", "m", 1),
        Fixture::file("/also", "n", 1),
        Fixture::Trash { path: "/d".into() },
    ])
    .await;
    let replace = RenameMode::Replace;
    let refused = Err(Errno::PERM);
    assert_eq!(world.try_create(".mega/trash/x").await, refused);
    assert_eq!(world.try_mkdir(".mega/trash/d/x").await, refused);
    assert_eq!(world.open_to_write(".mega/trash/d/b").await, refused);
    assert_eq!(world.try_set_time(".mega/trash/d/b").await, refused);
    assert_eq!(
        world
            .rename(".mega/trash/d/b", ".mega/trash/b", replace)
            .await,
        refused
    );
    assert_eq!(
        world.rename("mine", ".mega/trash/d/b", replace).await,
        refused
    );
    // Moving there is removing, but never over something.
    assert_eq!(
        world.rename("mine", ".mega/trash/d", replace).await,
        Err(Errno::EXIST)
    );
    world
        .rename("mine", ".mega/trash/mine", replace)
        .await
        .unwrap();
    assert_eq!(
        world.rename("also", ".mega/trash/mine", replace).await,
        Err(Errno::EXIST)
    );
    world.settled().await;
    assert_eq!(world.trash().await, ["d", "mine"]);
    assert!(world.in_bin("mine").attributes.unwrap().get("rr").is_some());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_throw_away_appears_in_the_bin() {
    let world = world(&[Fixture::file("/a", "a", 1)]).await;
    assert_eq!(world.trash().await, Vec::<String>::new());
    let theirs = Fixture::Trash { path: "/a".into() };
    world.emulator.populate(EMAIL, &[theirs]).unwrap();
    world
        .until("it is in the bin", async |world| {
            world.trash().await == ["a"] && world.names("").await.is_empty()
        })
        .await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_contents_are_read_and_copied_back() {
    let overwrite = |text: &str| Fixture::Overwrite {
        path: "/docs/report.txt".into(),
        content: FixtureContent::Text(text.into()),
        mtime: Some(9),
    };
    let world = world(&[
        Fixture::file("/docs/report.txt", "first", 1),
        Fixture::file("/docs/single", "s", 1),
        Fixture::folder("/empty"),
        Fixture::folder("/.mega"),
        overwrite("second"),
        overwrite("third"),
    ])
    .await;
    assert_eq!(
        world.names(".mega/versions").await,
        [".mega (1)", "docs", "empty"]
    );
    assert_eq!(world.names(".mega/versions/docs").await, ["report.txt"]);
    assert_eq!(
        world.ino(".mega/versions/docs/single").await,
        Err(Errno::NOENT)
    );
    let chain = ".mega/versions/docs/report.txt";
    let names = world.names(chain).await;
    assert_eq!(names.len(), 2);
    let mut contents = Vec::new();
    for name in &names {
        assert!(name.contains("Z report"), "{name}");
        let path = format!("{chain}/{name}");
        contents.push(world.read(&path).await.unwrap());
        assert_eq!(world.open_to_write(&path).await, Err(Errno::ROFS));
        assert_eq!(world.unlink(&path).await, Err(Errno::ROFS));
        assert_eq!(world.try_set_time(&path).await, Err(Errno::ROFS));
        let ino = world.ino(&path).await.unwrap();
        assert_eq!(ino & (7 << 60), 1 << 60);
        assert_eq!(world.vfs.getattr(ino).await.unwrap().attr.perm & 0o222, 0);
    }
    contents.sort();
    assert_eq!(contents, [b"first".to_vec(), b"second".to_vec()]);
    assert_eq!(
        world.try_mkdir(".mega/versions/docs/x").await,
        Err(Errno::ROFS)
    );
    // Back by `cp`: the server copies.
    let mut first = None;
    for name in &names {
        let path = format!("{chain}/{name}");
        if world.read(&path).await.unwrap() == b"first" {
            first = Some(path);
        }
    }
    let before = world.emulator.counters().commands("u");
    let target = copy(
        &world,
        &first.unwrap(),
        "docs/report.txt",
        u64::MAX,
        u64::MAX,
    )
    .await;
    close(&world, target).await;
    world.settled().await;
    assert_eq!(world.emulator.counters().commands("u"), before);
    assert_eq!(world.remote("/docs/report.txt"), b"first");
    assert_eq!(world.read("docs/report.txt").await.unwrap(), b"first");
    assert_eq!(world.names(chain).await.len(), 3);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_and_its_version_are_read_side_by_side() {
    let world = world(&[]).await;
    world.write("a", b"one").await;
    world.settled().await;
    world.write("a", b"two").await;
    world.settled().await;
    let names = world.names(".mega/versions/a").await;
    assert_eq!(names.len(), 1);
    let old = format!(".mega/versions/a/{}", names[0]);
    assert_eq!(world.read(&old).await.unwrap(), b"one");
    assert_eq!(world.read("a").await.unwrap(), b"two");
    assert_eq!(world.kind(&old).await.unwrap(), FileKind::File);
    assert_ne!(world.ino(&old).await, world.ino("a").await);
    // Its inode is asked for by number, as the kernel does.
    let Lookup::Found(entry) = world.vfs.lookup(ROOT, OsStr::new("a")).await.unwrap() else {
        panic!("a is there");
    };
    assert_eq!(entry.attr.size, 3);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_something_out_of_the_bin_has_it() {
    let config = VfsConfig {
        write_back: std::time::Duration::from_secs(1),
        ..eager()
    };
    let world = World::with(config, |emulator| {
        let list = [
            Fixture::file("/d/a", "a", 1),
            Fixture::Trash {
                path: "/d/a".into(),
            },
        ];
        emulator.populate(EMAIL, &list).unwrap();
    })
    .await;
    let handle = world.in_bin("a").handle.parse().unwrap();
    let folder = world.emulator.find(EMAIL, "/d").unwrap().handle;
    let other = world.other().await;
    world.unlink(".mega/trash/a").await.unwrap();
    let back = other.move_node(handle, folder.parse().unwrap(), None);
    back.await.unwrap();
    world
        .until("it is back", async |world| world.names("d").await == ["a"])
        .await;
    world.settled().await;
    assert_eq!(world.remote("/d/a"), b"a");
    world.finish().await;
}

/// Names are pushed after a second, content is not.
fn names_first() -> VfsConfig {
    VfsConfig {
        write_back: std::time::Duration::from_secs(60),
        ..eager()
    }
}

/// Something else happens in the account, and is seen.
async fn something_else_happens(world: &World) {
    let seen = Fixture::folder("/seen");
    world.emulator.populate(EMAIL, &[seen]).unwrap();
    world
        .until("seen", async |world| world.ino("seen").await.is_ok())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_edited_in_a_folder_taken_out_of_the_bin_stays_in_it() {
    let world = World::with(names_first(), |emulator| {
        let list = [
            Fixture::file("/d/sub/a", "old", 1),
            Fixture::Trash { path: "/d".into() },
        ];
        emulator.populate(EMAIL, &list).unwrap();
    })
    .await;
    // The move waits until all of this is done.
    let held = FaultRule::new("cmd:m", FaultAction::Held);
    let rule = world.emulator.faults().add(held);
    let replace = RenameMode::Replace;
    world.rename(".mega/trash/d", "d", replace).await.unwrap();
    world.write("d/sub/a", b"edited").await;
    world.write("d/sub/new", b"new").await;
    something_else_happens(&world).await;
    world.write("d/later", b"later").await;
    assert_eq!(world.names("").await, ["d", "seen"]);
    assert_eq!(world.names("d/sub").await, ["a", "new"]);
    world.emulator.faults().remove(rule);
    let world = world.restart(eager()).await;
    world.settled().await;
    assert_eq!(
        world.paths(),
        [
            "/d",
            "/d/later",
            "/d/sub",
            "/d/sub/a",
            "/d/sub/new",
            "/seen"
        ]
    );
    assert_eq!(world.remote("/d/sub/a"), b"edited");
    assert_eq!(world.trash().await, Vec::<String>::new());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_edited_on_its_way_out_of_the_bin_is_there_once() {
    let world = World::with(names_first(), |emulator| {
        let list = [
            Fixture::file("/a", "old", 1),
            Fixture::Trash { path: "/a".into() },
        ];
        emulator.populate(EMAIL, &list).unwrap();
    })
    .await;
    assert_eq!(world.trash().await, ["a"]);
    let held = FaultRule::new("cmd:m", FaultAction::Held);
    let rule = world.emulator.faults().add(held);
    let replace = RenameMode::Replace;
    world.rename(".mega/trash/a", "a", replace).await.unwrap();
    world.write("a", b"edited").await;
    something_else_happens(&world).await;
    assert_eq!(world.names("").await, ["a", "seen"]);
    assert_eq!(world.trash().await, Vec::<String>::new());
    world.emulator.faults().remove(rule);
    let world = world.restart(eager()).await;
    world.settled().await;
    assert_eq!(world.paths(), ["/a", "/seen"]);
    assert_eq!(world.remote("/a"), b"edited");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_thrown_away_before_it_was_uploaded_stays_in_the_bin() {
    let world = World::with(names_first(), |emulator| {
        let list = [Fixture::file("/d/old", "old", 1)];
        emulator.populate(EMAIL, &list).unwrap();
    })
    .await;
    world.write("d/old", b"edited").await;
    world.write("d/new", b"new").await;
    world.mkdir("d/sub").await;
    world.write("d/sub/deep", b"deep").await;
    let replace = RenameMode::Replace;
    world.rename("d", ".mega/trash/d", replace).await.unwrap();
    world
        .until("Mega has it in the bin", async |world| {
            world.emulator.find(EMAIL, "/d").is_none()
        })
        .await;
    something_else_happens(&world).await;
    assert_eq!(world.names("").await, ["seen"]);
    assert_eq!(world.names(".mega/trash/d").await, ["new", "old", "sub"]);
    assert_eq!(world.read(".mega/trash/d/new").await.unwrap(), b"new");
    let world = world.restart(eager()).await;
    world.settled().await;
    assert_eq!(world.paths(), ["/seen"]);
    assert_eq!(world.trash().await, ["d"]);
    for (path, content) in [("new", "new"), ("old", "edited"), ("sub/deep", "deep")] {
        let path = format!(".mega/trash/d/{path}");
        assert_eq!(world.read(&path).await.unwrap(), content.as_bytes());
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_back_out_of_the_bin_is_kept_like_anything_else() {
    let world = World::with(names_first(), |emulator| {
        emulator.populate(EMAIL, &[Fixture::folder("/d")]).unwrap();
    })
    .await;
    world.write("d/new", b"new").await;
    let replace = RenameMode::Replace;
    world.rename("d", ".mega/trash/d", replace).await.unwrap();
    world
        .until("Mega has it in the bin", async |world| {
            world.emulator.find(EMAIL, "/d").is_none()
        })
        .await;
    world.rename(".mega/trash/d", "d", replace).await.unwrap();
    world
        .until("Mega has it back", async |world| {
            world.emulator.find(EMAIL, "/d").is_some()
        })
        .await;
    // Now somebody else throws it away, who does not know of the file.
    let theirs = Fixture::Trash { path: "/d".into() };
    world.emulator.populate(EMAIL, &[theirs]).unwrap();
    something_else_happens(&world).await;
    assert_eq!(world.names("").await, ["d", "seen"]);
    let world = world.restart(eager()).await;
    world.settled().await;
    assert_eq!(world.paths(), ["/d", "/d/new", "/seen"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_removed_while_its_files_are_uploaded_is_gone() {
    for at in ["ul", "cmd:p"] {
        let world = World::with(eager(), |emulator| {
            let list = [Fixture::file("/d/old", "old", 1)];
            emulator.populate(EMAIL, &list).unwrap();
        })
        .await;
        let held = FaultRule::new(at, FaultAction::Held);
        let rule = world.emulator.faults().add(held);
        world.write("d/new", b"new").await;
        world.write("d/old", b"edited").await;
        world
            .until("it is on its way", async |world| {
                world.emulator.faults().fired(rule) > 0
            })
            .await;
        world.unlink("d/new").await.unwrap();
        world.unlink("d/old").await.unwrap();
        world.rmdir("d").await.unwrap();
        something_else_happens(&world).await;
        world.emulator.faults().remove(rule);
        world.settled().await;
        something_else_happens(&world).await;
        assert_eq!(world.names("").await, ["seen"], "{at}");
        assert_eq!(world.paths(), ["/seen"], "{at}");
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discarded_restore_is_in_the_bin_again() {
    let world = World::with(names_first(), |emulator| {
        let list = [
            Fixture::file("/d/a", "a", 1),
            Fixture::Trash { path: "/d".into() },
        ];
        emulator.populate(EMAIL, &list).unwrap();
    })
    .await;
    let replace = RenameMode::Replace;
    world.rename(".mega/trash/d", "d", replace).await.unwrap();
    world.try_mkdir("d/x").await.unwrap();
    world.rmdir("d/x").await.unwrap();
    world.vfs.discard("d").unwrap();
    assert_eq!(world.names("").await, Vec::<String>::new());
    assert_eq!(
        world.try_mkdir(".mega/trash/d/x").await,
        Err(Errno::PERM),
        "nothing is changed in the bin"
    );
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_on_its_way_to_another_folder_has_its_versions_there() {
    let world = World::with(names_first(), |emulator| {
        let list = [
            Fixture::file("/a/moved", "old", 1),
            Fixture::file("/a/plain", "plain", 1),
            Fixture::Overwrite {
                path: "/a/moved".into(),
                content: FixtureContent::Text("new".into()),
                mtime: Some(2),
            },
            Fixture::folder("/b"),
        ];
        emulator.populate(EMAIL, &list).unwrap();
    })
    .await;
    assert_eq!(world.names(".mega/versions/a").await, ["moved"]);
    let replace = RenameMode::Replace;
    world.rename("a/moved", "b/moved", replace).await.unwrap();
    world.write("b/local", b"local").await;
    for _ in 0..2 {
        let none = Vec::<String>::new();
        assert_eq!(world.names(".mega/versions/a").await, none);
        assert_eq!(world.names(".mega/versions/b").await, ["moved"]);
        assert_eq!(world.names(".mega/versions/b/moved").await.len(), 1);
        world.vfs.flush_queue();
        world.settled().await;
    }
    world.finish().await;
}
