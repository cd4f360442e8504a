//! Owns the URL space (protocol/06 section 2) and where faults and latency act: counting, latency,
//! fault before, execution, fault after.

use std::time::Duration;

use crate::faults::FaultAction;
use crate::http::{Reply, Request};
use crate::server::Shared;
use crate::{control, cs, events, storage};

/// Serves one request.
pub(crate) fn route(shared: &std::sync::Arc<Shared>, request: Request) -> Reply {
    let path = request.path.clone();
    let (head, rest) = path
        .trim_start_matches('/')
        .split_once('/')
        .unwrap_or((path.trim_start_matches('/'), ""));
    if head == "_control" {
        return control::serve(shared, &request, rest);
    }
    *shared
        .tally
        .lock()
        .requests
        .entry(head.to_owned())
        .or_default() += 1;
    if head == "cs" {
        // Has its own place for the latency.
        return match rest {
            "rs" => Reply::status(404, ""),
            _ => cs::serve(shared, &request),
        };
    }
    latency(shared);
    let mut points = vec![head.to_owned()];
    if let Some(part) = storage::part_of(rest).filter(|_| head == "dl") {
        points.push(format!("dl:{part}"));
    }
    match (head, rest) {
        // `/sc`, `/sc/wsc` and `/wsc`: the first answer must be an object at once; the wait URL
        // does the holding.
        ("sc" | "wsc", _) => {
            let fault = shared.faults.for_request(&points);
            with_fault(shared, &request, fault.clone(), || {
                events::poll(shared, &request, fault.as_ref())
            })
        }
        ("w", rest) => {
            let fault = shared.faults.for_request(&points);
            with_fault(shared, &request, fault.clone(), || {
                events::wait(shared, &request, rest, fault.as_ref())
            })
        }
        ("ul", rest) => {
            let fault = shared.faults.for_request(&points);
            let mut request = request;
            let body = std::mem::take(&mut request.body);
            with_fault(shared, &request, fault.clone(), || {
                storage::upload(shared, &request, body, rest, fault.as_ref())
            })
        }
        ("dl", rest) => {
            let fault = shared.faults.for_request(&points);
            with_fault(shared, &request, fault, || {
                storage::download(shared, &request, rest)
            })
        }
        ("ulfa", _) => storage::store_thumbnail(shared, request),
        ("dlfa", _) => storage::load_thumbnails(shared, &request),
        _ => Reply::status(404, ""),
    }
}

/// Lets the knob's latency pass.
pub(crate) fn latency(shared: &Shared) {
    let latency = shared.knobs().latency_ms;
    if latency > 0 {
        shared.pause(Duration::from_millis(latency));
    }
}

fn end_session(shared: &Shared, request: &Request) {
    shared
        .state()
        .end_session(request.query("sid").unwrap_or_default());
    shared.changed.notify_all();
}

/// Runs `execute` under a request-level fault.
pub(crate) fn with_fault(
    shared: &Shared,
    request: &Request,
    fault: Option<FaultAction>,
    execute: impl FnOnce() -> Reply,
) -> Reply {
    let Some(fault) = fault else { return execute() };
    shared.tally.lock().faults += 1;
    match &fault {
        FaultAction::Body { text } => return Reply::ok(text.as_bytes()),
        FaultAction::Status {
            code,
            headers,
            text,
        } => {
            let mut reply = Reply::status(*code, text.as_bytes());
            reply.headers.clone_from(headers);
            return reply;
        }
        FaultAction::Reset => return Reply::reset(),
        FaultAction::EndSession => end_session(shared, request),
        _ => {}
    }
    let mut reply = execute();
    let damage = &mut reply.damage;
    match fault {
        FaultAction::Lost => damage.lost = true,
        FaultAction::LostSession => {
            damage.lost = true;
            end_session(shared, request);
        }
        FaultAction::Reply { text } => reply = Reply::ok(text),
        FaultAction::Truncate { bytes } => damage.truncate = Some(bytes),
        FaultAction::Shorten { bytes } => {
            damage.shorten = Some(bytes);
        }
        FaultAction::ExtraByte => damage.extra = true,
        FaultAction::FlipBit { byte } => damage.flip = Some(byte),
        FaultAction::Stall { after, ms } => {
            damage.stall = Some((after, Duration::from_millis(ms)));
        }
        FaultAction::Slow { ms } => damage.slow = Some(Duration::from_millis(ms)),
        FaultAction::Trickle { rate } => damage.trickle = Some(rate.max(1)),
        _ => {}
    }
    reply
}
