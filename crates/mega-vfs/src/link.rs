//! The tree of a public link, in the form that an account's has.
//!
//! A link has no node of type root. The folder that is shown becomes one as it is taken in; a file that is
//! shown alone gets a root made for it. Everything above this module sees an account with one root and nothing
//! else. Never asks the server and never knows the link's key.

use std::sync::Arc;

use mega_api::PublicLink;
use mega_proto::{ActionPacket, EventReply, NodeHandle, NodeKind, Packet, RawNode};
use mega_store::{Store, StoreError};

/// The folder that was exported, under which the keys of all nodes are wrapped.
const META_ROOT: &str = "vfs.link_root";

/// Gives what the server tells of a link the form of an account's tree.
#[derive(Debug)]
pub(crate) struct Shaper {
    link: Arc<PublicLink>,
    root: Option<NodeHandle>,
}

impl Shaper {
    /// For a link; knows what an earlier load has found.
    pub(crate) fn new(link: Arc<PublicLink>, store: &Store) -> Result<Self, StoreError> {
        let root = store.meta(META_ROOT)?.and_then(|text| text.parse().ok());
        let root = match link.is_folder() {
            true => root,
            false => Some(link.made_root()),
        };
        Ok(Self { link, root })
    }

    /// Under which handle the keys of the nodes are wrapped; known once the tree was loaded.
    pub(crate) const fn root(&self) -> Option<NodeHandle> {
        self.root
    }

    /// Remembers the exported folder for later starts. To be called before the tree becomes the truth.
    pub(crate) fn keep(&self, store: &Store) -> Result<(), StoreError> {
        match self.root {
            Some(root) => store.write(|tx| tx.meta_set(META_ROOT, &root.to_string())),
            None => Ok(()),
        }
    }

    /// What the mount shows.
    fn shown(&self) -> Option<NodeHandle> {
        match self.link.is_folder() {
            true => self.link.item.or(self.root),
            false => None,
        }
    }

    /// Shapes one node; gives the root that a file shown alone is put into.
    pub(crate) fn shape(&mut self, raw: &mut RawNode) -> Option<RawNode> {
        if self.root.is_none() && raw.kind == NodeKind::Folder && is_own_wrapper(raw) {
            self.root = Some(raw.handle);
        }
        if self.shown() != Some(raw.handle) {
            return None;
        }
        if raw.kind == NodeKind::File {
            let root = RawNode::new(self.link.made_root(), None, NodeKind::Root);
            raw.parent = Some(root.handle);
            return Some(root);
        }
        raw.kind = NodeKind::Root;
        raw.parent = None;
        None
    }

    /// Shapes the packets of a reply.
    pub(crate) fn shape_reply(
        &mut self,
        reply: &mut EventReply,
        store: &Store,
    ) -> Result<(), StoreError> {
        let packets = std::mem::take(&mut reply.packets);
        let mut packets = packets.into_iter().peekable();
        while let Some(mut packet) = packets.next() {
            match &mut packet.action {
                ActionPacket::Nodes { nodes, .. } => {
                    nodes.iter_mut().for_each(|raw| drop(self.shape(raw)));
                }
                ActionPacket::Delete { node, moved } => {
                    let comes_back = packets.peek().is_some_and(|next| brings(next, *node));
                    let is_root = Some(*node) == self.shown()
                        && store
                            .node(*node)?
                            .is_some_and(|row| row.kind == NodeKind::Root);
                    if is_root {
                        // The root itself stays, with nothing in it.
                        if !comes_back {
                            tracing::warn!("what the link shows has been removed");
                            let children = store.children(*node)?;
                            let gone = children.iter().map(|row| delete(row.handle));
                            reply.packets.extend(gone);
                        }
                        continue;
                    }
                    // Whoever looks through a link is not told where a node has gone: no second half follows.
                    if !comes_back {
                        *moved = false;
                    }
                }
                _ => {}
            }
            reply.packets.push(packet);
        }
        Ok(())
    }
}

/// Whether a node's key is wrapped under the node's own handle: only the exported folder's is.
fn is_own_wrapper(raw: &RawNode) -> bool {
    let own = raw.handle.to_string();
    let keys = raw.key.as_deref().unwrap_or_default();
    keys.split('/')
        .filter_map(|pair| pair.split_once(':'))
        .any(|(owner, _)| owner == own)
}

fn brings(packet: &Packet, handle: NodeHandle) -> bool {
    matches!(&packet.action, ActionPacket::Nodes { nodes, .. }
        if nodes.iter().any(|raw| raw.handle == handle))
}

const fn delete(node: NodeHandle) -> Packet {
    Packet {
        i: None,
        st: None,
        action: ActionPacket::Delete { node, moved: false },
    }
}
