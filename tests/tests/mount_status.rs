//! What the commands tell of a mount that is up, and what they do to it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use mega_emulator::{FaultAction, FaultRule, Fixture, pattern};
use megamount_tests::{Mount, World, wait_until};
use serde_json::Value;

/// A write-back delay that no test waits for.
const PATIENT: [&str; 2] = ["--write-back", "1h"];

fn mounts(world: &World, args: &[&str]) -> (i32, Vec<Value>) {
    let answer = world.command(&[&["status", "--json"], args].concat());
    let document: Value = serde_json::from_str(&answer.text).unwrap_or_else(|error| {
        panic!("{error}: {answer:?}");
    });
    assert_eq!(document["version"], 1);
    (answer.code, document["mounts"].as_array().unwrap().clone())
}

fn report(world: &World) -> Value {
    mounts(world, &["remote:"]).1.remove(0)
}

fn socket(world: &World) -> PathBuf {
    let mut sockets = std::fs::read_dir(world.path("run/megamount")).unwrap();
    let socket = sockets.next().unwrap().unwrap().path();
    assert!(sockets.next().is_none());
    socket
}

/// Writes a file whose upload is refused until it is parked; the rule that refuses.
fn park(world: &World, mount: &Mount<'_>, name: &str, content: &str) -> u64 {
    let refusal = FaultAction::CommandError { code: -11 };
    let rule = FaultRule::new("cmd:u", refusal);
    let rule = world.emulator.faults().add(rule);
    mount.write(name, content);
    wait_until("the change is parked", || {
        // Without the pauses between the attempts.
        world.command(&["retry", "remote:"]);
        report(world)["queue"]["failed"] == 1
    });
    rule
}

#[test]
fn status_tells_what_is_not_on_mega() {
    let world = World::with(&[Fixture::file("/old", "12345", 1_600_000_000)]);
    let mount = world.mount_with("remote:", &PATIENT);
    let (code, found) = mounts(&world, &[]);
    assert_eq!((code, found.len()), (0, 1), "{found:?}");
    assert_eq!(found[0]["safe"], true);
    assert_eq!(found[0]["remote"], "remote");
    assert_eq!(found[0]["mountpoint"], mount.path("").to_str().unwrap());
    assert_eq!(found[0]["pid"], mount.id());
    mount.sh("mkdir d; echo new >d/f; echo changed >old; rm -f none");
    let place = mount.path("d/f");
    let (code, found) = mounts(&world, &[place.to_str().unwrap()]);
    assert_eq!(code, 10, "work left");
    let changes = found[0]["changes"].as_array().unwrap();
    let change = |path: &str| {
        changes
            .iter()
            .find(|change| change["path"] == path)
            .unwrap()
    };
    assert_eq!(change("d/f")["change"], "new-file");
    assert_eq!(change("d/f")["size"], 4);
    assert_eq!(change("d/f")["state"], "waiting");
    assert_eq!(change("old")["change"], "content");
    assert!(found[0]["queue"]["bytes"].as_u64().unwrap() >= 12);
    wait_until("the quota is known", || {
        report(&world)["quota"]["total"].is_u64()
    });
    let answer = world.command(&["status", "remote:"]);
    assert_eq!(answer.code, 10);
    for part in ["remote: at ", "d/f", "Waiting", "Switch off?  not yet"] {
        assert!(answer.text.contains(part), "no '{part}' in {}", answer.text);
    }
    let answer = world.command(&["flush", "remote:"]);
    assert_eq!((answer.code, answer.text.as_str()), (0, ""), "{answer:?}");
    assert_eq!(world.content("/d/f").unwrap(), b"new\n");
    assert_eq!(world.content("/old").unwrap(), b"changed\n");
    assert_eq!(world.command(&["status"]).code, 0);
    mount.unmount();
    let answer = world.command(&["status", "remote:"]);
    assert_eq!(answer.code, 3, "{answer:?}");
    assert!(answer.errors.contains("not mounted"), "{answer:?}");
}

#[test]
fn the_socket_is_private_and_goes_with_the_daemon() {
    let world = World::new();
    let mount = world.mount();
    let path = socket(&world);
    let mode = |path: &PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
    assert!(path.metadata().unwrap().file_type().is_socket());
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&world.path("run/megamount")), 0o700);
    mount.kill_9();
    assert!(path.exists(), "nobody could remove it");
    assert_eq!(
        mounts(&world, &[]),
        (0, Vec::new()),
        "a stale socket is nobody"
    );
    let mount = world.mount();
    assert_eq!(mounts(&world, &[]).1.len(), 1, "and is replaced");
    mount.unmount();
    assert!(!path.exists());
}

#[test]
fn nonsense_and_silence_cost_nobody_anything() {
    let world = World::new();
    let mount = world.mount();
    let path = socket(&world);
    let connect = || {
        let stream = UnixStream::connect(&path).unwrap();
        let patience = Some(Duration::from_secs(30));
        stream.set_read_timeout(patience).unwrap();
        stream
    };
    let silent: Vec<_> = (0..20).map(|_| connect()).collect();
    for garbage in [
        &b"\n"[..],
        b"hello\n",
        b"\xff\x00\xfe\n",
        b"{\"v\":1}\n",
        b"{\"v\":1,\"do\":\"status\",\"most\":-1}\n",
        b"{\"v\":99,\"do\":\"hello\"}\n",
    ] {
        let mut stream = connect();
        stream.write_all(garbage).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.contains(r#""is":"error""#), "{garbage:?}: {text}");
    }
    let mut endless = connect();
    let long = vec![b'x'; 1 << 20];
    // The daemon hangs up before it has read all of it.
    let _ = endless.write_all(&long);
    let mut rest = Vec::new();
    let _ = endless.read_to_end(&mut rest);
    assert!(rest.is_empty());
    assert_eq!(mounts(&world, &[]).1.len(), 1);
    drop(silent);
    mount.write("f", "x");
    mount.unmount();
}

#[test]
fn two_mounts_are_told_apart() {
    let world = World::new();
    let first = world.mount();
    let demo = world.mount_at("demo:", "mnt2", &[]);
    assert_eq!(mounts(&world, &[]).1.len(), 2);
    assert_eq!(mounts(&world, &["demo:"]).1[0]["remote"], "demo");
    let place = demo.path("");
    let (_, found) = mounts(&world, &[place.to_str().unwrap()]);
    assert_eq!(found[0]["pid"], demo.id());
    let answer = world.command(&["umount", "demo:"]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(mounts(&world, &[]).1.len(), 1);
    first.unmount();
}

#[test]
fn umount_uploads_first() {
    let world = World::new();
    let mut mount = world.mount_with("remote:", &PATIENT);
    mount.write("f", pattern(1, 0, 3_000_000));
    let answer = world.command(&["umount", mount.path("").to_str().unwrap()]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(world.content("/f").unwrap() == pattern(1, 0, 3_000_000));
    assert_eq!(mount.wait_for_end(), 0);
}

#[test]
fn umount_without_waiting_says_what_is_left() {
    let world = World::new();
    let mut mount = world.mount_with("remote:", &["--write-back", "1h", "--drain", "0s"]);
    world
        .emulator
        .faults()
        .add(FaultRule::new("cmd:u", FaultAction::Slow { ms: 30_000 }));
    mount.write("f", "x");
    let answer = world.command(&["umount", "--no-wait", "remote:"]);
    assert_eq!(answer.code, 10, "{answer:?}");
    assert!(
        answer.text.contains("1 change not on Mega yet"),
        "{answer:?}"
    );
    assert_eq!(mount.wait_for_end(), 10);
    world.emulator.faults().clear();
}

#[test]
fn umount_leaves_a_mount_alone_that_is_in_use() {
    let world = World::new();
    let mount = world.mount();
    let mut file = std::fs::File::create(mount.path("held")).unwrap();
    file.write_all(b"1").unwrap();
    let answer = world.command(&["umount", "remote:"]);
    assert_eq!(answer.code, 6, "{answer:?}");
    assert!(
        answer.errors.contains("'held' is still written"),
        "{answer:?}"
    );
    file.write_all(b"2").unwrap();
    let answer = world.command(&["flush", "remote:"]);
    assert_eq!(answer.code, 10, "{answer:?}");
    assert!(
        answer.text.contains("'held' is still written"),
        "{answer:?}"
    );
    drop(file);
    assert_eq!(world.command(&["umount", "remote:"]).code, 0);
    assert_eq!(world.content("/held").unwrap(), b"12");
}

#[test]
fn umount_gives_up_in_time() {
    let world = World::new();
    let mount = world.mount_with("remote:", &["--drain", "0s"]);
    let slow = FaultRule::new("cmd:u", FaultAction::Slow { ms: 30_000 });
    let slow = world.emulator.faults().add(slow);
    mount.write("f", "x");
    let answer = world.command(&["umount", "--timeout", "300ms", "remote:"]);
    assert_eq!(answer.code, 10, "{answer:?}");
    assert!(answer.text.contains("stays mounted"), "{answer:?}");
    assert_eq!(mount.read("f"), b"x");
    let answer = world.command(&["status", "--wait", "--timeout", "300ms", "remote:"]);
    assert_eq!(answer.code, 10, "{answer:?}");
    world.emulator.faults().remove(slow);
    assert_eq!(mount.unmount_code(), 10);
}

#[test]
fn progress_is_shown_while_it_lasts() {
    let world = World::new();
    let mount = world.mount_with("remote:", &["--drain", "0s"]);
    let stuck = FaultRule::new("ul", FaultAction::Slow { ms: 60_000 }).after(1);
    world.emulator.faults().add(stuck);
    mount.write("big", pattern(1, 0, 6 << 20));
    wait_until("a part is there", || {
        let change = &report(&world)["changes"][0];
        change["state"] == "uploading" && change["sent"].as_u64().unwrap() > 0
    });
    let state = mount.sh("getfattr --only-values -n user.mega.state big");
    let percent = state
        .strip_prefix("uploading ")
        .and_then(|s| s.strip_suffix('%'));
    let percent: u8 = percent
        .unwrap_or_else(|| panic!("{state}"))
        .parse()
        .unwrap();
    assert!((1..100).contains(&percent), "{state}");
    assert_eq!(mount.sh("getfattr -d -m - big"), "", "not listed");
    mount.sh_fails("setfattr -n user.mega.state -v x big");
    // On a terminal: a bar with the name and the size.
    let program = world.program();
    let program = program.get_program().to_str().unwrap();
    let run = world.path("run");
    let screen = world.path("screen");
    let script = format!(
        "XDG_RUNTIME_DIR='{}' TERM=xterm script -qfec \"stty cols 120; '{program}' status --wait \
         --timeout 1s remote:\" '{}' </dev/null >/dev/null || test $? = 10",
        run.display(),
        screen.display()
    );
    megamount_tests::sh(&world.path("out"), &script);
    let drawn = String::from_utf8_lossy(&std::fs::read(&screen).unwrap()).into_owned();
    for part in ["1 uploading", "big", "6.00 MiB"] {
        assert!(drawn.contains(part), "no '{part}' in {drawn:?}");
    }
    assert_eq!(mount.unmount_code(), 10);
    world.emulator.faults().clear();
}

#[test]
fn refused_changes_can_be_tried_again() {
    let world = World::new();
    let mount = world.mount_with("remote:", &["--drain", "0s"]);
    let rule = park(&world, &mount, "f", "precious");
    let answer = world.command(&["status", "remote:"]);
    assert_eq!(answer.code, 10);
    assert!(
        answer.text.contains("Refused      f  new file, 8 B: "),
        "{answer:?}"
    );
    assert!(answer.text.contains("access denied"), "{answer:?}");
    let state = mount.sh("getfattr --only-values -n user.mega.state f");
    assert!(
        state.starts_with("failed: ") && state.contains("access denied"),
        "{state}"
    );
    // Waiting does not help, and says so.
    assert_eq!(world.command(&["status", "--wait", "remote:"]).code, 10);
    let answer = world.command(&["flush", "remote:"]);
    assert_eq!(answer.code, 10, "{answer:?}");
    assert!(answer.text.contains("1 change refused"), "{answer:?}");
    world.emulator.faults().remove(rule);
    let answer = world.command(&["retry", "remote:", "none"]);
    assert_eq!(answer.code, 3, "{answer:?}");
    assert_eq!(world.command(&["retry", "remote:", "f"]).code, 0);
    assert_eq!(world.command(&["status", "--wait", "remote:"]).code, 0);
    mount.unmount();
    assert_eq!(world.content("/f").unwrap(), b"precious");
}

#[test]
fn refused_changes_can_be_saved_and_discarded() {
    let world = World::with(&[Fixture::file("/doc", "theirs", 1_600_000_000)]);
    let mount = world.mount_with("remote:", &["--drain", "0s"]);
    assert_eq!(mount.read("doc"), b"theirs");
    let rule = park(&world, &mount, "doc", "ours, precious");
    let path = mount.path("doc");
    let answer = world.command(&["export", "remote:", path.to_str().unwrap(), "saved"]);
    assert_eq!(answer.code, 0, "{answer:?}");
    let saved = world.path("out/saved");
    assert_eq!(std::fs::read(&saved).unwrap(), b"ours, precious");
    let answer = world.command(&["export", "remote:", "doc", "saved"]);
    assert_eq!(answer.code, 6, "never over a file: {answer:?}");
    let answer = world.command(&["discard", "remote:", "doc"]);
    assert_eq!(answer.code, 1, "nobody can be asked: {answer:?}");
    assert!(answer.errors.contains("--yes"), "{answer:?}");
    let answer = world.command(&["discard", "remote:", "doc", "--yes"]);
    assert_eq!((answer.code, answer.text.as_str()), (0, "Discarded: doc\n"));
    assert_eq!(mount.read("doc"), b"theirs", "the kernel was told");
    world.emulator.faults().remove(rule);
    assert_eq!(world.command(&["status"]).code, 0);
    mount.unmount();
    assert_eq!(world.content("/doc").unwrap(), b"theirs");
}

#[test]
fn a_full_account_refuses_writes() {
    let world = World::new();
    world
        .emulator
        .set_account(megamount_tests::USER, Some(1 << 20), None);
    let mount = world.mount_with("remote:", &PATIENT);
    wait_until("the quota is known", || {
        report(&world)["quota"]["total"] == 1 << 20
    });
    mount.write("a", vec![1; 600_000]);
    assert_eq!(
        mount.sh("df --output=avail -B4096 . | tail -1").trim(),
        "109"
    );
    let text = mount.sh_fails("head -c 600000 /dev/zero >b");
    assert!(text.contains("No space left"), "{text}");
    mount.sh("rm a b; head -c 600000 /dev/zero >b");
    assert_eq!(world.command(&["umount", "remote:"]).code, 0);
    assert_eq!(world.node("/b").unwrap().size, 600_000);
}

#[test]
fn the_end_in_the_foreground_shows_its_progress() {
    let world = World::new();
    let screen = world.path("screen");
    let program = world.program();
    let variables: Vec<_> = program
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}='{}'", name.to_str()?, value?.to_str()?)))
        .collect();
    let script = format!(
        "env -i PATH=\"$PATH\" TERM=xterm {} script -qfec \"stty cols 120; '{}' remote: '{}' -f --write-back 1h\" '{}' \
         </dev/null >/dev/null",
        variables.join(" "),
        program.get_program().to_str().unwrap(),
        world.path("mnt").display(),
        screen.display()
    );
    let out = world.path("out");
    let running = std::thread::spawn(move || megamount_tests::sh(&out, &script));
    wait_until("it is mounted", || {
        let (_, mounts) = mounts(&world, &[]);
        mounts
            .first()
            .is_some_and(|mount| mount["starting"] == false)
    });
    let id = report(&world)["pid"].as_u64().unwrap();
    let mount = Mount::background(&world, u32::try_from(id).unwrap(), &world.path("mnt"));
    world
        .emulator
        .faults()
        .add(FaultRule::new("ul", FaultAction::Slow { ms: 1_000 }));
    mount.write("big", pattern(1, 0, 3_000_000));
    mount.unmount();
    running.join().unwrap();
    let drawn = String::from_utf8_lossy(&std::fs::read(&screen).unwrap()).into_owned();
    // A long mountpoint leaves no room for the rest of the line.
    for part in ["unmounted: 1 change", "big"] {
        assert!(drawn.contains(part), "no '{part}' in {drawn:?}");
    }
    assert!(world.content("/big").unwrap() == pattern(1, 0, 3_000_000));
}

#[test]
fn the_first_reading_of_the_list_shows_its_progress() {
    let world = World::new();
    let rule = world
        .emulator
        .faults()
        .add(FaultRule::new("cmd:f", FaultAction::Held));
    let log = world.path("log");
    let mut child = world
        .program()
        .args([
            "remote:",
            world.path("mnt").to_str().unwrap(),
            "-f",
            "--progress",
        ])
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    wait_until("it says that it is starting", || {
        let (code, mounts) = mounts(&world, &[]);
        code == 10
            && mounts
                .first()
                .is_some_and(|mount| mount["starting"] == true)
    });
    wait_until("the terminal says so too", || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains("list of files: 0 so far"))
    });
    let answer = world.command(&["status"]);
    assert!(answer.text.contains("not mounted yet"), "{}", answer.text);
    let answer = world.command(&["flush", "remote:"]);
    assert_eq!(answer.code, 2, "{}", answer.errors);
    assert!(
        answer.errors.contains("still coming up"),
        "{}",
        answer.errors
    );
    world.emulator.faults().remove(rule);
    // The same connection goes on when the mount is up.
    let answer = world.command(&["status", "--wait"]);
    assert_eq!(answer.code, 0, "{answer:?}");
    let mount = Mount::background(&world, child.id(), &world.path("mnt"));
    wait_until("it is mounted", || report(&world)["starting"] == false);
    assert_eq!(report(&world)["loading"], Value::Null);
    mount.unmount();
    child.wait().unwrap();
}
