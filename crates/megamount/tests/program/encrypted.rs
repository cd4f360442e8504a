//! The configuration encrypted with a password: as users of rclone know it, and for programs.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use mega_emulator::{AccountSpec, Emulator, EmulatorConfig, Fixture};

use crate::home::{Home, has_fuse, wait_for};
use crate::terminal::Terminal;

const CONFIG: &str = ".config/megamount/config.toml";
const TEXT: &str =
    "# mine\n[defaults]\nuploads = 2\n\n[remote.w]\nuser = \"clear@example.com\" # keep\n";
const PASS: &str = "MEGAMOUNT_CONFIG_PASS";

/// Types the answers into `config password`, without a terminal.
fn password(home: &Home, old: Option<&str>, answers: &str) -> Output {
    home.write("answers", answers);
    home.command()
        .args(["config", "password"])
        .envs(old.map(|old| (PASS, old)))
        .stdin(Stdio::from(fs::File::open(home.path("answers")).unwrap()))
        .output()
        .unwrap()
}

/// A home whose configuration is [`TEXT`], encrypted with "pw".
fn encrypted() -> Home {
    let home = Home::new();
    home.write(CONFIG, TEXT);
    let output = password(&home, None, "a\npw\npw\nq\n");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("Password set\n"), "{said}");
    home
}

fn text(home: &Home) -> String {
    fs::read_to_string(home.path(CONFIG)).unwrap()
}

/// That nothing of the configuration can be read in any file beside it.
fn is_hidden(home: &Home) {
    let directory = home.path(".config/megamount");
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            !text.contains("clear@") && !text.contains("remote") && !text.contains("pass-"),
            "{text}"
        );
        count += 1;
    }
    assert_eq!(count, 1, "nothing is left beside it");
    assert_eq!(home.mode(CONFIG), 0o600);
}

fn with_pass(home: &Home, pass: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let output = home.command().args(args).env(PASS, pass).output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn the_entry_of_the_menu_is_line_for_line_the_one_that_is_known() {
    let home = Home::new();
    let mut terminal = Terminal::start(&home, "config");
    terminal.answer("n/s/q> ", "s");
    terminal.answer("a/q> ", "a");
    terminal.answer("\npassword:", "");
    terminal.expect("no characters in password");
    terminal.answer("\npassword:", "one");
    terminal.answer("\npassword:", "two");
    terminal.answer("\npassword:", "HUSH");
    terminal.answer("\npassword:", "HUSH");
    terminal.answer("c/u/q> ", "c");
    terminal.answer("\npassword:", "HUSH2");
    terminal.answer("\npassword:", "HUSH2");
    terminal.answer("c/u/q> ", "q");
    terminal.answer("n/s/q> ", "q");
    assert_eq!(terminal.end(), Some(0));
    let wanted = "\
No remotes found - make a new one
n) New remote
s) Set configuration password
q) Quit config
n/s/q> s

Your configuration is not encrypted.
If you add a password, you will protect your login information to cloud services.
a) Add Password
q) Quit to main menu
a/q> a
Enter NEW configuration password:
password:
Bad password: no characters in password
password:
Confirm NEW configuration password:
password:
Passwords do not match!
Enter NEW configuration password:
password:
Confirm NEW configuration password:
password:
Password set
Your configuration is encrypted.
c) Change Password
u) Unencrypt configuration
q) Quit to main menu
c/u/q> c
Enter NEW configuration password:
password:
Confirm NEW configuration password:
password:
Password changed
Your configuration is encrypted.
c) Change Password
u) Unencrypt configuration
q) Quit to main menu
c/u/q> q

No remotes found - make a new one
n) New remote
s) Set configuration password
q) Quit config
n/s/q> q
";
    assert_eq!(terminal.text(), wanted);
    is_hidden(&home);
    // Asked once, then a remote is made, and the password taken off.
    let mut terminal = Terminal::start(&home, "config");
    terminal.answer("\npassword:", "HUSH2");
    terminal.answer("n/s/q> ", "n");
    terminal.answer("name> ", "w");
    terminal.answer("Storage> ", "mega");
    terminal.answer("user> ", "clear@example.com");
    terminal.answer("y/g/n> ", "y");
    terminal.answer("\npassword:", "secret");
    terminal.answer("\npassword:", "secret");
    terminal.answer("y/e/d> ", "y");
    terminal.expect("e/n/d/r/c/s/q> ");
    is_hidden(&home);
    terminal.answer("", "s");
    terminal.answer("c/u/q> ", "u");
    terminal.answer("a/q> ", "q");
    terminal.answer("e/n/d/r/c/s/q> ", "q");
    assert_eq!(terminal.end(), Some(0));
    let shown = terminal.text();
    assert_eq!(
        shown.matches("configuration password:").count(),
        1,
        "{shown}"
    );
    assert!(!shown.contains("HUSH"), "{shown}");
    assert!(text(&home).contains("user = \"clear@example.com\""));
}

#[test]
fn the_password_is_set_changed_and_removed() {
    let home = encrypted();
    is_hidden(&home);
    let first = text(&home);
    assert!(first.starts_with("MEGAMOUNT_ENCRYPT_V1: "), "{first}");
    let output = password(&home, Some("pw"), "c\nnew\nnew\nq\n");
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("Password changed\n"), "{said}");
    is_hidden(&home);
    assert_ne!(text(&home), first);
    let (code, _, error) = with_pass(&home, "pw", &["config", "show"]);
    assert_eq!(code, Some(1));
    assert!(
        error.contains("the value of MEGAMOUNT_CONFIG_PASS is not its password"),
        "{error}"
    );
    let (code, shown, _) = with_pass(&home, "new", &["config", "show"]);
    assert_eq!((code, shown.as_str()), (Some(0), TEXT), "comments included");
    // Left in the middle: nothing has happened.
    let before = text(&home);
    assert_eq!(
        password(&home, Some("new"), "c\nother\n").status.code(),
        Some(2)
    );
    assert_eq!(text(&home), before);
    let output = password(&home, Some("new"), "u\nq\n");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&home), TEXT);
}

#[test]
fn changes_keep_the_file_encrypted() {
    let home = encrypted();
    home.write(
        ".config/rclone/rclone.conf",
        "[r]\ntype = mega\nuser = r-clear@x\n",
    );
    let (code, said, error) = with_pass(&home, "pw", &["config", "import"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(said.contains("'r:' is imported"), "{said}");
    is_hidden(&home);
    let (code, shown, _) = with_pass(&home, "pw", &["config", "show", "--redact"]);
    assert_eq!(code, Some(0));
    assert!(
        shown.contains("[remote.r]") && !shown.contains("clear@"),
        "{shown}"
    );
    let (code, _, error) = with_pass(&home, "pw", &["config", "delete", "r"]);
    assert_eq!(code, Some(0), "{error}");
    is_hidden(&home);
    let (_, shown, _) = with_pass(&home, "pw", &["config", "show"]);
    assert!(
        shown.contains("# keep") && !shown.contains("[remote.r]"),
        "{shown}"
    );
    for args in [&["config", "show"][..], &["config", "delete", "w"]] {
        let before = text(&home);
        let error = home.fails(args, 1);
        assert!(error.contains("no terminal to ask"), "{error}");
        assert_eq!(text(&home), before);
    }
}

#[test]
fn what_does_not_need_the_password_does_not_want_it() {
    let home = encrypted();
    let output = home.run(&["config", "file"]);
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(home.run(&["doctor"]).stdout).unwrap();
    assert!(said.contains("is encrypted;"), "{said}");
    let output = home.run(&["status"]);
    assert_ne!(output.status.code(), Some(1));
    let said = String::from_utf8(home.run(&["doctor", "w:"]).stdout).unwrap();
    assert!(said.contains("no terminal to ask"), "{said}");
    let (_, said, _) = with_pass(&home, "pw", &["doctor", "w:"]);
    assert!(said.contains("the remote 'w:' is configured"), "{said}");
}

#[test]
fn programs_give_the_password_by_command_or_environment() {
    let home = encrypted();
    let show = |command: Option<&str>, pass: Option<&str>| {
        let output = home
            .command()
            .args(["config", "show"])
            .envs(command.map(|command| ("MEGAMOUNT_PASSWORD_COMMAND", command)))
            .envs(pass.map(|pass| (PASS, pass)))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), text)
    };
    let (code, error) = show(None, None);
    assert_eq!(code, Some(1));
    assert!(
        error.contains("is encrypted, and there is no terminal to ask for its password")
            && error.contains("Set MEGAMOUNT_CONFIG_PASS, or let --password-command"),
        "{error}"
    );
    assert_eq!(show(None, Some("")), (code, error), "empty is not set");
    assert_eq!(show(None, Some("pw")).0, Some(0));
    assert_eq!(show(Some("echo pw"), Some("wrong")).0, Some(0));
    assert_eq!(show(Some(""), Some("pw")).0, Some(0));
    let (code, error) = show(Some("echo run >>runs; echo wrong"), Some("pw"));
    assert_eq!(code, Some(1));
    assert!(
        error.contains("what --password-command prints is not its password"),
        "{error}"
    );
    let runs = fs::read_to_string(home.path("runs")).unwrap();
    assert_eq!(runs, "run\n", "once");
    let (code, error) = show(Some("exit 3"), Some("pw"));
    assert_eq!(code, Some(1));
    assert!(
        error.contains("the --password-command failed: it exited with status 3"),
        "{error}"
    );
    let flag = home.run(&["--password-command", "echo pw", "config", "show"]);
    assert_eq!(flag.status.code(), Some(1), "options follow the command");
    let flag = home.run(&["config", "show", "--password-command", "echo pw"]);
    assert_eq!(flag.status.code(), Some(0));
}

#[test]
fn programs_that_are_run_do_not_get_the_password() {
    let home = Home::new();
    home.write(
        CONFIG,
        "[remote.l]\nlink-command = \"env >theirs; exit 9\"\n",
    );
    password(&home, None, "a\nhidden word\nhidden word\nq\n");
    is_hidden(&home);
    let (code, _, error) = with_pass(&home, "hidden word", &["ls", "l:"]);
    assert_eq!(code, Some(4), "{error}");
    assert!(error.contains("status 9"), "{error}");
    let command = "env >its; echo hidden word";
    let output = home
        .command()
        .args(["config", "show", "--password-command", command])
        .env(PASS, "hidden word")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    for file in ["theirs", "its"] {
        let seen = fs::read_to_string(home.path(file)).unwrap();
        assert!(seen.contains("HOME="), "{seen}");
        assert!(
            !seen.contains(PASS) && !seen.contains("\nhidden word"),
            "{seen}"
        );
    }
}

#[test]
fn a_damaged_file_is_told_and_left_alone() {
    let home = encrypted();
    let whole = text(&home);
    let mut flipped = whole.clone().into_bytes();
    let at = whole.find("\n\n").unwrap() + 5;
    flipped[at] ^= 1;
    let mut high = whole.clone().into_bytes();
    high[at] |= 0x80;
    let cases: [(&[u8], &str); 7] = [
        (&whole.as_bytes()[..whole.len() / 2], "its end is missing"),
        (&whole.as_bytes()[..whole.len() - 9], "its end is missing"),
        (&flipped, "it is damaged"),
        (&high, "it is damaged"),
        (
            b"MEGAMOUNT_ENCRYPT_V7: something new\n",
            "another version of megamount",
        ),
        (&whole.as_bytes()[..10], "is not valid: line 1"),
        (
            b"# Encrypted rclone configuration File\n\nRCLONE_ENCRYPT_V0:\nAAAA\n",
            "encrypted configuration of rclone",
        ),
    ];
    for (bytes, part) in cases {
        fs::write(home.path(CONFIG), bytes).unwrap();
        for args in [
            &["config", "show"][..],
            &["config"],
            &["config", "password"],
            &["config", "delete", "w"],
            &["demo:", "mnt"],
        ] {
            let (code, _, error) = with_pass(&home, "pw", args);
            assert_eq!(code, Some(1), "{args:?}: {error}");
            assert!(error.contains(part), "{args:?}: {error}");
            assert_eq!(fs::read(home.path(CONFIG)).unwrap(), bytes);
        }
    }
    fs::write(home.path(CONFIG), &whole).unwrap();
    assert_eq!(with_pass(&home, "pw", &["config", "show"]).1, TEXT);
}

#[test]
fn a_mount_asks_before_it_goes_to_the_background() {
    if !has_fuse() {
        return;
    }
    let home = encrypted();
    let mut terminal = Terminal::start(&home, "demo: mnt --daemon");
    terminal.expect("Enter configuration password:");
    terminal.answer("password:", "");
    terminal.expect("bad password: no characters in password");
    terminal.answer("password:", "wrong");
    terminal.expect("couldn't decrypt configuration, most likely wrong password.");
    terminal.expect("Enter configuration password:");
    terminal.answer("\npassword:", "wrong");
    terminal.answer("\npassword:", "pw");
    assert_eq!(terminal.end(), Some(0), "{}", terminal.text());
    assert!(home.is_mounted());
    let output = home.run(&["status", "demo:"]);
    assert_eq!(output.status.code(), Some(0), "nobody is asked");
    home.unmount();
    home.wait_until_gone("demo");
}

#[test]
fn three_wrong_answers_are_enough_and_ctrl_c_is_too() {
    let home = encrypted();
    let before = text(&home);
    let mut terminal = Terminal::start(&home, "demo: mnt");
    for _ in 0..3 {
        terminal.expect("Enter configuration password:");
        terminal.answer("\npassword:", "wrong");
    }
    assert_eq!(terminal.end(), Some(1));
    let shown = terminal.text();
    assert!(
        shown.contains("what was typed is not its password"),
        "{shown}"
    );
    assert!(!home.is_mounted());
    let mut terminal = Terminal::start(&home, "config delete w");
    terminal.answer("\npassword:", "\x03");
    assert_eq!(terminal.end(), Some(2));
    assert!(terminal.text().contains("cancelled"), "{}", terminal.text());
    assert_eq!(text(&home), before);
}

/// mount(8) runs the helper with the options of fstab.
#[test]
fn the_helper_of_mount_takes_the_command() {
    if !has_fuse() {
        return;
    }
    let home = encrypted();
    let helper = home.path("mount.megamount");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_megamount"), &helper).unwrap();
    let mount = |list: &str| {
        let output = Command::new("setsid")
            .arg("--wait")
            .arg(&helper)
            .arg("demo:")
            .arg(home.mountpoint())
            .args(["-o", list])
            .env_clear()
            .env("HOME", home.path(""))
            .env("PATH", "/usr/bin:/bin")
            .env("XDG_RUNTIME_DIR", home.path("run"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), text)
    };
    let (code, error) = mount("rw,_netdev");
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("no terminal to ask"), "{error}");
    home.write("password", "pw\n");
    let file = home.path("password");
    let list = format!("rw,_netdev,password_command=cat {}", file.display());
    let (code, error) = mount(&list);
    assert_eq!(code, Some(0), "{error}");
    assert!(home.is_mounted());
    home.unmount();
    home.wait_until_gone("demo");
}

#[test]
fn a_mount_in_the_foreground_takes_it_from_the_environment() {
    if !has_fuse() {
        return;
    }
    let home = encrypted();
    // As a service: no terminal, no background.
    let mut child = home
        .command()
        .args(["-f", "demo:", "--pid-file", "pid"])
        .arg(home.mountpoint())
        .env(PASS, "pw")
        .spawn()
        .unwrap();
    // It is in the table of mounts before its daemon has seen that it is.
    wait_for("the mount", || home.path("pid").exists());
    assert!(Path::new(&home.mountpoint()).read_dir().unwrap().count() > 0);
    home.unmount();
    home.wait_until_gone("demo");
    assert!(child.wait().unwrap().success());
}

/// The mount has read the configuration: whoever goes through it need not.
#[test]
fn commands_on_a_mount_do_not_ask_again() {
    if !has_fuse() {
        return;
    }
    let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
    emulator.add_account(AccountSpec::new("me@example.com", "secret"));
    let file = Fixture::file("/report.txt", "12345", 1_600_000_000);
    emulator.populate("me@example.com", &[file]).unwrap();
    let home = Home::new();
    let pass = mega_crypto::obscure("secret").unwrap();
    let text = format!("[remote.w]\nuser = \"me@example.com\"\npass = \"{pass}\"\n");
    home.write(CONFIG, &text);
    password(&home, None, "a\npw\npw\nq\n");
    let run = |args: &[&str], pass: Option<&str>| {
        let output = home
            .command()
            .args(args)
            .env("MEGAMOUNT_API_URL", emulator.url())
            .envs(pass.map(|pass| (PASS, pass)))
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let (code, said) = run(&["ls", "w:"], None);
    assert!(code == Some(1) && said.contains("no terminal"), "{said}");
    let (code, said) = run(&["w:", "mnt"], Some("pw"));
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(&["ls", "w:"], None);
    assert_eq!((code, said.as_str()), (Some(0), "        5 report.txt\n"));
    let (code, said) = run(&["mkdir", "w:new"], None);
    assert_eq!(code, Some(0), "{said}");
    assert!(home.path("mnt/new").is_dir());
    // What could be another account is looked up.
    fs::copy(home.path(CONFIG), home.path("other.toml")).unwrap();
    for more in [
        ["--config", "other.toml"],
        ["--mega-user", "you@example.com"],
        ["--state-dir", "elsewhere"],
    ] {
        let (code, said) = run(&[&["ls", "w:"][..], &more].concat(), None);
        assert!(
            code == Some(1) && said.contains("no terminal"),
            "{more:?}: {said}"
        );
    }
    let (code, said) = run(&["ls", "v:"], None);
    assert!(code == Some(1) && said.contains("no terminal"), "{said}");
    home.unmount();
    home.wait_until_gone("w");
    let (code, said) = run(&["ls", "w:"], None);
    assert!(code == Some(1) && said.contains("no terminal"), "{said}");
    assert_eq!(emulator.counters().commands("us"), 1, "one login");
}
