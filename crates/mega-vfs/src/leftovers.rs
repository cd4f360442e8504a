//! What Mega keeps of what was removed or replaced: the rubbish bin, and old versions of files.
//!
//! Both count as used storage. Looking at them asks nobody; deleting waits for the network: for commands,
//! never for programs.

use std::time::Duration;

use mega_crypto::Attributes;
use mega_proto::NodeHandle;
use mega_store::Subject;
use rustix::io::Errno;

use crate::Vfs;
use crate::catalog::{Detail, Held, Item};
use crate::links::AskError;
use crate::push::origin_of;
use crate::state::State;
use crate::types::OpResult;

/// Something in the rubbish bin.
#[derive(Debug, Clone)]
pub struct Rubbish {
    /// What it is.
    pub item: Item,
    /// The folder it was in, if that is known and still there.
    pub origin: Option<String>,
}

impl State {
    fn rubbish(&self) -> OpResult<Subject> {
        self.roots.rubbish.map(Subject::Node).ok_or(Errno::NOENT)
    }

    /// The path in the account of the folder that something in the bin was in, none if it is not there any more.
    fn origin(&self, attributes: Option<&Attributes>) -> Option<String> {
        let mut parts = Vec::new();
        let mut at = Subject::Node(origin_of(attributes?)?);
        while at != Subject::Node(self.roots.cloud) {
            let (parent, name) = self.parent_and_spelling(at)?;
            parts.push(name);
            at = parent;
            if parts.len() > 4096 {
                return None;
            }
        }
        parts.reverse();
        Some(parts.join("/"))
    }
}

impl Vfs {
    /// What is in the rubbish bin, its top entries.
    ///
    /// # Errors
    /// EIO when the local state fails.
    pub fn rubbish(&self) -> OpResult<Vec<Rubbish>> {
        let mut state = self.shared.lock();
        let bin = state.rubbish()?;
        let entries: Vec<_> = state
            .dir(bin)?
            .after(0)
            .map(|entry| (entry.subject, entry.facts, entry.spelling.to_string()))
            .collect();
        let mut found = Vec::with_capacity(entries.len());
        for (subject, facts, name) in entries {
            let item = state.item_of(&name, subject, facts, Detail::Listing)?;
            let node = match subject {
                Subject::Node(handle) => state.node(handle)?,
                Subject::Local(_) => None,
            };
            let attributes = node.and_then(|(_, node)| node.attributes);
            let origin = state.origin(attributes.as_ref());
            found.push(Rubbish { item, origin });
        }
        Ok(found)
    }

    /// The rubbish bin as a folder.
    ///
    /// # Errors
    /// ENOENT for an account without one.
    pub fn rubbish_bin(&self) -> OpResult<Held> {
        let mut state = self.shared.lock();
        let bin = state.rubbish()?;
        let attr = state.attr(bin)?;
        Ok(self.hold(state, attr))
    }

    /// Empties the rubbish bin for good.
    ///
    /// # Errors
    /// What the server says.
    pub async fn empty_rubbish(&self) -> Result<(), AskError> {
        let shared = &self.shared;
        {
            let _alone = shared.gate.lock().await;
            shared.api.empty_rubbish().await?;
        }
        self.see_it().await;
        Ok(())
    }

    /// The old versions of a file, newest first.
    ///
    /// # Errors
    /// EIO when the local state fails.
    pub fn old_versions(&self, handle: NodeHandle) -> OpResult<Vec<Item>> {
        let mut state = self.shared.lock();
        let mut found = Vec::new();
        for version in state.older_versions(handle)? {
            let subject = Subject::Node(version.handle);
            let facts = state.facts(subject)?;
            found.push(state.item_of("", subject, facts, Detail::Listing)?);
        }
        Ok(found)
    }

    /// An old version, to be read.
    ///
    /// # Errors
    /// ESTALE when it is gone.
    pub fn version(&self, handle: NodeHandle) -> OpResult<Held> {
        let mut state = self.shared.lock();
        let subject = Subject::Node(handle);
        let facts = state.facts(subject)?;
        let attr = state.attr_with(subject, facts)?;
        Ok(self.hold(state, attr))
    }

    /// Deletes old versions of a file for good, the newest `keep` excepted; how many.
    ///
    /// # Errors
    /// What the server says.
    pub async fn prune(&self, handle: NodeHandle, keep: usize) -> Result<usize, AskError> {
        let shared = &self.shared;
        let mut old = shared.lock().older_versions(handle)?;
        let old = old.split_off(keep.min(old.len()));
        if old.is_empty() {
            return Ok(0);
        }
        {
            let _alone = shared.gate.lock().await;
            // The oldest first: whatever comes in between, what is left is a whole row.
            for version in old.iter().rev() {
                shared.api.delete_version(version.handle).await?;
            }
        }
        self.see_it().await;
        Ok(old.len())
    }

    /// What was just done on Mega is seen here before somebody looks.
    async fn see_it(&self) {
        const PATIENCE: Duration = Duration::from_secs(5);
        let _ = self.shared.catch_up(PATIENCE).await;
        let _ = self.shared.refresh_quota().await;
    }
}
