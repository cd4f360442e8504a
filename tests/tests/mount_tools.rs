//! Programs that are picky about file systems.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use mega_emulator::Fixture;
use megamount_tests::World;

#[test]
fn sed_in_place_and_vim_save() {
    let world = World::with(&[
        Fixture::file("/poem.txt", "one\ntwo\nthree\n", 1_600_000_000),
        Fixture::file("/note.txt", "alpha\nbeta\n", 1_600_000_000),
    ]);
    let mount = world.mount();
    mount.sh("sed -i s/two/2/ poem.txt");
    mount.sh("vim -es -u NONE -c '%s/beta/gamma/' -c wq note.txt");
    mount.sh("vim -es -u NONE -c 'set backup writebackup backupcopy=no backupskip=' -c '%s/alpha/omega/' -c wq note.txt");
    assert_eq!(mount.read("poem.txt"), b"one\n2\nthree\n");
    assert_eq!(mount.read("note.txt"), b"omega\ngamma\n");
    mount.unmount();
    assert_eq!(world.content("/poem.txt").unwrap(), b"one\n2\nthree\n");
    assert_eq!(world.content("/note.txt").unwrap(), b"omega\ngamma\n");
    assert_eq!(world.paths(), ["/note.txt", "/note.txt~", "/poem.txt"]);
}

#[test]
fn git_clones_and_commits() {
    let world = World::new();
    let mount = world.mount();
    mount.sh("export HOME=$PWD/../home GIT_CONFIG_NOSYSTEM=1
         git config --global user.name me; git config --global user.email me@example.com
         git config --global init.defaultBranch main
         mkdir ../source; cd ../source; git init -q
         mkdir -p a/b; echo one >a/b/file; echo '#!/bin/sh' >run; chmod +x run; ln -s run link
         git add .; git commit -qm first");
    let git = "export HOME=$PWD/../home GIT_CONFIG_NOSYSTEM=1;";
    mount.sh(&format!(
        "{git} git clone -q ../source clone; cd clone; test -z \"$(git status --porcelain)\"
         echo two >>a/b/file; git mv run go; git commit -qam second; git gc -q; git fsck 2>&1"
    ));
    mount.unmount();
    let mount = world.mount();
    assert_eq!(
        mount.sh(&format!(
            "{git} cd clone; git log --format=%s; git status --porcelain"
        )),
        "second\nfirst\n"
    );
    mount.sh(&format!(
        "{git} cd clone; git fsck --strict; git reset -q --hard HEAD~1; ./run; ./link"
    ));
    mount.unmount();
}

#[test]
fn sqlite_keeps_a_database() {
    let world = World::new();
    let mount = world.mount();
    mount.sh(
        "sqlite3 db 'CREATE TABLE t(x); INSERT INTO t VALUES(1),(2);'
         sqlite3 db 'BEGIN; INSERT INTO t VALUES(3); ROLLBACK; DELETE FROM t WHERE x=1;'
         for n in 1 2 3 4 5; do sqlite3 db \"INSERT INTO t VALUES($n$n)\"; done",
    );
    let query = "sqlite3 db 'PRAGMA integrity_check; SELECT sum(x) FROM t;'";
    assert_eq!(mount.sh(query), "ok\n167\n");
    mount.unmount();
    assert_eq!(world.paths(), ["/db"]);
    let mount = world.mount();
    assert_eq!(mount.sh(query), "ok\n167\n");
    mount.unmount();
}

#[test]
fn find_exec_and_a_copy_inside_the_mount() {
    let world = World::with(&[Fixture::pattern("/big", 2_000_000, 5)]);
    let mount = world.mount();
    mount.sh("mkdir d; for n in $(seq 40); do echo $n >d/f$n; done; find d -name 'f1*' -delete; cp big copy; cmp big copy");
    assert_eq!(mount.names("d").len(), 29);
    mount.unmount();
    assert_eq!(world.content("/copy"), world.content("/big"));
    assert_eq!(
        world
            .paths()
            .iter()
            .filter(|path| path.starts_with("/d/f"))
            .count(),
        29
    );
}
