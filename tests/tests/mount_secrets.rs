//! What lies on the disk and in the logs.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use mega_emulator::Fixture;
use megamount_tests::{PASSWORD, USER, World, sh};

/// An account in use: content read into the cache, and content that waits for its upload.
fn used() -> World {
    let world = World::with(&[Fixture::file(
        "/NameOnTheServer",
        "ContentOnTheServer",
        1_600_000_000,
    )]);
    let options = [
        "--write-back",
        "10m",
        "--log-level",
        "trace",
        "--mega-debug",
    ];
    let mount = world.mount_with("remote:", &options);
    assert_eq!(mount.read("NameOnTheServer"), b"ContentOnTheServer");
    mount.sh("mkdir LocalFolder; echo ContentWrittenHere >LocalFolder/NameWrittenHere; sync");
    std::fs::write(world.path("log"), mount.log()).unwrap();
    mount.kill_9();
    world
}

#[test]
fn nothing_on_disk_is_readable() {
    let world = used();
    for secret in [
        "NameOnTheServer",
        "ContentOnTheServer",
        "LocalFolder",
        "ContentWrittenHere",
        "NameWrittenHere",
        PASSWORD,
    ] {
        let found = sh(
            &world.path(""),
            &format!("grep -rlaF -- '{secret}' state cache || true"),
        );
        assert_eq!(found, "", "{secret}");
    }
}

#[test]
fn modes_are_private() {
    let world = used();
    let open = sh(
        &world.path(""),
        "find state/megamount cache/megamount -perm /077 -printf '%m %P\\n'",
    );
    assert_eq!(open, "");
}

#[test]
fn logs_hold_no_secret() {
    let world = used();
    let log = std::fs::read_to_string(world.path("log")).unwrap();
    assert!(
        log.contains("mega_api::wire") && log.contains(r#""a":"us""#),
        "{log}"
    );
    let session = std::fs::read_to_string(world.state().join("session")).unwrap();
    let kept: Vec<_> = session
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_')
        .filter(|word| word.len() > 15)
        .collect();
    assert!(!kept.is_empty(), "{session}");
    for secret in kept {
        assert!(!log.contains(secret), "{secret} in the log");
    }
    let master_key = world.emulator.master_key(USER).unwrap();
    for secret in [
        "ContentOnTheServer",
        "ContentWrittenHere",
        PASSWORD,
        &master_key,
        "sid=",
    ] {
        assert!(!log.contains(secret), "{secret} in the log");
    }
}
