//! The handle everything hangs on. The calls themselves are in the modules beside this one.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::Semaphore;

use crate::bandwidth::{Bandwidth, Budgets};
use crate::config::ApiConfig;
use crate::error::ApiError;
use crate::http::Http;
use crate::joint::Joint;
use crate::request_id::RequestIds;
use crate::session::Sessions;
use crate::traffic::{Counters, Traffic};

/// How many read-only requests may be under way beside the one that changes state (`protocol/01` section 2).
const READERS: usize = 4;

/// A client of one account. Cheap to clone; all clones are the same client.
#[derive(Clone)]
pub struct Api(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: ApiConfig,
    pub(crate) http: Http,
    pub(crate) ids: RequestIds,
    pub(crate) sessions: Sessions,
    /// Held by the one state-changing request under way; fair, so first come, first served.
    pub(crate) writer: tokio::sync::Mutex<()>,
    pub(crate) readers: Semaphore,
    pub(crate) joint: Joint,
    /// Until when the service has no transfer quota for us.
    pub(crate) no_downloads_before: Mutex<Option<Instant>>,
    pub(crate) budgets: Budgets,
    pub(crate) counters: Counters,
    /// Seconds that our clock was ahead of the service's.
    pub(crate) clock_skew: Mutex<Option<i64>>,
}

impl Api {
    /// Sets up the HTTP clients. Connects to nothing.
    ///
    /// # Errors
    /// [`ApiError::Config`] if the proxy, the certificate or the address cannot be used.
    pub fn new(config: ApiConfig) -> Result<Self, ApiError> {
        let http = Http::new(&config)?;
        let ids = RequestIds::new().map_err(|_| ApiError::Internal("no randomness"))?;
        let budgets = Budgets::default();
        budgets.calls.set(config.calls_per_1000_s);
        Ok(Self(Arc::new(Inner {
            config,
            http,
            ids,
            sessions: Sessions::default(),
            writer: tokio::sync::Mutex::new(()),
            readers: Semaphore::new(READERS),
            joint: Joint::default(),
            no_downloads_before: Mutex::new(None),
            budgets,
            counters: Counters::default(),
            clock_skew: Mutex::new(None),
        })))
    }

    /// Limits what transfers use of the line from now on, those under way too.
    pub fn set_bandwidth(&self, bandwidth: Bandwidth) {
        self.0.budgets.set(bandwidth);
    }

    /// The limits that hold.
    #[must_use]
    pub fn bandwidth(&self) -> Bandwidth {
        self.0.budgets.get()
    }

    /// What was said and moved so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.0.counters.so_far()
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &ApiConfig {
        &self.0.config
    }

    /// Our `i`.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.0.config.client_id
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("base_url", &self.0.http.origin())
            .finish_non_exhaustive()
    }
}
