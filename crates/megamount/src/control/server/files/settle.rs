//! Waiting until Mega has what was changed.

use std::io;
use std::time::{Duration, Instant};

use mega_proto::NodeHandle;
use mega_vfs::{Pushed, SessionState, Standing, Vfs};

use super::{Answered, Refusal, Talk};
use crate::control::files::FileReply;
use crate::control::protocol::Fault;

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How often the client is told, and noticed to have gone.
const TELL: Duration = Duration::from_millis(200);
/// A full account is believed after this time: a refusal may be of something else.
const BELIEVE_FULL: Duration = Duration::from_secs(3);

/// Where the waiting is.
#[derive(PartialEq, Eq)]
struct Place {
    left: usize,
    sent: u64,
    others: Option<Pushed>,
}

/// Something that is waited for.
enum Awaited {
    /// The change of an inode, which the caller holds.
    Inode(u64),
    /// The end of a node whose name something else has got.
    Replaced(NodeHandle),
}

impl Awaited {
    fn standing(&self, vfs: &Vfs) -> Standing {
        match self {
            Self::Inode(ino) => vfs.standing(*ino),
            Self::Replaced(handle) => vfs.standing_of_replaced(*handle),
        }
    }
}

/// Waits for what is at these paths.
pub(super) async fn paths(talk: &mut Talk<'_>, paths: &[String]) -> Answered {
    let mut held = Vec::new();
    for path in paths {
        match talk.vfs.at(path) {
            Ok(at) => held.push(at),
            Err(errno) => return Ok(Err(talk.refusal(path, errno))),
        }
    }
    let all: Vec<_> = held.iter().map(mega_vfs::Held::ino).collect();
    let path = paths.first().map_or("", String::as_str);
    inodes(talk, path, all).await
}

/// Waits for these inodes; `path` is for messages. The caller holds them.
pub(super) async fn inodes(talk: &mut Talk<'_>, path: &str, inodes: Vec<u64>) -> Answered {
    for ino in &inodes {
        talk.vfs.hasten(*ino);
    }
    until(talk, path, inodes.into_iter().map(Awaited::Inode).collect()).await
}

/// Waits for an inode that got its name, and until the node that had the name before has gone.
pub(super) async fn placed(
    talk: &mut Talk<'_>,
    path: &str,
    ino: u64,
    replaced: Option<NodeHandle>,
) -> Answered {
    talk.vfs.hasten(ino);
    if let Some(handle) = replaced {
        talk.vfs.hasten_replaced(handle);
    }
    let replaced = replaced.map(Awaited::Replaced);
    let all = [Awaited::Inode(ino)].into_iter().chain(replaced).collect();
    until(talk, path, all).await
}

async fn until(talk: &mut Talk<'_>, path: &str, mut left: Vec<Awaited>) -> Answered {
    let mut since = Instant::now();
    let mut told = Instant::now();
    let mut last = None;
    let mut full_since = None;
    loop {
        let mut sent = 0;
        let mut is_full = false;
        let mut refused = None;
        let mut is_waiting = false;
        left.retain(|awaited| match awaited.standing(talk.vfs) {
            Standing::Done => false,
            Standing::Refused(reason) => {
                refused = Some(reason);
                true
            }
            Standing::Uploading(progress) => {
                sent += progress.sent;
                true
            }
            Standing::Full => {
                is_full = true;
                true
            }
            Standing::Waiting => {
                is_waiting = true;
                true
            }
            Standing::Sending | Standing::PutOff => true,
        });
        if left.is_empty() {
            return Ok(Ok(FileReply::Done));
        }
        if let Some(reason) = refused {
            return Ok(Err(given_up(
                talk,
                path,
                &format!("Mega refused it: {reason}"),
            )));
        }
        if is_full {
            let since = *full_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= BELIEVE_FULL {
                return Ok(Err(given_up(
                    talk,
                    path,
                    "the account is full: see 'megamount about'. Make room, or empty the rubbish bin",
                )));
            }
        } else {
            full_since = None;
        }
        let now = Place {
            left: left.len(),
            sent,
            // What waits for its turn gets it when others have moved.
            others: is_waiting.then(|| talk.vfs.pushed()),
        };
        if last.as_ref() != Some(&now) {
            since = Instant::now();
            last = Some(now);
        }
        if since.elapsed() >= talk.vfs.timeout()
            && let Some(refusal) = stuck(talk, path).await?
        {
            return Ok(Err(refusal));
        }
        if told.elapsed() >= TELL {
            told = Instant::now();
            talk.say(FileReply::Progress { sent }).await?;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Nothing moves: why, in words.
async fn stuck(talk: &Talk<'_>, path: &str) -> io::Result<Option<Refusal>> {
    let snapshot = talk.look(|vfs| vfs.snapshot(0, None)).await?;
    if snapshot.session == SessionState::Dead {
        return Ok(Some(Refusal {
            code: Fault::Login,
            text: format!(
                "'{path}' is not on Mega: the session has ended. It is kept; log in again with 'megamount \
                 login'"
            ),
        }));
    }
    let why = match snapshot.last_error {
        Some(error) if !snapshot.is_channel_up => error.text,
        _ => "nothing moves".to_owned(),
    };
    Ok(Some(Refusal {
        code: Fault::Late,
        text: format!(
            "'{path}' is not on Mega yet: {why}. It is kept, and goes on with the next mount or command of \
             this remote that changes something"
        ),
    }))
}

/// What will not succeed by itself. It is kept in any case, for the user to decide: the row may hold what was written
/// long before this request, and nowhere else.
fn given_up(talk: &Talk<'_>, path: &str, reason: &str) -> Refusal {
    let how = if talk.is_mount {
        "see 'megamount status'"
    } else {
        "it is tried again by the next mount or command; 'megamount status' of a mount shows it, and 'megamount \
         discard' forgets it"
    };
    Refusal {
        code: Fault::Failed,
        text: format!("'{path}': {reason}. It is kept: {how}"),
    }
}
