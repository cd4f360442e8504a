//! The program for a user who is not root: fusermount3 mounts.

use std::fs;
use std::process::{Command, Output};

use crate::home::{Home, has_fuse};

/// What it printed, if it ended with `code`.
fn ended(mut command: Command, code: i32) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let (out, text) = (
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    );
    assert_eq!(status.code(), Some(code), "{command:?}: {out}{text}");
    out + &text
}

fn mount(home: &Home, more: &[&str]) -> Command {
    let mut command = home.as_nobody(home.path("megamount"));
    command.args(["demo:", "mnt"]).args(more);
    command
}

#[test]
fn a_user_needs_fusermount3_and_leave_to_let_others_in() {
    let (true, Some(home)) = (has_fuse(), Home::of_nobody()) else {
        return;
    };
    let mut without = mount(&home, &[]);
    without.env("FUSERMOUNT_PATH", "/nowhere/fusermount3");
    let text = ended(without, 6);
    assert!(text.contains("apt install fuse3"), "{text}");

    let conf = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    if !conf.lines().any(|line| line.trim() == "user_allow_other") {
        for option in ["--allow-other", "--allow-root"] {
            let text = ended(mount(&home, &[option]), 6);
            assert!(
                text.contains("'user_allow_other'") && text.contains(option),
                "{text}"
            );
        }
    }
    assert!(!home.is_mounted());
}

#[test]
fn a_user_mounts_and_unmounts() {
    let (true, Some(home)) = (has_fuse(), Home::of_nobody()) else {
        return;
    };
    ended(mount(&home, &[]), 0);
    assert!(home.is_mounted());
    // Nobody else is let in, root neither: what follows is done by the user.
    let as_user = |script: &str| {
        let mut command = home.as_nobody("sh");
        command.args(["-ec", script]);
        ended(command, 0)
    };
    let seen = as_user("echo mine >mnt/mine; cat mnt/mine; stat -c %u mnt/mine");
    assert_eq!(seen, "mine\n65534\n");
    as_user("fusermount3 -u mnt");
    assert!(!home.is_mounted());
    home.wait_until_gone("demo");
}
