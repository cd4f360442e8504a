//! mega-vfs behind the kernel's FUSE interface.
//!
//! Owns the translation between fuser's types and those of mega-vfs, and how operations run
//! ([`drive`]). Decides nothing about what an operation means. Called by fuser's loops, of which
//! there are few: none may ever wait, and none may ever see a panic (two lost loops hang the mount).
//!
//! Not negotiated with the kernel, on purpose: POSIX and BSD locks (the kernel then locks locally),
//! the writeback cache (the kernel would own size and mtime), and everything that fuser 0.18 lists
//! without supporting (`SETXATTR_EXT` for one makes its loop panic).

mod convert;
mod drive;
mod listing;
mod notifier;

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use mega_vfs::{
    CopyRange, Entry, FsyncMode, Lookup, OpResult, OpenMode, Opened, OpenedDirectory, SetAttr, Vfs,
};
use tokio::runtime::Handle;
use tokio::sync::watch;

pub(crate) use notifier::Notices;

use convert::{errno, file_attr, open_mode, rename_mode, timestamp, write_at};
use drive::{Kind, Op};

/// What is asked of the kernel, each only where it has it. limits.md section 4 has the reasons.
const CAPABILITIES: &[InitFlags] = &[
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_BIG_WRITES,
    InitFlags::FUSE_MAX_PAGES,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_CACHE_SYMLINKS,
];

/// Read-ahead requests under way at a time; the default of 16 starves parallel readers of files
/// that are far away.
const MAX_BACKGROUND: u16 = 64;

/// An inode number is never given out for another node, so generations are not needed.
const GENERATION: Generation = Generation(0);

/// The FUSE side of one mount.
pub(crate) struct Adaptor {
    vfs: Arc<Vfs>,
    runtime: Handle,
    /// After this long an application gets ETIMEDOUT, whatever happens.
    deadline: Duration,
    ended: Ended,
}

/// Says that fuser's loops have ended, by being dropped with the adaptor.
#[derive(Debug)]
struct Ended(watch::Sender<bool>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

impl Adaptor {
    /// An adaptor for `vfs`, whose operations continue on `runtime`. The receiver turns true when
    /// the kernel has let go of the file system.
    pub(crate) fn new(
        vfs: Arc<Vfs>,
        runtime: Handle,
        deadline: Duration,
    ) -> (Self, watch::Receiver<bool>) {
        let (sender, ended) = watch::channel(false);
        (
            Self {
                vfs,
                runtime,
                deadline,
                ended: Ended(sender),
            },
            ended,
        )
    }

    fn op(&self, req: &Request, name: &'static str, ino: INodeNo, kind: Kind) -> Op {
        Op::new(req, name, ino.0, kind, self.deadline)
    }

    fn kind_of_sync(&self) -> Kind {
        match self.vfs.fsync_mode() {
            FsyncMode::Disk => Kind::Sync,
            FsyncMode::Cloud => Kind::Push,
        }
    }
}

/// Answers with an entry, or the error.
fn reply_entry(reply: ReplyEntry, result: OpResult<Entry>) {
    match result {
        Ok(entry) => reply.entry(&entry.ttl, &file_attr(&entry.attr), GENERATION),
        Err(error) => reply.error(errno(error)),
    }
}

fn reply_attr(reply: ReplyAttr, result: OpResult<Entry>) {
    match result {
        Ok(entry) => reply.attr(&entry.ttl, &file_attr(&entry.attr)),
        Err(error) => reply.error(errno(error)),
    }
}

fn reply_empty(reply: ReplyEmpty, result: OpResult<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

/// Answers as the size protocol of getxattr(2) wants it: the size only, or the bytes if they fit.
fn reply_xattr(reply: ReplyXattr, size: u32, result: OpResult<Vec<u8>>) {
    match result {
        Ok(value) => match u32::try_from(value.len()) {
            Ok(length) if size == 0 => reply.size(length),
            Ok(length) if length <= size => reply.data(&value),
            _ => reply.error(Errno::ERANGE),
        },
        Err(error) => reply.error(errno(error)),
    }
}

/// The flags of an answer to open or create.
fn fopen_flags(opened: Opened, mode: OpenMode) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    if opened.keep_cache {
        flags |= FopenFlags::FOPEN_KEEP_CACHE;
    }
    if opened.is_direct {
        flags |= FopenFlags::FOPEN_DIRECT_IO;
    }
    if !mode.write {
        // Saves the flush of a close that has nothing to say.
        flags |= FopenFlags::FOPEN_NOFLUSH;
    }
    flags
}

/// The flags of an answer to opendir.
fn directory_flags(opened: OpenedDirectory) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    if opened.may_cache {
        flags |= FopenFlags::FOPEN_CACHE_DIR;
    }
    if opened.keep_cache {
        flags |= FopenFlags::FOPEN_KEEP_CACHE;
    }
    flags
}

impl Filesystem for Adaptor {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for capability in CAPABILITIES {
            if config.add_capabilities(*capability).is_err() {
                tracing::debug!(?capability, "not offered by this kernel");
            }
        }
        // Any positive value is accepted.
        let _ = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn destroy(&mut self) {
        self.ended.0.send_replace(true);
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (vfs, late, name) = (
            Arc::clone(&self.vfs),
            Arc::clone(&self.vfs),
            name.to_owned(),
        );
        self.run(
            self.op(req, "lookup", parent, Kind::Query),
            async move { vfs.lookup(parent.0, &name).await },
            move |result| match result {
                Ok(Lookup::Missing { ttl }) => {
                    reply.entry(&ttl, &convert::absent(), GENERATION);
                }
                Ok(Lookup::Found(entry)) => reply_entry(reply, Ok(entry)),
                Err(error) => reply.error(errno(error)),
            },
            move |unheard| {
                if let Lookup::Found(entry) = unheard {
                    late.forget(entry.attr.ino, 1);
                }
            },
        );
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        drive::guarded("forget", || self.vfs.forget(ino.0, nlookup));
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let vfs = Arc::clone(&self.vfs);
        self.run(
            self.op(req, "getattr", ino, Kind::Query),
            async move { vfs.getattr(ino.0).await },
            move |result| reply_attr(reply, result),
            drop,
        );
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let wanted = SetAttr {
            size,
            mode,
            uid,
            gid,
            atime: atime.map(timestamp),
            mtime: mtime.map(timestamp),
        };
        let vfs = Arc::clone(&self.vfs);
        self.run(
            self.op(req, "setattr", ino, Kind::Change),
            async move {
                vfs.setattr(ino.0, wanted).await?;
                vfs.getattr(ino.0).await
            },
            move |result| reply_attr(reply, result),
            drop,
        );
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        let vfs = Arc::clone(&self.vfs);
        self.run(
            self.op(req, "readlink", ino, Kind::Query),
            async move { vfs.readlink(ino.0).await },
            move |result| match result {
                Ok(target) => reply.data(&target),
                Err(error) => reply.error(errno(error)),
            },
            drop,
        );
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let (vfs, name) = (Arc::clone(&self.vfs), name.to_owned());
        let make = async move { vfs.mknod(parent.0, &name, mode).await };
        self.run_making(self.op(req, "mknod", parent, Kind::Change), make, reply);
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let (vfs, name) = (Arc::clone(&self.vfs), name.to_owned());
        let make = async move { vfs.mkdir(parent.0, &name, mode).await };
        self.run_making(self.op(req, "mkdir", parent, Kind::Change), make, reply);
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let (vfs, name) = (Arc::clone(&self.vfs), link_name.to_owned());
        let target = target.as_os_str().to_owned();
        let make = async move { vfs.symlink(parent.0, &name, &target).await };
        self.run_making(self.op(req, "symlink", parent, Kind::Change), make, reply);
    }

    fn link(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _newparent: INodeNo,
        _newname: &OsStr,
        reply: ReplyEntry,
    ) {
        // "The file system does not support hard links": git, tar and cp fall back to copying.
        reply.error(Errno::EPERM);
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (vfs, name) = (Arc::clone(&self.vfs), name.to_owned());
        self.run(
            self.op(req, "unlink", parent, Kind::Change),
            async move { vfs.unlink(parent.0, &name).await },
            move |result| reply_empty(reply, result),
            drop,
        );
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (vfs, name) = (Arc::clone(&self.vfs), name.to_owned());
        self.run(
            self.op(req, "rmdir", parent, Kind::Change),
            async move { vfs.rmdir(parent.0, &name).await },
            move |result| reply_empty(reply, result),
            drop,
        );
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let Some(mode) = rename_mode(flags) else {
            return reply.error(Errno::EINVAL);
        };
        let (vfs, name, newname) = (Arc::clone(&self.vfs), name.to_owned(), newname.to_owned());
        self.run(
            self.op(req, "rename", parent, Kind::Change),
            async move {
                vfs.rename(parent.0, &name, newparent.0, &newname, mode)
                    .await
            },
            move |result| reply_empty(reply, result),
            drop,
        );
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (vfs, late) = (Arc::clone(&self.vfs), Arc::clone(&self.vfs));
        let (mode, runtime) = (open_mode(flags.0), self.runtime.clone());
        self.run(
            self.op(req, "open", ino, Kind::Change),
            async move { vfs.open(ino.0, mode).await },
            move |result| match result {
                Ok(opened) => reply.opened(FileHandle(opened.fh), fopen_flags(opened, mode)),
                Err(error) => reply.error(errno(error)),
            },
            move |unheard| drive::release_late(&runtime, late, ino.0, unheard.fh),
        );
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (vfs, late) = (Arc::clone(&self.vfs), Arc::clone(&self.vfs));
        let (name, open, runtime) = (name.to_owned(), open_mode(flags), self.runtime.clone());
        self.run(
            self.op(req, "create", parent, Kind::Change),
            async move { vfs.create(parent.0, &name, mode, open).await },
            move |result| match result {
                Ok((entry, opened)) => reply.created(
                    &entry.ttl,
                    &file_attr(&entry.attr),
                    GENERATION,
                    FileHandle(opened.fh),
                    fopen_flags(opened, open),
                ),
                Err(error) => reply.error(errno(error)),
            },
            move |(entry, opened)| {
                drive::release_late(&runtime, Arc::clone(&late), entry.attr.ino, opened.fh);
                late.forget(entry.attr.ino, 1);
            },
        );
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let vfs = Arc::clone(&self.vfs);
        self.run(
            self.op(req, "read", ino, Kind::Query)
                .at(fh.0, offset, u64::from(size)),
            async move { vfs.read(ino.0, fh.0, offset, size).await },
            move |result| match result {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => reply.error(errno(error)),
            },
            drop,
        );
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let op = self
            .op(req, "write", ino, Kind::Change)
            .at(fh.0, offset, data.len() as u64);
        let answer = move |result: OpResult<u32>| match result {
            Ok(written) => reply.written(written),
            Err(error) => reply.error(errno(error)),
        };
        // The data is in fuser's buffer. Writes that need not wait, which is nearly all, are
        // answered without copying it; a write that waits has done nothing yet and is begun anew
        // with a copy that it can keep.
        let at = write_at(offset, write_flags, flags.0);
        let inline = self.vfs.write(ino.0, fh.0, at, data);
        if let Some(result) = self.try_now(&op, inline) {
            return answer(result);
        }
        let (vfs, data) = (Arc::clone(&self.vfs), data.to_vec());
        self.run(
            op,
            async move { vfs.write(ino.0, fh.0, at, &data).await },
            answer,
            drop,
        );
    }

    fn flush(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let vfs = Arc::clone(&self.vfs);
        self.run(
            self.op(req, "flush", ino, Kind::Change).at(fh.0, 0, 0),
            async move { vfs.flush(ino.0, fh.0).await },
            move |result| reply_empty(reply, result),
            drop,
        );
    }

    fn release(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let vfs = Arc::clone(&self.vfs);
        self.run(
            self.op(req, "release", ino, Kind::Change).at(fh.0, 0, 0),
            async move { vfs.release(ino.0, fh.0).await },
            move |result| reply_empty(reply, result),
            drop,
        );
    }

    fn fsync(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        let vfs = Arc::clone(&self.vfs);
        self.run(
            self.op(req, "fsync", ino, self.kind_of_sync())
                .at(fh.0, 0, 0),
            async move { vfs.fsync(ino.0, fh.0, datasync).await },
            move |result| reply_empty(reply, result),
            drop,
        );
    }

    fn opendir(&self, req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let (vfs, late) = (Arc::clone(&self.vfs), Arc::clone(&self.vfs));
        let runtime = self.runtime.clone();
        self.run(
            self.op(req, "opendir", ino, Kind::Change),
            async move { vfs.opendir(ino.0).await },
            move |result| match result {
                Ok(opened) => reply.opened(FileHandle(opened.fh), directory_flags(opened)),
                Err(error) => reply.error(errno(error)),
            },
            move |unheard| drive::releasedir_late(&runtime, late, unheard.fh),
        );
    }

    fn readdir(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let op = self
            .op(req, "readdir", ino, Kind::Query)
            .at(fh.0, offset, 0);
        let fill = listing::plain(Arc::clone(&self.vfs), ino.0, fh.0, offset, reply);
        self.run(op, fill, listing::answer_plain, drop);
    }

    fn readdirplus(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let op = self
            .op(req, "readdirplus", ino, Kind::Query)
            .at(fh.0, offset, 0);
        let fill = listing::plus(Arc::clone(&self.vfs), ino.0, fh.0, offset, reply);
        self.run(op, fill, listing::answer_plus, drop);
    }

    fn releasedir(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let vfs = Arc::clone(&self.vfs);
        self.run(
            self.op(req, "releasedir", ino, Kind::Change).at(fh.0, 0, 0),
            async move { vfs.releasedir(fh.0).await },
            move |result| reply_empty(reply, result),
            drop,
        );
    }

    fn fsyncdir(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let vfs = Arc::clone(&self.vfs);
        self.run(
            self.op(req, "fsyncdir", ino, self.kind_of_sync()),
            async move { vfs.fsyncdir(ino.0).await },
            move |result| reply_empty(reply, result),
            drop,
        );
    }

    fn statfs(&self, req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let vfs = Arc::clone(&self.vfs);
        self.run(
            self.op(req, "statfs", ino, Kind::Query),
            async move { vfs.statfs().await },
            move |result| match result {
                Ok(s) => reply.statfs(
                    s.blocks, s.bfree, s.bavail, s.files, s.ffree, s.bsize, s.namelen, s.bsize,
                ),
                Err(error) => reply.error(errno(error)),
            },
            drop,
        );
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (vfs, name, value) = (Arc::clone(&self.vfs), name.to_owned(), value.to_vec());
        self.run(
            self.op(req, "setxattr", ino, Kind::Change),
            async move { vfs.setxattr(ino.0, &name, &value, flags).await },
            move |result| reply_empty(reply, result),
            drop,
        );
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        // The kernel asks for this one before each write (there is no way to tell it not to with
        // fuser 0.18, which must not take HANDLE_KILLPRIV_V2), and nothing here ever has it.
        if name == "security.capability" {
            return reply.error(Errno::ENODATA);
        }
        // `ls -l` asks each file for labels and access lists, until it is told that there are none here.
        if !name.as_encoded_bytes().starts_with(b"user.") {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let (vfs, name) = (Arc::clone(&self.vfs), name.to_owned());
        self.run(
            self.op(req, "getxattr", ino, Kind::Query),
            async move { vfs.getxattr(ino.0, &name).await },
            move |result| reply_xattr(reply, size, result),
            drop,
        );
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let vfs = Arc::clone(&self.vfs);
        self.run(
            self.op(req, "listxattr", ino, Kind::Query),
            async move {
                vfs.listxattr(ino.0)
                    .await
                    .map(|names| convert::xattr_list(&names))
            },
            move |result| reply_xattr(reply, size, result),
            drop,
        );
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (vfs, name) = (Arc::clone(&self.vfs), name.to_owned());
        self.run(
            self.op(req, "removexattr", ino, Kind::Change),
            async move { vfs.removexattr(ino.0, &name).await },
            move |result| reply_empty(reply, result),
            drop,
        );
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: fuser::IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        // lsattr, chattr and editors ask; "not a thing for this file" is the quiet answer.
        reply.error(Errno::ENOTTY);
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let vfs = Arc::clone(&self.vfs);
        self.run(
            self.op(req, "fallocate", ino, Kind::Change)
                .at(fh.0, offset, length),
            async move { vfs.fallocate(ino.0, fh.0, offset, length, mode).await },
            move |result| reply_empty(reply, result),
            drop,
        );
    }

    fn lseek(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let vfs = Arc::clone(&self.vfs);
        self.run(
            self.op(req, "lseek", ino, Kind::Query)
                .at(fh.0, offset.max(0) as u64, 0),
            async move { vfs.lseek(ino.0, fh.0, offset, whence).await },
            move |result| match result {
                Ok(offset) => reply.offset(offset),
                Err(error) => reply.error(errno(error)),
            },
            drop,
        );
    }

    fn copy_file_range(
        &self,
        req: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: fuser::CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let vfs = Arc::clone(&self.vfs);
        // The answer has 32 bits; the application asks again for the rest.
        let length = len.min(u64::from(!0xfff_u32));
        let range = CopyRange {
            fh_in: fh_in.0,
            offset_in,
            fh_out: fh_out.0,
            offset_out,
            length,
        };
        self.run(
            self.op(req, "copy_file_range", ino_out, Kind::Change)
                .at(fh_out.0, offset_out, length),
            async move { vfs.copy_file_range(range).await },
            move |result| match result {
                Ok(copied) => reply.written(u32::try_from(copied).unwrap_or(u32::MAX)),
                Err(error) => reply.error(errno(error)),
            },
            drop,
        );
    }
}

impl Adaptor {
    /// Runs an operation that makes an entry; one that nobody hears of any more is forgotten.
    fn run_making<F>(&self, op: Op, make: F, reply: ReplyEntry)
    where
        F: Future<Output = OpResult<Entry>> + Send + 'static,
    {
        let late = Arc::clone(&self.vfs);
        self.run(
            op,
            make,
            move |result| reply_entry(reply, result),
            move |unheard: Entry| late.forget(unheard.attr.ino, 1),
        );
    }
}
