//! `config import`: remotes of type mega from rclone's configuration.

use crate::cli::{ConfigPlace, ImportCommand};
use crate::commands::say;
use crate::config;
use crate::config::edit::Editor;
use crate::failure::Failure;
use crate::paths;

/// Copies what was named, or everything. What is here already stays as it is.
pub(super) fn run(place: &ConfigPlace, command: &ImportCommand) -> Result<(), Failure> {
    let candidates = match &command.from {
        // A file that was named must be there; the usual places need not.
        Some(from) => {
            if let Err(e) = std::fs::metadata(from) {
                return Err(Failure::ConfigUnreadable {
                    path: from.clone(),
                    reason: e.to_string(),
                });
            }
            vec![from.clone()]
        }
        None => paths::rclone_candidates(),
    };
    let names: Vec<_> = command
        .names
        .iter()
        .map(|name| super::plain(name))
        .collect();
    let found = config::importable(&candidates, &names, &place.file()?)?;
    let mut editor = Editor::open(place)?;
    let mut told = String::new();
    let mut changed = false;
    for (name, new) in &found {
        if editor.has(name) {
            told += &format!("'{name}:' is here already and stays as it is.\n");
            continue;
        }
        editor.set(name, new)?;
        changed = true;
        told += &format!("'{name}:' is imported.\n");
    }
    if changed {
        editor.save()?;
    }
    if found.is_empty() {
        told += "There is no remote of type mega to import.\n";
    }
    say(&told);
    Ok(())
}
