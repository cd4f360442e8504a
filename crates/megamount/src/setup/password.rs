//! `config password`, and the entry `s` of the guided session: the password that the configuration is
//! encrypted with is set, changed or removed, in rclone's order and words.
//!
//! Each answer is done when it is said so; leaving in the middle leaves what was done before.

use super::questions::{Choice, choose, new_password};
use crate::cli::ConfigPlace;
use crate::commands::say;
use crate::config::edit::Editor;
use crate::failure::Failure;

const ENCRYPTED: &[Choice] = &[
    ('c', "Change Password"),
    ('u', "Unencrypt configuration"),
    ('q', "Quit to main menu"),
];
const CLEAR: &[Choice] = &[('a', "Add Password"), ('q', "Quit to main menu")];

/// Asks until the user has enough.
pub(super) fn run(place: &ConfigPlace) -> Result<(), Failure> {
    loop {
        // Read again each time: another program may have written meanwhile.
        let mut editor = Editor::open(place)?;
        let chosen = if editor.is_encrypted() {
            say("Your configuration is encrypted.\n");
            choose(ENCRYPTED, None)?
        } else {
            say(
                "Your configuration is not encrypted.\nIf you add a password, you will protect \
                 your login information to cloud services.\n",
            );
            choose(CLEAR, None)?
        };
        let (password, told) = match chosen {
            'a' => (Some(new_password(NEW)?), "Password set\n"),
            'c' => (Some(new_password(NEW)?), "Password changed\n"),
            'u' => (None, ""),
            _ => return Ok(()),
        };
        editor.encrypt_with(password);
        editor.save()?;
        say(told);
    }
}

/// Which password is asked for.
const NEW: &str = "NEW configuration";
