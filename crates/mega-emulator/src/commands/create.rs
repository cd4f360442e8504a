//! Owns `p` (protocol/04 section 8): uploads, folders, copies, imports, versions.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};

use self::entry::Ready;
use super::{Args, client_id, number, share_keys, text};
use crate::change::{Change, Tagged};
use crate::codec::{Handle, b64, unb64};
use crate::cs::{Answer, Context};
use crate::state::{Node, State};
use crate::strict::{check_attributes, check_content, unwrap_key};
use crate::view::View;

mod entry;

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
            let Some((content, size, mk)) = found.filter(|(c, ..)| !c.is_dropped()) else {
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

/// What came of the entries of one command.
#[derive(Default)]
struct Plan {
    /// In the order of `n`.
    ready: Vec<Ready>,
    /// One per entry, 0 for those that are ready.
    errors: Vec<i64>,
    /// Bytes that would be added.
    added: u64,
}

/// Prepares all entries below `parent`.
fn plan(
    state: &mut State,
    context: &Context<'_>,
    (user, owner): (&str, &str),
    args: &Args,
    parent: Handle,
) -> Plan {
    let names: Vec<&str> = entries(args).map(|e| text(e, "h")).collect();
    let keys = share_keys::of_entries(state, context, args, &names, parent);
    // Temporary ids: where they are, `None` when that folder could not be made.
    let mut temporary: HashMap<String, Option<Handle>> = HashMap::new();
    let mut reused: HashSet<String> = HashSet::new();
    let mut spent = entry::Spent::default();
    let mut plan = Plan::default();
    for (index, entry) in entries(args).enumerate() {
        let at = match entry.get("p").and_then(Value::as_str) {
            None => Some(parent),
            Some(p) => {
                if !temporary.contains_key(p) {
                    context.violation("p: entry names a parent that is not earlier in the request");
                } else if reused.contains(p) {
                    context.violation("p: entry names a temporary id that two folders have");
                }
                temporary.get(p).copied().flatten()
            }
        };
        let fault = context.entry_error.filter(|(i, _)| *i == index);
        let made = match (at, fault) {
            (_, Some((_, code))) => Err(code),
            (None, _) => Err(-9),
            (Some(at), None) => entry::prepare(
                state,
                context,
                (user, owner),
                (index, entry),
                at,
                &mut spent,
            ),
        };
        if number(entry, "t") == Some(1) {
            let id = text(entry, "h").to_owned();
            let place = made.as_ref().ok().map(|r| r.node.h);
            if temporary.insert(id.clone(), place).is_some() {
                reused.insert(id);
            }
        }
        match made {
            Ok(mut ready) => {
                let own = keys.iter().filter(|(i, _, _)| *i == index);
                ready.node.sk = own.map(|(_, h, k)| (*h, k.clone())).collect();
                let (sk, key) = (&ready.node.sk, ready.key.as_ref());
                share_keys::check_entry(state, context, parent, index, sk, key);
                plan.added += ready.source.size;
                plan.errors.push(0);
                plan.ready.push(ready);
            }
            Err(code) => plan.errors.push(code),
        }
    }
    plan
}

/// `p`. Without `sm` (protocol version 1) or `v:4` (version 3) one failed entry fails the command
/// and nothing is made; with it the others are made, and replies tell by `i` or `e` which.
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
    let Plan {
        ready,
        errors,
        added,
    } = plan(state, context, (user, owner.as_str()), args, parent);
    if errors.is_empty() {
        // Only `cr` for existing nodes, as the SDK never does in p.
        context.violation("p: no entries");
        return Answer::Error(-2);
    }
    let sparse = if context.version >= 2 {
        number(args, "v").unwrap_or(0) >= 4
    } else {
        number(args, "sm") == Some(1)
    };
    let failed = errors.iter().find(|e| **e < 0).copied();
    if let Some(code) = failed
        && (!sparse || ready.is_empty())
    {
        return Answer::Error(code);
    }
    let used = state.used.get(&owner).copied().unwrap_or(0);
    let quota = state.users.get(&owner).map_or(0, |u| u.quota);
    if added > 0 && used.saturating_add(added) > quota {
        return Answer::Error(if owner == user { -17 } else { -24 });
    }
    let change = state.begin(user, client_id(args));
    let (new, superseded) = put(state, &change, &owner, args, ready);
    state.announce_nodes(&change, &new, &superseded, Tagged::Yes);
    if context.version >= 2 {
        let e = if failed.is_some() {
            json!(errors)
        } else {
            json!([])
        };
        let fh: Vec<String> = new
            .iter()
            .filter(|(n, _)| n.t == 0)
            .map(|(n, _)| {
                let file = n.content.unwrap_or_else(|| u64::from(n.h.place().1));
                format!("{}:{}", n.h, b64(&file.to_be_bytes()))
            })
            .collect();
        return Answer::Changed(change.tag(), Some(json!({"e": e, "fh": fh})));
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

/// New nodes with their place in `n`, and the versions they superseded.
type Put = (Vec<(Arc<Node>, Option<usize>)>, Vec<Arc<Node>>);

/// Stores what is ready; tokens are used up, overwritten files become versions or go.
fn put(state: &mut State, change: &Change, owner: &str, args: &Args, ready: Vec<Ready>) -> Put {
    let opted_out = |state: &State| {
        let attributes = state.users.get(owner).map(|u| &u.attributes);
        attributes
            .and_then(|a| a.get("^!dv"))
            .is_some_and(|(v, _)| v == "1" || unb64(v).as_deref() == Some(b"1"))
    };
    let replace = match number(args, "vb") {
        Some(vb) => vb == 0,
        None => opted_out(state),
    };
    let mut new = Vec::new();
    let mut superseded: Vec<Arc<Node>> = Vec::new();
    for made in ready {
        let h = made.node.h;
        if let Some(id) = made.source.upload
            && let Some(upload) = state.uploads.get(&id)
        {
            let mut upload = upload.clone();
            upload.used = true;
            upload.key = made.sent_key;
            state.put_upload(id, upload);
        }
        state.put_node(made.node);
        if let Some(old) = made.old {
            if replace {
                state.remove(change, old);
            } else {
                superseded.extend(state.supersede(old, h));
            }
        }
        new.push((h, made.index));
    }
    let new = new
        .into_iter()
        .filter_map(|(h, i)| Some((state.node(h)?, Some(i))))
        .collect();
    (new, superseded)
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
