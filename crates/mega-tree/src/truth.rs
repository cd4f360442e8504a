//! Applying what the server says to the stored truth.
//!
//! The last transaction of an event reply has its `sn` (invariant I1). Application is
//! idempotent (protocol/05 section 6): a packet that tells what is already known changes nothing. A move
//! arrives as `d` followed by `t`; the pair re-links the subtree and never passes through "deleted",
//! also when the two halves come in different replies.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use mega_proto::{
    ActionPacket, NodeHandle, NodeKind, Packet, RawNode, ShareTarget, User, UserHandle, b64,
};
use mega_store::{NodeRow, ShareKind, ShareRow, Store, StoreError, Tx};

/// The user attribute in which accounts keep share keys (protocol/03 section 6).
const KEYS: &str = "^!keys";
/// Where a `d` of a split move waits for its `t`, across replies and restarts.
const META_PENDING_MOVE: &str = "pending_move";

/// What one batch of packets changed.
#[derive(Debug, Default)]
pub struct Delta {
    /// Every node that was touched, with the row it had before (`None`: it was unknown).
    pub touched: HashMap<NodeHandle, Option<NodeRow>>,
    /// Nodes that are gone, descendants included.
    pub deleted: HashSet<NodeHandle>,
    /// Shares, their keys, or who shares may have changed: the share rows tell.
    pub shares_changed: bool,
    /// Share keys that the server keeps elsewhere may have changed: it has to be asked.
    pub stored_keys_changed: bool,
    /// A share has ended that was not the only way to what is in it: which keys the server serves for that now
    /// is told by a whole tree only.
    pub tree_in_doubt: bool,
    /// The quota should be asked again.
    pub quota_changed: bool,
}

/// Turns a node as served into a row. Undecodable attributes become empty: the node stays.
#[must_use]
pub fn row_from_raw(raw: &RawNode) -> NodeRow {
    NodeRow {
        handle: raw.handle,
        parent: raw.parent,
        kind: raw.kind,
        owner: raw.owner,
        size: raw.size,
        ts: raw.ts,
        key: raw.key.clone().unwrap_or_default(),
        attrs: raw
            .attrs
            .as_deref()
            .and_then(|text| b64::decode(text).ok())
            .unwrap_or_default(),
        fa: raw.fa.clone(),
        arrival: 0,
        suffix: None,
    }
}

/// The share that the root of one brings with it, as served. Of modern accounts it has no key
/// (protocol/03 section 6). Nobody shares with us (`me`) what is ours.
#[must_use]
pub fn share_from_raw(raw: &RawNode, me: Option<UserHandle>) -> Option<ShareRow> {
    if me.is_some() && (raw.owner == me || raw.sharer == me) {
        return None;
    }
    let key = raw.share_key.clone().unwrap_or_default();
    let mut share = ShareRow::new(raw.handle, ShareKind::Incoming, key);
    share.user = Some(raw.sharer?);
    share.access = raw.access;
    Some(share)
}

/// For whom packets are applied, and how far they bring the truth.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// Ourselves.
    pub me: Option<UserHandle>,
    /// Nothing more is there to come: what was taken away and has not come again, went out of our sight.
    pub is_current: bool,
}

/// Applies packets in order inside `tx`. `skip` tells which packets are our own and already applied.
///
/// # Errors
/// Whatever the store reports; the caller's transaction is then rolled back.
pub fn apply(
    store: &Store,
    tx: &mut Tx<'_>,
    packets: &[Packet],
    scope: Scope,
    mut skip: impl FnMut(&Packet) -> bool,
) -> Result<Delta, StoreError> {
    let mut delta = Delta::default();
    let mut waiting: Option<NodeHandle> = tx
        .meta_get(META_PENDING_MOVE)?
        .and_then(|text| text.parse().ok());
    let had_waiting = waiting.is_some();
    // Roots of shares that have ended and are seen by way of another one.
    let mut stays: HashSet<NodeHandle> = HashSet::new();
    let mut packets = packets.iter().peekable();
    while let Some(packet) = packets.next() {
        if let Some(handle) = waiting.take() {
            let relinks = matches!(&packet.action, ActionPacket::Nodes { nodes, .. }
                if nodes.iter().any(|node| node.handle == handle));
            if !relinks {
                delete(store, tx, &mut delta, handle)?;
            }
        }
        if skip(packet) {
            continue;
        }
        match &packet.action {
            ActionPacket::Nodes { nodes, users, .. } => {
                put_contacts(tx, &mut delta, users)?;
                // Old versions first: the name of an overwritten file is then free for the new one.
                for raw in nodes {
                    upsert(store, tx, &mut delta, raw, scope.me)?;
                }
                inherit_numbers(tx, &delta, nodes)?;
            }
            // That is the end of the share once more.
            ActionPacket::Delete { node, .. } if stays.remove(node) => {}
            ActionPacket::Delete { node, moved } => match packets.peek().map(|next| &next.action) {
                Some(ActionPacket::Nodes { nodes, .. }) => {
                    if !nodes.iter().any(|raw| raw.handle == *node) {
                        delete(store, tx, &mut delta, *node)?;
                    }
                }
                Some(_) => delete(store, tx, &mut delta, *node)?,
                None if *moved => waiting = Some(*node),
                None => delete(store, tx, &mut delta, *node)?,
            },
            ActionPacket::Attributes { node, attrs, .. } => {
                let Some(attrs) = attrs.as_deref().and_then(|text| b64::decode(text).ok()) else {
                    continue;
                };
                if let Some(row) = current(store, tx, &mut delta, *node)?
                    && row.attrs != attrs
                {
                    tx.set_attrs(*node, &attrs)?;
                }
            }
            ActionPacket::FileAttributes { node, fa } => {
                if let Some(mut row) = current(store, tx, &mut delta, *node)? {
                    row.fa = (!fa.is_empty()).then(|| fa.clone());
                    tx.upsert_node(&row)?;
                }
            }
            ActionPacket::Key { keys } => {
                for (node, key) in keys {
                    if let Some(mut row) = current(store, tx, &mut delta, *node)? {
                        row.key.clone_from(key);
                        tx.upsert_node(&row)?;
                    }
                }
            }
            ActionPacket::Share {
                node,
                owner_key: Some(key),
                ha,
                ..
            } => {
                // A folder of ours is shared from now on: what is put below it needs this key.
                let mut share = ShareRow::new(*node, ShareKind::OwnKey, key.clone());
                share.extra.clone_from(ha);
                tx.put_share(&share)?;
                delta.shares_changed = true;
            }
            ActionPacket::Share {
                node,
                owner,
                target: Some(ShareTarget::User(target)),
                access,
                key,
                ..
            } if scope.me == Some(*target) => {
                if tx.node(*node)?.is_some_and(|row| row.owner == scope.me) {
                    tracing::warn!(node = %node, "a share of a folder that is ours is ignored");
                    continue;
                }
                let mut share =
                    ShareRow::new(*node, ShareKind::Incoming, key.clone().unwrap_or_default());
                share.user = *owner;
                share.access = *access;
                delta.shares_changed = true;
                if access.is_some() {
                    put_incoming(tx, share)?;
                } else if end_share(store, tx, &mut delta, *node)? {
                    stays.insert(*node);
                }
            }
            ActionPacket::Share { .. } => {}
            ActionPacket::Contacts { users } => put_contacts(tx, &mut delta, users)?,
            ActionPacket::PendingKeys => delta.stored_keys_changed = true,
            ActionPacket::UserAttributes { user, names, .. } => {
                let is_ours = user.is_none() || *user == scope.me;
                delta.stored_keys_changed |= is_ours && names.iter().any(|name| name == KEYS);
            }
            ActionPacket::QuotaChanged => delta.quota_changed = true,
            ActionPacket::Link { .. } | ActionPacket::Other(_) | ActionPacket::Malformed => {}
        }
    }
    if scope.is_current
        && let Some(handle) = waiting.take()
    {
        delete(store, tx, &mut delta, handle)?;
    }
    keep_numbers(tx, &delta)?;
    match waiting {
        Some(handle) => tx.meta_set(META_PENDING_MOVE, &handle.to_string())?,
        None if had_waiting => tx.meta_set(META_PENDING_MOVE, "")?,
        None => {}
    }
    Ok(delta)
}

/// Whether something was taken away that may still come again.
///
/// # Errors
/// Whatever the store reports.
pub fn has_half_move(store: &Store) -> Result<bool, StoreError> {
    let waiting = store.meta(META_PENDING_MOVE)?;
    Ok(waiting.is_some_and(|handle| !handle.is_empty()))
}

/// Notes what a node was before this batch, once.
fn note(store: &Store, delta: &mut Delta, handle: NodeHandle) -> Result<(), StoreError> {
    if let Entry::Vacant(slot) = delta.touched.entry(handle) {
        slot.insert(store.node(handle)?);
    }
    Ok(())
}

/// The row as it is now, noting what it was before this batch.
fn current(
    store: &Store,
    tx: &mut Tx<'_>,
    delta: &mut Delta,
    handle: NodeHandle,
) -> Result<Option<NodeRow>, StoreError> {
    let now = tx.node(handle)?;
    if now.is_some() {
        note(store, delta, handle)?;
    }
    Ok(now)
}

/// Writes a share; what a packet does not repeat stays.
fn put_incoming(tx: &mut Tx<'_>, mut share: ShareRow) -> Result<(), StoreError> {
    let known = tx.shares()?;
    let is_same = |row: &&ShareRow| row.kind == share.kind && row.handle == share.handle;
    if let Some(known) = known.iter().find(is_same) {
        if share.key_as_served.is_empty() {
            share.key_as_served.clone_from(&known.key_as_served);
        }
        share.user = share.user.or(known.user);
        share.access = share.access.or(known.access);
        tx.delete_share(share.handle, ShareKind::Incoming)?;
    }
    tx.put_share(&share)
}

/// A folder is no longer shared with us. Its nodes go, whether or not a packet names them; but what is shared
/// in another way too, with a folder above or by itself, stays. Whether the folder stays.
fn end_share(
    store: &Store,
    tx: &mut Tx<'_>,
    delta: &mut Delta,
    root: NodeHandle,
) -> Result<bool, StoreError> {
    tx.delete_share(root, ShareKind::Incoming)?;
    let shares = tx.shares()?;
    let others: HashSet<NodeHandle> = shares
        .iter()
        .filter(|share| share.kind == ShareKind::Incoming)
        .map(|share| share.handle)
        .collect();
    if is_below(tx, root, &others)? {
        delta.tree_in_doubt = true;
        return Ok(true);
    }
    let ended = HashSet::from([root]);
    for inner in others {
        if is_below(tx, inner, &ended)?
            && let Some(mut row) = current(store, tx, delta, inner)?
        {
            row.parent = None;
            tx.upsert_node(&row)?;
            delta.tree_in_doubt = true;
        }
    }
    delete(store, tx, delta, root)?;
    Ok(false)
}

/// Whether a node lies below one of these folders.
fn is_below(
    tx: &Tx<'_>,
    node: NodeHandle,
    folders: &HashSet<NodeHandle>,
) -> Result<bool, StoreError> {
    let mut at = node;
    // A circle of parents must not hang us.
    for _ in 0..4096 {
        match tx.node(at)?.and_then(|row| row.parent) {
            Some(parent) if folders.contains(&parent) => return Ok(true),
            Some(parent) => at = parent,
            None => return Ok(false),
        }
    }
    Ok(false)
}

fn put_contacts(tx: &mut Tx<'_>, delta: &mut Delta, users: &[User]) -> Result<(), StoreError> {
    let known = match users {
        [] => return Ok(()),
        _ => tx.shares()?,
    };
    for user in users {
        if let Some(address) = &user.email {
            let contact = ShareRow::contact(user.handle, address.clone());
            // Every list of users has all of them, and whoever learns of a change looks at all keys.
            if !known.contains(&contact) {
                tx.put_share(&contact)?;
                delta.shares_changed = true;
            }
        }
    }
    Ok(())
}

fn upsert(
    store: &Store,
    tx: &mut Tx<'_>,
    delta: &mut Delta,
    raw: &RawNode,
    me: Option<UserHandle>,
) -> Result<(), StoreError> {
    let mut row = row_from_raw(raw);
    let known = tx.node(raw.handle)?;
    let is_ours = me.is_some() && known.as_ref().is_some_and(|known| known.owner == me);
    if let Some(share) = share_from_raw(raw, me).filter(|_| !is_ours) {
        put_incoming(tx, share)?;
        delta.shares_changed = true;
    }
    if let Some(known) = &known {
        // A repeated node may come without what does not change.
        if raw.attrs.is_none() {
            row.attrs.clone_from(&known.attrs);
        }
        if raw.key.is_none() {
            row.key.clone_from(&known.key);
        }
        if raw.parent.is_none() {
            row.parent = known.parent;
        }
        if raw.fa.is_none() {
            row.fa.clone_from(&known.fa);
        }
        row.owner = row.owner.or(known.owner);
        row.arrival = known.arrival;
        row.suffix = if row.parent == known.parent && row.attrs == known.attrs {
            known.suffix
        } else {
            None
        };
        if row == *known {
            return Ok(());
        }
    } else if matches!(raw.kind, NodeKind::File | NodeKind::Folder) && raw.parent.is_none() {
        tracing::debug!(node = %raw.handle, "node without parent kept as orphan");
    }
    delta.deleted.remove(&raw.handle);
    note(store, delta, raw.handle)?;
    tx.upsert_node(&row)
}

/// What is where it was and named as it was keeps its duplicate number, wherever it was in between: changes of
/// ours that are told once more after a restart show every place that a node has had.
fn keep_numbers(tx: &mut Tx<'_>, delta: &Delta) -> Result<(), StoreError> {
    for before in delta.touched.values().flatten() {
        if before.suffix.is_some()
            && let Some(now) = tx.node(before.handle)?
            && now.suffix.is_none()
            && (now.parent, &now.attrs) == (before.parent, &before.attrs)
        {
            tx.set_suffix(now.handle, before.suffix)?;
        }
    }
    Ok(())
}

/// A file that replaces another, which becomes its version, is shown as that one was.
fn inherit_numbers(tx: &mut Tx<'_>, delta: &Delta, nodes: &[RawNode]) -> Result<(), StoreError> {
    let before = |raw: &RawNode| delta.touched.get(&raw.handle).and_then(Option::as_ref);
    for version in nodes {
        let Some(replaced) = before(version).filter(|row| row.suffix.is_some()) else {
            continue;
        };
        let heir = nodes.iter().find(|raw| {
            Some(raw.handle) == version.parent
                && raw.kind == NodeKind::File
                && raw.parent == replaced.parent
                && before(raw).is_none()
        });
        if let Some(heir) = heir {
            tx.set_suffix(heir.handle, replaced.suffix)?;
        }
    }
    Ok(())
}

fn delete(
    store: &Store,
    tx: &mut Tx<'_>,
    delta: &mut Delta,
    handle: NodeHandle,
) -> Result<(), StoreError> {
    current(store, tx, delta, handle)?;
    if tx.delete_share(handle, ShareKind::Incoming)? {
        delta.shares_changed = true;
    }
    for gone in tx.delete_subtree(handle)? {
        note(store, delta, gone)?;
        delta.deleted.insert(gone);
    }
    Ok(())
}
