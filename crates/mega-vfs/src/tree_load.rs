//! Fetching the whole tree: the first start, and when the event position is too old.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mega_api::{Api, ApiError};
use mega_proto::TreeItem;
use mega_store::{Replaced, ShareKind, ShareRow, Store, StoreError};
use mega_tree::truth::{row_from_raw, share_from_raw};

use crate::link::Shaper;
use crate::remote::BREATH;
use crate::shared::Shared;
use crate::start::StartError;

/// How far a load of the whole tree is. It may be looked at from any thread, before there is a file system too.
#[derive(Debug, Default)]
pub struct Loading {
    is_running: AtomicBool,
    nodes: AtomicU64,
}

impl Loading {
    /// Files and folders that have come so far; none while nothing is loaded. How many will come is not known.
    #[must_use]
    pub fn nodes(&self) -> Option<u64> {
        self.is_running
            .load(Ordering::Acquire)
            .then(|| self.nodes.load(Ordering::Relaxed))
    }

    fn begin(&self) -> Running<'_> {
        self.nodes.store(0, Ordering::Relaxed);
        self.is_running.store(true, Ordering::Release);
        Running(self)
    }
}

/// Until dropped, something is loaded.
struct Running<'a>(&'a Loading);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.is_running.store(false, Ordering::Release);
    }
}

/// Streams the tree into the store in bounded memory; the old truth stays until all of it is there.
pub(crate) async fn load(
    store: &Arc<Store>,
    api: &Api,
    loading: &Arc<Loading>,
) -> Result<Option<Replaced>, StartError> {
    let mut shaper = match api.link() {
        Some(link) => Some(Shaper::new(link, store)?),
        None => None,
    };
    let me = api.session().map(|session| session.user);
    let running = loading.begin();
    let counter = Arc::clone(loading);
    let loader = Arc::new(std::sync::Mutex::new(Some(store.begin_load()?)));
    let (sink_loader, sink_store) = (Arc::clone(&loader), Arc::clone(store));
    let end = api
        .fetch_tree(move |item| {
            let mut guard = sink_loader
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let Some(loader) = guard.as_mut() else {
                return Ok(());
            };
            match item {
                TreeItem::Node(mut raw) => {
                    if let Some(shaper) = &mut shaper {
                        let is_known = shaper.root().is_some();
                        if let Some(root) = shaper.shape(&mut raw) {
                            loader.node(row_from_raw(&root))?;
                        }
                        if !is_known {
                            shaper.keep(&sink_store)?;
                        }
                    }
                    if let Some(share) = share_from_raw(&raw, me) {
                        loader.share(share)?;
                    }
                    loader.node(row_from_raw(&raw))?;
                    counter.nodes.fetch_add(1, Ordering::Relaxed);
                }
                TreeItem::OwnShareKey(key) => {
                    let mut share = ShareRow::new(key.handle, ShareKind::OwnKey, key.key);
                    share.extra = Some(key.ha);
                    loader.share(share)?;
                }
                TreeItem::User(user) => {
                    if let Some(address) = user.email {
                        loader.share(ShareRow::contact(user.handle, address))?;
                    }
                }
                _ => {}
            }
            Ok(())
        })
        .await?;
    let loader = loader
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .take();
    let sn = end
        .sn
        .ok_or(ApiError::BadReply("the tree came without a position"))?;
    let Some(loader) = loader else {
        return Ok(None);
    };
    let replaced = blocking(move || loader.finish(&sn)).await?;
    drop(running);
    Ok(Some(replaced))
}

/// Runs what takes long on a thread that may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StartError> {
    let result = tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| ApiError::Internal("the tree loader died"))?;
    Ok(result?)
}

impl Shared {
    /// The event position is too old: fetch everything, then show what changed.
    pub(crate) async fn refetch(&self) -> Result<(), StartError> {
        tracing::warn!("the event stream does not tell all that happened, fetching the tree again");
        // Nothing of ours may be sent between the request and the swap.
        let guard = self.gate.lock().await;
        let replaced = load(&self.store, &self.api, &self.config.loading).await?;
        let (told, lacks_keys) = {
            let mut state = self.lock();
            let told = self.reload_shares(&mut state);
            (told, state.lacks_share_keys)
        };
        if lacks_keys || told.is_err() {
            self.keys_wanted.notify_one();
        }
        // What the new tree has changed is shown all the same.
        match told {
            Ok(told) => self.notify(told),
            Err(errno) => tracing::error!(%errno, "share keys could not be used"),
        }
        self.adopt_known().map_err(StartError::Local)?;
        self.lock().own.forget_all();
        if let Some(replaced) = replaced {
            self.show_replaced(replaced).await?;
        }
        drop(guard);
        Ok(())
    }

    /// What an earlier run fetched and did not come to show: local changes may have lost their ground.
    pub(crate) async fn show_left_over(&self) -> Result<(), StartError> {
        let guard = self.gate.lock().await;
        if let Some(replaced) = self.store.left_over()? {
            self.show_replaced(replaced).await?;
        }
        drop(guard);
        Ok(())
    }

    /// Applies the difference of two trees as if packets had told it. Portions, so that nobody waits long.
    async fn show_replaced(&self, replaced: Replaced) -> Result<(), StartError> {
        self.lock().is_replacing = true;
        let shown = self.show_portions(replaced).await;
        {
            let mut state = self.lock();
            state.is_replacing = false;
            state.parents.get_mut().clear();
            state.changes.unstall();
        }
        let replaced = shown?;
        self.wake.notify_one();
        blocking(move || replaced.remove()).await
    }

    async fn show_portions(&self, mut replaced: Replaced) -> Result<Replaced, StartError> {
        let mut count = 0;
        loop {
            let (back, changed) = blocking(move || {
                let changed = replaced.changed()?;
                Ok((replaced, changed))
            })
            .await?;
            replaced = back;
            if changed.is_empty() {
                break;
            }
            count += changed.len();
            let told = self.lock().adopt_changed(changed);
            self.notify(told.map_err(StartError::Local)?);
            tokio::time::sleep(BREATH).await;
        }
        tracing::info!(count, "places that another tree has changed");
        Ok(replaced)
    }
}
