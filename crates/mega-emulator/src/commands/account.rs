//! Owns account commands (protocol/02 section 8): user data, quota, sessions, attributes, the tree.

use serde_json::{Map, Value, json};

use super::{Args, client_id, login, number, text};
use crate::codec::{Handle, b64};
use crate::cs::{Answer, Context};
use crate::state::State;

/// `f`, for a session or a folder link.
pub(crate) fn tree(state: &State, context: &Context<'_>) -> Answer {
    if let Some(root) = context.link {
        return Answer::Tree(Box::new(state.link_reply(root)));
    }
    let Some(user) = &context.user else {
        context.violation("f without session or link");
        return Answer::Error(-15);
    };
    if state.users.get(user).is_some_and(|u| u.blocked != 0) {
        return Answer::Error(-16);
    }
    state
        .tree_reply(user)
        .map_or(Answer::Error(-15), |t| Answer::Tree(Box::new(t)))
}

/// `ug`.
pub(crate) fn user(state: &State, context: &Context<'_>, user: &str, args: &Args) -> Answer {
    let Some(u) = state.users.get(user) else {
        return Answer::Error(-15);
    };
    let mut reply = json!({
        "u": u.handle, "email": u.email, "name": u.name, "s": 1, "c": 1,
        "k": b64(&login::wrapped_key(state, context, u)),
        "ts": u.created.to_string(), "since": u.created, "aav": u.version, "flags": {},
    });
    if let Value::Object(o) = &mut reply {
        if !u.pubk.is_empty() {
            o.insert("pubk".into(), json!(b64(&u.pubk)));
            o.insert("privk".into(), json!(b64(&u.privk)));
        }
        if u.version == 2 {
            o.insert("aas".into(), json!(b64(&u.salt)));
        }
        if login::wants_versions(args) {
            for (name, (value, version)) in &u.attributes {
                o.insert(name.clone(), json!({"av": value, "v": version}));
            }
        }
    }
    Answer::Data(reply)
}

/// `uq`.
pub(crate) fn quota(state: &State, user: &str, args: &Args) -> Answer {
    let Some(u) = state.users.get(user) else {
        return Answer::Error(-15);
    };
    let used = state.used.get(user).copied().unwrap_or(0);
    let row = |c: Counts| json!([c.0, c.1, c.2, c.3, c.4]);
    let mut per_root = Map::new();
    // Everything outside vault and bin is counted for the cloud root without walking it.
    let mut rest = state.totals(user);
    for root in u.roots.iter().skip(1) {
        let c = count(state, *root);
        rest = (
            rest.0.saturating_sub(c.0),
            rest.1.saturating_sub(c.1),
            rest.2.saturating_sub(c.2),
            rest.3.saturating_sub(c.3),
            rest.4.saturating_sub(c.4),
        );
        per_root.insert(root.to_string(), row(c));
    }
    if let Some(root) = u.roots.first() {
        per_root.insert(root.to_string(), row(rest));
    }
    let incoming = state.shares.iter();
    for (root, _) in incoming.filter(|(_, s)| s.users.contains_key(user)) {
        per_root.insert(root.to_string(), row(count(state, *root)));
    }
    let level = match used as f64 / u.quota.max(1) as f64 {
        x if x >= 1.0 => 2,
        x if x >= 0.9 => 1,
        _ => 0,
    };
    let mut reply = json!({"mstrg": u.quota, "cstrg": used, "cstrgn": per_root, "utype": 0,
        "usl": level, "uslw": 9000});
    if let Value::Object(o) = &mut reply
        && number(args, "pro").unwrap_or(0) != 0
    {
        for name in ["balance", "subs", "plans", "features"] {
            o.insert(name.to_owned(), json!([]));
        }
    }
    Answer::Data(reply)
}

/// Bytes, files, folders, version bytes, versions.
pub(crate) type Counts = (u64, u64, u64, u64, u64);

/// What is below a folder.
pub(crate) fn count(state: &State, root: Handle) -> Counts {
    let mut c = (0, 0, 0, 0, 0);
    for node in state.subtree(root).iter().skip(1) {
        if node.t != 0 {
            c.2 += 1;
        } else if state.is_version(node) {
            c.3 += node.s;
            c.4 += 1;
        } else {
            c.0 += node.s;
            c.1 += 1;
        }
    }
    c
}

/// `qbq`.
pub(crate) fn transfer_quota(context: &Context<'_>, args: &Args) -> Answer {
    let size = number(args, "s").unwrap_or(0).max(0) as u64;
    let fits = context
        .shared
        .knobs()
        .transfer_left
        .is_none_or(|left| size <= left);
    Answer::Data(json!(if fits { 0 } else { 1 }))
}

/// `usl`.
pub(crate) fn sessions(state: &State, context: &Context<'_>, user: &str) -> Answer {
    let row = |(sid, s): (&String, &crate::state::Session)| {
        let current = i32::from(*sid == context.sid);
        json!([
            s.created,
            s.created,
            s.agent,
            "127.0.0.1",
            "ZZ",
            current,
            s.id,
            1,
            ""
        ])
    };
    let own = state.sessions.iter().filter(|(_, s)| s.user == user);
    Answer::Data(own.map(row).collect())
}

/// `usr`.
pub(crate) fn end_sessions(
    state: &mut State,
    context: &Context<'_>,
    user: &str,
    args: &Args,
) -> Answer {
    let others = number(args, "ko").unwrap_or(0) != 0;
    let named: Vec<&str> = args
        .get("s")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let dead: Vec<String> = state
        .sessions
        .iter()
        .filter(|(sid, s)| {
            s.user == user && (others && **sid != context.sid || named.contains(&s.id.as_str()))
        })
        .map(|(sid, _)| sid.clone())
        .collect();
    for sid in dead {
        state.end_session(&sid);
    }
    Answer::Data(json!(0))
}

/// `up` and `up2`: unversioned attributes, keys.
pub(crate) fn set_attribute(state: &mut State, user: &str, name: &str, args: &Args) -> Answer {
    let mut values = Vec::new();
    let mut account = match state.users.get(user) {
        Some(u) => u.clone(),
        None => return Answer::Error(-15),
    };
    let mut keys = false;
    for (key, value) in args
        .iter()
        .filter(|(k, _)| !matches!(k.as_str(), "a" | "i" | "v"))
    {
        let Some(value) = value.as_str() else {
            continue;
        };
        match key.as_str() {
            "privk" | "pubk" => {
                let raw = crate::codec::unb64(value).unwrap_or_default();
                *(if key == "privk" {
                    &mut account.privk
                } else {
                    &mut account.pubk
                }) = raw;
                keys = true;
            }
            _ => values.push((key.clone(), value.to_owned())),
        }
    }
    if keys {
        state.put_user(account);
    }
    let change = state.begin(user, client_id(args));
    let versions = state.set_user_attributes(&change, &values);
    let data = match (name, values.first(), versions.first()) {
        ("up2", Some((n, _)), Some(v)) => json!([n, v]),
        _ => json!(user),
    };
    Answer::Changed(change.tag(), Some(data))
}

/// `upv`: versioned attributes, all or none.
pub(crate) fn set_versioned(state: &mut State, user: &str, args: &Args) -> Answer {
    let mut values = Vec::new();
    for (key, value) in args
        .iter()
        .filter(|(k, _)| !matches!(k.as_str(), "a" | "i" | "v"))
    {
        let Some([Value::String(v), rest @ ..]) = value.as_array().map(Vec::as_slice) else {
            continue;
        };
        let old = rest.first().and_then(Value::as_str);
        let now = state.users.get(user).and_then(|u| u.attributes.get(key));
        if now.is_some_and(|(_, version)| Some(version.as_str()) != old) {
            return Answer::Error(-8);
        }
        values.push((key.clone(), v.clone()));
    }
    let change = state.begin(user, client_id(args));
    let versions = state.set_user_attributes(&change, &values);
    let data: Map<String, Value> = values
        .into_iter()
        .map(|(k, _)| k)
        .zip(versions.into_iter().map(Value::from))
        .collect();
    Answer::Changed(change.tag(), Some(Value::from(data)))
}

/// `uga`.
pub(crate) fn get_attribute(state: &State, user: &str, args: &Args) -> Answer {
    let who = text(args, "u");
    let own = who.is_empty() || who == user;
    let found = if own {
        state.users.get(user)
    } else {
        state.users.get(who).or(state.user_by_email(who))
    };
    let Some(found) = found else {
        return Answer::Error(-9);
    };
    let name = text(args, "ua");
    let public = name.starts_with('+') || matches!(name, "firstname" | "lastname");
    if found.handle != user && !public {
        return Answer::Error(-11);
    }
    let Some((value, version)) = found.attributes.get(name) else {
        return Answer::Error(-9);
    };
    if login::wants_versions(args) {
        return Answer::Data(json!({"av": value, "v": version}));
    }
    Answer::Data(json!(value))
}

/// `uk`.
pub(crate) fn public_key(state: &State, args: &Args) -> Answer {
    let who = text(args, "u");
    let found = state.users.get(who).or(state.user_by_email(who));
    match found {
        Some(u) if !u.pubk.is_empty() => Answer::Data(json!({"u": u.handle, "pubk": b64(&u.pubk)})),
        _ => Answer::Error(-9),
    }
}
