//! The program as a helper of mount(8): `mount -t megamount`, fstab(5).

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;
use std::process::Command;

use mega_emulator::Fixture;
use megamount_tests::{Mount, World};

/// The helper as mount(8) calls it.
fn helper(world: &World, args: &[&str]) -> (i32, String) {
    let link = world.path("mount.megamount");
    let command = world.program();
    if !link.exists() {
        std::os::unix::fs::symlink(command.get_program(), &link).unwrap();
    }
    let mut called = Command::new(&link);
    called.env_clear();
    for (name, value) in command.get_envs() {
        called.env(name, value.unwrap());
    }
    called
        .args(["remote:", world.path("mnt").to_str().unwrap()])
        .args(args)
        // What a mount unit of systemd is called with; the helper goes to the background in any case.
        .env("SYSTEMD_EXEC_PID", "1")
        .current_dir("/");
    let output = called.output().unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn daemon(state: &Path) -> u32 {
    let lock = std::fs::read_to_string(state.join("lock")).unwrap();
    let digits = lock.split("\"pid\":").nth(1).unwrap().chars();
    let pid: String = digits.take_while(char::is_ascii_digit).collect();
    pid.parse().unwrap()
}

#[test]
fn options_of_fstab_mount() {
    let world = World::with(&[Fixture::file("/f", "x", 1_600_000_000)]);
    let list =
        "ro,_netdev,nofail,x-systemd.automount,file_perms=640,umask=0,vfs-cache-mode=full,noatime";
    let (code, text) = helper(&world, &["-n", "-o", list, "-t", "megamount"]);
    assert_eq!((code, text.as_str()), (0, ""));
    let mount = Mount::background(&world, daemon(&world.state()), &world.path("mnt"));
    assert_eq!(mount.read("f"), b"x");
    assert_eq!(mount.sh("stat -c %a f"), "640\n");
    let text = mount.sh_fails("touch new");
    assert!(text.contains("Read-only file system"), "{text}");
    mount.unmount();
}

#[test]
fn a_slip_in_fstab_is_named_and_sloppy_passes_it_over() {
    let world = World::new();
    let (code, text) = helper(&world, &["-o", "wrte_back=5s"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("--wrte-back"), "{text}");
    assert!(text.contains("--write-back"), "a similar one: {text}");
    let (code, text) = helper(&world, &["-f", "-o", "write_back=5s"]);
    assert_eq!((code, text.as_str()), (0, ""), "fake");
    assert_eq!(world.emulator.counters().connections, 0);
    let (code, text) = helper(&world, &["-s", "-o", "wrte_back=5s"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("-o wrte_back=5s"), "{text}");
    let mount = Mount::background(&world, daemon(&world.state()), &world.path("mnt"));
    mount.unmount();
}

#[test]
fn a_helper_that_cannot_mount_says_why_in_codes_of_mount() {
    let world = World::new();
    std::fs::write(world.path("password"), "wrong").unwrap();
    let (code, text) = helper(&world, &[]);
    assert_eq!(code, 32, "{text}");
    assert!(text.contains("password"), "{text}");
}
