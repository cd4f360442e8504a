//! `completion` and `man`: writing what is generated.

use std::io::Write;
use std::path::Path;

use crate::cli::{CompletionCommand, ManCommand};
use crate::exit;
use crate::failure::Failure;
use crate::paths;

/// Runs `completion`.
#[expect(clippy::unnecessary_wraps, reason = "as all commands")]
pub(crate) fn completion(command: &CompletionCommand) -> Result<u8, Failure> {
    print(&command.script());
    Ok(exit::DONE)
}

/// Runs `man`.
pub(crate) fn man(command: &ManCommand) -> Result<u8, Failure> {
    let pages = ManCommand::pages()
        .map_err(|e| Failure::Other(format!("the manual pages cannot be made: {e}.")))?;
    let Some(directory) = &command.directory else {
        if let Some(page) = pages.first() {
            print(&page.text);
        }
        return Ok(exit::DONE);
    };
    let directory = paths::absolute(directory)?;
    for page in pages {
        write(&directory.join(page.file), &page.text)?;
    }
    Ok(exit::DONE)
}

/// A reader that has gone away is no failure of ours.
fn print(text: &[u8]) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text).and_then(|()| out.flush());
}

#[expect(
    clippy::disallowed_methods,
    reason = "a page is made again, not repaired"
)]
fn write(path: &Path, text: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|e| {
        Failure::Other(format!(
            "cannot write {}: {e}. The directory must exist and be yours.",
            path.display()
        ))
    })
}
