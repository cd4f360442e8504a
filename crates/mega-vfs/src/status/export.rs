//! What exists here of a changed file, piece by piece: the way out for content that Mega refuses.
//!
//! Bytes that were written here are always had. What still shows of the node below comes from the
//! cache or from Mega, as long as either has it; what neither has is reported as missing, never as
//! zeros without a word. Of content that a power cut may have damaged (module `aside`) that is what the disk
//! still has; such a file has no shared content, so it is read beside it and stays closed to others.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use mega_transfer::ReadCursor;

use crate::Vfs;
use crate::aside::is_set_aside;
use crate::errno::store_errno;
use crate::file::{FileNode, Source};
use crate::shared::Shared;
use crate::status::ResolveError;
use crate::types::Timestamp;

/// Bytes of one piece; small, because the file's lock is held while it is read.
const PIECE: u64 = 128 * 1024;

/// A file that is being copied out. It counts as open meanwhile.
pub struct Export {
    shared: Arc<Shared>,
    file: Arc<FileNode>,
    size: u64,
    at: u64,
    ready: std::collections::VecDeque<Exported>,
    cursor: ReadCursor,
    /// Mega could not be reached: from here on only what is cached counts.
    is_offline: bool,
    /// The content is nobody else's.
    is_aside: bool,
}

/// A piece of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exported {
    /// These bytes are at this offset.
    Data(u64, Bytes),
    /// These bytes are nowhere to be had now.
    Missing(Range<u64>),
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Export").finish_non_exhaustive()
    }
}

impl Vfs {
    /// Begins to copy out the changed file at `path`.
    ///
    /// # Errors
    /// [`ResolveError`]: there is no such change, or it has no new content.
    pub fn export(&self, path: &str) -> Result<Export, ResolveError> {
        let subject = self.change_at(path)?;
        let (ino, aside) = {
            let mut state = self.shared.lock();
            let row = state.changes.get(subject);
            if row.is_none_or(|row| row.content.is_none() || row.removed) {
                return Err(ResolveError::NoContent(path.to_owned()));
            }
            let ino = state.ino(subject)?;
            let is_aside = state.changes.get(subject).is_some_and(is_set_aside);
            let aside = if is_aside {
                let content = self.shared.load_content_as_it_is(&state, subject);
                let content = content.map_err(|_| ResolveError::Lost(path.to_owned()))?;
                let size = content.size;
                let file = FileNode::new(ino, content, Timestamp::default());
                Some((Arc::new(file), size))
            } else {
                None
            };
            (ino, aside)
        };
        let is_aside = aside.is_some();
        let (file, size) = match aside {
            Some(aside) => aside,
            None => self.shared.with_content(ino, |file, content| {
                content.openers += 1;
                Ok((Arc::clone(file), content.size))
            })?,
        };
        Ok(Export {
            shared: Arc::clone(&self.shared),
            file,
            size,
            at: 0,
            ready: std::collections::VecDeque::new(),
            cursor: ReadCursor::default(),
            is_offline: false,
            is_aside,
        })
    }
}

impl Export {
    /// The length of the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The next piece, in order; what lies between two pieces is zeros. `None` at the end.
    ///
    /// # Errors
    /// [`ResolveError::Local`] when the local bytes cannot be read.
    pub async fn next(&mut self) -> Result<Option<Exported>, ResolveError> {
        while self.ready.is_empty() {
            if self.at >= self.size {
                return Ok(None);
            }
            let range = self.at..self.size.min(self.at.saturating_add(PIECE));
            self.at = range.end;
            self.fetch(range).await?;
        }
        Ok(self.ready.pop_front())
    }

    async fn fetch(&mut self, range: Range<u64>) -> Result<(), ResolveError> {
        let (pieces, lost, base, local) = {
            let content = self.file.lock();
            let pieces = content.plan(range.clone(), content.layers.len());
            let mut local = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
            let mut lost = Vec::new();
            for piece in &pieces {
                match content.read_layers(std::slice::from_ref(piece), range.start, &mut local) {
                    Ok(()) => {}
                    Err(error) if self.is_aside => {
                        tracing::warn!(%error, "bytes of a damaged file are not on the disk");
                        lost.push(piece.0.clone());
                    }
                    Err(error) => return Err(store_errno(&error).into()),
                }
            }
            (pieces, lost, content.base.clone(), Bytes::from(local))
        };
        for (piece, source) in pieces {
            let length = usize::try_from(piece.end - piece.start).unwrap_or(0);
            match source {
                Source::Zero => {}
                Source::Layer(_) if lost.contains(&piece) => {
                    self.ready.push_back(Exported::Missing(piece));
                }
                Source::Layer(_) => {
                    let from = usize::try_from(piece.start - range.start).unwrap_or(0);
                    let bytes = local.slice(from..from + length);
                    self.ready.push_back(Exported::Data(piece.start, bytes));
                }
                Source::Base => {
                    let read = match &base {
                        Some(base) if self.is_offline => {
                            base.remote.try_read(piece.start, length).ok().flatten()
                        }
                        Some(base) => {
                            let read = base.remote.read(piece.start, length, &self.cursor);
                            let timeout = self.shared.config.timeout;
                            let read = tokio::time::timeout(timeout, read).await;
                            let bytes = read.ok().and_then(Result::ok);
                            self.is_offline = bytes.is_none();
                            bytes
                        }
                        None => None,
                    };
                    self.ready
                        .push_back(match read.filter(|bytes| bytes.len() == length) {
                            Some(bytes) => Exported::Data(piece.start, bytes),
                            None => Exported::Missing(piece),
                        });
                }
            }
        }
        Ok(())
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        if self.is_aside {
            return;
        }
        let mut content = self.file.lock();
        content.openers = content.openers.saturating_sub(1);
        self.shared.let_go(&self.file, &mut content);
    }
}
