//! What other clients do: packets into the truth, the view patched, the kernel told, and local
//! changes that lost their ground put on new ground.
//!
//! One event reply is one transaction with its `sn`, a large one several, the last of which has it: applying
//! packets again after a crash changes nothing, and nobody waits for all of them at once. Packets of our own changes whose reply was
//! applied already are skipped; [`Shared::gate`] keeps them from arriving before that reply.

pub(crate) mod currency;
mod ground;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mega_api::{ApiError, EventChannel};
use mega_proto::{ActionPacket, ErrorCode, EventReply, NodeHandle, NodeKind, Packet, Seqno};
use mega_store::{Changed, NodeRow, Subject};
use mega_tree::spelling::suffixed;
use mega_tree::truth::{self, Delta, Scope};
use mega_tree::{Child, StoredName};

use crate::errno::store_errno;
use crate::link::Shaper;
use crate::shared::Shared;
use crate::state::{Invalidation, META_QUOTA, Quota, State};
use crate::types::OpResult;

/// Own changes that were applied from their reply and whose packets are still to come.
#[derive(Debug, Default)]
pub(crate) struct OwnPackets {
    client_id: String,
    expected: HashMap<(NodeHandle, &'static str), u32>,
    /// What the last packet took away: if the next one brings it again, it was moved.
    taken_away: Option<NodeHandle>,
}

impl OwnPackets {
    pub(crate) fn new(client_id: String) -> Self {
        Self {
            client_id,
            expected: HashMap::new(),
            taken_away: None,
        }
    }

    /// A reply of ours was applied: its packet (`kind` is the packet's type) changes nothing.
    pub(crate) fn expect(&mut self, handle: NodeHandle, kind: &'static str) {
        *self.expected.entry((handle, kind)).or_insert(0) += 1;
    }

    pub(crate) fn is_own(&self, packet: &Packet) -> bool {
        packet.i.as_deref() == Some(self.client_id.as_str())
    }

    pub(crate) fn forget_all(&mut self) {
        self.expected.clear();
    }

    /// The packet of this change is to be applied after all.
    pub(crate) fn forget(&mut self, handle: NodeHandle) {
        self.expected.retain(|(node, _), _| *node != handle);
    }

    /// Whether the packet repeats what a reply of ours told already.
    fn take(&mut self, packet: &Packet) -> bool {
        let taken_away = self.taken_away.take();
        if let ActionPacket::Delete { node, .. } = &packet.action {
            self.taken_away = Some(*node);
        }
        if !self.is_own(packet) {
            // Somebody else's change of the same node came before ours on the server and after it here:
            // what follows has to be applied in its order.
            if !self.expected.is_empty() {
                match &packet.action {
                    ActionPacket::Attributes { node, .. } | ActionPacket::Delete { node, .. } => {
                        self.forget(*node);
                    }
                    ActionPacket::Nodes { nodes, .. } => {
                        nodes.iter().for_each(|node| self.forget(node.handle));
                    }
                    _ => {}
                }
            }
            return false;
        }
        let keys: Vec<(NodeHandle, &'static str)> = match &packet.action {
            ActionPacket::Attributes { node, .. } => vec![(*node, "u")],
            ActionPacket::Delete { node, .. } => vec![(*node, "d")],
            // A move brings all that is in the folder: what is expected of those is still to come.
            ActionPacket::Nodes { nodes, .. } => match taken_away {
                Some(moved) if nodes.iter().any(|node| node.handle == moved) => vec![(moved, "t")],
                _ => nodes.iter().map(|node| (node.handle, "t")).collect(),
            },
            _ => return false,
        };
        let mut taken = false;
        for key in &keys {
            if let Some(count) = self.expected.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    self.expected.remove(key);
                }
                taken = true;
            }
        }
        if !taken && !self.expected.is_empty() {
            // It is applied, so what was changed after it has to be as well.
            keys.iter().for_each(|(node, _)| self.forget(*node));
        }
        taken
    }
}

/// Most packets that are held back until their reply is complete.
const MOST_HELD: usize = 20_000;

/// Two replies as one. What comes in several replies (`ir`) is applied at once: after a restart it begins
/// with changes of ours that the truth has already, and half of them would show an older state.
fn joined(held: Option<EventReply>, mut reply: EventReply) -> EventReply {
    let Some(mut all) = held else { return reply };
    all.packets.append(&mut reply.packets);
    EventReply {
        packets: all.packets,
        sn: reply.sn.or(all.sn),
        ..reply
    }
}

/// Packets that are applied in one transaction, under one hold of the state lock: some milliseconds.
const SLICE: usize = 200;
/// Whoever waits for the state lock gets it between two slices.
pub(crate) const BREATH: Duration = Duration::from_millis(1);

/// Packets in portions. The two halves of a move stay together.
fn slices(mut packets: &[Packet]) -> Vec<&[Packet]> {
    let mut found = Vec::new();
    while packets.len() > SLICE {
        let is_delete = |packet: &Packet| matches!(packet.action, ActionPacket::Delete { .. });
        let deletes = packets
            .iter()
            .take(SLICE)
            .rev()
            .take_while(|packet| is_delete(packet));
        let end = match SLICE - deletes.count() {
            // Nothing but removals: only the last can be half of a move.
            0 => SLICE - 1,
            end => end,
        };
        let (slice, rest) = packets.split_at(end);
        found.push(slice);
        packets = rest;
    }
    found.push(packets);
    found
}

impl Shared {
    /// The event task: polls until the mount ends.
    pub(crate) async fn follow_events(self: Arc<Self>) {
        let mut channel = EventChannel::default();
        let mut failures = 0_u32;
        let mut held: Option<EventReply> = None;
        if let Err(error) = self.show_left_over().await {
            tracing::warn!(%error, "a fetched tree could not be compared with the one before");
        }
        while !self.stop.is_cancelled() {
            if self.is_tree_wanted.load(Ordering::Acquire) {
                held = None;
                match self.refetch().await {
                    Ok(()) => self.is_tree_wanted.store(false, Ordering::Release),
                    Err(error) => {
                        tracing::warn!(%error, "the tree could not be fetched again");
                        tokio::time::sleep(Duration::from_secs(2)).await;
                    }
                }
                continue;
            }
            let sn = match held.as_ref().and_then(|reply| reply.sn.clone()) {
                Some(sn) => sn,
                None => match self.store.seqno() {
                    Ok(Some(sn)) => sn,
                    Ok(None) | Err(_) => return,
                },
            };
            let poll = self.currency.begin();
            let reply = tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.currency.wanted() => {
                    // A fresh channel answers at once whether anything is new.
                    channel = EventChannel::default();
                    continue;
                }
                reply = self.api.events(&sn, &mut channel) => reply,
            };
            match reply {
                Ok(reply) => {
                    failures = 0;
                    self.is_channel_up.store(true, Ordering::Release);
                    let reply = joined(held.take(), reply);
                    if reply.more && reply.packets.len() < MOST_HELD {
                        held = Some(reply);
                        continue;
                    }
                    if let Err(errno) = self.apply(reply, poll).await {
                        tracing::error!(%errno, "remote changes could not be stored");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
                Err(ApiError::Refused(ErrorCode::TooMany)) => {
                    held = None;
                    if let Err(error) = self.refetch().await {
                        tracing::warn!(%error, "the tree could not be fetched again");
                        tokio::time::sleep(Duration::from_secs(2)).await;
                    }
                }
                Err(error) => {
                    failures += 1;
                    self.monitor
                        .failed(format!("remote changes are not seen: {error}"));
                    let was_up = self.is_channel_up.swap(false, Ordering::AcqRel);
                    if was_up || failures == 1 {
                        tracing::warn!(%error, "event channel is down, remote changes are not seen");
                    }
                    channel = EventChannel::default();
                    let delay = Duration::from_millis(250 << failures.min(7));
                    tokio::select! {
                        () = self.stop.cancelled() => return,
                        () = tokio::time::sleep(delay) => {}
                    }
                }
            }
        }
    }

    /// Applies one reply to this poll.
    async fn apply(&self, mut reply: EventReply, poll: u64) -> OpResult<()> {
        if let Some(link) = self.api.link() {
            Shaper::new(link, &self.store)
                .and_then(|mut shaper| shaper.shape_reply(&mut reply, &self.store))
                .map_err(|error| store_errno(&error))?;
        }
        let is_own = {
            let state = self.lock();
            reply.packets.iter().any(|packet| state.own.is_own(packet))
        };
        let guard = if is_own {
            Some(self.gate.lock().await)
        } else {
            None
        };
        self.adopt_arrivals(&reply.packets)?;
        let (mut quota, mut keys) = (false, false);
        let is_complete = !reply.more;
        // Changes of ours from before a restart show an older state until all of them are applied.
        let mut portions = match is_own {
            true => vec![reply.packets.as_slice()],
            false => slices(&reply.packets),
        };
        let last = portions.pop().unwrap_or_default();
        for portion in portions {
            let (invalidations, has_quota, has_keys) = self.apply_now(portion, None, false)?;
            self.notify(invalidations);
            quota |= has_quota;
            keys |= has_keys;
            tokio::time::sleep(BREATH).await;
        }
        let (invalidations, has_quota, has_keys) =
            self.apply_now(last, reply.sn.as_ref(), is_complete)?;
        quota |= has_quota;
        keys |= has_keys;
        drop(guard);
        self.notify(invalidations);
        if quota {
            self.refresh_quota().await;
        }
        if keys {
            self.keys_wanted.notify_one();
        }
        if !reply.more {
            self.currency.applied(poll);
        }
        Ok(())
    }

    fn apply_now(
        &self,
        packets: &[Packet],
        sn: Option<&Seqno>,
        is_current: bool,
    ) -> OpResult<(Vec<Invalidation>, bool, bool)> {
        let is_half_done =
            is_current && truth::has_half_move(&self.store).map_err(|error| store_errno(&error))?;
        if packets.is_empty() && !is_half_done {
            if let Some(sn) = sn {
                self.set_seqno(sn)?;
            }
            return Ok((Vec::new(), false, false));
        }
        let mut state = self.lock();
        state.load_known_parents(packets);
        state.parents.get_mut().clear();
        let mut own = std::mem::take(&mut state.own);
        let me = self.api.session().map(|session| session.user);
        let scope = Scope { me, is_current };
        let delta = self.store.write(|tx| {
            let delta = truth::apply(&self.store, tx, packets, scope, |packet| own.take(packet))?;
            if let Some(sn) = sn {
                tx.set_seqno(sn)?;
            }
            Ok(delta)
        });
        state.own = own;
        let delta = delta.map_err(|error| store_errno(&error))?;
        if delta.tree_in_doubt {
            self.is_tree_wanted.store(true, Ordering::Release);
        }
        // The packets are in the truth: whatever fails from here on, what is loaded must not stay as it was.
        let mut invalidations = Vec::new();
        let mut is_failed = false;
        if delta.shares_changed {
            // First, so that nodes which come with the key of their share are read at once.
            match self.reload_shares(&mut state) {
                Ok(told) => invalidations = told,
                Err(errno) => {
                    tracing::error!(%errno, "share keys could not be used");
                    is_failed = true;
                }
            }
        }
        match state.patch(&delta) {
            Ok(told) => invalidations.extend(told),
            Err(errno) => {
                state.forget_dirs();
                return Err(errno);
            }
        }
        state.forget_races(packets);
        state.changes.unstall();
        let lacks_share_keys = state.lacks_share_keys;
        drop(state);
        self.wake.notify_one();
        let wants_keys =
            is_failed || delta.stored_keys_changed || (delta.shares_changed && lacks_share_keys);
        Ok((invalidations, delta.quota_changed, wants_keys))
    }

    fn set_seqno(&self, sn: &Seqno) -> OpResult<()> {
        self.store
            .write(|tx| tx.set_seqno(sn))
            .map_err(|error| store_errno(&error))
    }

    /// Waits until everything that has happened is applied, or the deadline.
    pub(crate) async fn catch_up(&self, deadline: Duration) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => false,
            is_current = self.currency.catch_up(deadline) => is_current,
        }
    }

    /// Asks the server for the quota.
    pub(crate) async fn refresh_quota(&self) {
        if self.api.link().is_some() {
            return;
        }
        let before = self.space.spent_so_far();
        match self.api.quota().await {
            Ok(quota) => {
                let quota = Quota {
                    total: quota.total.unwrap_or(0),
                    used: quota.used,
                };
                let text = quota.to_text();
                // The next start shows it before the server has been asked.
                if let Err(error) = self.store.write(|tx| tx.meta_set(META_QUOTA, &text)) {
                    tracing::debug!(%error, "quota not kept");
                }
                let mut state = self.lock();
                // Counted twice at worst, until the next answer; never not at all.
                let spent = self.space.spent_so_far().saturating_sub(before);
                let quota = Quota {
                    used: quota.used.saturating_add(spent),
                    ..quota
                };
                self.space.told(state.quota.replace(quota), quota);
                self.space.recount(&mut state);
            }
            Err(error) => tracing::debug!(%error, "quota not known"),
        }
    }
}

/// The file that became a version of this new one, as it was.
fn replaced_by<'d>(
    row: &NodeRow,
    after: &HashMap<NodeHandle, Option<NodeRow>>,
    delta: &'d Delta,
) -> Option<&'d NodeRow> {
    row.suffix?;
    let is_version = |now: &&NodeRow| now.parent == Some(row.handle);
    let version = after.values().flatten().find(is_version)?;
    delta.touched.get(&version.handle)?.as_ref()
}

impl State {
    /// Loads the directories that packets touch and the kernel knows, so that it can be told which
    /// names are no longer what they were.
    fn load_known_parents(&mut self, packets: &[Packet]) {
        let mut parents = HashSet::new();
        let mut note = |state: &Self, handle: NodeHandle| {
            if let Ok(Some(row)) = state.node_row(handle) {
                parents.extend(row.parent);
            }
        };
        for packet in packets {
            match &packet.action {
                ActionPacket::Nodes { nodes, .. } => {
                    for node in nodes {
                        note(self, node.handle);
                    }
                }
                ActionPacket::Delete { node, .. } | ActionPacket::Attributes { node, .. } => {
                    note(self, *node);
                }
                _ => {}
            }
        }
        for packet in packets {
            if let ActionPacket::Nodes { nodes, .. } = &packet.action {
                parents.extend(nodes.iter().filter_map(|node| node.parent));
            }
        }
        for parent in parents {
            let subject = Subject::Node(parent);
            if self.inodes.kernel_ino(subject).is_some() {
                let _ = self.dir(subject);
            }
        }
    }

    /// Brings the loaded directories and the change rows in line with the truth after `delta`.
    pub(crate) fn patch(&mut self, delta: &Delta) -> OpResult<Vec<Invalidation>> {
        self.forget_zones();
        self.parents.get_mut().clear();
        let mut told = Vec::new();
        let mut after = HashMap::new();
        for handle in delta.touched.keys() {
            after.insert(*handle, self.node_row(*handle)?);
        }
        self.reground(delta, &after)?;
        for (handle, now) in &after {
            if let Some(now) = now {
                self.settle_race(*handle, now)?;
            }
        }
        // Removals first: a name is free before somebody else takes it.
        for (handle, before) in &delta.touched {
            let subject = Subject::Node(*handle);
            let Some(parent) = before
                .as_ref()
                .and_then(|row| row.parent)
                .map(Subject::Node)
            else {
                continue;
            };
            let now = after.get(handle).and_then(Option::as_ref);
            let stays = now.is_some_and(|now| {
                Some(now) == before.as_ref()
                    || (now.parent == before.as_ref().and_then(|row| row.parent)
                        && Some(self.stored_of(now))
                            == before.as_ref().map(|row| self.stored_of(row)))
            });
            if stays {
                continue;
            }
            if self
                .changes
                .get(subject)
                .is_some_and(|row| row.place.is_some())
            {
                continue;
            }
            if let Some(spelling) = self.take_out(parent, subject) {
                self.touch_dir(parent);
                self.tell_entry(&mut told, parent, spelling);
            }
            if now.is_none()
                && let Some(ino) = self.inodes.known_ino(subject)
            {
                told.push(Invalidation::Inode(ino));
            }
            if before
                .as_ref()
                .is_some_and(|row| row.kind != NodeKind::File)
                && now.is_none()
            {
                self.forget_dir(subject);
            }
        }
        let mut arrivals: Vec<&NodeRow> = after.values().flatten().collect();
        arrivals.sort_by_key(|row| (row.arrival, row.ts, row.handle));
        for row in arrivals {
            let subject = Subject::Node(row.handle);
            let overlay = self.changes.get(subject);
            if overlay.is_some_and(|change| change.removed) || self.changes.is_doomed(row.handle) {
                continue;
            }
            let is_placed = overlay.is_some_and(|change| change.place.is_some());
            let node = self.decryptor.open(row);
            let Some(parent) = row.parent.map(Subject::Node) else {
                continue;
            };
            if is_placed || !matches!(row.kind, NodeKind::File | NodeKind::Folder) {
                continue;
            }
            if row.kind == NodeKind::Folder
                && delta.touched.get(&row.handle).is_some_and(Option::is_none)
                && self.merge_folder(parent, row)?
            {
                continue;
            }
            let present = self
                .dirs
                .peek(&parent)
                .is_some_and(|dir| dir.of(subject).is_some());
            if present {
                if let Some(directory) = self.dirs.peek_mut(&parent) {
                    directory.set_facts(subject, node.facts);
                }
                if let Some(ino) = self.inodes.known_ino(subject) {
                    told.push(Invalidation::Inode(ino));
                }
            } else {
                // A duplicate number belongs to the name it was given for.
                let known = delta.touched.get(&row.handle).and_then(Option::as_ref);
                let before = known.or_else(|| replaced_by(row, &after, delta));
                let was_renamed = before.is_some_and(|before| self.stored_of(before) != node.name);
                let suffix = row.suffix.filter(|_| !was_renamed);
                if was_renamed && row.suffix.is_some() {
                    self.store
                        .write(|tx| tx.set_suffix(row.handle, None))
                        .map_err(|error| store_errno(&error))?;
                }
                let child = Child {
                    subject,
                    stored: node.name,
                    suffix,
                    facts: node.facts,
                };
                self.show_child(&mut told, parent, child)?;
            }
        }
        Ok(told)
    }

    pub(crate) fn stored_of(&self, row: &NodeRow) -> StoredName {
        self.decryptor.open(row).name
    }

    pub(crate) fn tell_entry(
        &mut self,
        told: &mut Vec<Invalidation>,
        parent: Subject,
        name: String,
    ) {
        self.forget_listing(parent);
        if let Some(parent) = self.inodes.kernel_ino(parent) {
            told.push(Invalidation::Entry { parent, name });
        }
    }

    /// Shows a node in its directory, if that is loaded, and has the kernel told of the name.
    pub(crate) fn show_child(
        &mut self,
        told: &mut Vec<Invalidation>,
        parent: Subject,
        child: Child,
    ) -> OpResult<()> {
        let aside = self.make_way(parent, &child)?;
        let spelling = self
            .put_in(parent, child)
            .map_err(|error| store_errno(&error))?;
        for spelling in aside.into_iter().chain(spelling) {
            self.touch_dir(parent);
            self.tell_entry(told, parent, spelling);
        }
        Ok(())
    }

    /// Gives the node a number that has the plain name which `child`, the last to have come into the folder, is to
    /// get; answers what it is called then. One with a local change of its name keeps it: somebody here has given it.
    fn make_way(&mut self, parent: Subject, child: &Child) -> OpResult<Option<String>> {
        let found = self
            .dirs
            .peek(&parent)
            .and_then(|dir| dir.in_the_way(child));
        let Some(holder) = found.map(|entry| entry.subject) else {
            return Ok(None);
        };
        let change = self.changes.get(holder);
        if change.is_some_and(|change| change.place.is_some()) {
            return Ok(None);
        }
        let came = |subject: Subject| match subject {
            Subject::Node(handle) => self.node_row(handle),
            Subject::Local(_) => Ok(None),
        };
        let (Some(old), Some(new)) = (came(holder)?, came(child.subject)?) else {
            return Ok(None);
        };
        let order = |row: &NodeRow| (row.arrival, row.ts, row.handle);
        // As when the folder is read again: a new name alone does not make it the last.
        if order(&new) < order(&old) {
            return Ok(None);
        }
        let Some(directory) = self.dirs.peek_mut(&parent) else {
            return Ok(None);
        };
        let assigned = directory.step_aside(holder);
        let spelling = directory.of(holder).map(|entry| entry.spelling.to_string());
        self.keep_numbers(assigned.as_slice())
            .map_err(|error| store_errno(&error))?;
        Ok(spelling)
    }

    /// Shows what a tree that was fetched anew has changed. Directories that are not loaded are in no
    /// list of ours, but the kernel may know names in them: those are told from the rows.
    pub(crate) fn adopt_changed(&mut self, changed: Vec<Changed>) -> OpResult<Vec<Invalidation>> {
        let mut delta = Delta::default();
        let mut told = Vec::new();
        for Changed { handle, before } in changed {
            let now = self.node_row(handle)?;
            if now.is_none() {
                delta.deleted.insert(handle);
            }
            for row in before.iter().chain(now.iter()) {
                if let Some(parent) = row.parent {
                    let subject = Subject::Node(handle);
                    let plain = self.config.naming.spell(&self.stored_of(row), subject);
                    let name = suffixed(&plain, row.suffix.unwrap_or(0));
                    self.tell_entry(&mut told, Subject::Node(parent), name);
                }
            }
            let ino = self.inodes.kernel_ino(Subject::Node(handle));
            told.extend(ino.map(Invalidation::Inode));
            delta.touched.insert(handle, before);
        }
        told.extend(self.patch(&delta)?);
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(is_delete: bool) -> Packet {
        let action = if is_delete {
            ActionPacket::Delete {
                node: NodeHandle::from_u48(1),
                moved: false,
            }
        } else {
            ActionPacket::QuotaChanged
        };
        Packet {
            i: None,
            st: None,
            action,
        }
    }

    #[test]
    fn what_follows_an_unexpected_packet_is_applied_too() {
        let node = NodeHandle::from_u48(1);
        let own = |action| Packet {
            i: Some("me".to_owned()),
            st: None,
            action,
        };
        let attributes = |node| {
            own(ActionPacket::Attributes {
                node,
                owner: None,
                attrs: None,
                ts: None,
            })
        };
        let delete = own(ActionPacket::Delete { node, moved: false });
        let mut packets = OwnPackets::new("me".to_owned());
        packets.expect(node, "u");
        assert!(packets.take(&attributes(node)));
        packets.expect(node, "u");
        packets.expect(NodeHandle::from_u48(2), "u");
        assert!(!packets.take(&delete));
        assert!(!packets.take(&attributes(node)));
        assert!(packets.take(&attributes(NodeHandle::from_u48(2))));
    }

    #[test]
    fn portions_keep_moves_together() {
        for (count, deletes) in [
            (0, 0..0),
            (SLICE, 0..SLICE),
            (SLICE + 1, SLICE - 1..SLICE),
            (3 * SLICE, SLICE - 5..SLICE),
            (3 * SLICE, 0..2 * SLICE + 3),
        ] {
            let packets: Vec<_> = (0..count).map(|at| packet(deletes.contains(&at))).collect();
            let portions = slices(&packets);
            assert_eq!(
                portions.iter().map(|portion| portion.len()).sum::<usize>(),
                count
            );
            assert!(portions.iter().all(|portion| portion.len() <= SLICE));
            for pair in portions.windows(2) {
                let is_delete = |packet: Option<&Packet>| {
                    matches!(packet.unwrap().action, ActionPacket::Delete { .. })
                };
                // The end of a portion may be a removal only if what follows is one.
                assert!(!is_delete(pair[0].last()) || is_delete(pair[1].first()));
            }
        }
    }
}
