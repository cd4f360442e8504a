//! Bringing a mount up: local state first, the network only when there is no local state.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};

use lru::LruCache;
use mega_api::{Api, ApiError, PublicLink};
use mega_crypto::KeyRing;
use mega_store::{Store, StoreError, Subject};
use mega_transfer::{Downloads, TransferLimits, Uploads};
use mega_tree::Decryptor;
use mega_tree::node::Shape;
use rustix::io::Errno;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::Vfs;
use crate::ahead::Ahead;
use crate::changes::Changes;
use crate::inode::Inodes;
use crate::link::Shaper;
use crate::listed::Listed;
use crate::ops::Space;
use crate::remote::OwnPackets;
use crate::remote::currency::Currency;
use crate::shared::Shared;
use crate::state::{META_QUOTA, Quota, State};
use crate::status::Monitor;
use crate::types::{Timestamp, VfsConfig};
use crate::walk::Walks;

/// Nodes whose parent is remembered.
const PARENTS: NonZeroUsize = NonZeroUsize::new(1 << 10).unwrap();

/// Why a mount could not be brought up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder to mount does not exist.
    #[error("{0} does not exist on this account")]
    NotFound(String),
    /// The path to mount is a file.
    #[error("{0} is a file, not a folder")]
    NotADirectory(String),
    /// The server refused or could not be reached.
    #[error("{0}")]
    Api(#[from] ApiError),
    /// The local state failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The account has no root folder: the tree as served is unusable.
    #[error("the server's tree has no root folder")]
    NoRoot,
    /// Another failure of the local view.
    #[error("local state: {0}")]
    Local(Errno),
}

impl Vfs {
    /// Brings an account up, or a public link, which is read-only. The session must be installed in `api`, or the
    /// link visited; the store pinned and unlocked.
    /// Answers from local state at once when there is any, and catches up in the background.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(
        store: Arc<Store>,
        api: Api,
        config: VfsConfig,
        limits: TransferLimits,
    ) -> Result<Arc<Self>, StartError> {
        let is_first = store.roots()?.is_none() || store.seqno()?.is_none();
        if is_first {
            crate::tree_load::load(&store, &api, &config.loading).await?;
        }
        let roots = store.roots()?.ok_or(StartError::NoRoot)?;
        let (decryptor, shares) = match api.link() {
            Some(link) => (Arc::new(link_decryptor(&store, link)?), None),
            None => {
                let (decryptor, shares) = account_decryptor(&store, &api)?;
                (Arc::new(decryptor), Some(shares))
            }
        };
        let mut config = config;
        config.read_only |= api.link().is_some();
        let config = Arc::new(config);
        crate::catalog::drop_partials(&store)?;
        crate::aside::set_aside(&store)?;
        let mut changes = Changes::new(store.changes()?);
        crate::push::take_up_journal(&store, &mut changes)?;
        store
            .doomed()?
            .into_iter()
            .for_each(|handle| changes.doom(handle));
        let root = Subject::Node(roots.cloud);
        let mut state = State {
            store: Arc::clone(&store),
            decryptor: Arc::clone(&decryptor),
            config: Arc::clone(&config),
            roots,
            root,
            dirs: LruCache::unbounded(),
            loaded_entries: 0,
            uses: (0, 0),
            changes,
            inodes: Inodes::new(root),
            files: std::collections::HashMap::new(),
            handles: crate::handles::Handles::default(),
            dir_times: std::collections::HashMap::new(),
            recreated: std::collections::HashMap::new(),
            own: OwnPackets::new(api.client_id().to_owned()),
            put_over: std::collections::HashMap::new(),
            lost: std::collections::HashMap::new(),
            quota: store.meta(META_QUOTA)?.and_then(|text| Quota::parse(&text)),
            walks: Walks::default(),
            ahead: Ahead::default(),
            parents: RefCell::new(LruCache::new(PARENTS)),
            is_replacing: false,
            listed: Listed::new(config.attr_ttl),
            started: Timestamp::now(),
            incoming: std::collections::HashMap::new(),
            contacts: std::collections::HashMap::new(),
            lacks_share_keys: false,
            keys_to_ask: std::collections::HashSet::new(),
            sharers: Vec::new(),
            zones: std::collections::HashMap::new(),
        };
        if let Some(shares) = shares {
            state.take_shares(&shares.rows);
            state.lacks_share_keys = shares.is_lacking;
        }
        let root = find_root(&mut state, &config.sub_path)?;
        state.root = root;
        state.inodes = Inodes::new(root);
        let shared = Arc::new(Shared {
            downloads: Downloads::new(api.clone(), Arc::clone(&store), limits.clone()),
            uploads: Uploads::new(api.clone(), Arc::clone(&store), limits),
            store,
            api,
            config,
            decryptor,
            state: Mutex::new(state),
            wake: Notify::new(),
            gate: tokio::sync::Mutex::new(()),
            keys_wanted: Notify::new(),
            currency: Currency::new(),
            is_channel_up: AtomicBool::new(false),
            is_tree_wanted: AtomicBool::new(false),
            notices: Mutex::new(None),
            monitor: Monitor::default(),
            status_source: OnceLock::new(),
            space: Space::default(),
            stop: CancellationToken::new(),
            is_closing: AtomicBool::new(false),
        });
        if is_first {
            // The server has just been asked for everything else.
            shared.refresh_quota().await;
        }
        let mut tasks = Vec::new();
        tasks.push(tokio::spawn(Arc::clone(&shared).follow_events()));
        if shared.api.link().is_none() {
            if shared.lock().lacks_share_keys {
                shared.keys_wanted.notify_one();
            }
            tasks.push(tokio::spawn(Arc::clone(&shared).follow_share_keys()));
        }
        if !shared.config.read_only {
            tasks.push(tokio::spawn(Arc::clone(&shared).push_changes()));
        }
        tasks.push(tokio::spawn(Arc::clone(&shared).keep_house(is_first)));
        Ok(Arc::new(Self {
            shared,
            tasks: Mutex::new(tasks),
        }))
    }
}

/// The keys of an account, with those of its shares.
fn account_decryptor(
    store: &Store,
    api: &Api,
) -> Result<(Decryptor, crate::share_keys::Loaded), StartError> {
    let session = api.session().ok_or(ApiError::NoSession)?;
    let mut ring = KeyRing::new(
        session.master_key.clone(),
        Some(session.user.to_string()),
        None,
    );
    ring.set_rsa(session.rsa.clone());
    let decryptor = Decryptor::new(ring);
    let shares = crate::share_keys::load(store, &decryptor, &session.master_key)?;
    Ok((decryptor, shares))
}

/// The one key of a link.
fn link_decryptor(store: &Store, link: Arc<PublicLink>) -> Result<Decryptor, StartError> {
    let key = link.key.share_key();
    let root = Shaper::new(link, store)?.root().ok_or(StartError::NoRoot)?;
    Ok(Decryptor::new(KeyRing::for_link(&root.to_string(), key)))
}

/// The subject of the folder that is to be the root.
fn find_root(state: &mut State, path: &str) -> Result<Subject, StartError> {
    let mut at = state.root;
    let mut walked = String::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        if !walked.is_empty() {
            walked.push('/');
        }
        walked.push_str(part);
        let found = state
            .find(at, part)
            .map_err(StartError::Local)?
            .ok_or_else(|| StartError::NotFound(walked.clone()))?;
        if found.facts.shape != Shape::Directory {
            return Err(StartError::NotADirectory(walked));
        }
        at = found.subject;
    }
    Ok(at)
}
