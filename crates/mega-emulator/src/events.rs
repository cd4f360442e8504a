//! Owns the event channel (protocol/05, 06 section 5): `/sc`, `/wsc`, `/sc/wsc` and the wait URLs
//! `/w/<user>/<n>`. A user's position is the number of packets so far.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::codec::{b64, unb64_array};
use crate::faults::FaultAction;
use crate::http::{Reply, Request};
use crate::server::Shared;
use crate::state::{Event, State};

/// Who listens and where.
struct Listener {
    /// A user handle, or the name of a folder link's stream.
    user: String,
    at: u64,
}

fn listener(shared: &Shared, state: &State, request: &Request) -> Result<Listener, i64> {
    let user = match (request.query("sid"), request.query("n")) {
        (Some(sid), _) if !sid.is_empty() => state.sessions.get(sid).ok_or(-15)?.user.clone(),
        (_, Some(n)) => {
            let link = n.get(..8).and_then(|ph| state.links.get(ph)).ok_or(-9)?;
            crate::view::visitors(link.node)
        }
        _ => return Err(-15),
    };
    let Some(sn) = request.query("sn") else {
        shared.tally.violation("event request without sn");
        return Err(-2);
    };
    let Some(raw) = unb64_array::<8>(sn).filter(|_| sn.len() == 11) else {
        shared.tally.violation(format!("malformed sn {sn}"));
        return Err(-2);
    };
    Ok(Listener {
        user,
        at: u64::from_be_bytes(raw),
    })
}

impl Listener {
    /// Packets after the position: at most `limit`, but never half a change.
    fn packets(&self, state: &State, limit: usize) -> Result<(Vec<Event>, bool), i64> {
        let Some(events) = state.events.get(&self.user) else {
            return if self.at == 0 {
                Ok((Vec::new(), false))
            } else {
                Err(-6)
            };
        };
        if self.at < events.base || self.at > events.position() {
            return Err(-6);
        }
        let rest = || events.packets.iter().skip((self.at - events.base) as usize);
        let mut out: Vec<Event> = rest().take(limit.max(1)).cloned().collect();
        if let Some(last) = out.last().map(|e| e.group) {
            out.extend(
                rest()
                    .skip(out.len())
                    .take_while(|e| e.group == last)
                    .cloned(),
            );
        }
        let more = rest().len() > out.len();
        Ok((out, more))
    }

    fn wait_url(&self, shared: &Shared) -> String {
        format!("{}/w/{}/{}", shared.base_url, self.user, self.at)
    }
}

/// The reply with packets, or with the wait URL when there are none.
fn reply(
    shared: &Shared,
    listener: &Listener,
    events: &[Event],
    more: bool,
    fault: Option<&FaultAction>,
) -> Reply {
    let mut at = listener.at + events.len() as u64;
    let mut more = more;
    if events.is_empty() {
        let sn = b64(&at.to_be_bytes());
        return Reply::ok(format!(
            r#"{{"w":"{}","sn":"{sn}"}}"#,
            listener.wait_url(shared)
        ));
    }
    let mut packets: Vec<String> = events.iter().map(|e| e.packet.to_string()).collect();
    match fault {
        Some(FaultAction::SplitEvents) => {
            more |= packets.len() > 1;
            packets.truncate(1);
            at = listener.at + 1;
        }
        Some(FaultAction::DuplicateEvents) => {
            packets = packets
                .iter()
                .flat_map(|p| [p.clone(), p.clone()])
                .collect();
        }
        Some(FaultAction::JunkEvents) => {
            packets.insert(0, r#"{"a":"zzz","x":[1,{"y":null}]}"#.into());
            packets.push("-9".into());
        }
        Some(FaultAction::ReverseNodes) => {
            packets = packets.into_iter().map(reverse_nodes).collect();
        }
        _ => {}
    }
    let ir = if more { r#","ir":1"# } else { "" };
    let sn = b64(&at.to_be_bytes());
    Reply::ok(format!(
        r#"{{"a":[{}]{ir},"sn":"{sn}"}}"#,
        packets.join(",")
    ))
}

fn reverse_nodes(packet: String) -> String {
    let Ok(mut value) = serde_json::from_str::<Value>(&packet) else {
        return packet;
    };
    let Some(list) = value.pointer_mut("/t/f").and_then(Value::as_array_mut) else {
        return packet;
    };
    list.reverse();
    let list = Value::from(std::mem::take(list)).to_string();
    // Member order matters, so only the list is replaced.
    match (
        packet.find(r#""f":["#),
        packet.find(r#"],"f2""#).or(packet.find(r#"]},"ou""#)),
    ) {
        (Some(from), Some(to)) if from < to => {
            let (head, tail) = (packet.get(..from + 4), packet.get(to + 1..));
            format!(
                "{}{list}{}",
                head.unwrap_or_default(),
                tail.unwrap_or_default()
            )
        }
        _ => packet,
    }
}

/// `/sc`: at once.
pub(crate) fn poll(shared: &Shared, request: &Request, fault: Option<&FaultAction>) -> Reply {
    let limit = shared.knobs().events_per_reply;
    let state = shared.state();
    if request.query("c").is_some() && request.query("sn").is_none() {
        return Reply::ok(r#"{"c":[],"fsn":"AAAAAAAAAAA","lsn":"AAAAAAAAAAA"}"#);
    }
    let got = listener(shared, &state, request).and_then(|l| {
        l.packets(&state, limit)
            .map(|(events, more)| (l, events, more))
    });
    drop(state);
    match got {
        Ok((l, events, more)) => reply(shared, &l, &events, more, fault),
        Err(code) => Reply::ok(code.to_string()),
    }
}

/// `/w/<user>/<n>`: held until something happens; with `sn` it delivers the packets itself.
pub(crate) fn wait(
    shared: &Shared,
    request: &Request,
    path: &str,
    fault: Option<&FaultAction>,
) -> Reply {
    let knobs = shared.knobs();
    let deadline = Instant::now() + Duration::from_millis(knobs.hold_ms);
    let (user, at) = path.rsplit_once('/').unwrap_or((path, "0"));
    let at = at.parse::<u64>().unwrap_or(0);
    let mut state = shared.state();
    loop {
        if request.query("sn").is_some() {
            let got = listener(shared, &state, request).and_then(|l| {
                l.packets(&state, knobs.events_per_reply)
                    .map(|(events, more)| (l, events, more))
            });
            match got {
                Ok((l, events, more)) if !events.is_empty() => {
                    drop(state);
                    return reply(shared, &l, &events, more, fault);
                }
                Ok(_) => {}
                Err(code) => return Reply::ok(code.to_string()),
            }
        } else if state.events.get(user).is_some_and(|e| e.position() > at) {
            return Reply::ok("0");
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || shared.is_stopped() {
            return Reply::ok("0");
        }
        state = shared
            .changed
            .wait_timeout(state, left)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    }
}
