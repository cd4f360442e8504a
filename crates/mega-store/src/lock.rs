//! One process per state directory (I9): an flock that names its holder.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Who has a state directory, for the message of the second start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// Its process id.
    pub pid: u32,
    /// What it serves.
    pub mountpoint: PathBuf,
}
