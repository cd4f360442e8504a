//! Private files and directories, and the order in which they become durable.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::StoreError;

/// Creates `path` and its parents, 0700; an existing directory is made private if it is not.
pub(crate) fn private_dir(path: &Path) -> Result<(), StoreError> {
    let fail = |source| StoreError::io(path, source);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(fail)?;
    let mode = fs::metadata(path).map_err(fail)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(fail)?;
    }
    Ok(())
}

/// Creates `path` and its parents, 0700; an existing directory is left as it is.
pub(crate) fn make_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// How files here are opened: read and write, 0600.
pub(crate) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Replaces the file at `path`: afterwards it has the old bytes or the new ones, also after a power
/// cut, and the new ones are durable.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let fail = |source| StoreError::io(path, source);
    let beside = path.with_extension("new");
    let mut file = private_file()
        .create(true)
        .truncate(true)
        .open(&beside)
        .map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    file.sync_all().map_err(fail)?;
    fs::rename(&beside, path).map_err(fail)?;
    path.parent()
        .map_or(Ok(()), |parent| sync_dir(parent).map_err(fail))
}

/// Gives a file that is complete its name, in place of whatever has it: the name never stands for half of
/// it, also after a power cut.
///
/// # Errors
/// What the system says; the file then has its former name.
pub fn put_in_place(file: &File, from: &Path, to: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(from, to)
}

/// Removes a file; that it was not there is fine.
pub(crate) fn remove_if_there(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::io(path, source))
        }
        _ => Ok(()),
    }
}
