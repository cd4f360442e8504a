//! Owns links and shares: `l`, `s2`, `k`, `pli` (protocol/03 sections 5 and 10, 04 section 9).

use serde_json::{Value, json};

use super::{Args, account, client_id, handle, now, number, share_keys, text};
use crate::change::Change;
use crate::codec::{Handle, b64, unb64_array};
use crate::crypto;
use crate::cs::{Answer, Context};
use crate::fixture::KeyForm;
use crate::state::{Link, Node, Share, State};
use crate::view::{View, quoted};

/// `l`.
pub(crate) fn link(state: &mut State, context: &Context<'_>, user: &str, args: &Args) -> Answer {
    let Some(node) = handle(args, "n").and_then(|h| state.node(h)) else {
        return Answer::Error(-9);
    };
    if node.u != user || node.t > 2 {
        return Answer::Error(-11);
    }
    let exported = state
        .shares
        .get(&node.h)
        .is_some_and(|s| s.users.contains_key("EXP"));
    if node.t != 0 && !exported {
        context.violation("l: folder that is not shared with EXP");
        return Answer::Error(-11);
    }
    let existing = state
        .links
        .iter()
        .find(|(_, l)| l.node == node.h)
        .map(|(ph, _)| ph.clone());
    if number(args, "d").unwrap_or(0) != 0 {
        let Some(ph) = existing else {
            return Answer::Data(json!(0));
        };
        state.delete_link(&ph);
        let change = state.begin(user, client_id(args));
        let rest = format!(r#""h":"{}","ph":"{ph}","d":1,"ts":{}"#, node.h, now());
        state.announce(&change, user, "ph", &rest);
        return Answer::Changed(change.tag(), Some(json!(0)));
    }
    if let Some(ph) = existing {
        return Answer::Unchanged(json!(ph));
    }
    let (change, ph) = make_link(state, user, node.h, client_id(args));
    Answer::Changed(change.tag(), Some(json!(ph)))
}

/// Creates a public link; also used by fixtures.
pub(crate) fn make_link(
    state: &mut State,
    user: &str,
    node: Handle,
    i: Option<String>,
) -> (Change, String) {
    // Public handles are a space of their own; a node handle is never given out as one.
    let ph = b64(&state.random::<6>());
    let ts = now();
    state.put_link(
        ph.clone(),
        Link {
            node,
            user: user.to_owned(),
            ts,
        },
    );
    let change = state.begin(user, i);
    let rest = format!(r#""h":"{node}","ph":"{ph}","n":1,"ts":{ts}"#);
    state.announce(&change, user, "ph", &rest);
    (change, ph)
}

/// `s2`.
pub(crate) fn share(state: &mut State, context: &Context<'_>, user: &str, args: &Args) -> Answer {
    let Some(node) = handle(args, "n").and_then(|h| state.node(h)) else {
        return Answer::Error(-9);
    };
    if node.u != user {
        return Answer::Error(-11);
    }
    if node.t == 0 {
        context.violation("s2: sharing a file");
        return Answer::Error(-2);
    }
    let change = state.begin(user, client_id(args));
    let list: Vec<Args> = args
        .get("s")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|e| e.as_object().cloned())
        .collect();
    let mut results = Vec::new();
    let mut known_ok = None;
    let mut fresh = Vec::new();
    for entry in list {
        let who = text(&entry, "u");
        let target = if who == "EXP" {
            Some("EXP".to_owned())
        } else {
            state
                .users
                .get(who)
                .or(state.user_by_email(who))
                .map(|u| u.handle.clone())
        };
        let Some(target) = target else {
            results.push(json!(-9));
            continue;
        };
        let Some(level) = number(&entry, "r") else {
            end_share(state, &change, node.h, &target);
            results.push(json!(0));
            continue;
        };
        let mut share = state.shares.get(&node.h).cloned().unwrap_or_default();
        if share.users.is_empty() {
            user.clone_into(&mut share.owner);
            text(args, "ok").clone_into(&mut share.ok);
            text(args, "ha").clone_into(&mut share.ha);
        } else if share.ok != text(args, "ok") {
            known_ok = Some(share.ok.clone());
        }
        let sk = match text(&entry, "k") {
            "" => recipient_key(state, user, &share.ok, &target),
            k => k.to_owned(),
        };
        if !share.users.contains_key(&target) {
            fresh.push(target.clone());
        }
        put_recipient(state, &change, node.h, share, &target, level, sk);
        results.push(json!(0));
    }
    share_keys::store(state, context, args);
    for n in state.subtree(node.h) {
        if state.shares.contains_key(&node.h) && !n.sk.iter().any(|(h, _)| *h == node.h) {
            context.violation("s2: no share key for a descendant");
            break;
        }
    }
    for target in &fresh {
        announce_contents(state, &change, node.h, target);
    }
    let mut reply = json!({"r": results});
    if let (Some(ok), Value::Object(o)) = (known_ok, &mut reply) {
        o.insert("ok".into(), json!(ok));
    }
    Answer::Changed(change.tag(), Some(reply))
}

/// The share key for a recipient, from the owner's `ok` (fixture knowledge of both master keys).
fn recipient_key(state: &State, owner: &str, ok: &str, recipient: &str) -> String {
    let key = |who: &str| state.users.get(who).map(|u| u.mk);
    let (Some(from), Some(to), Some(raw)) = (key(owner), key(recipient), unb64_array::<16>(ok))
    else {
        return String::new();
    };
    if raw == [0; 16] {
        return String::new();
    }
    b64(&crypto::ecb_encrypt(&to, &crypto::ecb_decrypt(&from, &raw)))
}

/// The share key for a recipient, encrypted with their RSA key.
fn rsa_key(state: &mut State, key: &crypto::Block, recipient: &str) -> String {
    let mut plain = key.to_vec();
    plain.extend(state.random::<254>());
    plain.truncate(254);
    let pubk = state.users.get(recipient).map(|u| u.pubk.clone());
    let sent = pubk.and_then(|pubk| crate::rsa::encrypt(&pubk, &plain));
    sent.map(|c| b64(&c)).unwrap_or_default()
}

/// Adds or changes one recipient and tells owner and recipient.
pub(crate) fn put_recipient(
    state: &mut State,
    change: &Change,
    h: Handle,
    mut share: Share,
    target: &str,
    level: i64,
    sk: String,
) {
    let ts = now();
    let owner = share.owner.clone();
    let ok = share.ok.clone();
    let ha = share.ha.clone();
    share
        .users
        .insert(target.to_owned(), (level, ts, sk.clone()));
    state.put_share(h, share);
    let head = format!(r#""n":"{h}","o":"{owner}","u":"{target}","r":{level},"ts":{ts}"#);
    let own = format!(r#"{head},"ok":{},"ha":{}"#, quoted(&ok), quoted(&ha));
    state.announce(change, &owner, "s2", &own);
    if target != "EXP" {
        state.announce(
            change,
            target,
            "s2",
            &format!(r#"{head},"k":{}"#, quoted(&sk)),
        );
    }
}

/// Sends the shared nodes to a new recipient.
pub(crate) fn announce_contents(state: &mut State, change: &Change, h: Handle, target: &str) {
    if target == "EXP" {
        return;
    }
    let view = View::Share(h, target.to_owned());
    let nodes = state.render_all(&state.subtree(h), &view);
    let owner = state.node(h).map(|node| node.u.clone()).unwrap_or_default();
    let email = state.users.get(&owner).map_or("", |u| u.email.as_str());
    let users = json!([{"u": owner, "c": 1, "m": email}]);
    let rest = format!(
        r#""t":{{"f":[{nodes}],"u":{users}}},"ou":"{}""#,
        change.user
    );
    state.announce(change, target, "t", &rest);
}

/// Ends one recipient's share: `s2` without `r` to both, `d` of the root to the recipient.
pub(crate) fn end_share(state: &mut State, change: &Change, h: Handle, target: &str) {
    let Some(mut share) = state.shares.get(&h).cloned() else {
        return;
    };
    if share.users.remove(target).is_none() {
        return;
    }
    let owner = share.owner.clone();
    state.put_share(h, share);
    let rest = format!(r#""n":"{h}","o":"{owner}","u":"{target}","ts":{}"#, now());
    state.announce(change, &owner, "s2", &rest);
    if target == "EXP" {
        let links: Vec<String> = state
            .links
            .iter()
            .filter(|(_, l)| l.node == h)
            .map(|(ph, _)| ph.clone())
            .collect();
        for ph in links {
            state.delete_link(&ph);
            let rest = format!(r#""h":"{h}","ph":"{ph}","d":1,"ts":{}"#, now());
            state.announce(change, &owner, "ph", &rest);
        }
    } else {
        state.announce(change, target, "s2", &rest);
        let gone = format!(r#""n":"{h}","ou":"{}""#, change.user);
        state.announce(change, target, "d", &gone);
    }
}

/// `k`: own keys again, or share keys for others.
pub(crate) fn keys(state: &mut State, context: &Context<'_>, user: &str, args: &Args) -> Answer {
    let own: Vec<&str> = args
        .get("nk")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for pair in own.chunks_exact(2) {
        let [h, key] = pair else { continue };
        let Some(node) = Handle::parse(h).and_then(|h| state.node(h)) else {
            continue;
        };
        if node.u != user {
            continue;
        }
        if key.len() != if node.t == 0 { 43 } else { 22 } {
            context.violation("k: key of the wrong length");
            continue;
        }
        let mut node = Node::clone(&node);
        (*key).clone_into(&mut node.k);
        state.put_node(node);
    }
    share_keys::store(state, context, args);
    Answer::Data(json!(0))
}

/// `pli`.
pub(crate) fn link_info(state: &State, args: &Args) -> Answer {
    let found = state
        .links
        .get(text(args, "ph"))
        .and_then(|l| state.node(l.node));
    let Some(node) = found.filter(|n| n.t != 0) else {
        return Answer::Error(-9);
    };
    let c = account::count(state, node.h);
    let key = node
        .sk
        .iter()
        .find(|(h, _)| *h == node.h)
        .map_or("", |(_, k)| k);
    Answer::Data(json!({
        "attrs": node.a, "ph": text(args, "ph"), "u": node.u, "s": [c.0, c.1, c.2, c.3, c.4],
        "k": format!("{}:{key}", node.h),
    }))
}

/// Shares a folder on the server's side (fixtures): keys for all descendants, then recipients.
pub(crate) fn share_as_fixture(
    state: &mut State,
    change: &Change,
    h: Handle,
    target: &str,
    level: i64,
    key: &crypto::Block,
    form: KeyForm,
) {
    let user = change.user.clone();
    let mk = state.users.get(&user).map_or([0; 16], |u| u.mk);
    for node in state.subtree(h) {
        let Some(node_key) = state.node_key(&node) else {
            continue;
        };
        let mut node = Node::clone(&node);
        // An earlier share of the folder had another key.
        node.sk.retain(|(r, _)| *r != h);
        node.sk
            .push((h, b64(&crypto::ecb_encrypt(key, &node_key.raw()))));
        state.put_node(node);
    }
    let is_modern = matches!(form, KeyForm::Kept | KeyForm::Pending);
    let share = state.shares.get(&h).cloned().unwrap_or_else(|| {
        if is_modern {
            return Share {
                owner: user.clone(),
                ok: b64(&[0; 16]),
                ha: b64(&[0; 16]),
                users: std::collections::BTreeMap::new(),
                secret: Some(*key),
            };
        }
        let text = h.to_string();
        Share {
            owner: user.clone(),
            ok: b64(&crypto::ecb_encrypt(&mk, key)),
            ha: b64(&crypto::ecb_encrypt(
                &mk,
                format!("{text}{text}").as_bytes(),
            )),
            users: std::collections::BTreeMap::new(),
            secret: None,
        }
    });
    let sk = match form {
        KeyForm::Legacy => recipient_key(state, &user, &share.ok, target),
        KeyForm::Rsa => rsa_key(state, key, target),
        KeyForm::Kept | KeyForm::Pending => String::new(),
    };
    put_recipient(state, change, h, share, target, level, sk);
    announce_contents(state, change, h, target);
    if is_modern {
        state.keep_share_key(&user, h, key);
    }
    match form {
        KeyForm::Kept => state.keep_share_key(target, h, key),
        KeyForm::Pending => state.leave_share_key(change, target, h, key),
        KeyForm::Legacy | KeyForm::Rsa => {}
    }
}
