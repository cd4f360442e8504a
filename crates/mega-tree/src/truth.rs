//! Applying what the server says to the stored truth.
//!
//! The last transaction of an event reply has its `sn` (invariant I1). Application is
//! idempotent (protocol/05 section 6): a packet that tells what is already known changes nothing. A move
//! arrives as `d` followed by `t`; the pair re-links the subtree and never passes through "deleted",
//! also when the two halves come in different replies.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use mega_proto::{ActionPacket, NodeHandle, NodeKind, Packet, RawNode, b64};
use mega_store::{NodeRow, ShareKind, ShareRow, Store, StoreError, Tx};

/// Where a `d` of a split move waits for its `t`, across replies and restarts.
const META_PENDING_MOVE: &str = "pending_move";

/// What one batch of packets changed.
#[derive(Debug, Default)]
pub struct Delta {
    /// Every node that was touched, with the row it had before (`None`: it was unknown).
    pub touched: HashMap<NodeHandle, Option<NodeRow>>,
    /// Nodes that are gone, descendants included.
    pub deleted: HashSet<NodeHandle>,
    /// Share keys may have changed.
    pub keys_changed: bool,
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

/// The share key that an in-share root brings with it, as served.
#[must_use]
pub fn share_from_raw(raw: &RawNode) -> Option<ShareRow> {
    let key = raw.share_key.as_ref()?;
    let mut share = ShareRow::new(raw.handle, ShareKind::Incoming, key.clone());
    share.user = raw.sharer;
    share.access = raw.access;
    Some(share)
}

/// Applies packets in order inside `tx`. `skip` tells which packets are our own and already applied.
///
/// # Errors
/// Whatever the store reports; the caller's transaction is then rolled back.
pub fn apply(
    store: &Store,
    tx: &mut Tx<'_>,
    packets: &[Packet],
    mut skip: impl FnMut(&Packet) -> bool,
) -> Result<Delta, StoreError> {
    let mut delta = Delta::default();
    let mut waiting: Option<NodeHandle> = tx
        .meta_get(META_PENDING_MOVE)?
        .and_then(|text| text.parse().ok());
    let had_waiting = waiting.is_some();
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
            ActionPacket::Nodes { nodes, .. } => {
                // Old versions first: the name of an overwritten file is then free for the new one.
                for raw in nodes {
                    upsert(store, tx, &mut delta, raw)?;
                }
                inherit_numbers(tx, &delta, nodes)?;
            }
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
                delta.keys_changed = true;
            }
            ActionPacket::Share { .. }
            | ActionPacket::PendingKeys
            | ActionPacket::UserAttributes { .. } => {
                delta.keys_changed = true;
            }
            ActionPacket::QuotaChanged => delta.quota_changed = true,
            ActionPacket::Link { .. } | ActionPacket::Other(_) | ActionPacket::Malformed => {}
        }
    }
    match waiting {
        Some(handle) => tx.meta_set(META_PENDING_MOVE, &handle.to_string())?,
        None if had_waiting => tx.meta_set(META_PENDING_MOVE, "")?,
        None => {}
    }
    Ok(delta)
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

fn upsert(
    store: &Store,
    tx: &mut Tx<'_>,
    delta: &mut Delta,
    raw: &RawNode,
) -> Result<(), StoreError> {
    let mut row = row_from_raw(raw);
    if let Some(share) = share_from_raw(raw) {
        tx.put_share(&share)?;
        delta.keys_changed = true;
    }
    let known = tx.node(raw.handle)?;
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
    for gone in tx.delete_subtree(handle)? {
        note(store, delta, gone)?;
        delta.deleted.insert(gone);
    }
    Ok(())
}
