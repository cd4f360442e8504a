//! Two daemons, two state directories, one account: whatever both do, they end up with the same.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use mega_emulator::Fixture;
use megamount_tests::{Mount, PATIENCE, World, wait_until};

fn mount_both(world: &World) -> (Mount<'_>, Mount<'_>) {
    let start = |name: &str, mountpoint: &str| {
        let (state, cache) = (
            world.path(&format!("state-{name}")),
            world.path(&format!("cache-{name}")),
        );
        let options = [
            "--state-dir",
            state.to_str().unwrap(),
            "--cache-dir",
            cache.to_str().unwrap(),
        ];
        world.mount_at("remote:", mountpoint, &options)
    };
    (start("one", "mnt"), start("two", "mnt2"))
}

/// A spelling without the number that tells duplicates apart: each daemon gives its own.
fn plain(name: &str) -> String {
    let Some((before, rest)) = name.rsplit_once(" (") else {
        return name.to_owned();
    };
    match rest.split_once(')') {
        Some((number, after)) if number.parse::<u32>().is_ok() => format!("{before}{after}"),
        _ => name.to_owned(),
    }
}

type Tree = BTreeMap<(String, Vec<u8>), u32>;

fn read(directory: &Path, path: &str, tree: &mut Tree) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let path = format!("{path}/{}", plain(entry.file_name().to_str().unwrap()));
        if entry.file_type()?.is_dir() {
            read(&entry.path(), &path, tree)?;
            *tree.entry((path + "/", Vec::new())).or_insert(0) += 1;
        } else {
            *tree
                .entry((path, std::fs::read(entry.path())?))
                .or_insert(0) += 1;
        }
    }
    Ok(())
}

/// What one daemon shows. Things may go while it is read: then it is not what is waited for.
fn view(mount: &Mount<'_>) -> Option<Tree> {
    let mut tree = Tree::new();
    read(&mount.path(""), "", &mut tree).ok()?;
    Some(tree)
}

fn on_mega(world: &World) -> Tree {
    let mut tree = Tree::new();
    for node in world.nodes() {
        if node.version_of.is_some() || node.path.starts_with("//") || node.path == "/" {
            continue;
        }
        let key = if node.folder {
            (node.path + "/", Vec::new())
        } else {
            (node.path, world.emulator.content(&node.handle).unwrap())
        };
        *tree.entry(key).or_insert(0) += 1;
    }
    tree
}

#[track_caller]
fn converge(world: &World, one: &Mount<'_>, two: &Mount<'_>) -> Tree {
    let mut last = on_mega(world);
    let mut calm = 0;
    let deadline = Instant::now() + PATIENCE;
    // Once is not enough: something may still be queued.
    while calm < 30 {
        let mega = on_mega(world);
        let (first, second) = (view(one), view(two));
        let is_same = first.as_ref() == Some(&mega) && second.as_ref() == Some(&mega);
        calm = if is_same && last == mega { calm + 1 } else { 0 };
        last = mega;
        assert!(
            Instant::now() < deadline,
            "no agreement\nMega    {}\nthe one {}\nthe two {}",
            brief(Some(&last)),
            brief(first.as_ref()),
            brief(second.as_ref())
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    last
}

fn brief(tree: Option<&Tree>) -> String {
    let Some(tree) = tree else {
        return "cannot be read".to_owned();
    };
    let lines = tree.iter().map(|((path, bytes), count)| {
        format!("{path}={}x{count}", String::from_utf8_lossy(bytes).trim())
    });
    lines.collect::<Vec<_>>().join(", ")
}

/// A random but repeatable user.
fn edit(root: &Path, who: &str, mut seed: u64) {
    let mut next = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize % below
    };
    for number in 0..60 {
        let folder = root.join(["a", "b", "c"][next(3)]);
        let path = folder.join(format!("f{}", next(5)));
        let other = root
            .join(["a", "b", "c"][next(3)])
            .join(format!("f{}", next(5)));
        // The other user takes things away: any of these may fail, none may hang or lose a `keep`.
        let _ = match next(6) {
            0 | 1 => std::fs::write(&path, format!("{who} {number}\n")),
            2 => std::fs::rename(&path, &other),
            3 => std::fs::remove_file(&path),
            4 => std::fs::create_dir(folder.join(format!("d{}", next(2)))),
            _ => std::fs::remove_dir(folder.join(format!("d{}", next(2)))),
        };
        if number % 10 == 0 {
            std::fs::write(
                folder.join(format!("keep {who} {number}")),
                format!("{number}"),
            )
            .unwrap();
        }
    }
}

#[test]
fn two_daemons_see_each_other() {
    let world = World::new();
    world.expect_logins(2);
    let (one, two) = mount_both(&world);
    one.sh("mkdir d; echo 1 >d/one");
    wait_until("the other sees it", || two.path("d/one").exists());
    two.sh("mv d/one d/two; echo 2 >>d/two; mkdir e");
    wait_until("and back", || {
        std::fs::read(one.path("d/two")).is_ok_and(|bytes| bytes == b"1\n2\n")
    });
    one.sh("rm -r d");
    wait_until("and gone", || two.names("") == ["e"]);
    converge(&world, &one, &two);
    one.unmount();
    two.unmount();
    assert_eq!(world.paths(), ["/e/"]);
}

#[test]
fn two_daemons_converge_under_concurrent_edits() {
    let world = World::with(&[
        Fixture::folder("/a"),
        Fixture::folder("/b"),
        Fixture::folder("/c"),
    ]);
    world.expect_logins(2);
    let (one, two) = mount_both(&world);
    let (first, second) = (one.path(""), two.path(""));
    std::thread::scope(|scope| {
        scope.spawn(|| edit(&first, "one", 1));
        scope.spawn(|| edit(&second, "two", 2));
    });
    let tree = converge(&world, &one, &two);
    let kept = tree
        .keys()
        .filter(|(path, _)| path.contains("/keep "))
        .count();
    assert_eq!(kept, 12, "{tree:?}");
    one.unmount();
    two.unmount();
    assert_eq!(on_mega(&world), tree, "after the end of both");
}
