//! `login`, `logout`, `whoami`, and what is said when Mega refuses.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::os::unix::fs::PermissionsExt;

use mega_emulator::{AccountSpec, FaultAction, FaultRule, Fixture};
use megamount_tests::{PASSWORD, USER, World, done, fails, wait_until};
use serde_json::Value;

/// A world whose remote is another account.
fn world_of(spec: AccountSpec, password: &str) -> World {
    let world = World::new();
    world.expect_logins(9);
    let user = spec.email.clone();
    world.emulator.add_account(spec);
    std::fs::write(world.path("password"), password).unwrap();
    let password = world.path("password");
    world.configure(&format!(
        "[remote.remote]\nuser = \"{user}\"\npass-file = \"{}\"\n",
        password.display()
    ));
    world
}

#[test]
fn a_session_is_made_kept_shown_and_ended() {
    let world = World::with(&[Fixture::file("/f", "x", 1_714_564_800)]);
    world.expect_logins(2);
    let text = fails(&world, &["whoami", "remote:"], 4);
    assert!(text.contains("'megamount login remote:'"), "{text}");
    let text = done(&world, &["login", "remote:"]);
    let file = world.state().join("session");
    let expected = format!(
        "Logged in as {USER}. The session is kept in {}.\n",
        file.display()
    );
    assert_eq!(text, expected);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let expected = format!("Logged in already as {USER}.\n");
    assert_eq!(done(&world, &["login", "remote"]), expected);
    let who: Value = serde_json::from_str(&done(&world, &["whoami", "--json", "remote:"])).unwrap();
    assert_eq!(
        (&who["user"], &who["valid"]),
        (&USER.into(), &true.into()),
        "{who}"
    );
    // Commands and mounts use it; the password is not needed any more.
    world.configure(&format!("[remote.remote]\nuser = \"{USER}\"\n"));
    assert_eq!(done(&world, &["ls", "remote:"]), "        1 f\n");
    let mount = world.mount();
    assert!(done(&world, &["whoami", "remote:"]).contains("Session: valid"));
    assert_eq!(done(&world, &["login", "remote:"]), expected);
    let text = fails(&world, &["logout", "remote:"], 6);
    assert!(text.contains("'remote:' is in use"), "{text}");
    mount.unmount();
    assert_eq!(world.emulator.counters().logins, 1);
    assert_eq!(
        done(&world, &["logout", "remote:"]),
        "Logged out of 'remote:'.\n"
    );
    assert!(!file.exists());
    assert_eq!(
        world.emulator.counters().commands("sml"),
        1,
        "Mega was told"
    );
    assert!(done(&world, &["logout", "remote:"]).contains("no session"));
    let text = fails(&world, &["ls", "remote:"], 4);
    assert!(text.contains("no password is known"), "{text}");
}

#[test]
fn a_session_that_ended_is_told_and_made_anew() {
    let world = World::new();
    world.expect_logins(3);
    done(&world, &["login", "remote:"]);
    world.emulator.end_sessions(Some(USER));
    let text = fails(&world, &["whoami", "remote:"], 4);
    assert!(text.contains("has ended"), "{text}");
    let text = done(&world, &["login", "remote:"]);
    assert!(
        text.contains("logging in again") && text.contains("Logged in as"),
        "{text}"
    );
}

#[test]
fn refused_logins_have_to_wait() {
    let world = World::new();
    world.expect_logins(9);
    std::fs::write(world.path("password"), "wrong").unwrap();
    for _ in 0..3 {
        let text = fails(&world, &["login", "remote:"], 4);
        assert!(
            text.contains("the e-mail address or the password is wrong"),
            "{text}"
        );
    }
    let asked = world.emulator.counters().commands("us");
    assert_eq!(asked, 3);
    // Mounts count too, and whoever tries again and again asks Mega nothing.
    for _ in 0..5 {
        let refusal = world.refused("remote:", &world.path("mnt"), &["-f"]);
        refusal.is(
            4,
            &["the last 3 logins", "has to wait 1 minutes", "--force"],
        );
        fails(&world, &["ls", "remote:"], 4);
    }
    assert_eq!(world.emulator.counters().commands("us"), asked);
    // Whoever knows better says so.
    std::fs::write(world.path("password"), PASSWORD).unwrap();
    fails(&world, &["login", "remote:"], 4);
    done(&world, &["login", "remote:", "--force"]);
    done(&world, &["logout", "remote:"]);
    std::fs::write(world.path("password"), "wrong").unwrap();
    let text = fails(&world, &["login", "remote:"], 4);
    assert!(
        text.contains("password is wrong"),
        "the count begins anew: {text}"
    );
}

#[test]
fn no_network_is_no_refusal() {
    let world = World::new();
    let nowhere = [
        "login",
        "remote:",
        "--api-url",
        "http://127.0.0.1:9",
        "--timeout",
        "300ms",
    ];
    for _ in 0..5 {
        let text = fails(&world, &nowhere, 5);
        assert!(text.contains("cannot reach Mega"), "{text}");
    }
    done(&world, &["login", "remote:"]);
    for place in ["cs", "sc", "wsc"] {
        let rule = FaultRule::new(place, FaultAction::Reset);
        world.emulator.faults().add(rule);
    }
    let text = done(&world, &["whoami", "remote:", "--timeout", "300ms"]);
    assert!(text.contains("not checked"), "{text}");
    let text = fails(&world, &["logout", "remote:", "--timeout", "300ms"], 5);
    assert!(text.contains("cannot reach Mega"), "{text}");
    let text = done(&world, &["logout", "--local", "remote:"]);
    assert!(text.contains("forgotten here"), "{text}");
}

#[test]
fn no_network_when_the_session_ends_is_no_refusal() {
    let world = World::new();
    world.expect_logins(2);
    let mount = world.mount_with("remote:", &["--timeout", "300ms"]);
    let cut = FaultRule::new("cmd:us0", FaultAction::Reset);
    let cut = world.emulator.faults().add(cut);
    world.emulator.end_sessions(Some(USER));
    let again = "the session has ended, logging in again";
    wait_until("logins have failed", || {
        world.command(&["about", "remote:"]);
        mount.log().matches(again).count() > 4
    });
    world.emulator.faults().remove(cut);
    wait_until("a login has succeeded", || {
        world.command(&["about", "remote:"]).code == 0
    });
    assert!(!mount.log().contains("cannot log in again"));
    mount.unmount();
}

#[test]
fn refusals_are_told_apart() {
    let account = || AccountSpec::new("you@example.com", "secret");
    let told = |spec: AccountSpec, password: &str, code| {
        let world = world_of(spec, password);
        fails(&world, &["ls", "remote:"], code)
    };
    let spec = AccountSpec {
        unconfirmed: true,
        ..account()
    };
    assert!(told(spec, "secret", 4).contains("is not confirmed yet"));
    let spec = AccountSpec {
        blocked: 200,
        ..account()
    };
    let text = told(spec, "secret", 4);
    assert!(
        text.contains("has blocked the account you@example.com for copyright reasons"),
        "{text}"
    );
    let spec = AccountSpec {
        totp_secret: Some("JBSWY3DPEHPK3PXP".to_owned()),
        ..account()
    };
    let text = told(spec.clone(), "secret", 4);
    assert!(text.contains("has two-factor authentication"), "{text}");
    let world = world_of(spec, "secret");
    let text = std::fs::read_to_string(world.config()).unwrap();
    world.configure(&(text + "totp-command = \"echo 000000\"\n"));
    let text = fails(&world, &["login", "remote:"], 4);
    assert!(
        text.contains("does not accept the two-factor code"),
        "{text}"
    );
    assert!(text.contains("clock"), "{text}");
    let spec = AccountSpec {
        version: 1,
        ..account()
    };
    let text = told(spec, "s\u{e9}cret", 4);
    assert!(text.contains("letters beyond ASCII"), "{text}");
    let world = world_of(account(), "secret");
    let unknown = FaultRule::new("cmd:us0", FaultAction::CommandError { code: -9 });
    world.emulator.faults().add(unknown);
    let text = fails(&world, &["login", "remote:"], 4);
    assert!(
        text.contains("Mega knows no account you@example.com"),
        "{text}"
    );
}

#[test]
fn an_account_that_is_blocked_later_is_told() {
    let world = World::new();
    done(&world, &["ls", "remote:"]);
    world.emulator.set_account(USER, None, Some(700));
    let text = fails(&world, &["about", "remote:"], 4);
    assert!(text.contains("blocked"), "{text}");
}

#[test]
fn mistakes_are_explained() {
    let world = World::new();
    let text = fails(&world, &["login"], 1);
    assert!(text.contains("<REMOTE:>"), "{text}");
    let text = fails(&world, &["login", "remotr"], 3);
    assert!(text.contains("there is no remote 'remotr'"), "{text}");
    let text = fails(&world, &["whoami", "demo:"], 1);
    assert!(text.contains("has no session"), "{text}");
}
