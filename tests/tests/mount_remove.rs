//! Removing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::Read;

use mega_emulator::Fixture;
use megamount_tests::World;

fn sample() -> World {
    World::with(&[
        Fixture::file("/f", "x", 1_600_000_000),
        Fixture::file("/d/one", "1", 1_600_000_000),
        Fixture::file("/d/e/two", "2", 1_600_000_000),
        Fixture::folder("/void"),
        Fixture::file("/stays", "s", 1_600_000_000),
    ])
}

#[test]
fn rm_moves_to_the_rubbish_bin() {
    let world = sample();
    let mount = world.mount();
    assert!(mount.sh_fails("rmdir d").contains("not empty"));
    assert!(mount.sh_fails("rm d").contains("Is a directory"));
    mount.sh("rm f; rm -r d; rmdir void");
    assert_eq!(mount.names(""), ["stays"]);
    mount.unmount();
    assert_eq!(world.paths(), ["/stays"]);
    let bin = world.bin();
    for name in ["f", "one", "two", "void"] {
        assert!(
            bin.iter().any(|path| path.ends_with(name)),
            "{name} in {bin:?}"
        );
    }
}

#[test]
fn hard_delete_deletes() {
    let world = sample();
    let mount = world.mount_with("remote:", &["--hard-delete"]);
    mount.sh("rm f; rm -r d; rmdir void");
    mount.unmount();
    assert_eq!(world.paths(), ["/stays"]);
    assert_eq!(world.bin(), Vec::<String>::new());
}

/// As shells and databases do with their temporary files.
#[test]
fn a_file_without_a_name_ends_with_its_user() {
    let world = sample();
    let mount = world.mount();
    // 1 MB before the name goes, 1 MB after, all of it readable through the descriptor; then the daemon dies.
    mount.sh(
        "exec 3<>t; head -c 1000000 /dev/zero >&3; rm t; head -c 1000000 /dev/zero >&3; \
         exec 4</proc/self/fd/3; test $(wc -c <&4) = 2000000",
    );
    let file = std::fs::OpenOptions::new()
        .create_new(true)
        .read(true)
        .write(true)
        .open(mount.path("u"))
        .unwrap();
    mount.sh("rm u");
    std::os::unix::fs::FileExt::write_all_at(&file, &[1; 1_000_000], 0).unwrap();
    mount.kill_9();
    drop(file);
    let mount = world.mount();
    assert_eq!(mount.names(""), ["d", "f", "stays", "void"]);
    for directory in ["staging", "lost+found"] {
        let left = std::fs::read_dir(world.state().join(directory)).unwrap();
        assert_eq!(left.count(), 0, "{directory}");
    }
    mount.unmount();
}

#[test]
fn what_was_never_uploaded_leaves_no_trace() {
    let world = sample();
    let mount = world.mount_with("remote:", &["--write-back", "10m"]);
    mount.sh("echo x >temporary; rm temporary; mkdir t; rmdir t");
    mount.unmount();
    let counters = world.emulator.counters();
    assert_eq!(counters.requests("ul"), 0);
    assert_eq!(counters.commands("m") + counters.commands("d"), 0);
    assert_eq!(world.bin(), Vec::<String>::new());
}

#[test]
fn a_removed_file_can_be_read_and_written_while_it_is_open() {
    let world = World::with(&[Fixture::pattern("/f", 3_000_000, 1)]);
    let mount = world.mount();
    let mut file = std::fs::File::open(mount.path("f")).unwrap();
    std::fs::remove_file(mount.path("f")).unwrap();
    let mut content = Vec::new();
    file.read_to_end(&mut content).unwrap();
    assert!(content == mega_emulator::pattern(1, 0, 3_000_000));
    drop(file);
    mount.sh("exec 3<>t; rm t; echo hidden >&3; exec 3>&-");
    mount.unmount();
    assert_eq!(world.paths(), Vec::<String>::new());
}

#[test]
fn what_is_removed_has_no_links_and_still_answers() {
    let world = sample();
    let mount = world.mount();
    mount.sh("exec 3<f; rm f; test $(stat -L -c %h /dev/fd/3) = 0; test $(cat <&3) = x");
    // A shell in a directory that is gone.
    mount.sh("cd void; rmdir ../void; test $(stat -c %h .) = 0; test -z \"$(ls 2>/dev/null)\"");
    assert!(
        mount
            .sh_fails("cd d/e; rm -r ../../d; touch x")
            .contains("No such file")
    );
    mount.unmount();
    assert_eq!(world.paths(), ["/stays"]);
}
