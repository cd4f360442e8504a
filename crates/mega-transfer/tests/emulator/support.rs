//! An emulator with an account, a client that has logged in, a store, and both pipelines.

use std::sync::Arc;
use std::time::Duration;

use mega_api::{Api, ApiConfig, Credentials, NewNode, Secret};
use mega_crypto::{Attributes, FileKey, NodeKey, WrapKey as _};
use mega_emulator::{AccountSpec, Emulator, EmulatorConfig, FaultAction, FaultRule, Fixture};
use mega_proto::{EntrySource, NodeHandle, NodeKind, RawNode, TreeItem, b64};
use mega_store::{LockHolder, StatePaths, Store, StoreOptions};
use mega_transfer::{
    Downloads, MemoryBudget, ReadCursor, RemoteFile, RemoteSource, SealedSource, TransferError,
    TransferLimits, UploadProgress, Uploaded, Uploads,
};
use tokio_util::sync::CancellationToken;

pub(crate) const EMAIL: &str = "user@example.com";
const PASSWORD: &str = "correct horse";
pub(crate) const MIB: u64 = 1 << 20;

pub(crate) struct World {
    pub(crate) emulator: Emulator,
    pub(crate) api: Api,
    pub(crate) store: Arc<Store>,
    pub(crate) limits: TransferLimits,
    pub(crate) downloads: Downloads,
    pub(crate) uploads: Uploads,
    pub(crate) _dir: tempfile::TempDir,
}

/// Impatient limits.
pub(crate) fn limits() -> TransferLimits {
    TransferLimits {
        memory: MemoryBudget::new(64 * MIB),
        timeout: Duration::from_secs(20),
        stall: Duration::from_secs(10),
        backoff: Duration::from_millis(2),
        patience: Duration::from_secs(5),
        ..TransferLimits::default()
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(limits(), StoreOptions::default()).await
    }

    /// A client that reads striped files in parts, and a server that stripes all of them.
    pub(crate) async fn striped(limits: TransferLimits) -> Self {
        let world = Self::build(limits, StoreOptions::default(), true).await;
        world.emulator.set(|knobs| knobs.raid_min_size = Some(1));
        world
    }

    pub(crate) async fn with(limits: TransferLimits, options: StoreOptions) -> Self {
        Self::build(limits, options, false).await
    }

    async fn build(limits: TransferLimits, options: StoreOptions, cloudraid: bool) -> Self {
        let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
        emulator.add_account(AccountSpec::new(EMAIL, PASSWORD));
        let config = ApiConfig {
            base_url: emulator.url().parse().unwrap(),
            timeout: Duration::from_secs(15),
            client_id: "abcdefghij".to_owned(),
            proxy: Some(String::new()),
            cloudraid,
            ..ApiConfig::default()
        };
        let api = Api::new(config).unwrap();
        let password = Secret::new(PASSWORD.to_owned());
        let credentials = Credentials {
            email: EMAIL.to_owned(),
            password,
            totp: None,
        };
        api.login(&credentials).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths {
            state_dir: dir.path().join("state"),
            cache_dir: dir.path().join("cache"),
        };
        let holder = LockHolder {
            pid: std::process::id(),
            mountpoint: "/mnt".into(),
        };
        let store = Arc::new(Store::open(&paths, &holder, options).unwrap());
        let downloads = Downloads::new(api.clone(), Arc::clone(&store), limits.clone());
        let uploads = Uploads::new(api.clone(), Arc::clone(&store), limits.clone());
        Self {
            emulator,
            api,
            store,
            limits,
            downloads,
            uploads,
            _dir: dir,
        }
    }

    /// Makes the store ready for what it keeps encrypted.
    pub(crate) fn unlock(&self) {
        let session = self.api.session().unwrap();
        self.store.unlock(&session.master_key).unwrap();
    }

    async fn nodes(&self) -> Vec<RawNode> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let sink = move |item| {
            sender.send(item)?;
            Ok(())
        };
        self.api.fetch_tree(sink).await.unwrap();
        let node = |item| match item {
            TreeItem::Node(node) => Some(node),
            _ => None,
        };
        receiver.iter().filter_map(node).collect()
    }

    fn source(&self, node: &RawNode) -> RemoteSource {
        let served = node.key.as_deref().unwrap();
        let wrapped = b64::decode(served.split_once(':').unwrap().1).unwrap();
        let master = &self.api.session().unwrap().master_key;
        let key: FileKey = master
            .unwrap_node_key(&wrapped, false)
            .unwrap()
            .as_file()
            .unwrap()
            .clone();
        RemoteSource {
            handle: node.handle,
            size: node.size,
            key,
        }
    }

    /// A node the emulator made.
    pub(crate) async fn fixture(&self, fixture: Fixture) -> RemoteSource {
        let handle = self.emulator.populate(EMAIL, &[fixture]).unwrap().remove(0);
        let handle: NodeHandle = handle.parse().unwrap();
        let nodes = self.nodes().await;
        let node = nodes.iter().find(|node| node.handle == handle).unwrap();
        let source = self.source(node);
        self.emulator.reset_counters();
        source
    }

    /// A file of patterned bytes.
    pub(crate) async fn file(&self, size: u64, seed: u64) -> Arc<RemoteFile> {
        let path = format!("/file-{size}-{seed}");
        let source = self.fixture(Fixture::pattern(&path, size, seed)).await;
        self.downloads.open(source)
    }

    pub(crate) fn fault(&self, at: &str, action: FaultAction) -> u64 {
        self.emulator.faults().add(FaultRule::once(at, action))
    }

    pub(crate) fn always(&self, at: &str, action: FaultAction) -> u64 {
        self.emulator.faults().add(FaultRule::new(at, action))
    }

    pub(crate) fn bytes_down(&self) -> u64 {
        self.emulator.counters().bytes_down
    }

    /// Exactly this many bytes were sent; the server counts just after sending.
    pub(crate) async fn moved(&self, bytes: u64) {
        eventually("bytes to be counted", || self.bytes_down() >= bytes).await;
        assert_eq!(self.bytes_down(), bytes);
    }

    pub(crate) fn gets(&self) -> u64 {
        self.emulator.counters().requests("dl")
    }

    pub(crate) fn urls(&self) -> u64 {
        self.emulator.counters().commands("g")
    }

    /// Nothing was done that a faithful client would not do, and no buffer is left behind.
    pub(crate) async fn finish(self) {
        let counters = self.emulator.counters();
        assert_eq!(counters.violation_count, 0, "{:?}", counters.violations);
        eventually("all memory given back", || self.limits.memory.in_use() == 0).await;
        assert!(self.limits.memory.peak() <= self.limits.memory.total());
    }

    pub(crate) async fn upload(&self, data: Arc<[u8]>) -> Result<Uploaded, TransferError> {
        let progress = Arc::new(UploadProgress::new());
        self.upload_with(data, &progress).await
    }

    pub(crate) async fn upload_with(
        &self,
        data: Arc<[u8]>,
        progress: &Arc<UploadProgress>,
    ) -> Result<Uploaded, TransferError> {
        let source: Arc<dyn SealedSource> = Arc::new(Memory(data));
        self.uploads
            .upload(source, Arc::clone(progress), CancellationToken::new())
            .await
    }

    /// Makes the node of an upload and hands its ciphertext to the cache.
    pub(crate) async fn place(&self, uploaded: Uploaded, name: &str) -> RemoteSource {
        let key = NodeKey::File(uploaded.key);
        let session = self.api.session().unwrap();
        let attrs = Attributes::with_name(name)
            .encrypt(&key.attr_key())
            .unwrap();
        let entry = NewNode {
            source: EntrySource::Token(uploaded.token),
            kind: 0,
            attrs: b64::encode(&attrs),
            key: b64::encode(&session.master_key.wrap_node_key(&key)),
            fa: None,
            parent: None,
            over: None,
        };
        let nodes = self.nodes().await;
        let root = nodes
            .iter()
            .find(|node| node.kind == NodeKind::Root)
            .unwrap()
            .handle;
        let made = self.api.put_nodes(root, vec![entry], None).await.unwrap();
        if let Some(blob) = uploaded.blob {
            self.store.cache().adopt(blob, made[0].handle).unwrap();
        }
        self.source(&made[0])
    }
}

/// Plaintext in memory.
pub(crate) struct Memory(pub(crate) Arc<[u8]>);

impl SealedSource for Memory {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        buf.copy_from_slice(&self.0[start..start + buf.len()]);
        Ok(())
    }
}

/// Reads a file front to back in kernel-sized pieces.
pub(crate) async fn read_all(file: &Arc<RemoteFile>) -> Result<Vec<u8>, TransferError> {
    let cursor = ReadCursor::new();
    let mut all = Vec::new();
    loop {
        let bytes = file.read(all.len() as u64, 128 << 10, &cursor).await?;
        if bytes.is_empty() {
            return Ok(all);
        }
        all.extend_from_slice(&bytes);
    }
}

/// One read without history.
pub(crate) async fn read_at(
    file: &Arc<RemoteFile>,
    offset: u64,
    len: usize,
) -> Result<bytes::Bytes, TransferError> {
    file.read(offset, len, &ReadCursor::new()).await
}

/// Waits for a state, with a deadline.
pub(crate) async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .expect(what);
}

/// Sizes at and around chunk and unit boundaries.
pub(crate) const SIZES: [u64; 17] = [
    0, 1, 15, 16, 17, 131_071, 131_072, 131_073, 262_144, 393_215, 393_216, 393_217, 786_432,
    1_048_576, 1_048_577, 4_718_591, 4_718_593,
];
