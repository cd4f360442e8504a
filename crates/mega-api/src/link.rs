//! Public links: reading without an account (`protocol/03` section 10).
//!
//! A client that visits a link has no session. Requests about a folder link name the link in their
//! address; a file link is one question without any authority, and its tree is made here: a root and the
//! file. The key stays on this side.

use std::fmt;
use std::sync::Arc;

use mega_crypto::{Attributes, LinkKey, NodeKey, WrapKey as _};
use mega_proto::{
    Command, NodeHandle, NodeKind, PublicHandle, RawNode, Seqno, TreeItem, b64, reply,
};
use serde_json::{Value, json};

use crate::api::Api;
use crate::error::{ApiError, SinkError};
use crate::events::NO_EVENTS;
use crate::tree::TreeEnd;

/// A public link with its key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicLink {
    /// Which link: no secret without the key.
    pub handle: PublicHandle,
    /// What opens it.
    pub key: LinkKey,
    /// The folder or file inside a folder link that is meant, if not all of it.
    pub item: Option<NodeHandle>,
}

impl PublicLink {
    /// Whether it is the link of a folder.
    #[must_use]
    pub const fn is_folder(&self) -> bool {
        matches!(self.key, LinkKey::Folder(_))
    }

    /// The handle that a file has here which came without one: that of the link.
    #[must_use]
    pub const fn file_handle(&self) -> NodeHandle {
        NodeHandle(*self.handle.as_bytes())
    }

    /// The handle of a root that no server knows: of the directory that a single file is shown in.
    #[must_use]
    pub fn made_root(&self) -> NodeHandle {
        let shown = self.item.unwrap_or_else(|| self.file_handle());
        NodeHandle::from_u48(shown.to_u48() ^ 1)
    }
}

impl fmt::Debug for PublicLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicLink")
            .field("handle", &self.handle)
            .field("item", &self.item)
            .finish_non_exhaustive()
    }
}

impl Api {
    /// Reads this link from now on, instead of an account.
    pub fn visit(&self, link: PublicLink) {
        self.0.sessions.visit(link);
    }

    /// The link that is read; `None` for an account.
    #[must_use]
    pub fn link(&self) -> Option<Arc<PublicLink>> {
        self.0.sessions.link()
    }

    /// Whether the key of `link` is the right one. Asks the server for what the link names.
    ///
    /// # Errors
    /// [`ApiError::Refused`] with the reason why the link does not exist any more; otherwise as
    /// [`command`](Self::command).
    pub async fn is_link_key(&self, link: &PublicLink) -> Result<bool, ApiError> {
        let opened = match &link.key {
            LinkKey::Folder(share) => {
                let command = Command::Raw(json!({"a": "pli", "ph": link.handle.to_string()}));
                let reply = self.anonymous(command).await?;
                let text = |name: &str| reply.get(name).and_then(Value::as_str).unwrap_or_default();
                let (key, attrs) = (text("k"), text("attrs"));
                let key = key.rsplit(':').next().unwrap_or_default();
                if key.is_empty() || attrs.is_empty() {
                    // Nothing to try the key on.
                    return Ok(true);
                }
                let key = b64::decode(key)
                    .ok()
                    .and_then(|key| share.unwrap_node_key(&key, true).ok());
                key.is_some_and(|key| opens(&key, attrs))
            }
            LinkKey::File(key) => {
                let found = self.file_link_info(link.handle).await?;
                found
                    .attrs
                    .is_none_or(|attrs| opens(&NodeKey::from(key.clone()), &attrs))
            }
        };
        Ok(opened)
    }

    /// Size and attributes of a linked file.
    async fn file_link_info(&self, link: PublicHandle) -> Result<reply::Download, ApiError> {
        let command = Command::Raw(json!({"a": "g", "p": link.to_string(), "ssl": 2}));
        let reply = self.anonymous(command).await?;
        let found: reply::Download =
            reply::FromReply::from_value(&reply).ok_or(ApiError::BadReply("g"))?;
        match found.error {
            Some(code) => Err(ApiError::from_code(code)),
            None => Ok(found),
        }
    }

    /// The tree of a file link: a root, and the file in it.
    pub(crate) async fn fetch_file_link<F>(
        &self,
        link: &PublicLink,
        mut sink: F,
    ) -> Result<TreeEnd, ApiError>
    where
        F: FnMut(TreeItem) -> Result<(), SinkError> + Send + 'static,
    {
        let found = self.file_link_info(link.handle).await?;
        let root = RawNode::new(link.made_root(), None, NodeKind::Root);
        let mut file = RawNode::new(link.file_handle(), Some(root.handle), NodeKind::File);
        if let LinkKey::File(key) = &link.key {
            let wrapped = link.key.share_key().wrap_node_key(&key.clone().into());
            file.key = Some(format!("{}:{}", root.handle, b64::encode(&wrapped)));
        }
        file.attrs = found.attrs;
        file.size = found.size;
        tokio::task::spawn_blocking(move || {
            sink(TreeItem::Node(root))?;
            sink(TreeItem::Node(file))
        })
        .await
        .map_err(|_| ApiError::Internal("the tree's sink panicked"))?
        .map_err(|error| ApiError::Sink(Arc::from(error)))?;
        Ok(TreeEnd {
            sn: Some(Seqno::from(NO_EVENTS)),
            nodes: 2,
            skipped: 0,
        })
    }
}

/// Whether a node's key decrypts its attributes.
fn opens(key: &NodeKey, attrs: &str) -> bool {
    let attrs = b64::decode(attrs).unwrap_or_default();
    Attributes::decrypt(&key.attr_key(), &attrs).is_ok()
}
