//! Content of a file, to the client.

use std::io;

use mega_vfs::{FileKind, OpenMode};
use rustix::io::Errno;
use tokio::io::AsyncWriteExt;

use super::{Answered, Talk};
use crate::control::files::{FileReply, PIECE};
use crate::control::protocol::{self, Reply};

/// Sends the bytes.
pub(super) async fn read(
    talk: &mut Talk<'_>,
    path: &str,
    offset: u64,
    length: Option<u64>,
) -> Answered {
    let at = match talk.vfs.at(path) {
        Ok(at) if at.is_folder() => return Ok(Err(talk.refusal(path, Errno::ISDIR))),
        Ok(at) => at,
        Err(errno) => return Ok(Err(talk.refusal(path, errno))),
    };
    if at.attr.kind == FileKind::Symlink {
        let target = talk.vfs.readlink(at.ino()).await;
        let target = match target {
            Ok(target) => target,
            Err(errno) => return Ok(Err(talk.refusal(path, errno))),
        };
        piece(talk, &target).await?;
        return Ok(Ok(FileReply::Done));
    }
    let mode = OpenMode {
        read: true,
        ..OpenMode::default()
    };
    let opened = match talk.vfs.open(at.ino(), mode).await {
        Ok(opened) => opened,
        Err(errno) => return Ok(Err(talk.refusal(path, errno))),
    };
    let sent = pieces(talk, (at.ino(), opened.fh), offset, length).await;
    let _ = talk.vfs.release(at.ino(), opened.fh).await;
    Ok(match sent? {
        Ok(()) => Ok(FileReply::Done),
        Err(errno) => Err(talk.refusal(path, errno)),
    })
}

async fn pieces(
    talk: &mut Talk<'_>,
    (ino, fh): (u64, u64),
    mut offset: u64,
    length: Option<u64>,
) -> io::Result<Result<(), Errno>> {
    let mut left = length.unwrap_or(u64::MAX);
    while left > 0 {
        let size = u32::try_from(left.min(PIECE as u64)).unwrap_or(u32::MAX);
        let bytes = match talk.vfs.read(ino, fh, offset, size).await {
            Ok(bytes) => bytes,
            Err(errno) => return Ok(Err(errno)),
        };
        if bytes.is_empty() {
            break;
        }
        piece(talk, &bytes).await?;
        offset += bytes.len() as u64;
        left -= bytes.len() as u64;
    }
    Ok(Ok(()))
}

async fn piece(talk: &mut Talk<'_>, bytes: &[u8]) -> io::Result<()> {
    let length = bytes.len();
    let reply = Box::new(FileReply::Bytes { length });
    let mut message = protocol::line(&Reply::Files { reply });
    message.extend_from_slice(bytes);
    talk.writer.write_all(&message).await
}
