//! Questions and their answers: at the terminal, or line by line from a pipe.

use std::io::{BufRead, IsTerminal};

use mega_crypto::Secret;

use crate::commands::say;
use crate::failure::Failure;
use crate::terminal::{self, Echo};

/// One letter that can be chosen, and what it means.
pub(super) type Choice = (char, &'static str);

/// Asks `prompt` for one line.
pub(super) fn line(prompt: &str) -> Result<String, Failure> {
    let answer = ask(prompt, Echo::On)?;
    Ok(answer.expose().trim().to_owned())
}

/// Asks until something is typed; Enter alone takes `default`, if there is one.
pub(super) fn needed(prompt: &str, default: Option<&str>) -> Result<String, Failure> {
    loop {
        let answer = line(prompt)?;
        match default {
            Some(default) if answer.is_empty() => return Ok(default.to_owned()),
            None if answer.is_empty() => say("This value is required and it has no default.\n"),
            _ => return Ok(answer),
        }
    }
}

/// Asks for one of `choices` by its letter; Enter alone means `default`, if there is one.
pub(super) fn choose(choices: &[Choice], default: Option<char>) -> Result<char, Failure> {
    for (letter, text) in choices {
        let mark = if Some(*letter) == default {
            " (default)"
        } else {
            ""
        };
        say(&format!("{letter}) {text}{mark}\n"));
    }
    let letters: Vec<_> = choices.iter().map(|(c, _)| c.to_string()).collect();
    let prompt = format!("{}> ", letters.join("/"));
    loop {
        let answer = line(&prompt)?.to_lowercase();
        let mut typed = answer.chars();
        match (typed.next().or(default), typed.next()) {
            (Some(letter), None) if choices.iter().any(|(known, _)| *known == letter) => {
                return Ok(letter);
            }
            _ => say(&format!(
                "This value must be one of the following characters: {}.\n",
                letters.join(", ")
            )),
        }
    }
}

/// Asks for `which` password twice, without showing it.
pub(super) fn new_password(which: &str) -> Result<Secret, Failure> {
    loop {
        say(&format!("Enter {which} password:\n"));
        let first = password()?;
        say(&format!("Confirm {which} password:\n"));
        if password()? == first {
            return Ok(first);
        }
        say("Passwords do not match!\n");
    }
}

fn password() -> Result<Secret, Failure> {
    loop {
        let answer = ask("password:", Echo::Off)?;
        if !answer.expose().is_empty() {
            return Ok(answer);
        }
        say("Bad password: no characters in password\n");
    }
}

fn ask(prompt: &str, echo: Echo) -> Result<Secret, Failure> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return terminal::line(prompt, echo).map_err(|_| Failure::SetupCancelled);
    }
    say(prompt);
    let mut text = String::new();
    match stdin.lock().read_line(&mut text) {
        Ok(read) if read > 0 => {}
        _ => return Err(Failure::SetupCancelled),
    }
    while text.ends_with(['\n', '\r']) {
        text.pop();
    }
    // What a pipe says does not show by itself, and the next line would stand behind the prompt.
    say("\n");
    Ok(Secret::new(text))
}
