//! Values of mega-vfs in fuser's types and back.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, RenameFlags, TimeOrNow, WriteFlags};
use mega_vfs::{Attr, FileKind, OpenMode, RenameMode, Timestamp, WriteAt};
use rustix::fs::OFlags;

/// What `stat` reports as the preferred size of reads.
const BLOCK_SIZE: u32 = 128 << 10;

/// An error number as fuser has it.
pub(super) fn errno(error: rustix::io::Errno) -> fuser::Errno {
    fuser::Errno::from_i32(error.raw_os_error())
}

/// The kind of a directory entry.
pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
    }
}

/// Attributes as the kernel takes them.
pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(attr.kind),
        perm: attr.perm,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// Inode number 0: the kernel remembers that the name does not exist.
pub(super) fn absent() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// A point in time as fuser sends it; what does not fit becomes 1970.
fn system_time(time: Timestamp) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(time.nanos.min(999_999_999)));
    let whole = Duration::from_secs(time.secs.unsigned_abs());
    let seconds = if time.secs < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    seconds
        .and_then(|seconds| seconds.checked_add(nanos))
        .unwrap_or(UNIX_EPOCH)
}

/// A point in time as fuser received it.
pub(super) fn timestamp(time: TimeOrNow) -> Timestamp {
    let time = match time {
        TimeOrNow::Now => return Timestamp::now(),
        TimeOrNow::SpecificTime(time) => time,
    };
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => Timestamp {
            secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: since.subsec_nanos(),
        },
        // Before 1970 fuser 0.18 subtracts the nanoseconds that it should add: seconds and
        // nanoseconds of the distance are those that the kernel sent, with the sign of the seconds
        // turned round.
        Err(before) => Timestamp {
            secs: i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |secs| -secs),
            nanos: before.duration().subsec_nanos(),
        },
    }
}

/// The flags of open(2).
pub(super) fn open_mode(flags: i32) -> OpenMode {
    let flags = OFlags::from_bits_retain(flags.cast_unsigned());
    let access = flags & OFlags::RWMODE;
    OpenMode {
        read: access == OFlags::RDONLY || access == OFlags::RDWR,
        write: access == OFlags::WRONLY || access == OFlags::RDWR,
        truncate: flags.contains(OFlags::TRUNC),
        exclusive: flags.contains(OFlags::EXCL),
    }
}

/// Where a write goes. The flags are those that the open file has now. A page from the kernel's
/// cache, changed through a mapping, has its place, whatever the file was opened with.
pub(super) fn write_at(offset: u64, write_flags: WriteFlags, flags: i32) -> WriteAt {
    let flags = OFlags::from_bits_retain(flags.cast_unsigned());
    if flags.contains(OFlags::APPEND) && !write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
        WriteAt::End
    } else {
        WriteAt::Offset(offset)
    }
}

/// The flags of renameat2(2); none for a combination that does not exist here.
pub(super) fn rename_mode(flags: RenameFlags) -> Option<RenameMode> {
    if flags.is_empty() {
        Some(RenameMode::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Some(RenameMode::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Some(RenameMode::Exchange)
    } else {
        None
    }
}

/// The names, each with a zero byte at its end.
pub(super) fn xattr_list(names: &[OsString]) -> Vec<u8> {
    let mut list = Vec::new();
    for name in names {
        list.extend_from_slice(name.as_bytes());
        list.push(0);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_way_out() {
        for (secs, nanos) in [
            (0, 0),
            (1_700_000_000, 123_456_789),
            (-1, 500_000_000),
            (-86400, 0),
        ] {
            let time = system_time(Timestamp { secs, nanos });
            let expected = i128::from(secs) * 1_000_000_000 + i128::from(nanos);
            let got = match time.duration_since(UNIX_EPOCH) {
                Ok(since) => since.as_nanos() as i128,
                Err(before) => -(before.duration().as_nanos() as i128),
            };
            assert_eq!(got, expected);
        }
        // Whatever it is, it must not panic.
        let _ = system_time(Timestamp {
            secs: i64::MIN,
            nanos: 0,
        });
    }

    #[test]
    fn times_before_1970_are_what_the_kernel_sent() {
        // What fuser 0.18 makes of -1.5 s, sent as (-2, 500_000_000).
        let sent = TimeOrNow::SpecificTime(UNIX_EPOCH - Duration::new(2, 500_000_000));
        assert_eq!(
            timestamp(sent),
            Timestamp {
                secs: -2,
                nanos: 500_000_000
            }
        );
        let sent = TimeOrNow::SpecificTime(UNIX_EPOCH - Duration::from_secs(5));
        assert_eq!(timestamp(sent), Timestamp { secs: -5, nanos: 0 });
    }

    #[test]
    fn open_flags() {
        let flags = |flags: OFlags| open_mode(flags.bits().cast_signed());
        let mode = flags(OFlags::RDWR | OFlags::APPEND | OFlags::TRUNC);
        assert!(mode.read && mode.write && mode.truncate && !mode.exclusive);
        let mode = flags(OFlags::RDONLY);
        assert!(mode.read && !mode.write);
        let mode = flags(OFlags::WRONLY | OFlags::EXCL);
        assert!(!mode.read && mode.write && mode.exclusive);
    }

    #[test]
    fn pages_of_a_mapping_are_never_appended() {
        let append = OFlags::APPEND.bits().cast_signed();
        let page = WriteFlags::FUSE_WRITE_CACHE;
        assert_eq!(write_at(7, WriteFlags::empty(), append), WriteAt::End);
        assert_eq!(write_at(7, WriteFlags::empty(), 0), WriteAt::Offset(7));
        assert_eq!(write_at(7, page, append), WriteAt::Offset(7));
    }

    #[test]
    fn rename_flags() {
        assert_eq!(rename_mode(RenameFlags::empty()), Some(RenameMode::Replace));
        assert_eq!(rename_mode(RenameFlags::RENAME_WHITEOUT), None);
        let both = RenameFlags::RENAME_NOREPLACE | RenameFlags::RENAME_EXCHANGE;
        assert_eq!(rename_mode(both), None);
    }

    #[test]
    fn names_end_with_zero() {
        assert_eq!(
            xattr_list(&["user.a".into(), "user.b".into()]),
            b"user.a\0user.b\0"
        );
    }
}
