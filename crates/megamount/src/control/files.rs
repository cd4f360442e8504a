//! What is said over the control socket about files: listings, content, changes.
//!
//! Paths begin at the account's root, without a leading slash. Content goes over the socket as it is:
//! to the client as `bytes` replies, each followed by so many bytes; to the daemon, after a `write`, as
//! pieces of four bytes of length and so many bytes, up to one of length 0. A client that goes away in the
//! middle has changed nothing. Everything that changes something is answered when Mega has it; how far it
//! is is told meanwhile.

use mega_vfs::{FileKind, Timestamp};
use serde::{Deserialize, Serialize};

/// The most bytes of a piece of content.
pub(crate) const PIECE: usize = 1 << 20;
/// Entries of a listing in one line.
pub(crate) const PAGE: usize = 500;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub(crate) enum FileAsk {
    /// What is at a path. Answered by `item`.
    Look {
        /// The path.
        path: String,
        /// With the checksums of files.
        #[serde(default)]
        checksums: bool,
    },
    /// The entries of a folder, or a file as the only one. Answered by `items`, again and again, then `done`.
    List {
        /// The path.
        path: String,
        /// How many levels of folders; none for all.
        #[serde(default)]
        depth: Option<u32>,
        /// With the checksums of files.
        #[serde(default)]
        checksums: bool,
    },
    /// Content of a file. Answered by `bytes`, again and again, then `done`.
    Read {
        /// The path.
        path: String,
        /// From here,
        offset: u64,
        /// so many bytes, if there are; none for all.
        #[serde(default)]
        length: Option<u64>,
    },
    /// A file from what the client sends. It appears under its name when it is complete, in place of what had
    /// that name. Answered by `progress`, again and again, then `done`, when Mega has it.
    Write {
        /// The path.
        path: String,
        /// How many bytes it has.
        size: u64,
        /// Its modification time: seconds since 1970, nanoseconds.
        mtime: (i64, u32),
        /// Whether it may be executed.
        #[serde(default)]
        executable: bool,
    },
    /// A symbolic link, in place of a link or file of that name. Answered as `write`.
    Link {
        /// The path.
        path: String,
        /// Where it points.
        target: String,
        /// Its modification time.
        mtime: (i64, u32),
    },
    /// A copy of a file, made by Mega where it can be. Answered as `write`.
    Clone {
        /// The path of the file.
        from: String,
        /// The path of the copy.
        to: String,
    },
    /// A folder. Answered as `write`.
    Make {
        /// The path.
        path: String,
        /// Also the folders it is in; and it may exist.
        parents: bool,
        /// Answer before Mega has it: something will be put into it.
        #[serde(default)]
        at_once: bool,
    },
    /// A file or folder goes to the rubbish bin, or for good, as the mount is told. Answered as `write`.
    Remove {
        /// The path.
        path: String,
        /// A folder with what is in it.
        recursive: bool,
        /// Only if it is this node still.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        handle: Option<String>,
    },
    /// Another name or place. Answered as `write`.
    Rename {
        /// The present path.
        from: String,
        /// The future path.
        to: String,
        /// Only if it is this node still.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        handle: Option<String>,
    },
    /// Waits until Mega has what is at these paths. Answered as `write`.
    Settle {
        /// The paths.
        paths: Vec<String>,
    },
    /// The account's storage. Answered by `space`.
    Space,
    /// Whose session it is. Answered by `session`.
    Session,
    /// The public link of a file or folder, made if there is none. Answered by `public-link`.
    PublicLink {
        /// The path.
        path: String,
        /// When it ends, seconds since 1970.
        #[serde(default)]
        expires: Option<i64>,
    },
    /// The end of a public link. Answered by `done`.
    EndLink {
        /// The path.
        path: String,
    },
    /// What is in the rubbish bin. Answered by `trash`.
    Trash,
    /// Something in the rubbish bin goes to a path. Answered as `write`.
    Restore {
        /// Its name in the bin.
        name: String,
        /// Where it goes.
        to: String,
    },
    /// The end of everything in the rubbish bin. Answered by `done`.
    EmptyTrash,
    /// Old versions of a file. Answered by `items`, newest first.
    Versions {
        /// The path.
        path: String,
    },
    /// An old version becomes the present one. Answered as `write`.
    Revert {
        /// The path.
        path: String,
        /// The handle of the version.
        handle: String,
    },
    /// Old versions of a file, or of all files below a folder, are deleted for good. Answered by `pruned`.
    Prune {
        /// The path.
        path: String,
        /// So many of each file stay.
        keep: usize,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub(crate) enum FileReply {
    /// What is there.
    Item {
        /// Its description.
        item: Item,
    },
    /// Entries of one folder, sorted by name.
    Items {
        /// The folder.
        folder: String,
        /// Some of its entries.
        items: Vec<Item>,
    },
    /// So many bytes follow.
    Bytes {
        /// How many.
        length: usize,
    },
    /// How far an upload is.
    Progress {
        /// Bytes that Mega has.
        sent: u64,
    },
    /// It is complete.
    Done,
    /// Whose session it is.
    Session {
        /// The account's handle.
        handle: String,
        /// Whether Mega takes it; none when it could not be asked.
        valid: Option<bool>,
        /// Where it is kept, in words; empty from a mount of before they were said.
        #[serde(default)]
        kept_in: String,
    },
    /// A public link.
    PublicLink {
        /// The address.
        url: String,
    },
    /// What is in the rubbish bin.
    Trash {
        /// Each with the folder it was in, if that is known and still there.
        entries: Vec<(Item, Option<String>)>,
    },
    /// Old versions are gone.
    Pruned {
        /// How many.
        count: usize,
    },
    /// The account's storage, bytes.
    Space {
        /// What the account has, if Mega told.
        total: Option<u64>,
        /// What is used.
        used: u64,
    },
}

/// A file or folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Item {
    /// Its name; empty for the root.
    pub(crate) name: String,
    /// Its name without the number that tells it from others of its name, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) plain: Option<String>,
    /// Its place in the order of arrival in its folder.
    #[serde(default)]
    pub(crate) order: u64,
    /// What it is.
    pub(crate) kind: Kind,
    /// Bytes; 0 for folders.
    pub(crate) size: u64,
    /// Modification time: seconds since 1970, nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// Its handle on Mega; none while Mega does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) handle: Option<String>,
    /// It may be executed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) executable: bool,
    /// Mega does not have it yet as it is here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) pending: bool,
    /// The key is not known: neither name nor content can be read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) locked: bool,
    /// Checksum and modification time, as Mega's clients keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fingerprint: Option<String>,
    /// The content's MAC, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mac: Option<String>,
}

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
}

impl Item {
    /// Its name without a number.
    pub(crate) fn plain_name(&self) -> &str {
        self.plain.as_deref().unwrap_or(&self.name)
    }

    /// Whether it is a folder.
    pub(crate) fn is_folder(&self) -> bool {
        self.kind == Kind::Folder
    }
}

impl From<mega_vfs::Item> for Item {
    fn from(item: mega_vfs::Item) -> Self {
        let Timestamp { secs, nanos } = item.mtime;
        Self {
            name: item.name,
            plain: item.plain_name,
            order: item.order,
            kind: match item.kind {
                FileKind::File => Kind::File,
                FileKind::Directory => Kind::Folder,
                FileKind::Symlink => Kind::Link,
            },
            size: item.size,
            mtime: (secs, nanos),
            handle: item.handle.map(|handle| handle.to_string()),
            executable: item.is_executable,
            pending: item.is_pending,
            locked: !item.is_readable,
            fingerprint: item.fingerprint,
            mac: item.mac.map(|mac| {
                let hex = mac.iter().map(|byte| format!("{byte:02x}"));
                hex.collect()
            }),
        }
    }
}

/// A path from its folder and its name.
pub(crate) fn joined(folder: &str, name: &str) -> String {
    match (folder, name) {
        ("", name) => name.to_owned(),
        (folder, "") => folder.to_owned(),
        (folder, name) => format!("{folder}/{name}"),
    }
}

/// The folder and the name of a path.
pub(crate) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_and_split() {
        assert_eq!(joined("", "a"), "a");
        assert_eq!(joined("a/b", "c"), "a/b/c");
        assert_eq!(joined("a", ""), "a");
        assert_eq!(split("a/b/c"), ("a/b", "c"));
        assert_eq!(split("a"), ("", "a"));
    }
}
