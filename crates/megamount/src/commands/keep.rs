//! `link`, `trash`, `versions`, `cleanup`: public links, and what Mega keeps of what was removed or replaced.

use std::time::{SystemTime, UNIX_EPOCH};

use super::change::change;
use super::list::Out;
use super::moment::Clock;
use super::{about_item, counted, say};
use crate::cli::{
    CleanupCommand, LinkCommand, TrashAction, TrashCommand, VersionsAction, VersionsCommand,
};
use crate::config::RemoteSpec;
use crate::control::files::{FileAsk, FileReply, Item, joined};
use crate::display::printable;
use crate::exit;
use crate::failure::Failure;
use crate::mount::{Account, Need};
use crate::terminal::{self, Echo, NoAnswer};

fn ask(account: &Account, ask: FileAsk) -> Result<FileReply, Failure> {
    let mut link = account.link()?;
    link.ask_files(ask)?;
    link.file_reply()
}

/// The reply to a question that is answered once, or after progress.
fn finished(account: &Account, question: FileAsk) -> Result<FileReply, Failure> {
    let mut link = account.link()?;
    link.ask_files(question)?;
    loop {
        match link.file_reply()? {
            FileReply::Progress { .. } => {}
            reply => return Ok(reply),
        }
    }
}

/// Runs `link`.
pub(crate) fn link(command: &LinkCommand) -> Result<u8, Failure> {
    let spec: RemoteSpec = command.place.parse()?;
    if spec.path.is_empty() {
        return Err(Failure::Usage(
            "a whole account cannot be given away by a link. Name a file or folder in it."
                .to_owned(),
        ));
    }
    let account = Account::open_own(&spec.name, &command.account, Need::Work)?;
    let path = spec.path;
    if command.unlink {
        finished(&account, FileAsk::EndLink { path })?;
        return Ok(exit::DONE);
    }
    let expires = command.expire.map(|after| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs());
        i64::try_from(now.saturating_add(after.0.as_secs())).unwrap_or(i64::MAX)
    });
    match finished(&account, FileAsk::PublicLink { path, expires })? {
        FileReply::PublicLink { url } => {
            say(&format!("{url}\n"));
            Ok(exit::DONE)
        }
        _ => Err(Failure::DaemonGone),
    }
}

/// Refuses a path where the whole bin is meant: whoever writes one expects that nothing else is touched.
fn whole_bin(place: &str) -> Result<(), Failure> {
    let spec: RemoteSpec = place.parse()?;
    if spec.path.is_empty() {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "an account has one rubbish bin, for all of its folders. Write '{}:' if you mean all that is in it; \
         'megamount trash list {0}:' shows what that is.",
        spec.name
    )))
}

/// Runs `trash`.
pub(crate) fn trash(command: &TrashCommand) -> Result<u8, Failure> {
    match &command.action {
        TrashAction::List(list) => {
            whole_bin(&list.place)?;
            let account = open(&list.place, &list.account, Need::Look)?.0;
            let clock = Clock::local();
            let mut out = Out::new();
            for (item, origin) in in_bin(&account)? {
                let size = size(&item);
                let mut line = format!(
                    "{size:>9} {} {}",
                    clock.long(item.mtime),
                    out.name(&item.name)
                );
                if item.is_folder() {
                    line.push('/');
                }
                if let Some(origin) = origin {
                    line += &format!("  (from /{})", out.name(&origin));
                }
                out.line(&line)?;
            }
            out.end()
        }
        TrashAction::Restore(restore) => {
            let (account, spec) = open(&restore.place, &restore.account, Need::Work)?;
            let name = spec.path;
            let to = match &restore.to {
                Some(to) => {
                    let to = to.strip_prefix(&format!("{}:", spec.name)).unwrap_or(to);
                    to.trim_matches('/').to_owned()
                }
                None => {
                    let bin = in_bin(&account)?;
                    let found = bin.into_iter().find(|(item, _)| item.name == name);
                    let (item, origin) = found.ok_or_else(|| not_in_bin(&name))?;
                    joined(&origin.unwrap_or_default(), item.plain_name())
                }
            };
            let text = format!("Restored: /{}\n", printable(&to));
            change(&account, FileAsk::Restore { name, to })?;
            say(&text);
            Ok(exit::DONE)
        }
        TrashAction::Empty(empty) => {
            whole_bin(&empty.place)?;
            let account = open(&empty.place, &empty.account, Need::Work)?.0;
            let count = in_bin(&account)?.len();
            if count == 0 {
                say("The rubbish bin is empty.\n");
                return Ok(exit::DONE);
            }
            let question = format!(
                "Delete {} in the rubbish bin for good, with everything in them? [y/N] ",
                counted(count, "thing")
            );
            if !empty.yes && !is_wanted(&question)? {
                say("Nothing was deleted.\n");
                return Ok(exit::OTHER);
            }
            finished(&account, FileAsk::EmptyTrash)?;
            Ok(exit::DONE)
        }
    }
}

/// Runs `cleanup`: as rclone's, without a question.
pub(crate) fn cleanup(command: &CleanupCommand) -> Result<u8, Failure> {
    if !command.old_versions {
        whole_bin(&command.place)?;
    }
    let (account, spec) = open(&command.place, &command.account, Need::Work)?;
    finished(&account, FileAsk::EmptyTrash)?;
    if command.old_versions {
        let (path, keep) = (spec.path, 0);
        let FileReply::Pruned { count } = finished(&account, FileAsk::Prune { path, keep })? else {
            return Err(Failure::DaemonGone);
        };
        say(&format!("{} deleted.\n", counted(count, "old version")));
    }
    Ok(exit::DONE)
}

/// Runs `versions`.
pub(crate) fn versions(command: &VersionsCommand) -> Result<u8, Failure> {
    match &command.action {
        VersionsAction::List(list) => {
            let (account, spec) = open(&list.place, &list.account, Need::Look)?;
            let clock = Clock::local();
            let mut out = Out::new();
            let present = about_item(&account, &spec.path)?;
            let rows = old(&account, &spec.path)?;
            for (number, item) in std::iter::once(&present).chain(&rows).enumerate() {
                let handle = item.handle.as_deref().unwrap_or("-");
                let size = item.size;
                out.line(&format!(
                    "{number:3} {size:9} {} {handle}",
                    clock.long(item.mtime)
                ))?;
            }
            out.end()
        }
        VersionsAction::Restore(restore) => {
            let (account, spec) = open(&restore.place, &restore.account, Need::Work)?;
            let rows = old(&account, &spec.path)?;
            let by_number = restore
                .version
                .parse::<usize>()
                .ok()
                .and_then(|number| rows.get(number.checked_sub(1)?));
            let by_handle = || {
                rows.iter()
                    .find(|row| row.handle.as_ref() == Some(&restore.version))
            };
            let chosen = by_number.or_else(by_handle);
            let Some(handle) = chosen.and_then(|row| row.handle.clone()) else {
                return Err(Failure::Relayed {
                    code: exit::NOT_FOUND,
                    text: format!(
                        "'{}' has no old version {}. 'megamount versions list' shows them.",
                        spec.path, restore.version
                    ),
                });
            };
            let path = spec.path;
            change(&account, FileAsk::Revert { path, handle })?;
            Ok(exit::DONE)
        }
        VersionsAction::Prune(prune) => {
            let (account, spec) = open(&prune.place, &prune.account, Need::Work)?;
            let question = format!(
                "Delete the old versions of '{}:{}' for good? [y/N] ",
                spec.name,
                printable(&spec.path)
            );
            if !prune.yes && !is_wanted(&question)? {
                say("Nothing was deleted.\n");
                return Ok(exit::OTHER);
            }
            let (path, keep) = (spec.path, prune.keep);
            match finished(&account, FileAsk::Prune { path, keep })? {
                FileReply::Pruned { count } => {
                    say(&format!("{} deleted.\n", counted(count, "old version")));
                    Ok(exit::DONE)
                }
                _ => Err(Failure::DaemonGone),
            }
        }
    }
}

fn open(
    place: &str,
    options: &crate::cli::AccountOptions,
    need: Need,
) -> Result<(Account, RemoteSpec), Failure> {
    let spec: RemoteSpec = place.parse()?;
    Ok((Account::open_own(&spec.name, options, need)?, spec))
}

fn in_bin(account: &Account) -> Result<Vec<(Item, Option<String>)>, Failure> {
    match ask(account, FileAsk::Trash)? {
        FileReply::Trash { mut entries } => {
            entries.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
            Ok(entries)
        }
        _ => Err(Failure::DaemonGone),
    }
}

fn old(account: &Account, path: &str) -> Result<Vec<Item>, Failure> {
    let path = path.to_owned();
    match ask(account, FileAsk::Versions { path })? {
        FileReply::Items { items, .. } => Ok(items),
        _ => Err(Failure::DaemonGone),
    }
}

fn not_in_bin(name: &str) -> Failure {
    Failure::Relayed {
        code: exit::NOT_FOUND,
        text: format!(
            "there is no '{name}' in the rubbish bin. 'megamount trash list' shows what there is."
        ),
    }
}

fn size(item: &Item) -> String {
    if item.is_folder() {
        "-".to_owned()
    } else {
        item.size.to_string()
    }
}

fn is_wanted(question: &str) -> Result<bool, Failure> {
    match terminal::line(question, Echo::On) {
        Ok(answer) => Ok(matches!(
            answer.expose().trim().to_ascii_lowercase().as_str(),
            "y" | "yes"
        )),
        Err(NoAnswer::Cancelled) => Ok(false),
        Err(NoAnswer::NoTerminal) => Err(Failure::Usage(
            "there is no terminal to ask whether you are sure. Give --yes.".to_owned(),
        )),
    }
}
