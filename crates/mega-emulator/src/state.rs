//! Owns everything the server knows: accounts, sessions, nodes, uploads, links, shares, events; and
//! the rule that each change of it is in the journal before anybody is told. One lock guards it all
//! (see `server.rs`); nothing here blocks except on local files.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::codec::Handle;
use crate::content::{Content, ContentId};
use crate::crypto::{self, Block};
use crate::generated::Region;
use crate::journal::{Journal, Record};

mod uploads;

pub(crate) use self::uploads::{Upload, now_ms};

/// An account.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) handle: String,
    pub(crate) email: String,
    pub(crate) name: String,
    pub(crate) version: u8,
    /// Salt of version 2, raw.
    pub(crate) salt: Vec<u8>,
    /// Accepted `uh` values, raw.
    pub(crate) auth: Vec<Vec<u8>>,
    /// MK wrapped with each password key, one per entry of `auth`.
    pub(crate) k: Vec<Vec<u8>>,
    pub(crate) privk: Vec<u8>,
    pub(crate) pubk: Vec<u8>,
    /// Known to the fixture only; a real server has no such thing.
    pub(crate) mk: Block,
    pub(crate) quota: u64,
    pub(crate) totp: Option<Vec<u8>>,
    /// `whyamiblocked` code, 0 = not blocked.
    pub(crate) blocked: u32,
    pub(crate) unconfirmed: bool,
    /// Session ids begin with a zero byte.
    pub(crate) zero_sid: bool,
    pub(crate) roots: Vec<Handle>,
    /// Attribute name to value and version.
    pub(crate) attributes: BTreeMap<String, (String, String)>,
    pub(crate) created: i64,
    /// Private curve key, zero while the account has none.
    #[serde(default)]
    pub(crate) curve: [u8; 32],
    /// Share keys in `^!keys`.
    #[serde(default)]
    pub(crate) kept_keys: Vec<(Handle, Block)>,
    /// Share keys that others have left: who, for which folder, wrapped.
    #[serde(default)]
    pub(crate) pending_keys: Vec<(String, Handle, String)>,
}

/// A login.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) user: String,
    pub(crate) sek: Option<String>,
    pub(crate) id: String,
    pub(crate) created: i64,
    pub(crate) agent: String,
    /// Which of the accepted password keys was used.
    #[serde(default)]
    pub(crate) which: usize,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) h: Handle,
    pub(crate) p: Option<Handle>,
    pub(crate) u: String,
    pub(crate) t: u8,
    pub(crate) a: String,
    /// The owner's key, without the owner part; may be empty, wrapped or RSA.
    pub(crate) k: String,
    /// Keys under share roots.
    pub(crate) sk: Vec<(Handle, String)>,
    pub(crate) ts: i64,
    pub(crate) s: u64,
    pub(crate) fa: String,
    pub(crate) content: Option<ContentId>,
    /// Generated file whose content this copy has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) generated: Option<Handle>,
}

/// A public link.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Link {
    pub(crate) node: Handle,
    pub(crate) user: String,
    pub(crate) ts: i64,
}

/// Shares of one folder.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Share {
    pub(crate) owner: String,
    pub(crate) ok: String,
    pub(crate) ha: String,
    /// User handle or `EXP` to (level, time, wrapped share key for the recipient).
    pub(crate) users: BTreeMap<String, (i64, i64, String)>,
    /// The key, where `ok` does not have it: modern clients send zeros there and keep the key in
    /// `^!keys`. Known to the fixture only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<Block>,
}

/// One packet of a user's stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) packet: Box<str>,
    /// Packets of one change share it.
    pub(crate) group: u64,
}

/// A user's stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events {
    /// Position before the first kept packet.
    pub(crate) base: u64,
    pub(crate) packets: VecDeque<Event>,
}

impl Events {
    /// Position after the last packet.
    pub(crate) fn position(&self) -> u64 {
        self.base + self.packets.len() as u64
    }
}

/// Counter values that must survive.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Meta {
    next_node: u32,
    next_upload: u64,
    next_tag: u64,
    boots: u64,
}

/// The server's whole state.
pub(crate) struct State {
    pub(crate) users: BTreeMap<String, User>,
    pub(crate) by_email: HashMap<String, String>,
    pub(crate) sessions: HashMap<String, Session>,
    nodes: HashMap<Handle, Arc<Node>>,
    children: HashMap<Handle, BTreeSet<Handle>>,
    pub(crate) regions: Vec<Region>,
    gone: HashSet<Handle>,
    pub(crate) uploads: HashMap<ContentId, Upload>,
    pub(crate) tokens: HashMap<String, ContentId>,
    pub(crate) contents: HashMap<ContentId, Arc<Content>>,
    references: HashMap<ContentId, u32>,
    pub(crate) links: BTreeMap<String, Link>,
    pub(crate) shares: BTreeMap<Handle, Share>,
    pub(crate) events: HashMap<String, Events>,
    /// Bytes used per user.
    pub(crate) used: HashMap<String, u64>,
    /// Keys and nonces of uploads put so far, with size and content.
    pub(crate) keys_seen: HashMap<(Block, [u8; 8]), (u64, ContentId)>,
    pub(crate) journal: Journal,
    meta: Meta,
    random: Random,
}

/// Deterministic random bytes: AES in counter mode under the seed and the number of the start.
struct Random {
    key: Block,
    counter: u128,
}

const KEPT_EVENTS: usize = 50_000;

impl State {
    /// Opens the state in `dir`, or an empty one in memory.
    pub(crate) fn open(dir: Option<&Path>, seed: u64) -> std::io::Result<Self> {
        let mut s = Self {
            users: BTreeMap::new(),
            by_email: HashMap::new(),
            sessions: HashMap::new(),
            nodes: HashMap::new(),
            children: HashMap::new(),
            regions: Vec::new(),
            gone: HashSet::new(),
            uploads: HashMap::new(),
            tokens: HashMap::new(),
            contents: HashMap::new(),
            references: HashMap::new(),
            links: BTreeMap::new(),
            shares: BTreeMap::new(),
            events: HashMap::new(),
            used: HashMap::new(),
            keys_seen: HashMap::new(),
            journal: Journal::memory(),
            meta: Meta {
                next_node: 1,
                next_upload: 1,
                next_tag: 1,
                boots: 0,
            },
            random: Random {
                key: [0; 16],
                counter: 0,
            },
        };
        if let Some(dir) = dir {
            s.journal = Journal::open(dir, |r| s.apply(r))?;
            s.open_contents(dir)?;
            s.compact()?;
        }
        s.meta.boots += 1;
        s.journal.put("meta", "", &s.meta);
        let mut key = [0; 16];
        for (o, i) in key.iter_mut().zip(
            seed.to_be_bytes()
                .into_iter()
                .chain(s.meta.boots.to_be_bytes()),
        ) {
            *o = i;
        }
        s.random.key = key;
        Ok(s)
    }

    fn open_contents(&mut self, dir: &Path) -> std::io::Result<()> {
        let mut known: HashSet<ContentId> = self.uploads.keys().copied().collect();
        known.extend(self.references.keys().copied());
        for entry in std::fs::read_dir(dir.join("content"))? {
            let entry = entry?;
            let id = entry
                .file_name()
                .to_str()
                .and_then(|n| n.parse::<u64>().ok());
            match id {
                Some(id) if known.contains(&id) => {
                    self.contents
                        .insert(id, Arc::new(Content::create(Some(dir), id)?));
                }
                _ => {
                    let _ = std::fs::remove_file(entry.path());
                }
            }
            self.meta.next_upload = self.meta.next_upload.max(id.unwrap_or(0) + 1);
        }
        Ok(())
    }

    fn apply(&mut self, record: Record) {
        fn map<K, V: DeserializeOwned>(
            target: &mut impl Extend<(K, V)>,
            key: K,
            value: Value,
            remove: impl FnOnce(&K),
        ) {
            match value {
                Value::Null => remove(&key),
                v => target.extend(serde_json::from_value(v).ok().map(|v| (key, v))),
            }
        }
        let Record { kind, key, value } = record;
        let null = value.is_null();
        match kind.as_str() {
            "meta" => self.meta = serde_json::from_value(value).unwrap_or(self.meta),
            "user" => {
                if let Ok(user) = serde_json::from_value::<User>(value) {
                    self.by_email.insert(user.email.clone(), key.clone());
                    self.users.insert(key, user);
                }
            }
            "session" if null => drop(self.sessions.remove(&key)),
            "session" => map(&mut self.sessions, key, value, |_| ()),
            "node" => {
                let Some(h) = Handle::parse(&key) else { return };
                let (region, index) = h.place();
                if region == 0 {
                    self.meta.next_node = self.meta.next_node.max(index.saturating_add(1));
                }
                self.forget(h);
                match serde_json::from_value::<Node>(value) {
                    Ok(node) => self.remember(node),
                    Err(_) if region != 0 => self.forget_generated(h),
                    Err(_) => {}
                }
            }
            "region" => {
                if let Ok(region) = serde_json::from_value::<Region>(value) {
                    self.adopt(region);
                }
            }
            "upload" => {
                let Ok(id) = key.parse::<u64>() else { return };
                self.meta.next_upload = self.meta.next_upload.max(id + 1);
                match serde_json::from_value::<Upload>(value) {
                    Ok(upload) => {
                        if let Some(token) = &upload.token {
                            self.tokens.insert(token.clone(), id);
                        }
                        self.uploads.insert(id, upload);
                    }
                    Err(_) => drop(self.uploads.remove(&id)),
                }
            }
            "piece" => {
                let at = key.split_once('/');
                let parsed = at.and_then(|(id, o)| Some((id.parse().ok()?, o.parse().ok()?)));
                if let (Some((id, offset)), Some(length)) = (parsed, value.as_u64())
                    && let Some(upload) = self.uploads.get_mut(&id)
                {
                    upload.pieces.insert(offset, length);
                }
            }
            "link" if null => drop(self.links.remove(&key)),
            "link" => map(&mut self.links, key, value, |_| ()),
            "share" => {
                let Some(h) = Handle::parse(&key) else { return };
                match serde_json::from_value(value) {
                    Ok(share) => drop(self.shares.insert(h, share)),
                    Err(_) => drop(self.shares.remove(&h)),
                }
            }
            "base" => {
                let base = value.as_u64().unwrap_or(0);
                self.events.insert(
                    key,
                    Events {
                        base,
                        packets: VecDeque::new(),
                    },
                );
            }
            "event" => {
                if let Ok(event) = serde_json::from_value::<Event>(value) {
                    self.meta.next_tag = self.meta.next_tag.max(event.group + 1);
                    self.events.entry(key).or_default().packets.push_back(event);
                }
            }
            _ => {}
        }
    }

    /// Rewrites the journal without its history.
    fn compact(&mut self) -> std::io::Result<()> {
        fn record(
            kind: &str,
            key: impl ToString,
            value: &impl Serialize,
        ) -> (String, String, Value) {
            (
                kind.to_owned(),
                key.to_string(),
                serde_json::to_value(value).unwrap_or(Value::Null),
            )
        }
        for events in self.events.values_mut() {
            while events.packets.len() > KEPT_EVENTS {
                events.packets.pop_front();
                events.base += 1;
            }
        }
        let mut all = vec![record("meta", "", &self.meta)];
        all.extend(self.users.iter().map(|(k, v)| record("user", k, v)));
        all.extend(self.sessions.iter().map(|(k, v)| record("session", k, v)));
        all.extend(self.regions.iter().map(|v| record("region", v.id, v)));
        all.extend(self.nodes.iter().map(|(k, v)| record("node", k, &**v)));
        all.extend(self.gone.iter().map(|k| record("node", k, &Value::Null)));
        all.extend(self.uploads.iter().map(|(k, v)| record("upload", k, v)));
        all.extend(self.links.iter().map(|(k, v)| record("link", k, v)));
        all.extend(self.shares.iter().map(|(k, v)| record("share", k, v)));
        for (user, events) in &self.events {
            all.push(record("base", user, &events.base));
            all.extend(events.packets.iter().map(|v| record("event", user, v)));
        }
        self.journal.rewrite(all.into_iter())
    }

    // ---- randomness, numbers ----

    /// Random bytes, reproducible from the seed.
    pub(crate) fn random<const N: usize>(&mut self) -> [u8; N] {
        let cipher = crypto::aes(&self.random.key);
        let mut out = [0; N];
        for piece in out.chunks_mut(16) {
            self.random.counter += 1;
            let mut b = self.random.counter.to_be_bytes();
            crypto::encrypt_block(&cipher, &mut b);
            for (o, i) in piece.iter_mut().zip(b) {
                *o = i;
            }
        }
        out
    }

    /// A fresh node or public handle.
    pub(crate) fn new_handle(&mut self) -> Handle {
        let index = self.meta.next_node;
        self.meta.next_node += 1;
        Handle::of(0, index)
    }

    /// Whether a node of this handle was ever created.
    pub(crate) fn existed(&self, h: Handle) -> bool {
        match h.place() {
            (0, index) => index < self.meta.next_node,
            (id, index) => self.regions.iter().any(|r| r.id == id && index < r.len()),
        }
    }

    /// Cloud root, vault and rubbish bin of a new account.
    pub(crate) fn new_roots(&mut self, user: &str) -> Vec<Handle> {
        let mut roots = Vec::new();
        for t in 2..=4 {
            let h = self.new_handle();
            self.put_node(Node {
                h,
                p: None,
                u: user.to_owned(),
                t,
                a: String::new(),
                k: String::new(),
                sk: Vec::new(),
                ts: crate::commands::now(),
                s: 0,
                fa: String::new(),
                content: None,
                generated: None,
            });
            roots.push(h);
        }
        roots
    }

    /// A fresh change number; tags are made of it.
    pub(crate) fn new_group(&mut self) -> u64 {
        self.meta.next_tag += 1;
        self.meta.next_tag
    }

    /// The tag (`st`) of the latest change.
    pub(crate) fn latest_tag(&self) -> String {
        tag(self.meta.next_tag)
    }

    // ---- users, sessions ----

    /// The account of an e-mail address, in any case.
    pub(crate) fn user_by_email(&self, email: &str) -> Option<&User> {
        self.users
            .get(self.by_email.get(&email.trim().to_lowercase())?)
    }

    /// Stores an account.
    pub(crate) fn put_user(&mut self, user: User) {
        self.journal.put("user", &user.handle, &user);
        self.by_email
            .insert(user.email.clone(), user.handle.clone());
        self.users.insert(user.handle.clone(), user);
    }

    /// Stores a session.
    pub(crate) fn put_session(&mut self, sid: String, session: Session) {
        self.journal.put("session", &sid, &session);
        self.sessions.insert(sid, session);
    }

    /// Ends a session.
    pub(crate) fn end_session(&mut self, sid: &str) {
        if self.sessions.remove(sid).is_some() {
            self.journal.delete("session", sid);
        }
    }

    // ---- nodes ----

    fn remember(&mut self, node: Node) {
        if let Some(p) = node.p {
            self.children.entry(p).or_default().insert(node.h);
        }
        if node.t == 0 {
            *self.used.entry(node.u.clone()).or_default() += node.s;
        }
        if let Some(c) = node.content {
            *self.references.entry(c).or_default() += 1;
        }
        if node.h.place().0 != 0 && !self.gone.remove(&node.h) {
            self.subtract_generated(node.h);
        }
        self.nodes.insert(node.h, Arc::new(node));
    }

    fn forget(&mut self, h: Handle) {
        let Some(node) = self.nodes.remove(&h) else {
            return;
        };
        if let Some(siblings) = node.p.and_then(|p| self.children.get_mut(&p)) {
            siblings.remove(&h);
        }
        if node.t == 0 {
            self.subtract(&node.u, node.s);
        }
        if h.place().0 != 0 {
            self.gone.insert(h);
        }
        if let Some(c) = node.content {
            let left = self.references.get_mut(&c).map_or(0, |n| {
                *n = n.saturating_sub(1);
                *n
            });
            if left == 0 {
                self.references.remove(&c);
                self.contents.remove(&c);
                if let Some(dir) = self.journal.dir() {
                    let _ = std::fs::remove_file(dir.join("content").join(c.to_string()));
                }
            }
        }
    }

    fn subtract(&mut self, user: &str, size: u64) {
        if let Some(used) = self.used.get_mut(user) {
            *used = used.saturating_sub(size);
        }
    }

    fn subtract_generated(&mut self, h: Handle) {
        let (id, index) = h.place();
        let found = self.regions.iter().find(|r| r.id == id);
        if let Some((user, facts)) = found.and_then(|r| Some((r.user.clone(), r.facts(index)?))) {
            self.subtract(&user, facts.size);
        }
    }

    fn forget_generated(&mut self, h: Handle) {
        if self.gone.insert(h) {
            self.subtract_generated(h);
        }
    }

    fn adopt(&mut self, region: Region) {
        let bytes: u64 = (region.folders..region.len())
            .filter_map(|i| region.facts(i))
            .map(|f| f.size)
            .sum();
        *self.used.entry(region.user.clone()).or_default() += bytes;
        self.regions.push(region);
    }

    /// Adds a generated tree.
    pub(crate) fn put_region(&mut self, region: Region) {
        self.journal.put("region", &region.id.to_string(), &region);
        self.adopt(region);
    }

    /// Stores a node, new or changed, and keeps the parent index and quotas right.
    pub(crate) fn put_node(&mut self, node: Node) {
        self.journal.put("node", &node.h.to_string(), &node);
        // Referenced twice for a moment, so that replacing a node does not drop its content.
        if let Some(c) = node.content {
            *self.references.entry(c).or_default() += 1;
        }
        let content = node.content;
        self.forget(node.h);
        self.remember(node);
        if let Some(n) = content.and_then(|c| self.references.get_mut(&c)) {
            *n = n.saturating_sub(1);
        }
    }

    /// Removes one node; its children must be removed by the caller.
    pub(crate) fn delete_node(&mut self, h: Handle) {
        self.journal.delete("node", &h.to_string());
        if self.nodes.contains_key(&h) {
            self.forget(h);
        } else if h.place().0 != 0 {
            self.forget_generated(h);
        }
        if self.shares.remove(&h).is_some() {
            self.journal.delete("share", &h.to_string());
        }
        let dead: Vec<String> = self
            .links
            .iter()
            .filter(|(_, l)| l.node == h)
            .map(|(ph, _)| ph.clone())
            .collect();
        for ph in dead {
            self.links.remove(&ph);
            self.journal.delete("link", &ph);
        }
    }

    /// A node by handle, stored or generated.
    pub(crate) fn node(&self, h: Handle) -> Option<Arc<Node>> {
        if let Some(node) = self.nodes.get(&h) {
            return Some(node.clone());
        }
        let (id, index) = h.place();
        if id == 0 || self.gone.contains(&h) {
            return None;
        }
        let region = self.regions.iter().find(|r| r.id == id)?;
        let mk = self.users.get(&region.user)?.mk;
        generate(region, &region.cipher(), index, &crypto::aes(&mk)).map(Arc::new)
    }

    /// Whether generated node `h` still is what its region says.
    pub(crate) fn is_pristine(&self, h: Handle) -> bool {
        !self.nodes.contains_key(&h) && !self.gone.contains(&h)
    }

    /// Whether every node of every region is pristine, which makes listings cheaper.
    pub(crate) fn overridden(&self) -> HashSet<Handle> {
        let stored = self.nodes.keys().filter(|h| h.place().0 != 0);
        stored.chain(&self.gone).copied().collect()
    }

    /// Handles of the direct children, stored first, then generated.
    pub(crate) fn child_handles(&self, h: Handle) -> Vec<Handle> {
        let mut out: Vec<Handle> = self
            .children
            .get(&h)
            .map(|c| c.iter().copied().collect())
            .unwrap_or_default();
        let (id, index) = h.place();
        for region in &self.regions {
            if region.parent == h {
                out.extend(
                    region
                        .tops()
                        .map(|i| region.handle(i))
                        .filter(|h| self.is_pristine(*h)),
                );
            }
            if region.id == id {
                out.extend(
                    region
                        .children(index)
                        .map(|i| region.handle(i))
                        .filter(|h| self.is_pristine(*h)),
                );
            }
        }
        out
    }

    /// Handles of the stored children only.
    pub(crate) fn stored_children(&self, h: Handle) -> impl Iterator<Item = Arc<Node>> + '_ {
        self.children
            .get(&h)
            .into_iter()
            .flatten()
            .filter_map(|h| self.nodes.get(h).cloned())
    }

    /// Folders of a region that have stored children, with the number of them.
    pub(crate) fn parents_in(&self, region: u16) -> Vec<(Handle, usize)> {
        let of = |(h, c): (&Handle, &BTreeSet<Handle>)| {
            (h.place().0 == region && self.is_pristine(*h) && !c.is_empty())
                .then_some((*h, c.len()))
        };
        self.children.iter().filter_map(of).collect()
    }

    /// The node and everything below it, parents first.
    pub(crate) fn subtree(&self, top: Handle) -> Vec<Arc<Node>> {
        let mut out = Vec::new();
        let mut queue = VecDeque::from([top]);
        let mut seen = HashSet::new();
        while let Some(h) = queue.pop_front() {
            if !seen.insert(h) {
                continue;
            }
            if let Some(node) = self.node(h) {
                out.push(node);
                queue.extend(self.child_handles(h));
            }
        }
        out
    }

    /// All an account has: bytes, files, folders, version bytes, versions. Walks the stored nodes;
    /// generated ones are counted by arithmetic.
    pub(crate) fn totals(&self, user: &str) -> crate::commands::account::Counts {
        let mut c = (0, 0, 0, 0, 0);
        for node in self.nodes.values().filter(|n| n.u == user && n.t < 2) {
            if node.t != 0 {
                c.2 += 1;
            } else if self.is_version(node) {
                c.3 += node.s;
                c.4 += 1;
            } else {
                c.1 += 1;
            }
        }
        let changed = self.overridden();
        for region in self.regions.iter().filter(|r| r.user == user) {
            let kind = |h: &Handle| {
                let (id, index) = h.place();
                (id == region.id)
                    .then(|| region.facts(index))
                    .flatten()
                    .map(|f| f.kind)
            };
            let folders = changed.iter().filter(|h| kind(h) == Some(1)).count() as u64;
            let files = changed.iter().filter(|h| kind(h) == Some(0)).count() as u64;
            c.1 += u64::from(region.len() - region.folders) - files;
            c.2 += u64::from(region.folders) - folders;
        }
        c.0 = self
            .used
            .get(user)
            .copied()
            .unwrap_or(0)
            .saturating_sub(c.3);
        c
    }

    /// The chain of parents, nearest first, starting with the node itself.
    pub(crate) fn ancestors(&self, h: Handle) -> Vec<Handle> {
        let mut out = vec![h];
        let mut at = self.node(h).and_then(|n| n.p);
        while let Some(p) = at {
            if out.contains(&p) {
                break;
            }
            out.push(p);
            at = self.node(p).and_then(|n| n.p);
        }
        out
    }

    /// All stored nodes without a parent that exists, or with each other as parents: fixtures.
    pub(crate) fn orphans(&self, user: &str) -> Vec<Arc<Node>> {
        let orphan = |n: &&Arc<Node>| {
            let lost = |p| self.node(p).is_none_or(|above| above.p == Some(n.h));
            n.u == user && n.t < 2 && n.p.is_none_or(lost)
        };
        self.nodes.values().filter(orphan).cloned().collect()
    }

    // ---- contents ----

    /// The content behind a node, `None` for folders and lost content.
    pub(crate) fn content_of(&self, node: &Node) -> Option<Arc<Content>> {
        if let Some(c) = node.content {
            return self.contents.get(&c).cloned();
        }
        let (id, index) = node.generated.unwrap_or(node.h).place();
        let region = self.regions.iter().find(|r| r.id == id && id != 0)?;
        (node.t == 0).then(|| Arc::new(Content::Generated(region.file(index))))
    }

    // ---- links, shares, events ----

    /// Stores a link.
    pub(crate) fn put_link(&mut self, ph: String, link: Link) {
        self.journal.put("link", &ph, &link);
        self.links.insert(ph, link);
    }

    /// Removes a link.
    pub(crate) fn delete_link(&mut self, ph: &str) {
        self.links.remove(ph);
        self.journal.delete("link", ph);
    }

    /// Stores the shares of a folder; none left removes the entry.
    pub(crate) fn put_share(&mut self, h: Handle, share: Share) {
        if share.users.is_empty() {
            self.journal.delete("share", &h.to_string());
            self.shares.remove(&h);
        } else {
            self.journal.put("share", &h.to_string(), &share);
            self.shares.insert(h, share);
        }
    }

    /// Appends a packet to a user's stream.
    pub(crate) fn emit(&mut self, user: &str, packet: String, group: u64) {
        let event = Event {
            packet: packet.into(),
            group,
        };
        self.journal.put("event", user, &event);
        let events = self.events.entry(user.to_owned()).or_default();
        events.packets.push_back(event);
        if events.packets.len() > 2 * KEPT_EVENTS {
            events.packets.drain(..KEPT_EVENTS);
            events.base += KEPT_EVENTS as u64;
        }
    }
}

/// The spelling of a change number: longer is later, equal length compares bytewise.
pub(crate) fn tag(group: u64) -> String {
    format!("{:x}", 0x1000 + group)
}

/// A generated node in full, keys wrapped for its owner.
pub(crate) fn generate(
    region: &Region,
    seed: &aes::Aes128,
    index: u32,
    mk: &aes::Aes128,
) -> Option<Node> {
    let facts = region.facts(index)?;
    let key = region.key(seed, index);
    let mut wrapped = key.raw();
    for piece in wrapped.chunks_exact_mut(16) {
        let mut b = crypto::block_at(piece);
        crypto::encrypt_block(mk, &mut b);
        piece.copy_from_slice(&b);
    }
    let a = crypto::seal_attributes(&key.aes_key(), &region.attributes(seed, index));
    Some(Node {
        h: region.handle(index),
        p: Some(facts.parent),
        u: region.user.clone(),
        t: facts.kind,
        a: crate::codec::b64(&a),
        k: crate::codec::b64(&wrapped),
        sk: Vec::new(),
        ts: region.ts,
        s: facts.size,
        fa: String::new(),
        content: None,
        generated: None,
    })
}
