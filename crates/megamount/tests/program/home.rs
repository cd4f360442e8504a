//! A home directory of a test's own, so that nothing of the user's is read or written, and nothing
//! stays mounted or running whatever the test does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longer than anything here should take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The user who owns nothing.
const NOBODY: u32 = 65534;

pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        fs::create_dir(home.path("mnt")).unwrap();
        fs::create_dir(home.path("run")).unwrap();
        home
    }

    /// A home of a user who is not root, with a copy of the binary that this user can reach; none
    /// unless we are root, and where users may not mount.
    pub(crate) fn of_nobody() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can become another user");
            return None;
        }
        let device = fs::metadata("/dev/fuse").unwrap().permissions().mode();
        if device & 0o006 != 0o006 {
            eprintln!("skipped: /dev/fuse is closed to users here");
            return None;
        }
        // Whatever TMPDIR says, others may not be let in there.
        let home = Self(tempfile::tempdir_in("/tmp").unwrap());
        fs::set_permissions(home.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_megamount"), home.path("megamount")).unwrap();
        fs::create_dir(home.path("mnt")).unwrap();
        for name in ["", "mnt"] {
            std::os::unix::fs::chown(home.path(name), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Some(home)
    }

    /// A program as that user.
    pub(crate) fn as_nobody(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let id = NOBODY.to_string();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
            .arg(program)
            .env_clear()
            .env("HOME", self.path(""))
            .env("PATH", "/usr/bin:/bin")
            .current_dir(self.path(""))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    pub(crate) fn mountpoint(&self) -> PathBuf {
        self.path("mnt")
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// The permissions of a file here.
    pub(crate) fn mode(&self, name: &str) -> u32 {
        let metadata = fs::metadata(self.path(name)).unwrap();
        metadata.permissions().mode() & 0o777
    }

    /// The binary with this home and without a terminal.
    pub(crate) fn command(&self) -> Command {
        // setsid: no controlling terminal, so that nothing can be asked.
        let mut command = Command::new("setsid");
        command
            .args(["--wait", env!("CARGO_BIN_EXE_megamount")])
            .env_clear()
            .env("HOME", self.path(""))
            .env("PATH", "/usr/bin:/bin")
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .current_dir(self.path(""))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command().args(args).output().unwrap()
    }

    /// Runs, expects `code`, and returns the message.
    pub(crate) fn fails(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(output.stdout.is_empty());
        assert!(!self.is_mounted());
        text
    }

    /// Runs, expects a mount, and returns what was said.
    pub(crate) fn mounts(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            output.status.code(),
            Some(0),
            "{args:?}: {text}\n{}",
            self.log("demo")
        );
        assert!(self.is_mounted(), "success means that it is mounted");
        text
    }

    pub(crate) fn is_mounted(&self) -> bool {
        mount_types(&self.mountpoint())
            .last()
            .is_some_and(|t| t == "fuse.megamount")
    }

    /// The process that holds the state of `remote`, as its lock file says.
    pub(crate) fn daemon(&self, remote: &str) -> Option<i32> {
        let lock = self
            .path(".local/state/megamount")
            .join(remote)
            .join("lock");
        let text = fs::read_to_string(lock).ok()?;
        let lock: serde_json::Value = serde_json::from_str(&text).ok()?;
        let pid = i32::try_from(lock["pid"].as_i64()?).ok()?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        String::from_utf8_lossy(&command)
            .contains("megamount")
            .then_some(pid)
    }

    pub(crate) fn signal(&self, remote: &str, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.daemon(remote).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn unmount(&self) {
        let done = Command::new("fusermount3")
            .arg("-u")
            .arg(self.mountpoint())
            .status()
            .unwrap();
        assert!(done.success());
    }

    /// Waits until no daemon works on `remote` any more.
    pub(crate) fn wait_until_gone(&self, remote: &str) {
        wait_for("the daemon to end", || self.daemon(remote).is_none());
    }

    pub(crate) fn log(&self, remote: &str) -> String {
        let log = self
            .path(".local/state/megamount")
            .join(remote)
            .join("megamount.log");
        fs::read_to_string(log).unwrap_or_default()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        while !mount_types(&self.mountpoint()).is_empty() {
            let done = Command::new("umount")
                .arg("-l")
                .arg(self.mountpoint())
                .status();
            if !done.is_ok_and(|status| status.success()) {
                break;
            }
        }
        let state = self.path(".local/state/megamount");
        for entry in fs::read_dir(state).into_iter().flatten().flatten() {
            let remote = entry.file_name().into_string().unwrap();
            if let Some(pid) = self
                .daemon(&remote)
                .and_then(rustix::process::Pid::from_raw)
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// The types of what is mounted at `path`, the uppermost last.
pub(crate) fn mount_types(path: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let at = path.to_str().unwrap();
    let here = table
        .lines()
        .filter(|line| line.split(' ').nth(4) == Some(at));
    here.filter_map(|line| {
        line.split(" - ")
            .nth(1)?
            .split(' ')
            .next()
            .map(str::to_owned)
    })
    .collect()
}

/// Waits for a state that another process brings about.
pub(crate) fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "timed out waiting for {what}");
        std::thread::yield_now();
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for a child and gives its exit code.
pub(crate) fn exit_code(child: &mut Child) -> Option<i32> {
    let mut status = None;
    wait_for("the process to end", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap().code()
}

/// Whether this machine can mount at all; tests that need it are skipped elsewhere.
pub(crate) fn has_fuse() -> bool {
    let device = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse");
    let helper = Path::new("/usr/bin/fusermount3").exists();
    if device.is_err() || !helper {
        eprintln!("skipped: this machine cannot mount");
        return false;
    }
    true
}
