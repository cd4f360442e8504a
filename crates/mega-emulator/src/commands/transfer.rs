//! Owns `u`, `g`, `ufa` (protocol/04): handing out storage URLs.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::{Args, handle, number, text};
use crate::codec::Handle;
use crate::cs::{Answer, Context};
use crate::state::{State, Upload};

/// `u`.
pub(crate) fn upload(state: &mut State, context: &Context<'_>, user: &str, args: &Args) -> Answer {
    let Some(size) = number(args, "s").and_then(|s| u64::try_from(s).ok()) else {
        context.violation("u: no valid size");
        return Answer::Error(-2);
    };
    // The account itself, then the owners of the targets named in `t`.
    let targets = args.get("t").and_then(Value::as_array);
    let owners = targets.into_iter().flatten().filter_map(|t| {
        let node = t
            .as_str()
            .and_then(Handle::parse)
            .and_then(|h| state.node(h))?;
        Some(node.u.clone())
    });
    let mut owners: Vec<String> = owners.collect();
    if owners.is_empty() {
        owners.push(user.to_owned());
    }
    for owner in owners {
        let used = state.used.get(&owner).copied().unwrap_or(0);
        let quota = state.users.get(&owner).map_or(0, |u| u.quota);
        if used.saturating_add(size) > quota {
            return Answer::Error(if owner == user { -17 } else { -24 });
        }
    }
    let upload = Upload::new(user, size, number(args, "v").unwrap_or(0));
    match state.new_upload(upload, context.shared.knobs().keep_content) {
        Ok(id) => Answer::Data(json!({"p": format!("{}/ul/{id}", context.shared.base_url)})),
        Err(_) => Answer::Error(-18),
    }
}

/// `g`.
pub(crate) fn download(state: &State, context: &Context<'_>, args: &Args) -> Answer {
    let node = if let Some(ph) = args.get("p").and_then(Value::as_str) {
        state.links.get(ph).and_then(|l| state.node(l.node))
    } else {
        handle(args, "n").and_then(|h| state.node(h)).filter(|n| {
            let own = context
                .user
                .as_deref()
                .is_some_and(|u| state.access(u, n.h).is_some());
            own || context
                .link
                .is_some_and(|root| state.ancestors(n.h).contains(&root))
        })
    };
    let Some(node) = node.filter(|n| n.t == 0) else {
        return Answer::Error(-9);
    };
    let mut reply = serde_json::Map::new();
    reply.insert("s".into(), json!(node.s));
    reply.insert("at".into(), json!(node.a));
    reply.insert("msd".into(), json!(1));
    if !node.fa.is_empty() {
        reply.insert("fa".into(), json!(node.fa));
    }
    if number(args, "g").unwrap_or(0) != 0 {
        let knobs = context.shared.knobs();
        if knobs.transfer_left.is_some_and(|left| node.s > left) {
            reply.insert("e".into(), json!(-17));
            reply.insert("tl".into(), json!(knobs.transfer_wait));
            return Answer::Data(Value::from(reply));
        }
        let epoch = context.shared.url_epoch.load(Ordering::Relaxed);
        let issued = crate::state::now_ms();
        let base = format!("{}/dl/{}.{epoch}-{issued}", context.shared.base_url, node.h);
        let raid = number(args, "v") == Some(2)
            && knobs
                .raid_min_size
                .is_some_and(|least| node.s >= least && node.s > 0);
        let url = if raid {
            json!(
                (0..6)
                    .map(|part| format!("{base}.{part}"))
                    .collect::<Vec<_>>()
            )
        } else {
            json!(base)
        };
        reply.insert("g".into(), url);
    }
    Answer::Data(Value::from(reply))
}

/// `ufa`: where to put or get thumbnails.
pub(crate) fn thumbnail(context: &Context<'_>, args: &Args) -> Answer {
    let path = if text(args, "fah").is_empty() {
        "ulfa"
    } else {
        "dlfa"
    };
    Answer::Data(json!({"p": format!("{}/{path}/1", context.shared.base_url)}))
}
