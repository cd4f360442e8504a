//! Where a changed thing is, in words: its path as the mount spells it.

use mega_proto::NodeKind;
use mega_store::Subject;
use mega_tree::StoredName;
use mega_tree::spelling::{spell, suffixed};

use crate::changes::row_suffix;
use crate::dot_mega;
use crate::state::State;

/// Deeper than any path Linux can name: a cycle on the server must not hang us.
const DEEPEST: usize = 4096;

/// Where something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Where {
    /// In the mount: the path below its root, without a leading slash.
    Inside(String),
    /// On the account, but not below the folder that is mounted: as far as its path is known.
    Outside(String),
}

impl Where {
    /// The path, wherever it begins.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Inside(path) | Self::Outside(path) => path,
        }
    }
}

impl State {
    /// The path of a subject, from the loaded directories, else from the rows. Removed things are
    /// where they were. Loads no directory.
    pub(crate) fn locate(&self, subject: Subject) -> Where {
        let mut parts = Vec::new();
        let mut at = subject;
        let mut is_inside = at == self.root;
        while !is_inside
            && parts.len() < DEEPEST
            && at != Subject::Node(self.roots.cloud)
            && !self.is_at_top(at)
        {
            let Some((parent, name)) = self.parent_and_spelling(at) else {
                break;
            };
            parts.push(name);
            at = parent;
            is_inside = at == self.root;
        }
        if let Some(above) = self.below_dot_mega(at) {
            parts.extend(above.into_iter().rev());
            is_inside = true;
        }
        parts.reverse();
        let path = parts.join("/");
        if is_inside {
            Where::Inside(path)
        } else {
            Where::Outside(path)
        }
    }

    fn is_at_top(&self, subject: Subject) -> bool {
        let handle = subject.node();
        handle.is_some_and(|handle| {
            Some(handle) == self.roots.rubbish || self.incoming.contains_key(&handle)
        })
    }

    /// The path of what `.mega` shows at its top: the bin, or somebody's folder.
    fn below_dot_mega(&self, subject: Subject) -> Option<Vec<String>> {
        let handle = subject.node()?;
        let mut path = vec![dot_mega::NAME.to_owned()];
        if Some(handle) == self.roots.rubbish {
            path.push("trash".to_owned());
            return Some(path);
        }
        let sharer = self.incoming.get(&handle)?.sharer?;
        let row = self.node_row(handle).ok().flatten()?;
        let name = spell(&self.stored_of(&row), subject);
        path.extend(["shares".to_owned(), self.user_name(sharer)]);
        path.push(suffixed(&name, row.suffix.unwrap_or(0)));
        Some(path)
    }

    /// The folder that a subject is in, and its name there.
    pub(crate) fn parent_and_spelling(&self, subject: Subject) -> Option<(Subject, String)> {
        let change = self.changes.get(subject);
        let place = change.and_then(|row| row.place.as_ref());
        let row = match subject {
            Subject::Node(handle) => self.node_row(handle).ok().flatten(),
            Subject::Local(_) => None,
        };
        let parent = match (place, &row) {
            (Some(place), _) => place.parent,
            (None, Some(row)) => Subject::Node(row.parent?),
            (None, None) => return None,
        };
        if let Some(entry) = self.dirs.peek(&parent).and_then(|dir| dir.of(subject)) {
            return Some((parent, entry.spelling.to_string()));
        }
        let moved = place.filter(|place| !place.name.is_empty());
        let (stored, number) = match (moved, &row) {
            (Some(place), _) => (
                StoredName::from_attribute(Some(&place.name)),
                change.map_or(0, row_suffix),
            ),
            (None, Some(row)) if matches!(row.kind, NodeKind::File | NodeKind::Folder) => {
                (self.stored_of(row), row.suffix.unwrap_or(0))
            }
            _ => return None,
        };
        Some((
            parent,
            suffixed(&self.config.naming.spell(&stored, subject), number),
        ))
    }
}
