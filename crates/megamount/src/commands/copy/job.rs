//! What is to be copied: the two ends, and one file between them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::commands::moment::Moment;
use crate::control::files::{Kind, joined};
use crate::mount::Account;

/// A place on one side.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// On this machine.
    Local(PathBuf),
    /// On an account.
    Remote { account: Arc<Account>, path: String },
}

impl End {
    /// What is at `inner` below it.
    pub(super) fn below(&self, inner: &str) -> Self {
        match self {
            Self::Local(path) if inner.is_empty() => Self::Local(path.clone()),
            Self::Local(path) => Self::Local(path.join(inner)),
            Self::Remote { account, path } => Self::Remote {
                account: Arc::clone(account),
                path: joined(path, inner),
            },
        }
    }

    /// Its last component.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Local(path) => path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            Self::Remote { path, .. } => path.rsplit('/').next().unwrap_or("").to_owned(),
        }
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Local(path) => path.display().to_string(),
            Self::Remote { path, .. } => path.clone(),
        }
    }

    /// Whether it is the same place under the same name.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Local(one), Self::Local(other)) => one == other,
            (
                Self::Remote { account, path },
                Self::Remote {
                    account: other_account,
                    path: other_path,
                },
            ) => Arc::ptr_eq(account, other_account) && path == other_path,
            _ => false,
        }
    }

    /// As a local path.
    pub(super) fn local(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::Remote { .. } => None,
        }
    }
}

/// Something that a side has.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) mtime: Moment,
    pub(super) executable: bool,
    /// On an account: Mega does not have it yet as it is.
    pub(super) is_pending: bool,
    /// On an account: its node, and the checksum kept with it.
    pub(super) handle: Option<String>,
    pub(super) fingerprint: Option<String>,
}

/// A file or link to copy.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// The path below the source, for people.
    pub(super) name: String,
    pub(super) from: End,
    pub(super) to: End,
    pub(super) known: Known,
    pub(super) size: u64,
}
