//! `verify`: compare files with Mega's checksums.

use super::resolve::below;
use super::{counted, say};
use crate::cli::VerifyCommand;
use crate::control::client::{self, unexpected};
use crate::control::protocol::{Ask, Reply};
use crate::display::{WorkBar, printable};
use crate::exit;
use crate::failure::Failure;
use crate::paths;

/// Runs `verify`.
pub(crate) fn verify(command: &VerifyCommand) -> Result<u8, Failure> {
    let path = paths::absolute(&command.path)?;
    let target = path
        .to_str()
        .ok_or_else(|| Failure::Usage("the path is not UTF-8, as names on Mega are.".to_owned()))?;
    let link = client::find(target)?;
    let path = below(&link, &path)?;
    // A file may take long to come.
    let mut link = link.second()?;
    link.send(&Ask::Verify { path })?;
    let bar = WorkBar::new();
    loop {
        match link.next()? {
            Reply::Verifying { bytes, done, .. } => bar.show(done, bytes),
            Reply::Doubtful { path, text } => {
                bar.aside(|| say(&format!("{}: {text}\n", printable(&path))));
            }
            Reply::Verified { good, bad, changed } => {
                drop(bar);
                say(&summary(good, bad, changed));
                return Ok(if bad == 0 { exit::DONE } else { exit::OTHER });
            }
            other => return Err(unexpected(&other)),
        }
    }
}

fn summary(good: usize, bad: usize, changed: usize) -> String {
    let mut text = format!("{} good, {bad} bad", counted(good, "file"));
    if changed > 0 {
        text += &format!(", {changed} not on Mega yet and not checked");
    }
    text + ".\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_what_was_left_out() {
        assert_eq!(summary(1, 0, 0), "1 file good, 0 bad.\n");
        assert_eq!(
            summary(2, 1, 3),
            "2 files good, 1 bad, 3 not on Mega yet and not checked.\n"
        );
    }
}
