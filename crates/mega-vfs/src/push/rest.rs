//! What a change row still asks for after a part of it was done.

use mega_store::{ChangeRow, ChangeState, NodeRow, Subject};
use serde_json::Value;

use super::journal::PutNote;
use crate::changes::{BASE, BINNED, MTIME, SUFFIX, clear_attribute, is_settled};
use crate::types::now_ms;

/// What `now` still asks for after everything `sent` asked for was done.
pub(super) fn less_sent(now: &ChangeRow, sent: &ChangeRow) -> Option<ChangeRow> {
    let mut rest = now.clone();
    if rest.place == sent.place {
        rest.place = None;
        rest.replaces = None;
        // It is the node's now.
        clear_attribute(&mut rest, SUFFIX);
    }
    strike(&mut rest, sent.attributes.as_ref());
    finish(rest)
}

/// What a row still asks for after its put; under the new node.
pub(super) fn remaining(now: &ChangeRow, note: &PutNote, node: &NodeRow) -> Option<ChangeRow> {
    let mut rest = now.clone();
    rest.subject = Subject::Node(node.handle);
    let asked = note.place();
    let is_there = match (&rest.place, &asked) {
        (Some(now), Some(asked)) => {
            // The folder above a new folder went with it, and may be known by its local id still.
            let is_in_tree = note.is_folder && now == asked;
            now.name == asked.name && (now.parent.node() == node.parent || is_in_tree)
        }
        _ => false,
    };
    if is_there || rest.place.is_none() {
        rest.place = None;
        clear_attribute(&mut rest, SUFFIX);
        // Until it is there, what it takes the name of must not go.
        rest.replaces = None;
    }
    rest.content = rest
        .content
        .filter(|content| content.generation != note.generation);
    strike(&mut rest, note.attributes.as_ref());
    clear_attribute(&mut rest, BASE);
    if let Some(content) = &mut rest.content {
        content.base = Some(node.handle);
        content
            .layers
            .drain(..note.layers.min(content.layers.len()));
    }
    rest.state = ChangeState::Pending { due_ms: now_ms() };
    finish(rest)
}

/// Strikes the attributes that were sent. The time stays while there is content to upload: it goes
/// into the new node with the content, whatever the present node says. So does where the content belongs.
pub(super) fn strike(rest: &mut ChangeRow, sent: Option<&serde_json::Map<String, Value>>) {
    let has_content = rest.content.is_some();
    if let (Some(wanted), Some(sent)) = (&mut rest.attributes, sent) {
        let stays = |name: &str| has_content && matches!(name, MTIME | BINNED);
        wanted.retain(|name, value| sent.get(name) != Some(value) || stays(name));
    }
    if rest
        .attributes
        .as_ref()
        .is_some_and(serde_json::Map::is_empty)
    {
        rest.attributes = None;
    }
}

pub(super) fn finish(rest: ChangeRow) -> Option<ChangeRow> {
    if is_settled(&rest) { None } else { Some(rest) }
}

#[cfg(test)]
mod tests {
    use mega_proto::{NodeHandle, NodeKind};
    use mega_store::{ContentRow, LocalId, Place};
    use serde_json::json;

    use super::*;

    fn row(content: Option<ContentRow>) -> ChangeRow {
        ChangeRow {
            subject: Subject::Node(NodeHandle::from_u48(7)),
            kind: NodeKind::File,
            place: None,
            attributes: json!({ MTIME: "5.0", "mmx": "1" }).as_object().cloned(),
            content,
            removed: false,
            replaces: None,
            state: ChangeState::Pending { due_ms: 0 },
            since_ms: 0,
        }
    }

    fn content(generation: u64) -> ContentRow {
        ContentRow {
            base: None,
            size: 1,
            generation,
            synced: false,
            layers: Vec::new(),
        }
    }

    #[test]
    fn the_time_that_was_sent_stays_with_content_that_was_not() {
        // The time was set while the file was open and went out alone; then the file was closed.
        let rest = less_sent(&row(Some(content(2))), &row(None)).unwrap();
        assert_eq!(
            rest.attributes,
            json!({ MTIME: "5.0" }).as_object().cloned()
        );
        assert!(less_sent(&row(None), &row(None)).is_none());
    }

    #[test]
    fn the_time_of_an_upload_stays_with_newer_content() {
        let now = ChangeRow {
            subject: Subject::Local(LocalId(1)),
            place: Some(Place {
                parent: Subject::Node(NodeHandle::from_u48(1)),
                name: "a".to_owned(),
            }),
            ..row(Some(content(2)))
        };
        let mut sent = PutNote::of_row(&now, None);
        let node = NodeRow {
            handle: NodeHandle::from_u48(9),
            parent: Some(NodeHandle::from_u48(1)),
            kind: NodeKind::File,
            owner: None,
            size: 1,
            ts: 0,
            key: String::new(),
            attrs: Vec::new(),
            fa: None,
            arrival: 0,
            suffix: None,
        };
        assert!(remaining(&now, &sent, &node).is_none());
        sent.generation = 1;
        let rest = remaining(&now, &sent, &node).unwrap();
        assert_eq!(
            rest.attributes,
            json!({ MTIME: "5.0" }).as_object().cloned()
        );
    }
}
