//! Directories that are read file by file: what comes next is fetched ahead, and not too much of it.

use mega_emulator::Fixture;
use mega_vfs::OpenMode;

use crate::support::{EMAIL, World, eager};

/// `/d` with `count` files of `size` bytes.
async fn directory(count: u64, size: u64) -> World {
    let files: Vec<_> = (0..count)
        .map(|n| Fixture::pattern(&format!("/d/{n:04}"), size, n))
        .collect();
    let world = World::with(eager(), |emulator| {
        emulator.populate(EMAIL, &files).unwrap();
    })
    .await;
    world.emulator.reset_counters();
    // Far enough away that asking for each file by itself would show.
    world.emulator.set(|knobs| knobs.latency_ms = 10);
    world
}

impl World {
    /// The server counts just after it has sent.
    async fn counted(&self, bytes: u64) {
        self.until("counted", async |world| {
            world.emulator.counters().bytes_down >= bytes
        })
        .await;
    }

    /// The first bytes of a file, and what they should be.
    async fn head(&self, path: &str, seed: u64, size: u32) {
        let ino = self.ino(path).await.unwrap();
        let mode = OpenMode {
            read: true,
            ..OpenMode::default()
        };
        let fh = self.vfs.open(ino, mode).await.unwrap().fh;
        let bytes = self.vfs.read(ino, fh, 0, size).await.unwrap();
        assert!(bytes == mega_emulator::pattern(seed, 0, u64::from(size)));
        self.vfs.release(ino, fh).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_read_file_by_file_takes_few_requests() {
    let (count, size) = (300, 3000);
    let world = directory(count, size).await;
    for n in 0..count {
        world.head(&format!("d/{n:04}"), n, size as u32).await;
    }
    world.counted(count * size).await;
    let counters = world.emulator.counters();
    assert_eq!(counters.bytes_down, count * size, "each of them once");
    let asked = counters.requests_with("g");
    assert!(asked <= 60, "{asked} requests for {count} files");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_the_head_of_each_file_does_not_fetch_them() {
    let (count, size) = (200, 2 << 20);
    let world = directory(count, size).await;
    for n in 0..count {
        world.head(&format!("d/{n:04}"), n, 4096).await;
    }
    world.counted(count * (128 << 10)).await;
    let counters = world.emulator.counters();
    assert_eq!(counters.bytes_down, count * (128 << 10), "a unit of each");
    let asked = counters.requests_with("g");
    assert!(asked <= 60, "{asked} requests for {count} files");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_that_ends_leaves_little_behind() {
    let (count, size) = (300, 200_000);
    let world = directory(count, size).await;
    let read = 10;
    for n in 0..read {
        world.head(&format!("d/{n:04}"), n, 4096).await;
    }
    // 4 MiB that nobody comes for, and nothing after that.
    let ahead = (4 << 20) / size;
    world
        .until("fetched ahead", async |world| {
            world.emulator.counters().bytes_down >= (read + ahead) * size
        })
        .await;
    world.vfs.shutdown(std::time::Duration::ZERO).await;
    let moved = world.emulator.counters().bytes_down;
    assert_eq!(moved, (read + ahead) * size);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_read_here_and_there_are_fetched_alone() {
    let (count, size) = (300, 3000);
    let world = directory(count, size).await;
    for step in 0..30 {
        let n = step * 97 % count;
        world.head(&format!("d/{n:04}"), n, size as u32).await;
    }
    world.counted(30 * size).await;
    let counters = world.emulator.counters();
    assert_eq!(counters.commands("g"), 30);
    assert_eq!(counters.bytes_down, 30 * size);
    world.finish().await;
}

/// Folders that are likely to come next are prepared ahead; what is done to them in between shows.
#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_is_walked_shows_what_is_done_meanwhile() {
    let folders = 60_u32;
    let files = 200;
    let world = World::with(eager(), |emulator| {
        let tree = Fixture::Generated {
            parent: "/tree".into(),
            folders,
            fanout: 0,
            files_per_folder: files,
            max_size: 0,
        };
        emulator.populate(EMAIL, &[tree]).unwrap();
    })
    .await;
    // In the order of the listing.
    let tree = world.ino("tree").await.unwrap();
    let fh = world.vfs.opendir(tree).await.unwrap().fh;
    let listing = world.vfs.readdir(tree, fh, 2, 1000).await.unwrap();
    world.vfs.releasedir(fh).await.unwrap();
    assert_eq!(listing.len(), folders as usize);
    let path = |at: u32| format!("tree/{}", listing[at as usize].name.to_str().unwrap());
    for number in 0..folders {
        let names = world.names(&path(number)).await;
        let added = u32::from(number >= 3 && number % 2 == 1);
        assert_eq!(names.len() as u32, files + added, "{number}");
        let next = number + 1;
        if next >= 3 && next % 2 == 1 && next < folders {
            // The next one is being prepared, or it is ready.
            let theirs = [
                Fixture::file(&format!("/{}/new", path(next)), "x", 1),
                Fixture::folder(&format!("/marker {next}")),
            ];
            world.emulator.populate(EMAIL, &theirs).unwrap();
            world
                .until("that is seen", async |world| {
                    world.ino(&format!("marker {next}")).await.is_ok()
                })
                .await;
        }
    }
    world.finish().await;
}
