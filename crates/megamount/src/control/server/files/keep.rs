//! Public links, the rubbish bin, old versions.

use std::ffi::OsStr;

use mega_api::ApiError;
use mega_proto::{ErrorCode, NodeHandle};
use mega_vfs::{AskError, Detail, FileKind, RenameMode};
use rustix::io::Errno;

use super::{Answered, Refusal, Talk, api_refusal, change, settle, write};
use crate::control::files::{FileReply, Item};
use crate::control::protocol::Fault;

fn failed(text: String) -> Refusal {
    Refusal {
        code: Fault::Failed,
        text,
    }
}

impl Talk<'_> {
    /// The node at a path, once Mega has it.
    async fn node(&mut self, path: &str) -> std::io::Result<Result<NodeHandle, Refusal>> {
        let settled = settle::paths(self, &[path.to_owned()]).await?;
        if let Err(refusal) = settled {
            return Ok(Err(refusal));
        }
        let asked = path.to_owned();
        let item = self
            .look(move |vfs| vfs.item(&asked, Detail::Listing))
            .await?;
        Ok(match item {
            Ok(item) => item
                .handle
                .ok_or_else(|| failed(format!("'{path}' is not on Mega yet. Try again"))),
            Err(errno) => Err(self.refusal(path, errno)),
        })
    }

    fn ask_refusal(&self, path: &str, error: &AskError) -> Refusal {
        match error {
            AskError::Local(Errno::FBIG) => failed(format!(
                "there is too much in '{path}' for one request. Make the link at mega.nz"
            )),
            AskError::Local(errno) => self.refusal(path, *errno),
            AskError::Api(error) => api_refusal(error),
        }
    }
}

/// The public link of a file or folder.
pub(super) async fn link(talk: &mut Talk<'_>, path: &str, expires: Option<i64>) -> Answered {
    let handle = match talk.node(path).await? {
        Ok(handle) => handle,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let linked = Box::pin(talk.vfs.link(handle, expires)).await;
    Ok(match linked {
        Ok(url) => Ok(FileReply::PublicLink { url }),
        Err(error) => Err(talk.ask_refusal(path, &error)),
    })
}

/// The end of it.
pub(super) async fn end_link(talk: &mut Talk<'_>, path: &str) -> Answered {
    let handle = match talk.node(path).await? {
        Ok(handle) => handle,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let ended = Box::pin(talk.vfs.unlink_public(handle)).await;
    Ok(match ended {
        Ok(()) => Ok(FileReply::Done),
        Err(AskError::Api(ApiError::Refused(ErrorCode::Access | ErrorCode::NotFound))) => {
            Err(failed(format!("'{path}' has no public link")))
        }
        Err(error) => Err(talk.ask_refusal(path, &error)),
    })
}

/// What is in the rubbish bin.
pub(super) async fn trash(talk: &mut Talk<'_>) -> Answered {
    let found = talk.look(mega_vfs::Vfs::rubbish).await?;
    Ok(match found {
        Ok(found) => {
            let entries = found
                .into_iter()
                .map(|rubbish| (Item::from(rubbish.item), rubbish.origin))
                .collect();
            Ok(FileReply::Trash { entries })
        }
        Err(errno) => Err(talk.refusal("the rubbish bin", errno)),
    })
}

/// Something comes back.
pub(super) async fn restore(talk: &mut Talk<'_>, name: &str, to: &str) -> Answered {
    let (parent, new_name) = match talk.parent(to) {
        Ok(place) => place,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let bin = match talk.vfs.rubbish_bin() {
        Ok(bin) => bin,
        Err(errno) => return Ok(Err(talk.refusal("the rubbish bin", errno))),
    };
    let held = match change::present(talk, &bin, name).await {
        Ok(Some(held)) => held,
        Ok(None) => {
            return Ok(Err(Refusal {
                code: Fault::Absent,
                text: format!(
                    "there is no '{name}' in the rubbish bin. 'megamount trash list' shows what there is"
                ),
            }));
        }
        Err(errno) => return Ok(Err(talk.change_refusal(name, errno))),
    };
    let (old, new) = (OsStr::new(name), OsStr::new(new_name));
    let renamed = talk
        .vfs
        .rename(bin.ino(), old, parent.ino(), new, RenameMode::NoReplace)
        .await;
    if let Err(errno) = renamed {
        return Ok(Err(talk.change_refusal(to, errno)));
    }
    talk.vfs.tell(parent.ino(), new_name, Some(held.ino()));
    settle::inodes(talk, to, vec![held.ino()]).await
}

/// The end of everything in the bin.
pub(super) async fn empty(talk: &mut Talk<'_>) -> Answered {
    let emptied = Box::pin(talk.vfs.empty_rubbish()).await;
    Ok(match emptied {
        Ok(()) => Ok(FileReply::Done),
        Err(error) => Err(talk.ask_refusal("the rubbish bin", &error)),
    })
}

/// Old versions of a file.
pub(super) async fn versions(talk: &mut Talk<'_>, path: &str) -> Answered {
    let asked = path.to_owned();
    let found = talk
        .look(move |vfs| {
            let item = vfs.item(&asked, Detail::Listing)?;
            if item.kind != FileKind::File {
                return Err(Errno::ISDIR);
            }
            let handle = item.handle;
            handle.map_or(Ok(Vec::new()), |handle| vfs.old_versions(handle))
        })
        .await?;
    Ok(match found {
        Ok(found) => Ok(FileReply::Items {
            folder: path.to_owned(),
            items: found.into_iter().map(Item::from).collect(),
        }),
        Err(errno) => Err(talk.refusal(path, errno)),
    })
}

/// An old version becomes the present one, which becomes an old one.
pub(super) async fn revert(talk: &mut Talk<'_>, path: &str, handle: &str) -> Answered {
    let source = handle
        .parse()
        .map_err(|_| Errno::NOENT)
        .and_then(|handle| talk.vfs.version(handle));
    match source {
        Ok(source) => write::clone_of(talk, path, source, path).await,
        Err(errno) => Ok(Err(talk.refusal(path, errno))),
    }
}

/// Old versions at and below a path are deleted.
pub(super) async fn prune(talk: &mut Talk<'_>, path: String, keep: usize) -> Answered {
    let whole = path.clone();
    let files = talk
        .look(move |vfs| {
            let found = vfs.below(&whole)?;
            let files = found.iter().filter(|(_, held)| !held.is_folder());
            let items = files.map(|(path, _)| {
                let item = vfs.item(path, Detail::Listing)?;
                Ok((path.clone(), item.handle))
            });
            items.collect::<Result<Vec<_>, Errno>>()
        })
        .await?;
    let files = match files {
        Ok(files) => files,
        Err(errno) => return Ok(Err(talk.refusal(&path, errno))),
    };
    let mut count = 0;
    for (path, handle) in files {
        let Some(handle) = handle else { continue };
        match Box::pin(talk.vfs.prune(handle, keep)).await {
            Ok(gone) => count += gone,
            Err(error) => return Ok(Err(talk.ask_refusal(&path, &error))),
        }
    }
    Ok(Ok(FileReply::Pruned { count }))
}
