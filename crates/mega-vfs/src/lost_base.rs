//! The base of local content whose node is gone from the account.
//!
//! A file that was changed here shows its unchanged parts from its base, a node on Mega. When somebody
//! deletes that node for good, its bytes may still be in the cache, and they are somebody's work; only the
//! key went with the node. So what opens it moves into the change row, and stays there until the
//! content has another base. Parts that are not in the cache are lost, and reading them is an error.

use mega_proto::{NodeHandle, NodeKind, b64};
use mega_store::{ChangeRow, NodeRow, Subject};
use mega_tree::truth::Delta;
use serde_json::{Map, Value, json};

use crate::changes::BASE;
use crate::changes::set_attribute;
use crate::state::State;
use crate::types::OpResult;

/// Keeps what opens `before`, the base of this row's content.
fn keep(row: &mut ChangeRow, before: &NodeRow) {
    // The first block of the attributes tells whether a key fits.
    let head = before.attrs.get(..16).unwrap_or(&before.attrs);
    let kept = json!({
        "node": before.handle.to_string(),
        "key": before.key,
        "head": b64::encode(head),
        "size": before.size,
    });
    set_attribute(row, BASE, kept);
}

/// What was kept of the base `handle` of this row's content.
pub(crate) fn kept(row: &ChangeRow, handle: NodeHandle) -> Option<NodeRow> {
    let kept: &Map<String, Value> = row.attributes.as_ref()?.get(BASE)?.as_object()?;
    let text = |name: &str| kept.get(name)?.as_str();
    if text("node")? != handle.to_string() {
        return None;
    }
    Some(NodeRow {
        handle,
        parent: None,
        kind: NodeKind::File,
        owner: None,
        size: kept.get("size")?.as_u64()?,
        ts: 0,
        key: text("key")?.to_owned(),
        attrs: b64::decode(text("head")?).ok()?,
        fa: None,
        arrival: 0,
        suffix: None,
    })
}

impl State {
    /// Nodes are gone: rows that show their bytes keep what opens them.
    pub(crate) fn keep_bases(&mut self, delta: &Delta) -> OpResult<()> {
        let mut rows = Vec::new();
        for handle in &delta.deleted {
            let Some(Some(before)) = delta.touched.get(handle) else {
                continue;
            };
            let own = self.changes.get(Subject::Node(*handle));
            let own = own.filter(|row| {
                let base = row.content.as_ref().and_then(|content| content.base);
                base == Some(*handle) && !row.removed
            });
            for row in own.into_iter().chain(self.changes.based_on(*handle)) {
                let mut row = row.clone();
                keep(&mut row, before);
                rows.push(row);
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        self.commit(rows, &[])
    }
}
