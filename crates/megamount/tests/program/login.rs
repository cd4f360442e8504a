//! Logging in to a server: each refusal has its text and its exit code; a session is used again.

use std::fs;
use std::net::TcpListener;

use mega_emulator::{AccountSpec, Emulator, EmulatorConfig, Fixture};

use crate::home::{Home, has_fuse, wait_for};

const USER: &str = "me@example.com";
const SECRET: &str = "JBSWY3DPEHPK3PXP";

fn server(account: AccountSpec) -> Emulator {
    let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
    emulator.add_account(account);
    let files = [Fixture::file("/here.txt", "here", 1_700_000_000)];
    emulator.populate(USER, &files).unwrap();
    emulator
}

/// A home with the remote `work` on `url`.
fn home(url: &str, more: &str) -> Home {
    let home = Home::new();
    home.write(
        ".config/megamount/config.toml",
        &format!("[defaults]\napi-url = \"{url}\"\n[remote.work]\nuser = \"{USER}\"\n{more}\n"),
    );
    home
}

const RIGHT: &str = "pass-command = \"echo secret\"";

fn account() -> AccountSpec {
    AccountSpec::new(USER, "secret")
}

#[test]
fn a_session_is_used_again() {
    if !has_fuse() {
        return;
    }
    let server = server(account());
    let home = home(&server.url(), RIGHT);
    for _ in 0..3 {
        home.mounts(&["work:", "mnt"]);
        assert_eq!(
            fs::read_to_string(home.path("mnt/here.txt")).unwrap(),
            "here"
        );
        home.unmount();
        home.wait_until_gone("work");
    }
    assert_eq!(server.counters().logins, 1);
    assert_eq!(server.counters().violations, Vec::<String>::new());
}

#[test]
fn a_session_that_died_is_replaced_silently() {
    if !has_fuse() {
        return;
    }
    let server = server(account());
    let home = home(&server.url(), RIGHT);
    home.mounts(&["work:", "mnt"]);
    home.unmount();
    home.wait_until_gone("work");
    server.end_sessions(None);
    home.mounts(&["work:", "mnt"]);
    assert_eq!(
        fs::read_to_string(home.path("mnt/here.txt")).unwrap(),
        "here"
    );
    home.unmount();
    home.wait_until_gone("work");
    assert_eq!(server.counters().logins, 2);
}

#[test]
fn refusals_are_told_apart() {
    if !has_fuse() {
        return;
    }
    let refusal = |account: AccountSpec, more: &str| {
        let server = server(account);
        home(&server.url(), more).fails(&["work:", "mnt"], 4)
    };
    let text = refusal(account(), "pass-command = \"echo wrong\"");
    assert!(
        text.contains("e-mail address or the password is wrong"),
        "{text}"
    );
    let text = refusal(account(), "pass-command = \"exit 7\"");
    assert!(
        text.contains("pass-command") && text.contains("status 7"),
        "{text}"
    );
    let text = refusal(account(), "");
    assert!(
        text.contains("no password is known") && text.contains("pass-command"),
        "{text}"
    );
    let text = refusal(
        AccountSpec {
            unconfirmed: true,
            ..account()
        },
        RIGHT,
    );
    assert!(text.contains("not confirmed"), "{text}");
    let text = refusal(
        AccountSpec {
            blocked: 200,
            ..account()
        },
        RIGHT,
    );
    assert!(text.contains("blocked the account"), "{text}");
    let two_factors = AccountSpec {
        totp_secret: Some(SECRET.to_owned()),
        ..account()
    };
    let text = refusal(two_factors.clone(), RIGHT);
    assert!(
        text.contains("two-factor") && text.contains("totp-command"),
        "{text}"
    );
    let text = refusal(
        two_factors,
        &format!("{RIGHT}\ntotp-command = \"echo 000000\""),
    );
    assert!(text.contains("clock"), "{text}");
}

#[test]
fn codes_come_from_a_command() {
    if !has_fuse() {
        return;
    }
    let server = server(AccountSpec {
        totp_secret: Some(SECRET.to_owned()),
        ..account()
    });
    let code = Emulator::totp_code(SECRET);
    let home = home(
        &server.url(),
        &format!("{RIGHT}\ntotp-command = \"echo {code}\""),
    );
    home.mounts(&["work:", "mnt"]);
}

#[test]
fn passwords_come_from_rclone_too() {
    if !has_fuse() {
        return;
    }
    let server = server(account());
    let home = Home::new();
    let obscured = mega_crypto::obscure("secret").unwrap();
    home.write(
        ".config/rclone/rclone.conf",
        &format!("[old]\ntype = mega\nuser = {USER}\npass = {obscured}\n"),
    );
    let url = server.url();
    home.mounts(&["old:", "mnt", "--api-url", &url]);
    assert_eq!(
        fs::read_to_string(home.path("mnt/here.txt")).unwrap(),
        "here"
    );
}

#[test]
fn a_dead_session_of_rclone_is_no_way_in() {
    let server = server(account());
    // 16 bytes, the handle in the clear, 16 bytes.
    let session = mega_proto::b64::encode(&[&[7; 16][..], b"ABCDEFGHIJA", &[9; 16]].concat());
    let obscured = mega_crypto::obscure("secret").unwrap();
    let url = server.url();
    for first in ["login", "ls"] {
        let home = Home::new();
        home.write(
            ".config/rclone/rclone.conf",
            &format!(
                "[old]\ntype = mega\nuser = {USER}\npass = {obscured}\n2fa = 123456\n\
                 session_id = {session}\nmaster_key = AAECAwQFBgcICQoLDA0ODw==\n"
            ),
        );
        let run = |command: &str| {
            let mut program = home.command();
            program.args([command, "old:", "--api-url", &url]);
            let output = program.output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(0), "{command}: {errors}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        run(first);
        assert!(run("whoami").contains("Session: valid"));
    }
    assert_eq!(server.counters().logins, 2);
}

#[test]
fn no_network_is_said_and_named() {
    if !has_fuse() {
        return;
    }
    // A port that nobody listens on any more.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let home = home(&format!("http://{address}"), RIGHT);
    let text = home.fails(&["work:", "mnt", "--timeout", "1s"], 5);
    assert!(
        text.contains("cannot reach Mega") && text.contains(&address.to_string()),
        "{text}"
    );
}

#[test]
fn the_proxy_comes_from_the_option_or_the_environment() {
    if !has_fuse() {
        return;
    }
    let server = server(account());
    let home = home(&server.url(), RIGHT);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    // A proxy that hangs up on everybody: whoever asks it gets no further.
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = std::sync::Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            drop(stream);
        }
    });
    let was_asked = || asked.swap(0, std::sync::atomic::Ordering::SeqCst) > 0;
    let run = |args: &[&str], env: Option<(&str, &str)>| {
        let mut command = home.command();
        command
            .args(["work:", "mnt", "--timeout", "1s"])
            .args(args)
            .envs(env);
        command.output().unwrap().status.code()
    };
    assert_eq!(run(&["--proxy", &proxy], None), Some(5));
    assert!(was_asked(), "--proxy");
    assert_eq!(run(&[], Some(("MEGAMOUNT_PROXY", &proxy))), Some(5));
    assert!(was_asked(), "MEGAMOUNT_PROXY");
    assert_eq!(run(&[], Some(("http_proxy", &proxy))), Some(5));
    assert!(was_asked(), "http_proxy");
    assert_eq!(run(&["--proxy", ""], Some(("http_proxy", &proxy))), Some(0));
    assert!(!was_asked(), "an empty --proxy is none");
}

/// What `ls` of a remote does with variables in the environment.
fn listed(remote: &str, env: &[(&str, &str)]) -> std::process::Output {
    let server = server(account());
    let home = home(&server.url(), RIGHT);
    let mut command = home.command();
    command.args(["ls", remote]).envs(env.iter().copied());
    command.output().unwrap()
}

#[test]
fn a_proxy_of_an_unknown_kind_is_not_passed_over() {
    let output = listed("work:", &[("ALL_PROXY", "socks://127.0.0.1:9/")]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(text.contains("environment variable ALL_PROXY"), "{text}");
}

#[test]
fn the_demo_needs_no_proxy() {
    let proxies = [
        ("http_proxy", "http://127.0.0.1:9"),
        ("ALL_PROXY", "socks://127.0.0.1:9/"),
    ];
    let output = listed("demo:", &proxies);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(!output.stdout.is_empty());
}

#[test]
fn another_account_or_server_is_refused() {
    if !has_fuse() {
        return;
    }
    let first = server(account());
    let home = home(&first.url(), RIGHT);
    home.mounts(&["work:", "mnt"]);
    home.unmount();
    home.wait_until_gone("work");
    let second = server(account());
    let text = home.fails(&["work:", "mnt", "--api-url", &second.url()], 6);
    assert!(text.contains("belongs to another"), "{text}");
    assert_eq!(second.counters().requests("cs"), 0, "nothing was sent");
}

#[test]
fn one_signal_after_an_unmount_does_not_cut_the_uploads_short() {
    if !has_fuse() {
        return;
    }
    let server = server(account());
    let home = home(&server.url(), RIGHT);
    home.mounts(&["work:", "mnt", "--write-back", "1h"]);
    server.set(|knobs| knobs.latency_ms = 300);
    fs::write(home.path("mnt/mine.txt"), "mine").unwrap();
    home.unmount();
    // What systemd does after ExecStop.
    home.signal("work", rustix::process::Signal::TERM);
    home.wait_until_gone("work");
    let file = server.find(USER, "/mine.txt").expect("it was uploaded");
    assert_eq!(server.content(&file.handle).unwrap(), b"mine");
}

#[test]
fn the_next_mount_waits_for_the_uploads_of_the_last() {
    if !has_fuse() {
        return;
    }
    let server = server(account());
    let home = home(&server.url(), RIGHT);
    home.mounts(&["work:", "mnt", "--write-back", "1h"]);
    server.set(|knobs| knobs.latency_ms = 300);
    fs::write(home.path("mnt/mine.txt"), "mine").unwrap();
    home.unmount();
    let text = home.mounts(&["work:", "mnt"]);
    assert!(text.contains("waiting for the previous mount"), "{text}");
    assert_eq!(
        fs::read_to_string(home.path("mnt/mine.txt")).unwrap(),
        "mine"
    );
}

#[test]
fn changes_by_others_reach_the_kernel() {
    if !has_fuse() {
        return;
    }
    let server = server(account());
    let home = home(&server.url(), RIGHT);
    home.mounts(&["work:", "mnt", "--attr-timeout", "1h"]);
    // The kernel now remembers the content of one file and the absence of another.
    assert_eq!(
        fs::read_to_string(home.path("mnt/here.txt")).unwrap(),
        "here"
    );
    assert!(!home.path("mnt/new.txt").exists());
    let change = [
        Fixture::file("/new.txt", "new", 1_700_000_000),
        Fixture::Trash {
            path: "/here.txt".to_owned(),
        },
    ];
    server.populate(USER, &change).unwrap();
    wait_for("the new file", || home.path("mnt/new.txt").exists());
    wait_for("the end of the old file", || {
        !home.path("mnt/here.txt").exists()
    });
    assert_eq!(fs::read_to_string(home.path("mnt/new.txt")).unwrap(), "new");
    let names: Vec<_> = fs::read_dir(home.mountpoint())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["new.txt"]);
}
