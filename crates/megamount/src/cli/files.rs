//! The commands that work on the files of an account, mounted or not.

use clap::{Args, Subcommand, ValueEnum};

use super::{Carried, ConfigPlace, LogLevel, MountOptions};
use crate::failure::Failure;
use crate::quantity::Span;

/// Where the account is and how it is reached: the same options, variables and keys as a mount's.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AccountOptions {
    #[command(flatten)]
    pub(crate) config: ConfigPlace,
    /// The account's address, instead of the remote's
    #[arg(long, value_name = "ADDRESS", help_heading = "Program")]
    mega_user: Option<String>,
    /// Its password, obscured as rclone does; others can see it, RCLONE_MEGA_PASS hides it
    #[arg(
        long,
        value_name = "OBSCURED",
        help_heading = "Program",
        allow_hyphen_values = true
    )]
    mega_pass: Option<String>,
    /// Its two-factor code
    #[arg(long = "mega-2fa", value_name = "CODE", help_heading = "Program")]
    mega_2fa: Option<String>,
    /// Tell more: what is copied, and of what happens; -vv still more
    #[arg(short, long, action = clap::ArgAction::Count, help_heading = "Program")]
    pub(crate) verbose: u8,
    /// Those of a mount that mean something without one.
    #[command(flatten)]
    pub(crate) mount: MountOptions,
}

impl AccountOptions {
    /// What the command line says of the account.
    pub(crate) fn carried(&self) -> Carried {
        Carried {
            user: self.mega_user.clone(),
            pass: self.mega_pass.clone(),
            code: self.mega_2fa.clone(),
            rclone_config: None,
        }
    }

    /// The options of the mount, with what these say of the log.
    pub(crate) fn of_mount(&self) -> MountOptions {
        let mut options = self.mount.clone();
        let level = match self.verbose {
            0 => None,
            1 => Some(LogLevel::Info),
            2 => Some(LogLevel::Debug),
            _ => Some(LogLevel::Trace),
        };
        options.log_level = options.log_level.or(level);
        options
    }
}

/// The options of a mount that the help of these commands shows; the others are taken and not shown.
pub(super) const SHOWN: &[&str] = &[
    "api-url",
    "ca-cert",
    "config",
    "hard-delete",
    "log-file",
    "log-level",
    "mega-2fa",
    "mega-debug",
    "mega-pass",
    "mega-user",
    "password-command",
    "proxy",
    "session-store",
    "state-dir",
    "streams",
    "timeout",
    "verbose",
];

/// The names of the commands whose own commands have [`AccountOptions`].
pub(super) const NESTED: &[&str] = &["trash", "versions"];

/// The names of the commands that have [`AccountOptions`].
pub(super) const COMMANDS: &[&str] = &[
    "about", "cat", "cleanup", "copy", "dedupe", "link", "login", "logout", "ls", "lsd", "lsjson",
    "lsl", "mkdir", "mv", "rm", "tree", "whoami",
];

/// `megamount ls` and `megamount lsl`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Columns as 'rclone ls' and 'rclone lsl' print them: size, for lsl also date and \
    time, path.\nExit codes: 0 listed, 3 no such remote or path, 4 login refused, 5 network."
)]
pub(crate) struct ListCommand {
    /// What to list: a folder with all below it, or a file
    #[arg(value_name = "REMOTE:[PATH]")]
    pub(crate) place: String,
    /// Go down so many levels [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_depth: Option<u32>,
    /// Go down (as they always do; taken because fingers type it)
    #[arg(short = 'R', long, hide = true)]
    recursive: bool,
    /// How the account is reached.
    #[command(flatten)]
    pub(crate) account: AccountOptions,
}

/// `megamount lsd`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Columns as 'rclone lsd' prints them: -1 (folders have no size on Mega), date and time, \
    -1 (nobody has counted), name."
)]
pub(crate) struct FoldersCommand {
    /// The folder whose folders are listed
    #[arg(value_name = "REMOTE:[PATH]")]
    pub(crate) place: String,
    /// Go down all levels
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// Go down so many levels [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_depth: Option<u32>,
    /// How the account is reached.
    #[command(flatten)]
    pub(crate) account: AccountOptions,
}

/// `megamount lsjson`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "The fields are rclone's: Path, Name, Size (-1 for folders), MimeType, ModTime, IsDir, ID \
    (the handle\non Mega, of what Mega has). With --hash, Hashes has the fingerprint that Mega's clients compare."
)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "these are independent flags of a command line"
)]
pub(crate) struct ListJsonCommand {
    /// What to list: a folder, or a file
    #[arg(value_name = "REMOTE:[PATH]")]
    pub(crate) place: String,
    /// Go down all levels
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// Go down so many levels [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_depth: Option<u32>,
    /// Only folders
    #[arg(long, conflicts_with = "files_only")]
    pub(crate) dirs_only: bool,
    /// Only files
    #[arg(long)]
    pub(crate) files_only: bool,
    /// Without MimeType
    #[arg(long)]
    pub(crate) no_mimetype: bool,
    /// Without ModTime
    #[arg(long)]
    pub(crate) no_modtime: bool,
    /// With Hashes
    #[arg(long)]
    pub(crate) hash: bool,
    /// One object about the place itself instead of a list
    #[arg(long, conflicts_with_all = ["recursive", "max_depth", "dirs_only", "files_only"])]
    pub(crate) stat: bool,
    /// How the account is reached.
    #[command(flatten)]
    pub(crate) account: AccountOptions,
}

/// `megamount tree`.
#[derive(Debug, Clone, Args)]
pub(crate) struct TreeCommand {
    /// The folder to draw
    #[arg(value_name = "REMOTE:[PATH]")]
    pub(crate) place: String,
    /// Go down so many levels [default: all]
    #[arg(long, alias = "max-depth", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) level: Option<u32>,
    /// Names that begin with a dot too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only folders
    #[arg(short, long)]
    pub(crate) dirs_only: bool,
    /// With sizes
    #[arg(short, long)]
    pub(crate) size: bool,
    /// How the account is reached.
    #[command(flatten)]
    pub(crate) account: AccountOptions,
}

/// `megamount about`.
#[derive(Debug, Clone, Args)]
pub(crate) struct AboutCommand {
    /// The account
    #[arg(value_name = "REMOTE:")]
    pub(crate) place: String,
    /// Print JSON for programs, in bytes
    #[arg(long)]
    pub(crate) json: bool,
    /// Print whole numbers of bytes
    #[arg(long, conflicts_with = "json")]
    pub(crate) full: bool,
    /// How the account is reached.
    #[command(flatten)]
    pub(crate) account: AccountOptions,
}

/// `megamount cat`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CatCommand {
    /// Files, or folders with all files in them
    #[arg(value_name = "REMOTE:PATH", required = true)]
    pub(crate) places: Vec<String>,
    /// Begin here, bytes; from the end if negative
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    pub(crate) offset: i64,
    /// Print so many bytes [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Print the first so many bytes
    #[arg(long, value_name = "N", conflicts_with_all = ["offset", "count", "tail"])]
    pub(crate) head: Option<u64>,
    /// Print the last so many bytes
    #[arg(long, value_name = "N", conflicts_with_all = ["offset", "count"])]
    pub(crate) tail: Option<u32>,
    /// How the account is reached.
    #[command(flatten)]
    pub(crate) account: AccountOptions,
}

/// `megamount copy`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "As with rclone, a folder SRC copies what is in it into DST, and a file SRC goes into the folder DST. \
    What\nDST has already, by size and time, is passed over; what is replaced goes to the rubbish bin or becomes a \
    version.\nWithin one remote Mega makes the copies. A copy that was interrupted goes on when it is started \
    again.\n\nExit codes: 0 all is there, 2 something could not be copied, 3 no such remote or path, 4 login \
    refused,\n5 network, 6 local disk, 10 something is queued and not on Mega yet."
)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "these are independent flags of a command line"
)]
pub(crate) struct CopyCommand {
    /// Files and folders, local or REMOTE:PATH, and last where they go
    #[arg(value_name = "SRC... DST", required = true, num_args = 2..)]
    pub(crate) places: Vec<String>,
    /// Compare by size and checksum instead of size and time
    #[arg(short, long)]
    pub(crate) checksum: bool,
    /// Compare by size alone
    #[arg(long, conflicts_with = "checksum")]
    pub(crate) size_only: bool,
    /// Pass over everything that exists, whatever its content
    #[arg(long)]
    pub(crate) ignore_existing: bool,
    /// Say what would be copied, and copy nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Make folders that have nothing in them, too
    #[arg(long)]
    pub(crate) create_empty_src_dirs: bool,
    /// How many files are copied at a time [default: 4, or uploads of the configuration]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=32))]
    pub(crate) transfers: Option<u16>,
    /// How the account is reached.
    #[command(flatten)]
    pub(crate) account: AccountOptions,
}

/// `megamount mkdir`.
#[derive(Debug, Clone, Args)]
pub(crate) struct MakeCommand {
    /// The folders to make
    #[arg(value_name = "REMOTE:PATH", required = true)]
    pub(crate) places: Vec<String>,
    /// Also the folders they are in; one that exists is no error
    #[arg(short, long)]
    pub(crate) parents: bool,
    /// How the account is reached.
    #[command(flatten)]
    pub(crate) account: AccountOptions,
}

/// `megamount rm`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "What is removed goes to Mega's rubbish bin, with --hard-delete it is gone for good. Where the remote is \
    mounted,\nthe mount decides. 'megamount trash' lists the bin and brings things back."
)]
pub(crate) struct RemoveCommand {
    /// Files, or with -r folders
    #[arg(value_name = "REMOTE:PATH", required = true)]
    pub(crate) places: Vec<String>,
    /// Folders with everything in them
    #[arg(short, long, visible_short_alias = 'R')]
    pub(crate) recursive: bool,
    /// What does not exist is no error
    #[arg(short, long)]
    pub(crate) force: bool,
    /// How the account is reached.
    #[command(flatten)]
    pub(crate) account: AccountOptions,
}

/// `megamount mv`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Within one remote; nothing is transferred. A DST that is a folder gets SRC into it. A file that DST \
    replaces\ngoes to the rubbish bin or becomes a version."
)]
pub(crate) struct MoveCommand {
    /// What to move, and last where it goes
    #[arg(value_name = "SRC... DST", required = true, num_args = 2..)]
    pub(crate) places: Vec<String>,
    /// How the account is reached.
    #[command(flatten)]
    pub(crate) account: AccountOptions,
}

/// `megamount login`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Asks for what the configuration does not say: the password, and the code of the second factor. The \
    session is\nkept, so that mounts and other commands need no login. After several refusals in a row logins have \
    to wait,\nso that Mega does not lock the account; --force does not.\n\nExit codes: 0 logged in, 4 refused, 5 \
    network."
)]
pub(crate) struct LoginCommand {
    /// The account
    #[arg(value_name = "REMOTE:")]
    pub(crate) place: String,
    /// Do not wait after refused logins
    #[arg(long)]
    pub(crate) force: bool,
    /// How the account is reached.
    #[command(flatten)]
    pub(crate) account: AccountOptions,
}

/// `megamount logout`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Ends the session on Mega and forgets it here. The state stays: what is queued goes on after the next \
    login."
)]
pub(crate) struct LogoutCommand {
    /// The account
    #[arg(value_name = "REMOTE:")]
    pub(crate) place: String,
    /// Forget the session here only: for when Mega cannot be reached
    #[arg(long)]
    pub(crate) local: bool,
    /// How the account is reached.
    #[command(flatten)]
    pub(crate) account: AccountOptions,
}

/// `megamount whoami`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Exit codes: 0 there is a session, 4 there is none, or Mega has ended it.")]
pub(crate) struct WhoamiCommand {
    /// The account
    #[arg(value_name = "REMOTE:")]
    pub(crate) place: String,
    /// Print JSON for programs
    #[arg(long)]
    pub(crate) json: bool,
    /// How the account is reached.
    #[command(flatten)]
    pub(crate) account: AccountOptions,
}

/// What becomes of several files of one name that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DedupeMode {
    /// Ask for each
    Interactive,
    /// Leave them
    Skip,
    /// Keep the first
    First,
    /// Keep the newest
    Newest,
    /// Keep the oldest
    Oldest,
    /// Keep the largest
    Largest,
    /// Keep the smallest
    Smallest,
    /// Rename all: file-1.jpg, file-2.jpg
    Rename,
    /// List them and change nothing
    List,
}

/// `megamount dedupe`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "As with rclone, folders of one name are merged, and of files with the same content all but one are \
    removed\nwithout a question; the mode is about the rest. Where Mega's checksums do not prove that two files are \
    the\nsame, both are downloaded and compared. What is removed goes to the rubbish bin."
)]
pub(crate) struct DedupeCommand {
    /// A mode, if there are two words, and the folder to look through
    #[arg(value_name = "[MODE] REMOTE:[PATH]", required = true, num_args = 1..=2)]
    words: Vec<String>,
    /// What becomes of several files of one name that differ [default: interactive]
    #[arg(long, visible_alias = "dedupe-mode", value_name = "MODE")]
    mode: Option<DedupeMode>,
    /// Say what would be done, and change nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// How the account is reached.
    #[command(flatten)]
    pub(crate) account: AccountOptions,
}

impl DedupeCommand {
    /// The mode and the place, whichever way they were given.
    pub(crate) fn mode_and_place(&self) -> Result<(DedupeMode, &str), Failure> {
        let default = self.mode.unwrap_or(DedupeMode::Interactive);
        match self.words.as_slice() {
            [place] => Ok((default, place)),
            [mode, place] => match DedupeMode::from_str(mode, true) {
                Ok(mode) => Ok((mode, place)),
                Err(_) => Err(Failure::Usage(format!(
                    "'{mode}' is no mode. The modes are interactive, skip, first, newest, oldest, largest, \
                     smallest, rename and list."
                ))),
            },
            _ => Err(Failure::Usage("a remote is missing: 'work:'.".to_owned())),
        }
    }
}

/// `megamount link`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Whoever has the link can read the file, or everything in the folder, also what is put there later. The \
    same\nlink is printed each time. Links that expire need an account that pays."
)]
pub(crate) struct LinkCommand {
    /// The file or folder
    #[arg(value_name = "REMOTE:PATH")]
    pub(crate) place: String,
    /// Let the link end after this time, such as 7d
    #[arg(long, value_name = "TIME", conflicts_with = "unlink")]
    pub(crate) expire: Option<Span>,
    /// End the link
    #[arg(long)]
    pub(crate) unlink: bool,
    /// How the account is reached.
    #[command(flatten)]
    pub(crate) account: AccountOptions,
}

/// `megamount cleanup`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "What 'rclone cleanup' does. It does not ask; 'megamount trash empty' does."
)]
pub(crate) struct CleanupCommand {
    /// The account, and with --old-versions the folder whose files lose their old versions
    #[arg(value_name = "REMOTE:[PATH]")]
    pub(crate) place: String,
    /// Delete old versions of files, too
    #[arg(long)]
    pub(crate) old_versions: bool,
    /// How the account is reached.
    #[command(flatten)]
    pub(crate) account: AccountOptions,
}

/// `megamount trash`.
#[derive(Debug, Clone, Args)]
pub(crate) struct TrashCommand {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: TrashAction,
}

/// What can be done with the rubbish bin.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum TrashAction {
    /// List what is in it
    List(Box<PlaceCommand>),
    /// Bring something back
    Restore(Box<RestoreCommand>),
    /// Delete everything in it for good
    Empty(Box<EmptyCommand>),
}

/// A place and nothing else.
#[derive(Debug, Clone, Args)]
pub(crate) struct PlaceCommand {
    /// The account, or a file on it
    #[arg(value_name = "REMOTE:[PATH]")]
    pub(crate) place: String,
    /// How the account is reached.
    #[command(flatten)]
    pub(crate) account: AccountOptions,
}

/// `megamount trash restore`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RestoreCommand {
    /// What to bring back, by its name in the bin
    #[arg(value_name = "REMOTE:NAME")]
    pub(crate) place: String,
    /// Where it goes, with its new name [default: where it was if Mega knows that, else the root]
    #[arg(long, value_name = "PATH")]
    pub(crate) to: Option<String>,
    /// How the account is reached.
    #[command(flatten)]
    pub(crate) account: AccountOptions,
}

/// `megamount trash empty`.
#[derive(Debug, Clone, Args)]
pub(crate) struct EmptyCommand {
    /// The account
    #[arg(value_name = "REMOTE:")]
    pub(crate) place: String,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// How the account is reached.
    #[command(flatten)]
    pub(crate) account: AccountOptions,
}

/// `megamount versions`.
#[derive(Debug, Clone, Args)]
pub(crate) struct VersionsCommand {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: VersionsAction,
}

/// What can be done with old versions.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum VersionsAction {
    /// List the versions of a file: number, size, time, handle; 0 is the present one
    List(Box<PlaceCommand>),
    /// Make an old version the present one, which becomes an old one
    Restore(Box<RevertCommand>),
    /// Delete old versions of a file, or of all files in a folder, for good
    Prune(Box<PruneCommand>),
}

/// `megamount versions restore`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RevertCommand {
    /// The file
    #[arg(value_name = "REMOTE:PATH")]
    pub(crate) place: String,
    /// Which version: the number or the handle that 'versions list' shows
    #[arg(value_name = "VERSION")]
    pub(crate) version: String,
    /// How the account is reached.
    #[command(flatten)]
    pub(crate) account: AccountOptions,
}

/// `megamount versions prune`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PruneCommand {
    /// The file or folder
    #[arg(value_name = "REMOTE:[PATH]")]
    pub(crate) place: String,
    /// Leave the newest so many old versions of each file
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) keep: usize,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// How the account is reached.
    #[command(flatten)]
    pub(crate) account: AccountOptions,
}
