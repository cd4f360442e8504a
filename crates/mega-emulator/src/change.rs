//! Owns the changes of trees together with the packets that announce them (protocol/05 section 5,
//! 06 section 4a): creation, attributes, move, removal, one version's removal. Commands, fixtures
//! and the control interface all go through here, so a change can never go unannounced.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::codec::Handle;
use crate::state::{Node, State, tag};
use crate::view::{View, quoted};

/// One change in progress.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// Number; groups packets and makes the tag.
    pub(crate) group: u64,
    /// Who did it.
    pub(crate) user: String,
    /// The command's `i`.
    pub(crate) i: Option<String>,
}

impl Change {
    /// The tag of this change.
    pub(crate) fn tag(&self) -> String {
        tag(self.group)
    }

    /// A packet: `a`, then `i`, then `st`, then the rest, which is JSON members without braces.
    fn packet(&self, a: &str, tagged: bool, rest: &str) -> String {
        let mut out = format!(r#"{{"a":"{a}""#);
        if let Some(i) = &self.i {
            out.push_str(&format!(r#","i":{}"#, quoted(i)));
        }
        if tagged {
            out.push_str(&format!(r#","st":"{}""#, self.tag()));
        }
        out.push(',');
        out.push_str(rest);
        out.push('}');
        out
    }
}

/// Whether a `t` packet carries the change's tag: all do except the second half of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tagged {
    /// With `st`.
    Yes,
    /// Without.
    No,
}

impl State {
    /// Starts a change by `user`.
    pub(crate) fn begin(&mut self, user: &str, i: Option<String>) -> Change {
        Change {
            group: self.new_group(),
            user: user.to_owned(),
            i,
        }
    }

    /// Announces something that is not about nodes to one user.
    pub(crate) fn announce(&mut self, change: &Change, to: &str, a: &str, rest: &str) {
        let packet = change.packet(a, true, rest);
        self.emit(to, packet, change.group);
    }

    /// Announces nodes (`t`): new or changed ones in `f` with their index, others in `f2`.
    pub(crate) fn announce_nodes(
        &mut self,
        change: &Change,
        new: &[(Arc<Node>, Option<usize>)],
        old: &[Arc<Node>],
        tagged: Tagged,
    ) {
        let mut per_user: BTreeMap<String, (String, String)> = BTreeMap::new();
        let mut views: BTreeMap<Option<Handle>, Vec<(String, View)>> = BTreeMap::new();
        let all = new
            .iter()
            .map(|(n, i)| (n, *i, false))
            .chain(old.iter().map(|n| (n, None, true)));
        for (node, index, second) in all {
            // Siblings share their audience unless a node is a share root itself.
            let key = if self.shares.contains_key(&node.h) {
                Some(node.h)
            } else {
                node.p
            };
            let audience = views
                .entry(key)
                .or_insert_with(|| self.audience(node.h))
                .clone();
            for (user, view) in audience {
                let (f, f2) = per_user.entry(user).or_default();
                let list = if second { f2 } else { f };
                if !list.is_empty() {
                    list.push(',');
                }
                self.render(node, &view, index, list);
            }
        }
        for (user, (f, f2)) in per_user {
            let mut rest = format!(r#""t":{{"f":[{f}]"#);
            if !f2.is_empty() {
                rest.push_str(&format!(r#","f2":[{f2}]"#));
            }
            rest.push_str(&format!(r#"}},"ou":"{}""#, change.user));
            let packet = change.packet("t", tagged == Tagged::Yes, &rest);
            self.emit(&user, packet, change.group);
        }
    }

    fn announce_gone(&mut self, change: &Change, h: Handle, member: &str) {
        let packet = change.packet(
            "d",
            true,
            &format!(r#""n":"{h}"{member},"ou":"{}""#, change.user),
        );
        for (user, _) in self.audience(h) {
            self.emit(&user, packet.clone(), change.group);
        }
    }

    /// Replaces a node's attributes (`u`).
    pub(crate) fn set_attributes(&mut self, change: &Change, h: Handle, at: &str) {
        let Some(node) = self.node(h) else { return };
        let mut node = Node::clone(&node);
        at.clone_into(&mut node.a);
        let rest = format!(
            r#""n":"{h}","u":"{}","at":{},"ts":{},"ou":"{}""#,
            node.u,
            quoted(at),
            node.ts,
            change.user
        );
        self.put_node(node);
        let packet = change.packet("u", true, &rest);
        for (user, _) in self.audience(h) {
            self.emit(&user, packet.clone(), change.group);
        }
    }

    /// Sets a node's file attributes (`fa`).
    pub(crate) fn set_file_attributes(&mut self, change: &Change, h: Handle, fa: &str) {
        let Some(node) = self.node(h) else { return };
        let mut node = Node::clone(&node);
        fa.clone_into(&mut node.fa);
        self.put_node(node);
        let packet = change.packet("fa", true, &format!(r#""n":"{h}","fa":{}"#, quoted(fa)));
        for (user, _) in self.audience(h) {
            self.emit(&user, packet.clone(), change.group);
        }
    }

    /// Moves a subtree: `d` with `m:1`, then `t` with all of it.
    pub(crate) fn move_node(&mut self, change: &Change, h: Handle, to: Handle) {
        let Some(node) = self.node(h) else { return };
        self.announce_gone(change, h, r#","m":1"#);
        let mut node = Node::clone(&node);
        node.p = Some(to);
        self.put_node(node);
        let all = self.subtree(h);
        let (versions, plain): (Vec<_>, Vec<_>) = all.into_iter().partition(|n| self.is_version(n));
        let plain: Vec<_> = plain.into_iter().map(|n| (n, None)).collect();
        self.announce_nodes(change, &plain, &versions, Tagged::No);
    }

    /// Removes a subtree, for a file with its older versions.
    pub(crate) fn remove(&mut self, change: &Change, h: Handle) {
        let nodes = self.subtree(h);
        // Recipients of shares further down are not in the audience of `h`.
        for node in nodes.iter().skip(1) {
            let share = self.shares.get(&node.h);
            let users: Vec<String> = share.iter().flat_map(|s| s.users.keys().cloned()).collect();
            for user in users {
                crate::commands::sharing::end_share(self, change, node.h, &user);
            }
        }
        self.announce_gone(change, h, "");
        for node in nodes.into_iter().rev() {
            self.delete_node(node.h);
        }
    }

    /// Removes one version; the older ones move up under its parent.
    pub(crate) fn remove_version(&mut self, change: &Change, h: Handle) {
        let Some(node) = self.node(h) else { return };
        let chain = self.subtree(h);
        let head = !self.is_version(&node);
        self.announce_gone(change, h, r#","v":1"#);
        if let Some(next) = chain.get(1) {
            let mut next = Node::clone(next);
            next.p = node.p;
            self.put_node(next);
        }
        self.delete_node(h);
        let mut rest: Vec<Arc<Node>> = chain
            .iter()
            .skip(1)
            .filter_map(|n| self.node(n.h))
            .collect();
        let first: Vec<_> = if head {
            rest.drain(..rest.len().min(1)).map(|n| (n, None)).collect()
        } else {
            Vec::new()
        };
        if !first.is_empty() || !rest.is_empty() {
            self.announce_nodes(change, &first, &rest, Tagged::Yes);
        }
    }

    /// Hangs `old` under `new` as its previous version; returns it as stored.
    pub(crate) fn supersede(&mut self, old: Handle, new: Handle) -> Option<Arc<Node>> {
        let mut node = Node::clone(&*self.node(old)?);
        node.p = Some(new);
        self.put_node(node);
        self.node(old)
    }

    /// Stores a user attribute (`ua`); returns its new version.
    pub(crate) fn set_user_attributes(
        &mut self,
        change: &Change,
        values: &[(String, String)],
    ) -> Vec<String> {
        let Some(mut user) = self.users.get(&change.user).cloned() else {
            return Vec::new();
        };
        let mut versions = Vec::new();
        for (name, value) in values {
            let version = crate::codec::b64(&self.random::<8>());
            user.attributes
                .insert(name.clone(), (value.clone(), version.clone()));
            versions.push(version);
        }
        let names: Vec<&String> = values.iter().map(|(n, _)| n).collect();
        let rest = format!(
            r#""u":"{}","ua":{},"v":{}"#,
            change.user,
            Value::from(names.iter().map(|n| n.as_str()).collect::<Vec<_>>()),
            Value::from(versions.clone())
        );
        self.put_user(user);
        self.announce(change, &change.user.clone(), "ua", &rest);
        versions
    }
}
