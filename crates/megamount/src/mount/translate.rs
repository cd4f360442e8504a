//! Errors of the layers below in the user's words.

use mega_api::{Api, ApiError, ErrorClass};
use mega_proto::ErrorCode;
use mega_store::StoreError;
use mega_vfs::StartError;

use super::plan::Plan;
use crate::failure::Failure;

/// An API error during start-up. `origin` is the server that was asked.
pub(super) fn api(plan: &Plan, origin: &str, error: &ApiError) -> Failure {
    let (name, user) = (plan.remote.name.clone(), plan.user().to_owned());
    if plan.link().is_some()
        && let Some(why) = gone(error)
    {
        let why = why.to_owned();
        return Failure::LinkGone { name, why };
    }
    match error {
        ApiError::WrongPassword => Failure::WrongPassword { name, user },
        ApiError::UnknownUser => Failure::UnknownUser { name, user },
        ApiError::OldPassword => Failure::OldPassword { name, user },
        ApiError::TwoFactorNeeded => Failure::CodeNeeded { name, user },
        ApiError::TwoFactorWrong => Failure::CodeWrong { user, skew: None },
        ApiError::Tls(cause) => Failure::Network {
            origin: origin.to_owned(),
            reason: format!(
                "its certificate is not trusted ({cause}); check that this machine's clock is right ('date'), \
                 and --ca-cert where a proxy looks into TLS"
            ),
        },
        ApiError::Unconfirmed => Failure::Unconfirmed { user },
        ApiError::Blocked { .. } | ApiError::Refused(ErrorCode::Blocked) => {
            let reason = None;
            Failure::Blocked { user, reason }
        }
        ApiError::SessionDead | ApiError::NoSession => Failure::SessionDead { name, user },
        ApiError::Config(text) => Failure::Usage(format!("{text}.")),
        ApiError::TwoFactorSource(text) => Failure::Refused {
            reason: text.clone(),
        },
        other => match other.class() {
            ErrorClass::Network => {
                // The origin and "cannot reach" stand in the message already.
                let reason = match other {
                    ApiError::Network(cause) => cause.to_string(),
                    other => other.to_string(),
                };
                Failure::Network {
                    origin: origin.to_owned(),
                    reason,
                }
            }
            ErrorClass::Usage
            | ErrorClass::Credentials
            | ErrorClass::Account
            | ErrorClass::Session
            | ErrorClass::Quota
            | ErrorClass::Refused => Failure::Refused {
                reason: other.to_string(),
            },
            ErrorClass::Fault => Failure::Other(format!("{other}.")),
        },
    }
}

/// Adds to a failure what Mega says of an account it has blocked, and how wrong the clock is where that
/// matters. Asks Mega; what it does not answer is left out.
pub(super) async fn why_blocked(failure: Failure, api: &Api) -> Failure {
    match failure {
        Failure::Blocked { user, reason: None } => {
            let reason = Box::pin(api.why_blocked()).await.ok().flatten();
            Failure::Blocked { user, reason }
        }
        other => other,
    }
}

/// Why a link does not exist any more, if that is what the error says (protocol/03 section 10).
const fn gone(error: &ApiError) -> Option<&'static str> {
    match error {
        ApiError::Refused(ErrorCode::NotFound) => Some("it does not exist, or not any more"),
        ApiError::Blocked { .. } | ApiError::Refused(ErrorCode::Blocked) => {
            Some("Mega has taken it down")
        }
        ApiError::Refused(ErrorCode::TooMany) => Some("the account behind it is closed"),
        ApiError::Refused(ErrorCode::Access) => Some("Mega does not permit it"),
        _ => None,
    }
}

/// A store error during start-up.
pub(super) fn store(plan: &Plan, error: &StoreError) -> Failure {
    let path = plan.paths.state_dir.clone();
    match error {
        StoreError::Locked { holder } => {
            let place = holder.mountpoint.display();
            let draining = !crate::mountpoint::is_mounted(&holder.mountpoint);
            Failure::StateLocked {
                remote: plan.remote.name.clone(),
                holder: match (holder.pid, draining) {
                    (0, _) => "by another process".to_owned(),
                    (pid, false) => format!("mounted at {place} (process {pid})"),
                    (pid, true) => format!("process {pid}, which had it mounted at {place}"),
                },
                draining,
            }
        }
        StoreError::Pinned {
            stored,
            asked,
            what,
        } => {
            let reason = format!("another {what} ({stored}, and this is {asked})");
            Failure::StateMismatch { path, reason }
        }
        StoreError::WrongKey => {
            let reason = "the account's former master key, which changes only when an account is \
                          reset"
                .to_owned();
            Failure::StateMismatch { path, reason }
        }
        StoreError::UnknownFormat { .. } => {
            let reason = format!("{error}; use the version of megamount that wrote it");
            Failure::State { path, reason }
        }
        StoreError::DiskFull => {
            let reason = "the disk is full; make room on it".to_owned();
            Failure::State { path, reason }
        }
        StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            let reason = format!("{error}; it must belong to you (see --state-dir)");
            Failure::State { path, reason }
        }
        StoreError::Keyring(_) => {
            let reason = format!("{error}. Keep the session in a file: --session-store file");
            Failure::State { path, reason }
        }
        StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotADirectory => {
            let reason = format!("{error}; a file is in the way (see --state-dir and --cache-dir)");
            Failure::State { path, reason }
        }
        other => Failure::State {
            path,
            reason: other.to_string(),
        },
    }
}

/// An error of the file system's start.
pub(super) fn start(plan: &Plan, origin: &str, error: &StartError) -> Failure {
    let remote = plan.remote.name.clone();
    match error {
        StartError::NotFound(_) => Failure::PathNotFound {
            remote,
            path: plan.sub_path.clone(),
        },
        StartError::NotADirectory(_) => Failure::NotAFolder {
            remote,
            path: plan.sub_path.clone(),
        },
        StartError::Api(error) => api(plan, origin, error),
        StartError::Store(error) => store(plan, error),
        StartError::NoRoot if plan.link().is_some() => Failure::LinkGone {
            name: remote,
            why: "the folder or file that it names is not in it".to_owned(),
        },
        StartError::NoRoot | StartError::Local(_) => Failure::State {
            path: plan.paths.state_dir.clone(),
            reason: error.to_string(),
        },
    }
}

/// An error of the mount itself, by fuser or from fusermount3's mouth.
pub(super) fn mount(plan: &Plan, error: &std::io::Error) -> Failure {
    let text = error.to_string();
    let text = text.trim().trim_end_matches('.');
    let reason = match text.strip_prefix("fusermount3: ").unwrap_or(text) {
        "" => "fusermount3 failed without saying why",
        text => text,
    };
    let hint = if reason.contains("no write access") || reason.contains("user has no") {
        "; the mountpoint must be a directory that you own"
    } else if reason.contains("Operation not permitted") || reason.contains("EPERM") {
        "; fusermount3 must be setuid root ('ls -l $(which fusermount3)'), and containers need \
         '--device /dev/fuse --cap-add SYS_ADMIN'"
    } else {
        ""
    };
    Failure::Mount {
        path: plan.mountpoint.clone(),
        reason: format!("{reason}{hint}"),
    }
}
