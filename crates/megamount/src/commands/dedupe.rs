//! `dedupe`: several files or folders of one name become one, as 'rclone dedupe' does it.
//!
//! Folders of one name are merged first. Of files with the same content all but one go, without a question: the
//! same MAC of the same size proves it; where only the sparse checksums agree, both are read and compared. What is
//! left of a name is handled by the mode. What goes, goes to the rubbish bin. The one that is left gets
//! the name without a number, if it had one.

mod choose;

use std::collections::BTreeMap;

use super::change::change;
use super::counted;
use super::list::each_of;
use super::moment::Clock;
use super::say;
use crate::cli::{DedupeCommand, DedupeMode};
use crate::config::RemoteSpec;
use crate::control::client::Link;
use crate::control::files::{FileAsk, FileReply, Item, Kind, joined};
use crate::display::printable;
use crate::exit;
use crate::failure::Failure;
use crate::mount::{Account, Need};
use choose::{Choice, choose};

/// An item and where it is.
#[derive(Debug, Clone)]
pub(super) struct Twin {
    path: String,
    item: Item,
}

struct Run<'a> {
    account: &'a Account,
    remote: &'a str,
    mode: DedupeMode,
    is_dry: bool,
    clock: Clock,
    found: usize,
    removed: usize,
}

/// Runs the command.
pub(crate) fn dedupe(command: &DedupeCommand) -> Result<u8, Failure> {
    let (mode, place) = command.mode_and_place()?;
    let spec: RemoteSpec = place.parse()?;
    let need = if mode == DedupeMode::List {
        Need::Look
    } else {
        Need::Work
    };
    let account = Account::open_own(&spec.name, &command.account, need)?;
    let mut run = Run {
        account: &account,
        remote: &spec.name,
        mode,
        is_dry: command.dry_run,
        clock: Clock::local(),
        found: 0,
        removed: 0,
    };
    run.folders(std::slice::from_ref(&spec.path))?;
    if mode != DedupeMode::List {
        let removed = counted(run.removed, "duplicate");
        let verb = if run.is_dry { "would be" } else { "were" };
        say(&format!(
            "{} with duplicates; {removed} {verb} removed.\n",
            counted(run.found, "name")
        ));
    }
    Ok(exit::DONE)
}

impl Run<'_> {
    /// What is in a folder, or in several of one name; what is in the others comes into the first.
    fn folders(&mut self, folders: &[String]) -> Result<(), Failure> {
        let Some((main, others)) = folders.split_first() else {
            return Ok(());
        };
        // All of each name, the oldest first, whichever has it without a number.
        let mut names: BTreeMap<String, Vec<Twin>> = BTreeMap::new();
        for folder in folders {
            let mut listed = self.listed(folder)?;
            listed.sort_by_key(|twin| twin.item.order);
            for twin in listed {
                let name = twin.item.plain_name().to_owned();
                names.entry(name).or_default().push(twin);
            }
        }
        for (name, twins) in names {
            let (below, files): (Vec<_>, Vec<_>) =
                twins.into_iter().partition(|twin| twin.item.is_folder());
            let is_mixed = !below.is_empty() && !files.is_empty();
            let place = joined(main, &name);
            self.same_folders(&place, below, is_mixed)?;
            match files.len() {
                0 => {}
                1 if !is_mixed => self.gather(&place, files)?,
                1 => {}
                _ => self.same_files(&place, files)?,
            }
        }
        for folder in others {
            if self.mode != DedupeMode::List && !self.is_dry && self.listed(folder)?.is_empty() {
                self.remove(folder, None)?;
            }
        }
        Ok(())
    }

    fn same_folders(
        &mut self,
        place: &str,
        folders: Vec<Twin>,
        is_mixed: bool,
    ) -> Result<(), Failure> {
        let paths: Vec<_> = folders.iter().map(|twin| twin.path.clone()).collect();
        if paths.len() < 2 {
            // It may come out of a folder that is merged.
            let moved = !is_mixed && self.gather_path(place, &folders)?;
            let paths = if moved { vec![place.to_owned()] } else { paths };
            return self.folders(&paths);
        }
        self.found += 1;
        if self.mode == DedupeMode::List {
            self.tell(place, &format!("{} folders of this name", paths.len()));
            return paths
                .iter()
                .try_for_each(|path| self.folders(std::slice::from_ref(path)));
        }
        let text = if self.is_dry {
            format!("{} folders of this name would be merged", paths.len())
        } else {
            format!("Merging {} folders of this name", paths.len())
        };
        self.tell(place, &text);
        self.folders(&paths)
    }

    /// Several files of one name.
    fn same_files(&mut self, place: &str, files: Vec<Twin>) -> Result<(), Failure> {
        self.found += 1;
        if self.mode == DedupeMode::List {
            self.tell(place, &format!("{} duplicates", files.len()));
            self.show(&files);
            return Ok(());
        }
        self.tell(
            place,
            &format!("Found {} files with duplicate names", files.len()),
        );
        let left = self.without_identical(place, files)?;
        if left.len() == 1 {
            return self.gather(place, left);
        }
        self.tell(place, &format!("{} duplicates remain", left.len()));
        match choose(self.mode, &left, || self.show(&left))? {
            Choice::Skip => Ok(()),
            Choice::Keep(index) => {
                let mut left = left;
                let kept = left.remove(index.min(left.len() - 1));
                for twin in &left {
                    self.remove(&twin.path, twin.item.handle.as_deref())?;
                }
                let text = format!("Deleted {} extra copies", left.len());
                self.tell(place, &text);
                self.gather(place, vec![kept])
            }
            Choice::Rename => self.rename_all(place, &left),
        }
    }

    /// Removes all but one of those with the same content.
    fn without_identical(&mut self, place: &str, files: Vec<Twin>) -> Result<Vec<Twin>, Failure> {
        let mut left: Vec<Twin> = Vec::new();
        let mut gone = 0;
        for twin in files {
            let mut is_known = false;
            for kept in &left {
                if self.is_identical(kept, &twin)? {
                    is_known = true;
                    break;
                }
            }
            if is_known {
                self.remove(&twin.path, twin.item.handle.as_deref())?;
                gone += 1;
            } else {
                left.push(twin);
            }
        }
        if gone > 0 {
            self.tell(place, &format!("Deleting {gone} identical duplicates"));
        }
        Ok(left)
    }

    fn is_identical(&self, one: &Twin, other: &Twin) -> Result<bool, Failure> {
        let (a, b) = (&one.item, &other.item);
        if a.size != b.size || a.kind != Kind::File || b.kind != Kind::File {
            return Ok(false);
        }
        if a.size == 0 {
            return Ok(true);
        }
        if a.mac.is_some() && a.mac == b.mac {
            return Ok(true);
        }
        let sum = |item: &Item| {
            let text = item.fingerprint.as_deref()?;
            mega_crypto::Fingerprint::parse(text).map(|fingerprint| fingerprint.crc)
        };
        // Without checksums on both sides the bytes tell.
        match (sum(a), sum(b)) {
            (Some(a), Some(b)) if a != b => Ok(false),
            _ => same_bytes(
                (self.account.link()?, &one.path),
                (self.account.link()?, &other.path),
            ),
        }
    }

    /// `name-1.ext`, `name-2.ext`, ... as rclone has it.
    fn rename_all(&mut self, place: &str, files: &[Twin]) -> Result<(), Failure> {
        let (folder, name) = crate::control::files::split(place);
        let (stem, end) = match name.rsplit_once('.') {
            Some((stem, end)) if !stem.is_empty() => (stem, format!(".{end}")),
            _ => (name, String::new()),
        };
        let mut taken: Vec<_> = self
            .listed(folder)?
            .into_iter()
            .map(|twin| twin.item.name)
            .collect();
        let mut number = 1;
        for twin in files {
            let new = loop {
                let new = format!("{stem}-{number}{end}");
                number += 1;
                if !taken.contains(&new) {
                    break new;
                }
            };
            let to = joined(folder, &new);
            self.rename(twin, &to)?;
            self.tell(&to, &format!("renamed from: {name}"));
            taken.push(new);
        }
        Ok(())
    }

    /// The only one of its name gets the name, and its place.
    fn gather(&mut self, place: &str, twins: Vec<Twin>) -> Result<(), Failure> {
        self.gather_path(place, &twins).map(drop)
    }

    fn gather_path(&mut self, place: &str, twins: &[Twin]) -> Result<bool, Failure> {
        match twins {
            [twin] if twin.path != place && self.mode != DedupeMode::List && !self.is_dry => {
                self.rename(twin, place)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn listed(&self, folder: &str) -> Result<Vec<Twin>, Failure> {
        let spec = RemoteSpec {
            name: self.remote.to_owned(),
            path: folder.to_owned(),
        };
        let mut found = Vec::new();
        each_of(self.account, &spec, (Some(1), true), |name, item| {
            found.push(Twin {
                path: joined(folder, name),
                item: item.clone(),
            });
            Ok(())
        })?;
        Ok(found)
    }

    /// Only what was looked at: a name can have become another's meanwhile.
    fn remove(&mut self, path: &str, handle: Option<&str>) -> Result<(), Failure> {
        self.removed += 1;
        if self.is_dry {
            return Ok(());
        }
        let ask = FileAsk::Remove {
            path: path.to_owned(),
            recursive: false,
            handle: handle.map(str::to_owned),
        };
        change(self.account, ask)
    }

    fn rename(&self, twin: &Twin, to: &str) -> Result<(), Failure> {
        if self.is_dry {
            return Ok(());
        }
        let ask = FileAsk::Rename {
            from: twin.path.clone(),
            to: to.to_owned(),
            handle: twin.item.handle.clone(),
        };
        change(self.account, ask)
    }

    fn tell(&self, place: &str, text: &str) {
        say(&format!("{}: {text}\n", printable(place)));
    }

    fn show(&self, files: &[Twin]) {
        for (number, twin) in (1..).zip(files) {
            let (item, time) = (&twin.item, self.clock.long(twin.item.mtime));
            let handle = item.handle.as_deref().unwrap_or("not on Mega yet");
            say(&format!(
                "{number:3}: {:12} bytes, {time}, {handle}, {}\n",
                item.size,
                printable(&item.name)
            ));
        }
    }
}

/// Reads both and compares.
fn same_bytes(
    (mut one, first): (Link, &str),
    (mut other, second): (Link, &str),
) -> Result<bool, Failure> {
    for (link, path) in [(&mut one, first), (&mut other, second)] {
        link.ask_files(FileAsk::Read {
            path: path.to_owned(),
            offset: 0,
            length: None,
        })?;
    }
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        // Both come in pieces of the same length but where a read was short.
        let more_a = left.is_empty() && next(&mut one, &mut a, &mut left)?;
        let more_b = right.is_empty() && next(&mut other, &mut b, &mut right)?;
        let length = left.len().min(right.len());
        if length == 0 {
            return Ok(left.is_empty() && right.is_empty() && !more_a && !more_b);
        }
        if left.get(..length) != right.get(..length) {
            return Ok(false);
        }
        left.drain(..length);
        right.drain(..length);
    }
}

/// The next piece of a read; whether there was one.
fn next(link: &mut Link, buffer: &mut Vec<u8>, piece: &mut Vec<u8>) -> Result<bool, Failure> {
    match link.file_reply()? {
        FileReply::Bytes { length } => {
            link.bytes(length, buffer)?;
            std::mem::swap(buffer, piece);
            Ok(true)
        }
        FileReply::Done => Ok(false),
        _ => Err(Failure::DaemonGone),
    }
}
