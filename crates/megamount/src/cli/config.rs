//! The command `config`: set-up of remotes.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::env_vars as env;

/// `megamount config`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Without a word after it: a guided session, as 'rclone config' has it.\n\
    Remotes of type mega in rclone.conf can be mounted without being set up here."
)]
pub(crate) struct ConfigCommand {
    /// What to do instead of asking.
    #[command(subcommand)]
    pub(crate) action: Option<ConfigAction>,
    /// The configuration file [default: ~/.config/megamount/config.toml]
    #[arg(long, value_name = "FILE", env = env::CONFIG, hide_env = true, global = true)]
    pub(crate) config: Option<PathBuf>,
}

/// What `megamount config` can do without asking.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ConfigAction {
    /// Print the configuration, or one remote of it
    Show(ShowCommand),
    /// Remove a remote from the configuration; its state and the account stay as they are
    Delete(DeleteCommand),
    /// Copy remotes of type mega from rclone's configuration, which is not changed
    Import(ImportCommand),
    /// Print where the configuration is
    File,
}

/// `megamount config show`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ShowCommand {
    /// Which remote [default: the whole file]
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Without e-mail addresses, passwords, commands and comments: fit to be shown to others
    #[arg(long)]
    pub(crate) redact: bool,
}

/// `megamount config delete`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeleteCommand {
    /// Which remote
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// `megamount config import`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ImportCommand {
    /// Which remotes [default: all of type mega]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// rclone's configuration [default: where rclone looks for it]
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
}
