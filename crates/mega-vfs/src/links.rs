//! Public links of files and folders.
//!
//! A file's link carries its key. A folder's link carries the key of a share with everybody who has the
//! link, and everything in it goes out wrapped in that key; what is put there later brings its own (`cr`).
//! Waits for the network: for commands, never for programs.

use mega_api::ApiError;
use mega_crypto::{MasterKey, ShareKey, share_handle_auth};
use mega_proto::command::CrossKeys;
use mega_proto::{Command, NodeHandle, NodeKind, b64};
use rustix::io::Errno;
use serde_json::json;

use crate::Vfs;
use crate::shared::Shared;
use crate::types::OpResult;

/// Nodes of a folder that is given a link: more do not fit into one request.
const MOST: usize = 20_000;

/// Why Mega was asked in vain.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The local view says so.
    #[error("{0}")]
    Local(Errno),
    /// Mega or the network says so.
    #[error("{0}")]
    Api(#[from] ApiError),
}

impl From<Errno> for AskError {
    fn from(errno: Errno) -> Self {
        Self::Local(errno)
    }
}

impl Shared {
    /// The kind of a node of ours, and its key as it goes into a link.
    fn linkable(&self, handle: NodeHandle) -> OpResult<(NodeKind, Option<Vec<u8>>)> {
        let state = self.lock();
        let (row, node) = state.node(handle)?.ok_or(Errno::STALE)?;
        let key = node.file_key().map(|key| key.as_bytes().to_vec());
        Ok((row.kind, key))
    }

    /// The key of a folder's share, made if there is none, and everything below wrapped in it.
    fn share_keys(&self, handle: NodeHandle, key: &ShareKey) -> OpResult<CrossKeys> {
        self.decryptor.add_share(handle, key.clone());
        let state = self.lock();
        let mut keys = CrossKeys {
            shares: vec![handle],
            ..CrossKeys::default()
        };
        let mut waiting = vec![handle];
        while let Some(node) = waiting.pop() {
            if keys.nodes.len() >= MOST {
                return Err(Errno::FBIG);
            }
            if let Some(key) = state.node(node)?.and_then(|(_, opened)| opened.key)
                && let Some(wrapped) = self.decryptor.wrap_for_share(handle, &key)
            {
                let place = keys.nodes.len();
                keys.nodes.push(node.to_string());
                keys.keys.push((0, place, b64::encode(&wrapped)));
            }
            let children = self.store.children(node);
            let children = children.map_err(|error| crate::errno::store_errno(&error))?;
            waiting.extend(children.iter().map(|child| child.handle));
        }
        Ok(keys)
    }

    /// Shares a folder with whoever has its link; the key of the share.
    async fn export_folder(
        &self,
        handle: NodeHandle,
        master: &MasterKey,
    ) -> Result<ShareKey, AskError> {
        let random = |_| AskError::Api(ApiError::Internal("no randomness"));
        let known = self.decryptor.share(handle);
        let key = match known {
            Some(key) => key,
            None => ShareKey::generate().map_err(random)?,
        };
        let ha = share_handle_auth(master, &handle.to_string())
            .map_err(|_| ApiError::Internal("a handle of another length"))?;
        let command = Command::SetShare {
            n: handle,
            s: vec![json!({"u": "EXP", "r": 0})],
            ok: Some(b64::encode(&master.wrap_share_key(&key))),
            ha: Some(b64::encode(&ha)),
            i: self.api.client_id().to_owned(),
            cr: Some(self.share_keys(handle, &key)?),
        };
        let reply = self.api.command(command).await?;
        // It is shared with a key that we did not know: everything has to be wrapped in that one.
        let theirs = reply
            .get("ok")
            .and_then(serde_json::Value::as_str)
            .and_then(|ok| b64::decode(ok).ok())
            .and_then(|ok| master.unwrap_share_key(&ok).ok());
        match theirs {
            Some(theirs) => {
                let keys = self.share_keys(handle, &theirs)?;
                let (nk, cr) = (Vec::new(), Some(keys));
                self.api.command(Command::SetKeys { nk, cr }).await?;
                Ok(theirs)
            }
            None => Ok(key),
        }
    }
}

impl Vfs {
    /// The public link of a node, made if there is none; `expires` in seconds since 1970.
    ///
    /// # Errors
    /// What the server says; ESTALE, EACCES without its key, EFBIG for a folder with too much in it.
    pub async fn link(&self, handle: NodeHandle, expires: Option<i64>) -> Result<String, AskError> {
        let shared = &self.shared;
        let master = shared.master_key()?;
        let (kind, file_key) = shared.linkable(handle)?;
        // Nothing is put below a folder between its list of keys and its share.
        let _alone = shared.gate.lock().await;
        let (word, key) = match (kind, file_key) {
            (NodeKind::File, Some(key)) => ("file", key),
            (NodeKind::Folder, _) => {
                let key = shared.export_folder(handle, &master).await?;
                ("folder", key.as_bytes().to_vec())
            }
            _ => return Err(Errno::ACCESS.into()),
        };
        let link = shared.api.export_link_until(handle, expires).await?;
        let key = b64::encode(&key);
        Ok(format!("https://mega.nz/{word}/{link}#{key}"))
    }

    /// Ends the public link of a node; that there was none is fine.
    ///
    /// # Errors
    /// What the server says; ESTALE.
    pub async fn unlink_public(&self, handle: NodeHandle) -> Result<(), AskError> {
        let shared = &self.shared;
        let (kind, _) = shared.linkable(handle)?;
        let _alone = shared.gate.lock().await;
        shared.api.remove_link(handle).await?;
        if kind == NodeKind::Folder {
            let command = Command::SetShare {
                n: handle,
                s: vec![json!({"u": "EXP"})],
                ok: None,
                ha: None,
                i: shared.api.client_id().to_owned(),
                cr: None,
            };
            shared.api.command(command).await?;
        }
        Ok(())
    }
}
