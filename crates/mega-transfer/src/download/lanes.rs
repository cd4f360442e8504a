//! The connections of all downloads together.
//!
//! Two lanes, so that a read somebody waits for never queues behind read-ahead.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections for reads somebody waits for.
const DEMAND: usize = 32;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Lanes {
    demand: Arc<Semaphore>,
    ahead: Arc<Semaphore>,
}

/// A place on a lane; left on drop.
#[derive(Debug)]
pub(crate) struct Lane(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Lanes {
    /// Lanes for files of up to `streams` connections each.
    pub(crate) fn new(streams: usize) -> Self {
        let ahead = (streams * 4).clamp(8, 64);
        Self {
            demand: Arc::new(Semaphore::new(DEMAND)),
            ahead: Arc::new(Semaphore::new(ahead)),
        }
    }

    pub(crate) async fn demand(&self) -> Lane {
        take(&self.demand).await
    }

    pub(crate) async fn ahead(&self) -> Lane {
        take(&self.ahead).await
    }
}

async fn take(lane: &Arc<Semaphore>) -> Lane {
    Lane(
        Arc::clone(lane)
            .acquire_owned()
            .await
            .expect("the lanes are never closed"),
    )
}
