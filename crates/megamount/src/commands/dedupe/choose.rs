//! Which of several files of one name is kept.

use super::Twin;
use crate::cli::DedupeMode;
use crate::failure::Failure;
use crate::terminal::{self, Echo, NoAnswer};

/// What becomes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// Nothing.
    Skip,
    /// All but this one go.
    Keep(usize),
    /// Each gets a name of its own.
    Rename,
}

/// Chooses by the mode; `show` lists them for a question.
pub(super) fn choose(
    mode: DedupeMode,
    files: &[Twin],
    show: impl FnOnce(),
) -> Result<Choice, Failure> {
    let keep = |index: Option<usize>| index.map_or(Choice::Skip, Choice::Keep);
    let numbered = || files.iter().enumerate();
    let of = |twin: &Twin| (twin.item.mtime, twin.item.size);
    Ok(match mode {
        DedupeMode::Skip | DedupeMode::List => Choice::Skip,
        DedupeMode::First => keep((!files.is_empty()).then_some(0)),
        // The first of several that are equally new, as rclone has it.
        DedupeMode::Newest => keep(
            numbered()
                .rev()
                .max_by_key(|(_, twin)| of(twin).0)
                .map(|(index, _)| index),
        ),
        DedupeMode::Oldest => keep(
            numbered()
                .min_by_key(|(_, twin)| of(twin).0)
                .map(|(index, _)| index),
        ),
        DedupeMode::Largest => keep(
            numbered()
                .rev()
                .max_by_key(|(_, twin)| of(twin).1)
                .map(|(index, _)| index),
        ),
        DedupeMode::Smallest => keep(
            numbered()
                .min_by_key(|(_, twin)| of(twin).1)
                .map(|(index, _)| index),
        ),
        DedupeMode::Rename => Choice::Rename,
        DedupeMode::Interactive => {
            show();
            ask(files.len())?
        }
    })
}

fn ask(count: usize) -> Result<Choice, Failure> {
    let question = "s) Skip and do nothing\nk) Keep just one (choose which in next step)\n\
                    r) Rename all to be different (by changing file.jpg to file-1.jpg)\n\
                    q) Quit\ns/k/r/q> ";
    loop {
        match answer(question)?.as_str() {
            "s" => return Ok(Choice::Skip),
            "r" => return Ok(Choice::Rename),
            "q" => return Err(Failure::SetupCancelled),
            "k" => break,
            _ => {}
        }
    }
    loop {
        let number = answer("Enter the number of the file to keep> ")?;
        if let Ok(number @ 1..) = number.parse::<usize>()
            && number <= count
        {
            return Ok(Choice::Keep(number - 1));
        }
    }
}

fn answer(prompt: &str) -> Result<String, Failure> {
    match terminal::line(prompt, Echo::On) {
        Ok(answer) => Ok(answer.expose().trim().to_ascii_lowercase()),
        Err(NoAnswer::Cancelled) => Err(Failure::Other(
            "cancelled. What was done before stays done.".to_owned(),
        )),
        Err(NoAnswer::NoTerminal) => Err(Failure::Usage(
            "there is no terminal to ask what to keep. Give a mode: skip, first, newest, oldest, largest, \
             smallest, rename or list."
                .to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::files::{Item, Kind};

    fn twin(seconds: i64, size: u64) -> Twin {
        Twin {
            path: String::new(),
            item: Item {
                name: String::new(),
                plain: None,
                order: 0,
                kind: Kind::File,
                size,
                mtime: (seconds, 0),
                handle: None,
                executable: false,
                pending: false,
                locked: false,
                fingerprint: None,
                mac: None,
            },
        }
    }

    #[test]
    fn modes_keep_what_they_say() {
        let files = [
            twin(2, 20),
            twin(3, 10),
            twin(1, 30),
            twin(3, 30),
            twin(1, 10),
        ];
        let kept = |mode| choose(mode, &files, || ()).unwrap();
        assert_eq!(kept(DedupeMode::Skip), Choice::Skip);
        assert_eq!(kept(DedupeMode::First), Choice::Keep(0));
        assert_eq!(kept(DedupeMode::Newest), Choice::Keep(1));
        assert_eq!(kept(DedupeMode::Oldest), Choice::Keep(2));
        assert_eq!(kept(DedupeMode::Largest), Choice::Keep(2));
        assert_eq!(kept(DedupeMode::Smallest), Choice::Keep(1));
        assert_eq!(kept(DedupeMode::Rename), Choice::Rename);
    }
}
