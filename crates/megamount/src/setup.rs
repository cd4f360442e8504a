//! The command `config`: remotes are made, shown, changed and removed.
//!
//! `guide` is the session with questions, in rclone's order and vocabulary; the rest needs none.
//! Nothing here talks to a server, and rclone's configuration is read only.

mod guide;
mod import;
mod password;
mod questions;

use crate::cli::{ConfigAction, ConfigCommand};
use crate::commands::say;
use crate::config::edit::{self, Editor};
use crate::exit;
use crate::failure::Failure;

/// Runs the command.
pub(crate) fn run(command: &ConfigCommand) -> Result<u8, Failure> {
    let place = command.place();
    match &command.action {
        None => guide::run(&place)?,
        Some(ConfigAction::File) => say(&format!("{}\n", place.file()?.display())),
        Some(ConfigAction::Show(show)) => {
            let editor = Editor::open(&place)?;
            let text = match &show.name {
                None => editor.text(),
                Some(name) => {
                    let section = editor.section(plain(name));
                    section.ok_or_else(|| unknown(&editor, name))?
                }
            };
            say(&if show.redact {
                edit::redacted(&text)
            } else {
                text
            });
        }
        Some(ConfigAction::Delete(delete)) => {
            let mut editor = Editor::open(&place)?;
            if !editor.remove(plain(&delete.name))? {
                return Err(unknown(&editor, &delete.name));
            }
            editor.save()?;
        }
        Some(ConfigAction::Import(import)) => import::run(&place, import)?,
        Some(ConfigAction::Password) => password::run(&place)?,
    }
    Ok(exit::DONE)
}

/// A name as it stands in the file: people type the colon, too.
fn plain(name: &str) -> &str {
    name.strip_suffix(':').unwrap_or(name)
}

fn unknown(editor: &Editor, name: &str) -> Failure {
    Failure::UnknownRemote {
        name: plain(name).to_owned(),
        known: editor.names(),
        config: editor.path().to_path_buf(),
        rclone: None,
    }
}
