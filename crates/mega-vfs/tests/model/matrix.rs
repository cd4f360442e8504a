//! What goes wrong on the way, times what is being done: the outcome of each is in a table.
//!
//! Every cell is an account of its own with a folder `d` that has a file, a folder to move to, and a
//! file to delete. The operation is done while the pusher is held, the fault is set, the pusher is let
//! go. In all cells what was acknowledged is seen at once and as long as it waits, unless its ground is
//! being lost. `MATRIX_ROW` runs one row.

use std::time::{Duration, Instant};

use mega_emulator::{FaultAction, FaultRule, Fixture};
use mega_vfs::VfsConfig;

use crate::script::{Act, Picture, act, look};
use crate::world::{EMAIL, World};

/// `once`: on Mega as it should be, exactly once, without anybody's help. `waits`: nothing is sent for a
/// while, nothing is parked; the next start brings it. `kept`: parked and seen; the next start does not
/// bring it, and the view stays. `made`: the folder is made again for it, with nothing else in it. `gone`:
/// it went with its folder. `-`: cannot meet.
const TABLE: &str = "
                          mkdir  upload  overwrite  rename  move   delete  attribute
reply lost                once   once    once       once    once   once    once
reply lost twice          once   once    once       once    once   once    once
reply cut off             once   once    once       once    once   once    once
connection reset          once   once    once       once    once   once    once
request -3                once   once    once       once    once   once    once
command -3                once   once    once       once    once   once    once
request -4                once   once    once       once    once   once    once
status 500                once   once    once       once    once   once    once
status 509                once   once    once       once    once   once    once
command -17               once   waits   waits      once    once   once    once
session ended             once   once    once       once    once   once    once
folder deleted            made   made    made       gone    gone   gone    gone
put into the bin          once   once    once       -       -      -       -
upload URL refused        -      once    once       -       -      -       -
upload status 500         -      once    once       -       -      -       -
upload reset              -      once    once       -       -      -       -
upload reply lost         -      once    once       -       -      -       -
upload token lost         -      once    once       -       -      -       -
upload -4                 -      once    once       -       -      -       -
";

fn operation(name: &str) -> (Act, &'static str) {
    match name {
        "mkdir" => (Act::Mkdir { path: "d/new" }, "cmd:p"),
        "upload" => (
            Act::Write {
                path: "d/new",
                seed: 5,
                size: 200_000,
            },
            "cmd:p",
        ),
        "overwrite" => (
            Act::Write {
                path: "d/file",
                seed: 6,
                size: 1000,
            },
            "cmd:p",
        ),
        "rename" => (
            Act::Rename {
                from: "d/file",
                to: "d/renamed",
            },
            "cmd:a",
        ),
        "move" => (
            Act::Rename {
                from: "d/file",
                to: "d/to/file",
            },
            "cmd:m",
        ),
        "delete" => (Act::Unlink { path: "d/file" }, "cmd:m"),
        "attribute" => (Act::Chmod { path: "d/file" }, "cmd:a"),
        other => panic!("no operation {other}"),
    }
}

fn inject(world: &World, fault: &str, at: &str) {
    let body = |text: &str| FaultAction::Body { text: text.into() };
    let status = |code| FaultAction::Status {
        code,
        headers: Vec::new(),
        text: String::new(),
    };
    let command = |code| FaultAction::CommandError { code };
    let (at, action, times) = match fault {
        "reply lost" => (at, FaultAction::Lost, 1),
        "reply lost twice" => (at, FaultAction::Lost, 2),
        "reply cut off" => (at, FaultAction::Truncate { bytes: 3 }, 1),
        "connection reset" => (at, FaultAction::Reset, 2),
        "request -3" => (at, body("-3"), 2),
        "command -3" => (at, command(-3), 1),
        "request -4" => (at, body("-4"), 1),
        "status 500" => (at, status(500), 2),
        "status 509" => (at, status(509), 1),
        "command -17" => (at, command(-17), 1),
        "put into the bin" => (at, FaultAction::ToRubbish, 1),
        "upload URL refused" => ("cmd:u", command(-3), 1),
        "upload status 500" => ("ul", status(500), 2),
        "upload reset" => ("ul", FaultAction::Reset, 2),
        "upload reply lost" => ("ul", FaultAction::Lost, 1),
        "upload token lost" => (
            "ul",
            FaultAction::Reply {
                text: String::new(),
            },
            1,
        ),
        "upload -4" => ("ul", body("-4"), 1),
        "session ended" => return world.emulator.end_sessions(Some(EMAIL)),
        "folder deleted" => {
            let path = "/d".to_owned();
            let gone = [Fixture::Remove { path }];
            world.emulator.populate(EMAIL, &gone).unwrap();
            return;
        }
        other => panic!("no fault {other}"),
    };
    world
        .emulator
        .faults()
        .add(FaultRule::new(at, action).times(times));
}

fn cell(fault: &str, name: &str, outcome: &str) -> Result<(), String> {
    let config = VfsConfig {
        write_back: Duration::ZERO,
        timeout: Duration::from_secs(20),
        ..VfsConfig::default()
    };
    let mut world = World::new(config, true);
    let mut picture = Picture::default();
    let before = [
        Act::Mkdir { path: "d" },
        Act::Mkdir { path: "d/to" },
        Act::Write {
            path: "d/file",
            seed: 1,
            size: 5000,
        },
    ];
    for one in before {
        act(world.life(), &one)?;
        picture.apply(&one);
    }
    world.settle()?;
    let (one, at) = operation(name);
    act(world.life(), &one)?;
    picture.apply(&one);
    inject(&world, fault, at);
    if !matches!(outcome, "made" | "gone") {
        compare("at once", &look(world.life())?, &picture)?;
    }
    world.life().store.failpoints().hold(false);
    match outcome {
        "waits" => {
            std::thread::sleep(Duration::from_millis(700));
            let status = world.life().vfs.status();
            if status.queued + status.in_flight == 0 || !status.parked.is_empty() {
                return Err(format!("does not wait: {status:?}"));
            }
            compare("while it waits", &look(world.life())?, &picture)?;
            world.is_held = false;
            world.remount();
            world.settle()?;
        }
        _ => world.settle()?,
    }
    match outcome {
        "gone" => picture = Picture::default(),
        "made" => {
            let (Act::Mkdir { path } | Act::Write { path, .. }) = one else {
                return Err("nothing is made".into());
            };
            picture.0.retain(|at, _| at == "d" || at == path);
        }
        _ => {}
    }
    // The event of a folder's end may come after the queue is empty.
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let seen = look(world.life());
        let done = seen.and_then(|seen| compare("in the end", &seen, &picture));
        match done {
            Ok(()) => break,
            Err(text) if Instant::now() > deadline => return Err(text),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    compare("on Mega", &Picture::of_server(&world.emulator)?, &picture)?;
    let violations = world.emulator.counters().violations;
    if violations.is_empty() {
        Ok(())
    } else {
        Err(format!("{violations:?}"))
    }
}

fn compare(when: &str, seen: &Picture, right: &Picture) -> Result<(), String> {
    if seen == right {
        return Ok(());
    }
    Err(format!(
        "{when}: {:?} where {:?} is right",
        seen.brief(),
        right.brief()
    ))
}

fn rows() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    TABLE
        .lines()
        .skip(2)
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (fault, cells) = line.split_at(26);
            (fault.trim(), cells.split_whitespace().collect())
        })
}

/// Every `part`-th row of the table, of `of`.
fn run(part: usize, of: usize) {
    let names: Vec<&str> = TABLE.lines().nth(1).unwrap().split_whitespace().collect();
    let only = std::env::var("MATRIX_ROW").ok();
    let mut failures = Vec::new();
    let mut count = 0;
    for (_, (fault, cells)) in rows().enumerate().filter(|(row, _)| row % of == part) {
        if only.as_ref().is_some_and(|only| only != fault) {
            continue;
        }
        assert_eq!(cells.len(), names.len(), "{fault}");
        for (name, outcome) in names
            .iter()
            .zip(cells)
            .filter(|(_, outcome)| *outcome != "-")
        {
            let started = Instant::now();
            count += 1;
            let result = cell(fault, name, outcome);
            let took = started.elapsed().as_secs_f32();
            eprintln!("{fault:<20} {name:<10} {outcome:<6} {took:5.1} s  {result:?}");
            if let Err(text) = result {
                failures.push(format!("{fault} x {name}: {outcome} is right, but {text}"));
            }
        }
    }
    eprintln!("{count} cells");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn faults_times_operations_1() {
    run(0, 4);
}

#[test]
fn faults_times_operations_2() {
    run(1, 4);
}

#[test]
fn faults_times_operations_3() {
    run(2, 4);
}

#[test]
fn faults_times_operations_4() {
    run(3, 4);
}
