//! Opening a public link: no account, no session, no login.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use mega_api::{Api, ErrorClass, PublicLink};
use mega_store::{Store, StoreError};

use super::plan::Plan;
use super::translate;
use crate::config::link;
use crate::env_vars as env;
use crate::failure::Failure;
use crate::launch;

/// How long a start that could do without the server waits for its word on the link.
const GLANCE: Duration = Duration::from_secs(2);

/// Makes the link what `api` reads, and the store the link's. `origin` is what the state is pinned to.
pub(super) async fn open(
    plan: &Plan,
    public: &PublicLink,
    store: &Store,
    api: &Api,
    origin: &str,
) -> Result<(), Failure> {
    let lost = |e: &StoreError| match e {
        StoreError::WrongKey => wrong_key(plan),
        other => translate::store(plan, other),
    };
    let is_first = store.seqno().map_err(|e| lost(&e))?.is_none();
    let asked = api.is_link_key(public);
    let answer = match is_first {
        true => Some(asked.await),
        false => tokio::time::timeout(GLANCE, asked).await.ok(),
    };
    match answer {
        Some(Ok(true)) => {}
        Some(Ok(false)) => return Err(wrong_key(plan)),
        // What was read before can be shown without the server.
        Some(Err(error)) if !is_first && error.class() != ErrorClass::Refused => {
            tracing::warn!(%error, "it is not known whether the link still exists");
        }
        Some(Err(error)) => return Err(translate::api(plan, origin, &error)),
        None => tracing::warn!("the server is slow; what was read before is shown"),
    }
    // Only a key that was tried may decide how the local state is locked.
    let owner = format!("link {}", link::place(public));
    store.pin(&owner, origin).map_err(|e| lost(&e))?;
    store
        .unlock(&public.key.local_master())
        .map_err(|e| lost(&e))?;
    api.visit(public.clone());
    Ok(())
}

fn wrong_key(plan: &Plan) -> Failure {
    Failure::LinkKey {
        name: plan.remote.name.clone(),
    }
}

/// Starts the program again with the link in its environment, which only its owner can read, instead of in
/// its arguments, which everybody can. Returns only if that is not possible.
pub(super) fn hide(text: &str) {
    if let Some(error) = start_again(text) {
        launch::complain(&format!("cannot start again: {error}."));
    }
    launch::complain(
        "other users of this machine can see the link and its key in the list of processes. A remote in the \
         configuration with 'link' or 'link-file' avoids that.",
    );
}

/// As [`hide`], where one of the places that a command was given is a link; from then on `link:` stands for it.
pub(crate) fn hide_in<'p>(links: impl IntoIterator<Item = &'p str>) -> Result<(), Failure> {
    let mut links = links.into_iter();
    let Some(text) = links.next() else {
        return Ok(());
    };
    link::parse(text)?;
    if links.next().is_some() {
        return Err(Failure::Usage(
            "one public link at a time. Others can be remotes in the configuration with 'link' or 'link-file'."
                .to_owned(),
        ));
    }
    let why = start_again(text).map_or_else(String::new, |error| format!(": {error}"));
    Err(Failure::Usage(format!(
        "other users of this machine can see the link and its key in the list of processes, and it cannot be \
         hidden{why}. Put the link into the environment variable {} and write '{}' instead of it.",
        env::LINK,
        link::HIDDEN
    )))
}

/// Returns only if that is not possible, with the reason if there is one.
fn start_again(text: &str) -> Option<std::io::Error> {
    let hidden = OsStr::new(link::HIDDEN);
    let mut count = 0;
    let mut arguments = std::env::args_os().map(|argument| {
        if argument == text {
            count += 1;
            return hidden.to_owned();
        }
        argument
    });
    let program = arguments.next().unwrap_or_default();
    let arguments: Vec<_> = arguments.collect();
    if count != 1 {
        return None;
    }
    let mut again = Command::new("/proc/self/exe");
    again.arg0(program).args(arguments).env(env::LINK, text);
    Some(again.exec())
}
