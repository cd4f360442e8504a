//! Owns how nodes look on the wire to a given reader (protocol/03 section 2): the owner sees the
//! key wrapped with the master key, a share's recipient and a link's visitor the one wrapped with
//! the share key.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value;

use crate::codec::Handle;
use crate::state::{Node, State};

/// For whom nodes are rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// The account's owner.
    Owner,
    /// A recipient (user handle) of the share at this root.
    Share(Handle, String),
    /// A visitor of the folder link at this root.
    Link(Handle),
}

/// `text` as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The name of the event stream of a folder link's visitors; no user handle has its length.
pub(crate) fn visitors(root: Handle) -> String {
    format!("link-{root}")
}

impl View {
    /// The `k` member of `node`.
    fn key(&self, node: &Node) -> String {
        let under = |root: &Handle| {
            let found = node.sk.iter().find(|(h, _)| h == root);
            found.map(|(h, k)| format!("{h}:{k}")).unwrap_or_default()
        };
        match self {
            Self::Owner if node.k.contains(':') => node.k.clone(),
            Self::Owner if !node.k.is_empty() => format!("{}:{}", node.u, node.k),
            Self::Owner => {
                let all: Vec<String> = node.sk.iter().map(|(h, k)| format!("{h}:{k}")).collect();
                all.join("/")
            }
            Self::Share(root, _) | Self::Link(root) => under(root),
        }
    }
}

impl State {
    /// Appends the node object; `index` is its place in the `n` that created it.
    pub(crate) fn render(&self, node: &Node, view: &View, index: Option<usize>, out: &mut String) {
        let p = node.p.map(|p| p.to_string()).unwrap_or_default();
        let _ = write!(
            out,
            r#"{{"h":"{}","p":"{p}","u":"{}","t":{},"a":{},"k":{},"ts":{}"#,
            node.h,
            node.u,
            node.t,
            quoted(&node.a),
            quoted(&view.key(node)),
            node.ts
        );
        if node.t == 0 {
            let _ = write!(out, r#","s":{}"#, node.s);
        }
        if !node.fa.is_empty() {
            let _ = write!(out, r#","fa":{}"#, quoted(&node.fa));
        }
        if let View::Share(root, user) = view
            && *root == node.h
            && let Some(share) = self.shares.get(root)
            && let Some((level, ts, sk)) = share.users.get(user)
        {
            let _ = write!(
                out,
                r#","su":"{}","r":{level},"sts":{ts},"sk":{}"#,
                share.owner,
                quoted(sk)
            );
        }
        if let Some(i) = index {
            let _ = write!(out, r#","i":{i}"#);
        }
        out.push('}');
    }

    /// A comma-separated list of node objects.
    pub(crate) fn render_all<'a>(
        &self,
        nodes: impl IntoIterator<Item = &'a Arc<Node>>,
        view: &View,
    ) -> String {
        let mut out = String::new();
        for node in nodes {
            if !out.is_empty() {
                out.push(',');
            }
            self.render(node, view, None, &mut out);
        }
        out
    }

    /// Everybody who sees node `h`: its owner, the recipients of shares above it, and the visitors of folder
    /// links, who all listen to the stream of the link's root.
    pub(crate) fn audience(&self, h: Handle) -> Vec<(String, View)> {
        let Some(node) = self.node(h) else {
            return Vec::new();
        };
        let mut out = vec![(node.u.clone(), View::Owner)];
        for root in self.ancestors(h) {
            let Some(share) = self.shares.get(&root) else {
                continue;
            };
            if share.users.contains_key("EXP") {
                out.push((visitors(root), View::Link(root)));
            }
            for user in share.users.keys().filter(|u| *u != "EXP") {
                if !out.iter().any(|(u, _)| u == user) {
                    out.push((user.clone(), View::Share(root, user.clone())));
                }
            }
        }
        out
    }

    /// What `user` may do with node `h`: 3 owner, 0 to 2 by a share, `None` nothing.
    pub(crate) fn access(&self, user: &str, h: Handle) -> Option<i64> {
        let node = self.node(h)?;
        if node.u == user {
            return Some(3);
        }
        let levels = self.ancestors(h).into_iter().filter_map(|root| {
            self.shares
                .get(&root)?
                .users
                .get(user)
                .map(|(level, _, _)| *level)
        });
        levels.max()
    }

    /// Share roots (with links) at or above `h`.
    pub(crate) fn shares_above(&self, h: Handle) -> Vec<Handle> {
        self.ancestors(h)
            .into_iter()
            .filter(|h| self.shares.contains_key(h))
            .collect()
    }

    /// Whether the node is an old version: its parent is a file.
    pub(crate) fn is_version(&self, node: &Node) -> bool {
        node.t == 0 && node.p.and_then(|p| self.node(p)).is_some_and(|p| p.t == 0)
    }
}
