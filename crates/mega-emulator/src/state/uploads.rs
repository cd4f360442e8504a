//! Owns uploads from URL to used token: which pieces are stored, when URL and token stop being good
//! (protocol/04 section 5). The bytes themselves are `content.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::State;
use crate::content::{Content, ContentId};

/// An upload target, later a token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Upload {
    pub(crate) user: String,
    pub(crate) size: u64,
    /// `v` of the command.
    pub(crate) v: i64,
    /// Offset to length.
    pub(crate) pieces: BTreeMap<u64, u64>,
    /// Token as the client names it in `p`, once complete.
    pub(crate) token: Option<String>,
    /// Raw body of the reply that carried it.
    pub(crate) reply: Vec<u8>,
    pub(crate) used: bool,
    /// The wrapped node key it was used with.
    #[serde(default)]
    pub(crate) key: String,
    /// URL and token are no longer good.
    #[serde(default)]
    pub(crate) expired: bool,
    /// Milliseconds since 1970: when the URL was handed out, later when the token was.
    #[serde(default)]
    pub(crate) since_ms: u64,
}

impl Upload {
    /// A target handed out now.
    pub(crate) fn new(user: &str, size: u64, v: i64) -> Self {
        Self {
            user: user.to_owned(),
            size,
            v,
            pieces: BTreeMap::new(),
            token: None,
            reply: Vec::new(),
            used: false,
            key: String::new(),
            expired: false,
            since_ms: now_ms(),
        }
    }

    /// What of `[from, to)` is not stored yet; an empty range is a gap of an empty file.
    pub(crate) fn gaps(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        if from == to {
            return vec![(from, to)];
        }
        let mut out = Vec::new();
        let mut at = from;
        let before = self.pieces.range(..from).next_back();
        for (offset, length) in before.into_iter().chain(self.pieces.range(from..to)) {
            if *offset > at {
                out.push((at, *offset));
            }
            at = at.max(offset + length);
        }
        if at < to {
            out.push((at, to));
        }
        out
    }

    /// Whether the URL, or the token once there is one, is older than `life` milliseconds.
    pub(crate) fn is_older(&self, life: Option<u64>) -> bool {
        life.is_some_and(|life| now_ms().saturating_sub(self.since_ms) >= life)
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

impl State {
    /// A new upload target, whose content is kept or not; its number also names the content.
    pub(crate) fn new_upload(&mut self, upload: Upload, keep: bool) -> std::io::Result<ContentId> {
        let id = self.meta.next_upload;
        self.meta.next_upload += 1;
        let content = if keep {
            Content::create(self.journal.dir(), id)?
        } else {
            Content::Dropped
        };
        self.contents.insert(id, Arc::new(content));
        self.put_upload(id, upload);
        Ok(id)
    }

    /// Stores an upload's progress.
    pub(crate) fn put_upload(&mut self, id: ContentId, upload: Upload) {
        self.journal.put("upload", &id.to_string(), &upload);
        if let Some(token) = &upload.token {
            self.tokens.insert(token.clone(), id);
        }
        self.uploads.insert(id, upload);
    }

    /// Notes the token of a complete upload and the reply that carries it.
    pub(crate) fn finish_upload(&mut self, id: ContentId, token: String, reply: &[u8]) {
        if let Some(mut upload) = self.uploads.get(&id).cloned() {
            upload.token = Some(token);
            upload.reply = reply.to_vec();
            upload.since_ms = now_ms();
            self.put_upload(id, upload);
        }
    }

    /// Ends the life of unfinished uploads.
    pub(crate) fn expire_uploads(&mut self) {
        self.expire(|u| u.token.is_none());
    }

    /// Ends the life of tokens that wait for their `p`.
    pub(crate) fn expire_tokens(&mut self) {
        self.expire(|u| u.token.is_some() && !u.used);
    }

    /// Ends the life of one upload.
    pub(crate) fn expire_upload(&mut self, id: ContentId) {
        if let Some(mut upload) = self.uploads.get(&id).cloned() {
            upload.expired = true;
            self.put_upload(id, upload);
        }
    }

    fn expire(&mut self, which: impl Fn(&Upload) -> bool) {
        let old: Vec<ContentId> = self
            .uploads
            .iter()
            .filter(|(_, u)| which(u))
            .map(|(id, _)| *id)
            .collect();
        for id in old {
            self.expire_upload(id);
        }
    }

    /// Notes a stored piece. Only the piece goes to the journal: whole uploads would make it
    /// quadratic.
    pub(crate) fn add_piece(&mut self, id: ContentId, offset: u64, length: u64) {
        self.journal
            .put("piece", &format!("{id}/{offset}"), &length);
        if let Some(upload) = self.uploads.get_mut(&id) {
            upload.pieces.insert(offset, length);
        }
    }
}
