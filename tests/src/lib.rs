//! Shared harness of the mount tests: an emulated account, a private home directory, and the real
//! `megamount` binary in a subprocess.
//!
//! Promises: whatever a test does, its mount is gone and its daemon ended when it is over; a mount
//! that hangs fails the test instead of hanging it; and a world that is dropped has seen no protocol
//! violation and no more than one login. Waiting is always for a state, with a deadline.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod mount;
mod world;

pub use mount::Mount;
pub use world::{Answer, PASSWORD, Refusal, USER, World};

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How long a test waits for a state before it gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds; fails after [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What one of our commands printed; it must succeed.
#[track_caller]
pub fn done(world: &World, args: &[&str]) -> String {
    let answer = world.command(args);
    assert_eq!(answer.code, 0, "{args:?}: {}", answer.errors);
    answer.text
}

/// What one of our commands complained about; its exit code must be `code`.
#[track_caller]
pub fn fails(world: &World, args: &[&str], code: i32) -> String {
    let answer = world.command(args);
    assert_eq!(answer.code, code, "{args:?}: {}", answer.errors);
    answer.errors
}

/// What a script printed, when it ended with 0. Fails otherwise, or after [`PATIENCE`].
#[track_caller]
pub fn sh(directory: &Path, script: &str) -> String {
    let output = sh_output(directory, script);
    assert!(
        output.status.success(),
        "{script}\n{}\nstdout:\n{}stderr:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a script printed, when it failed: the text of its standard error.
#[track_caller]
pub fn sh_fails(directory: &Path, script: &str) -> String {
    let output = sh_output(directory, script);
    assert!(!output.status.success(), "{script}: succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn sh_output(directory: &Path, script: &str) -> Output {
    let mut command = Command::new("bash");
    command
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(directory)
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC");
    run(&mut command)
}

/// Runs a program in a process group of its own, and kills that when it takes too long.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Output {
    use std::os::unix::process::CommandExt;
    let child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = pid(child.id());
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    if let Ok(output) = receiver.recv_timeout(PATIENCE) {
        return output.unwrap();
    }
    let _ = kill_process_group(pid, Signal::KILL);
    panic!("{command:?}: not done in {PATIENCE:?}");
}

pub(crate) fn pid(id: u32) -> Pid {
    Pid::from_raw(id.cast_signed()).unwrap()
}

/// The binary under test: `target/PROFILE/megamount` beside the directory of this test. Cargo does not
/// build it for these tests by itself, so one that is older than its sources is refused: it would be
/// another program that is tested.
#[track_caller]
fn binary() -> PathBuf {
    static CHECKED: OnceLock<PathBuf> = OnceLock::new();
    CHECKED
        .get_or_init(|| {
            let test = std::env::current_exe().unwrap();
            let path = test.ancestors().nth(2).unwrap().join("megamount");
            let hint = "build it with 'cargo build -p megamount'";
            assert!(path.is_file(), "{} is missing: {hint}", path.display());
            let changed_at = |path: &Path| path.metadata().and_then(|data| data.modified());
            let built_at = changed_at(&path).unwrap();
            // Cargo writes beside the binary what it was made of.
            let sources = std::fs::read_to_string(path.with_extension("d")).unwrap_or_default();
            for source in sources.split_whitespace().skip(1) {
                let is_older = changed_at(Path::new(source)).is_ok_and(|at| at <= built_at);
                assert!(
                    is_older,
                    "{} is older than {source}: {hint}",
                    path.display()
                );
            }
            path
        })
        .clone()
}
