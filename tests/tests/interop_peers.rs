//! Proof that the emulator is real: rclone, megajs and megatools work against it, alone and seeing
//! each other's changes. Missing peers fail the tests; `scripts/install-peers` installs them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use mega_emulator::{AccountSpec, Emulator, EmulatorConfig, Fixture, pattern};
use serde_json::Value;

const PASSWORD: &str = "secret";
const ACCOUNTS: [(&str, u8); 2] = [("one@example.com", 1), ("two@example.com", 2)];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

#[track_caller]
fn peer(path: &Path) -> PathBuf {
    assert!(
        path.exists(),
        "{} is missing: run scripts/install-peers",
        path.display()
    );
    path.to_path_buf()
}

/// An emulator with both accounts, and a directory for files.
struct World {
    emulator: Emulator,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
        for (email, version) in ACCOUNTS {
            emulator.add_account(AccountSpec {
                version,
                ..AccountSpec::new(email, PASSWORD)
            });
        }
        Self {
            emulator,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A local file of patterned bytes.
    fn file(&self, name: &str, size: u64) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, pattern(size, 0, size)).unwrap();
        path
    }

    fn rclone_command(&self) -> Command {
        let program = peer(&repository().join("target/peers/venv/bin/rclone"));
        let config = self.path("rclone.conf");
        if !config.exists() {
            let obscured = run(Command::new(&program).args(["obscure", PASSWORD]));
            let mut text = String::new();
            for (email, version) in ACCOUNTS {
                text.push_str(&format!(
                    "[m{version}]\ntype = mega\nuser = {email}\npass = {}\n",
                    stdout(&obscured).trim()
                ));
            }
            std::fs::write(&config, text).unwrap();
        }
        let mut command = Command::new(program);
        command.arg("--config").arg(config).args(["--retries", "1"]);
        command.env("X_MEGA_API_URL", self.emulator.url());
        command
    }

    fn rclone(&self, args: &[&str]) -> String {
        stdout(&run(self.rclone_command().args(args)))
    }

    fn megajs_command(&self, args: &[&str]) -> Command {
        let module = repository().join("target/peers/node_modules/megajs/dist/main.node-es.mjs");
        let mut command = Command::new("node");
        command.env("MEGAJS", peer(&module));
        command.arg(repository().join("tests/interop/megajs.mjs"));
        command.args([
            &format!("{}/", self.emulator.url()),
            ACCOUNTS[1].0,
            PASSWORD,
        ]);
        command.args(args);
        command
    }

    /// Runs commands separated by `--` in one login; returns the last one's value.
    fn megajs(&self, args: &[&str]) -> Value {
        let output = stdout(&run(&mut self.megajs_command(args)));
        serde_json::from_str(output.lines().last().unwrap()).unwrap()
    }

    fn megatools(&self, args: &[&str]) -> String {
        let found = Command::new("megatools").arg("--help").output();
        assert!(
            found.is_ok(),
            "megatools is missing: run scripts/install-peers"
        );
        let work = self.path("megatools");
        std::fs::create_dir_all(&work).unwrap();
        let mut command = Command::new(repository().join("tests/interop/megatools.sh"));
        command
            .arg(work)
            .arg(self.emulator.address().to_string())
            .arg("megatools");
        command
            .arg(args[0])
            .args(["--reload", "--username", ACCOUNTS[0].0]);
        command.args(["--password", PASSWORD]).args(&args[1..]);
        stdout(&run(&mut command))
    }

    /// Paths and sizes in the cloud.
    fn listing(&self, email: &str) -> Vec<(String, u64)> {
        let tree = self.emulator.tree(email).unwrap();
        let live = tree
            .into_iter()
            .filter(|n| !n.in_bin && n.version_of.is_none());
        let mut all: Vec<_> = live.map(|n| (n.path, n.size)).collect();
        all.sort();
        all
    }

    #[track_caller]
    fn assert_content(&self, email: &str, path: &str, local: &Path) {
        let node = self
            .emulator
            .find(email, path)
            .unwrap_or_else(|| panic!("no {path}"));
        let wanted = std::fs::read(local).unwrap();
        assert_eq!(
            self.emulator.content(&node.handle).unwrap().len(),
            wanted.len()
        );
        assert!(
            self.emulator.content(&node.handle).unwrap() == wanted,
            "{path} differs"
        );
    }

    /// Violations other than those the peers are known for.
    #[track_caller]
    fn assert_clean(&self, known: &[&str]) {
        let found = self.emulator.counters().violations;
        let new: Vec<_> = found
            .iter()
            .filter(|v| !known.iter().any(|k| v.contains(k)))
            .collect();
        assert!(new.is_empty(), "{new:#?}");
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Runs to the end, at most two minutes, and insists on success.
#[track_caller]
fn run(command: &mut Command) -> Output {
    let text = format!("{command:?}");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command
        .spawn()
        .unwrap_or_else(|e| panic!("{text}: {e}; run scripts/install-peers"));
    let id = child.id();
    let (done, wait) = std::sync::mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let output = child.wait_with_output();
        let _ = done.send(());
        output
    });
    if wait.recv_timeout(Duration::from_secs(120)).is_err() {
        let pid = rustix::process::Pid::from_raw(id as i32).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    let output = waiter.join().unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{text}\n{}\n{errors}",
        String::from_utf8_lossy(&output.stdout)
    );
    output
}

/// Waits for a state.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

const SIZES: [(&str, u64); 6] = [
    ("empty", 0),
    ("one", 1),
    ("deep/er/chunk", 131_072),
    ("deep/chunk+1", 131_073),
    ("deep/r\u{e4}ksm\u{f6}rg\u{e5}s \u{65e5}.txt", 400_000),
    ("large", 6_000_000),
];

#[test]
fn rclone_works_with_both_kinds_of_account() {
    for (email, version) in ACCOUNTS {
        let w = World::new();
        for (name, size) in SIZES {
            w.file(&format!("src/{name}"), size);
        }
        let (source, remote) = (w.path("src"), format!("m{version}:x"));
        let source = source.to_str().unwrap();
        w.rclone(&["mkdir", &remote]);
        w.rclone(&["copy", source, &remote]);
        for (name, _) in SIZES {
            w.assert_content(
                email,
                &format!("/x/{name}"),
                &w.path(&format!("src/{name}")),
            );
        }
        assert_eq!(
            w.rclone(&["lsf", "-R", "--files-only", &remote])
                .lines()
                .count(),
            SIZES.len()
        );
        w.rclone(&["check", "--download", source, &remote]);
        w.rclone(&[
            "moveto",
            &format!("{remote}/large"),
            &format!("{remote}/deep/big"),
        ]);
        w.assert_content(email, "/x/deep/big", &w.path("src/large"));
        w.rclone(&[
            "moveto",
            &format!("{remote}/deep"),
            &format!("m{version}:y"),
        ]);
        w.rclone(&["deletefile", &format!("{remote}/one")]);
        assert!(
            w.emulator
                .tree(email)
                .unwrap()
                .iter()
                .any(|n| n.path == "//bin/one")
        );
        w.rclone(&["purge", &format!("m{version}:y/er")]);
        assert!(
            w.rclone(&["about", &format!("m{version}:")])
                .contains("Total:   20 GiB")
        );
        let names: Vec<String> = w.listing(email).into_iter().map(|(p, _)| p).collect();
        let odd = format!("/y/{}", SIZES[4].0.strip_prefix("deep/").unwrap());
        assert_eq!(
            names,
            ["/x", "/x/empty", "/y", "/y/big", "/y/chunk+1", &odd]
        );
        // rclone keeps nothing but the name, which only shows when there was something to lose.
        w.assert_clean(&[]);
    }
}

#[test]
fn megajs_works() {
    let w = World::new();
    let email = ACCOUNTS[1].0;
    let mut upload = vec!["mkdir".to_owned(), "/".to_owned(), "js".to_owned()];
    let mut download = Vec::new();
    let mut files = Vec::new();
    for (name, size) in SIZES {
        let local = w.file(&format!("src/{name}"), size);
        let name = local.file_name().unwrap().to_str().unwrap().to_owned();
        let (remote, copy) = (format!("/js/{name}"), w.path(&format!("copy of {name}")));
        let words = ["--", "upload", local.to_str().unwrap(), "/js", &name];
        upload.extend(words.map(str::to_owned));
        let words = ["download", &remote, copy.to_str().unwrap(), "--"];
        download.extend(words.map(str::to_owned));
        files.push((local, remote, copy));
    }
    download.push("list".to_owned());
    let words = |list: &[String]| w.megajs(&list.iter().map(String::as_str).collect::<Vec<_>>());
    words(&upload);
    for (local, remote, _) in &files {
        w.assert_content(email, remote, local);
    }
    // A second login, so that it lists and reads what the server has.
    assert_eq!(words(&download).as_array().unwrap().len(), SIZES.len() + 1);
    for (local, _, copy) in &files {
        assert!(std::fs::read(copy).unwrap() == std::fs::read(local).unwrap());
    }
    w.megajs(&["rename", "/js/large", "huge", "--", "move", "/js/huge", "/"]);
    w.assert_content(email, "/huge", &w.path("src/large"));
    let link = w.megajs(&["link", "/huge"]);
    let copy = w.path("linked");
    let got = w.megajs(&["fetch-link", link.as_str().unwrap(), copy.to_str().unwrap()]);
    assert_eq!(
        (got["name"].as_str(), got["size"].as_u64()),
        (Some("huge"), Some(6_000_000))
    );
    assert!(std::fs::read(&copy).unwrap() == std::fs::read(w.path("src/large")).unwrap());
    w.megajs(&["remove", "/js"]);
    assert_eq!(w.listing(email), [("/huge".to_owned(), 6_000_000)]);
    // Its MAC of files that end on a chunk boundary is its own (protocol/04 section 3).
    w.assert_clean(&["as megajs writes it"]);
}

#[test]
fn megatools_works_through_tls() {
    let w = World::new();
    let email = ACCOUNTS[0].0;
    w.megatools(&["mkdir", "/Root/mt"]);
    for (name, size) in SIZES.into_iter().filter(|(_, size)| *size > 0) {
        let local = w.file(&format!("src/{name}"), size);
        let name = local.file_name().unwrap().to_str().unwrap();
        let remote = format!("/Root/mt/{name}");
        w.megatools(&[
            "put",
            "--no-progress",
            "--path",
            &remote,
            local.to_str().unwrap(),
        ]);
        w.assert_content(email, &format!("/mt/{name}"), &local);
        let copy = w.path("copy");
        let _ = std::fs::remove_file(&copy);
        w.megatools(&[
            "get",
            "--no-progress",
            "--path",
            copy.to_str().unwrap(),
            &remote,
        ]);
        assert!(std::fs::read(&copy).unwrap() == std::fs::read(&local).unwrap());
    }
    // It has no command to move or rename: it must see what others moved and renamed.
    let changes = [
        Fixture::Rename {
            path: "/mt/large".into(),
            name: "huge".into(),
        },
        Fixture::Move {
            path: "/mt/huge".into(),
            to: "/elsewhere".into(),
        },
    ];
    w.emulator.populate(email, &changes).unwrap();
    let listed = w.megatools(&["ls", "--recursive", "/Root"]);
    assert!(listed.contains("/Root/elsewhere/huge"), "{listed}");
    assert!(listed.contains(&format!(
        "/Root/mt/{}",
        SIZES[4].0.rsplit('/').next().unwrap()
    )));
    assert!(w.megatools(&["df"]).contains("21474836480"));
    w.megatools(&["rm", "/Root/elsewhere/huge"]);
    assert!(w.emulator.find(email, "/elsewhere/huge").is_none());
    // Request ids start at the current second and collide (protocol/01 section 3).
    w.assert_clean(&["used again with a different body"]);
}

#[test]
fn clients_see_each_others_changes() {
    let w = World::new();
    let email = ACCOUNTS[1].0;
    w.emulator
        .populate(email, &[Fixture::folder("/shared")])
        .unwrap();
    let local = w.file("src/from-rclone", 300_000);
    // megajs waits on its event channel while rclone uploads.
    let ready = w.path("ready");
    let mut watch = w.megajs_command(&["watch", ready.to_str().unwrap(), "/shared/from-rclone"]);
    let watcher = std::thread::spawn(move || run(&mut watch));
    until("megajs never got ready", || ready.exists());
    w.rclone(&["copyto", local.to_str().unwrap(), "m2:shared/from-rclone"]);
    let seen: Value = serde_json::from_slice(&watcher.join().unwrap().stdout).unwrap();
    assert_eq!(seen["size"], 300_000);
    let polls = w.emulator.counters();
    assert!(
        polls.requests("sc") > 0 && polls.requests("w") > 0,
        "{polls:?}"
    );
    // A long-running rclone sees what megajs did meanwhile.
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let mut serve = w.rclone_command();
    serve.args(["serve", "http", "--dir-cache-time", "0s", "--addr"]);
    serve.arg(format!("127.0.0.1:{port}")).arg("m2:shared");
    serve.stdout(Stdio::null()).stderr(Stdio::null());
    let mut serve = serve.spawn().unwrap();
    let get = |path: &str| {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut all = String::new();
        stream.read_to_string(&mut all).ok()?;
        Some(all)
    };
    until("rclone never served", || {
        get("/").is_some_and(|l| l.contains("from-rclone"))
    });
    w.megajs(&["rename", "/shared/from-rclone", "from-megajs"]);
    let mut listing = String::new();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !listing.contains("from-megajs") && Instant::now() < deadline {
        listing = get("/").unwrap_or_default();
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = serve.kill();
    let _ = serve.wait();
    assert!(listing.contains("from-megajs"), "{listing}");
    w.assert_clean(&[]);
}
