//! One run of the program with its mount, which never outlives the test.

use std::fs::File;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::{PATIENCE, World, pid, sh, sh_fails};

/// How long a mount may be in use before whatever waits for it is set free and fails.
const WATCHDOG: Duration = Duration::from_secs(60);
static RUNS: AtomicU32 = AtomicU32::new(0);

/// A mount that answers. Dropping it detaches it and kills its daemon.
#[derive(Debug)]
pub struct Mount<'w> {
    world: &'w World,
    daemon: Daemon,
    path: PathBuf,
    log: PathBuf,
    notify: Option<UnixDatagram>,
    /// Dropped with the mount, which ends the watchdog.
    _watchdog: mpsc::Sender<()>,
}

#[derive(Debug)]
enum Daemon {
    /// Ours, in the foreground.
    Child(Child),
    /// In the background, by its id.
    Background(u32),
}

impl<'w> Mount<'w> {
    /// Starts the program in the foreground and waits until it says that it is ready.
    #[track_caller]
    pub(crate) fn start(world: &'w World, remote: &str, path: &Path, options: &[&str]) -> Self {
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let name = format!("megamount-test-{}-{run}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let notify = UnixDatagram::bind_addr(&address).unwrap();
        let log = world.path(&format!("log-{run}"));
        let child = world
            .program()
            .args([remote.as_ref(), path.as_os_str(), "-f".as_ref()])
            .args(options)
            .env("NOTIFY_SOCKET", format!("@{name}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut mount = Self::watch(world, Daemon::Child(child), path, log);
        mount.notify = Some(notify);
        let mut message = mount.message();
        while message.starts_with("STATUS=reading") {
            message = mount.message();
        }
        assert!(message.starts_with("READY=1\n"), "{message}");
        mount
    }

    /// Takes charge of a daemon that is in the background.
    pub fn background(world: &'w World, id: u32, path: &Path) -> Self {
        let log = world.state().join("megamount.log");
        Self::watch(world, Daemon::Background(id), path, log)
    }

    fn watch(world: &'w World, daemon: Daemon, path: &Path, log: PathBuf) -> Self {
        let (sender, receiver) = mpsc::channel::<()>();
        let (id, mountpoint) = (daemon.id(), path.to_owned());
        std::thread::spawn(move || {
            if receiver.recv_timeout(WATCHDOG) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("the watchdog ends the mount at {}", mountpoint.display());
                detach(&mountpoint);
                let _ = kill_process(pid(id), Signal::KILL);
            }
        });
        Self {
            world,
            daemon,
            path: path.to_owned(),
            log,
            notify: None,
            _watchdog: sender,
        }
    }

    /// The next message to the service manager.
    #[track_caller]
    pub fn message(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        let socket = self.notify.as_ref().unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let mut buffer = [0; 512];
        loop {
            if let Ok(length) = socket.recv(&mut buffer) {
                return String::from_utf8(buffer[..length].to_vec()).unwrap();
            }
            let ended = self.daemon.try_wait();
            assert!(ended.is_none(), "the daemon has ended: {ended:?}");
            assert!(Instant::now() < deadline, "the daemon says nothing");
        }
    }

    /// The mountpoint, or a path below it.
    pub fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() {
            self.path.clone()
        } else {
            self.path.join(name)
        }
    }

    /// The process id of the daemon.
    pub fn id(&self) -> u32 {
        self.daemon.id()
    }

    /// What the daemon has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs a script in the mount; what it printed. Fails when it fails.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        sh(&self.path, script)
    }

    /// Runs a script in the mount that must fail; its standard error.
    #[track_caller]
    pub fn sh_fails(&self, script: &str) -> String {
        sh_fails(&self.path, script)
    }

    /// Writes a file.
    #[track_caller]
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    /// Reads a file.
    #[track_caller]
    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The names in a folder, sorted.
    #[track_caller]
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Unmounts as users do, waits for the end, and fails unless everything was uploaded.
    #[track_caller]
    pub fn unmount(self) {
        let log = self.log.clone();
        let code = self.unmount_code();
        let log = std::fs::read_to_string(log).unwrap_or_default();
        assert_eq!(code, 0, "exit code of the daemon; its log:\n{log}");
    }

    /// Unmounts and returns the exit code of the daemon.
    #[track_caller]
    pub fn unmount_code(mut self) -> i32 {
        sh(
            self.world.path("").as_path(),
            &format!("fusermount3 -u '{}'", self.path.display()),
        );
        self.wait_for_end()
    }

    /// Ends the daemon by SIGTERM and returns its exit code.
    #[track_caller]
    pub fn terminate(mut self) -> i32 {
        self.signal_term();
        self.wait_for_end()
    }

    /// Asks the daemon to end.
    pub fn signal_term(&self) {
        kill_process(pid(self.id()), Signal::TERM).unwrap();
    }

    /// Kills the daemon.
    pub fn kill_9(self) {
        drop(self);
    }

    /// Waits until the daemon has ended; its exit code.
    #[track_caller]
    pub fn wait_for_end(&mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(code) = self.daemon.try_wait() {
                return code;
            }
            assert!(Instant::now() < deadline, "the daemon does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Daemon {
    fn id(&self) -> u32 {
        match self {
            Self::Child(child) => child.id(),
            Self::Background(id) => *id,
        }
    }

    /// The exit code once it has ended: 0 for one in the background, -1 for a death by signal.
    fn try_wait(&mut self) -> Option<i32> {
        match self {
            Self::Child(child) => child
                .try_wait()
                .unwrap()
                .map(|status| status.code().unwrap_or(-1)),
            Self::Background(id) => (!is_running(*id)).then_some(0),
        }
    }
}

/// Whether a process is there and not a zombie.
fn is_running(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// Takes the mount away, whatever is using it. Not being mounted is fine.
fn detach(path: &Path) {
    let _ = Command::new("fusermount3")
        .args(["-u", "-z", "-q", "--"])
        .arg(path)
        .stderr(Stdio::null())
        .status();
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        if self.daemon.try_wait().is_none() {
            let _ = kill_process(pid(self.id()), Signal::KILL);
        }
        detach(&self.path);
        if let Daemon::Child(child) = &mut self.daemon {
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(60)..];
            eprintln!("the end of the daemon's log:\n{}", tail.join("\n"));
        }
    }
}
