//! `lsjson`: rclone's JSON fields.

use serde::Serialize;

use super::list::{Out, each_of};
use super::moment::Clock;
use super::{place_to_read, say};
use crate::cli::ListJsonCommand;
use crate::control::files::{FileAsk, FileReply, Item, split};
use crate::exit;
use crate::failure::Failure;
use crate::mount::{Account, Need};

/// An entry, in rclone's order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    path: &'a str,
    name: &'a str,
    size: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    mime_type: Option<String>,
    mod_time: String,
    is_dir: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    hashes: Option<Hashes<'a>>,
    #[serde(rename = "ID", skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Hashes<'a> {
    fingerprint: &'a str,
}

/// Runs the command.
pub(crate) fn list_json(command: &ListJsonCommand) -> Result<u8, Failure> {
    let clock = Clock::local();
    let spec = place_to_read(&command.place)?;
    let account = Account::open(&spec.name, &command.account, Need::Look)?;
    if command.stat {
        let mut link = account.link()?;
        link.ask_files(FileAsk::Look {
            path: spec.path.clone(),
            checksums: command.hash,
        })?;
        let FileReply::Item { item } = link.file_reply()? else {
            return Err(Failure::DaemonGone);
        };
        let name = split(&spec.path).1;
        let entry = entry(
            command,
            &clock,
            if item.is_folder() { "" } else { name },
            &item,
        );
        say(&(json(&entry).map_err(unprintable)? + "\n"));
        return Ok(exit::DONE);
    }
    let depth = match (command.max_depth, command.recursive) {
        (Some(depth), _) => Some(depth),
        (None, true) => None,
        (None, false) => Some(1),
    };
    let mut out = Out::new();
    // Nothing is printed before something was found: an error leaves no half a document.
    let mut is_begun = false;
    each_of(&account, &spec, (depth, command.hash), |path, item| {
        if (command.dirs_only && !item.is_folder()) || (command.files_only && item.is_folder()) {
            return Ok(());
        }
        out.print(if is_begun { b",\n" } else { b"[\n" })?;
        is_begun = true;
        let entry = entry(command, &clock, path, item);
        out.print(&serde_json::to_vec(&entry).map_err(unprintable)?)
    })?;
    out.print(if is_begun { b"\n]\n" } else { b"[\n]\n" })?;
    out.end()
}

/// A document as rclone indents it.
pub(super) fn json(document: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut text = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, format);
    document.serialize(&mut serializer)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

pub(super) fn unprintable(error: serde_json::Error) -> Failure {
    Failure::Other(format!("an entry cannot be written as JSON: {error}."))
}

fn entry<'a>(command: &ListJsonCommand, clock: &Clock, path: &'a str, item: &'a Item) -> Entry<'a> {
    let mime_type = || {
        if item.is_folder() {
            "inode/directory".to_owned()
        } else {
            mime_type(&item.name)
        }
    };
    Entry {
        path,
        name: split(path).1,
        size: if item.is_folder() {
            -1
        } else {
            i64::try_from(item.size).unwrap_or(i64::MAX)
        },
        mime_type: (!command.no_mimetype).then(mime_type),
        mod_time: if command.no_modtime {
            String::new()
        } else {
            clock.rfc(item.mtime)
        },
        is_dir: item.is_folder(),
        hashes: item
            .fingerprint
            .as_deref()
            .map(|fingerprint| Hashes { fingerprint }),
        id: item.handle.as_deref(),
    }
}

/// The MIME type by the end of the name, in the form that rclone gives it.
fn mime_type(name: &str) -> String {
    let guess = mime_guess::from_path(name).first_or_octet_stream();
    if guess.type_() == "text" && guess.get_param("charset").is_none() {
        format!("{guess}; charset=utf-8")
    } else {
        guess.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_told_by_the_name() {
        assert_eq!(mime_type("a.txt"), "text/plain; charset=utf-8");
        assert_eq!(mime_type("A.JPG"), "image/jpeg");
        assert_eq!(mime_type("none"), "application/octet-stream");
    }
}
