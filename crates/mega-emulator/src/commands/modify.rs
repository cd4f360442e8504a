//! Owns commands that change existing nodes: `m`, `a`, `d`, `dr`, `dv`, `pfa` (protocol/04
//! section 9).

use serde_json::json;

use super::create::{bin_of, cluster};
use super::{Args, client_id, handle, number, share_keys, text};
use crate::codec::Handle;
use crate::cs::{Answer, Context};
use crate::state::State;
use crate::strict::{check_attributes, lost_members, unwrap_key};

/// `m`.
pub(crate) fn relocate(
    state: &mut State,
    context: &Context<'_>,
    user: &str,
    args: &Args,
) -> Answer {
    let (Some(h), Some(to)) = (handle(args, "n"), handle(args, "t")) else {
        context.violation("m: malformed handle");
        return Answer::Error(-2);
    };
    let (Some(node), Some(target)) = (state.node(h), state.node(to)) else {
        return Answer::Error(-9);
    };
    if node.t > 1 {
        context.violation("m: moving a root");
        return Answer::Error(-11);
    }
    if target.t == 0 {
        context.violation("m: target is a file");
        return Answer::Error(-2);
    }
    let share_of = |h| state.shares_above(h);
    let allowed = match (state.access(user, h), state.access(user, to)) {
        (Some(3), Some(3)) => true,
        // Inside one share with full access, but never the share's root itself.
        (Some(2), Some(2)) => {
            node.u == target.u
                && !state.shares.contains_key(&h)
                && share_of(h).iter().any(|r| share_of(to).contains(r))
        }
        _ => false,
    };
    if !allowed {
        return Answer::Error(-11);
    }
    if state.ancestors(to).contains(&h) {
        return Answer::Error(-10);
    }
    if node.p == Some(to) {
        return Answer::Data(json!(0));
    }
    let missing: Vec<Handle> = state
        .shares_above(to)
        .into_iter()
        .filter(|r| !state.shares_above(h).contains(r))
        .collect();
    share_keys::store(state, context, args);
    if !missing.is_empty() {
        let bare = state
            .subtree(h)
            .iter()
            .any(|n| missing.iter().any(|r| !n.sk.iter().any(|(h, _)| h == r)));
        if bare {
            context.violation("m: into a share without keys for all nodes");
        }
    }
    let change = state.begin(user, client_id(args));
    state.move_node(&change, h, to);
    Answer::Changed(change.tag(), None)
}

/// `a`.
pub(crate) fn attributes(
    state: &mut State,
    context: &Context<'_>,
    user: &str,
    args: &Args,
) -> Answer {
    let at = if args.contains_key("at") {
        text(args, "at")
    } else {
        text(args, "attr")
    };
    let Some(h) = handle(args, "n") else {
        return Answer::Error(-2);
    };
    let Some(node) = state.node(h) else {
        return Answer::Error(-9);
    };
    if node.t > 1 {
        context.violation("a: attributes of a root");
        return Answer::Error(-11);
    }
    if at.is_empty() {
        context.violation("a: empty attributes");
        return Answer::Error(-2);
    }
    if state.access(user, h).is_none_or(|level| level < 2) {
        return Answer::Error(-11);
    }
    if let Some(key) = state.node_key(&node) {
        let (wrong, parsed) = check_attributes(at, &key);
        for w in wrong {
            context.violation(format!("a: {w}"));
        }
        if let (Some(old), Some(new)) = (state.attribute_text(&node), &parsed) {
            for name in lost_members(&old, new) {
                context.violation(format!("a: attribute member {name} was dropped"));
            }
        }
        let sent = args.get("key").and_then(|k| k.as_str());
        let mk = state.users.get(user).map_or([0; 16], |u| u.mk);
        if node.u == user && sent.is_some_and(|k| unwrap_key(k, &mk) != Some(key)) {
            context.violation("a: key differs from the node's");
        }
    }
    if node.a == at {
        return Answer::Data(json!(0));
    }
    let change = state.begin(user, client_id(args));
    state.set_attributes(&change, h, at);
    Answer::Changed(change.tag(), None)
}

/// `d`.
pub(crate) fn delete(state: &mut State, context: &Context<'_>, user: &str, args: &Args) -> Answer {
    let Some(h) = handle(args, "n") else {
        return Answer::Error(-2);
    };
    let Some(node) = state.node(h) else {
        return Answer::Error(-9);
    };
    if node.t > 1 {
        context.violation("d: deleting a root");
        return Answer::Error(-11);
    }
    let level = state.access(user, h);
    if node.u != user
        && state
            .shares
            .get(&h)
            .is_some_and(|s| s.users.contains_key(user))
    {
        let change = state.begin(user, client_id(args));
        super::sharing::end_share(state, &change, h, user);
        return Answer::Changed(change.tag(), None);
    }
    if level.is_none_or(|l| l < 2) {
        return Answer::Error(-11);
    }
    let change = state.begin(user, client_id(args));
    // On a folder `v` means nothing: all of it goes.
    if node.t == 0 && (number(args, "v") == Some(1) || state.is_version(&node)) {
        state.remove_version(&change, h);
    } else {
        state.remove(&change, h);
    }
    Answer::Changed(change.tag(), None)
}

/// `dr`.
pub(crate) fn empty_bin(state: &mut State, user: &str, args: &Args) -> Answer {
    let Some(bin) = bin_of(state, user) else {
        return Answer::Error(-9);
    };
    let change = state.begin(user, client_id(args));
    let children = state.child_handles(bin);
    if children.is_empty() {
        return Answer::Data(json!(0));
    }
    for h in children {
        state.remove(&change, h);
    }
    Answer::Changed(change.tag(), None)
}

/// `dv`.
pub(crate) fn delete_versions(state: &mut State, user: &str, args: &Args) -> Answer {
    let change = state.begin(user, client_id(args));
    let roots = state
        .users
        .get(user)
        .map(|u| u.roots.clone())
        .unwrap_or_default();
    let mut any = false;
    for root in roots {
        for node in state.subtree(root) {
            // The newest of the old versions takes the rest of the chain with it.
            if state.is_version(&node)
                && node
                    .p
                    .and_then(|p| state.node(p))
                    .is_some_and(|p| !state.is_version(&p))
            {
                state.remove(&change, node.h);
                any = true;
            }
        }
    }
    if any {
        Answer::Changed(change.tag(), None)
    } else {
        Answer::Data(json!(0))
    }
}

/// `pfa`.
pub(crate) fn file_attributes(state: &mut State, user: &str, args: &Args) -> Answer {
    let Some(node) = handle(args, "n").and_then(|h| state.node(h)) else {
        return Answer::Error(-9);
    };
    if state.access(user, node.h).is_none_or(|l| l < 2) {
        return Answer::Error(-11);
    }
    let kind = |part: &str| part.split(['*', ':']).rev().nth(1).map(str::to_owned);
    let new = cluster(text(args, "fa"));
    let fresh: Vec<_> = new.split('/').map(kind).collect();
    let kept = node
        .fa
        .split('/')
        .filter(|p| !p.is_empty() && !fresh.contains(&kind(p)));
    let fa = kept.chain(new.split('/')).collect::<Vec<_>>().join("/");
    let change = state.begin(user, client_id(args));
    state.set_file_attributes(&change, node.h, &fa);
    Answer::Changed(change.tag(), Some(json!(fa)))
}
