//! One account, one state directory, and a file system over both that can end in every way.
//!
//! The file system has a runtime of its own: ending that runtime without a word ([`World::crash`]) is
//! as near to `kill -9` as one process gets, and leaves no task of the old life behind.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mega_api::{Api, ApiConfig, ApiError, Credentials, Secret, Session};
use mega_emulator::{AccountSpec, Emulator, EmulatorConfig, PlainNode};
use mega_store::{LockHolder, StatePaths, Store, StoreError, StoreOptions};
use mega_transfer::TransferLimits;
use mega_vfs::{Status, Vfs, VfsConfig};
use tokio::runtime::Runtime;

pub(crate) const EMAIL: &str = "user@example.com";
pub(crate) const PASSWORD: &str = "correct horse";
/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(40);

/// A running file system.
pub(crate) struct Life {
    pub(crate) vfs: Arc<Vfs>,
    pub(crate) store: Arc<Store>,
    runtime: Runtime,
}

pub(crate) struct World {
    pub(crate) emulator: Emulator,
    pub(crate) config: VfsConfig,
    pub(crate) is_held: bool,
    session: Session,
    dir: tempfile::TempDir,
    life: Option<Life>,
}

/// `MODEL_IGNORE=stray,attributes`: to find what lies behind something that is known to be wrong.
pub(crate) fn is_ignored(what: &str) -> bool {
    std::env::var("MODEL_IGNORE").is_ok_and(|list| list.split(',').any(|one| one == what))
}

pub(crate) fn api(url: &str) -> Api {
    let config = ApiConfig {
        base_url: url.parse().unwrap(),
        timeout: Duration::from_secs(20),
        client_id: "abcdefghij".to_owned(),
        proxy: Some(String::new()),
        ..ApiConfig::default()
    };
    Api::new(config).unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn credentials() -> Credentials {
    Credentials {
        email: EMAIL.to_owned(),
        password: Secret::new(PASSWORD.to_owned()),
        totp: None,
    }
}

pub(crate) fn login(url: &str) -> Session {
    let runtime = runtime();
    runtime.block_on(api(url).login(&credentials())).unwrap()
}

impl Life {
    /// Brings the file system up. The lock of a life that has just ended may still be held for a moment.
    pub(crate) fn begin(
        url: &str,
        session: &Session,
        dir: &Path,
        config: &VfsConfig,
        prepare: impl FnOnce(&Store),
    ) -> Self {
        let paths = StatePaths {
            state_dir: dir.join("state"),
            cache_dir: dir.join("cache"),
        };
        let holder = LockHolder {
            pid: std::process::id(),
            mountpoint: "/mnt".into(),
        };
        let deadline = Instant::now() + PATIENCE;
        let store = loop {
            match Store::open(&paths, &holder, StoreOptions::default()) {
                Err(StoreError::Locked { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                store => break Arc::new(store.unwrap()),
            }
        };
        store.unlock(&session.master_key).unwrap();
        prepare(&store);
        let runtime = runtime();
        let api = api(url);
        api.install(session.clone());
        let credentials = Arc::new(|| Some(credentials()));
        api.set_relogin(credentials, Arc::new(|_: Result<&Session, &ApiError>| {}));
        let vfs = runtime
            .block_on(Vfs::start(
                Arc::clone(&store),
                api,
                config.clone(),
                TransferLimits::default(),
            ))
            .unwrap();
        Self {
            vfs,
            store,
            runtime,
        }
    }

    pub(crate) fn run<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Waits until the queue is empty; `Err` has what is left.
    pub(crate) fn drain(&self) -> Result<(), Status> {
        self.store.failpoints().hold(false);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.vfs.status();
            if status.queued + status.in_flight == 0 && status.parked.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline || !status.parked.is_empty() {
                return Err(status);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends as a user would; the queue stays when `drain` is short.
    pub(crate) fn end(self, drain: Duration) {
        self.run(self.vfs.shutdown(drain));
        self.drop_all();
    }

    /// Ends without a word.
    pub(crate) fn drop_all(self) {
        let Self {
            vfs,
            store,
            runtime,
        } = self;
        runtime.shutdown_timeout(Duration::from_secs(10));
        drop(vfs);
        drop(store);
    }
}

impl World {
    pub(crate) fn new(config: VfsConfig, is_held: bool) -> Self {
        if std::env::var_os("MODEL_LOG").is_some() {
            let _ = tracing_subscriber::fmt()
                .with_env_filter("mega=debug,megamount=debug")
                .with_test_writer()
                .try_init();
        }
        let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
        emulator.add_account(AccountSpec::new(EMAIL, PASSWORD));
        let session = login(&emulator.url());
        let mut world = Self {
            emulator,
            config,
            is_held,
            session,
            dir: tempfile::tempdir().unwrap(),
            life: None,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        let is_held = self.is_held;
        let life = Life::begin(
            &self.emulator.url(),
            &self.session,
            self.dir.path(),
            &self.config,
            |store| store.failpoints().hold(is_held),
        );
        self.life = Some(life);
    }

    pub(crate) fn life(&self) -> &Life {
        self.life.as_ref().expect("between two lives")
    }

    /// Ends the file system and starts it again on the same state.
    pub(crate) fn remount(&mut self) {
        if let Some(life) = self.life.take() {
            life.end(Duration::ZERO);
        }
        self.begin();
    }

    /// The same without an orderly end.
    pub(crate) fn crash(&mut self) {
        self.stop();
        self.begin();
    }

    /// The file system ends without a word and stays away.
    pub(crate) fn stop(&mut self) {
        if let Some(life) = self.life.take() {
            life.drop_all();
        }
    }

    /// Waits until nothing is queued, and holds the queue again where that is the rule.
    pub(crate) fn settle(&self) -> Result<(), String> {
        let life = self.life();
        life.drain()
            .map_err(|status| format!("the queue does not get empty: {status:?}"))?;
        life.store.failpoints().hold(self.is_held);
        Ok(())
    }

    /// The current nodes of the account that are neither versions nor in the bin.
    pub(crate) fn nodes(&self) -> Vec<PlainNode> {
        let mut nodes = self.emulator.tree(EMAIL).unwrap();
        nodes.retain(|node| {
            !node.in_bin
                && node.version_of.is_none()
                && node.path.starts_with('/')
                && !node.path.starts_with("//")
                && node.path != "/"
        });
        nodes
    }

    /// Files that a clean state directory does not have.
    pub(crate) fn stray_files(&self) -> Vec<PathBuf> {
        ["state/staging", "state/lost+found"]
            .iter()
            .filter_map(|name| std::fs::read_dir(self.dir.path().join(name)).ok())
            .flatten()
            .map(|entry| entry.unwrap().path())
            .collect()
    }

    /// After a crash bytes may be left that no change counts on: of a file that was uploaded just then, or
    /// of a write that was not acknowledged. They are kept apart, not thrown away.
    pub(crate) fn forget_lost(&self) {
        let lost = self.dir.path().join("state/lost+found");
        for entry in std::fs::read_dir(lost).into_iter().flatten() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }

    /// What the invariants say about a state directory with an empty queue.
    pub(crate) fn check_settled(&self) -> Result<(), String> {
        let store = &self.life().store;
        let attempts = store.attempts().unwrap().len();
        let doomed = store.doomed().unwrap().len();
        let rows = store.changes().unwrap().len();
        let violations = self.emulator.counters().violations;
        let stray = if is_ignored("stray") {
            Vec::new()
        } else {
            self.stray_files()
        };
        if rows + attempts + doomed > 0 || !violations.is_empty() || !stray.is_empty() {
            return Err(format!(
                "after the drain: {rows} rows, {attempts} attempts, {doomed} doomed, stray {stray:?}, \
                 violations {violations:?}"
            ));
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
    }
}
