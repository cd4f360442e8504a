//! The process ends at a named point, and the next one finds everything.
//!
//! The test starts itself again as a child that plays a script and says what was acknowledged; a
//! failpoint of its store aborts it. The parent has the emulator: it looks at what Mega has at that
//! moment, opens the state directory, and compares with what was acknowledged (the act under way may have
//! happened or not), before and after the queue is drained. `CRASH_ALL=1` visits every point as often as
//! the script passes it; otherwise a selection.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mega_api::Session;
use mega_emulator::{AccountSpec, Emulator, EmulatorConfig};
use mega_store::{FailPoint, Store};
use mega_vfs::VfsConfig;

use crate::script::{Act, Picture, Thing, act, look};
use crate::world::{EMAIL, Life, PASSWORD, login};

const URL: &str = "MODEL_CHILD_URL";
const DIR: &str = "MODEL_CHILD_DIR";
/// `INDEX:NTH` of the point.
const POINT: &str = "MODEL_CHILD_POINT";
/// Where in the script to begin.
const FROM: &str = "MODEL_CHILD_FROM";

const fn write(path: &'static str, seed: u64, size: usize) -> Act {
    Act::Write { path, seed, size }
}

/// A bit of everything; each step of the way of a change is passed several times.
const SCRIPT: &[Act] = &[
    write("doc", 1, 3000),
    Act::Mkdir { path: "d" },
    Act::Mkdir { path: "d/e" },
    write("d/large", 2, 400_000),
    write("d/e/small", 3, 10),
    Act::Settle,
    // Saved by way of a temporary file.
    write("doc.tmp", 4, 5000),
    Act::Rename {
        from: "doc.tmp",
        to: "doc",
    },
    Act::Settle,
    write("d/large", 5, 150_000),
    Act::Patch {
        path: "d/e/small",
        offset: 5,
        seed: 6,
        size: 70_000,
    },
    Act::Rename {
        from: "d/e",
        to: "moved",
    },
    Act::Chmod {
        path: "moved/small",
    },
    Act::Settle,
    Act::Exchange {
        one: "doc",
        other: "d/large",
    },
    write("empty", 7, 0),
    Act::Rename {
        from: "moved/small",
        to: "empty",
    },
    Act::Settle,
    // What "doc" has: the server copies it. Then once more the same, which only changes its time.
    write("twin", 5, 150_000),
    Act::Settle,
    write("twin", 5, 150_000),
    Act::Settle,
    write("moved/last", 8, 70_000),
    Act::Unlink { path: "doc" },
    Act::Rename {
        from: "moved",
        to: "d/moved",
    },
    Act::Mkdir { path: "gone" },
    write("gone/f", 9, 100),
    Act::Unlink { path: "gone/f" },
    Act::Rmdir { path: "gone" },
    Act::Unlink { path: "empty" },
    Act::Settle,
];
/// The name that is never without a file on Mega (I7), and in which part of the script.
const ALWAYS: (&str, usize, usize) = ("/doc", 6, 14);

fn config() -> VfsConfig {
    VfsConfig {
        write_back: Duration::ZERO,
        timeout: Duration::from_secs(20),
        ..VfsConfig::default()
    }
}

#[test]
#[ignore = "the other half of the tests below"]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let url = std::env::var(URL).unwrap();
    let point = std::env::var(POINT).unwrap();
    let from: usize = std::env::var(FROM).unwrap().parse().unwrap();
    let (index, nth) = point.split_once(':').unwrap();
    let point = FailPoint::ALL[index.parse::<usize>().unwrap()];
    let session = login(&url);
    let arm = |store: &Store| store.failpoints().arm(point, nth.parse().unwrap());
    let life = Life::begin(&url, &session, Path::new(&dir), &config(), arm);
    let mut out = std::io::stdout();
    let mut say = |text: String| {
        writeln!(out, "{text}").unwrap();
        out.flush().unwrap();
    };
    for (number, one) in SCRIPT.iter().enumerate().skip(from) {
        say(format!("begin {number}"));
        act(&life, one).unwrap();
        say(format!("ack {number}"));
    }
    life.drain().unwrap();
    say("end".to_owned());
}

/// One account and one state directory, through any number of processes.
struct Case {
    emulator: Emulator,
    session: Session,
    dir: tempfile::TempDir,
    picture: Picture,
    /// Acts acknowledged so far, and the one that may have been done.
    done: usize,
    in_flight: Option<usize>,
}

#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Crashed,
    Finished,
}

impl Case {
    fn new() -> Self {
        let emulator = Emulator::start(EmulatorConfig::default()).unwrap();
        emulator.add_account(AccountSpec::new(EMAIL, PASSWORD));
        let session = login(&emulator.url());
        Self {
            emulator,
            session,
            dir: tempfile::tempdir().unwrap(),
            picture: Picture::default(),
            done: 0,
            in_flight: None,
        }
    }

    fn child(&mut self, point: usize, nth: u64) -> Result<Ended, String> {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--ignored", "--nocapture"])
            .env(DIR, self.dir.path())
            .env(URL, self.emulator.url())
            .env(POINT, format!("{point}:{nth}"))
            .env(FROM, self.done.to_string())
            .env("RUST_BACKTRACE", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ended = Ended::Crashed;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            // The harness may have written the beginning of the line.
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                [.., "begin", number] => self.in_flight = number.parse().ok(),
                [.., "ack", number] => {
                    let number: usize = number.parse().unwrap();
                    self.picture.apply(&SCRIPT[number]);
                    self.done = number + 1;
                    self.in_flight = None;
                }
                [.., "end"] => ended = Ended::Finished,
                _ => {}
            }
        }
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        use std::os::unix::process::ExitStatusExt;
        match (&ended, output.status.signal()) {
            (Ended::Finished, _) | (Ended::Crashed, Some(6)) => Ok(ended),
            _ => Err(format!("the child failed, {}: {text}", output.status)),
        }
    }

    /// What may be seen: with and without the act under way.
    fn adopt(&mut self, seen: &Picture) -> Result<(), String> {
        if *seen == self.picture {
            return Ok(());
        }
        let Some(act) = self.in_flight.map(|number| SCRIPT[number]) else {
            return self.wrong(seen);
        };
        let mut after = self.picture.clone();
        after.apply(&act);
        if *seen == after {
            self.picture = after;
            return Ok(());
        }
        // A write that was not closed may have left anything in its own file, and only there.
        let (Act::Write { path, .. } | Act::Patch { path, .. }) = act else {
            return self.wrong(seen);
        };
        let mut loose = self.picture.clone();
        match seen.0.get(path) {
            Some(thing @ Thing::File { .. }) => loose.0.insert(path.to_owned(), thing.clone()),
            _ => return self.wrong(seen),
        };
        if loose != *seen {
            return self.wrong(seen);
        }
        self.picture = loose;
        Ok(())
    }

    fn wrong(&self, seen: &Picture) -> Result<(), String> {
        Err(format!(
            "{:?} where {:?} was acknowledged (under way: {:?})",
            seen.brief(),
            self.picture.brief(),
            self.in_flight.map(|number| SCRIPT[number])
        ))
    }

    /// The name that is saved over has a file on Mega, whatever happens (I7).
    fn check_always(&self) -> Result<(), String> {
        let (path, from, to) = ALWAYS;
        if (from..to).contains(&self.done) && self.emulator.find(EMAIL, path).is_none() {
            return Err(format!("{path} is without a file on Mega"));
        }
        Ok(())
    }

    /// Opens what the crash left: the view, the queue, Mega, and the view of a clean start.
    fn check(&mut self) -> Result<(), String> {
        self.check_always()?;
        let url = self.emulator.url();
        let (session, dir) = (self.session.clone(), self.dir.path().to_owned());
        let begin = |hold: bool, broken: &mut Option<String>| {
            Life::begin(&url, &session, &dir, &config(), |store| {
                store.failpoints().hold(hold);
                *broken = check_rows(store).err();
            })
        };
        let mut broken = None;
        let life = begin(true, &mut broken);
        if let Some(text) = broken {
            life.drop_all();
            return Err(text);
        }
        let seen = look(&life);
        let settled = seen.map(|seen| (seen, life.drain().map_err(|status| format!("{status:?}"))));
        let (seen, drained) = match settled {
            Ok(both) => both,
            Err(text) => {
                life.drop_all();
                return Err(text);
            }
        };
        let after = look(&life);
        let rest = self.left(&life);
        life.end(Duration::ZERO);
        self.adopt(&seen)?;
        drained?;
        let after = after?;
        if after != self.picture {
            return self
                .wrong(&after)
                .map_err(|text| format!("after the drain: {text}"));
        }
        let server = Picture::of_server(&self.emulator)?;
        if server != self.picture {
            return self
                .wrong(&server)
                .map_err(|text| format!("on Mega: {text}"));
        }
        rest?;
        let violations = self.emulator.counters().violations;
        if !violations.is_empty() {
            return Err(format!("violations: {violations:?}"));
        }
        let life = begin(false, &mut None);
        let again = look(&life);
        life.end(Duration::ZERO);
        if again? != self.picture {
            return Err("another view after one more start".to_owned());
        }
        Ok(())
    }

    /// Nothing is left of the queue.
    fn left(&self, life: &Life) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let staging = std::fs::read_dir(self.dir.path().join("state/staging"))
                .unwrap()
                .count();
            let rows = life.store.changes().unwrap().len();
            let attempts = life.store.attempts().unwrap().len();
            let doomed = life.store.doomed().unwrap().len();
            if staging + rows + attempts + doomed == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "left: {staging} staging files, {rows} rows, {attempts} attempts, {doomed} doomed"
                ));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// I2, I5: what a row counts on is there.
fn check_rows(store: &Store) -> Result<(), String> {
    let rows = store.changes().map_err(|error| format!("rows: {error}"))?;
    for layer in rows
        .iter()
        .filter_map(|row| row.content.as_ref())
        .flat_map(|c| &c.layers)
    {
        let file = store
            .open_layer(layer)
            .map_err(|error| format!("I2: {error}"))?;
        for part in &layer.extents {
            let mut bytes = vec![0; usize::try_from(part.end - part.start).unwrap()];
            file.read_at(part.start, &mut bytes)
                .map_err(|error| format!("I2: {error}"))?;
        }
    }
    Ok(())
}

fn is_thorough() -> bool {
    std::env::var_os("CRASH_ALL").is_some()
}

/// Which passages of a point are tried.
fn is_chosen(point: FailPoint, nth: u64) -> bool {
    match point {
        FailPoint::BeforeCommit | FailPoint::Committed => {
            [1, 3, 8, 13, 21, 34, 47, 61, 80, 99].contains(&nth)
        }
        _ => [1, 2, 4, 7].contains(&nth),
    }
}

/// Visits one point as often as it is passed.
fn sweep(point: FailPoint) {
    let index = FailPoint::ALL.iter().position(|one| *one == point).unwrap();
    let mut failures = Vec::new();
    let mut crashes = 0;
    for nth in 1.. {
        if !is_thorough() && !is_chosen(point, nth) {
            if nth > 120 {
                break;
            }
            continue;
        }
        let mut case = Case::new();
        let started = Instant::now();
        match case.child(index, nth) {
            Ok(Ended::Finished) => break,
            Ok(Ended::Crashed) => {
                crashes += 1;
                if let Err(text) = case.check() {
                    eprintln!("{point:?} {nth}: {text}");
                    failures.push(format!("{point:?} {nth}: {text}"));
                }
                if started.elapsed() > Duration::from_secs(20) {
                    failures.push(format!("{point:?} {nth}: took {:?}", started.elapsed()));
                }
            }
            Err(text) => failures.push(format!("{point:?} {nth}: {text}")),
        }
    }
    eprintln!("{point:?}: {crashes} crashes");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(
        crashes > 0,
        "{point:?} is never passed: this proves nothing"
    );
}

#[test]
fn before_a_commit() {
    sweep(FailPoint::BeforeCommit);
}

#[test]
fn after_a_commit() {
    sweep(FailPoint::Committed);
}

#[test]
fn after_sealing() {
    sweep(FailPoint::Sealed);
}

#[test]
fn after_a_piece() {
    sweep(FailPoint::PieceStored);
}

#[test]
fn with_the_token() {
    sweep(FailPoint::Uploaded);
}

#[test]
fn after_journalling() {
    sweep(FailPoint::Journalled);
}

#[test]
fn before_the_answer_is_known() {
    sweep(FailPoint::Answered);
}

#[test]
fn after_confirming() {
    sweep(FailPoint::Confirmed);
}

#[test]
fn after_dropping_staging() {
    sweep(FailPoint::StagingDropped);
}

/// The first crash leaves an answer unknown; the second one comes while that is being found out.
#[test]
fn twice() {
    let answered = FailPoint::ALL
        .iter()
        .position(|p| *p == FailPoint::Answered)
        .unwrap();
    let committed = FailPoint::ALL
        .iter()
        .position(|p| *p == FailPoint::Committed)
        .unwrap();
    let mut failures = Vec::new();
    let most = if is_thorough() { 12 } else { 3 };
    for first in 1..=most {
        for second in 1..=most {
            let mut case = Case::new();
            if case.child(answered, first) != Ok(Ended::Crashed) {
                continue;
            }
            // The script goes on after what was under way; so that must not be repeated.
            if let Some(number) = case.in_flight.take() {
                if !matches!(SCRIPT[number], Act::Settle) {
                    continue;
                }
                case.done = number;
            }
            let text = match case.child(committed, second) {
                Ok(Ended::Crashed) => case.check().err(),
                Ok(Ended::Finished) => None,
                Err(text) => Some(text),
            };
            failures.extend(text.map(|text| format!("{first}, {second}: {text}")));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
