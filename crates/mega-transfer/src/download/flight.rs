//! One connection's work: a run of units fetched by ranged requests until it is complete or hopeless.
//!
//! Owns a contiguous run of units of one file. Promises that every unit it brings has its full length,
//! that bytes received before a failure are not asked for again, and that it always lands: whatever
//! happens to its task, the units it did not bring become absent and waiting readers are woken. Never
//! decides what is needed; `file` launches it.

use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use mega_store::UNIT;
use tokio::time::{Instant, timeout};

use super::file::RemoteFile;
use super::origin::Origin;
use super::striped;
use super::trouble::{Remedy, Trouble};
use super::units::FlightKind;
use crate::error::TransferError;
use crate::limits::patience_at;

/// Memory of one flight: the unit being filled, the unit being stored, and what the connection holds.
const BUFFERS: u64 = 4 * UNIT;
/// A unit that takes this many times the stall limit comes over a crawling connection: replace it.
const CRAWL: u32 = 3;
/// Transfer quota that is there again so soon is waited for.
const GRACE: Duration = Duration::from_secs(2);
/// Consecutive failures without a byte after which a flight somebody waits for ends.
const DEMAND_ATTEMPTS: u32 = 8;
/// The same for read-ahead: whoever comes to need the bytes tries again.
const AHEAD_ATTEMPTS: u32 = 3;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Flight {
    /// Unique within the file.
    pub(crate) id: u64,
    start: u64,
    end: AtomicU64,
    position: AtomicU64,
    started: AtomicBool,
    kind: FlightKind,
    outcome: OnceLock<TransferError>,
}

impl Flight {
    pub(crate) fn new(id: u64, units: Range<u64>, kind: FlightKind) -> Self {
        Self {
            id,
            start: units.start,
            end: AtomicU64::new(units.end),
            position: AtomicU64::new(units.start),
            started: AtomicBool::new(false),
            kind,
            outcome: OnceLock::new(),
        }
    }

    /// The units it still stands for.
    pub(crate) fn units(&self) -> Range<u64> {
        self.start..self.end.load(Ordering::Acquire).max(self.start)
    }

    /// The unit being received.
    pub(crate) fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    pub(crate) fn is_ahead(&self) -> bool {
        matches!(self.kind, FlightKind::Ahead(_))
    }

    pub(crate) fn has_started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    pub(crate) fn start(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// Ends the flight before `unit`; answers its former end.
    pub(crate) fn cut(&self, unit: u64) -> u64 {
        self.end.fetch_min(unit, Ordering::AcqRel)
    }

    /// Why it ended without all of its units; `None` while flying and after success.
    pub(crate) fn error(&self) -> Option<&TransferError> {
        self.outcome.get()
    }

    async fn cancelled(&self) {
        match &self.kind {
            FlightKind::Demand => std::future::pending().await,
            FlightKind::Ahead(token) => token.cancelled().await,
        }
    }
}

/// Lands the flight however its task ends.
struct Landing<'a> {
    file: &'a Arc<RemoteFile>,
    flight: &'a Flight,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.file.landed(self.flight);
    }
}

/// Runs a flight to its end. The task's future.
pub(crate) async fn fly(file: Arc<RemoteFile>, flight: Arc<Flight>) {
    let _landing = Landing {
        file: &file,
        flight: &flight,
    };
    let result = tokio::select! {
        biased;
        () = flight.cancelled() => Err(TransferError::Cancelled),
        result = fetch(&file, &flight) => result,
    };
    if let Err(error) = result {
        if !matches!(error, TransferError::Cancelled) {
            tracing::debug!(node = %file.handle(), units = ?flight.units(), %error, "fetch ended");
        }
        // Set once, by this task only.
        let _ = flight.outcome.set(error);
    }
}

async fn fetch(file: &Arc<RemoteFile>, flight: &Flight) -> Result<(), TransferError> {
    let shared = file.shared();
    // Whether this one is striped is not known before its address.
    let parts = if shared.api.config().cloudraid {
        striped::BUFFERS
    } else {
        0
    };
    let _permits = if flight.is_ahead() {
        (
            shared.lanes.ahead().await,
            shared.limits.memory.background(BUFFERS + parts).await,
        )
    } else {
        let bytes = (flight.units().end.saturating_sub(flight.start) * UNIT).min(BUFFERS);
        (
            shared.lanes.demand().await,
            shared.limits.memory.demand(bytes + parts).await,
        )
    };
    flight.start();
    let attempts = if flight.is_ahead() {
        AHEAD_ATTEMPTS
    } else {
        DEMAND_ATTEMPTS
    };
    let mut run = Run {
        file,
        flight,
        offset: flight.start * UNIT,
        partial: BytesMut::new(),
    };
    let mut failures = 0;
    let mut spent_url = None;
    loop {
        shared.quota.check()?;
        let before = run.offset;
        let url = file.url(spent_url).await?;
        let trouble = match run.receive(&url.origin).await {
            Ok(()) => return Ok(()),
            Err(trouble) => trouble,
        };
        failures = if run.offset > before { 1 } else { failures + 1 };
        tracing::debug!(node = %file.handle(), offset = run.offset, failures, %trouble, "range failed");
        match trouble.remedy(failures, attempts) {
            Remedy::Quota(until) => {
                file.url_spent(url.generation).await;
                let is_soon = until <= std::time::Instant::now() + GRACE;
                if is_soon && !flight.is_ahead() && failures < attempts {
                    tokio::time::sleep_until(until.into()).await;
                } else {
                    shared.quota.shut(until);
                    return Err(TransferError::OverQuota { until });
                }
            }
            Remedy::GiveUp => return Err(trouble.into_error()),
            Remedy::Retry { delayed, fresh_url } => {
                spent_url = fresh_url.then_some(url.generation);
                if delayed {
                    tokio::time::sleep(trouble.delay(&shared.limits, failures)).await;
                }
            }
        }
    }
}

/// The state of one flight between requests.
struct Run<'a> {
    file: &'a Arc<RemoteFile>,
    flight: &'a Flight,
    /// The next byte to ask for.
    offset: u64,
    /// The bytes of the unit before `offset`.
    partial: BytesMut,
}

impl Run<'_> {
    /// The byte after the last one wanted now; it may move down while flying.
    fn end(&self) -> u64 {
        (self.flight.units().end * UNIT).min(self.file.size())
    }

    /// One request from `offset` to the end.
    async fn receive(&mut self, origin: &Arc<Origin>) -> Result<(), Trouble> {
        let end = self.end();
        if self.offset >= end {
            return Ok(());
        }
        let shared = self.file.shared();
        let stall = shared.limits.stall * patience_at(shared.api.bandwidth().down);
        let request = origin.get(&shared.api, self.file.size(), self.offset..end, stall);
        let mut body = Box::pin(stalled(stall, request).await??);
        let mut unit_begun = Instant::now();
        loop {
            let chunk = match stalled(stall, body.next()).await? {
                Some(chunk) => chunk?,
                None if self.offset >= self.end() => return Ok(()),
                None => return Err(Trouble::Short),
            };
            let before = self.flight.position();
            self.take(chunk).await;
            if self.offset >= self.end() {
                return Ok(());
            }
            if self.flight.position() != before {
                unit_begun = Instant::now();
            } else if unit_begun.elapsed() > stall * CRAWL {
                return Err(Trouble::Stalled);
            }
        }
    }

    /// Cuts received bytes into units and hands over the complete ones.
    async fn take(&mut self, mut chunk: Bytes) {
        while !chunk.is_empty() {
            let unit = self.offset / UNIT;
            let unit_end = ((unit + 1) * UNIT).min(self.file.size());
            let missing = usize::try_from(unit_end - self.offset).unwrap_or(usize::MAX);
            let part = chunk.split_to(missing.min(chunk.len()));
            if part.is_empty() {
                return; // More bytes than the file has.
            }
            self.offset += part.len() as u64;
            if self.partial.is_empty() {
                self.partial.reserve(missing);
            }
            // Copied even when the part is a whole unit: a slice would keep the connection's larger
            // buffer alive for as long as the unit is kept.
            self.partial.extend_from_slice(&part);
            if self.offset < unit_end {
                continue;
            }
            let data = std::mem::take(&mut self.partial).freeze();
            self.flight.position.store(unit + 1, Ordering::Release);
            if unit >= self.flight.units().end {
                return;
            }
            self.file.unit_arrived(self.flight, unit, data).await;
        }
    }
}

/// The future's output unless it takes longer than the stall limit.
async fn stalled<F: Future>(limit: Duration, future: F) -> Result<F::Output, Trouble> {
    timeout(limit, future).await.map_err(|_| Trouble::Stalled)
}
