//! `cr`: keys of new and moved nodes for those who see the shares above them (protocol/04 section 8).
//!
//! Below a folder that is shared or has a public link, a node is put under our master key as always;
//! recipients only have the key of the share, so every such node also goes out wrapped in that one.
//! Without it they would see nodes they cannot read.

use mega_crypto::NodeKey;
use mega_proto::command::CrossKeys;
use mega_proto::{NodeHandle, b64};

use crate::state::State;

/// Deepest folder that is looked at: a circle of parents must not hang us.
const DEEPEST: usize = 512;
/// Most nodes whose keys go along with the move of a folder. A larger one is moved all the same; its
/// recipients get the rest from whichever client repairs it.
const MOST_MOVED: usize = 20_000;

/// The keys that one of the nodes gets in the command.
pub(super) fn keys_of(cr: Option<&CrossKeys>, node: usize) -> Vec<String> {
    let all = cr.into_iter().flat_map(|cr| &cr.keys);
    all.filter(|(_, of, _)| *of == node)
        .map(|(_, _, key)| key.clone())
        .collect()
}

impl State {
    /// Keys for every share above `folder`, or of `folder` itself, and every one of `nodes` (name in the
    /// command, key). `None` when nothing above is shared.
    pub(super) fn cross_keys<'k>(
        &self,
        folder: NodeHandle,
        nodes: impl Iterator<Item = (String, &'k NodeKey)>,
    ) -> Option<CrossKeys> {
        if !self.decryptor.has_shares() {
            return None;
        }
        let mut above = Vec::new();
        let mut at = Some(folder);
        while let Some(handle) = at
            && above.len() < DEEPEST
        {
            above.push(handle);
            at = self
                .node_row(handle)
                .ok()
                .flatten()
                .and_then(|row| row.parent);
        }
        let mut cr = CrossKeys::default();
        for (name, key) in nodes {
            let node = cr.nodes.len();
            cr.nodes.push(name);
            for handle in &above {
                let Some(wrapped) = self.decryptor.wrap_for_share(*handle, key) else {
                    continue;
                };
                let known = cr.shares.iter().position(|share| share == handle);
                let share = known.unwrap_or_else(|| {
                    cr.shares.push(*handle);
                    cr.shares.len() - 1
                });
                cr.keys.push((share, node, b64::encode(&wrapped)));
            }
            if cr.shares.is_empty() {
                return None;
            }
        }
        Some(cr).filter(|cr| !cr.keys.is_empty())
    }

    /// Whether keys have to be sent for what is put in a folder.
    fn is_shared(&self, folder: NodeHandle) -> bool {
        let shares = self.decryptor.share_handles();
        let mut at = Some(folder);
        for _ in 0..DEEPEST {
            let Some(handle) = at.filter(|_| !shares.is_empty()) else {
                return false;
            };
            if shares.contains(&handle) {
                return true;
            }
            at = self
                .node_row(handle)
                .ok()
                .flatten()
                .and_then(|row| row.parent);
        }
        false
    }

    /// The keys that a node and all below it need when it moves to `target`.
    pub(super) fn moved_keys(&self, node: NodeHandle, target: NodeHandle) -> Option<CrossKeys> {
        // Asked first: a large tree that moves to where nobody else looks is not walked.
        if !self.is_shared(target) {
            return None;
        }
        let mut keys = Vec::new();
        let mut waiting = vec![node];
        while let Some(handle) = waiting.pop() {
            if keys.len() >= MOST_MOVED {
                break;
            }
            if let Some((_, opened)) = self.node(handle).ok().flatten()
                && let Some(key) = opened.key
            {
                keys.push((handle.to_string(), key));
            }
            let children = self.store.children(handle).unwrap_or_default();
            waiting.extend(children.iter().map(|child| child.handle));
        }
        self.cross_keys(target, keys.iter().map(|(name, key)| (name.clone(), key)))
    }
}
