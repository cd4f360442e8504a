//! Owns the storage servers' part (protocol/04 sections 2 and 5, 06 section 6): upload pieces with
//! their checks and tokens, ranged downloads, CloudRAID parts, thumbnails.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crate::codec::{Handle, b64, unb64};
use crate::content::raid_part_size;
use crate::crypto::is_boundary;
use crate::faults::FaultAction;
use crate::http::{Body, Reply, Request};
use crate::server::Shared;

/// Distance an upload's pieces may be ahead of the first missing byte (protocol/04 section 5).
const WINDOW: u64 = 256 << 20;

/// `/ul/<id>/<offset>[?d=|?c=]`.
pub(crate) fn upload(
    shared: &Shared,
    mut request: Request,
    path: &str,
    fault: Option<&FaultAction>,
) -> Reply {
    let number = |code: i64| Reply::ok(code.to_string());
    let violation = |text: String| shared.tally.violation(format!("upload: {text}"));
    let (id, offset) = path.split_once('/').unwrap_or((path, "0"));
    let (Ok(id), Ok(offset)) = (id.parse::<u64>(), offset.parse::<u64>()) else {
        violation(format!("malformed path {path}"));
        return number(-2);
    };
    if request.method != "POST" {
        violation(format!("method {}", request.method));
    }
    let length = request.body.len() as u64;
    shared.tally.lock().bytes_up += length;
    let with_d = request.query("d").is_some();
    let go_on = || {
        if with_d {
            Reply::ok("0")
        } else {
            Reply::ok("")
        }
    };
    let content = {
        let state = shared.state();
        let (Some(upload), Some(content)) = (state.uploads.get(&id), state.contents.get(&id))
        else {
            return number(-9);
        };
        if let Some(token) = upload.token.as_ref().map(|_| upload.reply.clone()) {
            return Reply::ok(token);
        }
        let end = offset + length;
        if end > upload.size {
            violation(format!(
                "piece {offset}+{length} beyond size {}",
                upload.size
            ));
            return number(-7);
        }
        if !is_boundary(offset) || (end != upload.size && !is_boundary(end)) {
            violation(format!(
                "piece {offset}+{length} is not on chunk boundaries"
            ));
            return number(-7);
        }
        if length == 0 && upload.size != 0 {
            violation(format!("empty piece at {offset} of {}", upload.size));
            return number(-7);
        }
        if end.saturating_sub(first_missing(upload)) > WINDOW {
            violation(format!(
                "piece ends {} ahead of the first gap",
                end.saturating_sub(first_missing(upload))
            ));
        }
        content.clone()
    };
    if let Some(check) = request.query("d").or(request.query("c")) {
        let mut sum = [0_u8; 12];
        for row in request.body.chunks(12) {
            for (s, b) in sum.iter_mut().zip(row) {
                *s ^= b;
            }
        }
        if unb64(check).is_none_or(|c| c != sum) {
            violation("checksum of a piece does not match".into());
            return number(-14);
        }
    }
    let data = std::mem::take(&mut request.body);
    if let Err(e) = content.store(offset, data) {
        shared
            .tally
            .lock()
            .journal_error
            .get_or_insert(e.to_string());
        return number(-20);
    }
    let mut state = shared.state();
    let Some(upload) = state.uploads.get(&id) else {
        return number(-9);
    };
    if upload.token.is_some() {
        return Reply::ok(upload.reply.clone());
    }
    let clash = upload
        .pieces
        .range(..offset + length.max(1))
        .next_back()
        .is_some_and(|(o, l)| (*o, *l) != (offset, length) && o + l > offset);
    if clash {
        violation(format!("piece {offset}+{length} overlaps another"));
        return number(-7);
    }
    let raw_token = upload.v >= 2;
    let stored = state.add_piece(id, offset, length);
    let complete = state.uploads.get(&id).is_some_and(|u| u.size == stored);
    if !complete && fault != Some(&FaultAction::TokenEarly) {
        return go_on();
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
    if complete && let Some(mut upload) = state.uploads.get(&id).cloned() {
        upload.token = Some(token);
        upload.reply.clone_from(&raw);
        state.put_upload(id, upload);
    }
    Reply::ok(raw)
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

/// `/dl/<handle>.<epoch>[.<part>][/<first>-<last>]`.
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
    let epoch = words.next().and_then(|e| e.parse::<u64>().ok());
    let part = words.next().and_then(|p| p.parse::<u64>().ok());
    if epoch != Some(shared.url_epoch.load(Ordering::Relaxed)) {
        return Reply::status(403, "");
    }
    let found = {
        let state = shared.state();
        handle
            .and_then(|h| state.node(h))
            .filter(|n| n.t == 0)
            .and_then(|n| Some((state.content_of(&n), n.s)).filter(|(c, s)| c.is_some() || *s == 0))
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
    {
        let mut knobs = shared.knobs();
        if let Some(left) = knobs.transfer_left {
            if to - from > left {
                let mut reply = Reply::status(509, "");
                let wait = knobs.transfer_wait.to_string();
                reply.headers.push(("X-MEGA-Time-Left".into(), wait));
                return reply;
            }
            knobs.transfer_left = Some(left - (to - from));
            shared.set_knobs(knobs);
        }
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
