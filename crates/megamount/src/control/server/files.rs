//! Answers what is asked about files, over the same file system that the kernel asks.

mod change;
mod keep;
mod read;
mod settle;
mod write;

use std::io;
use std::sync::Arc;

use mega_api::{ApiError, ErrorClass};
use mega_proto::ErrorCode;
use mega_vfs::{Detail, Held, Timestamp, Vfs};
use rustix::io::Errno;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::control::files::{FileAsk, FileReply, Item, PAGE, joined, split};
use crate::control::protocol::{self, Fault, Reply};

/// The two directions of a connection.
pub(super) struct Talk<'a> {
    pub(super) vfs: &'a Arc<Vfs>,
    /// For what a client sends after its question.
    pub(super) reader: &'a mut BufReader<OwnedReadHalf>,
    pub(super) writer: &'a mut OwnedWriteHalf,
    /// Whether a mount is served, where people can see and resolve what Mega refuses.
    pub(super) is_mount: bool,
}

/// Answers one question.
pub(super) async fn answer(talk: &mut Talk<'_>, ask: FileAsk) -> io::Result<()> {
    let answered = match ask {
        FileAsk::Look { path, checksums } => look(talk, path, detail(checksums)).await?,
        FileAsk::List {
            path,
            depth,
            checksums,
        } => list(talk, path, depth, detail(checksums)).await?,
        FileAsk::Read {
            path,
            offset,
            length,
        } => read::read(talk, &path, offset, length).await?,
        FileAsk::Write {
            path,
            size,
            mtime,
            executable,
        } => {
            let meta = write::Meta {
                size,
                mtime: moment(mtime),
                executable,
            };
            write::write(talk, &path, meta).await?
        }
        FileAsk::Link {
            path,
            target,
            mtime,
        } => write::link(talk, &path, &target, moment(mtime)).await?,
        FileAsk::Clone { from, to } => write::clone(talk, &from, &to).await?,
        FileAsk::Make {
            path,
            parents,
            at_once,
        } => change::make(talk, &path, parents, at_once).await?,
        FileAsk::Remove {
            path,
            recursive,
            handle,
        } => change::remove(talk, &path, recursive, handle.as_deref()).await?,
        FileAsk::Rename { from, to, handle } => {
            change::rename(talk, &from, &to, handle.as_deref()).await?
        }
        FileAsk::Settle { paths } => settle::paths(talk, &paths).await?,
        FileAsk::Space => space(talk).await?,
        FileAsk::Session => session(talk).await?,
        FileAsk::PublicLink { path, expires } => keep::link(talk, &path, expires).await?,
        FileAsk::EndLink { path } => keep::end_link(talk, &path).await?,
        FileAsk::Trash => keep::trash(talk).await?,
        FileAsk::Restore { name, to } => keep::restore(talk, &name, &to).await?,
        FileAsk::EmptyTrash => keep::empty(talk).await?,
        FileAsk::Versions { path } => keep::versions(talk, &path).await?,
        FileAsk::Revert { path, handle } => keep::revert(talk, &path, &handle).await?,
        FileAsk::Prune { path, keep } => keep::prune(talk, path, keep).await?,
    };
    match answered {
        Ok(reply) => talk.say(reply).await,
        Err(refusal) => talk.send(&refusal.into()).await,
    }
}

/// Why something was not done.
pub(super) struct Refusal {
    code: Fault,
    text: String,
}

/// An answer, or a refusal; the outer result is the connection's.
type Answered = io::Result<Result<FileReply, Refusal>>;

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Self::Error {
            code: refusal.code,
            text: refusal.text,
        }
    }
}

impl Talk<'_> {
    async fn say(&mut self, reply: FileReply) -> io::Result<()> {
        let reply = Box::new(reply);
        self.send(&Reply::Files { reply }).await
    }

    /// However long the client takes to take it: what shows something to people is often paused. It is left when
    /// it goes away, or when we end.
    async fn send(&mut self, reply: &Reply) -> io::Result<()> {
        self.writer.write_all(&protocol::line(reply)).await
    }

    /// Runs what takes the locks of the file system on a thread that may wait for them.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Vfs) -> T + Send + 'static,
    ) -> io::Result<T> {
        let vfs = Arc::clone(self.vfs);
        Ok(tokio::task::spawn_blocking(move || look(&vfs)).await?)
    }

    /// The folder of a path, and the name in it.
    fn parent<'p>(&self, path: &'p str) -> Result<(Held, &'p str), Refusal> {
        let (folder, name) = split(path);
        if name.is_empty() {
            return Err(Refusal {
                code: Fault::Failed,
                text: "the root of the account cannot be replaced, moved or removed".to_owned(),
            });
        }
        match self.vfs.at(folder) {
            Ok(held) if held.is_folder() => Ok((held, name)),
            Ok(_) => Err(self.refusal(folder, Errno::NOTDIR)),
            Err(errno) => Err(self.refusal(folder, errno)),
        }
    }

    /// An errno of a change in words: there the same numbers mean other things.
    fn change_refusal(&self, path: &str, errno: Errno) -> Refusal {
        let path = if path.is_empty() { "/" } else { path };
        let failed = |text: String| Refusal {
            code: Fault::Failed,
            text,
        };
        match errno {
            Errno::NOSPC | Errno::DQUOT if self.vfs.is_account_full() => failed(format!(
                "'{path}' does not fit into the account: see 'megamount about'. Make room, or empty the \
                 rubbish bin"
            )),
            Errno::EXIST => failed(format!("'{path}' exists already")),
            Errno::NOTEMPTY => failed(format!("the folder '{path}' is not empty")),
            Errno::INVAL => failed(format!("'{path}' would be moved into itself")),
            Errno::ROFS => failed(format!(
                "'{path}': the mount of this remote is read-only, and so are commands that go through it"
            )),
            Errno::NAMETOOLONG => failed(format!(
                "the name of '{path}' is too long: Linux has 255 bytes for it"
            )),
            Errno::SHUTDOWN => failed(format!(
                "'{path}': the mount of this remote is ending. Try again when it has"
            )),
            errno => self.refusal(path, errno),
        }
    }

    /// An errno of the file system in words, about the path.
    fn refusal(&self, path: &str, errno: Errno) -> Refusal {
        let refusal = |code, text: String| Refusal { code, text };
        let path = if path.is_empty() { "/" } else { path };
        match errno {
            Errno::NOENT => refusal(
                Fault::Absent,
                format!("there is no '{path}' on this account"),
            ),
            Errno::NOTDIR => refusal(Fault::Failed, format!("'{path}' is not a folder")),
            Errno::ISDIR => refusal(Fault::Failed, format!("'{path}' is a folder")),
            Errno::STALE => refusal(
                Fault::Failed,
                format!("'{path}' was removed or replaced meanwhile. Try again"),
            ),
            Errno::ACCESS => refusal(
                Fault::Failed,
                format!("the key of '{path}' is not known, or Mega does not permit it"),
            ),
            Errno::TIMEDOUT => refusal(
                Fault::Network,
                format!("'{path}': Mega does not answer. Check the network and try again"),
            ),
            Errno::DQUOT => refusal(
                Fault::Failed,
                format!(
                    "'{path}': the transfer quota of this address, or of the account, is used up. Try \
                     again later, or upgrade the account"
                ),
            ),
            Errno::NOSPC => refusal(
                Fault::Local,
                format!("'{path}': the local disk is full. Make room on it"),
            ),
            Errno::IO => refusal(
                Fault::Failed,
                format!(
                    "'{path}' cannot be read: what Mega serves does not match its checksum, or the \
                     local state failed"
                ),
            ),
            errno => refusal(Fault::Failed, format!("'{path}': {errno}")),
        }
    }
}

fn moment((secs, nanos): (i64, u32)) -> Timestamp {
    Timestamp { secs, nanos }
}

fn detail(checksums: bool) -> Detail {
    if checksums {
        Detail::Checksums
    } else {
        Detail::Listing
    }
}

async fn look(talk: &Talk<'_>, path: String, detail: Detail) -> Answered {
    let asked = path.clone();
    let found = talk.look(move |vfs| vfs.item(&asked, detail)).await?;
    Ok(match found {
        Ok(item) => Ok(FileReply::Item { item: item.into() }),
        Err(errno) => Err(talk.refusal(&path, errno)),
    })
}

/// A folder before the folders in it, each sorted by name.
async fn list(talk: &mut Talk<'_>, path: String, depth: Option<u32>, detail: Detail) -> Answered {
    let asked = path.clone();
    let found = talk.look(move |vfs| vfs.item(&asked, detail)).await?;
    let item: Item = match found {
        Ok(item) => item.into(),
        Err(errno) => return Ok(Err(talk.refusal(&path, errno))),
    };
    if !item.is_folder() {
        let folder = split(&path).0.to_owned();
        let items = vec![item];
        talk.say(FileReply::Items { folder, items }).await?;
        return Ok(Ok(FileReply::Done));
    }
    let mut todo = vec![(path.clone(), 1)];
    while let Some((folder, level)) = todo.pop() {
        let asked = folder.clone();
        let listed = talk.look(move |vfs| listing(vfs, &asked, detail)).await?;
        let items = match listed {
            Ok(items) => items,
            // Removed since it was listed.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE) if folder != path => continue,
            Err(errno) => return Ok(Err(talk.refusal(&folder, errno))),
        };
        if depth.is_none_or(|depth| level < depth) {
            let folders = items.iter().rev().filter(|item| item.is_folder());
            todo.extend(folders.map(|item| (joined(&folder, &item.name), level + 1)));
        }
        for items in items.chunks(PAGE) {
            let (folder, items) = (folder.clone(), items.to_vec());
            talk.say(FileReply::Items { folder, items }).await?;
        }
    }
    Ok(Ok(FileReply::Done))
}

fn listing(vfs: &Vfs, folder: &str, detail: Detail) -> Result<Vec<Item>, Errno> {
    let mut items = Vec::new();
    let mut after = 0;
    loop {
        let (page, next) = vfs.items(folder, after, PAGE, detail)?;
        if next == after {
            break;
        }
        items.extend(page.into_iter().map(Item::from));
        after = next;
    }
    items.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(items)
}

async fn space(talk: &Talk<'_>) -> Answered {
    Ok(match talk.vfs.ask_space().await {
        Ok(quota) => Ok(FileReply::Space {
            total: (quota.total > 0).then_some(quota.total),
            used: quota.used,
        }),
        Err(error) => Err(api_refusal(&error)),
    })
}

async fn session(talk: &Talk<'_>) -> Answered {
    let (handle, answer) = talk.vfs.ask_who().await;
    let valid = match answer {
        Ok(()) => Some(true),
        Err(ApiError::SessionDead) => Some(false),
        Err(error) if error.class() == ErrorClass::Network => None,
        Err(error) => return Ok(Err(api_refusal(&error))),
    };
    Ok(Ok(FileReply::Session {
        handle,
        valid,
        kept_in: talk.vfs.session_kept_in(),
    }))
}

/// What Mega has refused, or why it could not be asked.
fn api_refusal(error: &ApiError) -> Refusal {
    if error.code() == Some(ErrorCode::Blocked) {
        return Refusal {
            code: Fault::Login,
            text: "Mega has blocked the account. Log in at mega.nz: it says why and what to do"
                .to_owned(),
        };
    }
    let (code, text) = match error.class() {
        ErrorClass::Network => (
            Fault::Network,
            format!("{error}. Check the network and try again"),
        ),
        ErrorClass::Session | ErrorClass::Credentials | ErrorClass::Account => (
            Fault::Login,
            format!("Mega does not take the session: {error}"),
        ),
        _ => (Fault::Failed, format!("Mega refused it: {error}")),
    };
    Refusal { code, text }
}
