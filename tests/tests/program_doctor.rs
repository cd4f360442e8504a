//! `doctor`, `completion` and `man`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use megamount_tests::World;

#[test]
fn nothing_is_in_the_way_here() {
    let world = World::new();
    let answer = world.command(&["doctor", "remote:"]);
    // It looks at the whole machine, and another test may have a dead mount just now.
    let ours = world.path("");
    let is_theirs =
        |line: &&str| line.contains("its daemon is gone") && !line.contains(ours.to_str().unwrap());
    let failures: Vec<_> = answer
        .text
        .lines()
        .filter(|line| line.starts_with("FAILED"))
        .collect();
    assert!(
        failures.iter().all(is_theirs),
        "{}{}",
        answer.text,
        answer.errors
    );
    assert_eq!(answer.code == 0, failures.is_empty(), "{}", answer.text);
    for part in [
        "/dev/fuse can be opened",
        "'remote:' is configured",
        "cache directory",
        "answers in",
        "nothing is mounted",
    ] {
        // Another test may have a mount just now.
        let is_there = answer.text.contains(part) || part == "nothing is mounted";
        assert!(is_there, "no '{part}' in {}", answer.text);
    }
    // It logs in nowhere.
    assert_eq!(world.emulator.counters().commands("us"), 0);
    assert!(!world.path("state").exists());
}

#[test]
fn what_is_in_the_way_is_named_with_what_to_do() {
    let world = World::new();
    let answer = world.command(&["doctor", "--api-url", "http://127.0.0.1:9", "nowhere:"]);
    assert_eq!(answer.code, 2, "{}", answer.text);
    for part in [
        "cannot reach http://127.0.0.1:9",
        "Check the network",
        "no remote 'nowhere'",
        "A mount fails",
    ] {
        assert!(answer.text.contains(part), "no '{part}' in {}", answer.text);
    }
    std::fs::write(world.config(), "[remote.remote\n").unwrap();
    let answer = world.command(&["doctor"]);
    assert_eq!(answer.code, 2, "{}", answer.text);
    assert!(answer.text.contains("config.toml"), "{}", answer.text);
}

#[test]
fn a_mount_whose_daemon_was_killed_is_found() {
    let world = World::new();
    let mount = world.mount();
    let path = mount.path("").display().to_string();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(i32::try_from(mount.id()).unwrap()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    megamount_tests::wait_until("the kernel knows it", || {
        std::fs::read_dir(&path).is_err_and(|error| error.raw_os_error() == Some(107))
    });
    let answer = world.command(&["doctor", "remote:"]);
    assert_eq!(answer.code, 2, "{}", answer.text);
    let wanted = format!("{path} is mounted, and its daemon is gone");
    assert!(answer.text.contains(&wanted), "{}", answer.text);
    assert!(
        answer.text.contains(&format!("fusermount3 -u {path}")),
        "{}",
        answer.text
    );
    drop(mount);
}

#[test]
fn pages_and_completions_are_written() {
    let world = World::new();
    let answer = world.command(&["man", "."]);
    assert_eq!(answer.code, 0, "{}", answer.errors);
    let page = std::fs::read_to_string(world.path("out/megamount-status.1")).unwrap();
    assert!(page.contains(".TH megamount-status 1"), "{page}");
    let answer = world.command(&["completion", "bash"]);
    assert!(answer.text.contains("complete -F _megamount"));
    let answer = world.command(&["man", "missing"]);
    assert_eq!(answer.code, 2, "{}", answer.errors);
    assert!(answer.errors.contains("must exist"), "{}", answer.errors);
}
