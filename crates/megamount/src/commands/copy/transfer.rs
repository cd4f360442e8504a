//! The copying: threads that take one file after the other, each with a connection of its own.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::job::{End, Job, Known};
use super::local::{self, Partial};
use super::plan::Plan;
use crate::commands::say;
use crate::control::client::Link;
use crate::control::files::{FileAsk, FileReply, Kind, PIECE};
use crate::display::{CopyBars, printable};
use crate::exit;
use crate::failure::Failure;
use crate::mount::Account;

/// Paths in one request.
const PATHS: usize = 50;

/// What came out.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) copied: usize,
    pub(super) bytes: u64,
    pub(super) failed: usize,
    /// The exit code of the first failure.
    pub(super) code: Option<u8>,
}

/// Does what was planned.
pub(super) fn run(
    plan: &Plan<'_>,
    to: &End,
    workers: usize,
    is_verbose: bool,
) -> Result<Outcome, Failure> {
    let mut failed = None;
    for folder in &plan.folders {
        // What is to be in it fails too, and says so by itself.
        if let Err(failure) = make_folder(folder) {
            local::note(&failure.to_string());
            failed.get_or_insert(exit::code(&failure));
        }
    }
    let bars = CopyBars::new(plan.jobs.len(), plan.jobs.iter().map(|job| job.size).sum());
    let todo: Mutex<VecDeque<&Job>> = Mutex::new(plan.jobs.iter().collect());
    let outcome = Mutex::new(Outcome::default());
    std::thread::scope(|scope| {
        for _ in 0..workers.min(plan.jobs.len()) {
            scope.spawn(|| {
                loop {
                    let next = lock(&todo).pop_front();
                    let Some(job) = next else { return };
                    let copied = one(job, &bars);
                    let mut outcome = lock(&outcome);
                    match copied {
                        Ok(()) => {
                            outcome.copied += 1;
                            outcome.bytes += job.size;
                            if is_verbose {
                                bars.aside(|| say(&format!("{}\n", printable(&job.name))));
                            }
                        }
                        Err(failure) => {
                            outcome.failed += 1;
                            outcome.code.get_or_insert(exit::code(&failure));
                            local::note(&failure.to_string());
                        }
                    }
                }
            });
        }
    });
    drop(bars);
    let mut outcome = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcome.code = failed.or(outcome.code);
    outcome.failed += usize::from(failed.is_some());
    if let End::Remote { account, .. } = to
        && failed.is_none()
    {
        let settled =
            settle(account, &plan.folders).and_then(|()| settle(account, &plan.unsettled));
        if let Err(failure) = settled {
            local::note(&failure.to_string());
            outcome.failed += 1;
            outcome.code.get_or_insert(exit::code(&failure));
        }
    }
    Ok(outcome)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn make_folder(folder: &End) -> Result<(), Failure> {
    match folder {
        End::Local(path) => std::fs::create_dir_all(path)
            .map_err(|error| local::failed("make the folder", path, &error)),
        End::Remote { account, path } => {
            let mut link = account.link()?;
            link.ask_files(FileAsk::Make {
                path: path.clone(),
                parents: true,
                at_once: true,
            })?;
            link.until_done(|_| ())
        }
    }
}

/// Waits until Mega has them.
fn settle(account: &Account, places: &[End]) -> Result<(), Failure> {
    for places in places.chunks(PATHS) {
        let mut link = account.link()?;
        let paths = places.iter().map(End::shown).collect();
        link.ask_files(FileAsk::Settle { paths })?;
        link.until_done(|_| ())?;
    }
    Ok(())
}

fn one(job: &Job, bars: &CopyBars) -> Result<(), Failure> {
    let bar = bars.begin(&job.name, job.size);
    let copied = match (&job.from, &job.to) {
        (End::Local(from), End::Remote { account, path }) => {
            up(from, account.link()?, path, &job.known, &bar)
        }
        (End::Remote { account, path }, End::Local(to)) => {
            down(account.link()?, path, to, &job.known, &bar)
        }
        (
            End::Remote { account, path },
            End::Remote {
                account: other,
                path: to,
            },
        ) => {
            if Arc::ptr_eq(account, other) && job.known.kind == Kind::File {
                within(account.link()?, path, to, &bar)
            } else {
                between(
                    (account.link()?, path),
                    (other.link()?, to),
                    &job.known,
                    &bar,
                )
            }
        }
        (End::Local(_), End::Local(_)) => Ok(()),
    };
    match copied {
        Ok(()) => bar.done(),
        Err(_) => bar.failed(),
    }
    copied
}

/// From this machine to an account.
fn up(
    from: &Path,
    mut link: Link,
    to: &str,
    known: &Known,
    bar: &crate::display::CopyBar<'_>,
) -> Result<(), Failure> {
    let fail = |error: std::io::Error| local::failed("read", from, &error);
    if known.kind == Kind::Link {
        let target = std::fs::read_link(from).map_err(fail)?;
        let Some(target) = target.to_str() else {
            return Err(fail(std::io::ErrorKind::InvalidData.into()));
        };
        link.ask_files(FileAsk::Link {
            path: to.to_owned(),
            target: target.to_owned(),
            mtime: known.mtime,
        })?;
        return link.until_done(|_| ());
    }
    let mut file = File::open(from).map_err(fail)?;
    link.ask_files(write(to, known))?;
    let mut buffer = vec![0; PIECE];
    loop {
        let length = file.read(&mut buffer).map_err(fail)?;
        link.send_piece(buffer.get(..length).unwrap_or_default())?;
        if length == 0 {
            break;
        }
    }
    link.until_done(|sent| bar.at(sent))
}

fn write(to: &str, known: &Known) -> FileAsk {
    FileAsk::Write {
        path: to.to_owned(),
        size: known.size,
        mtime: known.mtime,
        executable: known.executable,
    }
}

/// From an account to this machine.
fn down(
    mut link: Link,
    from: &str,
    to: &Path,
    known: &Known,
    bar: &crate::display::CopyBar<'_>,
) -> Result<(), Failure> {
    if known.kind == Kind::Link {
        let mut target = Vec::new();
        read(&mut link, from, 0, |bytes| {
            target.extend_from_slice(bytes);
            Ok(())
        })?;
        return local::make_link(to, &String::from_utf8_lossy(&target), known.mtime);
    }
    if to.is_dir() {
        return Err(Failure::LocalFile {
            what: "write",
            path: to.to_path_buf(),
            reason: "a folder of that name is in the way".to_owned(),
        });
    }
    let mut partial = Partial::open(to, known)?;
    loop {
        let mut at = partial.resumed;
        bar.at(at);
        read(&mut link, from, at, |bytes| {
            at += bytes.len() as u64;
            bar.at(at);
            partial.write(bytes)
        })?;
        if partial.length() != known.size {
            return Err(Failure::Other(format!(
                "'{from}' changed while it was copied. Start again."
            )));
        }
        if partial.resumed == 0 {
            break;
        }
        // The beginning is from an earlier run, and perhaps from before a power cut.
        if local::matches(partial.path(), known)
            .map_err(|error| local::failed("read", to, &error))?
        {
            break;
        }
        partial.restart()?;
    }
    partial.finish(known)
}

fn read(
    link: &mut Link,
    path: &str,
    offset: u64,
    mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    link.ask_files(FileAsk::Read {
        path: path.to_owned(),
        offset,
        length: None,
    })?;
    let mut buffer = Vec::new();
    loop {
        match link.file_reply()? {
            FileReply::Bytes { length } => {
                link.bytes(length, &mut buffer)?;
                take(&buffer)?;
            }
            FileReply::Done => return Ok(()),
            _ => return Err(Failure::DaemonGone),
        }
    }
}

/// Within one account: Mega makes the copy.
fn within(
    mut link: Link,
    from: &str,
    to: &str,
    bar: &crate::display::CopyBar<'_>,
) -> Result<(), Failure> {
    link.ask_files(FileAsk::Clone {
        from: from.to_owned(),
        to: to.to_owned(),
    })?;
    link.until_done(|sent| bar.at(sent))
}

/// From one account to another, through this machine and not over its disk as a file.
fn between(
    (mut source, from): (Link, &str),
    (mut target, to): (Link, &str),
    known: &Known,
    bar: &crate::display::CopyBar<'_>,
) -> Result<(), Failure> {
    if known.kind == Kind::Link {
        let mut bytes = Vec::new();
        read(&mut source, from, 0, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        target.ask_files(FileAsk::Link {
            path: to.to_owned(),
            target: String::from_utf8_lossy(&bytes).into_owned(),
            mtime: known.mtime,
        })?;
        return target.until_done(|_| ());
    }
    target.ask_files(write(to, known))?;
    read(&mut source, from, 0, |bytes| target.send_piece(bytes))?;
    target.send_piece(&[])?;
    target.until_done(|sent| bar.at(sent))
}
