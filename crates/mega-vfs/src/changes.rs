//! The overlay in memory: every change row, indexed the ways the view and the pusher need.
//!
//! Mirrors table `change`: a row is written to the store first and put here after. Also knows what
//! is in flight to the server, which is never written down (after a restart nothing is in flight;
//! the journalled attempts tell what may have been).
//!
//! # The queue
//! A row that is neither parked nor in flight is in exactly one of three queues, ordered by when it is
//! due: removals, content to upload, everything else (names). The pusher takes from the front and
//! never looks at the rest. A row that is due but has to wait for another row (its folder, whoever
//! takes over its name) is *stalled*: it is in no queue until something was confirmed.

use std::collections::{BTreeSet, HashMap, HashSet};

use mega_proto::NodeHandle;
use mega_store::{ChangeRow, ChangeState, NodeRow, Subject};
use serde_json::{Map, Value};

use crate::push::Put;
use crate::types::{Timestamp, now_ms};

/// Member of a row's attributes that is never sent: the modification time, as [`Timestamp::to_text`].
pub(crate) const MTIME: &str = "~mtime";
/// Member that is never sent: the duplicate number of the spelling that a rename took over.
pub(crate) const SUFFIX: &str = "~suffix";
/// Member of a row's attributes that is never sent: its bytes may be damaged (module `aside`).
pub(crate) const ASIDE: &str = "~aside";
/// Member that is never sent: what is removed is to be deleted and not thrown into the bin.
pub(crate) const FOREVER: &str = "~forever";
/// Member that is never sent: we have thrown away the folder that it is in, and it with it.
pub(crate) const BINNED: &str = "~binned";
/// Member that is never sent: what opens the base of the content, whose node is gone (module
/// `lost_base`).
pub(crate) const BASE: &str = "~base";

/// Which queue a row is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queue {
    /// New folders, names, places, attributes.
    Names,
    /// Nodes that are to go.
    Removals,
    /// Bytes to upload.
    Contents,
}

impl Queue {
    fn of(row: &ChangeRow) -> Self {
        if row.removed {
            Self::Removals
        } else if row.content.is_some() {
            Self::Contents
        } else {
            Self::Names
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Changes {
    rows: HashMap<Subject, ChangeRow>,
    placed: HashMap<Subject, HashSet<Subject>>,
    replaced_by: HashMap<NodeHandle, Subject>,
    in_flight: HashSet<Subject>,
    /// Under which subject an upload that is in flight goes on, by the one it began with.
    handed_over: HashMap<Subject, Subject>,
    /// Nodes whose replacement is placed: they are no longer shown, and go from the server.
    doomed: BTreeSet<NodeHandle>,
    /// Whose content is shown by rows of others: copies that are not on the server yet.
    based_on: HashMap<NodeHandle, HashSet<Subject>>,
    /// What is journalled and neither confirmed nor struck, by the wrapped key as sent.
    in_doubt: HashMap<String, Vec<Put>>,
    /// Puts of an earlier run that were looked for in vain, by the same key; their rows start over.
    withdrawn: HashMap<String, Vec<Put>>,
    queues: [BTreeSet<(i64, Subject)>; 3],
    stalled: HashSet<Subject>,
    /// Rows that failed and are put off, also when the mount ends and everything else is due.
    backing_off: HashSet<Subject>,
    /// When a name was changed last, ms since 1970.
    last_name_ms: i64,
    /// Bytes of new content that Mega does not have.
    content_bytes: u64,
}

impl Changes {
    pub(crate) fn new(rows: Vec<ChangeRow>) -> Self {
        let mut changes = Self::default();
        for mut row in rows {
            // After a restart nothing is in flight, and nobody is still writing: everything is due.
            if !matches!(row.state, ChangeState::Parked { .. }) {
                row.state = ChangeState::Pending { due_ms: 0 };
            }
            changes.insert(row);
        }
        changes
    }

    fn queue_of(&self, queue: Queue) -> &BTreeSet<(i64, Subject)> {
        let [names, removals, contents] = &self.queues;
        match queue {
            Queue::Names => names,
            Queue::Removals => removals,
            Queue::Contents => contents,
        }
    }

    fn queue(&mut self, queue: Queue) -> &mut BTreeSet<(i64, Subject)> {
        let [names, removals, contents] = &mut self.queues;
        match queue {
            Queue::Names => names,
            Queue::Removals => removals,
            Queue::Contents => contents,
        }
    }

    fn enqueue(&mut self, subject: Subject) {
        let Some(row) = self.rows.get(&subject) else {
            return;
        };
        if let Some(due) = due_ms(row)
            && !self.in_flight.contains(&subject)
        {
            let queue = Queue::of(row);
            self.queue(queue).insert((due, subject));
        }
    }

    fn dequeue(&mut self, subject: Subject) {
        self.stalled.remove(&subject);
        let Some(row) = self.rows.get(&subject) else {
            return;
        };
        if let Some(due) = due_ms(row) {
            let queue = Queue::of(row);
            self.queue(queue).remove(&(due, subject));
        }
    }

    /// The rows of a queue, the one that is due first in front.
    pub(crate) fn queued(&self, queue: Queue) -> impl Iterator<Item = (i64, &ChangeRow)> {
        self.queue_of(queue)
            .iter()
            .filter_map(|(due, subject)| Some((*due, self.rows.get(subject)?)))
    }

    /// When the first row of a queue that is not due yet will be.
    pub(crate) fn due_after(&self, queue: Queue, now: i64) -> Option<i64> {
        // Nodes sort before what was made here.
        let first = Subject::Node(NodeHandle::from_u48(0));
        self.queue_of(queue)
            .range((now.saturating_add(1), first)..)
            .next()
            .map(|(due, _)| *due)
    }

    /// The row failed: it is not due before its time, whatever happens, unless it is edited.
    pub(crate) fn back_off(&mut self, subject: Subject) {
        self.backing_off.insert(subject);
    }

    /// Whether a row is to be pushed: it is due, or the mount ends and nothing speaks against it.
    pub(crate) fn is_ready(&self, due: i64, row: &ChangeRow, now: i64, is_stopping: bool) -> bool {
        due <= now || (is_stopping && !self.backing_off.contains(&row.subject))
    }

    /// The row has to wait for another one.
    pub(crate) fn stall(&mut self, subject: Subject) {
        self.dequeue(subject);
        self.stalled.insert(subject);
    }

    pub(crate) fn has_stalled(&self) -> bool {
        !self.stalled.is_empty()
    }

    /// Something was confirmed, or the view changed: what waited may go now.
    pub(crate) fn unstall(&mut self) {
        for subject in std::mem::take(&mut self.stalled) {
            self.enqueue(subject);
        }
    }

    /// An application changed a name just now.
    pub(crate) fn note_name_change(&mut self) {
        self.last_name_ms = now_ms();
    }

    /// When an application last changed a name, ms since 1970.
    pub(crate) fn last_name_ms(&self) -> i64 {
        self.last_name_ms
    }

    pub(crate) fn get(&self, subject: Subject) -> Option<&ChangeRow> {
        self.rows.get(&subject)
    }

    pub(crate) fn insert(&mut self, row: ChangeRow) {
        self.remove(row.subject);
        if let Some(place) = &row.place {
            self.placed
                .entry(place.parent)
                .or_default()
                .insert(row.subject);
        }
        if let Some(handle) = row.replaces {
            self.replaced_by.insert(handle, row.subject);
        }
        if let Some(base) = foreign_base(&row) {
            self.based_on.entry(base).or_default().insert(row.subject);
        }
        let subject = row.subject;
        self.content_bytes = self.content_bytes.saturating_add(content_bytes(&row));
        self.rows.insert(subject, row);
        self.enqueue(subject);
    }

    pub(crate) fn remove(&mut self, subject: Subject) -> Option<ChangeRow> {
        self.dequeue(subject);
        self.backing_off.remove(&subject);
        let row = self.rows.remove(&subject)?;
        self.content_bytes = self.content_bytes.saturating_sub(content_bytes(&row));
        if let Some(place) = &row.place
            && let Some(set) = self.placed.get_mut(&place.parent)
        {
            set.remove(&subject);
            if set.is_empty() {
                self.placed.remove(&place.parent);
            }
        }
        if let Some(base) = foreign_base(&row)
            && let Some(set) = self.based_on.get_mut(&base)
        {
            set.remove(&subject);
            if set.is_empty() {
                self.based_on.remove(&base);
            }
        }
        if let Some(handle) = row.replaces
            && self.replaced_by.get(&handle) == Some(&subject)
        {
            self.replaced_by.remove(&handle);
        }
        Some(row)
    }

    /// Rows that want to be in `parent`.
    pub(crate) fn placed_in(&self, parent: Subject) -> impl Iterator<Item = &ChangeRow> {
        self.placed
            .get(&parent)
            .into_iter()
            .flatten()
            .filter_map(|subject| self.rows.get(subject))
    }

    /// A node's replacement is placed.
    pub(crate) fn doom(&mut self, handle: NodeHandle) {
        self.doomed.insert(handle);
    }

    /// A doomed node is gone.
    pub(crate) fn undoom(&mut self, handle: NodeHandle) {
        self.doomed.remove(&handle);
    }

    pub(crate) fn is_doomed(&self, handle: NodeHandle) -> bool {
        self.doomed.contains(&handle)
    }

    pub(crate) fn doomed(&self) -> impl Iterator<Item = NodeHandle> + '_ {
        self.doomed.iter().copied()
    }

    /// Whether rows of others still show the content of this node.
    pub(crate) fn is_base(&self, handle: NodeHandle) -> bool {
        self.based_on.contains_key(&handle)
    }

    /// The rows of others that show the content of this node.
    pub(crate) fn based_on(&self, handle: NodeHandle) -> impl Iterator<Item = &ChangeRow> {
        let subjects = self.based_on.get(&handle).into_iter().flatten();
        subjects.filter_map(|subject| self.rows.get(subject))
    }

    /// Everything that rows want to be in.
    pub(crate) fn parents(&self) -> Vec<Subject> {
        self.placed.keys().copied().collect()
    }

    /// Who took over the name of `handle` and is not on the server yet.
    pub(crate) fn replacer(&self, handle: NodeHandle) -> Option<Subject> {
        self.replaced_by.get(&handle).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &ChangeRow> {
        self.rows.values()
    }

    /// Bytes of new content in all rows: what the account needs room for.
    pub(crate) fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// Everything that waits is due now, and names rest no longer; only in memory, as after a restart.
    pub(crate) fn hasten(&mut self, now_ms: i64) {
        self.last_name_ms = 0;
        let first = Subject::Node(NodeHandle::from_u48(0));
        for queue in &mut self.queues {
            for (_, subject) in queue.split_off(&(now_ms.saturating_add(1), first)) {
                if let Some(row) = self.rows.get_mut(&subject) {
                    row.state = ChangeState::Pending { due_ms: now_ms };
                    queue.insert((now_ms, subject));
                }
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn set_in_flight(&mut self, subject: Subject, on: bool) {
        if on {
            self.dequeue(subject);
            self.in_flight.insert(subject);
        } else if self.in_flight.remove(&subject) {
            self.handed_over.retain(|_, now| *now != subject);
            self.enqueue(subject);
        }
    }

    pub(crate) fn is_in_flight(&self, subject: Subject) -> bool {
        self.in_flight.contains(&subject)
    }

    pub(crate) fn clear_in_flight(&mut self) {
        for subject in std::mem::take(&mut self.in_flight) {
            self.enqueue(subject);
        }
    }

    /// The bytes of this generation are on stable storage.
    pub(crate) fn mark_synced(&mut self, subject: Subject, generation: u64) {
        if let Some(row) = self.rows.get_mut(&subject)
            && let Some(content) = &mut row.content
            && content.generation == generation
        {
            content.synced = true;
        }
    }

    /// A put is in the journal; what becomes of it is not known yet.
    pub(crate) fn begin_doubt(&mut self, put: &Put) {
        for key in put.note.keys() {
            let puts = self.in_doubt.entry(key.to_owned()).or_default();
            puts.push(put.clone());
        }
    }

    /// What became of a put is known.
    pub(crate) fn end_doubt(&mut self, put: &Put) {
        for key in put.note.keys() {
            if let Some(puts) = self.in_doubt.get_mut(key) {
                puts.retain(|other| other.attempt != put.attempt);
                if puts.is_empty() {
                    self.in_doubt.remove(key);
                }
            }
        }
    }

    /// The put that made this node, if it is one of ours whose answer never came.
    pub(crate) fn doubted(&self, node: &NodeRow) -> Option<&Put> {
        if self.in_doubt.is_empty() {
            return None;
        }
        let puts = wrapped_keys(&node.key).filter_map(|wrapped| self.in_doubt.get(wrapped));
        let mut made = puts.flatten().filter(|put| put.may_have_made(node));
        let first = made.next()?;
        // Copies of one file are told apart by their folders.
        if Some(first.note.parent) == node.parent {
            return Some(first);
        }
        Some(
            made.find(|put| Some(put.note.parent) == node.parent)
                .unwrap_or(first),
        )
    }

    /// A put that the server does not seem to have executed; it may still do so.
    pub(crate) fn withdraw(&mut self, put: &Put) {
        for key in put.note.keys() {
            let puts = self.withdrawn.entry(key.to_owned()).or_default();
            puts.push(put.clone());
        }
    }

    /// The withdrawn put that made this node after all. It is told once.
    pub(crate) fn take_withdrawn(&mut self, node: &NodeRow) -> Option<Put> {
        if self.withdrawn.is_empty() {
            return None;
        }
        for key in wrapped_keys(&node.key) {
            let Some(puts) = self.withdrawn.get_mut(key) else {
                continue;
            };
            let made = puts.iter().position(|put| put.may_have_made(node))?;
            let made = puts.swap_remove(made);
            for puts in self.withdrawn.values_mut() {
                puts.retain(|other| other.attempt != made.attempt);
            }
            return Some(made);
        }
        None
    }

    /// Whether a put of this subject is on its way, or may have arrived.
    pub(crate) fn is_in_doubt(&self, subject: Subject) -> bool {
        let mut puts = self.in_doubt.values().flatten();
        puts.any(|put| put.subject == subject)
    }

    /// The layers of this subject that a put in doubt was made of; `None` when nothing is in doubt.
    pub(crate) fn doubted_layers(&self, subject: Subject) -> Option<usize> {
        let puts = self.in_doubt.values().flatten();
        puts.filter(|put| put.subject == subject)
            .map(|put| put.note.layers)
            .max()
    }

    /// The present form of a put that is in doubt: its row may have moved on to another subject.
    pub(crate) fn present_form(&self, put: &Put) -> Option<&Put> {
        let puts = self.in_doubt.get(&put.note.key)?;
        puts.iter().find(|other| other.attempt == put.attempt)
    }

    /// A row goes on under another subject: what is under way for it goes along.
    pub(crate) fn hand_over(&mut self, old: Subject, new: Subject) -> Vec<Put> {
        if self.is_in_flight(old) {
            let began: Vec<Subject> = self
                .handed_over
                .iter()
                .filter_map(|(began, now)| (*now == old).then_some(*began))
                .collect();
            self.set_in_flight(old, false);
            self.set_in_flight(new, true);
            for subject in began.into_iter().chain([old]) {
                self.handed_over.insert(subject, new);
            }
        }
        let mut moved = Vec::new();
        for put in self.in_doubt.values_mut().flatten() {
            if put.subject == old {
                put.subject = new;
                moved.push(put.clone());
            }
        }
        moved
    }

    /// The subject under which what began under `subject` goes on.
    pub(crate) fn present_subject(&self, subject: Subject) -> Subject {
        self.handed_over.get(&subject).copied().unwrap_or(subject)
    }

    /// All puts whose answer is not known, oldest first.
    pub(crate) fn doubts(&self) -> Vec<Put> {
        let mut puts: Vec<Put> = self.in_doubt.values().flatten().cloned().collect();
        puts.sort_by_key(|put| put.attempt.0);
        // One that is known by several keys is there several times.
        puts.dedup_by_key(|put| put.attempt.0);
        puts
    }
}

/// The node of somebody else whose content a row shows.
fn foreign_base(row: &ChangeRow) -> Option<NodeHandle> {
    let base = row.content.as_ref()?.base?;
    (Subject::Node(base) != row.subject && !row.removed).then_some(base)
}

/// The wrapped keys in a `k` string as served (`OWNER:KEY/OWNER:KEY...`).
pub(crate) fn wrapped_keys(key: &str) -> impl Iterator<Item = &str> {
    key.split('/').filter_map(|pair| pair.rsplit(':').next())
}

/// Bytes of new content of a row.
pub(crate) fn content_bytes(row: &ChangeRow) -> u64 {
    match &row.content {
        Some(content) if !row.removed => content.size,
        _ => 0,
    }
}

/// The modification time that a row asks for.
pub(crate) fn row_mtime(row: &ChangeRow) -> Option<Timestamp> {
    Timestamp::parse(row.attributes.as_ref()?.get(MTIME)?.as_str()?)
}

/// The duplicate number of a row's spelling; 0 is the plain spelling.
pub(crate) fn row_suffix(row: &ChangeRow) -> u32 {
    row.attributes
        .as_ref()
        .and_then(|attributes| attributes.get(SUFFIX))
        .and_then(Value::as_u64)
        .and_then(|number| u32::try_from(number).ok())
        .unwrap_or(0)
}

/// Asks for an attribute; `Null` removes it from the node.
pub(crate) fn set_attribute(row: &mut ChangeRow, name: &str, value: Value) {
    row.attributes
        .get_or_insert_with(Map::new)
        .insert(name.to_owned(), value);
}

/// Stops asking for an attribute.
pub(crate) fn clear_attribute(row: &mut ChangeRow, name: &str) {
    if let Some(attributes) = &mut row.attributes {
        attributes.remove(name);
        if attributes.is_empty() {
            row.attributes = None;
        }
    }
}

/// Whether a row asks for nothing (any more).
pub(crate) fn is_settled(row: &ChangeRow) -> bool {
    row.place.is_none() && row.attributes.is_none() && row.content.is_none() && !row.removed
}

/// When a row is due, unless it is parked.
pub(crate) fn due_ms(row: &ChangeRow) -> Option<i64> {
    match &row.state {
        ChangeState::Pending { due_ms } => Some(*due_ms),
        ChangeState::Pushing { .. } => Some(0),
        ChangeState::Parked { .. } => None,
    }
}
