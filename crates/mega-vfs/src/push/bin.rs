//! The rubbish bin: where what is thrown away came from.
//!
//! Official clients write the folder that a node was in into its attribute `rr` when they throw it away, and
//! take it out when it comes back (protocol/03 section 7); so do we, so that "restore" works in all of them.
//! It goes in the request of the move and costs none of its own.

use mega_crypto::Attributes;
use mega_proto::NodeHandle;
use mega_store::Subject;

use crate::state::State;
use crate::types::OpResult;

const RESTORE_TO: &str = "rr";

/// The folder that a node was in when it was thrown away, if that was noted.
pub(crate) fn origin_of(attributes: &Attributes) -> Option<NodeHandle> {
    attributes.text(RESTORE_TO)?.parse().ok()
}

impl State {
    /// Whether a node is in the bin, in truth.
    pub(super) fn is_in_bin(&self, handle: NodeHandle) -> bool {
        let mut at = Some(handle);
        // A circle of parents must not hang us.
        for _ in 0..4096 {
            match at {
                None => return false,
                Some(handle) if Some(handle) == self.roots.rubbish => return true,
                Some(handle) => {
                    at = self
                        .node_row(handle)
                        .ok()
                        .flatten()
                        .and_then(|row| row.parent)
                }
            }
        }
        false
    }

    /// The attributes of a node that is thrown away; `None` when they stay what they are.
    pub(super) fn binned_attributes(&self, handle: NodeHandle) -> Option<Vec<u8>> {
        let (row, node) = self.node(handle).ok()??;
        let (old, key, parent) = (node.attributes?, node.key?, row.parent?);
        // What other clients do not know as a file is left as it is.
        old.text("n")?;
        let mut wanted = old.clone();
        self.note_origin(&mut wanted, handle, parent, self.roots.rubbish?);
        if wanted == old {
            return None;
        }
        wanted.encrypt(&key.attr_key()).ok()
    }

    /// Notes where a node came from when it goes into the bin, and forgets it when it comes out.
    pub(super) fn note_origin(
        &self,
        attributes: &mut Attributes,
        handle: NodeHandle,
        parent: NodeHandle,
        target: NodeHandle,
    ) {
        match (self.is_in_bin(handle), self.is_in_bin(target)) {
            (false, true) => attributes.set(RESTORE_TO, &parent.to_string()),
            (true, false) => {
                attributes.remove(RESTORE_TO);
            }
            (false, false) | (true, true) => {}
        }
    }

    /// Where something in the bin came from: a path below the mountpoint, if it still exists.
    pub(crate) fn restore_to(&self, subject: Subject) -> OpResult<Option<String>> {
        let Subject::Node(handle) = subject else {
            return Ok(None);
        };
        if !self.is_in_bin(handle) {
            return Ok(None);
        }
        let node = self.node(handle)?.and_then(|(_, node)| node.attributes);
        let Some(origin) = node.as_ref().and_then(origin_of) else {
            return Ok(None);
        };
        if self.node_row(origin)?.is_none() || self.is_in_bin(origin) {
            return Ok(None);
        }
        Ok(Some(self.locate(Subject::Node(origin)).path().to_owned()))
    }
}
