//! Uploads that are interrupted and go on: the same key over the same bytes in the same pieces, or a new
//! key.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mega_emulator::{FaultAction, FaultRule, pattern};
use mega_proto::NodeHandle;
use mega_store::{AttemptId, AttemptRow, Store, StoreError, StoreOptions, Subject};
use mega_transfer::{
    Resumable, ResumeRecord, TransferError, TransferLimits, UploadJournal, UploadProgress,
    Uploaded, Uploads,
};
use tokio_util::sync::CancellationToken;

use crate::support::{MIB, Memory, World, eventually, limits};

const SIZE: u64 = 48 * MIB + 777;
const GENERATION: u64 = 5;

/// Keeps records as the program does: in the store.
struct Journal {
    store: Arc<Store>,
    id: AttemptId,
    written: Mutex<usize>,
}

impl UploadJournal for Journal {
    fn record(&self, record: &ResumeRecord) -> Result<(), StoreError> {
        let row = AttemptRow {
            id: self.id,
            subject: Subject::Node(NodeHandle::from_u48(1)),
            body: record.to_bytes(),
        };
        self.store.write(|tx| tx.put_attempt(&row))?;
        *self.written.lock().unwrap() += 1;
        Ok(())
    }
}

impl Journal {
    fn new(world: &World) -> Arc<Self> {
        world.unlock();
        Arc::new(Self {
            store: Arc::clone(&world.store),
            id: world.store.next_attempt_id().unwrap(),
            written: Mutex::default(),
        })
    }

    fn written(&self) -> usize {
        *self.written.lock().unwrap()
    }

    fn stored(&self) -> Option<ResumeRecord> {
        let rows = self.store.attempts().unwrap();
        let row = rows.into_iter().find(|row| row.id == self.id)?;
        Some(ResumeRecord::from_bytes(&row.body).unwrap())
    }
}

/// What an upload task answers.
type Running = tokio::task::JoinHandle<Result<Uploaded, TransferError>>;

/// Begins as a new process would: with workers, queues and buffers of its own.
fn start(
    world: &World,
    data: &Arc<[u8]>,
    journal: &Arc<Journal>,
    generation: u64,
    progress: &Arc<UploadProgress>,
) -> (Running, CancellationToken) {
    let store = Arc::clone(&world.store);
    let uploads = Uploads::new(world.api.clone(), store, world.limits.clone());
    let cancel = CancellationToken::new();
    let resumable = Resumable {
        generation,
        from: journal.stored(),
        journal: Arc::clone(journal) as Arc<dyn UploadJournal>,
    };
    let (source, progress) = (Arc::new(Memory(Arc::clone(data))), Arc::clone(progress));
    let token = cancel.clone();
    let upload = async move {
        uploads
            .upload_resumable(source, progress, token, resumable)
            .await
    };
    (tokio::spawn(upload), cancel)
}

async fn finish_upload(
    world: &World,
    data: &Arc<[u8]>,
    journal: &Arc<Journal>,
    generation: u64,
) -> (Uploaded, Arc<UploadProgress>) {
    let progress = Arc::new(UploadProgress::new());
    let (running, _cancel) = start(world, data, journal, generation, &progress);
    (running.await.unwrap().unwrap(), progress)
}

/// A world with an upload that was cut off in the middle, and the bytes that had arrived by then.
async fn interrupted(data: &Arc<[u8]>) -> (World, Arc<Journal>, u64) {
    let world = World::new().await;
    let journal = Journal::new(&world);
    world.emulator.set(|knobs| knobs.up_total = 8 * MIB);
    let progress = Arc::new(UploadProgress::new());
    let (running, _cancel) = start(&world, data, &journal, GENERATION, &progress);
    eventually("two records", || journal.written() >= 2).await;
    running.abort();
    assert!(running.await.is_err());
    assert!(progress.acknowledged() < SIZE);
    eventually("memory given back", || world.limits.memory.in_use() == 0).await;
    world.emulator.set(|knobs| knobs.up_total = 0);
    world.emulator.reset_counters();
    (world, journal, progress.acknowledged())
}

fn data(seed: u64) -> Arc<[u8]> {
    pattern(seed, 0, SIZE).into()
}

async fn arrives(world: &World, uploaded: Uploaded, data: &[u8]) {
    let source = world.place(uploaded, "x").await;
    assert!(world.emulator.content(&source.handle.to_string()).unwrap() == data);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_upload_goes_on() {
    let data = data(1);
    let (world, journal, before) = interrupted(&data).await;
    let (uploaded, progress) = finish_upload(&world, &data, &journal, GENERATION).await;
    let counters = world.emulator.counters();
    assert_eq!(counters.commands("u"), 0, "the address is still good");
    // What was acknowledged within the last second, and what was under way, is sent again.
    let sent = counters.bytes_up;
    assert!(
        sent < SIZE && sent >= SIZE - before,
        "{sent} after {before}"
    );
    assert_eq!((progress.acknowledged(), progress.restarts()), (SIZE, 0));
    arrives(&world, uploaded, &data).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_again_and_again() {
    let data = data(2);
    let (world, journal, _) = interrupted(&data).await;
    world.emulator.set(|knobs| knobs.up_total = 8 * MIB);
    for _ in 0..2 {
        let so_far = journal.written();
        let progress = Arc::new(UploadProgress::new());
        let (running, cancel) = start(&world, &data, &journal, GENERATION, &progress);
        eventually("a record", || journal.written() > so_far).await;
        cancel.cancel();
        assert!(matches!(
            running.await.unwrap(),
            Err(TransferError::Cancelled)
        ));
    }
    world.emulator.set(|knobs| knobs.up_total = 0);
    let (uploaded, _) = finish_upload(&world, &data, &journal, GENERATION).await;
    assert_eq!(world.emulator.counters().commands("u"), 0);
    arrives(&world, uploaded, &data).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_content_gets_another_key() {
    let data = data(3);
    let (world, journal, _) = interrupted(&data).await;
    let key = |uploaded: &Uploaded| (uploaded.key.aes_key(), uploaded.key.nonce());
    // Another number, another size, other bytes at sampled places.
    let (by_number, _) = finish_upload(&world, &data, &journal, GENERATION + 1).await;
    let short: Arc<[u8]> = data[..data.len() - 1].into();
    let (by_size, _) = finish_upload(&world, &short, &journal, GENERATION).await;
    let mut bytes = data.to_vec();
    bytes[0] ^= 1;
    let sampled: Arc<[u8]> = bytes.into();
    let (by_sample, progress) = finish_upload(&world, &sampled, &journal, GENERATION).await;
    assert_eq!(world.emulator.counters().commands("u"), 3);
    assert_eq!(progress.restarts(), 0);
    assert_ne!(key(&by_number), key(&by_size));
    assert_ne!(key(&by_number), key(&by_sample));
    arrives(&world, by_number, &data).await;
    arrives(&world, by_size, &short).await;
    arrives(&world, by_sample, &sampled).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_in_a_piece_that_was_sent_get_another_key() {
    let data = data(4);
    let (world, journal, _) = interrupted(&data).await;
    // Changes every 4099th byte but the ones the fingerprint samples: the MACs must tell.
    let mut bytes = data.to_vec();
    for byte in bytes.iter_mut().step_by(4099) {
        *byte ^= 1;
    }
    for window in mega_crypto::FingerprintBuilder::windows(SIZE) {
        let window = usize::try_from(window.start).unwrap()..usize::try_from(window.end).unwrap();
        bytes[window.clone()].copy_from_slice(&data[window]);
    }
    let changed: Arc<[u8]> = bytes.into();
    let (uploaded, progress) = finish_upload(&world, &changed, &journal, GENERATION).await;
    assert_eq!(progress.restarts(), 0);
    assert_eq!(world.emulator.counters().commands("u"), 1);
    arrives(&world, uploaded, &changed).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_address_begins_again_with_a_new_key() {
    for text in ["-9", "-4"] {
        let data = data(5);
        let (world, journal, _) = interrupted(&data).await;
        let text = text.to_owned();
        // What the killed run had under way may still arrive and meet it: one for each of its connections.
        let dead = FaultRule::new("ul", FaultAction::Body { text }).times(7);
        world.emulator.faults().add(dead);
        let (uploaded, progress) = finish_upload(&world, &data, &journal, GENERATION).await;
        assert!(progress.restarts() > 0);
        let addresses = world.emulator.counters().commands("u");
        assert_eq!(addresses, u64::from(progress.restarts()));
        assert_eq!(progress.acknowledged(), SIZE);
        arrives(&world, uploaded, &data).await;
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_address_is_given_up() {
    let data = data(6);
    let (world, journal, _) = interrupted(&data).await;
    let world = World {
        limits: TransferLimits {
            patience: Duration::from_millis(800),
            ..world.limits.clone()
        },
        ..world
    };
    let dead = world
        .emulator
        .faults()
        .add(FaultRule::new("ul", FaultAction::Reset));
    let progress = Arc::new(UploadProgress::new());
    let (running, _cancel) = start(&world, &data, &journal, GENERATION, &progress);
    eventually("it to begin again", || progress.restarts() == 1).await;
    world.emulator.faults().remove(dead);
    arrives(&world, running.await.unwrap().unwrap(), &data).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_upload_is_not_sent_again() {
    let data = data(7);
    let (world, journal, _) = interrupted(&data).await;
    let (first, _) = finish_upload(&world, &data, &journal, GENERATION).await;
    world.emulator.reset_counters();
    // The program was killed before it had put the node.
    let (second, progress) = finish_upload(&world, &data, &journal, GENERATION).await;
    assert_eq!((&first.token, &first.key), (&second.token, &second.key));
    assert_eq!(first.fingerprint_crc, second.fingerprint_crc);
    assert_eq!((progress.acknowledged(), progress.percent()), (SIZE, 100));
    assert_eq!(world.emulator.counters().requests("ul"), 0);
    arrives(&world, second, &data).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_upload_goes_on_when_it_is_called_again() {
    let data = data(8);
    let (world, journal, _) = interrupted(&data).await;
    let full = FaultAction::Body {
        text: "-17".to_owned(),
    };
    let full = world.always("ul", full);
    let progress = Arc::new(UploadProgress::new());
    let (running, _cancel) = start(&world, &data, &journal, GENERATION, &progress);
    let ended = running.await.unwrap();
    assert!(matches!(ended, Err(TransferError::StorageQuota)));
    world.emulator.faults().remove(full);
    let (uploaded, _) = finish_upload(&world, &data, &journal, GENERATION).await;
    assert_eq!(world.emulator.counters().commands("u"), 0);
    arrives(&world, uploaded, &data).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quick_upload_writes_nothing_down() {
    let world = World::new().await;
    let journal = Journal::new(&world);
    let data: Arc<[u8]> = pattern(9, 0, MIB).into();
    let (uploaded, _) = finish_upload(&world, &data, &journal, GENERATION).await;
    assert_eq!(journal.written(), 0);
    arrives(&world, uploaded, &data).await;
    world.finish().await;
}

/// A journal that fails.
struct Broken;

impl UploadJournal for Broken {
    fn record(&self, _: &ResumeRecord) -> Result<(), StoreError> {
        Err(StoreError::NotPresent)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_fails_is_no_obstacle() {
    let world = World::with(limits(), StoreOptions::default()).await;
    world.emulator.set(|knobs| knobs.up_total = 16 * MIB);
    let data = data(10);
    let resumable = Resumable {
        generation: 1,
        from: None,
        journal: Arc::new(Broken),
    };
    let source = Arc::new(Memory(Arc::clone(&data)));
    let (progress, cancel) = (Arc::new(UploadProgress::new()), CancellationToken::new());
    let upload = world
        .uploads
        .upload_resumable(source, progress, cancel, resumable);
    arrives(&world, upload.await.unwrap(), &data).await;
    world.finish().await;
}
