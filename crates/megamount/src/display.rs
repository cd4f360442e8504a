//! How mounts are shown to people: a report as text (`text`), one line of it (`lines`), and progress
//! bars that follow it (`Bars`).
//!
//! Names come from whoever can share a folder with the user: nothing of them reaches the terminal
//! that is not printable.

mod bars;
mod copy_bars;
mod text;

pub(crate) use bars::{Bars, Spinner, Terminal, WorkBar};
pub(crate) use copy_bars::{CopyBar, CopyBars};
pub(crate) use text::{lines, printable, text};
