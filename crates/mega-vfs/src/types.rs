//! What the adaptor and the file system say to each other: plain values, no kernel library types.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;

use crate::tree_load::Loading;

/// Result of an operation; the error goes to the application as it is.
pub type OpResult<T> = Result<T, Errno>;

/// A point in time as `stat` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Seconds since 1970, may be negative.
    pub secs: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanos: u32,
}

impl Timestamp {
    /// The current time.
    #[must_use]
    pub fn now() -> Self {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Self {
                secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                nanos: since.subsec_nanos(),
            },
            Err(_) => Self::default(),
        }
    }

    /// A whole second.
    #[must_use]
    pub fn from_secs(secs: i64) -> Self {
        Self { secs, nanos: 0 }
    }

    /// `<seconds>.<nanoseconds>`, as kept in change rows.
    #[must_use]
    pub fn to_text(self) -> String {
        format!("{}.{:09}", self.secs, self.nanos)
    }

    /// The inverse of [`Timestamp::to_text`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (secs, nanos) = text.split_once('.')?;
        Some(Self {
            secs: secs.parse().ok()?,
            nanos: nanos.parse().ok()?,
        })
    }
}

/// Milliseconds since 1970, for due times in the queue.
pub(crate) fn now_ms() -> i64 {
    let now = Timestamp::now();
    now.secs
        .saturating_mul(1000)
        .saturating_add(i64::from(now.nanos / 1_000_000))
}

/// Kinds of inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
}

/// What `stat` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// 512-byte blocks; always covers `size`, so that copying tools see no holes.
    pub blocks: u64,
    /// Access time as last set; the modification time when it was not.
    pub atime: Timestamp,
    /// Modification time.
    pub mtime: Timestamp,
    /// Change time: the latest of the modification time, the server's creation time and the last
    /// change made here.
    pub ctime: Timestamp,
    /// Kind.
    pub kind: FileKind,
    /// Permission bits.
    pub perm: u16,
    /// Link count: 0 once the name is gone. A directory has 2 and one for each directory in it, or,
    /// where nobody has counted them, 1, which tools take for "not known".
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Attributes with the time the kernel may keep them.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Attributes.
    pub attr: Attr,
    /// Cache time for name and attributes.
    pub ttl: Duration,
}

/// Answer of `lookup`.
#[derive(Debug, Clone, Copy)]
pub enum Lookup {
    /// It exists; one kernel reference was counted.
    Found(Entry),
    /// It does not; the kernel may remember that for `ttl`.
    Missing {
        /// Cache time for the absence.
        ttl: Duration,
    },
}

/// What `setattr` asks for; `None` leaves a value as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAttr {
    /// New length.
    pub size: Option<u64>,
    /// New permission bits; only the owner's execute bit is kept.
    pub mode: Option<u32>,
    /// New owner; only the present one is accepted.
    pub uid: Option<u32>,
    /// New group; only the present one is accepted.
    pub gid: Option<u32>,
    /// New access time; shown until the kernel forgets the inode, never sent to the server.
    pub atime: Option<Timestamp>,
    /// New modification time.
    pub mtime: Option<Timestamp>,
}

/// Flags of `open`.
#[derive(Debug, Clone, Copy, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "these are the independent bits of open(2)"
)]
pub struct OpenMode {
    /// Opened for reading.
    pub read: bool,
    /// Opened for writing.
    pub write: bool,
    /// `O_TRUNC`.
    pub truncate: bool,
    /// `O_EXCL`.
    pub exclusive: bool,
}

/// Where the bytes of a write go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteAt {
    /// At this offset.
    Offset(u64),
    /// At the end of the file as it is when the write happens (`O_APPEND`).
    End,
}

/// Answer of `open` and `create`.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    /// Handle number.
    pub fh: u64,
    /// The kernel may keep the pages it has: the content is what it was.
    pub keep_cache: bool,
    /// The kernel must ask for every read, whatever length it knows.
    pub is_direct: bool,
}

/// Answer of `opendir`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenedDirectory {
    /// Handle number.
    pub fh: u64,
    /// The kernel may show the listing again until it is told otherwise.
    pub may_cache: bool,
    /// The listing that the kernel has is the present one.
    pub keep_cache: bool,
}

/// One line of a directory listing.
#[derive(Debug, Clone)]
pub struct DirEntry {
    /// Inode number.
    pub ino: u64,
    /// Offset to continue after this entry.
    pub next_offset: u64,
    /// Kind.
    pub kind: FileKind,
    /// Name.
    pub name: OsString,
    /// Attributes for readdirplus.
    pub entry: Entry,
}

impl DirEntry {
    /// Whether the kernel counts it as a reference when it comes with attributes.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.name != "." && self.name != ".." && crate::dot_mega::Virtual::of(self.ino).is_none()
    }
}

/// How a rename treats an existing target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameMode {
    /// Replace it.
    Replace,
    /// `RENAME_NOREPLACE`.
    NoReplace,
    /// `RENAME_EXCHANGE`.
    Exchange,
}

/// Answer of `statfs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatFs {
    /// Total size in `bsize` units.
    pub blocks: u64,
    /// Free units.
    pub bfree: u64,
    /// Free units for users.
    pub bavail: u64,
    /// Inodes (not limited on Mega: a large constant).
    pub files: u64,
    /// Free inodes.
    pub ffree: u64,
    /// Unit in bytes.
    pub bsize: u32,
    /// Longest name in bytes.
    pub namelen: u32,
}

/// Tells the kernel to drop what it caches. Called from a thread of its own with no lock held.
pub trait KernelNotifier: Send + Sync {
    /// The name `name` in `parent` (or its absence) must be asked again.
    fn entry(&self, parent: u64, name: &std::ffi::OsStr);
    /// Attributes and pages of `ino` must be asked again.
    fn inode(&self, ino: u64);
    /// `child` is gone from `parent`.
    fn delete(&self, parent: u64, child: u64, name: &std::ffi::OsStr);
}

/// What becomes of the content that new content replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Versions {
    /// It is an old version of the file.
    #[default]
    Keep,
    /// It goes where removed files go.
    Replace,
}

/// Where data is safe when `fsync` returns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FsyncMode {
    /// On stable storage of this machine.
    #[default]
    Disk,
    /// On Mega.
    Cloud,
}

/// Settings of one mount.
#[derive(Debug, Clone)]
pub struct VfsConfig {
    /// How names are compared. Unless byte by byte, `attr_ttl` must be zero: one entry has several names.
    pub naming: crate::Naming,
    /// Refuse every change with EROFS.
    pub read_only: bool,
    /// Owner shown for everything.
    pub uid: u32,
    /// Group shown for everything.
    pub gid: u32,
    /// Permission bits of files, umask applied; execute bits come from the node.
    pub file_perm: u16,
    /// Permission bits of directories, umask applied.
    pub dir_perm: u16,
    /// Delete for good instead of moving to the rubbish bin.
    pub hard_delete: bool,
    /// What becomes of replaced content.
    pub versions: Versions,
    /// Time from the last close of a changed file to its upload.
    pub write_back: Duration,
    /// A file that is written without pause is uploaded after this time all the same.
    pub write_back_max: Duration,
    /// How long the kernel may keep names and attributes while the event channel is up.
    pub attr_ttl: Duration,
    /// Where data is safe when `fsync` returns.
    pub fsync: FsyncMode,
    /// Uploads at a time.
    pub uploads: usize,
    /// Deadline of anything that waits for the network.
    pub timeout: Duration,
    /// Folder to show as the root, `/`-separated, empty for the account's root.
    pub sub_path: String,
    /// How many directory entries may be kept decrypted in memory.
    pub entry_budget: usize,
    /// Told how far a load of the whole tree is.
    pub loading: Arc<Loading>,
}

impl Default for VfsConfig {
    fn default() -> Self {
        Self {
            read_only: false,
            uid: 0,
            gid: 0,
            file_perm: 0o644,
            dir_perm: 0o755,
            hard_delete: false,
            versions: Versions::Keep,
            write_back: Duration::from_secs(5),
            write_back_max: Duration::from_secs(300),
            naming: crate::Naming::default(),
            attr_ttl: Duration::from_secs(60),
            fsync: FsyncMode::Disk,
            uploads: 4,
            timeout: Duration::from_secs(60),
            sub_path: String::new(),
            entry_budget: 200_000,
            loading: Arc::default(),
        }
    }
}
