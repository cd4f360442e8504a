//! Owns `p` (protocol/04 section 8): uploads, folders, copies, imports, versions.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Args, client_id, now, number, text};
use crate::change::Tagged;
use crate::codec::{Handle, b64, is_canonical, unb64};
use crate::cs::{Answer, Context};
use crate::state::{Node, State};
use crate::strict::{check_attributes, check_content, unwrap_key};
use crate::view::View;

fn entries(args: &Args) -> impl Iterator<Item = &Args> {
    args.get("n")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
}

/// Checks uploaded contents against their keys before the state is locked for the command.
pub(crate) fn verify_contents(context: &Context<'_>, commands: &[Args]) {
    if !context.shared.knobs().mac_check {
        return;
    }
    let Some(user) = context.user.as_deref() else {
        return;
    };
    for command in commands.iter().filter(|c| text(c, "a") == "p") {
        for entry in entries(command) {
            let found = {
                let state = context.shared.state();
                let id = state.tokens.get(text(entry, "h")).copied();
                id.and_then(|id| {
                    let upload = state.uploads.get(&id).filter(|u| !u.used)?;
                    let mk = state.users.get(user)?.mk;
                    Some((state.contents.get(&id)?.clone(), upload.size, mk))
                })
            };
            let Some((content, size, mk)) = found else {
                continue;
            };
            let Some(key) = unwrap_key(text(entry, "k"), &mk).filter(|_| mk != [0; 16]) else {
                continue;
            };
            let attributes = check_attributes(text(entry, "a"), &key).1;
            for wrong in check_content(&content, size, &key, attributes.as_ref()) {
                context.violation(format!("p: {wrong}"));
            }
        }
    }
}

/// Where the content of a new node comes from.
struct Source {
    size: u64,
    content: Option<u64>,
    generated: Option<Handle>,
    fa: String,
    upload: Option<u64>,
}

/// `p`.
pub(crate) fn create(state: &mut State, context: &Context<'_>, user: &str, args: &Args) -> Answer {
    let target = text(args, "t");
    let Some((mut parent, owner)) = target_folder(state, context, user, target) else {
        return Answer::Error(-9);
    };
    if state.access(user, parent).is_none_or(|level| level < 1) {
        return Answer::Error(-11);
    }
    if context.to_rubbish {
        parent = bin_of(state, &owner).unwrap_or(parent);
    }
    let keys = share_keys(state, context, args, parent);
    let mut temporary: HashMap<String, Handle> = HashMap::new();
    let mut errors: Vec<i64> = Vec::new();
    let mut ready: Vec<(usize, Node, Source, Option<Handle>)> = Vec::new();
    let mut added = 0;
    for (index, entry) in entries(args).enumerate() {
        let at = match entry.get("p").and_then(Value::as_str) {
            None => Some(parent),
            Some(p) => temporary.get(p).copied(),
        };
        let Some(at) = at else {
            context.violation("p: entry names a parent that is not earlier in the request");
            errors.push(-9);
            continue;
        };
        let made = prepare(state, context, user, &owner, entry, at);
        let (mut node, source) = match made {
            Ok(made) => made,
            Err(code) => {
                errors.push(code);
                continue;
            }
        };
        node.sk = keys
            .iter()
            .filter(|(i, _, _)| *i == index)
            .map(|(_, h, k)| (*h, k.clone()))
            .collect();
        for root in state.shares_above(parent) {
            if !node.sk.iter().any(|(h, _)| *h == root) {
                context.violation(format!("p: no key for share {root}"));
            }
        }
        if node.t == 1 {
            temporary.insert(text(entry, "h").to_owned(), node.h);
        }
        let old = super::handle(entry, "ov")
            .filter(|h| state.node(*h).is_some_and(|n| n.t == 0 && n.p == Some(at)));
        if entry.get("ov").is_some_and(Value::is_string) && old.is_none() {
            context.violation("p: ov names no current file of that folder");
        }
        added += source.size;
        errors.push(0);
        ready.push((index, node, source, old));
    }
    if ready.is_empty() && errors.is_empty() {
        // Only `cr` for existing nodes, as the SDK never does in p.
        return Answer::Error(-2);
    }
    let sparse = context.version >= 2 && number(args, "v").unwrap_or(0) >= 4;
    let failed = errors.iter().find(|e| **e < 0).copied();
    if let Some(code) = failed
        && (!sparse || ready.is_empty())
    {
        return Answer::Error(code);
    }
    let used = state.used.get(&owner).copied().unwrap_or(0);
    let quota = state.users.get(&owner).map_or(0, |u| u.quota);
    if added > 0 && used + added > quota {
        return Answer::Error(if owner == user { -17 } else { -24 });
    }
    let replace = number(args, "vb") == Some(0)
        || state
            .users
            .get(&owner)
            .and_then(|u| u.attributes.get("^!dv"))
            .is_some_and(|(v, _)| v == "1" || unb64(v).as_deref() == Some(b"1"));
    let change = state.begin(user, client_id(args));
    let mut new = Vec::new();
    let mut superseded: Vec<Arc<Node>> = Vec::new();
    let mut ids = Vec::new();
    for (index, node, source, old) in ready {
        let h = node.h;
        if let Some(id) = source.upload
            && let Some(upload) = state.uploads.get(&id)
        {
            let mut upload = upload.clone();
            upload.used = true;
            state.put_upload(id, upload);
        }
        if node.t == 0 {
            let file = source.content.unwrap_or_else(|| u64::from(h.place().1));
            ids.push(json!(format!("{h}:{}", b64(&file.to_be_bytes()))));
        }
        state.put_node(node);
        if let Some(old) = old {
            if replace {
                state.remove(&change, old);
            } else {
                superseded.extend(state.supersede(old, h));
            }
        }
        new.push((h, index));
    }
    let new: Vec<(Arc<Node>, Option<usize>)> = new
        .into_iter()
        .filter_map(|(h, i)| Some((state.node(h)?, Some(i))))
        .collect();
    state.announce_nodes(&change, &new, &superseded, Tagged::Yes);
    if context.version >= 2 {
        let e = if failed.is_some() {
            json!(errors)
        } else {
            json!([])
        };
        return Answer::Changed(change.tag(), Some(json!({"e": e, "fh": ids})));
    }
    let view = reader_view(state, user, parent);
    let mut list = String::new();
    for (node, index) in &new {
        if !list.is_empty() {
            list.push(',');
        }
        state.render(node, &view, *index, &mut list);
    }
    let nodes: Value = serde_json::from_str(&format!("[{list}]")).unwrap_or_default();
    Answer::Changed(change.tag(), Some(json!({"f": nodes})))
}

/// How `user` sees nodes below `folder`.
pub(crate) fn reader_view(state: &State, user: &str, folder: Handle) -> View {
    let audience = state.audience(folder);
    audience
        .into_iter()
        .find(|(u, _)| u == user)
        .map_or(View::Owner, |(_, v)| v)
}

/// The bin of an account.
pub(crate) fn bin_of(state: &State, user: &str) -> Option<Handle> {
    state.users.get(user)?.roots.get(2).copied()
}

/// The folder named by `t` and its owner; a vanished folder becomes the owner's rubbish bin.
fn target_folder(
    state: &State,
    context: &Context<'_>,
    user: &str,
    target: &str,
) -> Option<(Handle, String)> {
    if let Some(h) = Handle::parse(target) {
        if let Some(node) = state.node(h) {
            if node.t == 0 {
                context.violation("p: target is a file");
                return None;
            }
            return Some((h, node.u.clone()));
        }
        return state
            .existed(h)
            .then(|| bin_of(state, user))
            .flatten()
            .map(|b| (b, user.to_owned()));
    }
    let to = state
        .users
        .get(target)
        .or_else(|| state.user_by_email(target))?;
    Some((to.roots.get(1).copied()?, to.handle.clone()))
}

/// Keys for shares above the new nodes: (entry, share, key).
fn share_keys(
    state: &State,
    context: &Context<'_>,
    args: &Args,
    parent: Handle,
) -> Vec<(usize, Handle, String)> {
    let names: Vec<String> = entries(args).map(|e| text(e, "h").to_owned()).collect();
    let above = state.shares_above(parent);
    cr_triples(args)
        .into_iter()
        .filter_map(|(share, node, key)| {
            let index = match node {
                CrNode::Index(i) => i,
                CrNode::Name(name) => names.iter().position(|n| *n == name)?,
            };
            if !above.contains(&share) {
                context.violation(format!("p: cr names {share}, which is no share above"));
                return None;
            }
            Some((index, share, key))
        })
        .collect()
}

/// The node a `cr` triple is about.
pub(crate) enum CrNode {
    /// Number of the entry in `n` (SDK, empty node list).
    Index(usize),
    /// The name in the node list.
    Name(String),
}

/// The triples of `cr`; malformed ones are left out.
pub(crate) fn cr_triples(args: &Args) -> Vec<(Handle, CrNode, String)> {
    let Some([shares, nodes, triples]) =
        args.get("cr").and_then(Value::as_array).map(Vec::as_slice)
    else {
        return Vec::new();
    };
    let list = |v: &Value| v.as_array().cloned().unwrap_or_default();
    let (shares, nodes, triples) = (list(shares), list(nodes), list(triples));
    triples
        .chunks_exact(3)
        .filter_map(|t| {
            let [s, n, key] = t else { return None };
            let share = shares
                .get(s.as_u64()? as usize)?
                .as_str()
                .and_then(Handle::parse)?;
            let n = n.as_u64()? as usize;
            let node = match nodes.get(n) {
                Some(name) => CrNode::Name(name.as_str()?.to_owned()),
                None if nodes.is_empty() => CrNode::Index(n),
                None => return None,
            };
            Some((share, node, key.as_str()?.to_owned()))
        })
        .collect()
}

/// Checks one entry and builds its node; an error code otherwise.
fn prepare(
    state: &mut State,
    context: &Context<'_>,
    user: &str,
    owner: &str,
    entry: &Args,
    parent: Handle,
) -> Result<(Node, Source), i64> {
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
    let source = source(state, context, user, entry, kind)?;
    let mk = state
        .users
        .get(user)
        .map(|u| u.mk)
        .filter(|mk| *mk != [0; 16]);
    if let Some(mk) = mk
        && let Some(key) = unwrap_key(k, &mk)
    {
        if key.raw().iter().all(|b| *b == 0) {
            context.violation("p: zero key");
            return Err(-14);
        }
        for wrong in check_attributes(a, &key).0 {
            context.violation(format!("p: {wrong}"));
        }
        check_reuse(state, context, entry, &source, &key);
    }
    let fa = match entry.get("fa").and_then(Value::as_str) {
        Some(fa) => cluster(fa),
        None => source.fa.clone(),
    };
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
    Ok((node, source))
}

/// `0*handle` as stored: `1:0*handle`.
pub(crate) fn cluster(fa: &str) -> String {
    let with = |part: &str| {
        if part.contains(':') {
            part.to_owned()
        } else {
            format!("1:{part}")
        }
    };
    fa.split('/')
        .filter(|p| !p.is_empty())
        .map(with)
        .collect::<Vec<_>>()
        .join("/")
}

/// A copy must keep its source's key, an upload must not use one that was used before.
fn check_reuse(
    state: &mut State,
    context: &Context<'_>,
    entry: &Args,
    source: &Source,
    key: &crate::crypto::NodeKey,
) {
    use crate::crypto::NodeKey;
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
    let old = super::handle(entry, "h").and_then(|h| state.node(h));
    if let Some(old) = old.and_then(|n| state.node_key(&n))
        && old != *key
    {
        context.violation("p: copy with another key than its source");
    }
}

/// Whether two uploads hold the same bytes; yes when the earlier one is gone.
fn same_content(state: &State, a: (u64, u64), b: (u64, u64)) -> bool {
    if a.0 != b.0 {
        return false;
    }
    let (Some(x), Some(y)) = (state.contents.get(&a.1), state.contents.get(&b.1)) else {
        return true;
    };
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
        if upload.used {
            context.violation("p: upload token used twice");
            return Err(-9);
        }
        if upload.user != user {
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
