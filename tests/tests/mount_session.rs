//! One login per device.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use mega_emulator::{Fixture, FixtureContent};
use megamount_tests::{USER, World};

#[test]
fn a_second_start_sends_no_login() {
    let world = World::with(&[Fixture::file("/f", "x", 1_600_000_000)]);
    world.mount().unmount();
    assert_eq!(world.emulator.counters().logins, 1);
    // The password is not even known any more.
    world.configure(&format!("[remote.remote]\nuser = \"{USER}\"\n"));
    let mount = world.mount();
    assert_eq!(mount.read("f"), b"x");
    mount.kill_9();
    world.mount().unmount();
    let counters = world.emulator.counters();
    assert_eq!((counters.logins, counters.commands("us0")), (1, 1));
}

#[test]
fn a_dead_session_is_renewed_once() {
    let world = World::with(&[Fixture::file("/f", "x", 1_600_000_000)]);
    world.expect_logins(2);
    let mount = world.mount();
    world.emulator.end_sessions(Some(USER));
    assert_eq!(mount.read("f"), b"x");
    mount.write("new", "y");
    mount.unmount();
    assert_eq!(world.content("/new").unwrap(), b"y");
    assert_eq!(world.emulator.counters().logins, 2);
    world.mount().unmount();
    assert_eq!(world.emulator.counters().logins, 2);
}

#[test]
fn keys_wrapped_by_rsa_open_at_every_start() {
    let world = World::with(&[Fixture::RsaKey {
        path: "/wrapped".into(),
        content: FixtureContent::Text("content".into()),
    }]);
    for _ in 0..2 {
        let mount = world.mount();
        assert_eq!(mount.names(""), ["wrapped"]);
        assert_eq!(mount.read("wrapped"), b"content");
        mount.unmount();
    }
    assert_eq!(world.emulator.counters().commands("ug"), 0);
}

#[test]
fn a_session_in_the_keyring_is_used_again() {
    let world = World::with(&[Fixture::file("/f", "x", 1_600_000_000)]);
    let session = world.state().join("session");
    let options = ["--session-store", "keyring"];
    let login = world.command(&["login", "remote:", "--session-store", "keyring"]);
    if login.errors.contains("keyring cannot be used") {
        eprintln!("skipped: {}", login.errors);
        assert_eq!(login.code, 6);
        return;
    }
    assert_eq!(login.code, 0, "{}", login.errors);
    // The password is not even known any more.
    world.configure(&format!("[remote.remote]\nuser = \"{USER}\"\n"));
    let mount = world.mount_with("remote:", &options);
    assert_eq!(mount.read("f"), b"x");
    assert!(!session.exists());
    mount.kill_9();
    let mount = world.mount_with("remote:", &options);
    assert_eq!(mount.read("f"), b"x");
    mount.unmount();
    assert_eq!(world.emulator.counters().logins, 1);
    let logout = world.command(&["logout", "remote:", "--session-store", "keyring"]);
    assert_eq!(logout.code, 0, "{}", logout.errors);
    let who = world.command(&["whoami", "remote:", "--session-store", "keyring"]);
    assert!(who.errors.contains("there is no session"), "{who:?}");
}

/// As systemd starts a service, with a session keyring of its own.
#[test]
fn a_session_in_the_keyring_is_used_by_services() {
    let world = World::with(&[Fixture::file("/f", "x", 1_600_000_000)]);
    let as_service = |args: &[&str]| {
        let mut service = world.program_below(&["keyctl", "session", "-"]);
        let output = service
            .args(args)
            .args(["--session-store", "keyring"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (
            output.status.code(),
            said + &String::from_utf8_lossy(&output.stdout),
        )
    };
    let option = ["--session-store", "keyring"];
    let by_user = world.command(&["login", "remote:", option[0], option[1]]);
    if by_user.errors.contains("keyring cannot be used") {
        eprintln!("skipped: {}", by_user.errors);
        return;
    }
    assert_eq!(by_user.code, 0, "{}", by_user.errors);
    let ended = world.command(&["logout", "remote:", option[0], option[1]]);
    assert_eq!(ended.code, 0, "{}", ended.errors);
    world.expect_logins(2);
    let (code, said) = as_service(&["login", "remote:"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("kept in the kernel's keyring"), "{said}");
    // Another service, and the user.
    let (code, said) = as_service(&["whoami", "remote:"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("kept in the kernel's keyring"), "{said}");
    let mount = world.mount_with("remote:", &["--session-store", "keyring"]);
    assert_eq!(mount.read("f"), b"x");
    // It is told where the mount keeps it.
    let who = world.command(&["whoami", "remote:"]);
    assert!(who.text.contains("kept in the kernel's keyring"), "{who:?}");
    mount.unmount();
    assert_eq!(world.emulator.counters().logins, 2);
    let (code, said) = as_service(&["logout", "remote:"]);
    assert_eq!(code, Some(0), "{said}");
    let (_, said) = as_service(&["whoami", "remote:"]);
    assert!(said.contains("there is no session"), "{said}");
}
