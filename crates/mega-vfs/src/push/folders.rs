//! New folders, whole trees of them in one command.

use mega_crypto::{Attributes, FolderKey, MasterKey, NodeKey, WrapKey};
use mega_proto::command::{Entry, EntrySource};
use mega_proto::{NodeKind, b64};
use mega_store::{ChangeRow, ChangeState, Subject};

use super::Step;
use super::attributes::{apply_wishes, set_folder_time};
use super::cross_keys::keys_of;
use super::journal::{Put, PutNote};
use crate::shared::Shared;
use crate::state::State;

/// Most entries in one folder tree.
const TREE: usize = 500;

impl State {
    /// A folder made here with all folders made here below it, in one command.
    pub(super) fn plan_folders(
        &mut self,
        shared: &Shared,
        master: &MasterKey,
        row: &ChangeRow,
    ) -> Option<Step> {
        let parent = row.place.as_ref()?.parent.node()?;
        self.node_row(parent).ok()??;
        if self
            .changes
            .get(Subject::Node(parent))
            .is_some_and(|row| row.removed)
            || self.lacks_key(parent)
        {
            return None;
        }
        let sn = self.store.seqno().ok().flatten();
        let mut puts = Vec::new();
        let mut entries = Vec::new();
        let mut keys = Vec::new();
        let mut waiting = vec![(row.clone(), None)];
        while let Some((row, above)) = waiting.pop() {
            if puts.len() >= TREE {
                continue;
            }
            let key = NodeKey::Folder(FolderKey::generate().ok()?);
            let mut attributes = Attributes::default();
            apply_wishes(&mut attributes, &row);
            set_folder_time(&mut attributes, &row);
            let attrs = b64::encode(&attributes.encrypt(&key.attr_key()).ok()?);
            let wrapped = b64::encode(&master.wrap_node_key(&key));
            let temporary = format!("t{:07}", puts.len());
            let note = PutNote {
                key: wrapped.clone(),
                attrs: attrs.clone(),
                parent,
                is_folder: true,
                ..PutNote::of_row(&row, sn.clone())
            };
            let attempt = self.store.next_attempt_id().ok()?;
            puts.push(Put {
                attempt,
                subject: row.subject,
                note,
            });
            keys.push((temporary.clone(), key));
            entries.push(Entry {
                source: EntrySource::Folder(temporary.clone()),
                kind: 1,
                attrs,
                key: wrapped,
                fa: None,
                parent: above,
                over: None,
            });
            for child in self.changes.placed_in(row.subject) {
                let is_new = matches!(child.subject, Subject::Local(_));
                let is_parked = matches!(child.state, ChangeState::Parked { .. });
                if is_new
                    && child.kind == NodeKind::Folder
                    && !child.removed
                    && !is_parked
                    && !self.changes.is_in_flight(child.subject)
                {
                    waiting.push((child.clone(), Some(temporary.clone())));
                }
            }
        }
        let cr = self.cross_keys(parent, keys.iter().map(|(name, key)| (name.clone(), key)));
        for (index, put) in puts.iter_mut().enumerate() {
            put.note.shared_keys = keys_of(cr.as_ref(), index);
        }
        let rows: Vec<_> = puts.iter().filter_map(Put::row).collect();
        let journalled = shared.store.write(|tx| {
            for row in &rows {
                tx.put_attempt(row)?;
            }
            Ok(())
        });
        if let Err(error) = journalled {
            tracing::error!(%error, "new folders could not be journalled");
            return None;
        }
        for put in &puts {
            self.changes.begin_doubt(put);
        }
        Some(Step::Folders {
            parent,
            puts,
            entries,
            cr,
        })
    }
}
