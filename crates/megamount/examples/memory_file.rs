//! The limit of warm reads: a file system of one file that is in memory, served by the same library with the
//! same settings, and doing nothing else. For `scripts/bench read`.
//!
//!     memory_file MOUNTPOINT MIB
//!
//! Serves `MOUNTPOINT/file` until it is unmounted.

#![allow(missing_docs)]

use std::error::Error;
use std::ffi::OsStr;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEntry,
    ReplyOpen, Request, Session,
};

const TTL: Duration = Duration::from_secs(3600);
const FILE: INodeNo = INodeNo(2);

struct Memory(Vec<u8>);

impl Memory {
    fn attr(&self, ino: INodeNo) -> FileAttr {
        let is_file = ino == FILE;
        FileAttr {
            ino,
            size: if is_file { self.0.len() as u64 } else { 0 },
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_file {
                FileType::RegularFile
            } else {
                FileType::Directory
            },
            perm: 0o755,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Memory {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        for capability in [
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_BIG_WRITES,
            InitFlags::FUSE_MAX_PAGES,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
        ] {
            // What the kernel does not have is done without, as by the program.
            let _ = config.add_capabilities(capability);
        }
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == "file" {
            reply.entry(&TTL, &self.attr(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attr(ino));
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(self.0.len());
        let end = start.saturating_add(size as usize).min(self.0.len());
        reply.data(self.0.get(start..end).unwrap_or_default());
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let usage = "usage: memory_file MOUNTPOINT MIB";
    let mountpoint = arguments.next().ok_or(usage)?;
    let mib: usize = arguments
        .next()
        .and_then(|text| text.to_str()?.parse().ok())
        .ok_or(usage)?;
    // Not zeros, which might be one page.
    let content = (0..mib << 17).flat_map(|word| word.to_le_bytes()).collect();
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("memory_file".to_owned())];
    config.n_threads = Some(2);
    config.clone_fd = true;
    Session::new(Memory(content), mountpoint, &config)?
        .spawn()?
        .join()?;
    Ok(())
}
