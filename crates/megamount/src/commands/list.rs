//! `ls`, `lsl`, `lsd`: lines with rclone's columns.

use std::io::{BufWriter, Write};

use super::moment::Clock;
use super::place_to_read;
use crate::cli::{AccountOptions, FoldersCommand, ListCommand};
use crate::config::RemoteSpec;
use crate::control::files::{FileAsk, FileReply, Item, Kind, joined};
use crate::display::printable;
use crate::exit;
use crate::failure::Failure;
use crate::mount::{Account, Need};

/// Which columns stand before the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Columns {
    /// `ls`.
    Size,
    /// `lsl`.
    SizeAndTime,
}

/// Runs `ls` and `lsl`.
pub(crate) fn list(command: &ListCommand, columns: Columns) -> Result<u8, Failure> {
    let clock = Clock::local();
    let spec = place_to_read(&command.place)?;
    let mut out = Out::new();
    each(&spec, &command.account, command.max_depth, |path, item| {
        if item.kind != Kind::File {
            return Ok(());
        }
        let path = out.name(path);
        match columns {
            Columns::Size => out.line(&format!("{:9} {path}", item.size)),
            Columns::SizeAndTime => {
                let time = clock.long(item.mtime);
                out.line(&format!("{:9} {time} {path}", item.size))
            }
        }
    })?;
    out.end()
}

/// Runs `lsd`.
pub(crate) fn list_folders(command: &FoldersCommand) -> Result<u8, Failure> {
    let clock = Clock::local();
    let spec = place_to_read(&command.place)?;
    let depth = match (command.max_depth, command.recursive) {
        (Some(depth), _) => Some(depth),
        (None, true) => None,
        (None, false) => Some(1),
    };
    let mut out = Out::new();
    each(&spec, &command.account, depth, |path, item| {
        if !item.is_folder() {
            return Ok(());
        }
        let time = clock.short(item.mtime);
        let path = out.name(path);
        out.line(&format!("{:12} {time} {:9} {path}", -1, -1))
    })?;
    out.end()
}

/// Lists a place; `take` gets each entry with its path below the place.
pub(super) fn each(
    spec: &RemoteSpec,
    options: &AccountOptions,
    depth: Option<u32>,
    mut take: impl FnMut(&str, &Item) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let account = Account::open(&spec.name, options, Need::Look)?;
    each_of(&account, spec, (depth, false), |path, item| {
        take(path, item)
    })
}

/// As [`each`], of an account that is open; the depth, and whether checksums are wanted.
pub(super) fn each_of(
    account: &Account,
    spec: &RemoteSpec,
    (depth, checksums): (Option<u32>, bool),
    mut take: impl FnMut(&str, &Item) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut link = account.link()?;
    link.ask_files(FileAsk::List {
        path: spec.path.clone(),
        depth,
        checksums,
    })?;
    loop {
        match link.file_reply()? {
            FileReply::Items { folder, items } => {
                let inner = folder
                    .strip_prefix(&spec.path)
                    .unwrap_or("")
                    .trim_start_matches('/');
                for item in &items {
                    take(&joined(inner, &item.name), item)?;
                }
            }
            FileReply::Done => return Ok(()),
            _ => return Err(Failure::DaemonGone),
        }
    }
}

/// Standard output, for many lines.
pub(super) struct Out {
    out: BufWriter<std::io::Stdout>,
    is_terminal: bool,
    is_gone: bool,
}

impl Out {
    /// Nothing printed yet.
    pub(super) fn new() -> Self {
        let out = std::io::stdout();
        Self {
            is_terminal: std::io::IsTerminal::is_terminal(&out),
            out: BufWriter::with_capacity(64 << 10, out),
            is_gone: false,
        }
    }

    /// A name from Mega: as it is for programs, without control characters for a terminal.
    pub(super) fn name(&self, name: &str) -> String {
        if self.is_terminal {
            printable(name)
        } else {
            name.to_owned()
        }
    }

    /// Prints a line. A reader that has gone away, as `head` does, ends the command without a complaint.
    pub(super) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.print(text.as_bytes())?;
        self.print(b"\n")
    }

    /// Prints bytes.
    pub(super) fn print(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.out.write_all(bytes);
        self.check(written)
    }

    /// The last word: everything is printed.
    pub(super) fn end(mut self) -> Result<u8, Failure> {
        let flushed = self.out.flush();
        self.check(flushed)?;
        Ok(exit::DONE)
    }

    fn check(&mut self, written: std::io::Result<()>) -> Result<(), Failure> {
        match written {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                self.is_gone = true;
                Err(Failure::ReaderGone)
            }
            Err(error) => Err(Failure::Output {
                reason: error.to_string(),
            }),
        }
    }
}
