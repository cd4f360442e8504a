//! A good Unix program: signals, log files, the system's log, pid files, the mount table.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

use mega_emulator::{FaultAction, FaultRule, Fixture};
use megamount_tests::{Mount, World, wait_until};
use rustix::process::{Pid, Signal, kill_process};

/// Mounts in the background.
fn in_the_background<'w>(world: &'w World, options: &[&str]) -> Mount<'w> {
    let pid_file = world.path("pid");
    let output = world
        .program()
        .arg("remote:")
        .arg(world.path("mnt"))
        .arg("--pid-file")
        .arg(&pid_file)
        .args(options)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    Mount::background(world, pid.trim().parse().unwrap(), &world.path("mnt"))
}

fn send(mount: &Mount, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(mount.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn sighup_opens_the_log_anew_and_sigusr1_writes_the_state() {
    let world = World::with(&[Fixture::file("/f", "x", 1_600_000_000)]);
    let (log, moved) = (world.path("mega.log"), world.path("mega.log.old"));
    let mount = in_the_background(&world, &["--log-file", log.to_str().unwrap()]);
    assert_eq!(mount.read("f"), b"x");
    std::fs::rename(&log, &moved).unwrap();
    send(&mount, Signal::HUP);
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_until("there is a new log", || text().contains("opened anew"));
    send(&mount, Signal::USR1);
    wait_until("the state is in it", || text().contains("SIGUSR1"));
    let mountpoint = world.path("mnt");
    assert!(text().contains(mountpoint.to_str().unwrap()), "{}", text());
    assert_eq!(mount.read("f"), b"x", "it goes on");
    mount.unmount();
    assert!(!world.path("pid").exists(), "the pid file goes");
}

#[test]
fn log_files_of_a_mount_are_bounded() {
    let world = World::with(&[Fixture::file("/f", "x", 1_600_000_000)]);
    let log = world.path("logs/mega.log");
    let mount = in_the_background(
        &world,
        &[
            "--log-file",
            log.to_str().unwrap(),
            "--log-file-max-size=8KiB",
            "--log-file-max-backups=2",
        ],
    );
    wait_until("there are as many as there may be", || {
        mount.sh("for n in $(seq 50); do stat none.$n.$RANDOM >/dev/null 2>&1 || true; done");
        world.path("logs/mega.log.2").exists()
    });
    mount.sh("for n in $(seq 100); do stat none.$n.$RANDOM >/dev/null 2>&1 || true; done");
    mount.unmount();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(world.path("logs")).unwrap() {
        let entry = entry.unwrap();
        assert!(entry.metadata().unwrap().len() < 10_000);
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["mega.log", "mega.log.1", "mega.log.2"]);
}

#[test]
fn the_mount_table_has_the_name_that_was_asked_for() {
    let world = World::new();
    let mount = world.mount_with("remote:", &["--fsname", "my,cloud"]);
    let source = mount.sh("findmnt -no SOURCE,FSTYPE .");
    assert_eq!(source.trim(), "my_cloud fuse.megamount");
    mount.unmount();
}

#[test]
fn a_mount_that_takes_too_long_is_given_up() {
    let world = World::new();
    let rule = world
        .emulator
        .faults()
        .add(FaultRule::new("cmd:f", FaultAction::Held));
    let refusal = world.refused(
        "remote:",
        &world.path("mnt"),
        &["--daemon-timeout", "300ms"],
    );
    refusal.is(2, &["--daemon-timeout", "megamount.log"]);
    world.emulator.faults().remove(rule);
    // The next one waits for the lock of the last.
    world.mount().unmount();
}

/// Runs a mount in the foreground that fails once it logs.
fn failing(world: &World, options: &[&str], stderr: File, journal: Option<String>) {
    let mut command = world.program();
    command
        .arg("remote:")
        .arg(world.path("mnt"))
        .arg("-f")
        .args(options)
        .env("MEGAMOUNT_API_URL", "http://127.0.0.1:9")
        .stdin(Stdio::null())
        .stderr(stderr);
    if let Some(journal) = journal {
        command.env("JOURNAL_STREAM", journal);
    }
    assert_eq!(command.status().unwrap().code(), Some(5));
}

#[test]
fn lines_for_the_journal_have_their_priority() {
    let world = World::new();
    let path = world.path("stderr");
    let file = File::create(&path).unwrap();
    let meta = file.metadata().unwrap();
    let stream = format!("{}:{}", meta.dev(), meta.ino());
    failing(&world, &["--timeout", "1s"], file, Some(stream));
    let text = std::fs::read_to_string(&path).unwrap();
    let line = text.lines().find(|line| line.contains("not mounted"));
    assert!(line.unwrap().starts_with("<3>megamount"), "{text}");
    failing(
        &world,
        &["--timeout", "1s"],
        File::create(&path).unwrap(),
        Some("1:1".to_owned()),
    );
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("<3>"), "of another stream: {text}");
}

#[test]
fn the_log_can_go_to_the_system() {
    struct Gone;
    impl Drop for Gone {
        fn drop(&mut self) {
            let _ = std::fs::remove_file("/dev/log");
        }
    }
    // Only where nobody else listens, and we may.
    let Ok(system) = UnixDatagram::bind("/dev/log") else {
        eprintln!("passed over: /dev/log cannot be made here");
        return;
    };
    let _gone = Gone;
    system
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let world = World::new();
    let path = world.path("stderr");
    let options = ["--syslog", "--timeout", "1s", "--log-level", "error"];
    failing(&world, &options, File::create(&path).unwrap(), None);
    let mut buffer = [0; 2000];
    let line = loop {
        let length = system.recv(&mut buffer).unwrap();
        let line = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if line.contains("not mounted") {
            break line;
        }
    };
    // Daemon (3), error (3): 3 * 8 + 3.
    assert!(
        line.starts_with("<27>") && line.contains("megamount["),
        "{line}"
    );
}
