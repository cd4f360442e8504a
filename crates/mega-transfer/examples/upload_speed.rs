//! What the upload pipeline does per second against the emulator, from a real staging file:
//!
//! ```text
//! cargo run --release -p mega-transfer --example upload_speed -- [MIB] [--files N] [--streams N]
//!     [--memory MIB] [--no-cache] [--zeros] [--together] [--check]
//! ```
//!
//! One file of so many MiB (default 1024; `--zeros`: no staging file is read), then `--files` of 4 KiB. The
//! emulator is a child process (`--together`: a thread), so that memory and processor time are the
//! client's alone; its MAC checks are off, `--check` turns them on.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement, not a part of the program"
)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use mega_api::{Api, ApiConfig, Credentials, Secret};
use mega_crypto::MasterKey;
use mega_emulator::{AccountSpec, Emulator, EmulatorConfig};
use mega_store::{LayerReader, LockHolder, StatePaths, Store, StoreOptions};
use mega_transfer::{MemoryBudget, SealedSource, TransferLimits, UploadProgress, Uploads};
use tokio_util::sync::CancellationToken;

const EMAIL: &str = "user@example.com";
const MIB: u64 = 1 << 20;

/// A sealed layer.
struct Layer(LayerReader, u64);

impl SealedSource for Layer {
    fn size(&self) -> u64 {
        self.1
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.0.read_at(offset, buf).map_err(std::io::Error::other)
    }
}

/// Zeros, which cost nothing to read.
struct Nothing(u64);

impl SealedSource for Nothing {
    fn size(&self) -> u64 {
        self.0
    }

    fn read_at(&self, _: u64, buf: &mut [u8]) -> std::io::Result<()> {
        buf.fill(0);
        Ok(())
    }
}

fn emulator(check: bool) -> Emulator {
    let mut config = EmulatorConfig::default();
    config.knobs.mac_check = check;
    let emulator = Emulator::start(config).unwrap();
    emulator.add_account(AccountSpec::new(EMAIL, "password"));
    emulator
}

/// Serves until standard input ends, then says what was wrong.
fn serve(check: bool) {
    let emulator = emulator(check);
    println!("{}", emulator.url());
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).unwrap();
    let counters = emulator.counters();
    assert_eq!(counters.violation_count, 0, "{:?}", counters.violations);
}

fn child(check: bool) -> (Child, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .arg("serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    if check {
        command.arg("--check");
    }
    let mut child = command.spawn().unwrap();
    let mut url = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut url).unwrap();
    (child, url.trim().to_owned())
}

/// Processor seconds of a process so far.
fn cpu(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    let ticks = fields.skip(11).take(2);
    ticks.map(|t| t.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

/// The most memory this process ever had, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        / 1024
}

struct Options {
    size: u64,
    files: u64,
    streams: usize,
    memory: u64,
    cache_on: bool,
    together: bool,
    check: bool,
    zeros: bool,
}

fn options() -> Options {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1)?.parse::<u64>().ok()
    };
    let has = |name: &str| args.iter().any(|arg| arg == name);
    Options {
        size: args
            .first()
            .and_then(|arg| arg.parse::<u64>().ok())
            .unwrap_or(1024)
            * MIB,
        files: number("--files").unwrap_or(2000),
        streams: number("--streams").map_or(6, |n| usize::try_from(n).unwrap()),
        memory: number("--memory").unwrap_or(256) * MIB,
        cache_on: !has("--no-cache"),
        together: has("--together"),
        check: has("--check"),
        zeros: has("--zeros"),
    }
}

fn main() {
    let options = options();
    if std::env::args().nth(1).as_deref() == Some("serve") {
        return serve(options.check);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run(&options));
}

async fn run(options: &Options) {
    let here = options.together.then(|| emulator(options.check));
    let there = here.is_none().then(|| child(options.check));
    let url = match (&here, &there) {
        (Some(emulator), _) => emulator.url(),
        (_, Some((_, url))) => url.clone(),
        _ => String::new(),
    };
    let server = there
        .as_ref()
        .map_or_else(|| "self".to_owned(), |(child, _)| child.id().to_string());
    let config = ApiConfig {
        base_url: url.parse().unwrap(),
        proxy: Some(String::new()),
        ..ApiConfig::default()
    };
    let api = Api::new(config).unwrap();
    let credentials = Credentials {
        email: EMAIL.to_owned(),
        password: Secret::new("password".to_owned()),
        totp: None,
    };
    api.login(&credentials).await.unwrap();

    let dir = tempfile::tempdir_in(".").unwrap();
    let paths = StatePaths {
        state_dir: dir.path().join("state"),
        cache_dir: dir.path().join("cache"),
    };
    let holder = LockHolder {
        pid: 1,
        mountpoint: "/mnt".into(),
    };
    let store_options = StoreOptions {
        cache_on: options.cache_on,
        ..StoreOptions::default()
    };
    let store = Arc::new(Store::open(&paths, &holder, store_options).unwrap());
    store.unlock(&MasterKey::from_bytes([5; 16])).unwrap();
    let limits = TransferLimits {
        streams: options.streams,
        memory: MemoryBudget::new(options.memory),
        ..TransferLimits::default()
    };
    let uploads = Uploads::new(api, Arc::clone(&store), limits.clone());

    if options.size > 0 {
        let source: Arc<dyn SealedSource> = if options.zeros {
            Arc::new(Nothing(options.size))
        } else {
            Arc::new(staged(&store, options.size))
        };
        println!("{:<24} {:>8} MiB resident", "before", peak());
        let began = (Instant::now(), cpu("self"), cpu(&server));
        let upload = uploads.upload(
            source,
            Arc::new(UploadProgress::new()),
            CancellationToken::new(),
        );
        let uploaded = upload.await.unwrap();
        let (seconds, mb) = (began.0.elapsed().as_secs_f64(), options.size as f64 / 1e6);
        println!(
            "{:<24} {:>8.0} MB/s, client {:.2} and server {:.2} CPU s/GB, client's peak {} MiB resident, {} MiB of the budget{}",
            format!("{} MiB", options.size / MIB),
            mb / seconds,
            (cpu("self") - began.1) / mb * 1000.0,
            (cpu(&server) - began.2) / mb * 1000.0,
            peak(),
            limits.memory.peak() / MIB,
            if uploaded.blob.is_some() {
                ", cached"
            } else {
                ""
            },
        );
    }
    if options.files > 0 {
        let began = (Instant::now(), cpu("self"), cpu(&server));
        let mut running = tokio::task::JoinSet::new();
        for number in 0..options.files {
            if running.len() >= 64 {
                running.join_next().await;
            }
            let uploads = uploads.clone();
            running.spawn(async move {
                let source = Arc::new(Nothing(4096 + number % 7));
                let progress = Arc::new(UploadProgress::new());
                uploads
                    .upload(source, progress, CancellationToken::new())
                    .await
                    .unwrap();
            });
        }
        while running.join_next().await.is_some() {}
        println!(
            "{:<24} {:>8.0} files/s, client {:.0} and server {:.0} CPU us/file",
            format!("{} files of 4 KiB", options.files),
            options.files as f64 / began.0.elapsed().as_secs_f64(),
            (cpu("self") - began.1) / options.files as f64 * 1e6,
            (cpu(&server) - began.2) / options.files as f64 * 1e6,
        );
    }
    if let Some((mut child, _)) = there {
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
}

fn staged(store: &Store, size: u64) -> Layer {
    let mut layer = store.new_layer(0);
    let mut data = vec![0_u8; 1 << 20];
    for (at, byte) in data.iter_mut().enumerate() {
        *byte = (at * 31 % 251) as u8;
    }
    for offset in (0..size).step_by(data.len()) {
        let part = usize::try_from(size - offset).unwrap().min(data.len());
        layer.write_at(offset, data.get(..part).unwrap()).unwrap();
    }
    Layer(layer.reader(), size)
}
