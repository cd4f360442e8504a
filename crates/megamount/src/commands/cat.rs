//! `cat`: content to standard output.

use super::about_item;
use super::list::{Out, each_of};
use crate::cli::CatCommand;
use crate::config::{RemoteSpec, link};
use crate::control::client::Link;
use crate::control::files::{FileAsk, FileReply, Item, Kind, joined};
use crate::failure::Failure;
use crate::mount::{Account, Need, hide_in};

/// Runs the command.
pub(crate) fn cat(command: &CatCommand) -> Result<u8, Failure> {
    let links = command.places.iter().map(String::as_str);
    hide_in(links.filter(|place| link::is_link(place)))?;
    let specs = command
        .places
        .iter()
        .map(|place| place.parse::<RemoteSpec>())
        .collect::<Result<Vec<_>, _>>()?;
    let mut out = Out::new();
    for spec in specs {
        let account = Account::open(&spec.name, &command.account, Need::Work)?;
        let mut files = Vec::new();
        each_of(&account, &spec, (None, false), |path, item| {
            if item.kind == Kind::File {
                files.push((path.to_owned(), item.clone()));
            }
            Ok(())
        })?;
        let is_file = !about_item(&account, &spec.path)?.is_folder();
        let mut link = account.link()?;
        for (path, item) in files {
            let path = if is_file {
                spec.path.clone()
            } else {
                joined(&spec.path, &path)
            };
            print(&mut link, &path, range(command, &item), &mut out)?;
        }
    }
    out.end()
}

/// Where to begin, and how many bytes to print at most.
fn range(command: &CatCommand, item: &Item) -> (u64, Option<u64>) {
    let from_end = |back: u64| item.size.saturating_sub(back);
    match (command.head, command.tail) {
        (Some(head), _) => (0, Some(head)),
        (None, Some(tail)) => (from_end(u64::from(tail)), None),
        (None, None) if command.offset < 0 => {
            (from_end(command.offset.unsigned_abs()), command.count)
        }
        (None, None) => (command.offset.unsigned_abs(), command.count),
    }
}

fn print(
    link: &mut Link,
    path: &str,
    (offset, length): (u64, Option<u64>),
    out: &mut Out,
) -> Result<(), Failure> {
    link.ask_files(FileAsk::Read {
        path: path.to_owned(),
        offset,
        length,
    })?;
    let mut buffer = Vec::new();
    loop {
        match link.file_reply()? {
            FileReply::Bytes { length } => {
                link.bytes(length, &mut buffer)?;
                out.print(&buffer)?;
            }
            FileReply::Done => return Ok(()),
            _ => return Err(Failure::DaemonGone),
        }
    }
}
