//! A faithful, strict Mega server in this process, for tests and for trying the mount without an
//! account. Written from the protocol description alone; it shares no code with the client crates,
//! so that two mirrored mistakes cannot agree. What it checks and which knobs it has: README.

#![allow(
    clippy::disallowed_methods,
    reason = "a test peer; it shares no code with the store"
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

mod account;
mod account_keys;
mod buffers;
mod change;
mod codec;
mod commands;
mod config;
mod content;
mod control;
mod counters;
mod crypto;
mod cs;
mod events;
mod faults;
mod fixture;
mod generated;
mod http;
mod inspect;
mod journal;
mod router;
mod rsa;
#[cfg(test)]
mod selftest;
mod server;
mod state;
mod storage;
mod strict;
mod tree;
mod view;

pub use account::AccountSpec;
pub use config::{EmulatorConfig, EmulatorError, Knobs};
pub use counters::Counters;
pub use faults::{FaultAction, FaultControl, FaultRule};
pub use fixture::{Brokenness, Fixture, FixtureContent, KeyForm, pattern};
pub use inspect::PlainNode;
pub use server::Emulator;
