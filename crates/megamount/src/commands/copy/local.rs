//! The local side of a copy: listing, checksums, and files that appear when they are complete.
//!
//! A file that comes is written beside its target under a name made from the target's and the node's, so
//! that a later run finds what an earlier one has of the same node. It gets its time and its name when all
//! bytes are on stable storage.

use std::fs::{File, FileTimes, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mega_crypto::{Fingerprint, FingerprintBuilder};
use mega_vfs::{PARTIAL_PREFIX, PARTIAL_SUFFIX};
use rustix::fs::{
    AtFlags, CWD, FlockOperation, Timespec, Timestamps, UTIME_OMIT, flock, rename, utimensat,
};

use super::job::Known;
use crate::commands::moment::Moment;
use crate::control::files::Kind;
use crate::failure::Failure;

/// An error of the local disk, in the user's words.
pub(super) fn failed(what: &'static str, path: &Path, error: &io::Error) -> Failure {
    let reason = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full. Make room on it and start again; what is there is kept".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            format!("{error}. Check its owner and mode ('ls -ld')")
        }
        io::ErrorKind::NotADirectory => {
            "a file is there, or on the way to it, and a folder is needed. Choose another name"
                .to_owned()
        }
        _ => error.to_string(),
    };
    Failure::LocalFile {
        what,
        path: path.to_path_buf(),
        reason,
    }
}

/// What is at a path; links are not followed. None for what cannot be copied: devices, sockets, pipes.
pub(super) fn known(path: &Path) -> io::Result<Option<Known>> {
    let meta = path.symlink_metadata()?;
    let kind = if meta.is_dir() {
        Kind::Folder
    } else if meta.is_symlink() {
        Kind::Link
    } else if meta.is_file() {
        Kind::File
    } else {
        return Ok(None);
    };
    Ok(Some(Known {
        kind,
        size: if kind == Kind::Folder { 0 } else { meta.len() },
        mtime: (meta.mtime(), u32::try_from(meta.mtime_nsec()).unwrap_or(0)),
        executable: meta.mode() & 0o100 != 0,
        is_pending: false,
        handle: None,
        fingerprint: None,
    }))
}

/// The checksum that Mega's clients keep of a file.
pub(super) fn checksum(path: &Path, size: u64) -> io::Result<[u8; 16]> {
    let file = File::open(path)?;
    let mut builder = FingerprintBuilder::new(size);
    let mut buffer = Vec::new();
    for window in FingerprintBuilder::windows(size) {
        buffer.resize(
            usize::try_from(window.end - window.start).unwrap_or_default(),
            0,
        );
        file.read_exact_at(&mut buffer, window.start)?;
        builder.feed(window.start, &buffer);
    }
    Ok(builder.finish(0).crc)
}

/// Whether a file has the checksum that is kept with a node; false where none is kept.
pub(super) fn matches(path: &Path, known: &Known) -> io::Result<bool> {
    match kept(known) {
        Some(kept) => Ok(checksum(path, known.size)? == kept.crc),
        None => Ok(false),
    }
}

/// The checksum that tells whether what an earlier run has left is of the same content. There is none of a
/// change that Mega does not have yet, whose node is that of other content.
fn kept(known: &Known) -> Option<Fingerprint> {
    if known.handle.is_none() || known.is_pending {
        return None;
    }
    known.fingerprint.as_deref().and_then(Fingerprint::parse)
}

/// A name beside `target` for what is on its way there, made from what tells its content from others.
fn beside(target: &Path, content: &[u8]) -> PathBuf {
    let name = target.file_name().unwrap_or_default();
    let mut id = 0xcbf2_9ce4_8422_2325_u64;
    for byte in [name.as_encoded_bytes(), content].concat() {
        id = (id ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    target.with_file_name(format!("{PARTIAL_PREFIX}{id:016x}{PARTIAL_SUFFIX}"))
}

/// A file that is on its way.
#[derive(Debug)]
pub(super) struct Partial {
    file: File,
    path: PathBuf,
    target: PathBuf,
    at: u64,
    /// So much of it was there already.
    pub(super) resumed: u64,
}

impl Partial {
    /// Opens the partial file for `target`, with what an earlier run has of the same content.
    pub(super) fn open(target: &Path, known: &Known) -> Result<Self, Failure> {
        let handle = known.handle.as_deref().unwrap_or_default();
        let size = known.size.to_be_bytes();
        let path = beside(target, &[handle.as_bytes(), &size].concat());
        let fail = |error: io::Error| failed("write", target, &error);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o666)
            .open(&path)
            .map_err(fail)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| Failure::LocalFile {
            what: "write",
            path: target.to_path_buf(),
            reason: "another command is copying it".to_owned(),
        })?;
        let length = file.metadata().map_err(fail)?.len();
        // What cannot be proved to be of the same content is none of it.
        let resumed = if kept(known).is_some() && length <= known.size {
            length
        } else {
            file.set_len(0).map_err(fail)?;
            0
        };
        Ok(Self {
            file,
            path,
            target: target.to_path_buf(),
            at: resumed,
            resumed,
        })
    }

    /// Adds bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file
            .write_all_at(bytes, self.at)
            .map_err(|error| failed("write", &self.target, &error))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Begins from the beginning.
    pub(super) fn restart(&mut self) -> Result<(), Failure> {
        (self.at, self.resumed) = (0, 0);
        self.file
            .set_len(0)
            .map_err(|error| failed("write", &self.target, &error))
    }

    /// So many bytes are there.
    pub(super) fn length(&self) -> u64 {
        self.at
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// It is complete: it gets its time and its name.
    pub(super) fn finish(self, known: &Known) -> Result<(), Failure> {
        let fail = |error: io::Error| failed("write", &self.target, &error);
        if known.executable {
            let mode = self.file.metadata().map_err(fail)?.permissions().mode();
            // Whoever may read it may execute it.
            let mode = mode | ((mode & 0o444) >> 2);
            let permissions = std::fs::Permissions::from_mode(mode);
            self.file.set_permissions(permissions).map_err(fail)?;
        }
        set_time(&self.file, known.mtime).map_err(fail)?;
        mega_store::put_in_place(&self.file, &self.path, &self.target)
            .map_err(|error| failed("write", &self.target, &error))
    }
}

fn set_time(file: &File, (seconds, nanos): Moment) -> io::Result<()> {
    let since = Duration::new(seconds.unsigned_abs(), 0);
    let whole = if seconds >= 0 {
        SystemTime::UNIX_EPOCH.checked_add(since)
    } else {
        SystemTime::UNIX_EPOCH.checked_sub(since)
    };
    let at = whole.and_then(|whole| whole.checked_add(Duration::new(0, nanos)));
    match at {
        Some(at) => file.set_times(FileTimes::new().set_modified(at)),
        None => Ok(()),
    }
}

/// Makes a symbolic link, in place of a link or file of that name, which stays until then.
pub(super) fn make_link(path: &Path, target: &str, mtime: Moment) -> Result<(), Failure> {
    let fail = |error: io::Error| failed("write", path, &error);
    let unchanged = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT,
    };
    let modified = Timespec {
        tv_sec: mtime.0,
        tv_nsec: mtime.1.into(),
    };
    let times = Timestamps {
        last_access: unchanged,
        last_modification: modified,
    };
    let partial = beside(path, target.as_bytes());
    match std::fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    let placed = std::os::unix::fs::symlink(target, &partial)
        .and_then(|()| {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            utimensat(CWD, &partial, &times, flags).map_err(io::Error::from)
        })
        // A link has no content that could be half of it: nothing has to be on the disk first.
        .and_then(|()| rename(&partial, path).map_err(io::Error::from));
    placed.map_err(|error| {
        let _ = std::fs::remove_file(&partial);
        fail(error)
    })
}

/// Writes a line to standard error, for what was passed over.
pub(super) fn note(text: &str) {
    let _ = writeln!(crate::display::Terminal, "megamount: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_cannot_be_made_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l");
        std::os::unix::fs::symlink("old", &path).unwrap();
        let too_long = "x".repeat(5000);
        assert!(make_link(&path, &too_long, (5, 0)).is_err());
        assert_eq!(path.read_link().unwrap(), Path::new("old"));
        make_link(&path, "new", (5, 7)).unwrap();
        assert_eq!(path.read_link().unwrap(), Path::new("new"));
        let meta = path.symlink_metadata().unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (5, 7));
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
        // Not in place of a folder.
        std::fs::create_dir(dir.path().join("d")).unwrap();
        assert!(make_link(&dir.path().join("d"), "new", (5, 7)).is_err());
        assert_eq!(dir.path().read_dir().unwrap().count(), 2);
    }
}
