//! Owns `cr` (protocol/04 section 8): the keys a client sends so that recipients of shares and
//! visitors of links can read new or moved nodes. A fixture knows share and master keys, so every
//! key is opened and compared with the node's; a real server could not.

use std::collections::HashSet;

use serde_json::Value;

use super::{Args, text};
use crate::codec::{Handle, b64, is_canonical};
use crate::crypto::{self, NodeKey};
use crate::cs::Context;
use crate::state::{Node, State};

/// The node a triple is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    /// Number of the entry in `n` (SDK, empty node list).
    Index(usize),
    /// A place in the node list and the name there.
    Named(usize, String),
}

/// One share, one node, one key.
struct Triple {
    share: Handle,
    node: Subject,
    key: String,
}

/// The triples of `cr`; whatever is malformed is a violation and left out.
fn triples(context: &Context<'_>, args: &Args) -> Vec<Triple> {
    let Some(cr) = args.get("cr") else {
        return Vec::new();
    };
    let command = text(args, "a");
    let wrong = |what: &str| context.violation(format!("{command}: cr {what}"));
    let Some(
        [
            Value::Array(shares),
            Value::Array(nodes),
            Value::Array(flat),
        ],
    ) = cr.as_array().map(Vec::as_slice)
    else {
        wrong("is not three arrays");
        return Vec::new();
    };
    if flat.len() % 3 != 0 {
        wrong("does not consist of triples");
    }
    let mut seen = HashSet::new();
    let mut out = Vec::new();
    for [s, n, key] in flat.as_chunks::<3>().0 {
        let index = |v: &Value| v.as_u64().and_then(|i| usize::try_from(i).ok());
        let share = index(s)
            .and_then(|i| shares.get(i)?.as_str())
            .and_then(Handle::parse);
        let (Some(share), Some(n), Some(key)) = (share, index(n), key.as_str()) else {
            wrong("has a triple that names no share, no node or no key");
            continue;
        };
        let node = match nodes.get(n).map(Value::as_str) {
            Some(Some(name)) => Subject::Named(n, name.to_owned()),
            None if nodes.is_empty() => Subject::Index(n),
            _ => {
                wrong("has a triple with a node number beyond its list");
                continue;
            }
        };
        if !matches!(key.len(), 22 | 43) || !is_canonical(key) {
            wrong("has a key that is not 16 or 32 bytes of canonical base64");
            continue;
        }
        if !seen.insert((share, node.clone())) {
            wrong("has two keys for one node and share");
        }
        out.push(Triple {
            share,
            node,
            key: key.to_owned(),
        });
    }
    out
}

/// The keys `p` brings for its entries: (entry, share, key). Shares that are not above `parent`
/// are violations; one that has just ended is not, the client could not know.
pub(crate) fn of_entries(
    state: &State,
    context: &Context<'_>,
    args: &Args,
    names: &[&str],
    parent: Handle,
) -> Vec<(usize, Handle, String)> {
    let all = triples(context, args);
    if all.is_empty() {
        return Vec::new();
    }
    let ancestors = state.ancestors(parent);
    let mut out = Vec::new();
    for Triple { share, node, key } in all {
        let index = match node {
            Subject::Index(i) => (i < names.len()).then_some(i),
            // Folder entries often share one temporary name; then the place decides.
            Subject::Named(i, name) if names.get(i) == Some(&name.as_str()) => Some(i),
            Subject::Named(_, name) => names.iter().position(|n| **n == name),
        };
        let Some(index) = index else {
            context.violation("p: cr names a node that is no entry");
            continue;
        };
        if state.shares.contains_key(&share) && ancestors.contains(&share) {
            out.push((index, share, key));
        } else if !ancestors.contains(&share) {
            context.violation(format!("p: cr names {share}, which is no share above"));
        }
    }
    out
}

/// Checks the keys of one new entry against its node key: all shares above, each key right.
pub(crate) fn check_entry(
    state: &State,
    context: &Context<'_>,
    parent: Handle,
    index: usize,
    keys: &[(Handle, String)],
    key: Option<&NodeKey>,
) {
    for root in state.shares_above(parent) {
        let Some((_, sent)) = keys.iter().find(|(h, _)| *h == root) else {
            context.violation(format!("p: no key for share {root}"));
            continue;
        };
        if let Some(key) = key
            && !state.fits(root, sent, key)
        {
            context.violation(format!(
                "p: the key for share {root} of entry {index} is not the node's"
            ));
        }
    }
}

/// Stores the share keys of `cr` for existing nodes (`m`, `s2`, `k`).
pub(crate) fn store(state: &mut State, context: &Context<'_>, args: &Args) {
    for Triple { share, node, key } in triples(context, args) {
        let name = match node {
            Subject::Named(_, name) => name,
            Subject::Index(_) => {
                context.violation("cr without a node list outside of p");
                continue;
            }
        };
        let found = Handle::parse(&name).and_then(|h| state.node(h));
        let Some(found) = found else {
            continue;
        };
        let command = text(args, "a");
        if !state.ancestors(found.h).contains(&share) && command != "m" {
            context.violation(format!("{command}: cr names a node outside of {share}"));
        }
        if let Some(own) = state.node_key(&found)
            && !state.fits(share, &key, &own)
        {
            context.violation(format!(
                "{command}: the key for share {share} is not that of {name}"
            ));
        }
        let mut node = Node::clone(&found);
        node.sk.retain(|(h, _)| *h != share);
        node.sk.push((share, key));
        state.put_node(node);
    }
}

impl State {
    /// The key of a share, `None` when even the fixture cannot know it.
    pub(crate) fn share_key(&self, root: Handle) -> Option<crypto::Block> {
        let share = self.shares.get(&root)?;
        if share.secret.is_some() {
            return share.secret;
        }
        let mk = self.users.get(&share.owner)?.mk;
        let ok = crate::codec::unb64_array::<16>(&share.ok)?;
        // Modern clients send zeros here and keep the key in `^!keys`.
        (ok != [0; 16] && mk != [0; 16]).then(|| crypto::block_at(&crypto::ecb_decrypt(&mk, &ok)))
    }

    /// Whether `sent` is `key` wrapped with the key of share `root`; yes when that is unknown.
    fn fits(&self, root: Handle, sent: &str, key: &NodeKey) -> bool {
        let Some(share) = self.share_key(root) else {
            return true;
        };
        b64(&crypto::ecb_encrypt(&share, &key.raw())) == sent
    }
}
