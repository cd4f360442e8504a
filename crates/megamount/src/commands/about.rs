//! `about`: storage of an account, as rclone prints it.

use serde::Serialize;

use super::list_json::{json, unprintable};
use super::say;
use crate::cli::AboutCommand;
use crate::config::RemoteSpec;
use crate::control::files::{FileAsk, FileReply};
use crate::exit;
use crate::failure::Failure;
use crate::mount::{Account, Need};

/// Storage, in rclone's order.
#[derive(Debug, Serialize)]
struct Space {
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    used: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    free: Option<u64>,
}

/// Runs the command.
pub(crate) fn about(command: &AboutCommand) -> Result<u8, Failure> {
    let spec: RemoteSpec = command.place.parse()?;
    let account = Account::open_own(&spec.name, &command.account, Need::Look)?;
    let mut link = account.link()?;
    link.ask_files(FileAsk::Space)?;
    let FileReply::Space { total, used } = link.file_reply()? else {
        return Err(Failure::DaemonGone);
    };
    let free = total.map(|total| total.saturating_sub(used));
    if command.json {
        let space = Space { total, used, free };
        say(&(json(&space).map_err(unprintable)? + "\n"));
        return Ok(exit::DONE);
    }
    let mut text = String::new();
    for (label, bytes) in [("Total:", total), ("Used:", Some(used)), ("Free:", free)] {
        if let Some(bytes) = bytes {
            let bytes = if command.full {
                bytes.to_string()
            } else {
                rounded(bytes)
            };
            text += &format!("{label:8} {bytes}\n");
        }
    }
    say(&text);
    Ok(exit::DONE)
}

/// `20 GiB`, `1.500 MiB`, `7 B`: three decimals where it is not a whole number.
pub(super) fn rounded(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut found = (1_u64, "B");
    for (power, unit) in (1..).zip(UNITS) {
        let size = 1_u64 << (10 * power);
        if bytes >= size {
            found = (size, unit);
        }
    }
    let (size, unit) = found;
    if bytes.is_multiple_of(size) {
        return format!("{} {unit}", bytes / size);
    }
    #[expect(clippy::cast_precision_loss, reason = "three decimals are shown")]
    let shown = bytes as f64 / size as f64;
    format!("{shown:.3} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_as_rclone_does() {
        assert_eq!(rounded(0), "0 B");
        assert_eq!(rounded(1023), "1023 B");
        assert_eq!(rounded(20 << 30), "20 GiB");
        assert_eq!(rounded(270_553_174_016), "251.972 GiB");
    }
}
