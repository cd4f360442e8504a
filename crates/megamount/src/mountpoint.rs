//! The mountpoint: what must be true before mounting, and how a mount goes away again.
//!
//! Promises: a live mount of anybody's is never touched; only a dead mount of our own is cleared,
//! and only the mount that this process made is unmounted (known by its device number), never
//! what has been mounted there since.

mod mountinfo;

use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use tokio::sync::watch;

use crate::env_vars as env;
use crate::failure::Failure;
use crate::paths;
use mountinfo::MountEntry;

/// The file system subtype, visible as `fuse.megamount`.
pub(crate) const SUBTYPE: &str = "megamount";
/// How many dead mounts on top of each other are cleared.
const MOST_DEAD_MOUNTS: usize = 16;
const FUSE_DEVICE: &str = "/dev/fuse";
const FUSE_CONF: &str = "/etc/fuse.conf";

/// What the mount table shows as the source: the remote's name and nothing secret.
pub(crate) fn source_name(remote: &str) -> String {
    table_name(&format!("megamount:{remote}"))
}

/// A source as the mount table can have it.
pub(crate) fn table_name(name: &str) -> String {
    // A comma would begin another mount option.
    name.replace([',', '\n'], "_")
}

/// Checks that `given` can be mounted on, clears dead mounts of our own there, and returns its
/// absolute path without symbolic links.
pub(crate) fn prepare(given: &Path) -> Result<PathBuf, Failure> {
    let path = real_path(&paths::absolute(given)?)?;
    for _ in 0..MOST_DEAD_MOUNTS {
        let Some(top) = top_mount(&path)? else {
            break;
        };
        if !top.is_fuse() {
            break;
        }
        if !(is_ours(&top) && is_dead(&path)) {
            return Err(Failure::MountpointBusy {
                path,
                source_name: top.source,
                fs_type: top.fs_type,
            });
        }
        tracing::info!("clearing a dead mount of an earlier run");
        unmount_lazily(&path).map_err(|e| unusable(&path, &e))?;
    }
    let metadata = path.metadata().map_err(|e| match e.kind() {
        ErrorKind::NotFound => Failure::MountpointMissing { path: path.clone() },
        _ => unusable(&path, &e),
    })?;
    if !metadata.is_dir() {
        return Err(Failure::MountpointNotDirectory { path });
    }
    match path.read_dir().map_err(|e| unusable(&path, &e))?.next() {
        None => Ok(path),
        Some(_) => Err(Failure::MountpointNotEmpty { path }),
    }
}

/// Checks that FUSE works here for this user.
pub(crate) fn check_fuse(allow: Option<&'static str>) -> Result<(), Failure> {
    check_device()?;
    if is_root() {
        return Ok(());
    }
    if fusermount().is_none() {
        return Err(Failure::NoFusermount);
    }
    match allow {
        Some(option) if !allows_others() => Err(Failure::AllowOtherForbidden { option }),
        _ => Ok(()),
    }
}

/// Checks that the device of FUSE is there and may be opened.
pub(crate) fn check_device() -> Result<(), Failure> {
    match OpenOptions::new().read(true).write(true).open(FUSE_DEVICE) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Err(Failure::NoFuseDevice),
        Err(e) => Err(Failure::FuseDevice {
            reason: e.to_string(),
        }),
    }
}

/// Whether users may let others into their mounts.
pub(crate) fn allows_others() -> bool {
    let conf = std::fs::read_to_string(FUSE_CONF).unwrap_or_default();
    conf.lines().any(|line| line.trim() == "user_allow_other")
}

/// Where mounts of ours are, in the order of mounting.
pub(crate) fn ours() -> Vec<PathBuf> {
    let table = mountinfo::read().unwrap_or_default();
    table
        .into_iter()
        .filter(|entry| entry.is_fuse() && is_ours(entry))
        .map(|entry| entry.mount_point)
        .collect()
}

/// Refuses files of ours inside the mount, where each access would wait for ourselves.
pub(crate) fn check_outside(
    mountpoint: &Path,
    what: &'static str,
    path: &Path,
    option: &'static str,
) -> Result<(), Failure> {
    if !paths::resolved(path).starts_with(mountpoint) {
        return Ok(());
    }
    Err(Failure::BelowMountpoint {
        what,
        path: path.to_path_buf(),
        mountpoint: mountpoint.to_path_buf(),
        option,
    })
}

/// Whether a FUSE mount of ours is at `path`. Never asks the file system itself, which may hang.
pub(crate) fn is_mounted(path: &Path) -> bool {
    let table = mountinfo::read().unwrap_or_default();
    table
        .iter()
        .any(|entry| entry.mount_point == path && entry.is_fuse() && is_ours(entry))
}

/// The user whose daemon serves the FUSE mount of ours at `path`, or above it.
pub(crate) fn owner(path: &Path) -> Option<u32> {
    let table = mountinfo::read().unwrap_or_default();
    table
        .into_iter()
        .filter(|entry| entry.is_fuse() && is_ours(entry) && path.starts_with(&entry.mount_point))
        .max_by_key(|entry| entry.mount_point.as_os_str().len())?
        .user
}

/// Takes the mount at `path` off the tree, unless programs use it.
pub(crate) fn unmount(path: &Path) -> io::Result<()> {
    if !is_mounted(path) {
        // Somebody else was faster.
        return Ok(());
    }
    if is_root() {
        match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW) {
            Ok(()) => return Ok(()),
            Err(Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    run_fusermount(&["-u", "--"], path)
}

/// The mount that this process made, until it is taken off. Dropping it takes it off too.
#[derive(Debug)]
pub(crate) struct Attachment {
    path: PathBuf,
    /// The device number. The kernel gives it to nobody else while the file system lives, and to
    /// anybody afterwards; hence `ended`.
    device: u64,
    ended: watch::Receiver<bool>,
}

impl Attachment {
    /// What has just been mounted at `path`; `ended` turns true when the kernel lets go of it.
    pub(crate) fn at(path: &Path, ended: watch::Receiver<bool>) -> io::Result<Self> {
        let top = mountinfo::read()?
            .into_iter()
            .rfind(|entry| entry.mount_point == path);
        match top.filter(is_ours) {
            Some(top) => Ok(Self {
                path: path.to_path_buf(),
                device: top.device,
                ended,
            }),
            None => Err(io::Error::other("the mount is gone again")),
        }
    }

    /// The device number, as in `st_dev`.
    pub(crate) fn device(&self) -> u64 {
        self.device
    }

    /// Takes the mount off the tree; open files keep working until they are closed. False when it
    /// is not, or no longer, what is mounted there.
    pub(crate) fn detach(&self) -> io::Result<bool> {
        if *self.ended.borrow() {
            return Ok(false);
        }
        let top = mountinfo::read()?
            .into_iter()
            .rfind(|entry| entry.mount_point == self.path);
        if top.is_none_or(|top| top.device != self.device) {
            return Ok(false);
        }
        unmount_lazily(&self.path).map(|()| true)
    }

    /// Returns when the kernel has let go of the file system.
    pub(crate) async fn ended(&mut self) {
        // An error means that the other end is gone, which is the same.
        let _ = self.ended.wait_for(|ended| *ended).await;
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if let Err(error) = self.detach() {
            tracing::error!(%error, "cannot unmount");
        }
    }
}

/// Whether root's own calls are used instead of fusermount3.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// `path` with links resolved, though a dead mount may be at its end.
fn real_path(path: &Path) -> Result<PathBuf, Failure> {
    let error = match path.canonicalize() {
        Ok(path) => return Ok(path),
        Err(error) => error,
    };
    if error.kind() == ErrorKind::NotFound {
        return Err(Failure::MountpointMissing {
            path: path.to_path_buf(),
        });
    }
    if error.kind() == ErrorKind::NotADirectory {
        return Err(Failure::MountpointNotDirectory {
            path: path.to_path_buf(),
        });
    }
    if error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error())
        && let (Some(parent), Some(name)) = (path.parent(), path.file_name())
        && let Ok(parent) = parent.canonicalize()
    {
        return Ok(parent.join(name));
    }
    Err(unusable(path, &error))
}

fn top_mount(path: &Path) -> Result<Option<MountEntry>, Failure> {
    let table = mountinfo::read().map_err(|e| unusable(path, &e))?;
    Ok(table.into_iter().rfind(|entry| entry.mount_point == path))
}

fn is_ours(entry: &MountEntry) -> bool {
    entry.fs_type.strip_prefix("fuse.") == Some(SUBTYPE) || entry.source.starts_with("megamount:")
}

/// A mount whose process has ended answers ENOTCONN, or ECONNABORTED to who was waiting when it ended. Asked by
/// statfs, which is never cached: stat goes on answering from the kernel's memory for as long as the attributes
/// may be kept.
pub(crate) fn is_dead(path: &Path) -> bool {
    rustix::fs::statfs(path)
        .is_err_and(|error| matches!(error, Errno::NOTCONN | Errno::CONNABORTED))
}

fn unusable(path: &Path, error: &io::Error) -> Failure {
    Failure::MountpointUnusable {
        path: path.to_path_buf(),
        reason: error.to_string(),
    }
}

/// Takes the mount off the tree at once; open files keep working until they are closed.
fn unmount_lazily(path: &Path) -> io::Result<()> {
    if is_root() {
        match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => return Ok(()),
            // Root of a container without CAP_SYS_ADMIN is a user like others.
            Err(Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    run_fusermount(&["-u", "-z", "--"], path)
}

fn run_fusermount(arguments: &[&str], path: &Path) -> io::Result<()> {
    let helper = fusermount().ok_or_else(|| io::Error::other("fusermount3 was not found"))?;
    let output = Command::new(helper)
        .args(arguments)
        .arg(path)
        .env_remove(env::NOTIFY_SOCKET)
        .env_remove(env::CONFIG_PASS)
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(
        String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    ))
}

/// Where fusermount3 is, looked up as fuser does it.
pub(crate) fn fusermount() -> Option<PathBuf> {
    if let Some(path) = env::path(env::FUSERMOUNT_PATH) {
        return path.is_file().then_some(path);
    }
    let path = env::text(env::PATH).unwrap_or_default();
    let directories: Vec<_> = std::env::split_paths(&path)
        .chain(["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .collect();
    let candidates = ["fusermount3", "fusermount"];
    candidates.iter().find_map(|name| {
        directories
            .iter()
            .map(|dir| dir.join(name))
            .find(|path| path.is_file())
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn bad_mountpoints_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let file = root.join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(matches!(
            prepare(&root),
            Err(Failure::MountpointNotEmpty { .. })
        ));
        assert!(matches!(
            prepare(&file),
            Err(Failure::MountpointNotDirectory { .. })
        ));
        let below = file.join("below");
        assert!(matches!(
            prepare(&below),
            Err(Failure::MountpointNotDirectory { .. })
        ));
        let missing = root.join("missing");
        assert!(matches!(
            prepare(&missing),
            Err(Failure::MountpointMissing { .. })
        ));
    }

    #[test]
    fn an_empty_directory_is_fine_also_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("m")).unwrap();
        std::os::unix::fs::symlink(root.join("m"), root.join("link")).unwrap();
        assert_eq!(prepare(&root.join("link")).unwrap(), root.join("m"));
    }

    #[test]
    fn own_files_must_be_outside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&root, root.join("link")).unwrap();
        let check = |path: &Path| check_outside(&root, "cache", path, "--cache-dir");
        assert!(check(&root.join("a/b")).is_err());
        assert!(check(&root.join("link/new")).is_err());
        assert!(check(root.parent().unwrap()).is_ok());
        let beside = PathBuf::from(format!("{}x", root.display()));
        assert!(check(&beside).is_ok(), "a longer name is another directory");
    }

    #[test]
    fn a_mount_of_somebody_else_is_not_detached() {
        let (_sender, ended) = watch::channel(false);
        assert!(Attachment::at(Path::new("/proc"), ended.clone()).is_err());
        let path = PathBuf::from("/proc");
        let attachment = Attachment {
            path,
            device: u64::MAX,
            ended,
        };
        assert!(!attachment.detach().unwrap());
    }

    #[test]
    fn after_the_end_a_device_number_means_nothing() {
        let (_sender, ended) = watch::channel(true);
        let device = Path::new("/proc").metadata().unwrap().dev();
        let attachment = Attachment {
            path: "/proc".into(),
            device,
            ended,
        };
        assert!(!attachment.detach().unwrap());
    }

    #[test]
    fn sources_hold_no_comma() {
        assert_eq!(source_name("my remote"), "megamount:my remote");
        assert_eq!(source_name("a,allow_other"), "megamount:a_allow_other");
    }
}
