//! One range of a striped file out of any five of its six parts (CloudRAID, protocol/04 section 4).
//!
//! Owns five requests at a time. Promises: the bytes come in order; while five parts answer, the sixth may
//! be missing, die or crawl without the reader's notice. It is told from the others only: a part for which
//! the other four have to wait most of the time is slow. A second part that fails ends the range. Nothing
//! here authenticates; a wrong part is found by the file's MAC.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use mega_api::{Api, CipherStream, StorageError};
use mega_crypto::raid::{LINE, PARTS, join, part_range, part_sizes};
use tokio::time::{Instant, timeout};

use super::origin::Origin;

/// Parts that are read at a time.
pub(super) const WIDTH: usize = PARTS - 1;
/// Bytes of a sector.
const SECTOR: usize = 16;
/// A part that has this much more than the slowest waits for it.
const HELD: usize = 64 << 10;
/// What all parts of one range hold together, the piece that comes on top of the others' 64 KiB included.
pub(super) const BUFFERS: u64 = 512 << 10;
/// A part that has sent nothing is not called slow before this.
const FIRST: Duration = Duration::from_millis(300);
/// One that has sent something is given this share of the stall limit.
const SHARE: u32 = 8;
/// How often the parts are compared.
const LOOK: Duration = Duration::from_millis(50);
/// After so many bytes what was seen of the parts is forgotten.
const COMPARED: u64 = 512 << 10;

/// Ciphertext of `range` of a file of `size` bytes, in order.
pub(super) fn read(
    api: &Api,
    origin: &Arc<Origin>,
    size: u64,
    range: Range<u64>,
    stall: Duration,
) -> CipherStream {
    let stripes = Stripes::open(api, origin, size, range, stall);
    let step = |mut stripes: Stripes| async move {
        let item = stripes.next().await.transpose()?;
        Some((item, stripes))
    };
    // Fused: an error or the end is the last item.
    stream::unfold(stripes, step).fuse().boxed()
}

/// One of the parts being read.
struct Lane {
    part: usize,
    body: CipherStream,
    /// What has come and was not handed out; begins with a line.
    held: BytesMut,
    /// How much is still to come.
    left: u64,
    /// Whether anything has come.
    has_come: bool,
    /// How long the others have waited for this one alone.
    awaited: Duration,
}

struct Stripes {
    api: Api,
    origin: Arc<Origin>,
    size: u64,
    /// What was asked for and not handed out yet.
    range: Range<u64>,
    /// Where the next line begins in the file.
    line: u64,
    /// Where the last line ends.
    end: u64,
    stall: Duration,
    lanes: Vec<Lane>,
    spare: Option<usize>,
    /// Since when the lanes are compared, and how much they have brought since.
    since: Instant,
    brought: u64,
    is_over: bool,
}

impl Stripes {
    fn open(
        api: &Api,
        origin: &Arc<Origin>,
        size: u64,
        range: Range<u64>,
        stall: Duration,
    ) -> Self {
        let end = range.end.min(size);
        let spare = origin.spare();
        let mut stripes = Self {
            api: api.clone(),
            origin: Arc::clone(origin),
            size,
            line: range.start / LINE * LINE,
            end: end.next_multiple_of(LINE).min(size),
            range: range.start..end,
            stall,
            lanes: Vec::with_capacity(WIDTH),
            spare: Some(spare),
            since: Instant::now(),
            brought: 0,
            is_over: false,
        };
        for part in (0..PARTS).filter(|part| *part != spare) {
            let lane = stripes.lane(part);
            stripes.lanes.push(lane);
        }
        stripes
    }

    /// Asks a part for everything from the next line on.
    fn lane(&self, part: usize) -> Lane {
        let most = part_sizes(self.size).get(part).copied().unwrap_or(0);
        let lines = part_range(&(self.line..self.end));
        let range = lines.start.min(most)..lines.end.min(most);
        let left = range.end - range.start;
        let (api, origin) = (self.api.clone(), Arc::clone(&self.origin));
        let request = async move {
            let url = origin.part(part).unwrap_or_default();
            api.get_range(url, range).await
        };
        Lane {
            part,
            body: stream::once(request).try_flatten().boxed(),
            held: BytesMut::new(),
            left,
            has_come: left == 0,
            awaited: Duration::ZERO,
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        loop {
            if self.is_over || self.range.is_empty() {
                return Ok(None);
            }
            if let Some(bytes) = self.joined() {
                return Ok(Some(bytes));
            }
            let alone = self.awaited_alone();
            let begun = Instant::now();
            let event = timeout(LOOK, std::future::poll_fn(|cx| self.poll_lanes(cx))).await;
            if let Some(lane) = alone.and_then(|at| self.lanes.get_mut(at)) {
                lane.awaited += begun.elapsed();
            }
            if let Ok(Err((at, error))) = event {
                self.replace(at, error)
                    .inspect_err(|_| self.is_over = true)?;
            } else if let Some(at) = alone.filter(|at| self.is_slow(*at)) {
                self.replace_slow(at);
            }
        }
    }

    /// Takes what has come: `Ok` when anything did, or which lane failed.
    fn poll_lanes(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), (usize, StorageError)>> {
        let mut has_moved = false;
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            while lane.left > 0 && lane.held.len() < HELD {
                match Pin::new(&mut lane.body).poll_next(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Some(Ok(bytes))) => {
                        has_moved = true;
                        lane.has_come = true;
                        lane.left = lane.left.saturating_sub(bytes.len() as u64);
                        lane.held.extend_from_slice(&bytes);
                    }
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err((at, error))),
                    Poll::Ready(None) => {
                        let short = StorageError::Short {
                            got: 0,
                            wanted: lane.left,
                        };
                        return Poll::Ready(Err((at, short)));
                    }
                }
            }
        }
        if has_moved {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    /// The whole lines that every lane has.
    fn joined(&mut self) -> Option<Bytes> {
        let has_all = |lane: &&Lane| lane.left == 0;
        let sectors = |lane: &Lane| (lane.held.len() / SECTOR) as u64;
        let behind = self.lanes.iter().filter(|lane| !has_all(lane));
        let lines = behind.map(sectors).min().unwrap_or(u64::MAX);
        let stop = self
            .line
            .saturating_add(lines.saturating_mul(LINE))
            .min(self.end);
        if stop <= self.line {
            return None;
        }
        let length = usize::try_from(stop - self.line).ok()?;
        let width = usize::try_from((stop - self.line).div_ceil(LINE)).ok()? * SECTOR;
        let mut parts = [None; PARTS];
        for lane in &self.lanes {
            if let Some(part) = parts.get_mut(lane.part) {
                *part = lane.held.get(..width.min(lane.held.len()));
            }
        }
        let mut bytes = Bytes::from(join(&parts, length)?);
        for lane in &mut self.lanes {
            lane.held.advance(width.min(lane.held.len()));
        }
        // The first and the last line have more than was asked for.
        let before = usize::try_from(self.range.start - self.line).ok()?;
        bytes.advance(before.min(bytes.len()));
        bytes.truncate(usize::try_from(self.range.end - self.range.start).ok()?);
        self.range.start += bytes.len() as u64;
        self.line = stop;
        self.brought += bytes.len() as u64;
        if self.brought >= COMPARED {
            self.compare_anew();
        }
        Some(bytes)
    }

    fn compare_anew(&mut self) {
        (self.since, self.brought) = (Instant::now(), 0);
        for lane in &mut self.lanes {
            lane.awaited = Duration::ZERO;
        }
    }

    /// The one lane that all others wait for.
    fn awaited_alone(&self) -> Option<usize> {
        let is_behind = |lane: &Lane| lane.left > 0 && lane.held.len() < SECTOR;
        let mut behind = (0..).zip(&self.lanes).filter(|(_, lane)| is_behind(lane));
        let (at, _) = behind.next()?;
        behind.next().is_none().then_some(at)
    }

    fn is_slow(&self, at: usize) -> bool {
        let Some(lane) = self.lanes.get(at).filter(|_| self.spare.is_some()) else {
            return false;
        };
        let patience = if lane.has_come {
            self.stall / SHARE
        } else {
            FIRST.min(self.stall / SHARE)
        };
        let rest = self.since.elapsed().saturating_sub(lane.awaited);
        lane.awaited >= patience.max(rest * 2)
    }

    /// Goes on with the part that was left out.
    fn replace_slow(&mut self, at: usize) {
        let (Some(spare), Some(part)) =
            (self.spare.take(), self.lanes.get(at).map(|lane| lane.part))
        else {
            return;
        };
        tracing::debug!(part, "a part of a striped file is slow");
        self.origin.leave_out(part);
        let lane = self.lane(spare);
        if let Some(place) = self.lanes.get_mut(at) {
            *place = lane;
        }
        self.compare_anew();
    }

    fn replace(&mut self, at: usize, error: StorageError) -> Result<(), StorageError> {
        let is_quota = matches!(error, StorageError::OverQuota { .. });
        if !is_quota && self.spare.is_some() {
            tracing::debug!(%error, "a part of a striped file failed");
            self.replace_slow(at);
            return Ok(());
        }
        Err(match error {
            // Two bad parts: their addresses are as good as expired.
            StorageError::Status(_) | StorageError::Short { .. } | StorageError::BadReply => {
                StorageError::Expired
            }
            other => other,
        })
    }
}
