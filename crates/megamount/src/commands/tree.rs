//! `tree`: folders and files drawn as `tree` draws them.

use std::collections::HashMap;

use super::list::{Out, each};
use super::place_to_read;
use crate::cli::TreeCommand;
use crate::control::files::{Item, Kind, joined, split};
use crate::failure::Failure;

/// The bytes of a folder are those of the files in it.
type Folders = HashMap<String, Vec<Item>>;

/// Runs the command.
pub(crate) fn tree(command: &TreeCommand) -> Result<u8, Failure> {
    let spec = place_to_read(&command.place)?;
    let mut folders = Folders::new();
    each(&spec, &command.account, command.level, |path, item| {
        let is_shown = item.kind != Kind::Link
            && (command.all || !item.name.starts_with('.'))
            && (!command.dirs_only || item.is_folder());
        let (folder, _) = split(path);
        if is_shown {
            folders
                .entry(folder.to_owned())
                .or_default()
                .push(item.clone());
        }
        Ok(())
    })?;
    let mut drawing = Drawing {
        command,
        folders: &folders,
        out: Out::new(),
        counts: (0, 0),
    };
    let size = drawing.size(bytes_below(&folders, "", 0));
    drawing.out.line(&format!("{size}/"))?;
    drawing.draw("", "", 0)?;
    let (below, files) = drawing.counts;
    let report = if command.dirs_only {
        format!("\n{below} directories")
    } else {
        format!("\n{below} directories, {files} files")
    };
    drawing.out.line(&report)?;
    drawing.out.end()
}

struct Drawing<'a> {
    command: &'a TreeCommand,
    folders: &'a Folders,
    out: Out,
    counts: (u64, u64),
}

/// Deeper than any path on Linux.
const DEEPEST: u32 = 4096;

fn bytes_below(folders: &Folders, folder: &str, depth: u32) -> u64 {
    let items = folders.get(folder).map_or(&[][..], Vec::as_slice);
    if depth > DEEPEST {
        return 0;
    }
    let bytes = items.iter().map(|item| {
        if item.is_folder() {
            bytes_below(folders, &joined(folder, &item.name), depth + 1)
        } else {
            item.size
        }
    });
    bytes.sum()
}

impl Drawing<'_> {
    fn size(&self, bytes: u64) -> String {
        if self.command.size {
            format!("[{bytes:11}]  ")
        } else {
            String::new()
        }
    }

    fn draw(&mut self, folder: &str, indent: &str, depth: u32) -> Result<(), Failure> {
        let items = self.folders.get(folder).map_or(&[][..], Vec::as_slice);
        if depth > DEEPEST {
            return Ok(());
        }
        for (index, item) in items.iter().enumerate() {
            let is_last = index + 1 == items.len();
            // The lines of tree(1), with rclone's spaces.
            let (branch, below) = if is_last {
                ("\u{2514}\u{2500}\u{2500} ", "    ")
            } else {
                ("\u{251c}\u{2500}\u{2500} ", "\u{2502}   ")
            };
            let path = joined(folder, &item.name);
            let bytes = if item.is_folder() {
                self.counts.0 += 1;
                bytes_below(self.folders, &path, depth)
            } else {
                self.counts.1 += 1;
                item.size
            };
            let (size, name) = (self.size(bytes), self.out.name(&item.name));
            self.out.line(&format!("{indent}{branch}{size}{name}"))?;
            if item.is_folder() {
                self.draw(&path, &format!("{indent}{below}"), depth + 1)?;
            }
        }
        Ok(())
    }
}
