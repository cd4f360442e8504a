//! What can go wrong before or while mounting, in the user's words.
//!
//! Each variant is one situation; its text is one paragraph that says what is wrong and what to
//! do next. The exit codes are in `exit.rs`. No text ever holds a password, key or session.

use std::path::PathBuf;

/// A failure that ends the program.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A value or combination of options that cannot be.
    #[error("{0}")]
    Usage(String),
    /// The REMOTE argument has not the form `name:[path]`.
    #[error(
        "'{given}' is not a remote. Write the name of a remote, a colon and, if wanted, a path: \
         'work:' or 'work:photos/2024'. A name begins with a letter, digit or underscore, and \
         has only those, dots, dashes and spaces. Try 'demo:' without any account."
    )]
    BadRemote {
        /// What was given instead.
        given: String,
    },
    /// A public link that cannot be one.
    #[error(
        "the public link cannot be used: {why}. Copy all of it, in quotes: \
         'https://mega.nz/folder/HANDLE#KEY' or 'https://mega.nz/file/HANDLE#KEY'."
    )]
    BadLink {
        /// What is wrong, without any part of the link.
        why: &'static str,
    },
    /// A public link where something was to be changed, or was asked about an account.
    #[error(
        "this is a public link, and a public link can be mounted, listed ('ls', 'lsl', 'lsd', 'lsjson', 'tree'), \
         printed ('cat') and copied from ('copy'). Nothing else works on it; copy it to an account of yours \
         first."
    )]
    LinkHere,
    /// A public link that Mega does not know, or not any more.
    #[error(
        "the public link '{name}' cannot be opened: {why}. Ask whoever gave it to you for a new one."
    )]
    LinkGone {
        /// The remote.
        name: String,
        /// What Mega says.
        why: String,
    },
    /// The key of a public link does not open it.
    #[error(
        "the key of the public link '{name}' is wrong. It is the part after '#'; copy all of the link, in \
         quotes."
    )]
    LinkKey {
        /// The remote.
        name: String,
    },
    /// No section of any configuration has that name.
    #[error("there is no remote '{name}'. {}", known_remotes(known, config, rclone.as_deref()))]
    UnknownRemote {
        /// The name that was asked for.
        name: String,
        /// The names there are, sorted.
        known: Vec<String>,
        /// Where our configuration is or would be.
        config: PathBuf,
        /// The rclone configuration that was read, if there is one.
        rclone: Option<PathBuf>,
    },
    /// A configuration file exists and cannot be read.
    #[error(
        "cannot read the configuration {path}: {reason}. Check its owner and mode \
         ('ls -l {path}'), or name another one with --config."
    )]
    ConfigUnreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Our configuration file cannot be written.
    #[error(
        "cannot write the configuration {path}: {reason}. Nothing was changed. Check the owner and \
         mode of its directory and whether the disk is full, or name another file with --config."
    )]
    ConfigUnwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The guided set-up was left in the middle.
    #[error("cancelled. Remotes that were confirmed before are kept; nothing else was changed.")]
    SetupCancelled,
    /// There is no rclone configuration to import from.
    #[error(
        "rclone has no configuration here: looked for {}. Name it with --from.",
        listed(searched)
    )]
    NoRclone {
        /// Where it was looked for.
        searched: Vec<PathBuf>,
    },
    /// A configuration file says something impossible.
    #[error("the configuration {path} is not valid: {reason}")]
    ConfigInvalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the place if known.
        reason: String,
    },
    /// A configuration file holds secrets that others can read or change.
    #[error(
        "the configuration {path} holds a password and is open to other users (mode {mode:04o}). \
         Close it with 'chmod 600 {path}', and change the password if somebody else uses this \
         machine."
    )]
    ConfigExposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Our configuration is encrypted and nobody can be asked for its password.
    #[error(
        "the configuration {path} is encrypted, and there is no terminal to ask for its password. \
         Set MEGAMOUNT_CONFIG_PASS, or let --password-command (MEGAMOUNT_PASSWORD_COMMAND) name a \
         command that prints it."
    )]
    ConfigLocked {
        /// The file.
        path: PathBuf,
    },
    /// Somebody was asked for the password and did not want to answer.
    #[error("cancelled. The configuration {path} is encrypted, and was not read or changed.")]
    ConfigNotUnlocked {
        /// The file.
        path: PathBuf,
    },
    /// Our configuration is encrypted with another password.
    #[error(
        "cannot decrypt the configuration {path}: {from} is not its password. Nothing was changed. \
         A password that is forgotten cannot be found out: move the file away then, and set the \
         remotes up again with 'megamount config'."
    )]
    ConfigPassword {
        /// The file.
        path: PathBuf,
        /// Where the password came from.
        from: &'static str,
    },
    /// The `--password-command` failed.
    #[error(
        "the --password-command failed: {reason}. Run the command by hand: it must print the \
         password of the configuration on one line and exit with 0."
    )]
    ConfigPasswordCommand {
        /// What happened.
        reason: String,
    },
    /// Our configuration is encrypted and not as it was written.
    #[error(
        "the encrypted configuration {path} cannot be read: {reason}. It was left as it is. Take it \
         from a backup, or move it away and set the remotes up again with 'megamount config'."
    )]
    ConfigDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// rclone's configuration is encrypted and the remote is not in ours.
    #[error(
        "the rclone configuration {path} is encrypted, and there is no remote '{name}' in \
         {config}. Either remove the encryption with 'rclone config encryption remove', or add \
         '[remote.{name}]' with 'user' and 'pass-command' to {config}."
    )]
    RcloneEncrypted {
        /// rclone's file.
        path: PathBuf,
        /// The remote that was asked for.
        name: String,
        /// Our own file.
        config: PathBuf,
    },
    /// The `pass` of a remote is not in rclone's obscured form.
    #[error(
        "the 'pass' of remote '{name}' in {path} is not an obscured password. Make one with \
         'rclone obscure', or use 'pass-command' or 'pass-file' instead of 'pass'."
    )]
    BadPassword {
        /// The remote.
        name: String,
        /// The file it is in.
        path: PathBuf,
    },
    /// A remote without an e-mail address.
    #[error("the remote '{name}' in {path} has no 'user'. Add the e-mail address of the account.")]
    NoUser {
        /// The remote.
        name: String,
        /// The file it is in.
        path: PathBuf,
    },
    /// No password is configured and nobody can be asked.
    #[error(
        "no password is known for {user}, and there is no terminal to ask for it. Set \
         'pass-command', 'pass-file' or 'pass' for the remote '{name}', or mount it once from a \
         terminal: the session is then kept."
    )]
    PasswordNeeded {
        /// The remote.
        name: String,
        /// The account's e-mail address.
        user: String,
    },
    /// A `pass-command`, `totp-command` or `link-command` failed.
    #[error(
        "the {what} of remote '{name}' failed: {reason}. Run the command by hand: it must print \
         one line and exit with 0."
    )]
    PasswordCommand {
        /// The option.
        what: &'static str,
        /// The remote.
        name: String,
        /// What happened.
        reason: String,
    },
    /// A `pass-file` or `link-file` cannot be read.
    #[error("cannot read the {what} of remote '{name}' from {path}: {reason}.")]
    PasswordFile {
        /// What the file holds.
        what: &'static str,
        /// The remote.
        name: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Unknown user or wrong password; Mega does not tell which.
    #[error(
        "Mega does not accept the login of {user}: the e-mail address or the password is wrong. \
         Log in at mega.nz with the same to see which, then correct the remote '{name}'."
    )]
    WrongPassword {
        /// The remote.
        name: String,
        /// The account's e-mail address.
        user: String,
    },
    /// There is no such account.
    #[error(
        "Mega knows no account {user}. Check the e-mail address of the remote '{name}' for typing errors."
    )]
    UnknownUser {
        /// The remote.
        name: String,
        /// The account's e-mail address.
        user: String,
    },
    /// Wrong address or password, or one of the passwords that old accounts have trouble with.
    #[error(
        "Mega does not accept the login of {user}: the e-mail address or the password is wrong. The account is \
         of the old kind, whose passwords with letters beyond ASCII were derived in different ways by \
         different programs, and both that are known were tried. If mega.nz takes the password, change it \
         there, then correct the remote '{name}'."
    )]
    OldPassword {
        /// The remote.
        name: String,
        /// The account's e-mail address.
        user: String,
    },
    /// Several logins in a row were refused.
    #[error(
        "the last {count} logins of {user} were refused. The next one has to wait {minutes} minutes, so that \
         Mega does not lock the account. If the password of the remote '{name}' is corrected, 'megamount \
         login {name}: --force' tries at once."
    )]
    TooManyLogins {
        /// The remote.
        name: String,
        /// The account's e-mail address.
        user: String,
        /// How many.
        count: u32,
        /// How long.
        minutes: u64,
    },
    /// No session is kept.
    #[error("there is no session of {user}. 'megamount login {name}:' makes one.")]
    NotLoggedIn {
        /// The remote.
        name: String,
        /// The account's e-mail address.
        user: String,
    },
    /// The account needs a second factor and nobody can be asked.
    #[error(
        "the account {user} has two-factor authentication, and there is no terminal to ask for \
         the code. Set 'totp-command' for the remote '{name}' to a command that prints the \
         current code (for example 'oathtool --totp -b SECRET'), or mount it once from a \
         terminal: the session is then kept."
    )]
    CodeNeeded {
        /// The remote.
        name: String,
        /// The account's e-mail address.
        user: String,
    },
    /// The second factor was wrong.
    #[error(
        "Mega does not accept the two-factor code for {user}. Codes are valid for half a minute: {}, and try again \
         with a fresh one.",
        clock(*skew)
    )]
    CodeWrong {
        /// The account's e-mail address.
        user: String,
        /// How many seconds our clock is ahead of Mega's, if known.
        skew: Option<i64>,
    },
    /// The e-mail address was never confirmed.
    #[error(
        "the account {user} is not confirmed yet. Follow the link in the e-mail that Mega sent \
         when it was made, then try again."
    )]
    Unconfirmed {
        /// The account's e-mail address.
        user: String,
    },
    /// Mega has blocked the account.
    #[error(
        "Mega has blocked the account {user}{}. Log in at mega.nz: it says why and what to do. \
         Nothing here can lift it.",
        block_reason(*reason)
    )]
    Blocked {
        /// The account's e-mail address.
        user: String,
        /// What Mega answers to the question why.
        reason: Option<i64>,
    },
    /// The saved session is dead and a new login was not possible.
    #[error(
        "the saved session of {user} has ended on Mega's side (a changed password ends all \
         sessions), and logging in again was not possible. Set a password for the remote \
         '{name}', or mount it once from a terminal."
    )]
    SessionDead {
        /// The remote.
        name: String,
        /// The account's e-mail address.
        user: String,
    },
    /// The server refused for another reason.
    #[error("Mega refused the request: {reason}. Try again later, or log in at mega.nz.")]
    Refused {
        /// The server's answer in words.
        reason: String,
    },
    /// The server cannot be reached.
    #[error(
        "cannot reach Mega at {origin}: {reason}. Check the network connection and --proxy, then \
         try again."
    )]
    Network {
        /// Scheme, host and port of the server.
        origin: String,
        /// What happened.
        reason: String,
    },
    /// The path of `remote:path` does not exist.
    #[error(
        "there is no folder '{path}' on '{remote}:'. Mount '{remote}:' to see what is there; \
         Mega distinguishes upper and lower case."
    )]
    PathNotFound {
        /// The remote.
        remote: String,
        /// The path below it.
        path: String,
    },
    /// The path of `remote:path` is a file.
    #[error(
        "'{remote}:{path}' is a file, and only folders can be mounted. Mount the folder it is in."
    )]
    NotAFolder {
        /// The remote.
        remote: String,
        /// The path below it.
        path: String,
    },
    /// The mountpoint does not exist.
    #[error("the mountpoint {path} does not exist. Make it with 'mkdir -p {path}'.")]
    MountpointMissing {
        /// The mountpoint.
        path: PathBuf,
    },
    /// The mountpoint is a file.
    #[error("the mountpoint {path} is not a directory. Choose an empty directory.")]
    MountpointNotDirectory {
        /// The mountpoint.
        path: PathBuf,
    },
    /// The mountpoint has entries, which the mount would hide.
    #[error(
        "the mountpoint {path} is not empty; a mount would hide what is in it. Choose an empty \
         directory."
    )]
    MountpointNotEmpty {
        /// The mountpoint.
        path: PathBuf,
    },
    /// A FUSE file system is mounted there.
    #[error(
        "something is mounted at {path} already: {source_name} (type {fs_type}). Unmount it with \
         'fusermount3 -u {path}', or choose another directory."
    )]
    MountpointBusy {
        /// The mountpoint.
        path: PathBuf,
        /// What is mounted.
        source_name: String,
        /// Its file system type.
        fs_type: String,
    },
    /// The mountpoint cannot be looked at.
    #[error("cannot use the mountpoint {path}: {reason}.")]
    MountpointUnusable {
        /// The mountpoint.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// One of our own files would lie inside the mount.
    #[error(
        "the {what} {path} lies below the mountpoint {mountpoint}: the mount would wait for \
         itself. Move it elsewhere with {option}."
    )]
    BelowMountpoint {
        /// What it is, in words.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The mountpoint.
        mountpoint: PathBuf,
        /// The option that moves it.
        option: &'static str,
    },
    /// `/dev/fuse` is missing.
    #[error(
        "/dev/fuse does not exist. Load the kernel module with 'modprobe fuse' as root; in a \
         container, pass the device in with '--device /dev/fuse --cap-add SYS_ADMIN'."
    )]
    NoFuseDevice,
    /// `/dev/fuse` cannot be opened.
    #[error(
        "cannot open /dev/fuse: {reason}. Its mode should be 0666; in a container, pass the \
         device in with '--device /dev/fuse --cap-add SYS_ADMIN'."
    )]
    FuseDevice {
        /// What the system said.
        reason: String,
    },
    /// No fusermount3 for an unprivileged mount.
    #[error(
        "fusermount3 was not found, and only root can mount without it. Install the package \
         fuse3 ('apt install fuse3')."
    )]
    NoFusermount,
    /// `user_allow_other` is not set.
    #[error(
        "{option} is not allowed to users here. Ask root to put the line 'user_allow_other' into \
         /etc/fuse.conf, or leave {option} away."
    )]
    AllowOtherForbidden {
        /// The option.
        option: &'static str,
    },
    /// Neither HOME nor the user database names a home directory.
    #[error(
        "the home directory is not known (HOME is not set). Set HOME, or give --config, \
         --state-dir and --cache-dir."
    )]
    NoHome,
    /// The log file cannot be opened.
    #[error(
        "cannot write the log file {path}: {reason}. Choose another one with --log-file; without that it is in \
         --state-dir."
    )]
    LogFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Another process works on the state directory.
    #[error(
        "'{remote}:' is in use already: {holder}. A remote can be mounted once at a time; \
         unmount the other one with 'fusermount3 -u' first{}. To mount a second folder of the \
         same account at the same time, mount the whole account once.",
        if *draining { ", or wait: it may still be uploading after its unmount" } else { "" }
    )]
    StateLocked {
        /// The remote.
        remote: String,
        /// Who has it: pid and mountpoint.
        holder: String,
        /// The holder has no mount any more.
        draining: bool,
    },
    /// Another process works on the state directory and does not end.
    #[error(
        "'{remote}:' is in use: {holder} did not end in {seconds} seconds, and cannot be asked. Nothing was \
         done. Wait for it, or end it, and try again."
    )]
    InUse {
        /// The remote.
        remote: String,
        /// Who has it.
        holder: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// No daemon answers for what was named.
    #[error(
        "'{target}' is not mounted by megamount. 'megamount status' lists what is. If changes were \
         left over when it was unmounted, they go on when it is mounted again."
    )]
    NotMounted {
        /// What was named.
        target: String,
    },
    /// It is mounted, and its daemon cannot be asked.
    #[error(
        "the mount at {mountpoint} cannot be asked: another user made it, or its daemon found no \
         private directory for its socket (its log says so). Ask as that user, or as root."
    )]
    NoControl {
        /// What was named.
        mountpoint: String,
    },
    /// Several mounts have that name.
    #[error("'{target}' is mounted more than once: at {}. Name one of these.", mountpoints.join(", "))]
    Ambiguous {
        /// What was named.
        target: String,
        /// Where they are.
        mountpoints: Vec<String>,
    },
    /// The daemon does not answer.
    #[error(
        "the mount's daemon does not answer. If it is stopped (state T in 'ps'), let it go on; its \
         log may say more."
    )]
    DaemonSilent,
    /// The daemon went away in the middle.
    #[error(
        "the mount's daemon has ended, or is of another version. What it had queued is kept, and \
         goes on at the next mount."
    )]
    DaemonGone,
    /// There is nothing to do at that path.
    #[error("{text}.")]
    NoChange {
        /// What the daemon says.
        text: String,
    },
    /// A mount cannot be taken off.
    #[error(
        "{mountpoint} stays mounted: {reason}. Close the programs that use it ('fuser -vm \
         {mountpoint}' lists them) and try again."
    )]
    MountBusy {
        /// The mount.
        mountpoint: String,
        /// What the system said, or what is open.
        reason: String,
    },
    /// A local file or folder that is to be copied does not exist.
    #[error(
        "there is no local '{path}'. A remote has a colon behind its name: 'work:{path}' would be on Mega."
    )]
    NoSource {
        /// The path.
        path: PathBuf,
    },
    /// A local file cannot be read or written.
    #[error("cannot {what} '{path}': {reason}.")]
    LocalFile {
        /// `read` or `write`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said and what to do.
        reason: String,
    },
    /// Some of several things were not done; each was told.
    #[error(
        "{count} of {all} could not be copied; the messages above say why. Start it again to copy the rest."
    )]
    Partly {
        /// How many.
        count: usize,
        /// Of how many.
        all: usize,
        /// The exit code of the first.
        code: u8,
    },
    /// Whoever reads our output wants no more: nothing is wrong.
    #[error("the output was not read to its end.")]
    ReaderGone,
    /// Standard output cannot be written.
    #[error("cannot write to standard output: {reason}. Check the disk or program behind it.")]
    Output {
        /// What the system said.
        reason: String,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {reason}. Name a file that does not exist yet.")]
    Export {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A file was written, with gaps.
    #[error(
        "{path} has all there is, but {missing} of its {size} bytes are neither here nor to be had \
         from Mega now; they are zeros. Online it may be more: remove {path} and try again."
    )]
    ExportIncomplete {
        /// The file.
        path: PathBuf,
        /// Its length.
        size: u64,
        /// How much is missing.
        missing: u64,
    },
    /// The state belongs to another account or server.
    #[error(
        "the state in {path} belongs to {reason}. Nothing was sent. Use another remote name or \
         --state-dir for this account; or, if everything in it was uploaded, delete the directory."
    )]
    StateMismatch {
        /// The state directory.
        path: PathBuf,
        /// Another account, or another server, in words.
        reason: String,
    },
    /// The state directory cannot be used.
    #[error("cannot use the state in {path}: {reason}.")]
    State {
        /// The state directory.
        path: PathBuf,
        /// What happened and what to do.
        reason: String,
    },
    /// The kernel or fusermount3 refused the mount.
    #[error("cannot mount at {path}: {reason}.")]
    Mount {
        /// The mountpoint.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// A signal arrived before the mount was ready.
    #[error("interrupted before the mount was ready; nothing is mounted.")]
    Interrupted,
    /// The background process vanished without a word.
    #[error(
        "the background process ended before the mount was ready. Look into the log {log}, or \
         run the same command with -f to see what happens."
    )]
    ChildDied {
        /// Where it logged.
        log: String,
    },
    /// The mount did not answer within `--daemon-timeout`.
    #[error(
        "the mount did not answer in time (--daemon-timeout) and is given up. Look into the log {log}, or \
         give it more time: the first reading of a large account takes minutes."
    )]
    NotInTime {
        /// Where it logged.
        log: String,
    },
    /// Something the other of two processes has found.
    #[error("{text}")]
    Relayed {
        /// Its exit code.
        code: u8,
        /// Its text.
        text: String,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Differences of clocks that matter to a code.
const SKEW: i64 = 20;

/// What is to be said of the clock.
fn clock(skew: Option<i64>) -> String {
    match skew {
        Some(ahead) if ahead > SKEW => format!("this machine's clock is {ahead} seconds ahead of Mega's. Set it right"),
        Some(behind) if behind < -SKEW => {
            format!("this machine's clock is {} seconds behind Mega's. Set it right", -behind)
        }
        Some(_) => "this machine's clock agrees with Mega's, so check that of the device that makes the codes".to_owned(),
        None => "check that this machine's clock is right".to_owned(),
    }
}

/// The numbers of `whyamiblocked` (protocol/01 section 5.3).
fn block_reason(reason: Option<i64>) -> String {
    match reason {
        None => String::new(),
        Some(100) => " for using too much data".to_owned(),
        Some(200) => " for copyright reasons".to_owned(),
        Some(300) => " for a violation of its terms".to_owned(),
        Some(400) => ": the administrator of the business account has disabled it".to_owned(),
        Some(401) => ": the administrator of the business account has removed it".to_owned(),
        Some(500) => " until a phone number is verified".to_owned(),
        Some(700) => " until the e-mail address is verified".to_owned(),
        Some(other) => format!(" (reason {other})"),
    }
}

/// The paths of a sentence.
fn listed(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    if paths.is_empty() {
        "no file, because RCLONE_CONFIG is empty".to_owned()
    } else {
        paths.join(", ")
    }
}

/// The second sentence of [`Failure::UnknownRemote`].
fn known_remotes(
    known: &[String],
    config: &std::path::Path,
    rclone: Option<&std::path::Path>,
) -> String {
    let places = match rclone {
        Some(rclone) => format!("{} and {}", config.display(), rclone.display()),
        None => config.display().to_string(),
    };
    if known.is_empty() {
        format!(
            "No remotes were found in {places}. Make one with 'megamount config', or try 'demo:' \
             without any account."
        )
    } else {
        let names: Vec<_> = known.iter().map(|name| format!("'{name}:'")).collect();
        format!(
            "Known are {} (from {places}), and 'demo:'.",
            names.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_remote_lists_the_known_ones() {
        let failure = Failure::UnknownRemote {
            name: "wrok".into(),
            known: vec!["home".into(), "work".into()],
            config: "/c/config.toml".into(),
            rclone: Some("/c/rclone.conf".into()),
        };
        let text = failure.to_string();
        assert!(text.contains("'home:', 'work:'"), "{text}");
        assert!(text.contains("/c/rclone.conf"), "{text}");
    }

    #[test]
    fn unknown_remote_without_any_says_how_to_make_one() {
        let failure = Failure::UnknownRemote {
            name: "x".into(),
            known: vec![],
            config: "/c/config.toml".into(),
            rclone: None,
        };
        assert!(failure.to_string().contains("'megamount config'"));
    }

    #[test]
    fn messages_are_one_paragraph() {
        let samples = [
            Failure::NoFusermount,
            Failure::ConfigLocked { path: "/c".into() },
            Failure::ConfigNotUnlocked { path: "/c".into() },
            Failure::ConfigPassword {
                path: "/c".into(),
                from: "what was typed",
            },
            Failure::ConfigPasswordCommand {
                reason: "it exited with status 1".into(),
            },
            Failure::ConfigDamaged {
                path: "/c".into(),
                reason: "it is damaged".into(),
            },
            Failure::DaemonSilent,
            Failure::DaemonGone,
            Failure::NotMounted {
                target: "w:".into(),
            },
            Failure::MountBusy {
                mountpoint: "/m".into(),
                reason: "busy".into(),
            },
            Failure::MountpointMissing { path: "/m".into() },
            Failure::StateLocked {
                remote: "w".into(),
                holder: "pid 1".into(),
                draining: true,
            },
            Failure::CodeNeeded {
                name: "w".into(),
                user: "a@b".into(),
            },
        ];
        for failure in samples {
            let text = failure.to_string();
            assert!(!text.contains('\n') && !text.contains("  "), "{text:?}");
            assert!(text.ends_with('.'), "{text:?}");
        }
    }
}
