//! The command `config`: set-up of remotes.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::Remembered;
use crate::env_vars as env;
use crate::failure::Failure;
use crate::paths;

/// Which configuration, and how it is opened.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfigPlace {
    /// The configuration file [default: ~/.config/megamount/config.toml]
    #[arg(long, value_name = "FILE", env = env::CONFIG, hide_env = true, help_heading = "Program")]
    pub(crate) config: Option<PathBuf>,
    /// A shell command that prints the password of an encrypted configuration [default: ask]
    #[arg(long, value_name = "COMMAND", env = env::PASSWORD_COMMAND, hide_env = true,
        help_heading = "Program")]
    password_command: Option<String>,
    /// Its password, once it was needed.
    #[arg(skip)]
    pub(crate) remembered: Remembered,
}

impl ConfigPlace {
    /// A file, and the command that prints its password.
    pub(crate) fn new(config: Option<PathBuf>, password_command: Option<String>) -> Self {
        Self {
            config,
            password_command,
            remembered: Remembered::default(),
        }
    }

    /// The file, which need not exist.
    pub(crate) fn file(&self) -> Result<PathBuf, Failure> {
        paths::config_file(self.config.as_deref())
    }

    /// The command that prints the password.
    pub(crate) fn password_command(&self) -> Option<&str> {
        let command = self.password_command.as_deref();
        command.filter(|command| !command.trim().is_empty())
    }
}

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
    config: Option<PathBuf>,
    /// A shell command that prints the password of an encrypted configuration [default: ask]
    #[arg(long, value_name = "COMMAND", env = env::PASSWORD_COMMAND, hide_env = true, global = true)]
    password_command: Option<String>,
}

impl ConfigCommand {
    /// Which configuration, and how it is opened.
    pub(crate) fn place(&self) -> ConfigPlace {
        ConfigPlace::new(self.config.clone(), self.password_command.clone())
    }
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
    /// Set, change or remove the password that the configuration is encrypted with
    Password,
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
