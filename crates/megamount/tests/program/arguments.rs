//! What the program says to wrong input: one clear paragraph, the documented exit code, and
//! nothing mounted.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::home::{Home, has_fuse};

const CONFIG: &str = ".config/megamount/config.toml";
const RCLONE: &str = ".config/rclone/rclone.conf";

#[test]
fn help_and_version_are_no_errors() {
    let home = Home::new();
    for args in [&["--help"][..], &["-h"], &["--version"]] {
        let output = home.run(args);
        assert!(output.status.success());
        assert!(
            String::from_utf8(output.stdout)
                .unwrap()
                .contains("megamount")
        );
    }
}

#[test]
fn usage_errors_exit_with_1() {
    let home = Home::new();
    home.fails(&[], 1);
    home.fails(&["demo:"], 1);
    let text = home.fails(&["demo:", "mnt", "--write-back", "soon"], 1);
    assert!(
        text.contains("--write-back") && text.contains("5s"),
        "{text}"
    );
    let text = home.fails(&["demo:", "mnt", "--no-such-option"], 1);
    assert!(text.contains("--no-such-option"), "{text}");
    let text = home.fails(&["demo", "mnt"], 1);
    assert!(text.contains("a colon"), "{text}");
    let text = home.fails(&["https://mega.nz/folder/x#y", "mnt"], 1);
    assert!(text.contains("incomplete or mistyped"), "{text}");
    let text = home.fails(&["demo:", "mnt", "--allow-other", "--allow-root"], 1);
    assert!(text.contains("exclude each other"), "{text}");
}

#[test]
fn the_environment_is_checked_like_flags() {
    let home = Home::new();
    let output = home
        .command()
        .env("MEGAMOUNT_UPLOADS", "many")
        .args(["demo:", "mnt"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("many"));
}

#[test]
fn unknown_remotes_list_the_known_ones() {
    let home = Home::new();
    let text = home.fails(&["wrok:", "mnt"], 3);
    assert!(text.contains("No remotes were found"), "{text}");
    home.write(CONFIG, "[remote.work]\nuser = \"u\"\n");
    home.write(
        RCLONE,
        "[other]\ntype = mega\nuser = u\n[box]\ntype = dropbox\n",
    );
    let text = home.fails(&["wrok:", "mnt"], 3);
    assert!(
        text.contains("'other:', 'work:'") && !text.contains("box"),
        "{text}"
    );
}

#[test]
fn rclone_config_is_found_where_rclone_finds_it() {
    let home = Home::new();
    let conf = home.write("elsewhere/r.conf", "[there]\ntype = mega\nuser = u\n");
    let output = home
        .command()
        .env("RCLONE_CONFIG", conf)
        .args(["none:", "mnt"])
        .output()
        .unwrap();
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("'there:'")
    );
    home.write(RCLONE, "[here]\ntype = mega\nuser = u\n");
    let output = home
        .command()
        .env("RCLONE_CONFIG", "")
        .args(["none:", "mnt"])
        .output()
        .unwrap();
    assert!(
        !String::from_utf8(output.stderr)
            .unwrap()
            .contains("'here:'")
    );
}

#[test]
fn an_encrypted_rclone_config_is_explained() {
    let home = Home::new();
    home.write(
        RCLONE,
        "# Encrypted rclone configuration File\n\nRCLONE_ENCRYPT_V0:\nAAAA\n",
    );
    let text = home.fails(&["work:", "mnt"], 1);
    assert!(
        text.contains("is encrypted") && text.contains("[remote.work]"),
        "{text}"
    );
}

#[test]
fn configurations_with_secrets_must_be_closed() {
    let home = Home::new();
    let path = home.write(
        CONFIG,
        "[remote.w]\nuser = \"u\"\npass = \"HUSHHUSHHUSHHUSHHUSHHUSH\"\n",
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let text = home.fails(&["w:", "mnt"], 1);
    assert!(
        text.contains("chmod 600") && text.contains("0644"),
        "{text}"
    );
    assert!(!text.contains("HUSH"), "{text}");
}

#[test]
fn unreadable_and_wrong_configurations_are_named() {
    let home = Home::new();
    let text = home.fails(&["w:", "mnt", "--config", "none.toml"], 1);
    assert!(
        text.contains("none.toml") && text.contains("--config"),
        "{text}"
    );
    fs::create_dir_all(home.path(CONFIG)).unwrap();
    let text = home.fails(&["w:", "mnt"], 1);
    assert!(text.contains("config.toml"), "{text}");
    let path = home.write("bad.toml", "[defaults]\nuplods = 1\n");
    let text = home.fails(&["w:", "mnt", "--config", path.to_str().unwrap()], 1);
    assert!(text.contains("'uplods' in [defaults]"), "{text}");
}

#[test]
fn mountpoints_are_checked() {
    let home = Home::new();
    let text = home.fails(&["demo:", "missing"], 1);
    assert!(
        text.contains("does not exist") && text.contains("mkdir -p"),
        "{text}"
    );
    home.write("file", "x");
    let text = home.fails(&["demo:", "file"], 1);
    assert!(text.contains("not a directory"), "{text}");
    home.write("full/file", "x");
    let text = home.fails(&["demo:", "full"], 1);
    assert!(text.contains("not empty"), "{text}");
}

#[test]
fn own_files_below_the_mountpoint_are_refused() {
    let home = Home::new();
    for (option, path) in [
        ("--state-dir", "mnt/state"),
        ("--cache-dir", "mnt"),
        ("--log-file", "mnt/log"),
    ] {
        let text = home.fails(&["demo:", "mnt", option, path], 1);
        assert!(
            text.contains("below the mountpoint") && text.contains(option),
            "{text}"
        );
    }
    assert_eq!(fs::read_dir(home.path("mnt")).unwrap().count(), 0);
}

#[test]
fn an_unwritable_log_is_named() {
    let home = Home::new();
    if !has_fuse() {
        return;
    }
    let text = home.fails(&["demo:", "mnt", "--log-file", "/proc/none/log"], 6);
    assert!(text.contains("/proc/none/log"), "{text}");
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_configuration() {
    let home = Home::new();
    // A state directory below the mountpoint is refused by name, which shows whose value counts.
    let whose = |args: &[&str], env: Option<&str>| {
        let mut command = home.command();
        command.args(["w:", "mnt"]).args(args);
        if let Some(value) = env {
            command.env("MEGAMOUNT_STATE_DIR", value);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let defaults = "[defaults]\nstate-dir = \"~/mnt/defaults\"\n";
    home.write(CONFIG, &format!("{defaults}[remote.w]\nuser = \"u\"\n"));
    assert!(whose(&[], None).contains("mnt/defaults/w"));
    let own = "[remote.w]\nuser = \"u\"\nstate-dir = \"~/mnt/own\"\n";
    home.write(CONFIG, &format!("{defaults}{own}"));
    assert!(whose(&[], None).contains("mnt/own/w"));
    assert!(whose(&[], Some("mnt/env")).contains("mnt/env/w"));
    let flag = ["--state-dir", "mnt/flag"];
    assert!(whose(&flag, Some("mnt/env")).contains("mnt/flag/w"));
}
