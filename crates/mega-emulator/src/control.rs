//! Owns `/_control/...`: the library's interface as JSON over HTTP, for tests in other processes.
//! See the README for the list. It is not counted, delayed or damaged.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::account::AccountSpec;
use crate::config::{EmulatorError, Knobs};
use crate::counters::Counters;
use crate::faults::FaultRule;
use crate::fixture::Fixture;
use crate::http::{Reply, Request};
use crate::server::Shared;

fn parse<T: DeserializeOwned>(request: &Request) -> Result<T, EmulatorError> {
    serde_json::from_slice(&request.body).map_err(|e| EmulatorError::Invalid(e.to_string()))
}

/// Serves one control request.
pub(crate) fn serve(shared: &Arc<Shared>, request: &Request, path: &str) -> Reply {
    if path == "content" {
        let handle = request.query("handle").unwrap_or_default();
        return match crate::inspect::content(shared, handle) {
            Ok(data) => Reply::ok(data),
            Err(e) => failed(&e),
        };
    }
    match answer(shared, request, path) {
        Ok(Some(value)) => Reply::ok(value.to_string()),
        Ok(None) => Reply::status(404, "unknown control request"),
        Err(e) => failed(&e),
    }
}

fn failed(e: &EmulatorError) -> Reply {
    Reply::status(400, e.to_string())
}

fn answer(
    shared: &Arc<Shared>,
    request: &Request,
    path: &str,
) -> Result<Option<Value>, EmulatorError> {
    let email = request.query("email");
    let done = Ok(Some(json!({"ok": true})));
    match (request.method.as_str(), path) {
        ("POST", "accounts") => {
            let spec: AccountSpec = parse(request)?;
            let quota = shared.knobs().quota;
            let handle = crate::account::add(&mut shared.state(), &spec, quota);
            Ok(Some(json!({"user": handle})))
        }
        ("GET", "accounts") => {
            let state = shared.state();
            let list = state
                .users
                .values()
                .map(|u| json!({"user": u.handle, "email": u.email}));
            Ok(Some(list.collect()))
        }
        ("POST", "account") => {
            let change: Value = parse(request)?;
            let quota = change.get("quota").and_then(Value::as_u64);
            let blocked = change
                .get("blocked")
                .and_then(Value::as_u64)
                .map(|b| b as u32);
            let mut state = shared.state();
            crate::account::set_account(&mut state, email.unwrap_or_default(), quota, blocked);
            done
        }
        ("POST", "populate") => {
            let list: Vec<Fixture> = parse(request)?;
            let handles = crate::fixture::populate(shared, email.unwrap_or_default(), &list)?;
            Ok(Some(json!({"handles": handles})))
        }
        ("GET", "tree") => {
            let tree = crate::inspect::tree(&shared.state(), email.unwrap_or_default())?;
            Ok(Some(json!(tree)))
        }
        ("GET", "counters") => Ok(Some(json!(shared.counters()))),
        ("DELETE", "counters") => {
            *shared.tally.lock() = Counters::default();
            done
        }
        ("GET", "faults") => Ok(Some(json!(shared.faults.rules()))),
        ("POST", "faults") => {
            let rule: FaultRule = parse(request)?;
            Ok(Some(json!({"id": shared.faults.add(rule)})))
        }
        ("DELETE", "faults") => {
            match request.query("id").and_then(|id| id.parse().ok()) {
                Some(id) => shared.faults.remove(id),
                None => shared.faults.clear(),
            }
            done
        }
        ("GET", "knobs") => Ok(Some(json!(shared.knobs()))),
        ("POST", "knobs") => {
            // Members that are not named keep their values.
            let changes: Value = parse(request)?;
            let mut wrong = None;
            shared.update_knobs(|knobs| {
                let mut all = json!(knobs);
                if let (Value::Object(all), Value::Object(new)) = (&mut all, changes) {
                    all.extend(new);
                }
                match serde_json::from_value::<Knobs>(all) {
                    Ok(changed) => *knobs = changed,
                    Err(e) => wrong = Some(EmulatorError::Invalid(e.to_string())),
                }
            });
            wrong.map_or(done, Err)
        }
        ("POST", "expire-urls") => {
            shared
                .url_epoch
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            done
        }
        ("POST", "cut-connections") => {
            shared.cut_connections(Some(request.connection));
            done
        }
        ("POST", "expire-uploads") => {
            shared.state().expire_uploads();
            done
        }
        ("POST", "expire-tokens") => {
            shared.state().expire_tokens();
            done
        }
        ("POST", "session") => {
            let sid = crate::account::session(shared, email.unwrap_or_default());
            Ok(Some(json!({"sid": sid})))
        }
        ("POST", "end-sessions") => {
            crate::account::end_sessions(shared, email);
            done
        }
        ("POST", "forget-events") => {
            crate::account::forget_events(&mut shared.state(), email.unwrap_or_default());
            shared.changed.notify_all();
            done
        }
        _ => Ok(None),
    }
}
