//! Owns the settings an emulator starts with and its error type.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How to start an emulator. `Default` listens on a free loopback port and keeps all in memory.
#[derive(Clone, Debug)]
pub struct EmulatorConfig {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where state and content persist; `None` keeps them in memory.
    pub data_dir: Option<PathBuf>,
    /// URL clients reach the emulator at when it is not `http://ADDRESS` (a TLS front end); used
    /// for storage and wait URLs. No trailing slash.
    pub public_url: Option<String>,
    /// Makes handles, sessions and faults reproducible.
    pub seed: u64,
    /// Settings that can be changed while running.
    pub knobs: Knobs,
}

impl Default for EmulatorConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            data_dir: None,
            public_url: None,
            seed: 1,
            knobs: Knobs::default(),
        }
    }
}

impl EmulatorConfig {
    /// Memory mode with added latency per request.
    pub fn with_latency(latency: Duration) -> Self {
        let mut config = Self::default();
        config.knobs.latency_ms = latency.as_millis() as u64;
        config
    }
}

/// Settings that can be changed while running, by the library or `PATCH`ed over HTTP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Knobs {
    /// Added to every request before it is executed, in milliseconds.
    pub latency_ms: u64,
    /// Download cap per connection in bytes per second, 0 = none.
    pub down_per_connection: u64,
    /// Download cap of all connections together.
    pub down_total: u64,
    /// Upload cap per connection.
    pub up_per_connection: u64,
    /// Upload cap of all connections together.
    pub up_total: u64,
    /// Check file MACs at `p` (reads each uploaded file once).
    pub mac_check: bool,
    /// Keep what is uploaded from now on. Without it a piece is forgotten once it was checked: the file
    /// has its size and key, downloads of it answer 404, and its MAC is not checked.
    pub keep_content: bool,
    /// Demand hashcash of this easiness (0 to 255) for `us0`, `us` and requests without session.
    pub hashcash: Option<u8>,
    /// Files of at least this size are served as CloudRAID when asked with `v:2`.
    pub raid_min_size: Option<u64>,
    /// Packets per event reply (a change is never cut).
    pub events_per_reply: usize,
    /// How long wait URLs and `/wsc` are held, in milliseconds.
    pub hold_ms: u64,
    /// Quota of new accounts in bytes.
    pub quota: u64,
    /// How long upload URLs live before pieces answer -8, in milliseconds.
    pub upload_life_ms: Option<u64>,
    /// How long a token may wait for its `p` before that answers -8, in milliseconds.
    pub token_life_ms: Option<u64>,
    /// How long download URLs live before they answer 403, in milliseconds.
    pub download_life_ms: Option<u64>,
    /// Transfer quota left in bytes; `g` and downloads beyond it fail until it is raised.
    pub transfer_left: Option<u64>,
    /// Seconds reported as wait for transfer quota.
    pub transfer_wait: u64,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            latency_ms: 0,
            down_per_connection: 0,
            down_total: 0,
            up_per_connection: 0,
            up_total: 0,
            mac_check: true,
            keep_content: true,
            hashcash: None,
            raid_min_size: None,
            events_per_reply: 100,
            hold_ms: 35_000,
            quota: 20 << 30,
            upload_life_ms: None,
            token_life_ms: None,
            download_life_ms: None,
            transfer_left: None,
            transfer_wait: 3600,
        }
    }
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// The address could not be bound.
    #[error("cannot listen on {address}")]
    Listen {
        /// The wanted address.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The data directory could not be used.
    #[error("cannot use the data directory {path}")]
    Data {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A thread could not be started or content not stored.
    #[error("input or output failed")]
    Io(#[from] std::io::Error),
    /// A request to the library or control interface makes no sense.
    #[error("{0}")]
    Invalid(String),
}
