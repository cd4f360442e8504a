//! Reading: ranged, parallel, cached, verified.
//!
//! [`Downloads`] owns what all files share (connections, memory, the quota gate) and hands out one
//! [`RemoteFile`] per node for as long as anybody holds it.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use mega_api::Api;
use mega_crypto::FileKey;
use mega_proto::NodeHandle;
use mega_store::Store;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::TransferLimits;

mod audit;
mod cursor;
mod file;
mod flight;
mod habit;
mod lanes;
mod origin;
mod pool;
mod prefetch;
mod quota;
mod remote;
mod span;
mod striped;
mod trouble;
mod units;
mod url;
mod url_book;
mod whole;

pub use cursor::ReadCursor;
pub use file::RemoteFile;

/// A file of the server: where it is and what opens it.
#[derive(Debug, Clone)]
pub struct RemoteSource {
    /// The node.
    pub handle: NodeHandle,
    /// Its size in bytes.
    pub size: u64,
    /// Its key.
    pub key: FileKey,
}

/// All downloads of a process.
#[derive(Debug)]
pub struct Downloads {
    shared: Arc<Shared>,
}

/// What the files share.
#[derive(Debug)]
pub(crate) struct Shared {
    api: Api,
    store: Arc<Store>,
    limits: TransferLimits,
    runtime: Handle,
    pool: pool::UnitPool,
    quota: quota::QuotaGate,
    lanes: lanes::Lanes,
    urls: url_book::UrlBook,
    prefetch: prefetch::Prefetch,
    habit: Arc<habit::Habit>,
    /// Pieces of files on disk that are checked at a time: more than there are processors take memory only.
    checks: Arc<Semaphore>,
    // Innermost lock: nothing else is taken while it is held.
    open: Mutex<HashMap<NodeHandle, Weak<RemoteFile>>>,
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

impl Shared {
    /// A turn to check a piece of a file on disk.
    async fn check_turn(&self) -> OwnedSemaphorePermit {
        let turn = Arc::clone(&self.checks).acquire_owned().await;
        turn.expect("the turns are never closed")
    }

    fn open_file(self: &Arc<Self>, source: RemoteSource) -> Arc<RemoteFile> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = source.handle;
        if let Some(file) = open.get(&handle).and_then(Weak::upgrade) {
            return file;
        }
        // Entries of files nobody holds cost nothing but their place; clear them out now and then.
        if open.len() >= 64 && open.len().is_power_of_two() {
            open.retain(|_, file| file.strong_count() > 0);
        }
        let file = Arc::new(RemoteFile::new(source, Arc::clone(self)));
        open.insert(handle, Arc::downgrade(&file));
        file
    }
}

impl Downloads {
    /// Must be called inside the tokio runtime that is to do the work.
    #[must_use]
    pub fn new(api: Api, store: Arc<Store>, limits: TransferLimits) -> Self {
        let pool = pool::UnitPool::new(limits.memory.pool());
        let lanes = lanes::Lanes::new(limits.connections());
        let shared = Shared {
            api,
            store,
            limits,
            runtime: Handle::current(),
            pool,
            quota: quota::QuotaGate::default(),
            lanes,
            urls: url_book::UrlBook::default(),
            prefetch: prefetch::Prefetch::default(),
            habit: Arc::default(),
            checks: Arc::new(Semaphore::new(processors())),
            open: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The file, shared with everybody who holds it already. Asks nothing of anybody.
    #[must_use]
    pub fn open(&self, source: RemoteSource) -> Arc<RemoteFile> {
        self.shared.prefetch_arrived_at(source.handle);
        self.shared.open_file(source)
    }

    /// These files will probably be read next, in this order: their URLs are asked for in one request, and
    /// small ones are fetched as far as a small budget goes. Returns at once; failures are nobody's.
    pub fn prefetch(&self, sources: Vec<RemoteSource>) {
        self.shared.prefetch(sources);
    }

    /// When the server may be asked for bytes again, while the transfer quota is exhausted.
    #[must_use]
    pub fn over_quota_until(&self) -> Option<std::time::Instant> {
        self.shared.quota.until()
    }
}
