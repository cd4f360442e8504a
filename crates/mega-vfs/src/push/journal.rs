//! What is written down before a node is put: enough to find out later whether it was.

use mega_proto::{NodeHandle, Seqno, b64};
use mega_store::{AttemptId, AttemptRow, ChangeRow, NodeRow, Place, Subject};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::changes::wrapped_keys;

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
    /// Other nodes of this key that were in the target folder before.
    pub(crate) known: Vec<NodeHandle>,
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
    /// The file whose place it takes, one way or the other.
    pub(crate) fn replaced(&self) -> Option<NodeHandle> {
        self.over.or(self.dooms)
    }
}

impl Put {
    /// Whether a node, which is new here, may be what this put made.
    pub(crate) fn may_have_made(&self, node: &NodeRow) -> bool {
        if !wrapped_keys(&node.key).any(|key| key == self.note.key)
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
