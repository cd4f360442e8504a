//! Parses a JSON file and keeps nothing of it: the limit for whoever parses a tree.
//!
//!     scan_json FILE
//!
//! Prints the seconds that parsing took, without reading the file. Used by `scripts/bench tree`.

use std::error::Error;
use std::time::Instant;

use serde::de::IgnoredAny;

#[expect(clippy::print_stdout, reason = "what it prints is all it is for")]
fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("a file is needed")?;
    let bytes = std::fs::read(path)?;
    let started = Instant::now();
    let IgnoredAny = serde_json::from_slice(&bytes)?;
    println!("{}", started.elapsed().as_secs_f64());
    Ok(())
}
