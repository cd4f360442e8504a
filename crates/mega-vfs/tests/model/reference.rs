//! The reference: what a user who knows docs/SEMANTICS.md expects to see. Plain maps, slow, and
//! obviously right; it knows nothing of rows, batches, inodes or packets.
//!
//! Each thing has what Mega has of it (`server`) and what was changed here since (`place`, `content`,
//! `is_removed`, ...). The view is the second over the first. [`Model::settle`] is the pusher in one
//! line: afterwards Mega has everything.

use std::collections::BTreeMap;
use std::rc::Rc;

pub(crate) type Id = usize;
pub(crate) const ROOT: Id = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Folder,
    File,
    Symlink,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) parent: Id,
    /// The stored name.
    pub(crate) name: String,
}

/// What the user did to a time: seconds and nanoseconds.
pub(crate) type Time = (i64, u32);

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// Where Mega has it; none when it was never there.
    pub(crate) server: Option<Place>,
    pub(crate) server_bytes: Rc<Vec<u8>>,
    /// Where it was put here since.
    pub(crate) place: Option<Place>,
    /// What was written here since.
    pub(crate) content: Option<Rc<Vec<u8>>>,
    /// Part of `content` is still only where the old content is.
    pub(crate) is_partial: bool,
    /// Attributes were changed here since.
    pub(crate) is_touched: bool,
    pub(crate) is_removed: bool,
    /// Took the name of something that Mega still has.
    pub(crate) replaces: Option<Id>,
    pub(crate) exec: bool,
    pub(crate) time: Option<Time>,
    /// The name it was seen under; none until it was.
    pub(crate) spelling: Option<String>,
    pub(crate) openers: u32,
}

impl Node {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            server: None,
            server_bytes: Rc::default(),
            place: None,
            content: None,
            is_partial: false,
            is_touched: false,
            is_removed: false,
            replaces: None,
            exec: false,
            time: None,
            spelling: None,
            openers: 0,
        }
    }

    pub(crate) fn bytes(&self) -> &Rc<Vec<u8>> {
        self.content.as_ref().unwrap_or(&self.server_bytes)
    }

    pub(crate) fn is_folder(&self) -> bool {
        self.kind == Kind::Folder
    }

    /// Where the user sees it.
    pub(crate) fn spot(&self) -> Option<&Place> {
        if self.is_removed {
            return None;
        }
        self.place.as_ref().or(self.server.as_ref())
    }

    fn has_wish(&self) -> bool {
        self.place.is_some() || self.content.is_some() || self.is_touched || self.is_removed
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) nodes: BTreeMap<Id, Node>,
    next: Id,
}

impl Model {
    pub(crate) fn new() -> Self {
        let mut model = Self::default();
        let mut root = Node::new(Kind::Folder);
        root.spelling = Some(String::new());
        model.nodes.insert(ROOT, root);
        model.next = 1;
        model
    }

    pub(crate) fn get(&self, id: Id) -> &Node {
        &self.nodes[&id]
    }

    pub(crate) fn get_mut(&mut self, id: Id) -> &mut Node {
        self.nodes.get_mut(&id).expect("a known node")
    }

    fn insert(&mut self, node: Node) -> Id {
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, node);
        id
    }

    /// What the user sees in a folder.
    pub(crate) fn children(&self, folder: Id) -> Vec<Id> {
        let inside = |node: &Node| node.spot().is_some_and(|place| place.parent == folder);
        self.ids(inside)
    }

    fn server_children(&self, folder: Id) -> Vec<Id> {
        self.ids(|node| {
            node.server
                .as_ref()
                .is_some_and(|place| place.parent == folder)
        })
    }

    fn ids(&self, condition: impl Fn(&Node) -> bool) -> Vec<Id> {
        self.nodes
            .iter()
            .filter(|(_, node)| condition(node))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Everything the user sees, the root first.
    pub(crate) fn visible(&self) -> Vec<Id> {
        let mut all = vec![ROOT];
        let mut at = 0;
        while at < all.len() {
            all.extend(self.children(all[at]));
            at += 1;
        }
        all
    }

    pub(crate) fn find(&self, folder: Id, spelling: &str) -> Option<Id> {
        self.children(folder)
            .into_iter()
            .find(|id| self.get(*id).spelling.as_deref() == Some(spelling))
    }

    /// Spellings from the root to `id`.
    pub(crate) fn path(&self, id: Id) -> Vec<String> {
        let mut path = Vec::new();
        let mut at = id;
        while at != ROOT {
            let node = self.get(at);
            path.push(node.spelling.clone().expect("was seen"));
            at = node.spot().expect("is shown").parent;
        }
        path.reverse();
        path
    }

    /// The path Mega has it under, when no other node has the same.
    pub(crate) fn server_path(&self, id: Id) -> Option<String> {
        let mut path = String::new();
        let mut at = id;
        while at != ROOT {
            let place = self.get(at).server.as_ref()?;
            let twins = self.ids(|node| node.server.as_ref() == Some(place));
            if twins.len() != 1 {
                return None;
            }
            path = format!("/{}{path}", place.name);
            at = place.parent;
        }
        Some(path)
    }

    fn is_within(&self, inner: Id, outer: Id) -> bool {
        let mut at = inner;
        for _ in 0..=self.nodes.len() {
            if at == outer {
                return true;
            }
            match self.get(at).spot() {
                Some(place) => at = place.parent,
                None => return false,
            }
        }
        true
    }

    // Local operations. Names are spellings.

    pub(crate) fn make(&mut self, folder: Id, name: &str, kind: Kind, bytes: &[u8]) -> Id {
        let mut node = Node::new(kind);
        node.place = Some(Place {
            parent: folder,
            name: name.to_owned(),
        });
        node.spelling = Some(name.to_owned());
        if kind != Kind::Folder {
            node.content = Some(Rc::new(bytes.to_vec()));
        }
        self.insert(node)
    }

    /// Changes bytes; `None` as offset appends.
    pub(crate) fn write(&mut self, id: Id, offset: Option<usize>, data: &[u8]) {
        let node = self.get_mut(id);
        let mut bytes = node.bytes().to_vec();
        let offset = offset.unwrap_or(bytes.len());
        if bytes.len() < offset + data.len() {
            bytes.resize(offset + data.len(), 0);
        }
        bytes[offset..offset + data.len()].copy_from_slice(data);
        node.is_partial |= node.content.is_none() && node.server.is_some();
        node.content = Some(Rc::new(bytes));
        node.time = None;
    }

    pub(crate) fn truncate(&mut self, id: Id, size: usize) {
        let node = self.get_mut(id);
        if node.bytes().len() != size {
            let mut bytes = node.bytes().to_vec();
            bytes.resize(size, 0);
            node.is_partial |= node.content.is_none() && node.server.is_some();
            node.is_partial &= size > 0;
            node.content = Some(Rc::new(bytes));
            node.time = None;
        }
    }

    pub(crate) fn remove(&mut self, id: Id) {
        self.get_mut(id).is_removed = true;
        self.forget_gone();
    }

    /// Moves `id` to a name that is free, or takes that of `over`. The caller checked the rules.
    pub(crate) fn rename(&mut self, id: Id, folder: Id, name: &str, over: Option<Id>) {
        let stored = self.stored_target(id, name, over);
        let replaced = over.map(|over| {
            let node = self.get(over);
            (over, node.server.is_some(), node.replaces)
        });
        if let Some((over, is_on_server, inherited)) = replaced {
            self.get_mut(over).is_removed = true;
            self.get_mut(id).replaces = if is_on_server { Some(over) } else { inherited };
        }
        self.put(id, folder, stored, name);
        self.forget_gone();
    }

    pub(crate) fn exchange(&mut self, one: Id, other: Id) {
        let name_of = |id| self.get(id).spelling.clone().expect("was seen");
        let parent_of = |id| self.get(id).spot().expect("is shown").parent;
        let first = (parent_of(other), name_of(other));
        let second = (parent_of(one), name_of(one));
        let first_stored = self.stored_target(one, &first.1, Some(other));
        let second_stored = self.stored_target(other, &second.1, Some(one));
        self.put(one, first.0, first_stored, &first.1);
        self.put(other, second.0, second_stored, &second.1);
    }

    fn stored_target(&self, id: Id, name: &str, over: Option<Id>) -> String {
        let stored_of = |id| self.get(id).spot().expect("is shown").name.clone();
        if self.get(id).spelling.as_deref() == Some(name) {
            return stored_of(id);
        }
        over.map_or_else(|| name.to_owned(), stored_of)
    }

    fn put(&mut self, id: Id, parent: Id, stored: String, spelling: &str) {
        let node = self.get_mut(id);
        node.place = Some(Place {
            parent,
            name: stored,
        });
        node.spelling = Some(spelling.to_owned());
    }

    /// Whether moving a folder would put it into itself.
    pub(crate) fn would_cycle(&self, id: Id, folder: Id) -> bool {
        self.get(id).is_folder() && self.is_within(folder, id)
    }

    /// What was made and removed here is of no interest once nobody has it open.
    pub(crate) fn forget_gone(&mut self) {
        self.nodes
            .retain(|_, node| !(node.is_removed && node.server.is_none() && node.openers == 0));
    }

    /// Mega has everything.
    pub(crate) fn settle(&mut self) {
        for node in self.nodes.values_mut() {
            if node.is_removed {
                node.server = None;
                continue;
            }
            if let Some(place) = node.place.take() {
                node.server = Some(place);
            }
            if let Some(content) = node.content.take() {
                node.server_bytes = content;
            }
            node.is_partial = false;
            node.replaces = None;
            node.is_touched = false;
        }
        self.forget_gone();
    }

    // Remote changes: the table "Two people change one thing" of docs/SEMANTICS.md.

    pub(crate) fn is_on_server(&self, id: Id) -> bool {
        id == ROOT || self.get(id).server.is_some()
    }

    fn server_has(&self, folder: Id, name: &str) -> bool {
        self.server_children(folder).into_iter().any(|id| {
            self.get(id)
                .server
                .as_ref()
                .is_some_and(|place| place.name == name)
        })
    }

    /// A folder in which somebody else can make something whose fate the table says.
    fn is_ground(&self, folder: Id) -> bool {
        folder == ROOT || (self.is_on_server(folder) && !self.is_doomed(folder))
    }

    /// It or a folder above it, here or there, was removed here.
    fn is_doomed(&self, id: Id) -> bool {
        let mut at = Some(id);
        let mut here = Some(id);
        for _ in 0..=self.nodes.len() {
            let gone = |at: Option<Id>| at.is_some_and(|at| self.get(at).is_removed);
            if gone(at) || gone(here) {
                return true;
            }
            at = at
                .and_then(|at| self.get(at).server.as_ref())
                .map(|p| p.parent);
            here = here.and_then(|at| self.get(at).spot()).map(|p| p.parent);
        }
        false
    }

    pub(crate) fn remote_file(&mut self, folder: Id, name: &str, bytes: &[u8], time: i64) -> bool {
        if !self.is_ground(folder) || self.server_has(folder, name) {
            return false;
        }
        let mut node = Node::new(Kind::File);
        node.server = Some(Place {
            parent: folder,
            name: name.to_owned(),
        });
        node.server_bytes = Rc::new(bytes.to_vec());
        node.time = Some((time, 0));
        self.insert(node);
        true
    }

    /// The folder, unless this cannot be.
    pub(crate) fn remote_folder(&mut self, folder: Id, name: &str) -> Option<Id> {
        if !self.is_ground(folder) || self.server_has(folder, name) {
            return None;
        }
        let place = Place {
            parent: folder,
            name: name.to_owned(),
        };
        let ours = self
            .ids(|node| node.is_folder() && node.server.is_none() && node.spot() == Some(&place));
        if let Some(ours) = ours.first() {
            let node = self.get_mut(*ours);
            node.server = Some(place);
            node.place = None;
            return Some(*ours);
        }
        let mut node = Node::new(Kind::Folder);
        node.server = Some(place);
        Some(self.insert(node))
    }

    /// Renamed, moved, or both.
    pub(crate) fn remote_move(&mut self, id: Id, folder: Id, name: &str) -> bool {
        if id == ROOT || !self.is_ground(folder) || self.server_has(folder, name) {
            return false;
        }
        let node = self.get(id);
        if node.server.is_none() || node.is_removed {
            return false;
        }
        // Into itself, there or here.
        let mut at = folder;
        while at != ROOT {
            if at == id {
                return false;
            }
            let Some(place) = self.get(at).server.as_ref() else {
                return false;
            };
            at = place.parent;
        }
        let is_shown = node.place.is_none();
        if is_shown && self.is_within(folder, id) {
            return false;
        }
        let node = self.get_mut(id);
        node.server = Some(Place {
            parent: folder,
            name: name.to_owned(),
        });
        if is_shown {
            node.spelling = None;
        }
        true
    }

    pub(crate) fn remote_overwrite(
        &mut self,
        id: Id,
        bytes: &[u8],
        time: i64,
        conflict: impl Fn(&str) -> String,
    ) -> bool {
        let node = self.get(id);
        let is_replaced = self.nodes.values().any(|other| other.replaces == Some(id));
        let is_mere = node.content.is_none() && node.has_wish();
        if node.server.is_none()
            || node.kind != Kind::File
            || node.is_removed
            || is_replaced
            || is_mere
        {
            return false;
        }
        let mut theirs = Node::new(Kind::File);
        theirs.server.clone_from(&node.server);
        theirs.server_bytes = Rc::new(bytes.to_vec());
        theirs.time = Some((time, 0));
        if let Some(content) = node.content.clone() {
            let mut ours = node.clone();
            let spot = node.spot().cloned().expect("is not removed");
            ours.server = None;
            ours.content = Some(content);
            ours.place = Some(Place {
                parent: spot.parent,
                name: conflict(&spot.name),
            });
            ours.spelling = None;
            self.nodes.insert(id, ours);
        } else {
            theirs.spelling.clone_from(&node.spelling);
            self.nodes.remove(&id);
        }
        self.insert(theirs);
        true
    }

    /// `for_good`: nothing of it is left, not even in the bin.
    pub(crate) fn remote_delete(&mut self, id: Id, for_good: bool) -> bool {
        if id == ROOT || self.get(id).server.is_none() {
            return false;
        }
        let mut gone = vec![id];
        let mut at = 0;
        while at < gone.len() {
            gone.extend(self.server_children(gone[at]));
            at += 1;
        }
        let stays: BTreeMap<Id, bool> = gone
            .iter()
            .map(|id| (*id, self.survives(*id, &gone)))
            .collect();
        // Where a folder that was moved here comes back is not in the table.
        if gone
            .iter()
            .any(|id| stays[id] && self.get(*id).is_folder() && self.get(*id).place.is_some())
        {
            return false;
        }
        // What was moved out of a folder here before that was thrown away there: the table does not say.
        if !for_good && gone.iter().skip(1).any(|id| self.get(*id).place.is_some()) {
            return false;
        }
        // Whether bytes that were never fetched can still be had depends on the cache.
        if for_good && gone.iter().any(|id| stays[id] && self.get(*id).is_partial) {
            return false;
        }
        for id in gone {
            if stays[&id] {
                let node = self.get_mut(id);
                node.place = node.spot().cloned();
                node.server = None;
                // A number belongs to the node that is gone.
                node.spelling = None;
            } else {
                self.nodes.remove(&id);
            }
        }
        true
    }

    fn survives(&self, id: Id, gone: &[Id]) -> bool {
        let node = self.get(id);
        if node.is_removed {
            return false;
        }
        if !gone.contains(&id) || node.content.is_some() {
            return true;
        }
        self.children(id)
            .into_iter()
            .any(|child| self.survives(child, gone))
    }

    /// What Mega has: stored path, kind, bytes; sorted.
    pub(crate) fn server_view(&self) -> Vec<(String, Kind, Rc<Vec<u8>>)> {
        let mut all = Vec::new();
        let mut waiting = vec![(ROOT, String::new())];
        while let Some((folder, path)) = waiting.pop() {
            for id in self.server_children(folder) {
                let node = self.get(id);
                let name = &node.server.as_ref().expect("is there").name;
                let path = format!("{path}/{name}");
                all.push((path.clone(), node.kind, Rc::clone(&node.server_bytes)));
                waiting.push((id, path));
            }
        }
        all.sort_by(|a, b| (&a.0, a.1, &a.2).cmp(&(&b.0, b.1, &b.2)));
        all
    }
}
