//! Owns the decrypted view of accounts, for assertions: what a perfect client would see.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::codec::{Handle, unb64};
use crate::config::EmulatorError;
use crate::crypto::{self, NodeKey};
use crate::server::{Emulator, Shared};
use crate::state::{Node, State};

/// A node in clear.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlainNode {
    /// `/a/b` in the cloud, `//bin/a`, `//vault/a`, `//orphan/a`; a version has its head's path.
    /// Names that contain `/` appear as they are.
    pub path: String,
    /// Name, `None` when it cannot be decrypted.
    pub name: Option<String>,
    /// Node handle.
    pub handle: String,
    /// Parent handle.
    pub parent: String,
    /// `true` for folders.
    pub folder: bool,
    /// Bytes.
    pub size: u64,
    /// Modification time from attribute `c`.
    pub mtime: Option<i64>,
    /// The attribute object.
    pub attributes: Option<Value>,
    /// Creation time on the server.
    pub ts: i64,
    /// Handle of the next newer version, for old versions.
    pub version_of: Option<String>,
    /// Below the rubbish bin.
    pub in_bin: bool,
}

impl State {
    /// The decrypted name.
    pub(crate) fn name_of(&self, node: &Node) -> Option<String> {
        let text = self.attribute_text(node)?;
        let value: Value = serde_json::from_str(&text).ok()?;
        Some(value.get("n")?.as_str()?.to_owned())
    }
}

/// All nodes of an account, parents before children.
pub(crate) fn tree(state: &State, email: &str) -> Result<Vec<PlainNode>, EmulatorError> {
    let Some(user) = state.user_by_email(email) else {
        return Err(EmulatorError::Invalid(format!("no account {email}")));
    };
    let mut paths: HashMap<Handle, String> = HashMap::new();
    let mut out = Vec::new();
    let prefixes = ["", "//vault", "//bin"];
    let mut tops: Vec<(Handle, &str)> = user.roots.iter().copied().zip(prefixes).collect();
    let orphans = state.orphans(&user.handle);
    tops.extend(orphans.iter().map(|n| (n.h, "//orphan")));
    for (top, prefix) in tops {
        if prefix != "//orphan" {
            paths.insert(top, prefix.to_owned());
        }
        for node in state.subtree(top) {
            if node.t > 1 {
                continue;
            }
            let text = state.attribute_text(&node);
            let attributes: Option<Value> = text.and_then(|t| serde_json::from_str(&t).ok());
            let name = attributes
                .as_ref()
                .and_then(|a| Some(a.get("n")?.as_str()?.to_owned()));
            let version = state.is_version(&node);
            let above = node
                .p
                .and_then(|p| paths.get(&p))
                .cloned()
                .unwrap_or_else(|| prefix.to_owned());
            let path = if version {
                above
            } else {
                format!(
                    "{above}/{}",
                    name.clone().unwrap_or_else(|| format!("?{}", node.h))
                )
            };
            paths.insert(node.h, path.clone());
            let c = attributes
                .as_ref()
                .and_then(|a| a.get("c")?.as_str().and_then(unb64));
            out.push(PlainNode {
                path,
                name,
                handle: node.h.to_string(),
                parent: node.p.map(|p| p.to_string()).unwrap_or_default(),
                folder: node.t == 1,
                size: node.s,
                mtime: c
                    .and_then(|c| crypto::parse_fingerprint(&c))
                    .map(|(_, m)| m),
                attributes,
                ts: node.ts,
                version_of: version.then(|| node.p.map(|p| p.to_string())).flatten(),
                in_bin: prefix == "//bin",
            });
        }
    }
    Ok(out)
}

/// The decrypted content of a file.
pub(crate) fn content(shared: &Shared, handle: &str) -> Result<Vec<u8>, EmulatorError> {
    let missing = || EmulatorError::Invalid(format!("no readable file {handle}"));
    let (content, size, key) = {
        let state = shared.state();
        let node = Handle::parse(handle)
            .and_then(|h| state.node(h))
            .ok_or_else(missing)?;
        let key = state.node_key(&node).ok_or_else(missing)?;
        (state.content_of(&node), node.s, key)
    };
    let NodeKey::File { key, nonce, .. } = key else {
        return Err(missing());
    };
    let mut data = match content {
        Some(content) => content.read(0, size)?,
        None if size == 0 => Vec::new(),
        None => return Err(missing()),
    };
    crypto::ctr(&key, &nonce, 0, &mut data);
    Ok(data)
}

impl Emulator {
    /// Every node of an account in clear, old versions and the bin included.
    pub fn tree(&self, email: &str) -> Result<Vec<PlainNode>, EmulatorError> {
        tree(&self.shared.state(), email)
    }

    /// The live files and folders of the cloud by path, old versions and the bin left out.
    pub fn find(&self, email: &str, path: &str) -> Option<PlainNode> {
        let tree = self.tree(email).ok()?;
        tree.into_iter()
            .find(|n| n.path == path && n.version_of.is_none())
    }

    /// The decrypted content of a file node.
    pub fn content(&self, handle: &str) -> Result<Vec<u8>, EmulatorError> {
        content(&self.shared, handle)
    }
}
