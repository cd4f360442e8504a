//! `mkdir`, `mv`, `rm`: changes of names.

use std::collections::HashSet;

use super::about_item;
use crate::cli::{AccountOptions, MakeCommand, MoveCommand, RemoveCommand};
use crate::config::RemoteSpec;
use crate::control::files::{FileAsk, joined, split};
use crate::exit;
use crate::failure::Failure;
use crate::mount::{Account, Need};

/// Runs `mkdir`.
pub(crate) fn make(command: &MakeCommand) -> Result<u8, Failure> {
    let parents = command.parents;
    each(&command.places, &command.account, |account, path| {
        let at_once = false;
        let path = path.to_owned();
        let ask = FileAsk::Make {
            path,
            parents,
            at_once,
        };
        change(account, ask)
    })
}

/// Runs `rm`.
pub(crate) fn remove(command: &RemoveCommand) -> Result<u8, Failure> {
    each(&command.places, &command.account, |account, path| {
        let recursive = command.recursive;
        let is_missing = |failure: &Failure| exit::code(failure) == exit::NOT_FOUND;
        match about_item(account, path) {
            // The root is refused in any case, and not for want of an option.
            Ok(item) if item.is_folder() && !recursive && !path.is_empty() => {
                return Err(Failure::Usage(format!(
                    "'{path}' is a folder. Give -r to remove it with everything in it."
                )));
            }
            Err(failure) if command.force && is_missing(&failure) => return Ok(()),
            Ok(_) => {}
            Err(failure) => return Err(failure),
        }
        let path = path.to_owned();
        change(
            account,
            FileAsk::Remove {
                path,
                recursive,
                handle: None,
            },
        )
    })
}

/// Runs `mv`.
pub(crate) fn rename(command: &MoveCommand) -> Result<u8, Failure> {
    let mut specs = parsed(&command.places)?;
    let Some(target) = specs.pop() else {
        return Ok(exit::USAGE);
    };
    if let Some(other) = specs.iter().find(|spec| spec.name != target.name) {
        return Err(Failure::Usage(format!(
            "'{}:' and '{}:' are two remotes, and nothing moves between them. Use 'megamount copy', then \
             'megamount rm'.",
            other.name, target.name
        )));
    }
    let account = Account::open_own(&target.name, &command.account, Need::Work)?;
    let is_folder = match about_item(&account, &target.path) {
        Ok(item) => item.is_folder(),
        Err(failure) if exit::code(&failure) == exit::NOT_FOUND => false,
        Err(failure) => return Err(failure),
    };
    if specs.len() > 1 && !is_folder {
        return Err(Failure::Usage(format!(
            "'{}' is no folder, and several things cannot get one name.",
            target.path
        )));
    }
    if is_folder {
        let mut names = HashSet::new();
        for name in specs.iter().map(|spec| split(&spec.path).1) {
            if !names.insert(name) {
                return Err(Failure::Usage(format!(
                    "two of them are called '{name}', and one would be lost. Nothing was moved. Move them one \
                     after the other, to different names."
                )));
            }
        }
    }
    for spec in specs {
        let to = if is_folder {
            joined(&target.path, split(&spec.path).1)
        } else {
            target.path.clone()
        };
        let from = spec.path;
        change(
            &account,
            FileAsk::Rename {
                from,
                to,
                handle: None,
            },
        )?;
    }
    Ok(exit::DONE)
}

fn parsed(places: &[String]) -> Result<Vec<RemoteSpec>, Failure> {
    places.iter().map(|place| place.parse()).collect()
}

/// Does something to each place, remote by remote.
fn each(
    places: &[String],
    options: &AccountOptions,
    mut act: impl FnMut(&Account, &str) -> Result<(), Failure>,
) -> Result<u8, Failure> {
    let mut specs = parsed(places)?;
    while let Some(first) = specs.first() {
        let name = first.name.clone();
        let account = Account::open_own(&name, options, Need::Work)?;
        let (ours, others): (Vec<_>, _) = specs.into_iter().partition(|spec| spec.name == name);
        for spec in ours {
            act(&account, &spec.path)?;
        }
        specs = others;
    }
    Ok(exit::DONE)
}

/// Asks for a change and waits until Mega has it.
pub(super) fn change(account: &Account, ask: FileAsk) -> Result<(), Failure> {
    let mut link = account.link()?;
    link.ask_files(ask)?;
    link.until_done(|_| ())
}
