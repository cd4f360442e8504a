//! `retry`, `discard` and `export`: what to do about changes that Mega refuses.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use mega_proto::b64;

use super::{counted, say};
use crate::cli::{DiscardCommand, ExportCommand, RetryCommand};
use crate::control::client::{self, Link, unexpected};
use crate::control::protocol::{Ask, Reply};
use crate::display::printable;
use crate::exit;
use crate::failure::Failure;
use crate::paths;
use crate::terminal::{self, Echo, NoAnswer};

/// Runs `retry`.
pub(crate) fn retry(command: &RetryCommand) -> Result<u8, Failure> {
    let mut link = client::find(&command.target)?;
    let path = command.path.as_ref();
    let path = path.map(|path| below(&link, path)).transpose()?;
    // The root is everything.
    let path = path.filter(|path| !path.is_empty());
    match link.ask(&Ask::Retry { path })? {
        Reply::Retried { count } => {
            let count = counted(count, "change");
            say(&format!("{count} to be tried again now.\n"));
            Ok(exit::DONE)
        }
        other => Err(unexpected(&other)),
    }
}

/// Runs `discard`.
pub(crate) fn discard(command: &DiscardCommand) -> Result<u8, Failure> {
    let mut link = client::find(&command.target)?;
    let path = below(&link, &command.path)?;
    if !command.yes && !is_wanted(&path)? {
        say("Nothing was discarded.\n");
        return Ok(exit::OTHER);
    }
    match link.ask(&Ask::Discard { path })? {
        Reply::Discarded { paths } => {
            for path in paths {
                say(&format!("Discarded: {}\n", printable(&path)));
            }
            Ok(exit::DONE)
        }
        other => Err(unexpected(&other)),
    }
}

fn is_wanted(path: &str) -> Result<bool, Failure> {
    let prompt = format!(
        "Forget what was changed here of '{}'? Bytes that Mega does not have are lost for good. \
         [y/N] ",
        printable(path)
    );
    match terminal::ask(&prompt, Echo::On) {
        Ok(answer) => Ok(matches!(
            answer.expose().to_ascii_lowercase().as_str(),
            "y" | "yes"
        )),
        Err(NoAnswer::Cancelled) => Ok(false),
        Err(NoAnswer::NoTerminal) => Err(Failure::Usage(
            "there is no terminal to ask whether you are sure. Give --yes.".to_owned(),
        )),
    }
}

/// Runs `export`.
pub(crate) fn export(command: &ExportCommand) -> Result<u8, Failure> {
    let mut link = client::find(&command.target)?;
    let path = below(&link, &command.path)?;
    let size = match link.ask(&Ask::Export { path: path.clone() })? {
        Reply::Exporting { size } => size,
        other => return Err(unexpected(&other)),
    };
    let mut to = command.to.clone();
    if to.is_dir() {
        to.push(path.rsplit('/').next().unwrap_or("export"));
    }
    let failed = |error: std::io::Error| Failure::Export {
        path: to.clone(),
        reason: error.to_string(),
    };
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&to)
        .map_err(failed)?;
    let copied = file
        .set_len(size)
        .map_err(failed)
        .and_then(|()| copy(&mut link, &file, failed));
    let missing = match copied {
        Ok(missing) => missing,
        Err(failure) => {
            // Half a file would pass for a whole one.
            let _ = std::fs::remove_file(&to);
            return Err(failure);
        }
    };
    file.sync_all().map_err(failed)?;
    if missing == 0 {
        return Ok(exit::DONE);
    }
    Err(Failure::ExportIncomplete {
        path: to,
        size,
        missing,
    })
}

/// Writes the pieces as they come; how many bytes were nowhere to be had.
fn copy(
    link: &mut Link,
    file: &File,
    failed: impl Fn(std::io::Error) -> Failure,
) -> Result<u64, Failure> {
    let mut missing = 0_u64;
    loop {
        match link.next()? {
            Reply::Piece { offset, data } => {
                let bytes = b64::decode(&data).map_err(|_| Failure::DaemonGone)?;
                file.write_all_at(&bytes, offset).map_err(&failed)?;
            }
            Reply::Missing { length, .. } => missing = missing.saturating_add(length),
            Reply::Exported => return Ok(missing),
            other => return Err(unexpected(&other)),
        }
    }
}

/// A path as the mount knows it: absolute ones lie below the mountpoint, others begin there.
pub(super) fn below(link: &Link, path: &Path) -> Result<String, Failure> {
    let place = PathBuf::from(&link.hello().mountpoint);
    relative(&place, path)?
        .to_str()
        .map(str::to_owned)
        .ok_or_else(|| Failure::Usage("the path is not UTF-8, as names on Mega are.".to_owned()))
}

fn relative(place: &Path, path: &Path) -> Result<PathBuf, Failure> {
    let outside = || {
        Failure::Usage(format!(
            "'{}' is not below {}. Write the path as 'megamount status' shows it.",
            path.display(),
            place.display()
        ))
    };
    let inner = if path.is_absolute() {
        match path.strip_prefix(place) {
            Ok(inner) => inner.to_path_buf(),
            Err(_) => paths::resolved(path)
                .strip_prefix(place)
                .map_err(|_| outside())?
                .to_path_buf(),
        }
    } else {
        path.to_path_buf()
    };
    let mut clean = PathBuf::new();
    for part in inner.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            _ => return Err(outside()),
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_begin_at_the_mountpoint() {
        let place = Path::new("/mnt/mega");
        for (given, expected) in [
            ("a/b", "a/b"),
            ("./a/./b/", "a/b"),
            ("/mnt/mega/a/b", "a/b"),
            ("/mnt/mega", ""),
            (".", ""),
        ] {
            let found = relative(place, Path::new(given)).unwrap();
            assert_eq!(found, Path::new(expected), "{given}");
        }
        for bad in ["/mnt/other/a", "../a", "a/../b"] {
            assert!(relative(place, Path::new(bad)).is_err(), "{bad}");
        }
    }
}
