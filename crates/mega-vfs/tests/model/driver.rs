//! Does the same to the reference and to the file system, and compares.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::time::{Duration, Instant};

use mega_emulator::{Fixture, FixtureContent, pattern};
use mega_vfs::{
    Attr, FileKind, Lookup, OpenMode, RenameMode, SetAttr, Timestamp, VfsConfig, WriteAt,
};
use rustix::io::Errno;

use crate::ops::{Mode, NAMES, Op, Regime, Step, Theirs};
use crate::reference::{Id, Kind, Model, ROOT};
use crate::world::{EMAIL, World, is_ignored};

type Checked<T = ()> = Result<T, String>;

/// A file that is open.
#[derive(Debug, Clone, Copy)]
struct Open {
    id: Id,
    ino: u64,
    fh: u64,
    write: bool,
}

pub(crate) struct Driver {
    pub(crate) world: World,
    pub(crate) model: Model,
    regime: Regime,
    open: Vec<Open>,
    /// Makes the bytes of each write different.
    salt: u64,
    /// A folder of theirs whose name tells how far we see.
    marker: Option<Id>,
    markers: u64,
    /// What was really done, for the message of a failure.
    trace: Vec<String>,
    /// Operations done, for the report.
    pub(crate) done: u64,
}

macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(format!($($text)*));
        }
    };
}

mod ours;
mod theirs;
mod view;

fn read_only() -> OpenMode {
    OpenMode {
        read: true,
        ..OpenMode::default()
    }
}

fn read_write() -> OpenMode {
    OpenMode {
        read: true,
        write: true,
        ..OpenMode::default()
    }
}

fn kind_of(kind: FileKind) -> Kind {
    match kind {
        FileKind::File => Kind::File,
        FileKind::Directory => Kind::Folder,
        FileKind::Symlink => Kind::Symlink,
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, ours: &T, expected: &T) -> Checked {
    ensure!(
        ours == expected,
        "{what}: {ours:?} where {expected:?} is right"
    );
    Ok(())
}

impl Driver {
    pub(crate) fn new(regime: Regime, config: VfsConfig) -> Self {
        Self {
            world: World::new(config, regime == Regime::Held),
            model: Model::new(),
            regime,
            open: Vec::new(),
            salt: 0,
            marker: None,
            markers: 0,
            trace: Vec::new(),
            done: 0,
        }
    }

    pub(crate) fn run(&mut self, steps: &[Step]) -> Checked {
        for (number, step) in steps.iter().enumerate() {
            self.step(step)
                .and_then(|()| self.compare())
                .map_err(|text| format!("step {number}, {step:?}: {text}\n{}", self.story()))?;
        }
        self.settle()
            .and_then(|()| self.compare())
            .map_err(|text| format!("at the end: {text}\n{}", self.story()))
    }

    fn story(&self) -> String {
        let last = &self.trace[self.trace.len().saturating_sub(25)..];
        format!("the last things done were\n    {}", last.join("\n    "))
    }

    fn note(&mut self, what: &str, id: Id) {
        let path = self.model.path(id).join("/");
        self.trace.push(format!("{what} {path}"));
    }

    fn step(&mut self, step: &Step) -> Checked {
        self.done += 1;
        if !matches!(step, Step::Ours(_) | Step::Theirs(_)) {
            self.trace.push(format!("{step:?}"));
        }
        match step {
            Step::Ours(op) => self.ours(op),
            Step::Theirs(list) => self.theirs(list),
            Step::Settle => self.settle(),
            Step::Remount => {
                self.world.remount();
                if !self.open.is_empty() {
                    // What was unlinked and still open ends with the process.
                    self.world.forget_lost();
                }
                self.handles_ended();
                Ok(())
            }
            Step::Crash => {
                // What an application was told about ends at the last close or fsync.
                self.close_all()?;
                self.world.crash();
                self.world.forget_lost();
                Ok(())
            }
        }
    }

    fn handles_ended(&mut self) {
        for open in std::mem::take(&mut self.open) {
            if let Some(node) = self.model.nodes.get_mut(&open.id) {
                node.openers -= 1;
            }
        }
        self.model.forget_gone();
    }

    fn close_all(&mut self) -> Checked {
        while let Some(open) = self.open.pop() {
            self.close(open)?;
        }
        Ok(())
    }

    /// Everything pushed; Mega has what the reference says, and nothing is left behind here.
    pub(crate) fn settle(&mut self) -> Checked {
        self.close_all()?;
        self.world.settle()?;
        self.model.settle();
        self.compare_server()?;
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match self.world.check_settled() {
                Ok(()) => return Ok(()),
                Err(text) if Instant::now() > deadline => return Err(text),
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    fn compare_server(&self) -> Checked {
        let mut theirs: Vec<_> = self
            .world
            .nodes()
            .into_iter()
            .map(|node| {
                let is_link = node
                    .attributes
                    .as_ref()
                    .is_some_and(|map| map.get("mml").is_some());
                let kind = match (node.folder, is_link) {
                    (true, _) => Kind::Folder,
                    (false, true) => Kind::Symlink,
                    (false, false) => Kind::File,
                };
                let bytes = if node.folder {
                    Vec::new()
                } else {
                    self.world.emulator.content(&node.handle).unwrap()
                };
                (node.path, kind, bytes)
            })
            .collect();
        theirs.sort_by(|a, b| (&a.0, a.1, &a.2).cmp(&(&b.0, b.1, &b.2)));
        let expected = self.model.server_view();
        let short = |list: Vec<(&String, Kind, usize)>| format!("{list:?}");
        let is_same = theirs.len() == expected.len()
            && theirs
                .iter()
                .zip(&expected)
                .all(|(ours, right)| ours.0 == right.0 && ours.1 == right.1 && ours.2 == **right.2);
        ensure!(
            is_same,
            "Mega has {} where {} is right",
            short(
                theirs
                    .iter()
                    .map(|(path, kind, bytes)| (path, *kind, bytes.len()))
                    .collect()
            ),
            short(
                expected
                    .iter()
                    .map(|(path, kind, bytes)| (path, *kind, bytes.len()))
                    .collect()
            )
        );
        Ok(())
    }
}
