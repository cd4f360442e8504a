//! What can happen, as proptest makes it up. Numbers that pick something are taken modulo what there
//! is, so that every list of steps means something, the shrunk ones too.

use proptest::prelude::*;

/// Names are few, so that they collide.
pub(crate) const NAMES: [&str; 7] = ["a", "b", "c", "d.txt", "e.txt", "f.tar.gz", "g g"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Replace,
    NoReplace,
    Exchange,
}

/// An operation of the user. `entry` picks anything but the root, `file` a file, `dir` a folder.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Create {
        dir: usize,
        name: usize,
        size: usize,
        exec: bool,
    },
    Write {
        file: usize,
        offset: usize,
        size: usize,
        truncate: bool,
    },
    Append {
        file: usize,
        size: usize,
    },
    Truncate {
        file: usize,
        size: usize,
    },
    Mkdir {
        dir: usize,
        name: usize,
    },
    Symlink {
        dir: usize,
        name: usize,
        target: usize,
    },
    Rmdir {
        entry: usize,
    },
    Unlink {
        entry: usize,
    },
    Rename {
        entry: usize,
        dir: usize,
        name: usize,
        mode: Mode,
    },
    Chmod {
        file: usize,
        exec: bool,
    },
    Touch {
        entry: usize,
        secs: i64,
        nanos: u32,
    },
    Open {
        file: usize,
        write: bool,
    },
    WriteTo {
        handle: usize,
        offset: usize,
        size: usize,
    },
    ReadFrom {
        handle: usize,
    },
    Sync {
        handle: usize,
    },
    Close {
        handle: usize,
    },
    SyncDir,
}

/// A change by another client.
#[derive(Debug, Clone)]
pub(crate) enum Theirs {
    File {
        dir: usize,
        name: usize,
        size: usize,
    },
    Folder {
        dir: usize,
        name: usize,
    },
    Rename {
        entry: usize,
        name: usize,
    },
    Move {
        entry: usize,
        dir: usize,
    },
    Overwrite {
        file: usize,
        size: usize,
    },
    Delete {
        entry: usize,
        for_good: bool,
    },
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Ours(Op),
    Theirs(Vec<Theirs>),
    Settle,
    Remount,
    Crash,
}

/// How the pusher and the other client take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Regime {
    /// The pusher runs all the time; the other client waits until it is done.
    Running,
    /// The pusher waits until it is told; the other client comes between.
    Held,
}

/// Sizes around what matters: nothing, a block, the limit of inline rows, a chunk, two chunks.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        2 => Just(0_usize),
        10 => 1_usize..3000,
        3 => 65_530_usize..65_545,
        2 => 131_070_usize..131_080,
        1 => 380_000_usize..400_000,
    ]
}

fn offset() -> impl Strategy<Value = usize> {
    prop_oneof![
        3 => Just(0_usize),
        6 => 0_usize..4000,
        2 => 65_000_usize..66_000,
        1 => 130_000_usize..140_000,
    ]
}

fn any_index() -> impl Strategy<Value = usize> {
    0_usize..1000
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        5 => Just(Mode::Replace),
        1 => Just(Mode::NoReplace),
        2 => Just(Mode::Exchange),
    ]
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let i = any_index;
    prop_oneof![
        8 => (i(), i(), size(), any::<bool>())
            .prop_map(|(dir, name, size, exec)| Op::Create { dir, name, size, exec }),
        6 => (i(), offset(), size(), prop::bool::weighted(0.3))
            .prop_map(|(file, offset, size, truncate)| Op::Write { file, offset, size, truncate }),
        3 => (i(), size()).prop_map(|(file, size)| Op::Append { file, size }),
        3 => (i(), size()).prop_map(|(file, size)| Op::Truncate { file, size }),
        6 => (i(), i()).prop_map(|(dir, name)| Op::Mkdir { dir, name }),
        1 => (i(), i(), i()).prop_map(|(dir, name, target)| Op::Symlink { dir, name, target }),
        4 => i().prop_map(|entry| Op::Rmdir { entry }),
        5 => i().prop_map(|entry| Op::Unlink { entry }),
        12 => (i(), i(), i(), mode())
            .prop_map(|(entry, dir, name, mode)| Op::Rename { entry, dir, name, mode }),
        2 => (i(), any::<bool>()).prop_map(|(file, exec)| Op::Chmod { file, exec }),
        2 => (i(), 1_i64..2_000_000_000, prop_oneof![Just(0), 0_u32..1_000_000_000])
            .prop_map(|(entry, secs, nanos)| Op::Touch { entry, secs, nanos }),
        4 => (i(), any::<bool>()).prop_map(|(file, write)| Op::Open { file, write }),
        5 => (i(), offset(), size())
            .prop_map(|(handle, offset, size)| Op::WriteTo { handle, offset, size }),
        2 => i().prop_map(|handle| Op::ReadFrom { handle }),
        1 => i().prop_map(|handle| Op::Sync { handle }),
        4 => i().prop_map(|handle| Op::Close { handle }),
        1 => Just(Op::SyncDir),
    ]
}

fn theirs() -> impl Strategy<Value = Theirs> {
    let i = any_index;
    prop_oneof![
        3 => (i(), i(), 0_usize..2000)
            .prop_map(|(dir, name, size)| Theirs::File { dir, name, size }),
        2 => (i(), i()).prop_map(|(dir, name)| Theirs::Folder { dir, name }),
        2 => (i(), i()).prop_map(|(entry, name)| Theirs::Rename { entry, name }),
        2 => (i(), i()).prop_map(|(entry, dir)| Theirs::Move { entry, dir }),
        2 => (i(), 0_usize..2000).prop_map(|(file, size)| Theirs::Overwrite { file, size }),
        2 => (i(), any::<bool>()).prop_map(|(entry, for_good)| Theirs::Delete { entry, for_good }),
    ]
}

/// Which kinds of steps a run has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mix {
    pub(crate) theirs: bool,
    pub(crate) ends: bool,
}

pub(crate) fn steps(length: usize, mix: Mix) -> impl Strategy<Value = Vec<Step>> {
    let theirs_weight = u32::from(mix.theirs) * 6;
    let ends_weight = u32::from(mix.ends);
    let step = prop_oneof![
        60 => op().prop_map(Step::Ours),
        theirs_weight.max(1) => prop::collection::vec(theirs(), 1..4).prop_map(move |list| {
            if mix.theirs { Step::Theirs(list) } else { Step::Settle }
        }),
        2 => Just(Step::Settle),
        ends_weight.max(1) => any::<bool>().prop_map(move |orderly| match (mix.ends, orderly) {
            (false, _) => Step::Settle,
            (true, true) => Step::Remount,
            (true, false) => Step::Crash,
        }),
    ];
    prop::collection::vec(step, length..=length)
}
