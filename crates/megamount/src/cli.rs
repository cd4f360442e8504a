//! The command line: what can be typed, nothing about what it does.
//!
//! The bare form `megamount REMOTE:[PATH] MOUNTPOINT` is the mount; commands stand beside it as
//! sub-commands. A remote always has a colon, so the two never collide. Clap reads the flags and
//! the `MEGAMOUNT_*` environment, in this order of precedence; the configuration files come after
//! (`config.rs`).

mod commands;
mod config;
mod files;
mod fstab;
mod options;
mod pages;
mod rclone;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::env_vars as env;
use crate::quantity::Switch;
use rclone::Vocabulary;

pub(crate) use commands::{
    BwlimitCommand, DiscardCommand, ExportCommand, FlushCommand, RetryCommand, StatusCommand,
    UnmountCommand, VerifyCommand,
};
pub(crate) use config::{ConfigAction, ConfigCommand, ConfigPlace, ImportCommand};
pub(crate) use files::{
    AboutCommand, AccountOptions, CatCommand, CleanupCommand, CopyCommand, DedupeCommand,
    DedupeMode, FoldersCommand, LinkCommand, ListCommand, ListJsonCommand, LoginCommand,
    LogoutCommand, MakeCommand, MoveCommand, RemoveCommand, TrashAction, TrashCommand, TreeCommand,
    VersionsAction, VersionsCommand, WhoamiCommand,
};
pub(crate) use fstab::is_helper;
pub(crate) use options::{
    CacheMode, Duplicates, FsyncMode, LogFormat, LogLevel, MountOptions, SessionStore, Settings,
    VerifyMode, VersionsMode,
};
pub(crate) use pages::{CompletionCommand, ManCommand};
pub(crate) use rclone::Carried;

/// Everything that can be typed.
#[derive(Debug, Parser)]
#[command(
    name = "megamount",
    version,
    about = "Mount a Mega (mega.nz) account as a directory",
    long_about = "Mount a Mega (mega.nz) account as a directory.\n\n\
        REMOTE is the name of a remote in ~/.config/megamount/config.toml, or of a remote of type \
        mega in rclone's configuration. 'demo:' needs neither: it is a built-in Mega server with \
        sample files.",
    after_help = "Examples:\n  \
        megamount demo: /mnt/mega            try it without an account\n  \
        megamount work: /mnt/mega            mount the remote 'work'\n  \
        megamount work:photos /mnt/photos    mount one folder of it\n  \
        megamount config                     set up an account\n  \
        megamount status                     what is not on Mega yet?\n  \
        megamount umount /mnt/mega           upload the rest, then unmount\n\n\
        Every option is also an environment variable (--write-back: MEGAMOUNT_WRITE_BACK) and a \
        key of the configuration (write-back).\nA flag wins over the environment, and that over \
        config.toml, and that over rclone.conf.\nOptions of 'rclone mount' are taken as they are; one \
        without a meaning here is named.\n\n\
        Exit codes: 0 done, 1 usage or bad option, 2 other error, 3 not found, 4 login refused,\n\
        5 network, 6 local disk or state, 10 unmounted with work left in the queue.",
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// A command other than the bare mount.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// The bare form.
    #[command(flatten)]
    pub(crate) mount: BareMount,
}

/// The commands beside the bare mount.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Mount a remote (the same as without the word; what fingers used to rclone type)
    #[command(hide = true)]
    Mount(Box<MountCommand>),
    /// Set up remotes: asks for what is needed, or shows, deletes, imports
    Config(ConfigCommand),
    /// Show what is queued, uploading, refused; is it safe to switch off?
    Status(StatusCommand),
    /// Upload now what is queued, and wait for it
    Flush(FlushCommand),
    /// Wait until Mega has everything, then unmount
    #[command(visible_alias = "unmount")]
    Umount(UnmountCommand),
    /// Try again what Mega has refused
    Retry(RetryCommand),
    /// Forget a change that is not on Mega; bytes that exist only here are lost
    Discard(DiscardCommand),
    /// Save what exists here of a changed file to another place
    Export(ExportCommand),
    /// Compare files with Mega's checksums; what is not cached is downloaded
    Verify(VerifyCommand),
    /// Log in to an account and keep the session
    Login(Box<LoginCommand>),
    /// End the session of an account
    Logout(Box<LogoutCommand>),
    /// Show whose session is kept, and whether Mega takes it
    Whoami(Box<WhoamiCommand>),
    /// List files with size and path, mounted or not
    Ls(Box<ListCommand>),
    /// List files with size, time and path
    Lsl(Box<ListCommand>),
    /// List folders
    Lsd(Box<FoldersCommand>),
    /// List files and folders as JSON
    Lsjson(Box<ListJsonCommand>),
    /// Draw folders and files as a tree
    Tree(Box<TreeCommand>),
    /// Show how much storage there is and how much of it is used
    About(Box<AboutCommand>),
    /// Print the content of files
    Cat(Box<CatCommand>),
    /// Copy files and folders from, to and within an account
    Copy(Box<CopyCommand>),
    /// Make one of several files or folders of one name
    Dedupe(Box<DedupeCommand>),
    /// Make folders
    Mkdir(Box<MakeCommand>),
    /// Move and rename files and folders
    Mv(Box<MoveCommand>),
    /// Remove files and folders
    Rm(Box<RemoveCommand>),
    /// Print the public link of a file or folder, which is made if there is none
    Link(Box<LinkCommand>),
    /// List the rubbish bin, bring things back, empty it
    Trash(TrashCommand),
    /// List, bring back and delete old versions of files
    Versions(VersionsCommand),
    /// Empty the rubbish bin, without a question
    Cleanup(Box<CleanupCommand>),
    /// Show how fast the transfers of a mount may be, or change it
    Bwlimit(BwlimitCommand),
    /// Look for what is in the way of a mount on this machine
    Doctor(Box<DoctorCommand>),
    /// Print the completion script for a shell
    Completion(CompletionCommand),
    /// Print the manual page, or write all of them
    Man(ManCommand),
}

/// `megamount doctor`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Exit codes: 0 a mount works, 2 something is in the way.")]
pub(crate) struct DoctorCommand {
    /// With the options of this remote
    #[arg(value_name = "REMOTE:")]
    pub(crate) remote: Option<String>,
    #[command(flatten)]
    pub(crate) program: ProgramOptions,
    #[command(flatten)]
    pub(crate) options: MountOptions,
}

/// The bare mount: its arguments are missing when a command is given instead.
#[derive(Debug, Args)]
pub(crate) struct BareMount {
    /// What to mount: the name of a remote, a colon, and a folder on it if not all
    #[arg(value_name = "REMOTE:[PATH]", required = true)]
    remote: Option<String>,
    /// Where: an empty directory
    #[arg(value_name = "MOUNTPOINT", required = true)]
    mountpoint: Option<PathBuf>,
    #[command(flatten)]
    options: MountOptions,
    #[command(flatten)]
    program: ProgramOptions,
}

/// A complete order to mount.
#[derive(Debug, Clone, Args)]
pub(crate) struct MountCommand {
    /// What to mount: the name of a remote, a colon, and a folder on it if not all
    #[arg(value_name = "REMOTE:[PATH]")]
    pub(crate) remote: String,
    /// Where: an empty directory
    #[arg(value_name = "MOUNTPOINT")]
    pub(crate) mountpoint: PathBuf,
    /// What only the command line and the environment can say.
    #[command(flatten)]
    pub(crate) program: ProgramOptions,
    /// What the configuration can say as well.
    #[command(flatten)]
    pub(crate) options: MountOptions,
    /// What rclone's options say of the account.
    #[arg(skip)]
    pub(crate) carried: Carried,
    /// mount(8) has called.
    #[arg(skip)]
    pub(crate) is_helper: bool,
}

/// Options that have no place in a configuration file.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ProgramOptions {
    #[command(flatten)]
    pub(crate) config: ConfigPlace,
    /// Stay in the foreground and log to the terminal (automatic under systemd)
    #[arg(short, long, env = env::FOREGROUND, hide_env = true, help_heading = "Program",
        num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL", hide_possible_values = true)]
    foreground: Option<Switch>,
}

impl ProgramOptions {
    /// Whether to stay in the foreground by explicit wish.
    pub(crate) fn foreground(&self) -> bool {
        self.foreground.is_some_and(|switch| switch.0)
    }
}

impl Cli {
    /// The command to run; the bare form is the command `mount`.
    pub(crate) fn into_command(self) -> Option<Command> {
        if self.command.is_some() {
            return self.command;
        }
        Some(Command::Mount(Box::new(MountCommand {
            remote: self.mount.remote?,
            mountpoint: self.mount.mountpoint?,
            program: self.mount.program,
            options: self.mount.options,
            carried: Carried::default(),
            is_helper: false,
        })))
    }

    /// What clap reads. The commands on accounts take all options of a mount, so that the environment and the
    /// configuration mean the same to them; their help shows those that matter.
    pub(super) fn definition() -> clap::Command {
        let tidy = |command: clap::Command| {
            command.mut_args(|arg| {
                let is_of_mounts = arg.get_help_heading().is_some();
                let long = arg.get_long().unwrap_or_default();
                if !is_of_mounts {
                    arg
                } else if files::SHOWN.contains(&long) {
                    arg.hide_short_help(true)
                } else {
                    arg.hide(true)
                }
            })
        };
        let all = files::COMMANDS
            .iter()
            .fold(Self::command(), |all, name| all.mut_subcommand(name, tidy));
        files::NESTED.iter().fold(all, |all, name| {
            all.mut_subcommand(name, |command| command.mut_subcommands(tidy))
        })
    }

    /// Reads a command line, in our own words, those of `rclone mount` or those of mount(8).
    pub(crate) fn read(args: impl IntoIterator<Item = OsString>) -> Result<Read, clap::Error> {
        let mut args: Vec<_> = args.into_iter().collect();
        let mut definition = Self::definition();
        let mut vocabulary = Vocabulary {
            commands: definition
                .get_subcommands()
                .flat_map(|command| {
                    std::iter::once(command.get_name()).chain(command.get_all_aliases())
                })
                .filter(|name| *name != "mount")
                .map(str::to_owned)
                .collect(),
            options: definition
                .get_arguments()
                .filter_map(|argument| argument.get_long().map(str::to_owned))
                .collect(),
            is_strict: false,
        };
        let is_helper = args.first().is_some_and(|program| is_helper(program));
        let mut is_fake = false;
        if is_helper {
            // What it mounts may be called like a command.
            vocabulary.commands.clear();
            let helper = fstab::helper(args);
            (args, is_fake) = (helper.args, helper.is_fake);
            vocabulary.is_strict = !helper.is_sloppy;
        }
        let translated = rclone::translate(args, &vocabulary);
        let mut matches = definition.try_get_matches_from_mut(translated.args)?;
        let parsed = Self::from_arg_matches_mut(&mut matches);
        let mut command = parsed
            .map_err(|error| error.format(&mut definition))?
            .into_command();
        let mut warnings = vec![];
        if !translated.ignored.is_empty() {
            warnings.push(format!(
                "these options of rclone have no meaning here and are ignored: {}.",
                translated.ignored.join(", ")
            ));
        }
        if translated.carried.pass.is_some() {
            warnings.push(
                "other users of this machine can see the password in --mega-pass. RCLONE_MEGA_PASS \
                 and the configuration hide it."
                    .to_owned(),
            );
        }
        if let Some(Command::Mount(mount)) = &mut command {
            mount.carried = translated.carried;
            mount.is_helper = is_helper;
        }
        Ok(Read {
            command: command.filter(|_| !is_fake),
            warning: (!warnings.is_empty()).then(|| warnings.join(" ")),
            is_fake,
        })
    }
}

/// A command line that makes sense.
#[derive(Debug)]
pub(crate) struct Read {
    /// What is to be done, if anything.
    pub(crate) command: Option<Command>,
    /// About words that mean nothing here, and secrets that others can see.
    pub(crate) warning: Option<String>,
    /// mount(8) wants to know whether it makes sense, and nothing more.
    pub(crate) is_fake: bool,
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    fn parse(args: &[&str]) -> Result<MountCommand, clap::Error> {
        let cli = Cli::try_parse_from(std::iter::once(&"megamount").chain(args))?;
        let Some(Command::Mount(mount)) = cli.into_command() else {
            panic!("no mount in {args:?}");
        };
        Ok(*mount)
    }

    #[test]
    fn a_remote_may_be_called_like_a_command() {
        for remote in ["status:", "flush:", "umount:x", "mount:", "export:"] {
            assert_eq!(parse(&[remote, "/m"]).unwrap().remote, remote);
        }
        let cli = Cli::try_parse_from(["megamount", "status", "status:"]).unwrap();
        let Some(Command::Status(status)) = cli.into_command() else {
            panic!("no status");
        };
        assert_eq!(status.target.as_deref(), Some("status:"));
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::definition().debug_assert();
    }

    #[test]
    fn bare_and_explicit_form_are_the_same() {
        for prefix in [&[][..], &["mount"][..]] {
            let mut args = prefix.to_vec();
            args.extend(["work:a b", "/m", "--write-back", "1m", "-f", "--read-only"]);
            let mount = parse(&args).unwrap();
            assert_eq!(mount.remote, "work:a b");
            assert_eq!(mount.mountpoint, PathBuf::from("/m"));
            assert!(mount.program.foreground());
            assert_eq!(mount.options.read_only, Some(Switch(true)));
            assert_eq!(mount.options.write_back.unwrap().0.as_secs(), 60);
        }
    }

    #[test]
    fn options_may_come_first_and_switches_can_be_turned_off() {
        let mount = parse(&["--hard-delete=false", "--read-only", "work:", "/m"]).unwrap();
        assert_eq!(mount.options.hard_delete, Some(Switch(false)));
        assert_eq!(mount.remote, "work:");
    }

    #[test]
    fn missing_arguments_are_named() {
        let error = parse(&[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MissingRequiredArgument);
        let error = parse(&["work:"]).unwrap_err();
        assert!(error.to_string().contains("MOUNTPOINT"), "{error}");
    }

    #[test]
    fn bad_values_name_the_option_and_the_form() {
        let error = parse(&["work:", "/m", "--cache-size", "lots"])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("--cache-size") && error.contains("10GiB"),
            "{error}"
        );
    }

    #[test]
    fn help_names_every_default() {
        // Lines are wrapped anywhere.
        let help = Cli::command().render_long_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let settings = MountOptions::default().resolve();
        for default in [
            settings.cache_size.to_string(),
            settings.cache_min_free.to_string(),
            settings.memory.to_string(),
            settings.write_back.to_string(),
            settings.write_back_max.to_string(),
            settings.drain.to_string(),
            settings.timeout.to_string(),
            settings.attr_timeout.to_string(),
            settings.uploads.to_string(),
            settings.streams.to_string(),
        ] {
            assert!(
                help.contains(&format!("[default: {default}]")),
                "{default}\n{help}"
            );
        }
    }

    #[test]
    fn every_option_is_in_the_readme_and_no_other() {
        let readme = include_str!("../../../README.md");
        // The table's first column, and in it every word that is an option.
        let mut told: Vec<_> = readme
            .lines()
            .filter(|line| line.starts_with("| `-"))
            .filter_map(|line| line.split(" | ").next())
            .flat_map(|cell| cell.split(['`', ' ', ',']))
            .filter_map(|word| word.strip_prefix("--"))
            .collect();
        told.sort_unstable();
        let command = Cli::command();
        let mut known: Vec<_> = command
            .get_arguments()
            .filter_map(clap::Arg::get_long)
            .filter(|name| !matches!(*name, "help" | "version"))
            .collect();
        known.sort_unstable();
        assert_eq!(told, known);
    }

    #[test]
    fn every_option_has_its_environment_variable() {
        let mut names: Vec<_> = Cli::command()
            .get_arguments()
            .filter(|arg| {
                arg.get_long()
                    .is_some_and(|l| l != "help" && l != "version")
            })
            .map(|arg| {
                let name = arg.get_long().unwrap().replace('-', "_").to_uppercase();
                let env = arg
                    .get_env()
                    .unwrap_or_default()
                    .to_str()
                    .unwrap()
                    .to_owned();
                assert_eq!(env, format!("MEGAMOUNT_{name}"));
                env
            })
            .collect();
        names.sort();
        let mut listed = env::OPTION_VARIABLES.to_vec();
        listed.sort();
        assert_eq!(names, listed);
    }
}
