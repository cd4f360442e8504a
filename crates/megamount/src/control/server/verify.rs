//! Answers `verify`: files are checked one after the other, and how far it is said meanwhile.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mega_vfs::{Verified, Vfs};
use rustix::io::Errno;
use tokio::net::unix::OwnedWriteHalf;

use super::send;
use crate::control::protocol::{Fault, Reply};

/// How often it is said how far it is; a client that has gone away is noticed by it.
const TELL: Duration = Duration::from_millis(200);

/// Checks everything at or below `path` for the client.
pub(super) async fn verify(
    vfs: &Arc<Vfs>,
    path: &str,
    writer: &mut OwnedWriteHalf,
) -> io::Result<()> {
    let (lister, whole) = (Arc::clone(vfs), path.to_owned());
    let listed = tokio::task::spawn_blocking(move || lister.files_to_verify(&whole)).await?;
    let files = match listed {
        Ok(files) => files,
        Err(errno) => return send(writer, &refusal(path, errno)).await,
    };
    let bytes = files.iter().map(|file| file.size).sum();
    let (mut good, mut bad, mut changed) = (0, 0, 0);
    let mut before = 0;
    let mut tick = tokio::time::interval(TELL);
    for file in &files {
        let read = AtomicU64::new(0);
        let outcome = {
            let mut check = pin!(vfs.verify(file, |count| read.store(count, Ordering::Relaxed)));
            loop {
                tokio::select! {
                    outcome = &mut check => break outcome,
                    _ = tick.tick() => {
                        let done = before + read.load(Ordering::Relaxed);
                        let files = files.len();
                        send(writer, &Reply::Verifying { files, bytes, done }).await?;
                    }
                }
            }
        };
        before += file.size;
        let text = match outcome {
            Verified::Good => {
                good += 1;
                continue;
            }
            Verified::Changed => {
                changed += 1;
                continue;
            }
            Verified::Damaged => "does not match its checksum".to_owned(),
            Verified::Unknown(why) => format!("could not be checked: {why}"),
        };
        bad += 1;
        let path = file.path.clone();
        send(writer, &Reply::Doubtful { path, text }).await?;
    }
    send(writer, &Reply::Verified { good, bad, changed }).await
}

fn refusal(path: &str, errno: Errno) -> Reply {
    match errno {
        Errno::NOENT | Errno::NOTDIR => Reply::Error {
            code: Fault::NotFound,
            text: format!("there is no '{path}' in this mount"),
        },
        errno => Reply::Error {
            code: Fault::Failed,
            text: format!("'{path}' cannot be listed: {errno}"),
        },
    }
}
