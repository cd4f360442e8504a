//! Owns the reply to `f` (protocol/03 section 1): a consistent snapshot taken under the lock in
//! time proportional to the stored nodes, then serialised without it while it is sent. Generated
//! nodes are computed on the way, so a million of them needs no memory.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::codec::{Handle, b64};
use crate::crypto;
use crate::generated::Region;
use crate::state::{Node, State, generate};
use crate::view::View;

/// One run of nodes in the snapshot.
enum Run {
    /// Rendered already.
    Text(String),
    /// A generated tree with the handles that are not what it says.
    Region(Region, Arc<HashSet<Handle>>, [u8; 16]),
}

/// A snapshot that can be written more than once.
pub(crate) struct TreeReply {
    runs: Vec<Run>,
    /// Everything behind `"f":[...]`, from the `]` on.
    tail: String,
    head: &'static str,
    length: Mutex<Option<u64>>,
}

impl TreeReply {
    /// Length of the text, from one rendered sample per kind of generated node: they differ in the
    /// digits of number and size only. Rendering all of them twice would double the cost of `f`.
    pub(crate) fn len(&self) -> u64 {
        let mut length = self.length.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = *length {
            return n;
        }
        let mut n = (self.head.len() + self.tail.len()) as u64;
        let mut items = 0_u64;
        for run in &self.runs {
            match run {
                Run::Text(text) => {
                    n += text.len() as u64;
                    items += u64::from(!text.is_empty());
                }
                Run::Region(region, overridden, mk) => {
                    let (seed, mk) = (region.cipher(), crypto::aes(mk));
                    let mut samples: HashMap<(u8, u32), u64> = HashMap::new();
                    for index in 0..region.len() {
                        if !overridden.is_empty() && overridden.contains(&region.handle(index)) {
                            continue;
                        }
                        let Some(facts) = region.facts(index) else {
                            continue;
                        };
                        let fixed = samples.entry((facts.kind, digits(u64::from(index)).max(6)));
                        let fixed = *fixed.or_insert_with(|| {
                            let mut text = String::new();
                            if let Some(node) = generate(region, &seed, index, &mk) {
                                render_generated(&node, &mut text);
                            }
                            text.len() as u64 - u64::from(digits(facts.size))
                        });
                        n += fixed + u64::from(digits(facts.size));
                        items += 1;
                    }
                }
            }
        }
        n += items.saturating_sub(1);
        *length = Some(n);
        n
    }

    /// Writes the whole reply, array brackets included.
    pub(crate) fn write(&self, sink: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut buffer = String::with_capacity(80 << 10);
        buffer.push_str(self.head);
        let mut first = true;
        let mut separate = |buffer: &mut String| {
            if !std::mem::take(&mut first) {
                buffer.push(',');
            }
        };
        for run in &self.runs {
            match run {
                Run::Text(text) if text.is_empty() => {}
                Run::Text(text) => {
                    separate(&mut buffer);
                    sink(buffer.as_bytes())?;
                    buffer.clear();
                    sink(text.as_bytes())?;
                }
                Run::Region(region, overridden, mk) => {
                    let (seed, cipher) = (region.cipher(), crypto::aes(mk));
                    for index in 0..region.len() {
                        let h = region.handle(index);
                        if !overridden.is_empty() && overridden.contains(&h) {
                            continue;
                        }
                        let Some(node) = generate(region, &seed, index, &cipher) else {
                            continue;
                        };
                        separate(&mut buffer);
                        render_generated(&node, &mut buffer);
                        if buffer.len() > 64 << 10 {
                            sink(buffer.as_bytes())?;
                            buffer.clear();
                        }
                    }
                }
            }
        }
        sink(buffer.as_bytes())?;
        sink(self.tail.as_bytes())
    }

    /// The whole reply as text, for batches that should not have contained `f`.
    pub(crate) fn text(&self) -> String {
        let mut out = Vec::new();
        let _ = self.write(&mut |data| {
            out.extend_from_slice(data);
            Ok(())
        });
        String::from_utf8(out).unwrap_or_default()
    }
}

/// Decimal digits of a number.
fn digits(n: u64) -> u32 {
    n.checked_ilog10().unwrap_or(0) + 1
}

fn render_generated(n: &Node, out: &mut String) {
    let _ = write!(out, r#"{{"h":"{}","p":""#, n.h);
    if let Some(p) = n.p {
        crate::codec::b64_into(&p.0, out);
    }
    let _ = write!(
        out,
        r#"","u":"{}","t":{},"a":"{}","k":"{}:{}","ts":{}"#,
        n.u, n.t, n.a, n.u, n.k, n.ts
    );
    if n.t == 0 {
        let _ = write!(out, r#","s":{}"#, n.s);
    }
    out.push('}');
}

impl State {
    /// Nodes below `top` that are stored, parents first; versions apart.
    fn stored_below(&self, top: Handle, plain: &mut Vec<Arc<Node>>, versions: &mut Vec<Arc<Node>>) {
        let mut queue = vec![(top, false)];
        let mut at = 0;
        while let Some((h, below_file)) = queue.get(at).copied() {
            at += 1;
            for child in self.stored_children(h) {
                queue.push((child.h, child.t == 0));
                if below_file {
                    versions.push(child)
                } else {
                    plain.push(child)
                }
            }
        }
    }

    /// The reply to `f` for the owner of an account.
    pub(crate) fn tree_reply(&self, user: &str) -> Option<TreeReply> {
        let account = self.users.get(user)?;
        let mut plain: Vec<Arc<Node>> =
            account.roots.iter().filter_map(|h| self.node(*h)).collect();
        let mut versions = Vec::new();
        let overridden = Arc::new(self.overridden());
        let mut runs = Vec::new();
        for root in &account.roots {
            self.stored_below(*root, &mut plain, &mut versions);
        }
        let regions: Vec<&Region> = self.regions.iter().filter(|r| r.user == user).collect();
        runs.push(Run::Text(String::new()));
        for region in regions {
            runs.push(Run::Region(region.clone(), overridden.clone(), account.mk));
            // Stored nodes below pristine generated folders come after them. Folders holding
            // such nodes are found from the nodes' parents, not by walking the region.
            let mut seen: HashSet<Handle> = plain.iter().chain(&versions).map(|n| n.h).collect();
            let mut below = Vec::new();
            let mut below_versions = Vec::new();
            for (parent, _) in self.parents_in(region.id) {
                for child in self.stored_children(parent) {
                    if seen.insert(child.h) {
                        below.push(child.clone());
                        let from = below.len();
                        self.stored_below(child.h, &mut below, &mut below_versions);
                        let known: Vec<Arc<Node>> = below.drain(from..).collect();
                        below.extend(known.into_iter().filter(|n| seen.insert(n.h)));
                    }
                }
            }
            versions.extend(below_versions);
            runs.push(Run::Text(self.render_all(&below, &View::Owner)));
        }
        plain.extend(self.orphans(user));
        if let Some(slot) = runs.first_mut() {
            *slot = Run::Text(self.render_all(&plain, &View::Owner));
        }
        for (root, share) in &self.shares {
            if share.users.contains_key(user) {
                let view = View::Share(*root, user.to_owned());
                let (old, new): (Vec<_>, Vec<_>) = self
                    .subtree(*root)
                    .into_iter()
                    .partition(|n| self.is_version(n));
                runs.push(Run::Text(self.render_all(&new, &view)));
                // Versions of shared files are shown in the same list; readers accept both.
                runs.push(Run::Text(self.render_all(&old, &view)));
            }
        }
        let tail = self.tree_tail(user, &self.render_all(&versions, &View::Owner));
        Some(TreeReply {
            runs,
            tail,
            head: r#"[{"f":["#,
            length: Mutex::new(None),
        })
    }

    fn tree_tail(&self, user: &str, f2: &str) -> String {
        let own = self.shares.iter().filter(|(_, s)| s.owner == user);
        let ok: Vec<Value> = own
            .clone()
            .filter(|(_, s)| !s.ok.is_empty())
            .map(|(h, s)| json!({"h": h.to_string(), "ha": s.ha, "k": s.ok}))
            .collect();
        let s: Vec<Value> = own
            .flat_map(|(h, s)| {
                s.users.iter().map(
                    move |(u, (r, ts, _))| json!({"h": h.to_string(), "u": u, "r": r, "ts": ts}),
                )
            })
            .collect();
        let ph: Vec<Value> = self
            .links
            .iter()
            .filter(|(_, l)| l.user == user)
            .map(|(ph, l)| json!({"h": l.node.to_string(), "ph": ph, "ts": l.ts}))
            .collect();
        let mut contacts: HashSet<&str> = HashSet::from([user]);
        for share in self.shares.values() {
            if share.owner == user {
                contacts.extend(
                    share
                        .users
                        .keys()
                        .map(String::as_str)
                        .filter(|u| *u != "EXP"),
                );
            }
            if share.users.contains_key(user) {
                contacts.insert(&share.owner);
            }
        }
        let u: Vec<Value> = contacts
            .iter()
            .filter_map(|h| self.users.get(*h))
            .map(|c| {
                let visibility = if c.handle == user { 2 } else { 1 };
                json!({"u": c.handle, "c": visibility, "m": c.email, "ts": c.created,
                    "pubk": b64(&c.pubk)})
            })
            .collect();
        let sn = self.sequence(user);
        let ok = Value::from(ok);
        let mut out = format!(
            r#"],"f2":[{f2}],"ok":{ok},"ok0":{ok},"s":{}"#,
            Value::from(s)
        );
        if !ph.is_empty() {
            let _ = write!(out, r#","ph":{}"#, Value::from(ph));
        }
        let _ = write!(
            out,
            r#","u":{},"sn":"{sn}","st":"{}","noc":1}}]"#,
            Value::from(u),
            self.latest_tag()
        );
        out
    }

    /// The reply to `f` for a folder link's visitor.
    pub(crate) fn link_reply(&self, root: Handle) -> TreeReply {
        let (old, new): (Vec<_>, Vec<_>) = self
            .subtree(root)
            .into_iter()
            .partition(|n| self.is_version(n));
        let view = View::Link(root);
        let text = self.render_all(&new, &view);
        let tail = format!(
            r#"],"f2":[{}],"ok":[],"ok0":[],"s":[],"u":[],"sn":"{}","st":"{}","noc":1}}]"#,
            self.render_all(&old, &view),
            self.sequence(&crate::view::visitors(root)),
            self.latest_tag()
        );
        TreeReply {
            runs: vec![Run::Text(text)],
            tail,
            head: r#"[{"f":["#,
            length: Mutex::new(None),
        }
    }

    /// The stream position of a user as `sn`.
    pub(crate) fn sequence(&self, user: &str) -> String {
        let position = self
            .events
            .get(user)
            .map_or(0, crate::state::Events::position);
        b64(&position.to_be_bytes())
    }
}
