//! `megamount verify`: files are compared with Mega's checksums.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use mega_emulator::{Brokenness, FaultAction, FaultRule, Fixture, pattern};
use megamount_tests::World;

fn sample() -> World {
    World::with(&[
        Fixture::file("/a.txt", "hello\n", 1_600_000_000),
        Fixture::file("/empty", "", 1_600_000_000),
        Fixture::pattern("/dir/deep/large", 20_000_000, 7),
        Fixture::Broken {
            path: "/dir/wrong".into(),
            how: Brokenness::WrongMac,
        },
        Fixture::Broken {
            path: "/old".into(),
            how: Brokenness::MegajsMac,
        },
    ])
}

#[test]
fn bad_files_are_listed_and_are_an_exit_code() {
    for options in [&[][..], &["--cache=off"]] {
        let world = sample();
        let mount = world.mount_with("remote:", options);
        let verify = |path: &str| {
            let path = mount.path(path);
            world.command(&["verify", path.to_str().unwrap()])
        };
        let answer = verify("");
        assert_eq!(answer.code, 2, "{answer:?}");
        assert_eq!(
            answer.text,
            "dir/wrong: does not match its checksum\n4 files good, 1 bad.\n"
        );
        let answer = verify("dir/deep");
        assert_eq!(
            (answer.code, answer.text.as_str()),
            (0, "1 file good, 0 bad.\n")
        );
        let answer = verify("a.txt");
        assert_eq!(
            (answer.code, answer.text.as_str()),
            (0, "1 file good, 0 bad.\n")
        );
        let answer = verify("dir/none");
        assert_eq!(answer.code, 3, "{answer:?}");
        assert!(
            answer.errors.contains("there is no 'dir/none'"),
            "{answer:?}"
        );
        assert!(mount.log().contains("does not match"), "the log names it");
        mount.unmount();
    }
}

#[test]
fn what_was_damaged_on_the_way_is_fetched_again() {
    let size = 20_000_000;
    for options in [&[][..], &["--cache=off"], &["--verify=off"]] {
        let world = World::with(&[Fixture::pattern("/f", size, 3)]);
        let rule = FaultRule::once("dl", FaultAction::FlipBit { byte: 1000 });
        world.emulator.faults().add(rule);
        let mount = world.mount_with("remote:", options);
        let path = mount.path("f");
        let answer = world.command(&["verify", path.to_str().unwrap()]);
        assert_eq!(answer.code, 0, "{options:?}: {answer:?}");
        assert!(mount.read("f") == pattern(3, 0, size), "{options:?}");
        mount.unmount();
    }
}

#[test]
fn bytes_that_go_on_being_wrong_are_bad() {
    for options in [&[][..], &["--cache=off"], &["--verify=off"]] {
        let world = World::with(&[Fixture::pattern("/f", 20_000_000, 3)]);
        let flip = FaultAction::FlipBit { byte: 1000 };
        world.emulator.faults().add(FaultRule::new("dl", flip));
        let mount = world.mount_with("remote:", options);
        let answer = world.command(&["verify", mount.path("").to_str().unwrap()]);
        assert_eq!(answer.code, 2, "{options:?}: {answer:?}");
        assert!(
            answer.text.starts_with("f: does not match its checksum\n"),
            "{options:?}: {answer:?}"
        );
        mount.unmount();
    }
}

#[test]
fn what_mega_does_not_have_is_not_checked() {
    let world = sample();
    let mount = world.mount_with("remote:", &["--write-back", "1h", "--drain", "0s"]);
    mount.write("new", "x");
    mount.write("a.txt", "y");
    let answer = world.command(&["verify", mount.path("").to_str().unwrap()]);
    assert!(
        answer
            .text
            .ends_with("3 files good, 1 bad, 2 not on Mega yet and not checked.\n"),
        "{answer:?}"
    );
    assert_eq!(mount.unmount_code(), 10);
}

#[test]
fn an_interrupted_check_leaves_nothing_running() {
    let world = World::with(&[Fixture::pattern("/f", 200_000_000, 3)]);
    world.emulator.set(|knobs| knobs.down_total = 4 << 20);
    let mount = world.mount();
    let mut command = world.program();
    let mut check = command.arg("verify").arg(mount.path("f")).spawn().unwrap();
    megamount_tests::wait_until("it is under way", || {
        world.emulator.counters().bytes_down > 1 << 20
    });
    check.kill().unwrap();
    check.wait().unwrap();
    mount.unmount();
    let moved = world.emulator.counters().bytes_down;
    assert!(moved < 200_000_000, "{moved}");
}

#[test]
fn progress_is_drawn_on_a_terminal() {
    let world = World::with(&[Fixture::pattern("/f", 8_000_000, 3)]);
    world.emulator.set(|knobs| knobs.down_total = 8 << 20);
    let mount = world.mount();
    let program = world.program();
    let screen = world.path("screen");
    let script = format!(
        "XDG_RUNTIME_DIR='{}' TERM=xterm script -qfec \"stty cols 120; '{}' verify '{}'\" '{}' \
         </dev/null >/dev/null",
        world.path("run").display(),
        program.get_program().to_str().unwrap(),
        mount.path("f").display(),
        screen.display()
    );
    megamount_tests::sh(&world.path("out"), &script);
    let drawn = String::from_utf8_lossy(&std::fs::read(&screen).unwrap()).into_owned();
    for part in ["7.63 MiB", "=", "1 file good, 0 bad."] {
        assert!(drawn.contains(part), "no '{part}' in {drawn:?}");
    }
    mount.unmount();
}
