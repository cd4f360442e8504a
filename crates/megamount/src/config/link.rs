//! Public links as a REMOTE: reading their text.
//!
//! The text holds the key. So nothing here ever repeats it: not an error, not a name, not `Debug`.

use mega_api::PublicLink;
use mega_crypto::LinkKey;
use mega_proto::NodeHandle;

use crate::failure::Failure;

/// Hosts of links, with and without their scheme.
const HOSTS: &[&str] = &[
    "mega.nz",
    "www.mega.nz",
    "mega.co.nz",
    "mega.io",
    "mega.app",
];
/// What remotes and directories are called that are made for a link on the command line.
const NAME: &str = "link-";

/// The REMOTE that stands for the link in the environment variable `MEGAMOUNT_LINK`.
pub(crate) const HIDDEN: &str = "link:";

/// Whether `text` is meant as a link, right or wrong. No remote looks like this.
pub(crate) fn is_link(text: &str) -> bool {
    let text = unescaped(text);
    let (rest, has_host) = without_host(&text);
    has_host
        || ["#F!", "F!", "#!", "!", "#P!"]
            .iter()
            .any(|start| rest.starts_with(start))
        || ["folder/", "file/"]
            .iter()
            .any(|start| rest.starts_with(start))
}

/// Reads a link.
pub(crate) fn parse(text: &str) -> Result<PublicLink, Failure> {
    let bad = |why| Failure::BadLink { why };
    let text = unescaped(text);
    let (rest, _) = without_host(&text);
    let (is_folder, handle, key, item) = if let Some((kind, rest)) = rest.split_once('/') {
        let (handle, rest) = rest
            .split_once('#')
            .ok_or_else(|| bad("its key is missing"))?;
        let mut parts = rest.split('/');
        let key = parts.next().unwrap_or_default();
        let item = match kind {
            "folder" => parts.next_back(),
            "file" => None,
            _ => return Err(bad("only links of folders and files can be opened")),
        };
        (kind == "folder", handle, key, item)
    } else {
        let rest = rest.strip_prefix('#').unwrap_or(rest);
        if rest.starts_with("P!") {
            return Err(bad("links with a password cannot be opened"));
        }
        let (is_folder, rest) = match rest.strip_prefix("F!") {
            Some(rest) => (true, rest),
            None => (false, rest.strip_prefix('!').unwrap_or_default()),
        };
        let mut parts = rest.split(['!', '?']);
        let handle = parts.next().unwrap_or_default();
        let key = parts.next().unwrap_or_default();
        (is_folder, handle, key, parts.next().filter(|_| is_folder))
    };
    let handle = handle.split('?').next().unwrap_or_default();
    if key.is_empty() {
        return Err(bad("its key is missing"));
    }
    let wrong_key = |_| bad("its key is incomplete or mistyped");
    let key = match is_folder {
        true => LinkKey::folder(key).map_err(wrong_key)?,
        false => LinkKey::file(key).map_err(wrong_key)?,
    };
    let wrong_handle = |_| bad("it is incomplete or mistyped");
    let item = item.filter(|item| !item.is_empty());
    let item: Option<NodeHandle> = item.map(str::parse).transpose().map_err(wrong_handle)?;
    Ok(PublicLink {
        handle: handle.parse().map_err(wrong_handle)?,
        key,
        item,
    })
}

/// The name of the remote that a link on the command line is: from what is no secret.
pub(crate) fn name(link: &PublicLink) -> String {
    format!("{NAME}{}", place(link))
}

/// Which link, and which part of it, without the key.
pub(crate) fn place(link: &PublicLink) -> String {
    match link.item {
        Some(item) => format!("{}-{item}", link.handle),
        None => link.handle.to_string(),
    }
}

/// What some programs make of a link when they pass it on, undone.
fn unescaped(text: &str) -> String {
    text.trim().replace("%21", "!").replace("%23", "#")
}

/// `text` without scheme, host and slashes, and whether there was a host.
fn without_host(text: &str) -> (&str, bool) {
    let scheme = ["https://", "http://"];
    let rest = scheme.iter().find_map(|scheme| text.strip_prefix(scheme));
    let rest = rest.unwrap_or(text);
    let after = HOSTS
        .iter()
        .filter_map(|host| rest.strip_prefix(host))
        .find(|rest| rest.is_empty() || rest.starts_with(['/', '#']));
    let bare = after.unwrap_or(text).trim_start_matches('/');
    (bare, after.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDER: &str = "AAECAwQFBgcICQoLDA0ODw";
    const FILE: &str = "AAECAwQFBgcICQoLDA0ODwABAgMEBQYHCAkKCwwNDg8";

    #[test]
    fn every_form_is_read() {
        let forms = [
            (format!("folder/HHHHHHHH#{FOLDER}"), None),
            (format!("folder/HHHHHHHH#{FOLDER}/"), None),
            (format!("#F!HHHHHHHH!{FOLDER}"), None),
            (format!("#F!HHHHHHHH!{FOLDER}!XXXXXXXX"), Some("XXXXXXXX")),
            (format!("#F!HHHHHHHH!{FOLDER}?XXXXXXXX"), Some("XXXXXXXX")),
            (
                format!("folder/HHHHHHHH#{FOLDER}/folder/XXXXXXXX"),
                Some("XXXXXXXX"),
            ),
            (
                format!("folder/HHHHHHHH#{FOLDER}/file/XXXXXXXX"),
                Some("XXXXXXXX"),
            ),
            (format!("file/HHHHHHHH#{FILE}"), None),
            (format!("#!HHHHHHHH!{FILE}"), None),
            (format!("#%21HHHHHHHH%21{FILE}"), None),
        ];
        for (form, item) in forms {
            for host in [
                "https://mega.nz/",
                "http://mega.co.nz/",
                "mega.nz/",
                "/",
                "",
            ] {
                let text = format!("{host}{form}");
                assert!(is_link(&text), "{text}");
                let link = parse(&text).unwrap();
                assert_eq!(link.handle.to_string(), "HHHHHHHH", "{text}");
                assert_eq!(
                    link.item.map(|item| item.to_string()).as_deref(),
                    item,
                    "{text}"
                );
                assert_eq!(
                    link.is_folder(),
                    form.contains(FOLDER) && !form.contains(FILE)
                );
                assert!(crate::config::is_remote_name(&name(&link)));
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_key() {
        for (text, part) in [
            (
                "https://mega.nz/folder/HHHHHHHH".to_owned(),
                "key is missing",
            ),
            (
                format!("https://mega.nz/folder/HHHHHHHH#{}", &FOLDER[..20]),
                "incomplete",
            ),
            (
                format!("https://mega.nz/file/HHHHHHHH#{FOLDER}"),
                "incomplete",
            ),
            (
                format!("https://mega.nz/folder/HHHH#{FOLDER}"),
                "incomplete",
            ),
            (
                format!("https://mega.nz/collection/HHHHHHHH#{FOLDER}"),
                "only links of",
            ),
            (format!("https://mega.nz/#P!{FOLDER}"), "password"),
            ("https://mega.nz/".to_owned(), "key is missing"),
        ] {
            assert!(is_link(&text), "{text}");
            let message = parse(&text).unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
            assert!(!message.contains(&FOLDER[..20]), "{message}");
        }
    }

    #[test]
    fn remotes_are_no_links() {
        for text in [
            "work:",
            "demo:",
            "work:folder/x",
            "mega.nz:x",
            "folder:",
            "/mnt/x",
            "https",
        ] {
            assert!(!is_link(text), "{text}");
        }
    }
}
