//! Everything that can be known and checked before forking.

use std::path::PathBuf;

use mega_api::PublicLink;

use crate::cli::{Carried, ConfigPlace, MountCommand, MountOptions, Settings};
use crate::config::{self, Account, Remote, RemoteKind};
use crate::demo;
use crate::failure::Failure;
use crate::mountpoint;
use crate::paths::{self, RemotePaths};
use crate::quantity::Mode;

/// A checked order to mount.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// What to mount.
    pub(super) remote: Remote,
    /// Which folder of it; empty for all.
    pub(super) sub_path: String,
    /// Where, absolute and without links.
    pub(super) mountpoint: PathBuf,
    /// How.
    pub(super) settings: Settings,
    /// Our own files.
    pub(super) paths: RemotePaths,
    /// The umask of whoever started us.
    pub(super) umask: Mode,
}

impl Plan {
    /// Checks the whole order. Changes nothing but a dead mount of our own at the mountpoint.
    pub(super) fn make(command: &MountCommand) -> Result<Self, Failure> {
        let (remote, sub_path) =
            config::resolve(&command.remote, &command.program.config, &command.carried)?;
        let Self {
            remote,
            settings,
            paths,
            ..
        } = Self::of_remote(remote, &command.options)?;
        let mountpoint = mountpoint::prepare(&command.mountpoint)?;
        check_outside(command, &settings, &paths, &mountpoint)?;
        let allow = match (settings.allow_other, settings.allow_root) {
            (true, true) => {
                return Err(Failure::Usage(
                    "--allow-other and --allow-root exclude each other. Keep one of them."
                        .to_owned(),
                ));
            }
            (true, false) => Some("--allow-other"),
            (false, true) => Some("--allow-root"),
            (false, false) => None,
        };
        mountpoint::check_fuse(allow)?;
        Ok(Self {
            remote,
            sub_path,
            mountpoint,
            settings,
            paths,
            umask: own_umask(),
        })
    }

    /// What a command needs that works on an account without mounting it: no mountpoint, all folders.
    pub(super) fn without_mount(
        name: &str,
        config: &ConfigPlace,
        options: &MountOptions,
        carried: &Carried,
    ) -> Result<Self, Failure> {
        let (remote, _) = config::resolve(&format!("{name}:"), config, carried)?;
        Self::of_remote(remote, options)
    }

    fn of_remote(remote: Remote, options: &MountOptions) -> Result<Self, Failure> {
        let mut settings = options.clone().or(remote.options.clone()).resolve();
        settings.read_only |= matches!(remote.kind, RemoteKind::Link(_));
        // The daemon works in `/`.
        settings.ca_cert = settings
            .ca_cert
            .map(|path| paths::absolute(&path))
            .transpose()?;
        settings.log_file = settings
            .log_file
            .map(|path| paths::absolute(&path))
            .transpose()?;
        settings.pid_file = settings
            .pid_file
            .map(|path| paths::absolute(&path))
            .transpose()?;
        let paths = paths::of_remote(&remote.name, &settings)?;
        Ok(Self {
            remote,
            sub_path: String::new(),
            mountpoint: PathBuf::new(),
            settings,
            paths,
            umask: Mode(0o077),
        })
    }

    /// The account, none for the demo.
    pub(super) fn account(&self) -> Option<&Account> {
        match &self.remote.kind {
            RemoteKind::Account(account) => Some(account),
            RemoteKind::Demo | RemoteKind::Link(_) => None,
        }
    }

    /// The public link, if it is one.
    pub(super) fn link(&self) -> Option<&PublicLink> {
        match &self.remote.kind {
            RemoteKind::Link(link) => Some(link),
            RemoteKind::Demo | RemoteKind::Account(_) => None,
        }
    }

    /// The e-mail address.
    pub(super) fn user(&self) -> &str {
        self.account().map_or(demo::USER, |account| &account.user)
    }
}

/// Nothing we read or write may lie inside the mount.
fn check_outside(
    command: &MountCommand,
    settings: &Settings,
    paths: &RemotePaths,
    mountpoint: &std::path::Path,
) -> Result<(), Failure> {
    let outside = |what, path: &std::path::Path, option| {
        mountpoint::check_outside(mountpoint, what, path, option)
    };
    outside("state directory", &paths.state_dir, "--state-dir")?;
    outside("cache directory", &paths.cache_dir, "--cache-dir")?;
    if let Some(path) = &settings.log_file {
        outside("log file", path, "--log-file")?;
    }
    outside("configuration", &command.program.config.file()?, "--config")?;
    if let Some(path) = &settings.ca_cert {
        outside("certificate", path, "--ca-cert")?;
    }
    Ok(())
}

/// The umask we were started with; ours becomes private.
fn own_umask() -> Mode {
    let private = rustix::fs::Mode::from_bits_truncate(0o077);
    Mode((rustix::process::umask(private).bits() & 0o777) as u16)
}
