//! The commands that talk to a mount that is up (`status`, `flush`, `umount`, `retry`, `discard`,
//! `export`, `verify`), and those that work on an account, mounted or not (`ls`, `lsl`, `lsd`, `lsjson`, `tree`,
//! `about`, `cat`, `copy`, `mkdir`, `mv`, `rm`, `dedupe`,
//! `link`, `trash`, `versions`, `cleanup`). Each is one function from its arguments to an exit code.

mod about;
mod cat;
mod change;
mod copy;
mod dedupe;
mod keep;
mod list;
mod list_json;
mod moment;
mod pages;
mod push;
mod resolve;
mod status;
mod tree;
mod verify;

use std::io::Write;

pub(crate) use about::about;
pub(crate) use cat::cat;
pub(crate) use change::{make, remove, rename};
pub(crate) use copy::copy;
pub(crate) use dedupe::dedupe;
pub(crate) use keep::{cleanup, link as public_link, trash, versions};
pub(crate) use list::{Columns, list, list_folders};
pub(crate) use list_json::list_json;
pub(crate) use pages::{completion, man};
pub(crate) use push::{bwlimit, flush, unmount};
pub(crate) use resolve::{discard, export, retry};
pub(crate) use status::status;
pub(crate) use tree::tree;
pub(crate) use verify::verify;

use crate::config::{RemoteSpec, link};
use crate::control::files::{FileAsk, FileReply, Item};
use crate::exit;
use crate::failure::Failure;
use crate::launch;
use crate::mount::{Account, hide_in};

/// The exit code of a command, after its failure has been told.
pub(crate) fn code(result: Result<u8, Failure>) -> u8 {
    match result {
        Ok(code) => code,
        Err(Failure::ReaderGone) => exit::DONE,
        Err(failure) => {
            launch::complain(&failure.to_string());
            exit::code(&failure)
        }
    }
}

/// Prints to standard output. A reader that has gone away is no failure of ours.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// A place that can be read: of a remote, or a public link, which others must not see.
fn place_to_read(text: &str) -> Result<RemoteSpec, Failure> {
    hide_in(Some(text).filter(|text| link::is_link(text)))?;
    text.parse()
}

/// What is at a path of an account.
fn about_item(account: &Account, path: &str) -> Result<Item, Failure> {
    let mut link = account.link()?;
    link.ask_files(FileAsk::Look {
        path: path.to_owned(),
        checksums: false,
    })?;
    match link.file_reply()? {
        FileReply::Item { item } => Ok(item),
        _ => Err(Failure::DaemonGone),
    }
}

/// 0 when Mega has everything, else 10.
fn code_of(is_safe: bool) -> u8 {
    if is_safe { exit::DONE } else { exit::WORK_LEFT }
}

/// `1 change`, `2 changes`.
pub(crate) fn counted(count: usize, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}
