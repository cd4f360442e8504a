//! The systemd units as systemd reads them.

use std::path::Path;
use std::process::Command;

fn verify(unit: &str, scope: &str) {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../config/systemd")
        .join(unit);
    assert!(unit.exists());
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("skipped: no systemd-analyze (apt install systemd)");
        return;
    }
    let runtime = tempfile::tempdir().unwrap();
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", scope])
        .arg(unit)
        .env("XDG_RUNTIME_DIR", runtime.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("megamount"), "no warnings: {text}");
}

#[test]
fn the_unit_of_the_system_is_valid() {
    verify("system/megamount@.service", "--system");
}

#[test]
fn the_unit_of_users_is_valid() {
    verify("user/megamount@.service", "--user");
}
