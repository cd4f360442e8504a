//! Owns the running server: listener, threads, the one lock around the state, pacing, shutdown.
//!
//! Lock order: `state` may be held while `tally`, fault or pacer locks are taken, never the other
//! way round. Nothing sleeps or talks to a socket while holding `state`; long polls wait on the
//! condition variable, which releases it.

use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::buffers::Buffers;
use crate::config::{EmulatorConfig, EmulatorError, Knobs};
use crate::counters::{Counters, Tally};
use crate::cs::ReplyCache;
use crate::faults::FaultControl;
use crate::state::State;

/// When the next byte may pass.
#[derive(Debug, Default)]
pub(crate) struct Pacer(Option<Instant>);

impl Pacer {
    fn reserve(&mut self, rate: u64, n: u64) -> Instant {
        let now = Instant::now();
        let start = self.0.map_or(now, |t| t.max(now));
        let next = start + Duration::from_secs_f64(n as f64 / rate as f64);
        self.0 = Some(next);
        next
    }
}

/// Caps of one direction, bytes per second, 0 = none.
#[derive(Debug, Default)]
pub(crate) struct Line {
    per_connection: AtomicU64,
    total: AtomicU64,
    shared: Mutex<Pacer>,
}

impl Line {
    /// How many of `n` bytes to move at once so that caps act smoothly.
    pub(crate) fn slice(&self, n: u64) -> u64 {
        let rates = [&self.per_connection, &self.total].map(|r| r.load(Ordering::Relaxed));
        rates
            .into_iter()
            .filter(|r| *r > 0)
            .fold(n, |n, r| n.min((r / 50).clamp(1, 64 << 10)))
    }

    /// Waits until `n` more bytes were allowed.
    pub(crate) fn wait(&self, own: &mut Pacer, n: u64) {
        let mut until = None;
        let rate = self.per_connection.load(Ordering::Relaxed);
        if rate > 0 {
            until = Some(own.reserve(rate, n));
        }
        let rate = self.total.load(Ordering::Relaxed);
        if rate > 0 {
            let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            until = until.max(Some(shared.reserve(rate, n)));
        }
        if let Some(t) = until {
            std::thread::sleep(t.saturating_duration_since(Instant::now()));
        }
    }
}

/// Everything the connection threads share.
pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    /// Signalled after every change and at shutdown.
    pub(crate) changed: Condvar,
    pub(crate) knobs: RwLock<Knobs>,
    pub(crate) tally: Tally,
    pub(crate) faults: FaultControl,
    pub(crate) cache: Mutex<ReplyCache>,
    /// Hashcash tokens handed out.
    pub(crate) challenges: Mutex<HashSet<String>>,
    /// Challenges that must be solved: (session, request id) to easiness.
    pub(crate) demanded: Mutex<HashMap<(String, String), u8>>,
    /// State-changing `/cs` requests in progress per session: their ids.
    pub(crate) outstanding: Mutex<HashMap<String, Vec<String>>>,
    /// File attributes (thumbnails) by raw handle.
    pub(crate) thumbnails: Mutex<HashMap<[u8; 8], Vec<u8>>>,
    /// For bodies of pieces.
    pub(crate) buffers: Buffers,
    /// Download URLs of an older epoch answer 403.
    pub(crate) url_epoch: AtomicU64,
    pub(crate) base_url: String,
    pub(crate) up: Line,
    pub(crate) down: Line,
    connections: Mutex<HashMap<u64, TcpStream>>,
    stop: AtomicBool,
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn knobs(&self) -> Knobs {
        self.knobs
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Changes the settings; nobody else changes them meanwhile.
    pub(crate) fn update_knobs(&self, change: impl FnOnce(&mut Knobs)) {
        let set = |line: &Line, per: u64, total: u64| {
            line.per_connection.store(per, Ordering::Relaxed);
            line.total.store(total, Ordering::Relaxed);
        };
        let mut knobs = self.knobs.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut knobs);
        set(&self.up, knobs.up_per_connection, knobs.up_total);
        set(&self.down, knobs.down_per_connection, knobs.down_total);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sleeps, but not beyond shutdown.
    pub(crate) fn pause(&self, length: Duration) {
        let end = Instant::now() + length;
        while !self.is_stopped() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts every open connection but one.
    pub(crate) fn cut_connections(&self, except: Option<u64>) {
        for (id, stream) in &*self.connections() {
            if Some(*id) != except {
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        }
    }

    /// The counters now.
    pub(crate) fn counters(&self) -> Counters {
        let mut counters = self.tally.lock().clone();
        counters.journal_error = self.state().journal.error.clone();
        counters
    }
}

/// A running emulator. Dropping it closes all connections and stops its threads.
pub struct Emulator {
    pub(crate) shared: Arc<Shared>,
    address: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Emulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emulator")
            .field("url", &self.shared.base_url)
            .finish_non_exhaustive()
    }
}

impl Emulator {
    /// Binds, opens the state and starts serving on threads of its own.
    pub fn start(config: EmulatorConfig) -> Result<Self, EmulatorError> {
        let listen = config.listen;
        let failed = |source| EmulatorError::Listen {
            address: listen,
            source,
        };
        let listener = TcpListener::bind(listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let state = State::open(config.data_dir.as_deref(), config.seed).map_err(|source| {
            EmulatorError::Data {
                path: config.data_dir.clone().unwrap_or_default(),
                source,
            }
        })?;
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            knobs: RwLock::default(),
            tally: Tally::default(),
            faults: FaultControl::new(config.seed),
            cache: Mutex::default(),
            challenges: Mutex::default(),
            demanded: Mutex::default(),
            outstanding: Mutex::default(),
            thumbnails: Mutex::default(),
            buffers: Buffers::default(),
            url_epoch: AtomicU64::new(1),
            base_url: config
                .public_url
                .unwrap_or_else(|| format!("http://{address}")),
            up: Line::default(),
            down: Line::default(),
            connections: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        shared.update_knobs(|k| *k = config.knobs);
        let acceptor = {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name("mega-emulator".into())
                .spawn(move || accept(&listener, &shared))?
        };
        Ok(Self {
            shared,
            address,
            acceptor: Some(acceptor),
        })
    }

    /// `http://ADDRESS:PORT` (or the configured public URL), without trailing slash.
    pub fn url(&self) -> String {
        self.shared.base_url.clone()
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has been counted since the start or the last reset.
    pub fn counters(&self) -> Counters {
        self.shared.counters()
    }

    /// Sets all counters to zero.
    pub fn reset_counters(&self) {
        *self.shared.tally.lock() = Counters::default();
    }

    /// The fault rules.
    pub fn faults(&self) -> &FaultControl {
        &self.shared.faults
    }

    /// The settings in force.
    pub fn knobs(&self) -> Knobs {
        self.shared.knobs()
    }

    /// Changes settings: `emulator.set(|k| k.latency_ms = 100)`.
    pub fn set(&self, change: impl FnOnce(&mut Knobs)) {
        self.shared.update_knobs(change);
    }

    /// Lets every download URL handed out so far expire (403).
    pub fn expire_urls(&self) {
        self.shared.url_epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets every upload URL handed out so far expire: the next piece answers -8. Uploads that
    /// are complete already keep their token.
    pub fn expire_uploads(&self) {
        self.shared.state().expire_uploads();
    }

    /// Lets every upload token that was not used yet expire: `p` with it answers -8.
    pub fn expire_tokens(&self) {
        self.shared.state().expire_tokens();
    }

    /// Cuts every connection that is open now, as a network failure would.
    pub fn cut_connections(&self) {
        self.shared.cut_connections(None);
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Requests that are held go on.
        self.shared.faults.clear();
        {
            // Taken so that no long poll misses the signal between its check and its wait.
            let _state = self.shared.state();
            self.shared.changed.notify_all();
        }
        // Wakes the acceptor.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        self.shared.cut_connections(None);
        // Requests in progress write to the data directory; give them a moment to finish.
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline && !self.shared.connections().is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut number = 0;
    loop {
        let accepted = listener.accept();
        if shared.is_stopped() {
            return;
        }
        let Ok((stream, _)) = accepted else {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        number += 1;
        let id = number;
        let Ok(copy) = stream.try_clone() else {
            continue;
        };
        shared.connections().insert(id, copy);
        shared.tally.lock().connections += 1;
        let served = shared.clone();
        let spawned = std::thread::Builder::new()
            .name("mega-emulator-io".into())
            .spawn(move || {
                // An error is the peer's or a deliberate fault; either way the connection is over.
                let _ = crate::http::serve(&served, &stream, id);
                served.connections().remove(&id);
            });
        if spawned.is_err() {
            shared.connections().remove(&id);
        }
    }
}
