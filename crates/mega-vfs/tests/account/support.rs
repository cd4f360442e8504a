//! A file system over an emulated account, used without a kernel.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mega_api::{Api, ApiConfig, Credentials, Secret};
use mega_emulator::{AccountSpec, Emulator, EmulatorConfig, FaultAction, FaultRule, PlainNode};
use mega_store::{LockHolder, StatePaths, Store, StoreError, StoreOptions};
use mega_transfer::TransferLimits;
use mega_vfs::{Lookup, OpenMode, RenameMode, Vfs, VfsConfig, WriteAt};
use rustix::io::Errno;

pub(crate) const EMAIL: &str = "user@example.com";
const PASSWORD: &str = "correct horse";
pub(crate) const ROOT: u64 = 1;

pub(crate) struct World {
    pub(crate) emulator: Emulator,
    pub(crate) vfs: Arc<Vfs>,
    pub(crate) api: Api,
    pub(crate) dir: tempfile::TempDir,
}

async fn client(emulator: &Emulator, id: &str) -> Api {
    let config = ApiConfig {
        base_url: emulator.url().parse().unwrap(),
        timeout: Duration::from_secs(10),
        client_id: id.to_owned(),
        proxy: Some(String::new()),
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
    api
}

fn places(dir: &tempfile::TempDir) -> (StatePaths, LockHolder) {
    let paths = StatePaths {
        state_dir: dir.path().join("state"),
        cache_dir: dir.path().join("cache"),
    };
    let holder = LockHolder {
        pid: std::process::id(),
        mountpoint: "/mnt".into(),
    };
    (paths, holder)
}

async fn open_store(api: &Api, dir: &tempfile::TempDir) -> Store {
    let (paths, holder) = places(dir);
    let deadline = Instant::now() + Duration::from_secs(20);
    let store = loop {
        match Store::open(&paths, &holder, StoreOptions::default()) {
            // An upload that was cut off may still be encrypting a piece.
            Err(StoreError::Locked { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            opened => break opened.unwrap(),
        }
    };
    store.unlock(&api.session().unwrap().master_key).unwrap();
    store
}

async fn start(api: &Api, dir: &tempfile::TempDir, config: VfsConfig) -> Arc<Vfs> {
    start_with(api, dir, config, TransferLimits::default()).await
}

async fn start_with(
    api: &Api,
    dir: &tempfile::TempDir,
    config: VfsConfig,
    limits: TransferLimits,
) -> Arc<Vfs> {
    let store = Arc::new(open_store(api, dir).await);
    Vfs::start(store, api.clone(), config, limits)
        .await
        .unwrap()
}

pub(crate) fn eager() -> VfsConfig {
    VfsConfig {
        write_back: Duration::ZERO,
        timeout: Duration::from_secs(10),
        ..VfsConfig::default()
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(eager(), |_| {}).await
    }

    pub(crate) async fn with(config: VfsConfig, prepare: impl FnOnce(&Emulator)) -> Self {
        Self::with_limits(config, TransferLimits::default(), prepare).await
    }

    pub(crate) async fn with_limits(
        config: VfsConfig,
        limits: TransferLimits,
        prepare: impl FnOnce(&Emulator),
    ) -> Self {
        let _ = tracing_subscriber::fmt()
            .with_env_filter("mega=debug")
            .with_test_writer()
            .try_init();
        let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
        emulator.add_account(AccountSpec::new(EMAIL, PASSWORD));
        prepare(&emulator);
        let api = client(&emulator, "abcdefghij").await;
        let dir = tempfile::tempdir().unwrap();
        let vfs = start_with(&api, &dir, config, limits).await;
        Self {
            emulator,
            vfs,
            api,
            dir,
        }
    }

    /// Ends the file system and starts it again on the same state.
    pub(crate) async fn restart(self, config: VfsConfig) -> Self {
        self.restart_after(config, false, |_| {}).await
    }

    /// The same, with something done to the state in between, and a power cut.
    pub(crate) async fn restart_after(
        self,
        config: VfsConfig,
        has_power_cut: bool,
        edit: impl FnOnce(&Store),
    ) -> Self {
        self.vfs.shutdown(Duration::ZERO).await;
        let Self {
            emulator,
            vfs,
            api,
            dir,
        } = self;
        drop(vfs);
        edit(&open_store(&api, &dir).await);
        if has_power_cut {
            // This start and the next one see another boot than the one before.
            let (paths, holder) = places(&dir);
            drop(Store::open_in_boot(&paths, &holder, StoreOptions::default(), "another").unwrap());
        }
        let vfs = start(&api, &dir, config).await;
        Self {
            emulator,
            vfs,
            api,
            dir,
        }
    }

    /// Another client of the same account.
    pub(crate) async fn other(&self) -> Api {
        client(&self.emulator, "zyxwvutsrq").await
    }

    pub(crate) async fn ino(&self, path: &str) -> Result<u64, Errno> {
        let mut at = ROOT;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            match self.vfs.lookup(at, OsStr::new(part)).await? {
                Lookup::Found(entry) => at = entry.attr.ino,
                Lookup::Missing { .. } => return Err(Errno::NOENT),
            }
        }
        Ok(at)
    }

    async fn parent<'a>(&self, path: &'a str) -> (u64, &'a OsStr) {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.ino(parent).await.unwrap(), OsStr::new(name))
    }

    pub(crate) async fn write(&self, path: &str, content: &[u8]) {
        let (parent, name) = self.parent(path).await;
        let mode = OpenMode {
            read: true,
            write: true,
            truncate: true,
            ..OpenMode::default()
        };
        let (ino, fh) = match self.ino(path).await {
            Ok(ino) => (ino, self.vfs.open(ino, mode).await.unwrap().fh),
            Err(_) => {
                let (entry, opened) = self.vfs.create(parent, name, 0o644, mode).await.unwrap();
                (entry.attr.ino, opened.fh)
            }
        };
        for (index, piece) in content.chunks(1 << 17).enumerate() {
            let offset = WriteAt::Offset((index << 17) as u64);
            assert_eq!(
                self.vfs.write(ino, fh, offset, piece).await.unwrap() as usize,
                piece.len()
            );
        }
        self.vfs.flush(ino, fh).await.unwrap();
        self.vfs.release(ino, fh).await.unwrap();
    }

    pub(crate) async fn read(&self, path: &str) -> Result<Vec<u8>, Errno> {
        let ino = self.ino(path).await?;
        let mode = OpenMode {
            read: true,
            ..OpenMode::default()
        };
        let fh = self.vfs.open(ino, mode).await?.fh;
        let mut content = Vec::new();
        let result = loop {
            let offset = content.len() as u64;
            match self.vfs.read(ino, fh, offset, 1 << 17).await {
                Ok(bytes) if bytes.is_empty() => break Ok(content),
                Ok(bytes) => content.extend_from_slice(&bytes),
                Err(errno) => break Err(errno),
            }
        };
        self.vfs.release(ino, fh).await?;
        result
    }

    pub(crate) async fn mkdir(&self, path: &str) {
        let (parent, name) = self.parent(path).await;
        self.vfs.mkdir(parent, name, 0o755).await.unwrap();
    }

    pub(crate) async fn unlink(&self, path: &str) -> Result<(), Errno> {
        let (parent, name) = self.parent(path).await;
        self.vfs.unlink(parent, name).await
    }

    pub(crate) async fn rmdir(&self, path: &str) -> Result<(), Errno> {
        let (parent, name) = self.parent(path).await;
        self.vfs.rmdir(parent, name).await
    }

    pub(crate) async fn rename(&self, from: &str, to: &str, mode: RenameMode) -> Result<(), Errno> {
        let (parent, name) = self.parent(from).await;
        let (new_parent, new_name) = self.parent(to).await;
        self.vfs
            .rename(parent, name, new_parent, new_name, mode)
            .await
    }

    pub(crate) async fn names(&self, path: &str) -> Vec<String> {
        let ino = self.ino(path).await.unwrap();
        let fh = self.vfs.opendir(ino).await.unwrap().fh;
        let mut names = Vec::new();
        let mut offset = 0;
        loop {
            let page = self.vfs.readdir(ino, fh, offset, 3).await.unwrap();
            let Some(last) = page.last() else { break };
            offset = last.next_offset;
            names.extend(
                page.iter()
                    .map(|entry| entry.name.to_str().unwrap().to_owned()),
            );
        }
        self.vfs.releasedir(fh).await.unwrap();
        names.retain(|name| name != "." && name != "..");
        names.sort();
        names
    }

    /// Waits until `condition` holds, or fails after 20 s.
    pub(crate) async fn until(&self, what: &str, condition: impl AsyncFn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition(self).await {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.vfs.status());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until nothing is queued.
    pub(crate) async fn settled(&self) {
        self.until("settled", async |world| {
            let status = world.vfs.status();
            assert_eq!(status.parked, Vec::<String>::new());
            status.queued + status.in_flight == 0
        })
        .await;
    }

    /// Live nodes of the account: `path` of every current node that is not in the bin.
    pub(crate) fn nodes(&self) -> Vec<PlainNode> {
        let mut nodes = self.emulator.tree(EMAIL).unwrap();
        nodes.retain(|node| !node.in_bin && node.version_of.is_none() && node.path != "/");
        nodes.sort_by(|a, b| a.path.cmp(&b.path));
        nodes
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.nodes().into_iter().map(|node| node.path).collect()
    }

    pub(crate) fn remote(&self, path: &str) -> Vec<u8> {
        let nodes = self.nodes();
        let matching: Vec<_> = nodes.iter().filter(|node| node.path == path).collect();
        assert_eq!(matching.len(), 1, "{path} in {nodes:#?}");
        self.emulator.content(&matching[0].handle).unwrap()
    }

    /// Keeps the next request with this command on its way, also beyond the end of this client.
    pub(crate) fn hold_once(&self, command: &str) -> u64 {
        let rule = FaultRule::once(command, FaultAction::Held);
        self.emulator.faults().add(rule)
    }

    pub(crate) async fn until_fired(&self, rule: u64) {
        self.until("a request is held", async |world| {
            world.emulator.faults().fired(rule) == 1
        })
        .await;
    }

    /// As [`Self::finish`], where a late request and ours overlap: that is all the emulator may object to.
    pub(crate) async fn finish_late(self) {
        self.vfs.shutdown(Duration::from_secs(10)).await;
        for violation in self.emulator.counters().violations {
            assert!(violation.contains("at a time"), "{violation}");
        }
    }

    /// The emulator saw nothing it objects to.
    pub(crate) async fn finish(self) {
        self.vfs.shutdown(Duration::from_secs(10)).await;
        let counters = self.emulator.counters();
        assert_eq!(counters.violations, Vec::<String>::new());
    }
}
