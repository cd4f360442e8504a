//! `mega-emulator`: the emulator as a process of its own. Prints one line when it is ready and runs
//! until it is killed; its state is always on disk already, so any signal will do.

use std::path::PathBuf;
use std::process::ExitCode;

use mega_emulator::{AccountSpec, Emulator, EmulatorConfig, Fixture};

const USAGE: &str = "usage: mega-emulator [--listen ADDRESS:PORT] [--data DIR] [--public-url URL]
    [--account EMAIL:PASSWORD[:v1|:v2]]... [--generate EMAIL:FOLDERS:FILES_PER_FOLDER[:MAX_SIZE]]...
    [--latency-ms N] [--hashcash EASINESS] [--seed N] [--no-mac-check]";

struct Options {
    config: EmulatorConfig,
    accounts: Vec<AccountSpec>,
    generate: Vec<(String, Fixture)>,
}

fn account(text: &str) -> Option<AccountSpec> {
    let (text, version) = match (text.strip_suffix(":v1"), text.strip_suffix(":v2")) {
        (Some(t), _) => (t, 1),
        (_, Some(t)) => (t, 2),
        _ => (text, 2),
    };
    let (email, password) = text.split_once(':')?;
    Some(AccountSpec {
        version,
        ..AccountSpec::new(email, password)
    })
}

fn generate(text: &str) -> Option<(String, Fixture)> {
    let mut words = text.split(':');
    let email = words.next()?.to_owned();
    let folders = words.next()?.parse().ok()?;
    let files_per_folder = words.next()?.parse().ok()?;
    let max_size = words.next().map_or(Some(4096), |w| w.parse().ok())?;
    let parent = "/generated".to_owned();
    Some((
        email,
        Fixture::Generated {
            parent,
            folders,
            fanout: 20,
            files_per_folder,
            max_size,
        },
    ))
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut o = Options {
        config: EmulatorConfig::default(),
        accounts: Vec::new(),
        generate: Vec::new(),
    };
    while let Some(name) = args.next() {
        if name == "--no-mac-check" {
            o.config.knobs.mac_check = false;
            continue;
        }
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        let bad = || format!("{name}: cannot use '{value}'");
        match name.as_str() {
            "--listen" => o.config.listen = value.parse().map_err(|_| bad())?,
            "--data" => o.config.data_dir = Some(PathBuf::from(&value)),
            "--public-url" => o.config.public_url = Some(value.clone()),
            "--account" => o.accounts.push(account(&value).ok_or_else(bad)?),
            "--generate" => o.generate.push(generate(&value).ok_or_else(bad)?),
            "--latency-ms" => o.config.knobs.latency_ms = value.parse().map_err(|_| bad())?,
            "--hashcash" => o.config.knobs.hashcash = Some(value.parse().map_err(|_| bad())?),
            "--seed" => o.config.seed = value.parse().map_err(|_| bad())?,
            _ => return Err(format!("unknown option {name}")),
        }
    }
    Ok(o)
}

fn run(options: Options) -> Result<(), mega_emulator::EmulatorError> {
    let emulator = Emulator::start(options.config)?;
    for spec in options.accounts {
        emulator.add_account(spec);
    }
    for (email, fixture) in options.generate {
        // Once only: a persistent emulator has it already.
        if emulator.find(&email, "/generated").is_none() {
            emulator.populate(&email, &[fixture])?;
        }
    }
    {
        use std::io::Write as _;
        let mut out = std::io::stdout().lock();
        writeln!(out, "listening on {}", emulator.url())?;
        out.flush()?;
    }
    loop {
        std::thread::park();
    }
}

fn main() -> ExitCode {
    let result = options(std::env::args().skip(1));
    let failure = match result {
        Ok(options) => run(options).map_err(|e| {
            let cause = std::error::Error::source(&e)
                .map(|s| format!(": {s}"))
                .unwrap_or_default();
            format!("{e}{cause}")
        }),
        Err(e) => Err(format!("{e}\n{USAGE}")),
    };
    if let Err(text) = failure {
        eprintln!("mega-emulator: {text}");
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}
