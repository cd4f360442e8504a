//! Mounting and unmounting: what the first process says, what the daemon leaves behind.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::home::{Home, PATIENCE, exit_code, has_fuse, mount_types, wait_for};

#[test]
fn a_mount_answers_when_the_command_returns() {
    if !has_fuse() {
        return;
    }
    let home = Home::new();
    home.mounts(&["demo:", "mnt"]);
    let text = fs::read_to_string(home.path("mnt/Welcome.txt")).unwrap();
    assert!(text.contains("demo account"));
    fs::write(home.path("mnt/mine.txt"), "mine").unwrap();
    home.unmount();
    home.wait_until_gone("demo");
    assert_eq!(home.log("demo"), "", "nothing to warn of");

    home.mounts(&["demo:", "mnt", "--read-only"]);
    assert_eq!(
        fs::read_to_string(home.path("mnt/mine.txt")).unwrap(),
        "mine"
    );
    let refused = fs::write(home.path("mnt/other.txt"), "x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn one_folder_can_be_mounted() {
    if !has_fuse() {
        return;
    }
    let home = Home::new();
    home.mounts(&["demo:/Documents/", "mnt"]);
    assert!(home.path("mnt/notes.md").exists());
    home.unmount();
    home.wait_until_gone("demo");
    let text = home.fails(&["demo:Documents/none", "mnt"], 3);
    assert!(text.contains("'Documents/none'"), "{text}");
    let text = home.fails(&["demo:Documents/notes.md", "mnt"], 1);
    assert!(text.contains("is a file"), "{text}");
}

#[test]
fn a_remote_and_a_mountpoint_are_used_once_at_a_time() {
    if !has_fuse() {
        return;
    }
    let home = Home::new();
    home.mounts(&["demo:", "mnt"]);
    let output = home.run(&["demo:", "mnt"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("mounted at") && text.contains("fusermount3 -u"),
        "{text}"
    );
    fs::create_dir(home.path("other")).unwrap();
    let output = home.run(&["demo:", "other"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(6), "{text}");
    assert!(
        text.contains("in use already") && text.contains("mnt"),
        "{text}"
    );
    assert!(home.is_mounted(), "the first one is not disturbed");
}

#[test]
fn signals_unmount_even_with_open_files() {
    if !has_fuse() {
        return;
    }
    for signal in [Signal::TERM, Signal::INT] {
        let home = Home::new();
        home.mounts(&["demo:", "mnt"]);
        let open = fs::File::open(home.path("mnt/Welcome.txt")).unwrap();
        home.signal("demo", signal);
        home.wait_until_gone("demo");
        assert!(mount_types(&home.mountpoint()).is_empty());
        drop(open);
    }
}

#[test]
fn a_dead_mount_of_ours_is_cleared() {
    if !has_fuse() {
        return;
    }
    let home = Home::new();
    home.mounts(&["demo:", "mnt"]);
    // The kernel now remembers the root's attributes, also after the daemon's death.
    home.mountpoint().metadata().unwrap();
    home.signal("demo", Signal::KILL);
    home.wait_until_gone("demo");
    assert_eq!(mount_types(&home.mountpoint()).len(), 1);
    home.mounts(&["demo:", "mnt"]);
    assert_eq!(mount_types(&home.mountpoint()).len(), 1);
    assert!(home.path("mnt/Welcome.txt").exists());
}

/// A process that dies gives up its memory first and the connection to the kernel later: who asks in between
/// waits, and gets another error than who asks afterwards.
#[test]
fn a_mount_that_dies_while_it_is_asked_is_cleared() {
    let statfs = match std::env::consts::ARCH {
        "x86_64" => "137 ",
        "aarch64" => "43 ",
        _ => return,
    };
    if !has_fuse() {
        return;
    }
    let home = Home::new();
    home.mounts(&["demo:", "mnt"]);
    home.signal("demo", Signal::STOP);
    // Not by way of setsid: its number is needed.
    let mut second = Command::new(env!("CARGO_BIN_EXE_megamount"))
        .args(["mount", "demo:", "mnt", "--state-dir", "other"])
        .env_clear()
        .env("HOME", home.path(""))
        .env("PATH", "/usr/bin:/bin")
        .current_dir(home.path(""))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let syscall = format!("/proc/{}/syscall", second.id());
    wait_for("the question", || {
        fs::read_to_string(&syscall).is_ok_and(|call| call.starts_with(statfs))
    });
    home.signal("demo", Signal::KILL);
    assert_eq!(exit_code(&mut second), Some(0));
    assert_eq!(mount_types(&home.mountpoint()).len(), 1);
    assert!(home.path("mnt/Welcome.txt").exists());
}

#[test]
fn what_is_mounted_later_is_left_alone() {
    if !has_fuse() || !rustix::process::geteuid().is_root() {
        return;
    }
    let home = Home::new();
    home.mounts(&["demo:", "mnt"]);
    let open = fs::File::open(home.path("mnt/Welcome.txt")).unwrap();
    // Detached, but alive until the file is closed; meanwhile somebody mounts something else.
    let unmounted = Command::new("fusermount3")
        .args(["-u", "-z"])
        .arg(home.mountpoint())
        .status();
    assert!(unmounted.unwrap().success());
    let mount = ["-t", "tmpfs", "tmpfs"];
    let mounted = Command::new("mount")
        .args(mount)
        .arg(home.mountpoint())
        .status();
    assert!(mounted.unwrap().success());
    drop(open);
    home.wait_until_gone("demo");
    assert_eq!(mount_types(&home.mountpoint()), ["tmpfs"]);
}

#[test]
fn service_managers_are_told() {
    if !has_fuse() {
        return;
    }
    let home = Home::new();
    let socket = UnixDatagram::bind(home.path("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = || {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let mut child = home
        .command()
        .env("NOTIFY_SOCKET", home.path("notify"))
        .args(["demo:", "mnt"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ready = heard();
    assert!(ready.lines().any(|line| line == "READY=1"), "{ready}");
    assert!(home.is_mounted(), "ready means that it is mounted");
    assert!(
        child.try_wait().unwrap().is_none(),
        "it stays in the foreground"
    );
    home.signal("demo", Signal::TERM);
    assert!(heard().lines().any(|line| line == "STOPPING=1"));
    assert_eq!(exit_code(&mut child), Some(0));
    let mut log = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut log)
        .unwrap();
    assert!(log.contains("mounted") && log.contains("done"), "{log}");
}

#[test]
fn a_manager_that_only_sets_the_pid_is_noticed() {
    if !has_fuse() {
        return;
    }
    let home = Home::new();
    // As systemd does it, the variable names the process that is executed.
    let script = "SYSTEMD_EXEC_PID=$$ exec \"$0\" demo: mnt --log-file log";
    let mut child = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_megamount")])
        .env("HOME", home.path(""))
        .current_dir(home.path(""))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the mount", || is_mounted_in(&home, "log"));
    assert!(
        child.try_wait().unwrap().is_none(),
        "it stays in the foreground"
    );
    home.unmount();
    assert_eq!(exit_code(&mut child), Some(0));
}

/// Whether the log says that the mount answers: it is in the mount table a moment earlier.
fn is_mounted_in(home: &Home, log: &str) -> bool {
    fs::read_to_string(home.path(log)).is_ok_and(|log| log.contains("mounted"))
}

#[test]
fn work_that_is_left_has_its_own_exit_code_and_is_done_later() {
    if !has_fuse() {
        return;
    }
    let home = Home::new();
    let mut child = home
        .command()
        .args(["demo:", "mnt", "-f", "--drain", "0s", "--write-back", "1h"])
        .args(["--log-file", "log"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("the mount", || is_mounted_in(&home, "log"));
    fs::write(home.path("mnt/late.txt"), "late").unwrap();
    home.unmount();
    assert_eq!(exit_code(&mut child), Some(10));
    let mut log = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut log)
        .unwrap();
    assert!(log.contains("not on Mega yet"), "{log}");
    home.mounts(&["demo:", "mnt"]);
    assert_eq!(
        fs::read_to_string(home.path("mnt/late.txt")).unwrap(),
        "late"
    );
}

#[test]
fn logs_go_where_they_are_sent() {
    if !has_fuse() {
        return;
    }
    let home = Home::new();
    let options = [
        "--log-file",
        "my.log",
        "--log-level",
        "debug",
        "--log-format",
        "json",
    ];
    let mut args = vec!["demo:", "mnt"];
    args.extend(options);
    home.mounts(&args);
    fs::read_dir(home.mountpoint()).unwrap().for_each(drop);
    home.unmount();
    home.wait_until_gone("demo");
    let log = fs::read_to_string(home.path("my.log")).unwrap();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        lines
            .iter()
            .any(|line| line["fields"]["message"] == "mounted")
    );
    assert!(
        lines.iter().any(|line| line["span"]["op"] == "readdirplus"),
        "requests at debug"
    );
    assert!(
        !log.contains("Welcome"),
        "no names above debug, none at debug either"
    );
}
