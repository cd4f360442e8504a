//! The commands that talk to a mount that is up.

use std::path::PathBuf;

use clap::Args;

use crate::bwlimit::BwLimit;
use crate::quantity::Span;

/// `megamount status`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Exit codes: 0 Mega has everything, 10 changes are left, 3 not mounted.\n\n\
    docs/STATUS.md describes the output of --json."
)]
pub(crate) struct StatusCommand {
    /// Which mount: its mountpoint, something below it, or REMOTE: [default: all of yours]
    #[arg(value_name = "MOUNTPOINT|REMOTE:")]
    pub(crate) target: Option<String>,
    /// Print JSON for programs
    #[arg(long)]
    pub(crate) json: bool,
    /// Go on showing it until Ctrl-C
    #[arg(long, conflicts_with = "wait")]
    pub(crate) watch: bool,
    /// Show progress until Mega has everything, or all that is left was refused
    #[arg(long)]
    pub(crate) wait: bool,
    /// With --wait: give up after this time
    #[arg(long, value_name = "TIME", requires = "wait")]
    pub(crate) timeout: Option<Span>,
}

/// `megamount flush`.
#[derive(Debug, Clone, Args)]
pub(crate) struct FlushCommand {
    /// Which mount: its mountpoint or REMOTE:
    #[arg(value_name = "MOUNTPOINT|REMOTE:")]
    pub(crate) target: String,
    /// Give up waiting after this time; the changes stay queued
    #[arg(long, value_name = "TIME")]
    pub(crate) timeout: Option<Span>,
}

/// `megamount bwlimit`.
#[derive(Debug, Clone, Args)]
pub(crate) struct BwlimitCommand {
    /// Which mount: its mountpoint or REMOTE:
    #[arg(value_name = "MOUNTPOINT|REMOTE:")]
    pub(crate) target: String,
    /// The new limit, as --bwlimit has it; it holds until the mount ends
    #[arg(value_name = "LIMIT")]
    pub(crate) limit: Option<BwLimit>,
}

/// `megamount umount`.
#[derive(Debug, Clone, Args)]
pub(crate) struct UnmountCommand {
    /// Which mount: its mountpoint or REMOTE:
    #[arg(value_name = "MOUNTPOINT|REMOTE:")]
    pub(crate) target: String,
    /// Unmount at once; what is left is uploaded in the background for up to --drain of the mount,
    /// and after that by the next mount
    #[arg(long, conflicts_with = "timeout")]
    pub(crate) no_wait: bool,
    /// Give up waiting after this time and stay mounted
    #[arg(long, value_name = "TIME")]
    pub(crate) timeout: Option<Span>,
}

/// `megamount retry`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RetryCommand {
    /// Which mount: its mountpoint or REMOTE:
    #[arg(value_name = "MOUNTPOINT|REMOTE:")]
    pub(crate) target: String,
    /// The file or folder, with what is below it [default: everything]
    pub(crate) path: Option<PathBuf>,
}

/// `megamount discard`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DiscardCommand {
    /// Which mount: its mountpoint or REMOTE:
    #[arg(value_name = "MOUNTPOINT|REMOTE:")]
    pub(crate) target: String,
    /// The file or folder, as 'megamount status' shows it
    pub(crate) path: PathBuf,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// `megamount export`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ExportCommand {
    /// Which mount: its mountpoint or REMOTE:
    #[arg(value_name = "MOUNTPOINT|REMOTE:")]
    pub(crate) target: String,
    /// The file, as 'megamount status' shows it
    pub(crate) path: PathBuf,
    /// A new file, or a directory to put it in
    pub(crate) to: PathBuf,
}

/// `megamount verify`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Exit codes: 0 all files match, 2 some do not or could not be checked, 3 not mounted \
    or no such file."
)]
pub(crate) struct VerifyCommand {
    /// A file or directory inside a mount, or the mountpoint
    pub(crate) path: PathBuf,
}
