//! How programs read: what each of their patterns may fetch. Bytes and requests are counted, not time.

use std::sync::Arc;

use mega_emulator::{Fixture, pattern};
use mega_vfs::OpenMode;

use crate::support::{EMAIL, World, eager};

const MIB: u64 = 1 << 20;
/// What the kernel asks for at a time.
const STEP: u64 = 128 << 10;

async fn world(files: &[Fixture]) -> World {
    let world = World::with(eager(), |emulator| {
        emulator.populate(EMAIL, files).unwrap();
    })
    .await;
    world.emulator.reset_counters();
    world
}

/// An open file of patterned bytes.
struct Player {
    vfs: Arc<mega_vfs::Vfs>,
    ino: u64,
    fh: u64,
    seed: u64,
}

impl Player {
    async fn open(world: &World, path: &str, seed: u64) -> Self {
        let mode = OpenMode {
            read: true,
            ..OpenMode::default()
        };
        let ino = world.ino(path).await.unwrap();
        let fh = world.vfs.open(ino, mode).await.unwrap().fh;
        let vfs = Arc::clone(&world.vfs);
        Self { vfs, ino, fh, seed }
    }

    async fn read(&self, offset: u64, length: u64) {
        let size = u32::try_from(length).unwrap();
        let bytes = self.vfs.read(self.ino, self.fh, offset, size).await;
        assert!(bytes.unwrap() == pattern(self.seed, offset, length));
    }

    async fn stream(&self, from: u64, length: u64) {
        for offset in (from..from + length).step_by(STEP as usize) {
            self.read(offset, STEP).await;
        }
    }

    async fn close(self) {
        self.vfs.release(self.ino, self.fh).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_video_player_fetches_little_more_than_it_plays() {
    let size = 300 * MIB;
    let world = world(&[Fixture::pattern("/film", size, 1)]).await;
    let player = Player::open(&world, "film", 1).await;
    // The header, and the index at the end.
    player.read(0, 32 << 10).await;
    player.read(size - 200_000, STEP).await;
    player.read(size - 4096, 4096).await;
    let probed = world.emulator.counters().bytes_down;
    assert!(probed <= MIB, "{probed} for a look at both ends");
    // Three scenes.
    let scene = 8 * MIB;
    for from in [0, 100 * MIB, 200 * MIB] {
        player.stream(from, scene).await;
    }
    player.close().await;
    world.vfs.shutdown(std::time::Duration::ZERO).await;
    // What is read ahead is at most twice what was read in a row.
    let moved = world.emulator.counters().bytes_down;
    assert!(moved <= 3 * 3 * scene + 2 * MIB, "{moved}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_through_one_handle_are_each_read_ahead() {
    let size = 96 * MIB;
    let world = world(&[Fixture::pattern("/f", size, 2)]).await;
    let player = Player::open(&world, "f", 2).await;
    for step in 0..16 * MIB / STEP {
        for start in [0, 32 * MIB, 64 * MIB] {
            player.read(start + step * STEP, STEP).await;
        }
    }
    player.close().await;
    let counters = world.emulator.counters();
    let asked = counters.requests("dl");
    // A fast reader waits for some itself; unless each stream were recognised, for all.
    assert!(asked <= 256, "{asked} requests for 384 reads");
    let moved = counters.bytes_down;
    assert!(moved <= size + size / 8, "{moved}: hardly a byte twice");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_read_overtakes_a_big_copy() {
    let size = 256 * MIB;
    let mut files: Vec<_> = (0..8)
        .map(|n| Fixture::pattern(&format!("/probe{n}"), 16 * MIB, n))
        .collect();
    files.push(Fixture::pattern("/big", size, 9));
    let world = world(&files).await;
    world.emulator.set(|knobs| knobs.down_total = 16 << 20);
    let copied = Player::open(&world, "big", 9).await;
    let copy = tokio::spawn(async move { copied.stream(0, size).await });
    world
        .until("the copy is under way", async |world| {
            world.emulator.counters().bytes_down >= 8 * MIB
        })
        .await;
    for n in 0..8 {
        let before = world.emulator.counters().bytes_down;
        let probe = Player::open(&world, &format!("probe{n}"), n).await;
        probe.read(5 * MIB, 4096).await;
        probe.close().await;
        let between = world.emulator.counters().bytes_down - before;
        // Behind the window of the copy it would have to wait for 64 MiB.
        assert!(between <= 8 * MIB, "{between} bytes went first");
    }
    assert!(!copy.is_finished());
    copy.abort();
    world.vfs.shutdown(std::time::Duration::ZERO).await;
    world.finish().await;
}
