//! The operations, one family per file.

mod attributes;
mod copy;
mod create;
mod directory;
mod lookup;
mod open;
mod read;
mod remove;
mod rename;
mod space;
mod sync;
mod write;
mod xattr;

use std::ffi::OsStr;

pub use copy::CopyRange;
pub(crate) use remove::{drop_staging, hide};
pub(crate) use space::Space;

use mega_tree::spelling::NAME_MAX;
use rustix::io::Errno;

use crate::types::OpResult;

/// A name as an application gave it: UTF-8, at most 255 bytes, no `/`, not empty.
pub(crate) fn entry_name(name: &OsStr) -> OpResult<&str> {
    if name.len() > NAME_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    let name = name.to_str().ok_or(Errno::ILSEQ)?;
    if name.is_empty() || name.contains(['/', '\0']) {
        return Err(Errno::INVAL);
    }
    Ok(name)
}
