//! Owns one entry of `p`: what it is made from (upload, existing node, link), its checks, and the
//! node that comes of it.

use std::collections::HashSet;

use serde_json::Value;

use crate::codec::{Handle, is_canonical, unb64};
use crate::commands::{Args, handle, now, number, text};
use crate::content::ContentId;
use crate::crypto::NodeKey;
use crate::cs::Context;
use crate::state::{Node, State, Upload};
use crate::strict::{check_attributes, unwrap_key};

/// Where the content of a new node comes from.
pub(super) struct Source {
    pub(super) size: u64,
    pub(super) content: Option<ContentId>,
    generated: Option<Handle>,
    fa: String,
    pub(super) upload: Option<ContentId>,
}

/// An entry that can be put.
pub(super) struct Ready {
    pub(super) index: usize,
    pub(super) node: Node,
    pub(super) source: Source,
    /// The file this becomes the new version of.
    pub(super) old: Option<Handle>,
    /// The wrapped key as sent; tells a repeated token from a misused one.
    pub(super) sent_key: String,
    /// The node key, when the fixture can open it.
    pub(super) key: Option<NodeKey>,
}

/// What earlier entries of the same command have used up.
#[derive(Default)]
pub(super) struct Spent {
    tokens: HashSet<ContentId>,
    overwritten: HashSet<Handle>,
}

/// Checks one entry and builds its node below `parent`; an error code otherwise.
pub(super) fn prepare(
    state: &mut State,
    context: &Context<'_>,
    (user, owner): (&str, &str),
    (index, entry): (usize, &Args),
    parent: Handle,
    spent: &mut Spent,
) -> Result<Ready, i64> {
    let kind = match number(entry, "t") {
        Some(t @ 0..=1) => t as u8,
        _ => {
            context.violation("p: entry is neither file nor folder");
            return Err(-2);
        }
    };
    let (a, k) = (text(entry, "a"), text(entry, "k"));
    let wanted = if kind == 0 { 32 } else { 16 };
    let raw = unb64(k).unwrap_or_default();
    if k.len() <= 43 && raw.len() != wanted {
        context.violation(format!("p: key of {} bytes for type {kind}", raw.len()));
        return Err(-2);
    }
    if !is_canonical(k) {
        context.violation("p: key is not canonical base64");
    }
    let source = source(state, context, user, entry, kind, spent)?;
    let mk = state
        .users
        .get(user)
        .map(|u| u.mk)
        .filter(|mk| *mk != [0; 16]);
    let key = mk.and_then(|mk| unwrap_key(k, &mk));
    if let Some(key) = &key {
        if key.raw().iter().all(|b| *b == 0) {
            context.violation("p: zero key");
            return Err(-14);
        }
        for wrong in check_attributes(a, key).0 {
            context.violation(format!("p: {wrong}"));
        }
        check_reuse(state, context, entry, &source, key);
    }
    let fa = match entry.get("fa").and_then(Value::as_str) {
        Some(fa) => super::cluster(fa),
        None => source.fa.clone(),
    };
    let old = overwritten(state, context, entry, kind, parent, spent);
    let node = Node {
        h: state.new_handle(),
        p: Some(parent),
        u: owner.to_owned(),
        t: kind,
        a: a.to_owned(),
        // A recipient's key is under their own master key and useless to the owner.
        k: if owner == user {
            k.to_owned()
        } else {
            String::new()
        },
        sk: Vec::new(),
        ts: now(),
        s: source.size,
        fa,
        content: source.content,
        generated: source.generated,
    };
    Ok(Ready {
        index,
        node,
        source,
        old,
        sent_key: k.to_owned(),
        key,
    })
}

/// The file named by `ov` if it still is the head of its chain in `parent`. Another session may
/// have been faster, so a file that is no longer that is counted but no violation: the new node
/// becomes a plain sibling.
fn overwritten(
    state: &State,
    context: &Context<'_>,
    entry: &Args,
    kind: u8,
    parent: Handle,
    spent: &mut Spent,
) -> Option<Handle> {
    entry.get("ov").filter(|v| !v.is_null())?;
    let h = handle(entry, "ov");
    let (Some(h), 0) = (h.filter(|h| state.existed(*h)), kind) else {
        context.violation("p: ov names no file that ever was, or is on a folder");
        return None;
    };
    let node = state.node(h);
    if node.as_ref().is_some_and(|n| n.t != 0) {
        context.violation("p: ov names a folder");
        return None;
    }
    let head = node.is_some_and(|n| n.p == Some(parent));
    if head && spent.overwritten.insert(h) {
        return Some(h);
    }
    context.shared.tally.lock().late_overwrites += 1;
    None
}

/// A copy must keep its source's key, an upload must not use one that was used before.
fn check_reuse(
    state: &mut State,
    context: &Context<'_>,
    entry: &Args,
    source: &Source,
    key: &NodeKey,
) {
    let NodeKey::File {
        key: aes, nonce, ..
    } = key
    else {
        return;
    };
    if let Some(id) = source.upload {
        let this = (source.size, id);
        let before = *state.keys_seen.entry((*aes, *nonce)).or_insert(this);
        if before.1 != id && source.size > 0 && !same_content(state, before, this) {
            context.violation("p: key and nonce of an earlier upload used for other content");
        }
        return;
    }
    let old = handle(entry, "h").and_then(|h| state.node(h));
    if let Some(old) = old.and_then(|n| state.node_key(&n))
        && old != *key
    {
        context.violation("p: copy with another key than its source");
    }
}

/// Whether two uploads hold the same bytes; yes when that cannot be known any more.
fn same_content(state: &State, a: (u64, u64), b: (u64, u64)) -> bool {
    if a.0 != b.0 {
        return false;
    }
    let (Some(x), Some(y)) = (state.contents.get(&a.1), state.contents.get(&b.1)) else {
        return true;
    };
    if x.is_dropped() || y.is_dropped() {
        return true;
    }
    (0..a.0).step_by(1 << 20).all(|at| {
        let end = (at + (1 << 20)).min(a.0);
        matches!((x.read(at, end), y.read(at, end)), (Ok(x), Ok(y)) if x == y)
    })
}

fn source(
    state: &State,
    context: &Context<'_>,
    user: &str,
    entry: &Args,
    kind: u8,
    spent: &mut Spent,
) -> Result<Source, i64> {
    let none = Source {
        size: 0,
        content: None,
        generated: None,
        fa: String::new(),
        upload: None,
    };
    if kind == 1 {
        return Ok(none);
    }
    let h = text(entry, "h");
    let node = if let Some(ph) = entry.get("ph").and_then(Value::as_str) {
        let link = state.links.get(ph).ok_or(-9)?;
        state.node(link.node).ok_or(-9)?
    } else if let Some(&id) = state.tokens.get(h) {
        let upload = state.uploads.get(&id).ok_or(-9)?;
        check_token(context, upload, user, text(entry, "k"))?;
        if !spent.tokens.insert(id) {
            context.violation("p: one upload token in two entries");
            return Err(-9);
        }
        return Ok(Source {
            size: upload.size,
            content: Some(id),
            upload: Some(id),
            ..none
        });
    } else {
        let Some(h) = Handle::parse(h) else {
            context.violation("p: unknown upload token");
            return Err(-9);
        };
        let node = state.node(h).ok_or(-9)?;
        if state.access(user, h).is_none() {
            return Err(-11);
        }
        node
    };
    if node.t != 0 {
        context.violation("p: a file entry copies a folder");
        return Err(-2);
    }
    let generated =
        (node.content.is_none() && node.s > 0).then(|| node.generated.unwrap_or(node.h));
    Ok(Source {
        size: node.s,
        content: node.content,
        generated,
        fa: node.fa.clone(),
        upload: None,
    })
}

/// Whether a known token may be used. A token works once. The same token under the same key again
/// is a client that never saw the first reply: refused and counted. Under another key it is wrong.
fn check_token(
    context: &Context<'_>,
    upload: &Upload,
    user: &str,
    sent_key: &str,
) -> Result<(), i64> {
    if upload.user != user {
        context.violation("p: upload token of another account");
        return Err(-9);
    }
    if upload.used {
        if upload.key == sent_key {
            context.shared.tally.lock().token_repeats += 1;
        } else {
            context.violation("p: upload token used twice");
        }
        return Err(-9);
    }
    let life = context.shared.knobs().token_life_ms;
    if upload.expired || upload.is_older(life) {
        return Err(-8);
    }
    Ok(())
}
