//! Owns what tests put into accounts from the server's side. Every fixture is announced to
//! connected clients like a change by another device, except generated trees, which are too many:
//! generate before logging in.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::change::{Change, Tagged};
use crate::codec::{Handle, b64, unb64};
use crate::config::EmulatorError;
use crate::crypto::{self, Block, NodeKey};
use crate::generated::Region;
use crate::server::{Emulator, Shared};
use crate::state::{Node, State, Upload};

/// Content of a fixture file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FixtureContent {
    /// These bytes.
    Bytes(Vec<u8>),
    /// This text.
    Text(String),
    /// Base64, for JSON.
    Base64(String),
    /// Bytes that follow from a seed; cheap to state, computed while storing.
    Pattern {
        /// Length in bytes.
        size: u64,
        /// Different seeds give different bytes.
        #[serde(default)]
        seed: u64,
    },
}

impl FixtureContent {
    fn size(&self) -> u64 {
        match self {
            Self::Bytes(b) => b.len() as u64,
            Self::Text(t) => t.len() as u64,
            Self::Base64(t) => unb64(t).map_or(0, |b| b.len() as u64),
            Self::Pattern { size, .. } => *size,
        }
    }

    fn piece(&self, from: u64, len: u64) -> Vec<u8> {
        let cut = |b: &[u8]| {
            b.get(from as usize..(from + len) as usize)
                .unwrap_or_default()
                .to_vec()
        };
        match self {
            Self::Bytes(b) => cut(b),
            Self::Text(t) => cut(t.as_bytes()),
            Self::Base64(t) => cut(&unb64(t).unwrap_or_default()),
            Self::Pattern { seed, .. } => pattern(*seed, from, len),
        }
    }
}

/// Bytes `[from, from + len)` of [`FixtureContent::Pattern`].
pub fn pattern(seed: u64, from: u64, len: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(len as usize + 16);
    let first = from / 8;
    for word in first..(from + len).div_ceil(8) {
        let mut v =
            word.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ seed.wrapping_mul(0xD1B5_4A32_D192_ED03);
        v = (v ^ (v >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        out.extend_from_slice(&(v ^ (v >> 29)).to_le_bytes());
    }
    out.drain(..(from % 8) as usize);
    out.truncate(len as usize);
    out
}

/// Something to put into an account. Paths are absolute, `/`-separated, below the cloud root;
/// missing parents are made. Each fixture yields a string: the node's handle, or a link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Fixture {
    /// A folder; an existing one is used.
    Folder {
        /// Where.
        path: String,
    },
    /// A new file node, even when the name exists (that is how duplicates are made).
    File {
        /// Where.
        path: String,
        /// What.
        content: FixtureContent,
        /// Seconds since 1970, written to `c`; `None` writes no `c`.
        #[serde(default)]
        mtime: Option<i64>,
    },
    /// A file (or with `content` omitted a folder) whose name may contain anything.
    Named {
        /// Parent folder.
        parent: String,
        /// Any text.
        name: String,
        /// What; a folder when omitted.
        #[serde(default)]
        content: Option<FixtureContent>,
        /// As in `File`.
        #[serde(default)]
        mtime: Option<i64>,
    },
    /// A new version of an existing file.
    Overwrite {
        /// Which.
        path: String,
        /// New content.
        content: FixtureContent,
        /// As in `File`.
        #[serde(default)]
        mtime: Option<i64>,
    },
    /// Replaces a node's attributes by this text, unchecked.
    Attributes {
        /// Which.
        path: String,
        /// For example `{"n":"x","fav":1}`.
        json: String,
    },
    /// A file that cannot be used as it is.
    Broken {
        /// Where.
        path: String,
        /// In which way.
        how: Brokenness,
    },
    /// A file whose node key is encrypted with RSA.
    RsaKey {
        /// Where.
        path: String,
        /// What.
        content: FixtureContent,
    },
    /// A file whose parent does not exist.
    Orphan {
        /// Its name.
        name: String,
    },
    /// Two folders that have each other as parents.
    Cycle {
        /// Their name.
        name: String,
    },
    /// Sets the server's time of a node, whatever the clock says.
    Clock {
        /// Which.
        path: String,
        /// Seconds since 1970: 0, in the future, negative.
        ts: i64,
    },
    /// A large tree that needs no memory. Generate before clients log in.
    Generated {
        /// Folder above it.
        parent: String,
        /// Number of folders.
        folders: u32,
        /// Sub-folders per folder; 0 puts all folders side by side.
        #[serde(default)]
        fanout: u32,
        /// Files in each folder.
        files_per_folder: u32,
        /// Largest file in bytes.
        #[serde(default)]
        max_size: u64,
    },
    /// Changes the name, keeping the other attributes.
    Rename {
        /// Which.
        path: String,
        /// New name.
        name: String,
    },
    /// Moves a node into a folder.
    Move {
        /// Which.
        path: String,
        /// Target folder.
        to: String,
    },
    /// Moves a node to the rubbish bin.
    Trash {
        /// Which.
        path: String,
    },
    /// Deletes a node for good.
    Remove {
        /// Which.
        path: String,
    },
    /// A public link; folders are exported first. Yields `PH#KEY`.
    Link {
        /// Which.
        path: String,
    },
    /// A share with another account, the old way (`ok`, `sk`).
    Share {
        /// Which folder.
        path: String,
        /// The recipient's address.
        to: String,
        /// 0 read, 1 write, 2 full.
        level: i64,
    },
    /// The same, with a choice of how the recipient gets the key.
    ShareAs {
        /// Which folder.
        path: String,
        /// The recipient's address.
        to: String,
        /// 0 read, 1 write, 2 full.
        level: i64,
        /// How.
        key: KeyForm,
    },
    /// Ends the share of a folder with one account.
    Unshare {
        /// Which folder.
        path: String,
        /// The recipient's address.
        to: String,
    },
}

/// How the recipient of a share gets its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyForm {
    /// Under the recipient's master key.
    Legacy,
    /// Encrypted with the recipient's RSA key.
    Rsa,
    /// In `^!keys` of both accounts, as modern clients keep it; `ok` and `sk` have none.
    Kept,
    /// The same, but the recipient's client has not fetched it yet: it is in the reply to `pk`.
    Pending,
}

impl Fixture {
    /// A folder.
    pub fn folder(path: &str) -> Self {
        Self::Folder {
            path: path.to_owned(),
        }
    }

    /// A file with an mtime.
    pub fn file(path: &str, content: impl Into<Vec<u8>>, mtime: i64) -> Self {
        let content = FixtureContent::Bytes(content.into());
        Self::File {
            path: path.to_owned(),
            content,
            mtime: Some(mtime),
        }
    }

    /// A file of patterned bytes, see [`pattern`].
    pub fn pattern(path: &str, size: u64, seed: u64) -> Self {
        let content = FixtureContent::Pattern { size, seed };
        Self::File {
            path: path.to_owned(),
            content,
            mtime: Some(1_700_000_000),
        }
    }
}

/// Ways a node can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Brokenness {
    /// `k` is empty.
    NoKey,
    /// `k` opens to another key.
    WrongKey,
    /// Attributes are random bytes.
    BadAttributes,
    /// Attributes without `n`.
    NoName,
    /// Meta-MAC as megajs writes it (only differs for sizes at a chunk boundary, so it has one).
    MegajsMac,
    /// Meta-MAC with one chunk left out, as old official uploads have.
    MissingChunk,
    /// Meta-MAC of other content: reading must fail.
    WrongMac,
    /// Attributes followed by garbage.
    TrailingGarbage,
}

type Outcome<T> = Result<T, EmulatorError>;

/// Puts fixtures into an account.
pub(crate) fn populate(shared: &Shared, email: &str, list: &[Fixture]) -> Outcome<Vec<String>> {
    let mut state = shared.state();
    let Some(user) = state.user_by_email(email).map(|u| u.handle.clone()) else {
        return Err(EmulatorError::Invalid(format!("no account {email}")));
    };
    let mut work = Work {
        state: &mut state,
        user,
        names: HashMap::new(),
    };
    let done: Outcome<Vec<String>> = list.iter().map(|f| work.apply(f)).collect();
    drop(state);
    shared.changed.notify_all();
    done
}

struct Work<'a> {
    state: &'a mut State,
    user: String,
    /// First child of each name, per folder looked into.
    names: HashMap<Handle, HashMap<String, Handle>>,
}

impl Work<'_> {
    fn mk(&self) -> Block {
        self.state.users.get(&self.user).map_or([0; 16], |u| u.mk)
    }

    fn root(&self, index: usize) -> Outcome<Handle> {
        let roots = self
            .state
            .users
            .get(&self.user)
            .map(|u| u.roots.as_slice())
            .unwrap_or_default();
        roots
            .get(index)
            .copied()
            .ok_or_else(|| EmulatorError::Invalid("account without roots".into()))
    }

    fn child(&mut self, folder: Handle, name: &str) -> Option<Handle> {
        if !self.names.contains_key(&folder) {
            let mut names = HashMap::new();
            for h in self.state.child_handles(folder) {
                let Some(node) = self.state.node(h) else {
                    continue;
                };
                if let Some(n) = self.state.name_of(&node) {
                    names.entry(n).or_insert(h);
                }
            }
            self.names.insert(folder, names);
        }
        self.names.get(&folder)?.get(name).copied()
    }

    fn find(&mut self, path: &str) -> Outcome<Handle> {
        let mut at = self.root(0)?;
        for name in path.split('/').filter(|n| !n.is_empty()) {
            at = self
                .child(at, name)
                .ok_or_else(|| EmulatorError::Invalid(format!("no node at {path}")))?;
        }
        Ok(at)
    }

    fn folder(&mut self, path: &str) -> Outcome<Handle> {
        let mut at = self.root(0)?;
        for name in path.split('/').filter(|n| !n.is_empty()) {
            at = match self.child(at, name) {
                Some(h) => h,
                None => self.add(at, name, None, None)?,
            };
        }
        Ok(at)
    }

    fn split<'p>(&mut self, path: &'p str) -> Outcome<(Handle, &'p str)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.folder(parent)?, name))
    }

    fn begin(&mut self) -> Change {
        let user = self.user.clone();
        self.state.begin(&user, None)
    }

    /// Stores content under a new key; returns content number and key.
    fn store(&mut self, content: &FixtureContent) -> Outcome<(u64, NodeKey, Block)> {
        let (key, nonce) = (self.state.random::<16>(), self.state.random::<8>());
        let size = content.size();
        let mut upload = Upload::new(&self.user, size, 0);
        upload.pieces.insert(0, size);
        upload.used = true;
        let id = self.state.new_upload(upload, true)?;
        let stored = self.state.contents.get(&id).cloned();
        let cipher = crypto::aes(&key);
        let mut macs = Vec::new();
        for (start, len) in crypto::chunks(size) {
            let mut data = content.piece(start, len);
            macs.push(crypto::chunk_mac(&cipher, &nonce, &data));
            crypto::ctr(&key, &nonce, start, &mut data);
            if let Some(stored) = &stored {
                stored.store(start, Arc::new(data))?;
            }
        }
        let mac = crypto::meta_mac(&cipher, macs);
        let crc = crypto::fingerprint_crc(size, |at, len| content.piece(at, len as u64));
        Ok((id, NodeKey::File { key, nonce, mac }, crc))
    }

    fn node(&mut self, parent: Handle, key: &NodeKey, attributes: &str) -> Node {
        Node {
            h: self.state.new_handle(),
            p: Some(parent),
            u: self.user.clone(),
            t: u8::from(matches!(key, NodeKey::Folder(_))),
            a: b64(&crypto::seal_attributes(&key.aes_key(), attributes)),
            k: b64(&crypto::ecb_encrypt(&self.mk(), &key.raw())),
            sk: Vec::new(),
            ts: crate::commands::now(),
            s: 0,
            fa: String::new(),
            content: None,
            generated: None,
        }
    }

    /// Adds keys for the shares above.
    fn add_share_keys(&self, node: &mut Node, key: &NodeKey) {
        let Some(parent) = node.p else { return };
        for root in self.state.shares_above(parent) {
            let Some(share) = self.state.share_key(root) else {
                continue;
            };
            node.sk
                .push((root, b64(&crypto::ecb_encrypt(&share, &key.raw()))));
        }
    }

    /// Adds keys for the shares above and announces the node.
    fn put(&mut self, mut node: Node, key: &NodeKey, name: &str) -> Handle {
        self.add_share_keys(&mut node, key);
        if let Some(names) = node.p.and_then(|parent| self.names.get_mut(&parent)) {
            names.entry(name.to_owned()).or_insert(node.h);
        }
        let h = node.h;
        self.state.put_node(node);
        let change = self.begin();
        if let Some(node) = self.state.node(h) {
            self.state
                .announce_nodes(&change, &[(node, None)], &[], Tagged::Yes);
        }
        h
    }

    fn attributes(name: &str, crc: &Block, mtime: Option<i64>) -> String {
        match mtime {
            Some(m) => json!({"n": name, "c": b64(&crypto::fingerprint(crc, m))}).to_string(),
            None => json!({"n": name}).to_string(),
        }
    }

    fn add(
        &mut self,
        parent: Handle,
        name: &str,
        content: Option<&FixtureContent>,
        mtime: Option<i64>,
    ) -> Outcome<Handle> {
        let Some(content) = content else {
            let key = NodeKey::Folder(self.state.random::<16>());
            let node = self.node(parent, &key, &json!({"n": name}).to_string());
            return Ok(self.put(node, &key, name));
        };
        let (id, key, crc) = self.store(content)?;
        let mut node = self.node(parent, &key, &Self::attributes(name, &crc, mtime));
        node.s = content.size();
        node.content = Some(id);
        Ok(self.put(node, &key, name))
    }

    fn apply(&mut self, fixture: &Fixture) -> Outcome<String> {
        let handle = match fixture {
            Fixture::Folder { path } => self.folder(path)?,
            Fixture::File {
                path,
                content,
                mtime,
            } => {
                let (parent, name) = self.split(path)?;
                self.add(parent, name, Some(content), *mtime)?
            }
            Fixture::Named {
                parent,
                name,
                content,
                mtime,
            } => {
                let parent = self.folder(parent)?;
                self.add(parent, name, content.as_ref(), *mtime)?
            }
            Fixture::Overwrite {
                path,
                content,
                mtime,
            } => {
                let old = self.find(path)?;
                let (parent, name) = self.split(path)?;
                let (id, key, crc) = self.store(content)?;
                let mut node = self.node(parent, &key, &Self::attributes(name, &crc, *mtime));
                node.s = content.size();
                node.content = Some(id);
                self.add_share_keys(&mut node, &key);
                let h = node.h;
                self.state.put_node(node);
                let change = self.begin();
                let superseded = self.state.supersede(old, h);
                if let Some(node) = self.state.node(h) {
                    let old: Vec<_> = superseded.into_iter().collect();
                    self.state
                        .announce_nodes(&change, &[(node, None)], &old, Tagged::Yes);
                }
                self.names.remove(&parent);
                h
            }
            Fixture::Attributes { path, json } => {
                let h = self.find(path)?;
                self.rewrite(h, json)?;
                h
            }
            Fixture::Broken { path, how } => self.broken(path, *how)?,
            Fixture::RsaKey { path, content } => {
                let (parent, name) = self.split(path)?;
                let (id, key, crc) = self.store(content)?;
                let mut node = self.node(parent, &key, &Self::attributes(name, &crc, None));
                node.s = content.size();
                node.content = Some(id);
                let mut plain = key.raw();
                plain.extend(self.state.random::<254>());
                plain.truncate(254);
                let pubk = self.state.users.get(&self.user).map(|u| u.pubk.clone());
                let c = pubk.and_then(|k| crate::rsa::encrypt(&k, &plain));
                node.k = b64(&c.ok_or_else(|| EmulatorError::Invalid("no RSA key".into()))?);
                self.put(node, &key, name)
            }
            Fixture::Orphan { name } => {
                let (id, key, crc) = self.store(&FixtureContent::Text("orphan".into()))?;
                let nowhere = self.state.new_handle();
                let mut node = self.node(nowhere, &key, &Self::attributes(name, &crc, None));
                node.s = 6;
                node.content = Some(id);
                self.put(node, &key, name)
            }
            Fixture::Cycle { name } => {
                let text = json!({"n": name}).to_string();
                let keys = [self.state.random::<16>(), self.state.random::<16>()];
                let nowhere = self.state.new_handle();
                let [mut one, mut two] =
                    keys.map(|key| self.node(nowhere, &NodeKey::Folder(key), &text));
                let first = one.h;
                one.p = Some(two.h);
                two.p = Some(first);
                for node in [one, two] {
                    self.state.put_node(node);
                }
                first
            }
            Fixture::Clock { path, ts } => {
                let h = self.find(path)?;
                let node = self.state.node(h);
                let node = node.ok_or_else(|| EmulatorError::Invalid("node is gone".into()))?;
                let mut node = Node::clone(&node);
                node.ts = *ts;
                let at = node.a.clone();
                self.state.put_node(node);
                let change = self.begin();
                // Its packet carries the time.
                self.state.set_attributes(&change, h, &at);
                h
            }
            Fixture::Generated {
                parent,
                folders,
                fanout,
                files_per_folder,
                max_size,
            } => {
                let parent = self.folder(parent)?;
                let id = self.state.regions.len() as u16 + 1;
                let region = Region {
                    id,
                    parent,
                    user: self.user.clone(),
                    folders: *folders,
                    fanout: *fanout,
                    files_per_folder: *files_per_folder,
                    max_size: *max_size,
                    seed: u64::from_be_bytes(self.state.random::<8>()),
                    ts: crate::commands::now(),
                };
                self.state.put_region(region);
                self.names.remove(&parent);
                parent
            }
            Fixture::Rename { path, name } => {
                let h = self.find(path)?;
                let node = self.state.node(h);
                let text = node
                    .and_then(|n| self.state.attribute_text(&n))
                    .unwrap_or_default();
                let mut value: serde_json::Value = serde_json::from_str(&text).unwrap_or(json!({}));
                if let serde_json::Value::Object(o) = &mut value {
                    o.insert("n".into(), json!(name));
                }
                self.rewrite(h, &value.to_string())?;
                h
            }
            Fixture::Move { path, to } => {
                let (h, to) = (self.find(path)?, self.folder(to)?);
                self.relocate(h, to)
            }
            Fixture::Trash { path } => {
                let (h, to) = (self.find(path)?, self.root(2)?);
                self.relocate(h, to)
            }
            Fixture::Remove { path } => {
                let h = self.find(path)?;
                let change = self.begin();
                self.state.remove(&change, h);
                self.names.clear();
                h
            }
            Fixture::Link { path } => return self.link(path),
            Fixture::Share { path, to, level } => {
                let (h, target) = (self.folder(path)?, self.account(to)?);
                self.share(h, &target, *level, KeyForm::Legacy);
                h
            }
            Fixture::ShareAs {
                path,
                to,
                level,
                key,
            } => {
                let (h, target) = (self.folder(path)?, self.account(to)?);
                self.share(h, &target, *level, *key);
                h
            }
            Fixture::Unshare { path, to } => {
                let (h, target) = (self.find(path)?, self.account(to)?);
                let change = self.begin();
                crate::commands::sharing::end_share(self.state, &change, h, &target);
                h
            }
        };
        Ok(handle.to_string())
    }

    fn relocate(&mut self, h: Handle, to: Handle) -> Handle {
        let change = self.begin();
        self.state.move_node(&change, h, to);
        self.names.clear();
        h
    }

    fn rewrite(&mut self, h: Handle, text: &str) -> Outcome<()> {
        let node = self.state.node(h);
        let key = node.and_then(|n| self.state.node_key(&n));
        let key = key.ok_or_else(|| EmulatorError::Invalid("node has no usable key".into()))?;
        let at = b64(&crypto::seal_attributes(&key.aes_key(), text));
        let change = self.begin();
        self.state.set_attributes(&change, h, &at);
        self.names.clear();
        Ok(())
    }

    /// The user handle of an address.
    fn account(&self, email: &str) -> Outcome<String> {
        let found = self.state.user_by_email(email).map(|u| u.handle.clone());
        found.ok_or_else(|| EmulatorError::Invalid(format!("no account {email}")))
    }

    /// Shares a folder under its share key, which is made on first use.
    fn share(&mut self, h: Handle, target: &str, level: i64, form: KeyForm) -> Block {
        let key = match self.state.share_key(h) {
            Some(key) => key,
            None => self.state.random::<16>(),
        };
        let change = self.begin();
        crate::commands::sharing::share_as_fixture(
            self.state, &change, h, target, level, &key, form,
        );
        key
    }

    fn link(&mut self, path: &str) -> Outcome<String> {
        let h = self.find(path)?;
        let node = self.state.node(h);
        let key = match node.filter(|n| n.t == 0) {
            Some(file) => self
                .state
                .node_key(&file)
                .map(|k| k.raw())
                .unwrap_or_default(),
            None => self.share(h, "EXP", 0, KeyForm::Legacy).to_vec(),
        };
        let user = self.user.clone();
        let (_, ph) = crate::commands::sharing::make_link(self.state, &user, h, None);
        Ok(format!("{ph}#{}", b64(&key)))
    }

    fn broken(&mut self, path: &str, how: Brokenness) -> Outcome<Handle> {
        let (parent, name) = self.split(path)?;
        // Three chunks, ending on a boundary.
        let content = FixtureContent::Pattern {
            size: 786_432,
            seed: 7,
        };
        let (id, mut key, crc) = self.store(&content)?;
        let stored = key;
        if let NodeKey::File {
            key: aes,
            nonce,
            mac,
        } = &mut key
        {
            let cipher = crypto::aes(aes);
            let mut macs: Vec<Block> = crypto::chunks(content.size())
                .map(|(at, len)| crypto::chunk_mac(&cipher, nonce, &content.piece(at, len)))
                .collect();
            match how {
                Brokenness::MegajsMac => macs.push(crypto::block_at(&[*nonce, *nonce].concat())),
                Brokenness::MissingChunk => drop(macs.remove(1)),
                Brokenness::WrongMac => drop(macs.pop()),
                _ => {}
            }
            if how == Brokenness::WrongMac {
                macs.reverse();
            }
            *mac = crypto::meta_mac(&cipher, macs);
        }
        let text = match how {
            Brokenness::NoName => "{\"x\":\"1\"}".to_owned(),
            Brokenness::TrailingGarbage => {
                format!(
                    "{}garbage",
                    Self::attributes(name, &crc, Some(1_600_000_000))
                )
            }
            _ => Self::attributes(name, &crc, Some(1_600_000_000)),
        };
        let mut node = self.node(parent, &key, &text);
        node.s = content.size();
        node.content = Some(id);
        match how {
            Brokenness::NoKey => node.k.clear(),
            Brokenness::WrongKey => node.k = b64(&self.state.random::<32>()),
            Brokenness::BadAttributes => node.a = b64(&self.state.random::<48>()),
            _ => {}
        }
        Ok(self.put(node, &stored, name))
    }
}

impl Emulator {
    /// Puts fixtures into an account, in order; returns a handle (or link) for each.
    /// Fails at the first that names something missing.
    pub fn populate(&self, email: &str, list: &[Fixture]) -> Result<Vec<String>, EmulatorError> {
        populate(&self.shared, email, list)
    }
}
