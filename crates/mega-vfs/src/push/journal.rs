//! What is written down before a node is put: enough to find out later whether it was.

use mega_proto::{NodeHandle, Seqno, b64};
use mega_store::{AttemptId, AttemptRow, ChangeRow, NodeRow, Place, Store, Subject};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::changes::wrapped_keys;
use crate::errno::store_errno;
use crate::types::OpResult;

/// One node that is being put.
#[derive(Debug, Clone)]
pub(crate) struct Put {
    pub(crate) attempt: AttemptId,
    pub(crate) subject: Subject,
    pub(crate) note: PutNote,
}

/// The journalled part of a [`Put`].
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct PutNote {
    /// The node key as sent (wrapped, b64): how the node is recognised.
    pub(crate) key: String,
    /// The same key as sent for the shares above: of a node in somebody else's folder the server shows
    /// only these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) shared_keys: Vec<String>,
    /// The encrypted attributes as sent (b64).
    pub(crate) attrs: String,
    /// Upload token; empty for folders.
    pub(crate) token: String,
    pub(crate) parent: NodeHandle,
    pub(crate) over: Option<NodeHandle>,
    /// The file it takes the place of without making it a version: it goes once this one is placed.
    #[serde(default)]
    pub(crate) dooms: Option<NodeHandle>,
    pub(crate) is_folder: bool,
    /// What the row asked for when this was frozen.
    pub(crate) place_parent: Option<i64>,
    pub(crate) place_name: Option<String>,
    pub(crate) attributes: Option<Map<String, Value>>,
    pub(crate) generation: u64,
    /// How many layers the content consisted of.
    pub(crate) layers: usize,
    /// Where the event stream was.
    pub(crate) sn: Option<String>,
    /// A copy on the server: its key is that of the source, so that the key alone proves nothing.
    #[serde(default)]
    pub(crate) copy: Option<CopyNote>,
}

/// How the node of a copy is told from its source.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CopyNote {
    /// The node that is copied.
    pub(crate) source: NodeHandle,
    /// Nodes that arrived up to here were there before (`arrival` of a node).
    #[serde(default)]
    pub(crate) since: Option<u64>,
    /// Other nodes of this key that were in the target folder before: what the first version wrote instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) known: Vec<NodeHandle>,
}

impl CopyNote {
    /// For a copy that is going to be sent. Its node arrives later, also in a tree that is fetched: one
    /// that was begun before this is complete before anything is sent (the gate).
    pub(crate) fn of(source: NodeHandle, store: &Store) -> OpResult<Self> {
        let since = store.last_arrival().map_err(|error| store_errno(&error))?;
        Ok(Self {
            source,
            since: Some(since),
            known: Vec::new(),
        })
    }
}

impl std::fmt::Debug for PutNote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PutNote")
            .field("parent", &self.parent)
            .finish_non_exhaustive()
    }
}

impl PutNote {
    /// Notes what `row` asks for at this moment.
    pub(crate) fn of_row(row: &ChangeRow, sn: Option<Seqno>) -> Self {
        Self {
            key: String::new(),
            shared_keys: Vec::new(),
            attrs: String::new(),
            token: String::new(),
            parent: NodeHandle::from_u48(0),
            over: None,
            dooms: None,
            is_folder: false,
            place_parent: row.place.as_ref().map(|place| place.parent.to_i64()),
            place_name: row.place.as_ref().map(|place| place.name.clone()),
            attributes: row.attributes.clone(),
            generation: row.content.as_ref().map_or(0, |content| content.generation),
            layers: row
                .content
                .as_ref()
                .map_or(0, |content| content.layers.len()),
            sn: sn.map(|sn| sn.as_str().to_owned()),
            copy: None,
        }
    }

    /// The place that was asked for.
    pub(crate) fn place(&self) -> Option<Place> {
        Some(Place {
            parent: Subject::from_i64(self.place_parent?),
            name: self.place_name.clone()?,
        })
    }
}

impl PutNote {
    /// The wrapped keys by which its node may be known.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.key)
            .chain(&self.shared_keys)
            .map(String::as_str)
    }

    /// The file whose place it takes, one way or the other.
    pub(crate) fn replaced(&self) -> Option<NodeHandle> {
        self.over.or(self.dooms)
    }
}

impl Put {
    /// Whether a node that is in the store, maybe for long, may be what this put made.
    pub(crate) fn may_have_made_known(&self, node: &NodeRow) -> bool {
        // A copy is only looked for where it was put: elsewhere its key tells nothing.
        let is_copy_of_ours = |copy: &CopyNote| {
            node.parent == Some(self.note.parent)
                && copy.since.is_none_or(|since| node.arrival > since)
        };
        self.may_have_made(node) && self.note.copy.as_ref().is_none_or(is_copy_of_ours)
    }

    /// Whether a node, which is new here, may be what this put made.
    pub(crate) fn may_have_made(&self, node: &NodeRow) -> bool {
        if !wrapped_keys(&node.key).any(|key| self.note.keys().any(|sent| sent == key))
            || Subject::Node(node.handle) == self.subject
        {
            return false;
        }
        match &self.note.copy {
            None => true,
            Some(copy) => {
                node.handle != copy.source
                    && Some(node.handle) != self.note.over
                    && !copy.known.contains(&node.handle)
                    && b64::encode(&node.attrs) == self.note.attrs
            }
        }
    }

    pub(crate) fn row(&self) -> Option<AttemptRow> {
        let body = serde_json::to_vec(&self.note).ok()?;
        Some(AttemptRow {
            id: self.attempt,
            subject: self.subject,
            body,
        })
    }

    pub(crate) fn parse(row: &AttemptRow) -> Option<Self> {
        let note = serde_json::from_slice(&row.body).ok()?;
        Some(Self {
            attempt: row.id,
            subject: row.subject,
            note,
        })
    }
}

#[cfg(test)]
mod tests {
    use mega_proto::NodeKind;
    use serde_json::json;

    use super::*;

    fn handle(number: u64) -> NodeHandle {
        NodeHandle::from_u48(number)
    }

    fn put(copy: serde_json::Value) -> Put {
        let note = json!({
            "key": "KEY", "attrs": b64::encode(b"attributes"), "token": "", "parent": handle(1),
            "over": handle(5), "is_folder": false, "place_parent": null, "place_name": null,
            "attributes": null, "generation": 1, "layers": 0, "sn": null, "copy": copy,
        });
        let row = AttemptRow {
            id: AttemptId(1),
            subject: Subject::Node(handle(5)),
            body: serde_json::to_vec(&note).unwrap(),
        };
        Put::parse(&row).unwrap()
    }

    fn node(number: u64, parent: u64, arrival: u64) -> NodeRow {
        NodeRow {
            handle: handle(number),
            parent: Some(handle(parent)),
            kind: NodeKind::File,
            owner: None,
            size: 1,
            ts: 0,
            key: "AAAAAAAAAAA:KEY".to_owned(),
            attrs: b"attributes".to_vec(),
            fa: None,
            arrival,
            suffix: None,
        }
    }

    #[test]
    fn only_a_later_node_in_its_folder_is_a_copy_of_ours() {
        let put = put(json!({ "source": handle(9), "since": 7 }));
        assert!(put.may_have_made_known(&node(20, 1, 8)));
        // Made earlier of the same source, under the same name and with the same time.
        assert!(!put.may_have_made_known(&node(20, 1, 7)));
        assert!(!put.may_have_made_known(&node(20, 1, 0)));
        assert!(!put.may_have_made_known(&node(20, 2, 8)));
        // The source, and what it replaces.
        assert!(!put.may_have_made_known(&node(9, 1, 8)));
        assert!(!put.may_have_made_known(&node(5, 1, 8)));
        let other = NodeRow {
            attrs: b"another name".to_vec(),
            ..node(20, 1, 8)
        };
        assert!(!put.may_have_made_known(&other));
        let written = Put::parse(&put.row().unwrap()).unwrap();
        assert!(written.may_have_made_known(&node(20, 1, 8)));
        assert!(!written.may_have_made_known(&node(20, 1, 7)));
    }

    #[test]
    fn a_copy_journalled_by_the_first_version_is_recognised() {
        let put = put(json!({ "source": handle(9), "known": [handle(20)] }));
        assert!(!put.may_have_made_known(&node(20, 1, 3)));
        assert!(put.may_have_made_known(&node(21, 1, 0)));
    }
}
