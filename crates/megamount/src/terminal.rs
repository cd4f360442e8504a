//! Questions on the controlling terminal, which may be another one than standard input.
//!
//! Promises: an answer that is not echoed is never shown, and the terminal is left as it was, also
//! when the question is cancelled with Ctrl-C.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

use mega_crypto::Secret;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios};

/// Whether the answer shows while it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Echo {
    /// It shows.
    On,
    /// It does not.
    Off,
}

/// Why a question has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// Nobody can be asked.
    NoTerminal,
    /// Somebody was asked and did not want to answer.
    Cancelled,
}

/// Asks `prompt`.
pub(crate) fn ask(prompt: &str, echo: Echo) -> Result<Secret, NoAnswer> {
    let answer = line(prompt, echo)?;
    if answer.expose().is_empty() {
        return Err(NoAnswer::Cancelled);
    }
    Ok(answer)
}

/// Asks `prompt`; Enter alone is an empty answer.
pub(crate) fn line(prompt: &str, echo: Echo) -> Result<Secret, NoAnswer> {
    let tty = OpenOptions::new().read(true).write(true).open("/dev/tty");
    let mut tty = tty.map_err(|_| NoAnswer::NoTerminal)?;
    let answer = read_answer(&mut tty, prompt, echo).map_err(|_| NoAnswer::NoTerminal)?;
    answer.ok_or(NoAnswer::Cancelled)
}

/// Restores the terminal's modes when dropped.
struct Restore<'a> {
    tty: &'a File,
    modes: Termios,
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = rustix::termios::tcsetattr(self.tty, OptionalActions::Now, &self.modes);
    }
}

fn read_answer(tty: &mut File, prompt: &str, echo: Echo) -> io::Result<Option<Secret>> {
    let modes = rustix::termios::tcgetattr(&*tty)?;
    let mut raw = modes.clone();
    // Byte by byte and without signals: Ctrl-C becomes a byte, so the modes are always restored.
    raw.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    raw.special_codes[SpecialCodeIndex::VMIN] = 1;
    raw.special_codes[SpecialCodeIndex::VTIME] = 0;
    let clone = tty.try_clone()?;
    let restore = Restore { tty: &clone, modes };
    // Nothing is thrown away: people paste their answers, and type the next one ahead.
    rustix::termios::tcsetattr(&clone, OptionalActions::Now, &raw)?;
    tty.write_all(prompt.as_bytes())?;
    let answer = edit_line(tty, echo);
    drop(restore);
    tty.write_all(b"\n")?;
    answer
}

/// A line editor of the smallest kind: backspace, Ctrl-U, Enter, Ctrl-C and Ctrl-D.
fn edit_line(tty: &mut (impl Read + Write), echo: Echo) -> io::Result<Option<Secret>> {
    // The buffer never grows, so no copy of the answer is left behind unzeroed.
    let mut line = Vec::with_capacity(1024);
    let mut byte = [0u8];
    loop {
        if tty.read(&mut byte)? == 0 {
            return Ok(None);
        }
        let [key] = byte;
        match key {
            b'\r' | b'\n' => break,
            3 | 4 => return Ok(None),
            8 | 127 => {
                // A whole character, which may be several bytes.
                while line.pop().is_some_and(|last| last & 0xc0 == 0x80) {}
                if echo == Echo::On {
                    tty.write_all(b"\x08 \x08")?;
                }
            }
            21 => line.clear(),
            control if control < 32 => {}
            other if line.len() < line.capacity() => {
                line.push(other);
                if echo == Echo::On {
                    tty.write_all(&byte)?;
                }
            }
            _ => {}
        }
    }
    Ok(String::from_utf8(line).ok().map(Secret::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Typed<'a>(&'a [u8], Vec<u8>);

    impl Read for Typed<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.0.read(buf)
        }
    }

    impl Write for Typed<'_> {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.1.write(buf)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn typed(keys: &str, echo: Echo) -> (Option<String>, String) {
        let mut tty = Typed(keys.as_bytes(), vec![]);
        let answer = edit_line(&mut tty, echo).unwrap();
        (
            answer.map(|a| a.expose().to_owned()),
            String::from_utf8(tty.1).unwrap(),
        )
    }

    #[test]
    fn lines_can_be_edited() {
        assert_eq!(
            typed("secret\r", Echo::Off),
            (Some("secret".into()), String::new())
        );
        assert_eq!(typed("a\u{f6}\x7f\x7fb\n", Echo::Off).0.unwrap(), "b");
        assert_eq!(typed("wrong\x15right\n", Echo::Off).0.unwrap(), "right");
        assert_eq!(typed("123\n", Echo::On), (Some("123".into()), "123".into()));
    }

    #[test]
    fn questions_can_be_cancelled() {
        assert_eq!(typed("abc\x03", Echo::Off).0, None);
        assert_eq!(typed("\x04", Echo::Off).0, None);
        assert_eq!(typed("abc", Echo::Off).0, None, "the terminal went away");
        assert_eq!(typed("\n", Echo::Off).0.unwrap(), "", "nothing was typed");
    }
}
