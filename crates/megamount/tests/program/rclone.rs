//! A unit file for rclone, with `rclone` replaced: the same options, the same account.

use std::fs;

use mega_emulator::{AccountSpec, Emulator, EmulatorConfig, Fixture};

use crate::home::{Home, has_fuse};

const USER: &str = "me@example.com";
/// 'potato', as rclone obscures it.
const POTATO: &str = "AAAAAAAAAAAAAAAAAAAAADS03QMhkA";

fn server() -> Emulator {
    let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
    emulator.add_account(AccountSpec::new(USER, "potato"));
    let files = [Fixture::file("/here.txt", "here", 1_700_000_000)];
    emulator.populate(USER, &files).unwrap();
    emulator
}

fn home(server: &Emulator, rclone: &str) -> Home {
    let home = Home::new();
    let config = format!("[defaults]\napi-url = \"{}\"\n", server.url());
    home.write(".config/megamount/config.toml", &config);
    home.write("r.conf", rclone);
    home
}

#[test]
fn a_unit_of_rclone_works_with_its_options() {
    if !has_fuse() {
        return;
    }
    let server = server();
    let account = format!("[work]\ntype = mega\nuser = {USER}\npass = {POTATO}\n");
    let home = home(&server, &account);
    let text = home.mounts(&[
        "mount",
        "work:",
        "mnt",
        "--config",
        "r.conf",
        "--vfs-cache-mode",
        "full",
        "--vfs-cache-max-size",
        "1G",
        "--vfs-write-back=2s",
        "--dir-cache-time",
        "1000h",
        "--poll-interval",
        "15s",
        "--log-level",
        "INFO",
        "--log-file",
        "log",
        "--umask",
        "002",
        "--transfers",
        "8",
        "--daemon",
        "-o",
        "ro",
    ]);
    assert_eq!(
        fs::read_to_string(home.path("mnt/here.txt")).unwrap(),
        "here"
    );
    assert!(
        fs::write(home.path("mnt/new"), "x").is_err(),
        "'-o ro' counts"
    );
    let lines: Vec<_> = text
        .lines()
        .filter(|line| line.contains("no meaning"))
        .collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(
        lines[0].ends_with("--dir-cache-time, --poll-interval."),
        "{text}"
    );
}

#[test]
fn the_account_comes_from_options_and_from_the_environment() {
    if !has_fuse() {
        return;
    }
    let server = server();
    let home = home(&server, "[work]\ntype = mega\n");
    let rest = ["work:", "mnt", "--config", "r.conf"];
    let text = home.fails(&rest, 1);
    assert!(text.contains("no 'user'"), "{text}");
    let options = ["--mega-user", USER, "--mega-pass", POTATO];
    let text = home.mounts(&[&rest[..], &options[..]].concat());
    assert!(
        text.contains("other users") && !text.contains(POTATO),
        "{text}"
    );
    home.unmount();
    home.wait_until_gone("work");
    fs::remove_dir_all(home.path(".local/state/megamount/work")).unwrap();
    let output = home
        .command()
        .args(rest)
        .env("RCLONE_MEGA_USER", USER)
        .env("RCLONE_MEGA_PASS", POTATO)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(home.is_mounted());
    assert_eq!(server.counters().logins, 2);
}

#[test]
fn wrong_values_name_what_was_typed() {
    let home = Home::new();
    home.write("r.conf", "[work]\ntype = mega\nuser = u\n");
    let rest = ["work:", "mnt", "--config", "r.conf"];
    let fails = |options: &[&str]| home.fails(&[&rest[..], options].concat(), 1);
    let text = fails(&["--mega-pass", "OPENWORD"]);
    assert!(
        text.contains("--mega-pass") && !text.contains("OPENWORD"),
        "{text}"
    );
    let text = fails(&["--mega-2fa", "1; id"]);
    assert!(text.contains("--mega-2fa"), "{text}");
    let text = fails(&["--vfs-cache-mode", "some"]);
    assert!(text.contains("some"), "{text}");
    let mut command = home.command();
    let output = command
        .args(rest)
        .env("RCLONE_MEGA_HARD_DELETE", "perhaps")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("RCLONE_MEGA_HARD_DELETE")
    );
}
