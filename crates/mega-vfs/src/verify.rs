//! Checking what Mega has against its checksums: one file after the other, at or below a path.
//!
//! Content that Mega does not have yet is not checked: it has no checksum. The state lock is taken for
//! one directory at a time.

use mega_store::Subject;
use mega_transfer::{RemoteSource, TransferError};
use mega_tree::node::Shape;
use rustix::io::Errno;

use crate::Vfs;
use crate::types::OpResult;

/// A file that can be checked, or not.
#[derive(Debug)]
pub struct VerifyFile {
    /// Where it is, below the mountpoint.
    pub path: String,
    /// Its size.
    pub size: u64,
    source: Option<RemoteSource>,
    is_changed: bool,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    /// The content matches its checksum.
    Good,
    /// It was changed here, and Mega does not have it yet.
    Changed,
    /// Mega serves something else than was uploaded.
    Damaged,
    /// It could not be checked.
    Unknown(String),
}

impl Vfs {
    /// The files at or below `path`, in the order of the listings.
    ///
    /// # Errors
    /// ENOENT when there is nothing; what listing a directory answers.
    pub fn files_to_verify(&self, path: &str) -> OpResult<Vec<VerifyFile>> {
        let mut found = Vec::new();
        let mut todo = Vec::new();
        {
            let mut state = self.shared.lock();
            let (at, shape) = state.resolve(path)?;
            todo.push((at, shape, path.to_owned()));
        }
        while let Some((subject, shape, path)) = todo.pop() {
            let mut state = self.shared.lock();
            if shape != Shape::Directory {
                found.push(state.file_to_verify(subject, path));
                continue;
            }
            let directory = match state.dir(subject) {
                Ok(directory) => directory,
                // Removed since it was listed.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE) => continue,
                Err(errno) => return Err(errno),
            };
            let before = todo.len();
            todo.extend(directory.after(0).map(|entry| {
                let separator = if path.is_empty() { "" } else { "/" };
                let path = format!("{path}{separator}{}", entry.spelling);
                (entry.subject, entry.facts.shape, path)
            }));
            if let Some(new) = todo.get_mut(before..) {
                new.reverse();
            }
        }
        Ok(found)
    }

    /// Checks one of them, fetching what is not cached. `told` hears how many of its bytes were read.
    pub async fn verify(&self, file: &VerifyFile, told: impl FnMut(u64) + Send) -> Verified {
        let Some(source) = file.source.clone() else {
            return if file.is_changed {
                Verified::Changed
            } else {
                Verified::Unknown("its key is missing, or it is gone".to_owned())
            };
        };
        let remote = self.shared.downloads.open(source);
        match remote.audit(told).await {
            Ok(()) => Verified::Good,
            Err(TransferError::Corrupt) => {
                tracing::error!(path = file.path, "the content does not match its checksum");
                Verified::Damaged
            }
            Err(error) => Verified::Unknown(error.to_string()),
        }
    }
}

impl crate::state::State {
    fn file_to_verify(&self, subject: Subject, path: String) -> VerifyFile {
        let source = match subject {
            Subject::Node(node) => self.source(node),
            Subject::Local(_) => None,
        };
        let change = self.changes.get(subject);
        VerifyFile {
            path,
            size: source.as_ref().map_or(0, |source| source.size),
            is_changed: change.is_some_and(|row| row.content.is_some())
                || matches!(subject, Subject::Local(_)),
            source,
        }
    }
}
