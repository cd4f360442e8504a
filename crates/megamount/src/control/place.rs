//! Where control sockets are: a directory that only its owner can enter.
//!
//! `$XDG_RUNTIME_DIR/megamount`, else `/run/user/UID/megamount`, else (root) `/run/megamount`, else
//! `/tmp/megamount-UID`. A daemon takes the first that works; clients look into all of them, because
//! a service has another environment than a shell. A directory that is not its user's own, or that
//! others can enter, is not used: whoever made it could answer in our place.
//!
//! A socket is named after the remote and the state directory. Whoever has the lock of the state
//! directory owns that name, so a socket that is there already is stale.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::env_vars as env;

const OWN: &str = "megamount";
const END: &str = ".sock";
/// A path of a socket may have 107 bytes: a remote's name is cut to leave room for the directory.
const NAME_LENGTH: usize = 32;

/// The directories where sockets of `uid` may be, best first.
pub(crate) fn directories(uid: u32) -> Vec<PathBuf> {
    let mut bases = Vec::new();
    if uid == own_uid() {
        bases.extend(env::path(env::XDG_RUNTIME_DIR).filter(|path| path.is_absolute()));
    }
    bases.push(PathBuf::from(format!("/run/user/{uid}")));
    if uid == 0 {
        bases.push(PathBuf::from("/run"));
    }
    let mut directories: Vec<_> = bases
        .into_iter()
        .filter(|base| is_directory_of(base, uid))
        .map(|base| base.join(OWN))
        .collect();
    directories.push(PathBuf::from(format!("/tmp/{OWN}-{uid}")));
    directories.dedup();
    directories
}

/// Makes a directory of [`directories`], and refuses one that others have a hand in.
pub(crate) fn make_private(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if is_private(directory, own_uid()) {
        Ok(())
    } else {
        Err(io::Error::other(
            "it belongs to somebody else, or is open to others",
        ))
    }
}

/// Whether only `uid` can enter the directory; not through a link.
fn is_private(directory: &Path, uid: u32) -> bool {
    directory
        .symlink_metadata()
        .is_ok_and(|meta| meta.is_dir() && meta.uid() == uid && meta.mode() & 0o077 == 0)
}

fn is_directory_of(path: &Path, uid: u32) -> bool {
    path.metadata()
        .is_ok_and(|meta| meta.is_dir() && meta.uid() == uid)
}

/// The user we act for.
pub(crate) fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The name of a remote's socket.
pub(crate) fn socket_name(remote: &str, state_dir: &Path) -> String {
    let hash = fnv(state_dir.as_os_str().as_bytes());
    format!("{}.{hash:016x}{END}", shortened(remote))
}

fn shortened(remote: &str) -> &str {
    // Remote names are ASCII.
    remote.get(..NAME_LENGTH).unwrap_or(remote)
}

/// The sockets of `uid`, of one remote or all; also stale ones.
pub(crate) fn sockets(uid: u32, remote: Option<&str>) -> Vec<PathBuf> {
    let start = remote.map(|remote| format!("{}.", shortened(remote)));
    let mut found = Vec::new();
    for directory in directories(uid) {
        if !is_private(&directory, uid) {
            continue;
        }
        for entry in directory.read_dir().into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(END) && start.as_ref().is_none_or(|start| name.starts_with(start)) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// FNV-1a: a name for a path, not a secret.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn names_tell_remotes_and_states_apart() {
        let one = socket_name("work", Path::new("/s/work"));
        assert!(one.starts_with("work.") && one.ends_with(".sock"), "{one}");
        assert_ne!(one, socket_name("work", Path::new("/t/work")));
        let long = socket_name(&"x".repeat(200), Path::new("/s"));
        assert!(long.len() < 60, "{long}");
    }

    #[test]
    fn a_directory_that_others_can_enter_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own");
        make_private(&own).unwrap();
        make_private(&own).unwrap();
        std::fs::set_permissions(&own, PermissionsExt::from_mode(0o755)).unwrap();
        assert!(make_private(&own).is_err());
        let private = dir.path().join("private");
        make_private(&private).unwrap();
        symlink(&private, dir.path().join("link")).unwrap();
        assert!(make_private(&dir.path().join("link")).is_err());
    }

    #[test]
    fn there_is_always_a_place() {
        let directories = directories(own_uid());
        assert!(directories.iter().any(|dir| dir.starts_with("/tmp")));
    }
}
