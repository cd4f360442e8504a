//! Owns the storage servers' part (protocol/04 sections 2 and 5, 06 section 6): upload pieces with
//! their checks and tokens, ranged downloads, CloudRAID parts, thumbnails.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crate::codec::{Handle, b64, unb64};
use crate::content::{Content, raid_part_size};
use crate::crypto::is_boundary;
use crate::faults::FaultAction;
use crate::http::{Body, Reply, Request};
use crate::server::Shared;

/// Distance an upload's pieces may be ahead of the first missing byte (protocol/04 section 5).
const WINDOW: u64 = 256 << 20;

/// `/ul/<id>/<offset>[?d=|?c=]`.
pub(crate) fn upload(
    shared: &Shared,
    request: &Request,
    data: Vec<u8>,
    path: &str,
    fault: Option<&FaultAction>,
) -> Reply {
    let (id, offset) = path.split_once('/').unwrap_or((path, "0"));
    let (Ok(id), Ok(offset)) = (id.parse::<u64>(), offset.parse::<u64>()) else {
        shared
            .tally
            .violation(format!("upload: malformed path {path}"));
        return Reply::ok("-2");
    };
    if request.method != "POST" {
        shared
            .tally
            .violation(format!("upload: method {}", request.method));
    }
    shared.tally.lock().bytes_up += data.len() as u64;
    let check = request.query("d").or(request.query("c"));
    let piece = Piece {
        shared,
        id,
        offset,
        end: offset.saturating_add(data.len() as u64),
    };
    let body = match piece.receive(data, check, fault) {
        Ok(Some(token)) => token,
        Ok(None) if request.query("d").is_some() => b"0".to_vec(),
        Ok(None) => Vec::new(),
        Err(code) => code.to_string().into_bytes(),
    };
    Reply::ok(body)
}

/// A posted piece: bytes `[offset, end)` of upload `id`.
struct Piece<'a> {
    shared: &'a Shared,
    id: u64,
    offset: u64,
    end: u64,
}

/// Completion token as the body of the reply.
type Token = Vec<u8>;

impl Piece<'_> {
    fn violation(&self, text: &str) {
        let (from, to) = (self.offset, self.end);
        self.shared
            .tally
            .violation(format!("upload: piece [{from}, {to}) {text}"));
    }

    /// Checks, stores and acknowledges: the token when it was the last one.
    fn receive(
        &self,
        data: Vec<u8>,
        check: Option<&str>,
        fault: Option<&FaultAction>,
    ) -> Result<Option<Token>, i64> {
        if fault == Some(&FaultAction::ExpireUpload) {
            self.shared.state().expire_upload(self.id);
        }
        let content = match self.admit()? {
            Admitted::Complete(token) => return Ok(Some(token)),
            Admitted::Content(content) => content,
        };
        if let Some(check) = check
            && unb64(check).is_none_or(|c| c != checksum(&data))
        {
            self.violation("has another checksum than stated");
            return Err(-14);
        }
        if fault == Some(&FaultAction::Forget) {
            return Ok(None);
        }
        self.store(&content, data)?;
        let mut state = self.shared.state();
        let Some(upload) = state.uploads.get(&self.id) else {
            return Err(-9);
        };
        if upload.token.is_some() {
            return Ok(Some(upload.reply.clone()));
        }
        let raw_token = upload.v >= 2;
        let complete = upload.size == upload.pieces.values().sum::<u64>();
        if !complete && fault != Some(&FaultAction::TokenEarly) {
            return Ok(None);
        }
        let (token, raw) = if raw_token {
            let mut raw = state.random::<36>();
            let [.., last] = &mut raw;
            *last = 1;
            (b64(&raw), raw.to_vec())
        } else {
            let text = b64(&state.random::<27>());
            (text.clone(), text.into_bytes())
        };
        if complete {
            state.finish_upload(self.id, token, &raw);
        }
        Ok(Some(raw))
    }

    fn admit(&self) -> Result<Admitted, i64> {
        let life = self.shared.knobs().upload_life_ms;
        let state = self.shared.state();
        let (Some(upload), Some(content)) =
            (state.uploads.get(&self.id), state.contents.get(&self.id))
        else {
            return Err(-9);
        };
        if upload.token.is_some() {
            return Ok(Admitted::Complete(upload.reply.clone()));
        }
        if upload.expired || upload.is_older(life) {
            return Err(-8);
        }
        if self.end > upload.size {
            self.violation(&format!("is beyond the size {}", upload.size));
            return Err(-7);
        }
        if !is_boundary(self.offset) || (self.end != upload.size && !is_boundary(self.end)) {
            self.violation("is not on chunk boundaries");
            return Err(-7);
        }
        if self.offset == self.end && upload.size != 0 {
            self.violation("is empty");
            return Err(-7);
        }
        let ahead = self.end.saturating_sub(first_missing(upload));
        if ahead > WINDOW {
            self.violation(&format!("ends {ahead} ahead of the first gap"));
        }
        Ok(Admitted::Content(content.clone()))
    }

    /// Stores what is not there yet. A client that never saw an acknowledgement may post the same
    /// bytes again, cut in another way; other bytes in their place are refused.
    fn store(&self, content: &Content, data: Vec<u8>) -> Result<(), i64> {
        let data = Arc::new(data);
        let failed = |e: std::io::Error| {
            let mut tally = self.shared.tally.lock();
            tally.journal_error.get_or_insert(e.to_string());
            -20
        };
        let put = |from: u64, to: u64| {
            if (from, to) == (self.offset, self.end) {
                return content.store(from, data.clone());
            }
            content.store(from, Arc::new(self.part(&data, from, to).to_vec()))
        };
        // Writing to a disk is slow and harmless to repeat, so it comes before the lock.
        if content.file().is_some() {
            for (from, to) in self.gaps()? {
                put(from, to).map_err(failed)?;
            }
        }
        let mut state = self.shared.state();
        let gaps = state
            .uploads
            .get(&self.id)
            .map(|u| u.gaps(self.offset, self.end))
            .ok_or(-9)?;
        let mut at = self.offset;
        for (from, to) in gaps.iter().copied().chain([(self.end, self.end)]) {
            let is_known = at < from && !content.is_dropped();
            if is_known && content.read(at, from).map_err(failed)? != self.part(&data, at, from) {
                self.violation("has other bytes than an earlier piece");
                return Err(-7);
            }
            at = to;
        }
        for (from, to) in gaps {
            if content.file().is_none() {
                put(from, to).map_err(failed)?;
            }
            state.add_piece(self.id, from, to - from);
        }
        drop(state);
        if !content.keeps_buffers()
            && let Some(data) = Arc::into_inner(data)
        {
            self.shared.buffers.give(data);
        }
        Ok(())
    }

    fn part<'d>(&self, data: &'d [u8], from: u64, to: u64) -> &'d [u8] {
        let range = (from - self.offset) as usize..(to - self.offset) as usize;
        data.get(range).unwrap_or_default()
    }

    fn gaps(&self) -> Result<Vec<(u64, u64)>, i64> {
        let state = self.shared.state();
        let upload = state.uploads.get(&self.id).ok_or(-9)?;
        Ok(upload.gaps(self.offset, self.end))
    }
}

/// Byte `i mod 12` is the XOR of all bytes `i` (protocol/04 section 5). In rows of several times twelve
/// bytes, because the processor takes those at once.
fn checksum(data: &[u8]) -> [u8; 12] {
    let mut wide = [0_u8; 96];
    let (rows, rest) = data.as_chunks::<96>();
    for row in rows {
        for (s, b) in wide.iter_mut().zip(row) {
            *s ^= b;
        }
    }
    let mut sum = [0; 12];
    for row in wide.chunks(12).chain(rest.chunks(12)) {
        for (s, b) in sum.iter_mut().zip(row) {
            *s ^= b;
        }
    }
    sum
}

enum Admitted {
    /// All is there already; the token again.
    Complete(Token),
    /// Where to put the piece.
    Content(Arc<Content>),
}

fn first_missing(upload: &crate::state::Upload) -> u64 {
    let mut at = 0;
    for (offset, length) in &upload.pieces {
        if *offset > at {
            break;
        }
        at = at.max(offset + length);
    }
    at
}

/// The CloudRAID part a download path asks for.
pub(crate) fn part_of(path: &str) -> Option<&str> {
    path.split('/').next()?.split('.').nth(2)
}

/// `/dl/<handle>.<epoch>-<issued>[.<part>][/<first>-<last>]`.
pub(crate) fn download(shared: &Shared, request: &Request, path: &str) -> Reply {
    let violation = |text: String| shared.tally.violation(format!("download: {text}"));
    if request.header("range").is_some() {
        violation("Range header instead of a range in the path".into());
    }
    let (id, range) = path
        .split_once('/')
        .map_or((path, None), |(i, r)| (i, Some(r)));
    let mut words = id.split('.');
    let handle = words.next().and_then(Handle::parse);
    let (epoch, issued) = words
        .next()
        .and_then(|e| e.split_once('-'))
        .and_then(|(e, at)| Some((e.parse::<u64>().ok()?, at.parse::<u64>().ok()?)))
        .unwrap_or_default();
    let part = words.next().and_then(|p| p.parse::<u64>().ok());
    let age = crate::state::now_ms().saturating_sub(issued);
    let too_old = shared
        .knobs()
        .download_life_ms
        .is_some_and(|life| age >= life);
    if too_old || epoch != shared.url_epoch.load(Ordering::Relaxed) {
        return Reply::status(403, "");
    }
    let found = {
        let state = shared.state();
        handle
            .and_then(|h| state.node(h))
            .filter(|n| n.t == 0)
            .map(|n| (state.content_of(&n).filter(|c| !c.is_dropped()), n.s))
            .filter(|(c, s)| c.is_some() || *s == 0)
    };
    let Some((content, size)) = found else {
        return Reply::status(404, "");
    };
    let whole = part.map_or(size, |p| raid_part_size(size, p));
    let (from, to) = match range {
        None => (0, whole),
        Some(range) => {
            let (first, last) = range.split_once('-').unwrap_or((range, ""));
            let parse = |t: &str| t.parse::<u64>().ok();
            match (
                parse(first),
                if last.is_empty() {
                    Some(whole.max(1) - 1)
                } else {
                    parse(last)
                },
            ) {
                (Some(f), Some(l)) if f <= l && l < whole => (f, l + 1),
                _ => {
                    violation(format!("range {range} of {whole} bytes"));
                    return Reply::status(416, "");
                }
            }
        }
    };
    let mut refused = None;
    shared.update_knobs(|knobs| {
        if let Some(left) = &mut knobs.transfer_left {
            match left.checked_sub(to - from) {
                Some(rest) => *left = rest,
                None => refused = Some(knobs.transfer_wait),
            }
        }
    });
    if let Some(wait) = refused {
        let mut reply = Reply::status(509, "");
        let wait = wait.to_string();
        reply.headers.push(("X-MEGA-Time-Left".into(), wait));
        return reply;
    }
    let Some(content) = content else {
        return Reply::ok("");
    };
    match part {
        Some(part) => Reply::with(200, Body::Part(content, size, part, from, to)),
        None => Reply::with(200, Body::Range(content, from, to)),
    }
}

/// `/ulfa/<id>[/<type>]`.
pub(crate) fn store_thumbnail(shared: &Shared, request: Request) -> Reply {
    let handle = shared.state().random::<8>();
    let mut all = shared
        .thumbnails
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    all.insert(handle, request.body);
    Reply::ok(handle.to_vec())
}

/// `/dlfa/<id>`: the wanted handles in the body.
pub(crate) fn load_thumbnails(shared: &Shared, request: &Request) -> Reply {
    let all = shared
        .thumbnails
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let mut out = Vec::new();
    for handle in request.body.chunks_exact(8) {
        let Ok(key) = <[u8; 8]>::try_from(handle) else {
            continue;
        };
        if let Some(data) = all.get(&key) {
            out.extend_from_slice(&key);
            out.extend_from_slice(&(data.len() as u32).to_le_bytes());
            out.extend_from_slice(data);
        }
    }
    Reply::ok(out)
}
