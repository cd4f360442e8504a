//! An account on a server, and a home directory with a configuration for it.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use mega_emulator::{AccountSpec, Emulator, EmulatorConfig, Fixture, PlainNode};
use tempfile::TempDir;

use crate::{Mount, binary, run, wait_until};

/// The e-mail address of the account.
pub const USER: &str = "me@example.com";
/// Its password.
pub const PASSWORD: &str = "correct horse";

/// Everything of one test: the server, the account, the private home directory.
#[derive(Debug)]
pub struct World {
    /// The server.
    pub emulator: Emulator,
    dir: TempDir,
    most_logins: AtomicU64,
}

/// How the program ended when it refused to mount.
#[derive(Debug)]
pub struct Refusal {
    /// Its exit code.
    pub code: i32,
    /// What it printed on standard error.
    pub text: String,
}

/// How a command ended that talks to a mount.
#[derive(Debug)]
pub struct Answer {
    /// Its exit code.
    pub code: i32,
    /// What it printed on standard output.
    pub text: String,
    /// What it printed on standard error.
    pub errors: String,
}

impl Refusal {
    /// Fails unless the exit code is `code` and the text holds all of `parts`.
    #[track_caller]
    pub fn is(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{}", self.text);
        for part in parts {
            assert!(self.text.contains(part), "no '{part}' in: {}", self.text);
        }
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// An empty account, and a configuration with the remote `remote` for it.
    pub fn new() -> Self {
        let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
        emulator.add_account(AccountSpec::new(USER, PASSWORD));
        let world = Self {
            emulator,
            dir: tempfile::tempdir().unwrap(),
            most_logins: AtomicU64::new(1),
        };
        for name in ["home", "config/megamount", "run", "mnt", "mnt2", "out"] {
            std::fs::create_dir_all(world.path(name)).unwrap();
        }
        std::fs::write(world.path("password"), PASSWORD).unwrap();
        world.configure(&format!(
            "[remote.remote]\nuser = \"{USER}\"\npass-file = \"{}\"\n",
            world.path("password").display()
        ));
        world
    }

    /// An account with these files and folders.
    pub fn with(fixtures: &[Fixture]) -> Self {
        let world = Self::new();
        world.populate(fixtures);
        world
    }

    /// Replaces the configuration.
    pub fn configure(&self, text: &str) {
        let path = self.config();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    }

    /// Where the configuration is.
    pub fn config(&self) -> PathBuf {
        self.path("config/megamount/config.toml")
    }

    /// A path of the test's own directory. `out` is an empty directory in it for results.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The state directory of the remote.
    pub fn state(&self) -> PathBuf {
        self.path("state/megamount/remote")
    }

    /// Puts things into the account as another client would; returns their handles.
    #[track_caller]
    pub fn populate(&self, fixtures: &[Fixture]) -> Vec<String> {
        self.emulator.populate(USER, fixtures).unwrap()
    }

    /// Allows more logins than one.
    pub fn expect_logins(&self, most: u64) {
        self.most_logins.store(most, Ordering::Relaxed);
    }

    /// The program with the environment of this world and nothing else.
    pub fn program(&self) -> Command {
        self.program_below(&[])
    }

    /// The same, as another program starts it that gets it as the end of its command line.
    pub fn program_below(&self, starter: &[&str]) -> Command {
        let mut words = starter.iter().map(OsString::from).chain([binary().into()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        command.env_clear();
        for name in ["PATH", "TMPDIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("HOME", self.path("home"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("MEGAMOUNT_API_URL", self.emulator.url())
            .env("MEGAMOUNT_WRITE_BACK", "50ms")
            .env("MEGAMOUNT_LOG_LEVEL", "debug");
        command
    }

    /// Mounts `remote:` at `mnt`.
    #[track_caller]
    pub fn mount(&self) -> Mount<'_> {
        self.mount_with("remote:", &[])
    }

    /// Mounts something else, or with options, at `mnt`.
    #[track_caller]
    pub fn mount_with(&self, remote: &str, options: &[&str]) -> Mount<'_> {
        self.mount_at(remote, "mnt", options)
    }

    /// Mounts at another directory: `mnt2` is there.
    #[track_caller]
    pub fn mount_at(&self, remote: &str, name: &str, options: &[&str]) -> Mount<'_> {
        Mount::start(self, remote, &self.path(name), options)
    }

    /// Runs one of the commands that talk to a mount; its exit code, and what it printed.
    #[track_caller]
    pub fn command(&self, args: &[&str]) -> Answer {
        let mut command = self.program();
        command.args(args).current_dir(self.path("out"));
        let output = run(&mut command);
        Answer {
            code: output.status.code().unwrap_or(-1),
            text: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a command line that must not mount.
    #[track_caller]
    pub fn refused(&self, remote: &str, mountpoint: &Path, options: &[&str]) -> Refusal {
        let mut command = self.program();
        command.arg(remote).arg(mountpoint).args(options);
        let output = run(&mut command);
        assert!(!output.status.success(), "mounted: {command:?}");
        Refusal {
            code: output.status.code().unwrap(),
            text: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Live paths in the account, sorted; `/` at the end of folders. Old versions and the bin are
    /// left out.
    pub fn paths(&self) -> Vec<String> {
        let mut paths: Vec<_> = self
            .nodes()
            .into_iter()
            .filter(|node| node.version_of.is_none() && node.path.starts_with('/'))
            .filter(|node| !node.path.starts_with("//"))
            .map(|node| node.path + if node.folder { "/" } else { "" })
            .collect();
        paths.sort();
        paths
    }

    /// Names in the rubbish bin, sorted.
    pub fn bin(&self) -> Vec<String> {
        let nodes = self.nodes().into_iter();
        let mut names: Vec<_> = nodes
            .filter_map(|node| node.path.strip_prefix("//bin/").map(str::to_owned))
            .collect();
        names.sort();
        names
    }

    /// Every node of the account in clear.
    pub fn nodes(&self) -> Vec<PlainNode> {
        self.emulator.tree(USER).unwrap()
    }

    /// The live node at a path.
    pub fn node(&self, path: &str) -> Option<PlainNode> {
        self.emulator.find(USER, path)
    }

    /// The content of the live file at a path, none when there is none (yet).
    pub fn content(&self, path: &str) -> Option<Vec<u8>> {
        let node = self.node(path).filter(|node| !node.folder)?;
        self.emulator.content(&node.handle).ok()
    }

    /// Waits until the account has exactly these live paths.
    #[track_caller]
    pub fn wait_for_paths(&self, expected: &[&str]) {
        let mut seen = Vec::new();
        wait_until_or(
            || {
                seen = self.paths();
                seen == expected
            },
            || format!("the server has {expected:?}; it has {:?}", self.paths()),
        );
    }

    /// Waits until the file at a path has this content.
    #[track_caller]
    pub fn wait_for_content(&self, path: &str, expected: &[u8]) {
        wait_until(&format!("the server has the content of {path}"), || {
            self.content(path).as_deref() == Some(expected)
        });
    }
}

#[track_caller]
fn wait_until_or(mut condition: impl FnMut() -> bool, text: impl Fn() -> String) {
    let deadline = std::time::Instant::now() + crate::PATIENCE;
    while !condition() {
        assert!(
            std::time::Instant::now() < deadline,
            "waited in vain until {}",
            text()
        );
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let counters = self.emulator.counters();
        assert_eq!(counters.violations, Vec::<String>::new());
        assert!(
            counters.logins <= self.most_logins.load(Ordering::Relaxed),
            "{} logins",
            counters.logins
        );
    }
}
