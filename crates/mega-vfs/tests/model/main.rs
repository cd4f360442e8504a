//! The proof of the write side: the same random operations on a reference that is obviously right and
//! on the file system, with another client, remounts and crashes in between.
//!
//! Environment: `MODEL_SEED` (a number; the default run has fixed ones), `MODEL_CASES` (seeds per
//! test), `MODEL_STEPS` (steps per case), `MODEL_SHRINK` (seconds to look for a shorter list that fails
//! too), `MODEL_LOG` (say what the file system does). `scripts/model` sets them. A failure prints its
//! seed and the list of steps.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod crash;
mod driver;
mod found;
mod matrix;
mod ops;
mod reference;
mod script;
mod world;

use std::time::{Duration, Instant};

use mega_vfs::VfsConfig;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::driver::Driver;
use crate::ops::{Mix, Regime, Step};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// One list of steps on a new account; how many were done, or what went wrong.
fn attempt(regime: Regime, write_back: Duration, steps: &[Step]) -> Result<u64, String> {
    let config = VfsConfig {
        write_back,
        timeout: Duration::from_secs(20),
        ..VfsConfig::default()
    };
    let mut driver = Driver::new(regime, config);
    driver.run(steps)?;
    Ok(driver.done)
}

/// Takes out of a failing list whatever it fails without.
fn shrink(mut steps: Vec<Step>, fails: impl Fn(&[Step]) -> Option<String>) -> (Vec<Step>, String) {
    let deadline = Instant::now() + Duration::from_secs(number("MODEL_SHRINK").unwrap_or(60));
    let mut reason = String::from("not seen again: it depends on time");
    let mut size = steps.len().div_ceil(2);
    loop {
        let mut at = 0;
        let mut is_shorter = false;
        while at < steps.len() && Instant::now() < deadline {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(fewer.len()));
            match fails(&fewer) {
                Some(why) => {
                    steps = fewer;
                    reason = why;
                    is_shorter = true;
                }
                None => at += size,
            }
        }
        if Instant::now() > deadline || (size == 1 && !is_shorter) {
            return (steps, reason);
        }
        size = if size == 1 { 1 } else { size.div_ceil(2) };
    }
}

fn run(name: &str, regime: Regime, mix: Mix, write_back: Duration) {
    let cases = number("MODEL_CASES").unwrap_or(4);
    let first = number("MODEL_SEED").unwrap_or(1);
    let length = usize::try_from(number("MODEL_STEPS").unwrap_or(120)).unwrap();
    let mut done = 0;
    for seed in first..first + cases {
        eprintln!("{name}: MODEL_SEED={seed}, {length} steps");
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let steps = ops::steps(length, mix)
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let fails = |steps: &[Step]| attempt(regime, write_back, steps).err();
        match attempt(regime, write_back, &steps) {
            Ok(count) => done += count,
            Err(first_reason) => {
                eprintln!("{name}: MODEL_SEED={seed}: {first_reason}");
                let (steps, reason) = shrink(steps, fails);
                let list: String = steps.iter().map(|step| format!("  {step:?},\n")).collect();
                panic!(
                    "{name}: MODEL_SEED={seed} MODEL_STEPS={length}: {first_reason}\n\
                     {} steps do it: {reason}\n{list}",
                    steps.len()
                );
            }
        }
    }
    eprintln!("{name}: {done} operations in {cases} cases");
}

const LOCAL: Mix = Mix {
    theirs: false,
    ends: false,
};
const ENDS: Mix = Mix {
    theirs: false,
    ends: true,
};
const THEIRS: Mix = Mix {
    theirs: true,
    ends: false,
};
const ALL: Mix = Mix {
    theirs: true,
    ends: true,
};

#[test]
fn model_local_changes_pushed_at_once() {
    run("pushed at once", Regime::Running, LOCAL, Duration::ZERO);
}

#[test]
fn model_local_changes_pushed_later() {
    run("pushed later", Regime::Held, LOCAL, Duration::ZERO);
}

#[test]
fn model_remounts_and_crashes_while_pushing() {
    let delay = Duration::from_millis(20);
    run("ends while pushing", Regime::Running, ENDS, delay);
}

#[test]
fn model_remounts_and_crashes_with_a_full_queue() {
    run("ends with a queue", Regime::Held, ENDS, Duration::ZERO);
}

#[test]
fn model_another_client_between_pushes() {
    run("another client", Regime::Running, THEIRS, Duration::ZERO);
}

#[test]
fn model_another_client_meets_local_changes() {
    run("conflicts", Regime::Held, THEIRS, Duration::ZERO);
}

#[test]
fn model_everything_while_pushing() {
    run("everything, pushing", Regime::Running, ALL, Duration::ZERO);
}

#[test]
fn model_everything_with_a_queue() {
    run("everything, queued", Regime::Held, ALL, Duration::ZERO);
}
