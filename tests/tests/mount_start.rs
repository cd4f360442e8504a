//! Starting and ending: refusals with an exit code and the next step, the background, signals.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::os::unix::fs::PermissionsExt;

use mega_emulator::{FaultAction, FaultRule, Fixture};
use megamount_tests::{Mount, World, sh};

#[test]
fn paths_that_cannot_be_mounted_are_refused() {
    let world = World::with(&[Fixture::file("/d/f", "x", 1_600_000_000)]);
    let mountpoint = world.path("mnt");
    for background in [&["-f"][..], &[]] {
        let refusal = world.refused("remote:no/such", &mountpoint, background);
        refusal.is(
            3,
            &["no folder 'no/such' on 'remote:'", "Mount 'remote:' to see"],
        );
        let refusal = world.refused("remote:d/f", &mountpoint, background);
        refusal.is(1, &["is a file", "Mount the folder it is in"]);
    }
    world
        .refused("unknown:", &mountpoint, &["-f"])
        .is(3, &["no remote 'unknown'", "'remote:'"]);
    assert_eq!(sh(&world.path(""), "findmnt -no TARGET mnt || true"), "");
}

#[test]
fn mountpoints_that_cannot_be_used_are_refused() {
    let world = World::with(&[Fixture::file("/f", "x", 1_600_000_000)]);
    let at = |name: &str| world.refused("remote:", &world.path(name), &["-f"]);
    at("missing").is(1, &["does not exist", "mkdir -p"]);
    at("config").is(1, &["not empty", "Choose an empty directory"]);
    at("password").is(1, &["not a directory"]);
    let mount = world.mount();
    at("mnt").is(1, &["mounted", "fusermount3 -u"]);
    at("mnt2").is(6, &["in use already", &mount.id().to_string()]);
    assert_eq!(mount.read("f"), b"x");
    mount.unmount();
}

#[test]
fn logins_that_fail_are_refused() {
    let world = World::new();
    let mountpoint = world.path("mnt");
    std::fs::write(world.path("password"), "wrong").unwrap();
    world
        .refused("remote:", &mountpoint, &["-f"])
        .is(4, &["does not accept the login", "correct the remote"]);
    // A port where nobody listens.
    let options = ["-f", "--api-url", "http://127.0.0.1:9", "--timeout", "2s"];
    world
        .refused("remote:", &mountpoint, &options)
        .is(5, &["cannot reach Mega", "Check the network"]);
}

#[test]
fn a_configuration_that_others_can_read_is_refused() {
    let world = World::new();
    world.configure(
        "[remote.remote]\nuser = \"a@b.c\"\npass = \"AAAAAAAAAAAAAAAAAAAAADS03QMhkA\"\n",
    );
    std::fs::set_permissions(world.config(), PermissionsExt::from_mode(0o644)).unwrap();
    world
        .refused("remote:", &world.path("mnt"), &["-f"])
        .is(1, &["open to other users", "chmod 600"]);
    assert_eq!(world.emulator.counters().connections, 0);
}

#[test]
fn in_the_background_the_command_returns_when_the_mount_answers() {
    let world = World::with(&[Fixture::file("/f", "x", 1_600_000_000)]);
    let mut command = world.program();
    let output = command
        .arg("remote:")
        .arg(world.path("mnt"))
        .output()
        .unwrap();
    // The lock names its holder: {"pid":4242,"mountpoint":"/mnt/mega"}.
    let lock = std::fs::read_to_string(world.state().join("lock")).unwrap();
    let digits = lock.split("\"pid\":").nth(1).unwrap().chars();
    let pid: String = digits.take_while(char::is_ascii_digit).collect();
    let mount = Mount::background(&world, pid.parse().unwrap(), &world.path("mnt"));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // At once, with no waiting.
    assert_eq!(mount.read("f"), b"x");
    mount.write("new", "y");
    mount.unmount();
    assert_eq!(world.content("/new").unwrap(), b"y");
}

#[test]
fn a_signal_ends_it_and_the_queue_is_kept() {
    let world = World::new();
    let rule = world.emulator.faults().add(FaultRule::new(
        "ul",
        FaultAction::Status {
            code: 500,
            headers: vec![],
            text: String::new(),
        },
    ));
    let mut mount = world.mount_with("remote:", &["--drain", "500ms"]);
    mount.write("f", "kept");
    let path = mount.path("");
    mount.signal_term();
    assert!(mount.message().starts_with("STOPPING=1\n"));
    assert_eq!(mount.wait_for_end(), 10, "work left");
    assert!(
        std::fs::read_dir(path).unwrap().next().is_none(),
        "unmounted"
    );
    assert_eq!(world.paths(), Vec::<String>::new());
    world.emulator.faults().remove(rule);
    let mount = world.mount();
    assert_eq!(mount.read("f"), b"kept");
    assert_eq!(mount.terminate(), 0);
    assert_eq!(world.content("/f").unwrap(), b"kept");
}
