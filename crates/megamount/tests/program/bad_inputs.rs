//! What people get wrong: ten and more bad inputs per command, and word for word what each is answered. Every
//! answer says what to do next, has an exit code of its kind and leaves everything as it was.
//!
//! `INSTA_UPDATE=always cargo nextest run -p megamount bad_inputs` writes the answers anew; read the difference.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use mega_emulator::{AccountSpec, Emulator, EmulatorConfig, Fixture};

use crate::home::Home;

const USER: &str = "you@example.com";
/// Nobody answers there, and no server of another test ever will.
const SILENT: &str = "http://127.0.0.1:1";

struct World {
    home: Home,
    emulator: Emulator,
    before: Vec<String>,
}

impl World {
    fn new() -> Self {
        let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
        emulator.add_account(AccountSpec::new(USER, "secret"));
        let files = [
            Fixture::file("/docs/report.txt", "12345", 1_600_000_000),
            Fixture::folder("/photos"),
        ];
        emulator.populate(USER, &files).unwrap();
        let home = Home::new();
        let remote = |name: &str, password: &str, url: &str| {
            format!(
                "[remote.{name}]\nuser = \"{USER}\"\npass-command = \"echo {password}\"\napi-url = \"{url}\"\n\
                 timeout = \"1s\"\n"
            )
        };
        let url = emulator.url();
        let config = [
            remote("remote", "secret", &url),
            remote("wrong", "wrong", &url),
            remote("offline", "secret", SILENT),
        ];
        home.write(".config/megamount/config.toml", &config.concat());
        home.write("broken.toml", "[remote.remote\nuser =");
        let open = home.write("open.toml", "[remote.remote]\nuser = \"u\"\npass = \"x\"\n");
        fs::set_permissions(open, fs::Permissions::from_mode(0o644)).unwrap();
        home.write("a-file", "x");
        fs::create_dir(home.path("empty")).unwrap();
        fs::create_dir(home.path("source")).unwrap();
        home.write("source/one", "1");
        let mut world = Self {
            home,
            emulator,
            before: Vec::new(),
        };
        world.before = world.on_mega();
        world
    }

    fn on_mega(&self) -> Vec<String> {
        let nodes = self.emulator.tree(USER).unwrap();
        let mut paths: Vec<_> = nodes.into_iter().map(|node| node.path).collect();
        paths.sort();
        paths
    }

    /// Runs each, compares all answers with the snapshot of this name, and looks that nothing was done.
    fn answers(&self, name: &str, cases: &[String]) {
        assert!(cases.len() >= 10, "{name} has {} cases", cases.len());
        let mut text = String::new();
        for case in cases {
            let args: Vec<&str> = case.split(' ').filter(|arg| !arg.is_empty()).collect();
            let output = self.home.run(&args);
            let code = output.status.code();
            assert!(code.is_some_and(|code| code > 0), "{case}: {output:?}");
            let said = String::from_utf8_lossy(&output.stderr);
            let shown = output.stdout.len() + said.len();
            assert!(shown > 0, "{case} fails without a word");
            text += &format!("$ megamount {case}\n");
            text += &String::from_utf8_lossy(&output.stdout);
            text += &format!("{said}? {}\n\n", code.unwrap());
        }
        let text = text
            .replace(self.home.path("").to_str().unwrap(), "[HOME]/")
            .replace("[HOME]//", "[HOME]/")
            .replace(&self.emulator.url(), "[MEGA]")
            .replace(SILENT, "[NOBODY]");
        insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_snapshot!(name, text);
        });
        assert_eq!(self.on_mega(), self.before);
        assert!(!self.home.is_mounted());
    }
}

/// The bad inputs of a command that needs an account; `{}` is where the account is named in `form`. What is fine
/// for one of them is left out there: a folder that is made, a session that need not be asked about.
fn of_account(form: &str) -> Vec<String> {
    let at = |place: &str| form.replace("{}", place);
    let (command, _) = form.split_once("{}").unwrap();
    let without = if command.is_empty() {
        "remote:"
    } else {
        command
    };
    vec![
        without.trim_end().to_owned(),
        at("--frobnicate remote:docs"),
        at("docs/report.txt"),
        at("nosuch:docs"),
        at("remote:no/such/file"),
        at("wrong:docs"),
        at("offline:docs"),
        at("--timeout soon remote:docs"),
        at("--config nosuch.toml remote:docs"),
        at("--config broken.toml remote:docs"),
        at("--config open.toml remote:docs"),
        at("--state-dir a-file remote:docs"),
        at("--api-url ftp://example.com remote:docs"),
        at(":docs"),
    ]
}

/// These without what ends as one of `fine`, and `more`.
fn cases(mut all: Vec<String>, fine: &[&str], more: &[&str]) -> Vec<String> {
    all.retain(|case| !fine.iter().any(|fine| case.ends_with(fine)));
    all.extend(more.iter().map(|case| (*case).to_owned()));
    all
}

macro_rules! account_commands {
    ($of:ident, $($name:ident: $form:literal $(- [$($fine:literal),*])? $(+ [$($more:literal),* $(,)?])?,)*) => {
        $(
            #[test]
            fn $name() {
                let fine: &[&str] = &[$($($fine),*)?];
                let more: &[&str] = &[$($($more),*)?];
                World::new().answers(stringify!($name), &cases($of($form), fine, more));
            }
        )*
    };
}

account_commands! { of_account,
    ls: "ls {}" + ["ls --max-depth 0 remote:", "ls remote: --max-depth many"],
    lsl: "lsl {}",
    lsd: "lsd {}",
    lsjson: "lsjson {}",
    tree: "tree {}",
    cat: "cat {}",
    mkdir: "mkdir {}" + ["mkdir remote:docs/report.txt", "mkdir remote:docs/report.txt/x", "mkdir remote:"],
    rm: "rm {}" + ["rm remote:docs", "rm remote:", "rm -r remote:", "rm -rf remote:"],
    mv: "mv {} remote:photos" + [
        "mv remote:docs",
        "mv remote:docs remote:docs/inside",
        "mv remote:docs offline:docs",
        "mv remote:docs local",
    ],
    link: "link {}" + ["link --expire yesterday remote:docs", "link remote:", "link --unlink remote:docs"],
    trash_restore: "trash restore {}" + ["trash", "trash restore remote:docs/report.txt"],
    versions_list: "versions list {}",
    versions_restore: "versions restore {}" + ["versions"],
    versions_prune: "versions prune {}",
    dedupe: "dedupe {}" + ["dedupe --mode best remote:", "dedupe remote: --dedupe-mode"],
    copy_from: "copy {} out" + [
        "copy remote:docs",
        "copy remote:docs a-file",
        "copy remote:docs/report.txt /dev/null/x",
        "copy remote:docs out --transfers 0",
        "copy remote:docs out --size-only --checksum",
    ],
    copy_to: "copy source {}" - ["remote:no/such/file"] + [
        "copy nosuch remote:docs",
        "copy source source2",
        "copy source remote:docs/report.txt",
        "copy source remote:docs/report.txt/below",
    ],
    mount: "{} mnt" + [
        "remote:docs",
        "remote:docs nosuch",
        "remote:docs a-file",
        "remote:docs/report.txt mnt",
        "remote: source",
        "remote: mnt --cache-size lots",
        "remote: mnt --umask 999",
        "remote: mnt --duplicates oldest",
        "remote: mnt --uploads 0",
        "remote: mnt --metrics-addr 0.0.0.0:1",
        "remote: mnt --api-rate fast",
        "remote: mnt --bwlimit 10X",
        "remote: mnt --write-back never",
        "remote: mnt --log-file /dev/null/log",
        "remote: mnt --ca-cert a-file",
        "remote: mnt --proxy gopher://127.0.0.1:9",
        "remote: mnt --state-dir fresh --proxy socks5://127.0.0.1:9",
        "remote: mnt --state-dir fresh --proxy http://127.0.0.1:9",
        "remote: mnt mnt2",
        "https://mega.nz/folder/short mnt",
        "https://example.com/folder/x mnt",
    ],
}

/// The same for one that is about an account as a whole.
fn of_whole_account(form: &str) -> Vec<String> {
    let cases = of_account(form).into_iter();
    cases.map(|case| case.replace(":docs", ":")).collect()
}

account_commands! { of_whole_account,
    trash_list: "trash list {}",
    trash_empty: "trash empty {}",
    cleanup: "cleanup {}",
    about: "about {}" - ["remote:no/such/file"],
    login: "login {}" - ["remote:no/such/file"],
    logout: "logout {}" - ["remote:no/such/file", "wrong:", "offline:"],
    whoami: "whoami {}",
}

/// Those that ask a mount.
fn of_mount(form: &str) -> Vec<String> {
    let at = |place: &str| form.replace("{}", place);
    vec![
        at("empty"),
        at("nosuch"),
        at("a-file"),
        at("a-file/below"),
        at("nosuch:"),
        at("remote:"),
        at("--frobnicate empty"),
        at("empty surplus and more"),
        at("/"),
        at("/proc"),
        at(":"),
    ]
}

macro_rules! mount_commands {
    ($($name:ident: $form:literal $(+ [$($more:literal),* $(,)?])?,)*) => {
        $(
            #[test]
            fn $name() {
                let more: &[&str] = &[$($($more),*)?];
                World::new().answers(stringify!($name), &cases(of_mount($form), &[], more));
            }
        )*
    };
}

mount_commands! {
    status: "status {}" + ["status --wait=soon"],
    flush: "flush {}" + ["flush", "flush --timeout x empty"],
    umount: "umount {}" + ["umount"],
    retry: "retry {}" + ["retry"],
    discard: "discard {}" + ["discard"],
    export: "export {}" + ["export"],
    verify: "verify {}" + ["verify"],
    bwlimit: "bwlimit {}" + ["bwlimit", "bwlimit empty 10X"],
}

#[test]
fn config() {
    let cases = [
        "config",
        "config frobnicate",
        "config show nosuch",
        "config show --frobnicate",
        "config show --config broken.toml",
        "config show nosuch --config open.toml",
        "config show --config empty",
        "config delete",
        "config delete nosuch",
        "config delete remote --config a-file/x",
        "config import --from nosuch.conf",
        "config import surplus",
        "config password surplus",
        "config show --password-command false --config broken.toml",
    ];
    World::new().answers("config", &cases.map(str::to_owned));
}

#[test]
fn pages() {
    let cases = [
        "completion",
        "completion cobol",
        "completion bash surplus",
        "man nosuch",
        "man a-file",
        "man empty surplus",
        "doctor --frobnicate",
        // What it finds depends on the machine.
        "doctor --api-url nonsense",
        "doctor --timeout soon",
        "doctor remote: surplus and more",
        "",
        "--frobnicate",
    ];
    World::new().answers("pages", &cases.map(str::to_owned));
}

/// A file system without a free byte, which ends with the test.
struct Full(std::path::PathBuf);

impl Full {
    /// None where nothing may be mounted.
    fn below(home: &Home) -> Option<Self> {
        let path = home.path("full");
        fs::create_dir(&path).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
            .arg(&path)
            .output()
            .unwrap();
        if !mount.status.success() {
            return None;
        }
        let full = Self(path);
        fs::write(full.0.join("fill"), [0; 1 << 20]).unwrap_err();
        Some(full)
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn full_disk() {
    let world = World::new();
    let Some(_full) = Full::below(&world.home) else {
        eprintln!("skipped: nothing may be mounted");
        return;
    };
    world
        .home
        .write("rclone.conf", "[old]\ntype = mega\nuser = a@b.c\n");
    let with_state = |command: &str| format!("{command} --state-dir full/state");
    let mut cases: Vec<String> = [
        "remote: mnt",
        "ls remote:",
        "cat remote:docs/report.txt",
        "copy source remote:new",
        "mkdir remote:new",
        "rm remote:docs/report.txt",
        "mv remote:docs/report.txt remote:photos",
        "login remote:",
        "whoami remote:",
        "trash list remote:",
    ]
    .map(with_state)
    .to_vec();
    cases.extend(
        [
            "copy remote:docs full/docs",
            "config import --config full/config.toml --from rclone.conf",
            "man full",
        ]
        .map(str::to_owned),
    );
    world.answers("full_disk", &cases);
}
