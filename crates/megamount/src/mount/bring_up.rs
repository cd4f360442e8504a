//! From a plan to a mount that answers.

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Duration;

use fuser::{BackgroundSession, MountOption, Session, SessionACL};
use mega_api::{Api, ApiConfig};
use mega_emulator::Emulator;
use mega_store::{LockHolder, StatePaths, Store, StoreError, StoreOptions};
use mega_transfer::{MemoryBudget, TransferLimits, Verify};
use mega_vfs::{Loading, Vfs, VfsConfig};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use tokio::runtime::Handle;
use url::Url;

use super::plan::Plan;
use super::{link, login, translate};
use crate::adaptor::{Adaptor, Notices};
use crate::bwlimit::Throttle;
use crate::cli::{CacheMode, Duplicates, FsyncMode, SessionStore, VerifyMode, VersionsMode};
use crate::config::RemoteKind;
use crate::control::protocol::{Configuration, Hello};
use crate::control::server::Control;
use crate::demo;
use crate::display::Spinner;
use crate::env_vars;
use crate::failure::Failure;
use crate::launch::Herald;
use crate::metrics;
use crate::mountpoint::{self, Attachment};
use crate::notify::{self, State};
use crate::paths;

/// Two loops of fuser: limits.md section 4, point 1.
const KERNEL_LOOPS: usize = 2;
/// The layers below have deadlines of `--timeout` of their own, with better errors; an operation
/// that misses them all ends this much later.
const LAST_DEADLINE: Duration = Duration::from_secs(5);
/// How long a new mount may take to answer: it needs nothing but this process.
const FIRST_ANSWER: Duration = Duration::from_secs(20);
/// How often an earlier daemon that is still uploading is looked after.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// A start that takes longer is explained at the terminal.
const LONG: Duration = Duration::from_secs(3);
/// How often the progress of a start is shown.
const SHOWING: Duration = Duration::from_millis(200);
/// Our part of the packets that our own commands cause, one per state directory.
const CLIENT_ID: &str = "program.client_id";
/// By which rule numbers were given.
const DUPLICATES: &str = "program.duplicates";
const NEWEST: &str = "newest";
/// Memory of one directory entry, roughly: names, attributes, keys.
const ENTRY_BYTES: u64 = 400;

/// A mount that answers.
pub(super) struct Mounted {
    /// The file system.
    pub(super) vfs: Arc<Vfs>,
    /// Its place in the tree.
    pub(super) attachment: Attachment,
    /// Where it is asked about.
    pub(super) control: Control,
    /// Never dropped: fuser would unmount whatever is at the path by then, were it ours or not.
    _session: ManuallyDrop<BackgroundSession>,
    /// Where its figures are served.
    _metrics: Option<metrics::Server>,
    /// The server of `demo:`, which ends last.
    _demo: Option<Emulator>,
}

/// An account that answers, without a kernel.
pub(super) struct Started {
    /// The file system.
    pub(super) vfs: Arc<Vfs>,
    /// The way to Mega.
    pub(super) api: Api,
    /// The server that is asked, for messages.
    pub(super) origin: String,
    /// How fast transfers may be.
    pub(super) throttle: Arc<Throttle>,
    /// The server of `demo:`, which ends last.
    pub(super) demo: Option<Emulator>,
}

/// Brings everything up, in order. Nothing is left mounted after an error.
pub(super) async fn bring_up(
    plan: &Arc<Plan>,
    herald: &Herald,
    hello: Hello,
) -> Result<Mounted, Failure> {
    // Before anything is done: a port that is taken is a mistake in the command line.
    let listener = plan.settings.metrics_addr.as_ref();
    let listener = listener.map(metrics::Listener::bind).transpose()?;
    let store = open_store(plan, herald).await?;
    let loading = Arc::default();
    let mount = hello.clone();
    let control = Control::starting(Arc::clone(&loading), hello, &plan.paths.state_dir);
    let Started {
        vfs,
        api,
        demo,
        throttle,
        ..
    } = start(plan, herald, store, loading).await?;
    control.throttled_by(&throttle);
    if let Some(configuration) = configuration(plan) {
        control.configured_by(configuration);
    }
    match attach(plan, &vfs).await {
        Ok((attachment, session)) => Ok(Mounted {
            _metrics: listener.map(|listener| listener.serve(&vfs, &api, &mount)),
            vfs,
            attachment,
            control,
            _session: session,
            _demo: demo,
        }),
        Err(failure) => {
            vfs.shutdown(Duration::ZERO).await;
            Err(failure)
        }
    }
}

/// From the state to a file system that answers.
pub(super) async fn start(
    plan: &Arc<Plan>,
    herald: &Herald,
    store: Store,
    loading: Arc<Loading>,
) -> Result<Started, Failure> {
    let store = Arc::new(store);
    let demo = start_demo(plan)?;
    let base_url = match (&demo, &plan.settings.api_url) {
        (Some(demo), _) => Some(Url::parse(&demo.url()).map_err(|e| {
            Failure::Other(format!("the demo server has an unusable address: {e}."))
        })?),
        (None, Some(url)) => Some(url.0.clone()),
        (None, None) => None,
    };
    let api = open_api(plan, &store, base_url)?;
    let throttle = Throttle::start(&api, plan.settings.bwlimit.clone());
    let shown = api.config().base_url.origin().ascii_serialization();
    let pinned = if demo.is_some() {
        demo::ORIGIN
    } else {
        shown.as_str()
    };
    match plan.link() {
        Some(public) => link::open(plan, public, &store, &api, pinned).await?,
        None => {
            login::open(plan, herald, &store, &api, pinned).await?;
            login::allow_relogin(plan, &store, &api);
            login::complete(plan, &store, &api).await?;
        }
    }

    let newest = has_newest(plan, &store).map_err(|e| translate::store(plan, &e))?;
    let config = VfsConfig {
        loading: Arc::clone(&loading),
        ..vfs_config(plan, newest)
    };
    let started = Vfs::start(Arc::clone(&store), api.clone(), config, limits(plan));
    let vfs = match patiently(herald, plan.settings.progress, &loading, started).await {
        Ok(vfs) => vfs,
        Err(error) => {
            let failure = translate::start(plan, &shown, &error);
            return Err(translate::why_blocked(failure, &api).await);
        }
    };
    Ok(Started {
        vfs,
        api,
        origin: shown,
        throttle,
        demo,
    })
}

/// Waits for `start`, and says why when it takes long, or with `--progress` how far it is.
async fn patiently<T>(
    herald: &Herald,
    shows_progress: bool,
    loading: &Loading,
    start: impl Future<Output = T>,
) -> T {
    let mut start = Box::pin(start);
    let mut spinner = Spinner::default();
    let began = tokio::time::Instant::now();
    let mut is_told = false;
    loop {
        if let Ok(started) = tokio::time::timeout(SHOWING, start.as_mut()).await {
            return started;
        }
        let Some(nodes) = loading.nodes() else {
            continue;
        };
        let text = format!(
            "reading the account's list of files: {nodes} so far, {} s",
            began.elapsed().as_secs()
        );
        notify::notify(State::Status(&text));
        if shows_progress {
            herald.progress(&mut spinner, &text);
        } else if !is_told && began.elapsed() >= LONG {
            is_told = true;
            herald.note("reading the list of files for the first time ...");
        }
    }
}

/// Opens the state, if nobody else has it.
pub(super) fn try_store(plan: &Plan) -> Result<Store, StoreError> {
    let state = StatePaths {
        state_dir: plan.paths.state_dir.clone(),
        cache_dir: plan.paths.cache_dir.clone(),
    };
    let holder = LockHolder {
        pid: std::process::id(),
        mountpoint: plan.mountpoint.clone(),
    };
    let settings = &plan.settings;
    let options = StoreOptions {
        cache_size: settings.cache_size.0,
        cache_min_free: mega_store::Percent(settings.cache_min_free.0),
        cache_on: settings.cache == CacheMode::Full,
        session: match settings.session_store {
            SessionStore::File => mega_store::SessionPlace::File,
            SessionStore::Keyring => mega_store::SessionPlace::Keyring,
        },
    };
    Store::open(&state, &holder, options)
}

/// How long to wait for whoever has the state and is about to end.
pub(super) fn patience(plan: &Plan) -> Duration {
    plan.settings.drain.0 + FIRST_ANSWER
}

/// Opens the state. An earlier daemon that has been unmounted and is still uploading is waited for.
async fn open_store(plan: &Plan, herald: &Herald) -> Result<Store, Failure> {
    let deadline = tokio::time::Instant::now() + patience(plan);
    let mut is_told = false;
    loop {
        match try_store(plan) {
            Ok(store) => return Ok(store),
            Err(StoreError::Locked { holder })
                if !mountpoint::is_mounted(&holder.mountpoint)
                    && tokio::time::Instant::now() < deadline =>
            {
                if !is_told {
                    is_told = true;
                    herald.note(if holder.mountpoint.as_os_str().is_empty() {
                        "waiting for another command of this remote to end."
                    } else {
                        "waiting for the previous mount to finish uploading."
                    });
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Err(error) => return Err(translate::store(plan, &error)),
        }
    }
}

fn start_demo(plan: &Plan) -> Result<Option<Emulator>, Failure> {
    if plan.remote.kind != RemoteKind::Demo {
        return Ok(None);
    }
    let directory = plan.paths.state_dir.join("server");
    demo::start(&directory).map(Some).map_err(|e| {
        let cause = std::error::Error::source(&e)
            .map(|s| format!(": {s}"))
            .unwrap_or_default();
        Failure::State {
            path: directory,
            reason: format!("{e}{cause}"),
        }
    })
}

pub(super) fn open_api(plan: &Plan, store: &Store, base_url: Option<Url>) -> Result<Api, Failure> {
    let settings = &plan.settings;
    let defaults = ApiConfig::default();
    let config = ApiConfig {
        base_url: base_url.unwrap_or_else(|| defaults.base_url.clone()),
        ca_cert: settings.ca_cert.clone(),
        // The demo's server is this process: what leads out of the machine does not lead to it.
        proxy: match plan.remote.kind {
            RemoteKind::Demo => Some(String::new()),
            _ => settings.proxy.clone(),
        },
        timeout: settings.timeout.0,
        transfer_tls: settings.transfer_tls,
        cloudraid: settings.cloudraid,
        calls_per_1000_s: Some(settings.api_rate.0).filter(|rate| *rate > 0),
        client_id: client_id(store).map_err(|e| translate::store(plan, &e))?,
        ..defaults
    };
    let origin = config.base_url.origin().ascii_serialization();
    env_vars::check_proxies(config.proxy.as_deref())
        .and_then(|()| Api::new(config))
        .map_err(|e| translate::api(plan, &origin, &e))
}

/// Our client id: made once, so that packets of earlier runs are still known as ours.
fn client_id(store: &Store) -> Result<String, StoreError> {
    if let Some(id) = store.meta(CLIENT_ID)? {
        return Ok(id);
    }
    let mut bytes = [0u8; 10];
    getrandom::fill(&mut bytes)?;
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef";
    let id: String = bytes
        .iter()
        .filter_map(|byte| alphabet.get(usize::from(*byte) % alphabet.len()))
        .map(|letter| char::from(*letter))
        .collect();
    store.write(|tx| tx.meta_set(CLIENT_ID, &id))?;
    Ok(id)
}

/// Whether the last of several entries of one name has it. Numbers that were given by the other rule are taken
/// away. A command without a mount follows the rule of the last mount: names must not change for it.
fn has_newest(plan: &Plan, store: &Store) -> Result<bool, StoreError> {
    let was_newest = store.meta(DUPLICATES)?.as_deref() == Some(NEWEST);
    if plan.mountpoint.as_os_str().is_empty() {
        return Ok(was_newest);
    }
    let is_newest = plan.settings.duplicates == Duplicates::Newest;
    if is_newest != was_newest {
        store.write(|tx| {
            tx.clear_suffixes()?;
            tx.meta_set(DUPLICATES, if is_newest { NEWEST } else { "" })
        })?;
    }
    Ok(is_newest)
}

fn vfs_config(plan: &Plan, newest: bool) -> VfsConfig {
    let settings = &plan.settings;
    let umask = settings.umask.unwrap_or(plan.umask).0;
    let naming = mega_vfs::Naming {
        normalize: settings.normalize,
        ignore_case: settings.ignore_case,
        newest,
    };
    VfsConfig {
        naming,
        read_only: settings.read_only,
        uid: settings
            .uid
            .unwrap_or_else(|| rustix::process::getuid().as_raw()),
        gid: settings
            .gid
            .unwrap_or_else(|| rustix::process::getgid().as_raw()),
        file_perm: settings.file_perms.0 & !umask,
        dir_perm: settings.dir_perms.0 & !umask,
        hard_delete: settings.hard_delete,
        versions: match settings.versions {
            VersionsMode::Keep => mega_vfs::Versions::Keep,
            VersionsMode::Replace => mega_vfs::Versions::Replace,
        },
        write_back: settings.write_back.0,
        write_back_max: settings.write_back_max.0.max(settings.write_back.0),
        // The kernel knows an entry by each name that found it, and is told of the end of one.
        attr_ttl: if naming.is_exact() {
            settings.attr_timeout.0
        } else {
            Duration::ZERO
        },
        fsync: match settings.fsync {
            FsyncMode::Disk => mega_vfs::FsyncMode::Disk,
            FsyncMode::Cloud => mega_vfs::FsyncMode::Cloud,
        },
        uploads: usize::from(settings.uploads),
        timeout: settings.timeout.0,
        sub_path: plan.sub_path.clone(),
        entry_budget: usize::try_from(settings.memory.0 / 4 / ENTRY_BYTES).unwrap_or(usize::MAX),
        loading: Arc::default(),
    }
}

/// Three quarters of the memory are for transfers, the rest is for directories.
fn limits(plan: &Plan) -> TransferLimits {
    let settings = &plan.settings;
    TransferLimits {
        streams: usize::from(settings.streams),
        memory: MemoryBudget::new(settings.memory.0 / 4 * 3),
        timeout: settings.timeout.0,
        verify: match settings.verify {
            VerifyMode::Background => Verify::Background,
            VerifyMode::BeforeRead => Verify::BeforeRead,
            VerifyMode::Off => Verify::Off,
        },
        ..TransferLimits::default()
    }
}

/// Mounts `vfs` and waits until it answers.
async fn attach(
    plan: &Plan,
    vfs: &Arc<Vfs>,
) -> Result<(Attachment, ManuallyDrop<BackgroundSession>), Failure> {
    let failed = |e: std::io::Error| translate::mount(plan, &e);
    let deadline = plan.settings.timeout.0 + LAST_DEADLINE;
    let (adaptor, ended) = Adaptor::new(Arc::clone(vfs), Handle::current(), deadline);
    let (path, config) = (plan.mountpoint.clone(), fuse_config(plan));
    let told = Arc::clone(vfs);
    let mounting = tokio::task::spawn_blocking(move || {
        let session = Session::new(adaptor, path, &config)?;
        // Before the first question: whatever the kernel has been answered, it hears of changes to it.
        told.set_notifier(Arc::new(Notices::new(session.notifier())));
        session.spawn()
    });
    let session = mounting.await.map_err(std::io::Error::other).flatten();
    // From here on the attachment takes the mount off, also when this future is dropped.
    let session = ManuallyDrop::new(session.map_err(failed)?);
    let attachment = Attachment::at(&plan.mountpoint, ended).map_err(failed)?;
    // The kernel is told how we are before `Session::new` returns. It is not asked through the mount: a thread of
    // ours that waits for an answer of ours keeps the process, and the mount with it, when we are killed.
    let root = statx(
        CWD,
        &plan.mountpoint,
        AtFlags::STATX_DONT_SYNC,
        StatxFlags::INO,
    );
    let root = root.map_err(|errno| failed(errno.into()))?;
    let device = rustix::fs::makedev(root.stx_dev_major, root.stx_dev_minor);
    if device != attachment.device() || root.stx_ino != fuser::INodeNo::ROOT.0 {
        return Err(failed(std::io::Error::other(
            "something else is mounted there now",
        )));
    }
    Ok((attachment, session))
}

/// What commands are told of the configuration; none when it does not say whose account this is.
fn configuration(plan: &Plan) -> Option<Configuration> {
    let file = paths::resolved(plan.remote.file.as_deref()?);
    Some(Configuration {
        file: file.to_str()?.to_owned(),
        uploads: plan.settings.uploads,
        is_link: plan.link().is_some(),
    })
}

fn fuse_config(plan: &Plan) -> fuser::Config {
    let settings = &plan.settings;
    let mut config = fuser::Config::default();
    config.mount_options = vec![
        MountOption::FSName(match &settings.fsname {
            Some(name) => mountpoint::table_name(name),
            None => mountpoint::source_name(&plan.remote.name),
        }),
        // Not MountOption::Subtype, which a direct mount by root would leave out.
        MountOption::CUSTOM(format!("subtype={}", mountpoint::SUBTYPE)),
        MountOption::DefaultPermissions,
        MountOption::NoSuid,
        MountOption::NoDev,
        if settings.read_only {
            MountOption::RO
        } else {
            MountOption::RW
        },
    ];
    config.acl = match (settings.allow_other, settings.allow_root) {
        (true, _) => SessionACL::All,
        (false, true) => SessionACL::RootAndOwner,
        (false, false) => SessionACL::Owner,
    };
    config.n_threads = Some(KERNEL_LOOPS);
    config.clone_fd = true;
    config
}
