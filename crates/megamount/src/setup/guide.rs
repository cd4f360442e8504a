//! The session of `megamount config` with its questions.
//!
//! Order and words are those of `rclone config`, so that fingers and instructions that know it
//! need nothing new. A remote is written when it is confirmed, not before.

use super::password;
use super::questions::{Choice, choose, line, needed, new_password};
use crate::cli::ConfigPlace;
use crate::commands::say;
use crate::config::edit::{Editor, NewPassword, NewRemote};
use crate::config::{self, is_remote_name};
use crate::failure::Failure;
use crate::paths;

const FIRST: &[Choice] = &[
    ('n', "New remote"),
    ('s', "Set configuration password"),
    ('q', "Quit config"),
];
const MENU: &[Choice] = &[
    ('e', "Edit existing remote"),
    ('n', "New remote"),
    ('d', "Delete remote"),
    ('r', "Rename remote"),
    ('c', "Copy remote"),
    ('s', "Set configuration password"),
    ('q', "Quit config"),
];
const PASSWORD: &[Choice] = &[
    ('y', "Yes, type in my own password"),
    ('g', "Generate random password"),
    ('n', "No, leave this optional password blank"),
];
const CHANGED: &[Choice] = &[
    ('y', "Yes, type in my own password"),
    ('g', "Generate random password"),
    ('n', "No, leave it as it is"),
];
const KEEP: &[Choice] = &[
    ('y', "Yes this is OK"),
    ('e', "Edit this remote"),
    ('d', "Delete this remote"),
];
const YES_NO: &[Choice] = &[('y', "Yes"), ('n', "No")];

/// Asks until the user has enough.
pub(super) fn run(place: &ConfigPlace) -> Result<(), Failure> {
    loop {
        // Read again each time: another program may have written meanwhile.
        let editor = Editor::open(place)?;
        let names = editor.names();
        let chosen = if names.is_empty() {
            say("No remotes found - make a new one\n");
            choose(FIRST, None)?
        } else {
            say("Current remotes:\n\nName                 Type\n====                 ====\n");
            for name in &names {
                say(&format!("{name:<20} mega\n"));
            }
            say("\n");
            choose(MENU, None)?
        };
        match chosen {
            'n' => {
                let name = new_name(&editor)?;
                storage()?;
                fill(place, &name)?;
            }
            'e' => fill(place, &existing(&names)?)?,
            'd' => delete(place, editor, &existing(&names)?)?,
            'r' => rename(place, editor, &existing(&names)?)?,
            'c' => copy(editor, &existing(&names)?)?,
            's' => {
                say("\n");
                password::run(place)?;
            }
            _ => return Ok(()),
        }
        say("\n");
    }
}

fn new_name(editor: &Editor) -> Result<String, Failure> {
    loop {
        say("\nEnter name for new remote.\n");
        let name = line("name> ")?;
        if !is_remote_name(&name) {
            say(
                "A name begins with a letter, digit or underscore, and has only those, dots, \
                 dashes and spaces.\n",
            );
        } else if editor.has(&name) {
            say(&format!("Remote \"{name}\" already exists.\n"));
        } else {
            return Ok(name);
        }
    }
}

/// There is one type, and the question is still asked: it is in every instruction.
fn storage() -> Result<(), Failure> {
    say(
        "\nOption Storage.\nType of storage to configure.\nChoose a number from below, or type in \
         your own value.\n 1 / Mega\n   \\ (mega)\n",
    );
    loop {
        if matches!(line("Storage> ")?.as_str(), "1" | "mega" | "Mega") {
            return Ok(());
        }
        say("megamount knows the type 'mega' only.\n");
    }
}

/// Asks for everything a remote has, and writes it when it is confirmed.
fn fill(place: &ConfigPlace, name: &str) -> Result<(), Failure> {
    let mut drafts: Option<NewRemote> = None;
    loop {
        let mut editor = Editor::open(place)?;
        let new = remote(&editor, name, drafts.as_ref())?;
        editor.set(name, &new)?;
        summary(&editor, name);
        match choose(KEEP, Some('y'))? {
            'y' => return editor.save(),
            'e' => drafts = Some(new),
            // As in rclone: also a remote that was there before.
            _ => {
                let editor = Editor::open(place)?;
                return if editor.has(name) {
                    delete(place, editor, name)
                } else {
                    Ok(())
                };
            }
        }
    }
}

fn remote(editor: &Editor, name: &str, draft: Option<&NewRemote>) -> Result<NewRemote, Failure> {
    let user = draft
        .map(|draft| draft.user.clone())
        .or_else(|| editor.value(name, "user"));
    match &user {
        None => say("\nOption user.\nUser name.\nEnter a value.\n"),
        Some(user) => say(&format!(
            "\nOption user.\nUser name.\nEnter a value. Press Enter for the default ({user}).\n"
        )),
    }
    let user = needed("user> ", user.as_deref())?;
    say("\nOption pass.\nPassword.\nChoose an alternative below.\n");
    let known = draft.is_some() || editor.has(name);
    let chosen = choose(if known { CHANGED } else { PASSWORD }, Some('n'))?;
    let password = match chosen {
        'y' => obscured(new_password("the")?.expose())?,
        'g' => match generated()? {
            Some(password) => obscured(&password)?,
            None => return remote(editor, name, draft),
        },
        _ => {
            let before = draft.map_or(NewPassword::AsIs, |draft| draft.password.clone());
            command(if known { before } else { NewPassword::Ask })?
        }
    };
    Ok(NewRemote {
        user,
        password,
        hard_delete: None,
    })
}

/// The third way to a password: a command that prints it.
fn command(otherwise: NewPassword) -> Result<NewPassword, Failure> {
    say(
        "\nOption pass-command.\nA command that prints the password, such as 'pass show mega'.\n\
         Enter a value. Press Enter to leave empty.\n",
    );
    let command = line("pass-command> ")?;
    Ok(if command.is_empty() {
        otherwise
    } else {
        NewPassword::Command(command)
    })
}

fn obscured(clear: &str) -> Result<NewPassword, Failure> {
    mega_crypto::obscure(clear)
        .map(NewPassword::Obscured)
        .map_err(|e| Failure::Other(format!("cannot obscure the password: {e}.")))
}

/// A random password of the strength that is asked for; none if the user does not like it.
fn generated() -> Result<Option<String>, Failure> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    say(
        "Password strength in bits.\n64 is just about memorable\n128 is secure\n1024 is the \
         maximum\n",
    );
    let bits: usize = loop {
        match line("Bits> ")?.parse() {
            Ok(bits) if (64..=1024).contains(&bits) => break bits,
            _ => say("This value must be a number from 64 to 1024.\n"),
        }
    };
    let mut bytes = vec![0; bits.div_ceil(6)];
    getrandom::fill(&mut bytes)
        .map_err(|e| Failure::Other(format!("the system gives no random bytes: {e}.")))?;
    // 256 is a multiple of 64: every letter is as likely.
    let letter = |byte: &u8| LETTERS.get(usize::from(byte % 64)).copied().map(char::from);
    let password: String = bytes.iter().filter_map(letter).collect();
    say(&format!(
        "Your password is: {password}\nUse this password? Please note that an obscured version of \
         this\npassword (and not the password itself) will be stored under your\nconfiguration \
         file, so keep this generated password in a safe place.\nThe account must have it, too: \
         megamount does not change passwords at Mega.\n"
    ));
    Ok((choose(YES_NO, Some('y'))? == 'y').then_some(password))
}

/// What will be written, in the words of rclone's file, and no secret.
fn summary(editor: &Editor, name: &str) {
    let rule = "--------------------\n";
    say(&format!("{rule}[{name}]\ntype = mega\n"));
    for key in ["user", "pass", "pass-command", "pass-file", "totp-command"] {
        match editor.value(name, key) {
            Some(_) if key == "pass" => say("pass = *** ENCRYPTED ***\n"),
            Some(value) => say(&format!("{key} = {value}\n")),
            None => {}
        }
    }
    say(rule);
}

/// Asks for one of `names`, by number or by name.
fn existing(names: &[String]) -> Result<String, Failure> {
    say("\nSelect remote.\nChoose a number from below, or type in an existing value.\n");
    for (number, name) in names.iter().enumerate() {
        say(&format!("{:2} > {name}\n", number + 1));
    }
    loop {
        let answer = line("remote> ")?;
        if names.contains(&answer) {
            return Ok(answer);
        }
        let number = answer.parse::<usize>().ok();
        if let Some(name) = number.and_then(|number| names.get(number.checked_sub(1)?)) {
            return Ok(name.clone());
        }
        say("This value must be one of the remotes above.\n");
    }
}

fn delete(place: &ConfigPlace, mut editor: Editor, name: &str) -> Result<(), Failure> {
    editor.remove(name)?;
    editor.save()?;
    if let Some(state) = state_of(place, name)? {
        say(&format!(
            "\nIts session, and changes that are not on Mega yet, are kept in {state}.\n"
        ));
    }
    Ok(())
}

fn rename(place: &ConfigPlace, mut editor: Editor, name: &str) -> Result<(), Failure> {
    if let Some(state) = state_of(place, name)? {
        say(&format!(
            "\nNot renamed: {state} has its session, and perhaps changes that are not on Mega yet, \
             under this name.\nMake a copy under the new name instead.\n"
        ));
        return Ok(());
    }
    let to = new_name(&editor)?;
    editor.copy(name, &to)?;
    editor.remove(name)?;
    editor.save()
}

fn copy(mut editor: Editor, name: &str) -> Result<(), Failure> {
    let to = new_name(&editor)?;
    editor.copy(name, &to)?;
    editor.save()
}

/// Where the state of a remote is, if it has any.
fn state_of(place: &ConfigPlace, name: &str) -> Result<Option<String>, Failure> {
    let settings = config::options_of(name, place)?.resolve();
    let state = paths::of_remote(name, &settings)?.state_dir;
    Ok(state.exists().then(|| state.display().to_string()))
}
