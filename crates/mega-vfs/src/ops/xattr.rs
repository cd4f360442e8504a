//! Extended attributes: `user.*` in the node's attribute `mma`, and the read-only `user.mega.*`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use mega_proto::b64;
use mega_store::{ChangeState, Subject};
use rustix::io::Errno;
use serde_json::Value;

use crate::Vfs;
use crate::changes::set_attribute;
use crate::dot_mega::{Virtual, check_real};
use crate::shared::Shared;
use crate::state::State;
use crate::status::Progress;
use crate::types::OpResult;
use crate::zone::Need;

/// Largest serialised set of user attributes of one node, bytes (protocol/03 section 7).
const LIMIT: usize = 16 * 1024;
const MEMBER: &str = "mma";
const CREATE: i32 = 1;
const REPLACE: i32 = 2;

type Set = BTreeMap<String, String>;

impl State {
    fn xattrs(&self, subject: Subject) -> OpResult<Set> {
        let wanted = self
            .changes
            .get(subject)
            .and_then(|row| row.attributes.as_ref())
            .and_then(|attributes| attributes.get(MEMBER));
        let text = match (wanted, subject) {
            (Some(value), _) => value.as_str().map(str::to_owned),
            (None, Subject::Node(handle)) => self
                .node(handle)?
                .and_then(|(_, node)| node.attributes)
                .and_then(|attributes| attributes.get(MEMBER)?.as_str().map(str::to_owned)),
            (None, Subject::Local(_)) => None,
        };
        // Another client may have put anything there: what cannot be read counts as none.
        Ok(text
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default())
    }

    fn mega_attribute(
        &self,
        subject: Subject,
        name: &str,
        progress: Option<Progress>,
    ) -> OpResult<Option<String>> {
        let row = self.changes.get(subject);
        Ok(match name {
            "user.mega.handle" => subject.node().map(|handle| handle.to_string()),
            "user.mega.state" => Some(match row {
                None => "uploaded".to_owned(),
                Some(row) => match &row.state {
                    ChangeState::Parked { error } => format!("failed: {error}"),
                    _ if self.changes.is_in_flight(subject) => match progress {
                        Some(progress) => format!("uploading {}%", progress.percent()),
                        None => "uploading".to_owned(),
                    },
                    _ => "queued".to_owned(),
                },
            }),
            "user.mega.restore-to" => self.restore_to(subject)?,
            "user.mega.fingerprint" => match subject {
                Subject::Node(handle) if row.is_none_or(|row| row.content.is_none()) => self
                    .node(handle)?
                    .and_then(|(_, node)| node.attributes)
                    .and_then(|attributes| attributes.get("c")?.as_str().map(str::to_owned)),
                _ => None,
            },
            _ => None,
        })
    }
}

impl Shared {
    /// What was written to an open file becomes part of its row, so that its state can be told.
    fn commit_file(&self, ino: u64) -> OpResult<()> {
        let open = self.lock().shared_file(ino).cloned();
        match open {
            Some(file) => self.commit_content(&file, &mut file.lock()),
            None => Ok(()),
        }
    }
}

impl Vfs {
    /// Value of an extended attribute.
    ///
    /// # Errors
    /// ENODATA, EOPNOTSUPP outside `user.`, ESTALE.
    pub async fn getxattr(&self, ino: u64, name: &OsStr) -> OpResult<Vec<u8>> {
        if is_made_up(ino) {
            return Err(Errno::NODATA);
        }
        if name == "user.mega.state" && Virtual::of(ino).is_none() {
            self.shared.commit_file(ino)?;
        }
        let state = self.shared.lock();
        let subject = state.readable(ino)?;
        if let Some(name) = name.to_str().filter(|name| name.starts_with("user.mega.")) {
            let progress = self.shared.monitor.progress(subject);
            let value = state.mega_attribute(subject, name, progress)?;
            return value.map(String::into_bytes).ok_or(Errno::NODATA);
        }
        if !name.as_bytes().starts_with(b"user.") {
            return Err(Errno::OPNOTSUPP);
        }
        let set = state.xattrs(subject)?;
        let value = set
            .get(&b64::encode(name.as_bytes()))
            .ok_or(Errno::NODATA)?;
        b64::decode(value).map_err(|_| Errno::IO)
    }

    /// Names of the `user.*` attributes; `user.mega.*` are not listed, so that copies leave them alone.
    ///
    /// # Errors
    /// ESTALE.
    pub async fn listxattr(&self, ino: u64) -> OpResult<Vec<OsString>> {
        if is_made_up(ino) {
            return Ok(Vec::new());
        }
        let state = self.shared.lock();
        let subject = state.readable(ino)?;
        let set = state.xattrs(subject)?;
        Ok(set
            .keys()
            .filter_map(|name| b64::decode(name).ok())
            .map(OsString::from_vec)
            .collect())
    }

    /// Sets a `user.*` attribute.
    ///
    /// # Errors
    /// EPERM for `user.mega.*`, EOPNOTSUPP outside `user.`, ENOSPC over 16 KiB per node, EEXIST and
    /// ENODATA by the flags, EROFS.
    pub async fn setxattr(&self, ino: u64, name: &OsStr, value: &[u8], flags: i32) -> OpResult<()> {
        let key = writable(name)?;
        self.edit_xattrs(ino, |set| {
            let exists = set.contains_key(&key);
            if flags & CREATE != 0 && exists {
                return Err(Errno::EXIST);
            }
            if flags & REPLACE != 0 && !exists {
                return Err(Errno::NODATA);
            }
            set.insert(key, b64::encode(value));
            Ok(())
        })
    }

    /// Removes a `user.*` attribute.
    ///
    /// # Errors
    /// ENODATA; as `setxattr`.
    pub async fn removexattr(&self, ino: u64, name: &OsStr) -> OpResult<()> {
        let key = writable(name)?;
        self.edit_xattrs(ino, |set| set.remove(&key).map(|_| ()).ok_or(Errno::NODATA))
    }

    fn edit_xattrs(&self, ino: u64, edit: impl FnOnce(&mut Set) -> OpResult<()>) -> OpResult<()> {
        self.shared.check_writable()?;
        check_real(ino)?;
        let mut state = self.shared.lock();
        let subject = state.subject(ino)?;
        if subject == state.root {
            return Err(Errno::OPNOTSUPP);
        }
        state.check_entry(subject, Need::Edit)?;
        let mut set = state.xattrs(subject)?;
        edit(&mut set)?;
        let value = if set.is_empty() {
            Value::Null
        } else {
            let text = serde_json::to_string(&set).map_err(|_| Errno::IO)?;
            if text.len() > LIMIT {
                return Err(Errno::NOSPC);
            }
            Value::String(text)
        };
        let kind = state.kind_of(subject)?;
        let mut row = state.row_for_edit(subject, kind);
        set_attribute(&mut row, MEMBER, value);
        if row.content.is_none() && !matches!(row.state, ChangeState::Pushing { .. }) {
            row.state = ChangeState::Pending {
                due_ms: state.name_due(),
            };
        }
        state.commit(vec![row], &[])?;
        state.note_change(subject);
        drop(state);
        self.shared.wake.notify_one();
        Ok(())
    }
}

/// Whether there is no node that could have attributes.
fn is_made_up(ino: u64) -> bool {
    !matches!(Virtual::of(ino), None | Some(Virtual::Version(_)))
}

fn writable(name: &OsStr) -> OpResult<String> {
    if name.as_bytes().starts_with(b"user.mega.") {
        return Err(Errno::PERM);
    }
    if !name.as_bytes().starts_with(b"user.") {
        return Err(Errno::OPNOTSUPP);
    }
    Ok(b64::encode(name.as_bytes()))
}
