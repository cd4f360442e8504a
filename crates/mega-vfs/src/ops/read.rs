//! read, lseek: local layers over the base node's cached or remote bytes.

use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use mega_proto::NodeHandle;
use mega_store::Subject;
use mega_transfer::{ReadCursor, RemoteSource};
use rustix::io::Errno;

use crate::Vfs;
use crate::errno::{store_errno, transfer_errno};
use crate::file::{Base, FileNode, Source, slice_of};
use crate::shared::Shared;
use crate::state::State;
use crate::types::OpResult;

/// How a read is answered.
enum Plan {
    /// At or beyond the end.
    Nothing,
    /// So many bytes of the base, nothing local.
    Clean(Base, usize),
    /// The pieces, with what is local filled in.
    Merge(Vec<(Range<u64>, Source)>, Option<Base>, BytesMut),
}

impl Shared {
    fn plan_read(&self, file: &FileNode, offset: u64, size: u32) -> OpResult<Plan> {
        let content = file.lock();
        let end = content.size.min(offset.saturating_add(u64::from(size)));
        if offset >= end {
            return Ok(Plan::Nothing);
        }
        let length = usize::try_from(end - offset).map_err(|_| Errno::INVAL)?;
        if content.layers.is_empty()
            && let Some(base) = content.base.clone()
            && base.size == content.size
        {
            return Ok(Plan::Clean(base, length));
        }
        let pieces = content.plan(offset..end, content.layers.len());
        let mut buffer = BytesMut::zeroed(length);
        content
            .read_layers(&pieces, offset, &mut buffer)
            .map_err(|error| store_errno(&error))?;
        Ok(Plan::Merge(pieces, content.base.clone(), buffer))
    }

    /// Reads up to `size` bytes; short only at the end of the file.
    pub(crate) async fn read_file(
        &self,
        file: &FileNode,
        cursor: &ReadCursor,
        offset: u64,
        size: u32,
    ) -> OpResult<Bytes> {
        let plan = self.plan_read(file, offset, size)?;
        let (pieces, base, mut buffer) = match plan {
            Plan::Nothing => return Ok(Bytes::new()),
            // The common case: a clean file, answered from the cache without a copy.
            Plan::Clean(base, length) => {
                let read = base.remote.read(offset, length, cursor).await;
                return read.map_err(|error| transfer_errno(&error));
            }
            Plan::Merge(pieces, base, buffer) => (pieces, base, buffer),
        };
        for (range, source) in &pieces {
            if *source != Source::Base {
                continue;
            }
            // Its node is gone, and these bytes were never fetched.
            let base = base.as_ref().ok_or(Errno::IO)?;
            let length = usize::try_from(range.end - range.start).map_err(|_| Errno::INVAL)?;
            let read = base.remote.read(range.start, length, cursor).await;
            let bytes = read.map_err(|error| transfer_errno(&error))?;
            if bytes.len() != length {
                return Err(Errno::IO);
            }
            if let Some(target) = slice_of(&mut buffer, offset, range) {
                target.copy_from_slice(&bytes);
            }
        }
        Ok(buffer.freeze())
    }
}

impl Shared {
    /// A file is read for the first time since it was opened: where a directory is read file by file, the
    /// next ones are fetched ahead.
    fn note_walk(&self, ino: u64) {
        let mut state = self.lock();
        let next = state.next_in_walk(ino);
        let sources: Vec<_> = next
            .into_iter()
            .filter_map(|node| state.source(node))
            .collect();
        drop(state);
        if !sources.is_empty() {
            self.downloads.prefetch(sources);
        }
    }
}

impl State {
    fn next_in_walk(&mut self, ino: u64) -> Vec<NodeHandle> {
        let Ok(subject @ Subject::Node(node)) = self.subject(ino) else {
            return Vec::new();
        };
        let Ok(Some(directory)) = self.parent(subject) else {
            return Vec::new();
        };
        let Self { walks, dirs, .. } = self;
        walks.note(directory, node, || dirs.peek(&directory))
    }

    /// A node's content, unless it was written anew here, or has no key.
    pub(crate) fn source(&self, node: NodeHandle) -> Option<RemoteSource> {
        let change = self.changes.get(Subject::Node(node));
        if change.is_some_and(|row| row.content.is_some()) {
            return None;
        }
        let (row, opened) = self.node(node).ok()??;
        Some(RemoteSource {
            handle: node,
            size: row.size,
            key: opened.file_key()?.clone(),
        })
    }
}

/// The bytes of a document at an offset.
fn part_of(document: &[u8], offset: u64, size: u32) -> Bytes {
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    let rest = document.get(from..).unwrap_or_default();
    let length = rest.len().min(size as usize);
    Bytes::copy_from_slice(rest.get(..length).unwrap_or_default())
}

impl Vfs {
    /// Reads from an open file.
    ///
    /// # Errors
    /// EBADF, EIO (also: content does not match its MAC), EDQUOT (transfer quota), ESTALE (node
    /// gone), ETIMEDOUT, ENOSPC never.
    pub async fn read(&self, _ino: u64, fh: u64, offset: u64, size: u32) -> OpResult<Bytes> {
        let handle = {
            let state = self.shared.lock();
            if let Some(document) = state.handles.document(fh) {
                return Ok(part_of(&document, offset, size));
            }
            state.handles.file(fh).ok_or(Errno::BADF)?
        };
        if !handle.has_read.swap(true, Ordering::Relaxed) {
            self.shared.note_walk(handle.file.ino);
        }
        self.shared
            .read_file(&handle.file, &handle.cursor, offset, size)
            .await
    }

    /// `SEEK_DATA` (3) and `SEEK_HOLE` (4): every file is all data, with the hole at its end.
    ///
    /// # Errors
    /// ENXIO beyond the end, EINVAL for other directions, EBADF.
    pub async fn lseek(&self, _ino: u64, fh: u64, offset: i64, whence: i32) -> OpResult<i64> {
        let found = {
            let state = self.shared.lock();
            (state.handles.document(fh), state.handles.file(fh))
        };
        let size = match found {
            (Some(document), _) => document.len() as u64,
            (None, handle) => handle.ok_or(Errno::BADF)?.file.lock().size,
        };
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        if offset < 0 || offset >= size {
            return Err(Errno::NXIO);
        }
        match whence {
            3 => Ok(offset),
            4 => Ok(size),
            _ => Err(Errno::INVAL),
        }
    }
}
