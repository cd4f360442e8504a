//! `copy`: files and folders from, to, within and between accounts.
//!
//! First it is listed what there is on both sides and what differs (`plan`); then threads take one file after
//! the other (`transfer`). A file that cannot be copied is told and does not stop the others. Copies to an
//! account are finished when Mega has them. What was interrupted goes on: an upload where Mega has it, a
//! download from its partial file, and what is complete is passed over.

mod job;
mod local;
mod plan;
mod transfer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::about::rounded;
use super::{counted, say};
use crate::cli::{AccountOptions, CopyCommand};
use crate::config::{RemoteSpec, link};
use crate::display::printable;
use crate::exit;
use crate::failure::Failure;
use crate::mount::{Account, Need, hide_in};
use job::{End, Job};
use plan::Same;

/// One side of a copy.
#[derive(Debug, Clone)]
enum Place {
    Local(PathBuf),
    Remote(RemoteSpec),
}

impl Place {
    /// A path that begins with the name of a remote and a colon is on that remote.
    fn parse(text: &str) -> Result<Self, Failure> {
        let is_local = text.starts_with(['/', '.', '~'])
            || text
                .split_once(':')
                .is_none_or(|(name, _)| name.contains('/'));
        if is_local {
            if text.is_empty() {
                return Err(Failure::Usage(
                    "an empty path is no place. Write '.' for the present directory.".to_owned(),
                ));
            }
            return Ok(Self::Local(PathBuf::from(text)));
        }
        text.parse().map(Self::Remote)
    }
}

/// Whether a place is meant as a public link, and not as a local path that looks like one.
fn is_link(text: &str) -> bool {
    let is_local = || Path::new(text).symlink_metadata().is_ok();
    link::is_link(text) && (text.contains("://") || (link::parse(text).is_ok() && !is_local()))
}

/// The accounts that are open, one for each remote.
struct Accounts<'a> {
    options: &'a AccountOptions,
    open: Vec<(String, Arc<Account>)>,
}

impl Drop for Accounts<'_> {
    fn drop(&mut self) {
        // Those that others serve first: what we serve may be waited for by the very command that waits for us.
        self.open.retain(|(_, account)| account.is_served_here());
    }
}

impl Accounts<'_> {
    fn end(&mut self, place: &Place) -> Result<End, Failure> {
        let spec = match place {
            Place::Local(path) => return Ok(End::Local(path.clone())),
            Place::Remote(spec) => spec,
        };
        let path = spec.path.clone();
        let known = self.open.iter().find(|(name, _)| *name == spec.name);
        if let Some((_, account)) = known {
            let account = Arc::clone(account);
            return Ok(End::Remote { account, path });
        }
        let account = Arc::new(Account::open(&spec.name, self.options, Need::Work)?);
        self.open.push((spec.name.clone(), Arc::clone(&account)));
        Ok(End::Remote { account, path })
    }
}

/// Runs the command.
pub(crate) fn copy(command: &CopyCommand) -> Result<u8, Failure> {
    let links = command.places.iter().map(String::as_str);
    hide_in(links.filter(|place| is_link(place)))?;
    let mut places = command
        .places
        .iter()
        .map(|place| Place::parse(place))
        .collect::<Result<Vec<_>, _>>()?;
    let Some(target) = places.pop() else {
        return Ok(exit::USAGE);
    };
    if let (Place::Local(target), Some(Place::Local(from))) = (
        &target,
        places.iter().find(|place| matches!(place, Place::Local(_))),
    ) {
        return Err(Failure::Usage(format!(
            "'{}' and '{}' are both local. A remote has a colon behind its name: 'work:photos'.",
            from.display(),
            target.display()
        )));
    }
    // What is typed wrong is told before anybody logs in.
    for place in &places {
        if let Place::Local(path) = place
            && path.symlink_metadata().is_err()
        {
            return Err(Failure::NoSource { path: path.clone() });
        }
    }
    let mut accounts = Accounts {
        options: &command.account,
        open: Vec::new(),
    };
    let to = accounts.end(&target)?;
    if let End::Remote { account, .. } = &to
        && account.is_link()
    {
        return Err(Failure::LinkHere);
    }
    let same = match (command.ignore_existing, command.checksum, command.size_only) {
        (true, ..) => Same::Existing,
        (_, true, _) => Same::Checksum,
        (_, _, true) => Same::Size,
        _ => Same::Time,
    };
    let mut plan = plan::Plan::new(&to, same);
    plan.with_empty_folders = command.create_empty_src_dirs;
    for place in &places {
        let from = accounts.end(place)?;
        plan.add(&from)?;
    }
    if command.dry_run {
        return dry_run(&plan);
    }
    let configured = accounts.open.first().map(|(_, account)| account.uploads());
    let workers = command.transfers.or(configured).unwrap_or(1);
    let outcome = transfer::run(
        &plan,
        &to,
        usize::from(workers),
        command.account.verbose > 0,
    )?;
    let mut text = format!(
        "Copied {}, {}",
        counted(outcome.copied, "file"),
        rounded(outcome.bytes)
    );
    if plan.same > 0 {
        text += &format!("; {} the same already", counted(plan.same, "file"));
    }
    say(&(text + ".\n"));
    let failed = outcome.failed + plan.failed;
    if failed > 0 {
        return Err(Failure::Partly {
            count: failed,
            all: plan.jobs.len() + plan.failed,
            code: outcome.code.or(plan.code).unwrap_or(exit::OTHER),
        });
    }
    Ok(exit::DONE)
}

/// What would be done.
fn dry_run(plan: &plan::Plan<'_>) -> Result<u8, Failure> {
    for folder in &plan.folders {
        say(&format!("would make {}\n", printable(&folder.shown())));
    }
    for Job { name, size, .. } in &plan.jobs {
        say(&format!(
            "would copy {} ({})\n",
            printable(name),
            rounded(*size)
        ));
    }
    let bytes = plan.jobs.iter().map(|job| job.size).sum();
    say(&format!(
        "Nothing was copied. It would be {}, {}; {} the same already.\n",
        counted(plan.jobs.len(), "file"),
        rounded(bytes),
        counted(plan.same, "file")
    ));
    Ok(plan.code.unwrap_or(exit::DONE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_told_from_local_paths() {
        let key = "AAECAwQFBgcICQoLDA0ODw";
        for text in [
            format!("https://mega.nz/folder/HHHHHHHH#{key}"),
            "https://mega.nz/folder/HHHHHHHH".to_owned(),
            format!("/folder/HHHHHHHH#{key}"),
            format!("#F!HHHHHHHH!{key}"),
        ] {
            assert!(is_link(&text), "{text}");
        }
        for text in ["folder/x", "file/y#z", "/folder/x", "!x", "work:", "/tmp"] {
            assert!(!is_link(text), "{text}");
        }
    }

    #[test]
    fn remotes_are_told_from_local_paths() {
        for local in ["/a:b", "./a:b", "../x", "a", "a/b:c", "."] {
            assert!(
                matches!(Place::parse(local), Ok(Place::Local(_))),
                "{local}"
            );
        }
        for remote in ["work:", "work:a:b/c", "my remote:x"] {
            assert!(
                matches!(Place::parse(remote), Ok(Place::Remote(_))),
                "{remote}"
            );
        }
        for bad in ["-x:y", ":a", ""] {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
    }
}
