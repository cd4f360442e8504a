//! Every exit code of the program, and which failure has which.
//!
//! Scripts and units depend on these numbers: they never change their meaning.

use std::process::ExitCode;

use crate::failure::Failure;

/// Done; the mount answers, or was unmounted with nothing left to upload; `status`: Mega has all.
pub(crate) const DONE: u8 = 0;
/// Wrong usage: a bad option, argument or configuration file.
pub(crate) const USAGE: u8 = 1;
/// Any other error.
pub(crate) const OTHER: u8 = 2;
/// The remote or the path on it does not exist.
pub(crate) const NOT_FOUND: u8 = 3;
/// Mega refused the login.
pub(crate) const LOGIN: u8 = 4;
/// Mega could not be reached.
pub(crate) const NETWORK: u8 = 5;
/// Something local is in the way: the state directory, the disk, FUSE.
pub(crate) const LOCAL: u8 = 6;
/// Unmounted, or stopped waiting, with work left in the queue; `status`: there is some.
pub(crate) const WORK_LEFT: u8 = 10;

/// The exit code of a failure.
pub(crate) fn code(failure: &Failure) -> u8 {
    match failure {
        Failure::Usage(_)
        | Failure::BadRemote { .. }
        | Failure::BadLink { .. }
        | Failure::LinkHere
        | Failure::ConfigUnreadable { .. }
        | Failure::ConfigInvalid { .. }
        | Failure::NoRclone { .. }
        | Failure::ConfigExposed { .. }
        | Failure::ConfigLocked { .. }
        | Failure::ConfigPassword { .. }
        | Failure::ConfigPasswordCommand { .. }
        | Failure::ConfigDamaged { .. }
        | Failure::RcloneEncrypted { .. }
        | Failure::BadPassword { .. }
        | Failure::NoUser { .. }
        | Failure::NotAFolder { .. }
        | Failure::MountpointMissing { .. }
        | Failure::MountpointNotDirectory { .. }
        | Failure::MountpointNotEmpty { .. }
        | Failure::MountpointBusy { .. }
        | Failure::MountpointUnusable { .. }
        | Failure::Ambiguous { .. }
        | Failure::BelowMountpoint { .. } => USAGE,
        Failure::UnknownRemote { .. }
        | Failure::PathNotFound { .. }
        | Failure::NoSource { .. }
        | Failure::LinkGone { .. }
        | Failure::NotMounted { .. }
        | Failure::NoChange { .. } => NOT_FOUND,
        Failure::PasswordNeeded { .. }
        | Failure::PasswordCommand { .. }
        | Failure::PasswordFile { .. }
        | Failure::WrongPassword { .. }
        | Failure::LinkKey { .. }
        | Failure::UnknownUser { .. }
        | Failure::OldPassword { .. }
        | Failure::TooManyLogins { .. }
        | Failure::NotLoggedIn { .. }
        | Failure::CodeNeeded { .. }
        | Failure::CodeWrong { .. }
        | Failure::Unconfirmed { .. }
        | Failure::Blocked { .. }
        | Failure::SessionDead { .. }
        | Failure::Refused { .. } => LOGIN,
        Failure::Network { .. } => NETWORK,
        Failure::NoFuseDevice
        | Failure::ConfigUnwritable { .. }
        | Failure::FuseDevice { .. }
        | Failure::NoFusermount
        | Failure::AllowOtherForbidden { .. }
        | Failure::NoHome
        | Failure::LogFile { .. }
        | Failure::StateLocked { .. }
        | Failure::InUse { .. }
        | Failure::Output { .. }
        | Failure::LocalFile { .. }
        | Failure::StateMismatch { .. }
        | Failure::State { .. }
        | Failure::MountBusy { .. }
        | Failure::Export { .. }
        | Failure::Mount { .. } => LOCAL,
        Failure::Relayed { code, .. } | Failure::Partly { code, .. } => *code,
        Failure::ReaderGone => DONE,
        Failure::Interrupted
        | Failure::ConfigNotUnlocked { .. }
        | Failure::SetupCancelled
        | Failure::ChildDied { .. }
        | Failure::NotInTime { .. }
        | Failure::NoControl { .. }
        | Failure::DaemonSilent
        | Failure::DaemonGone
        | Failure::ExportIncomplete { .. }
        | Failure::Other(_) => OTHER,
    }
}

/// `code` in the words of mount(8), for its helper.
pub(crate) fn of_mount(code: u8) -> u8 {
    match code {
        DONE => 0,
        USAGE => 1,
        LOCAL => 2,
        _ => 32,
    }
}

/// `code` as the process result.
pub(crate) fn status(code: u8) -> ExitCode {
    ExitCode::from(code)
}
