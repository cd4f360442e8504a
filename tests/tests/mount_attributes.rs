//! Times, modes, symbolic links, extended attributes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use mega_emulator::Fixture;
use megamount_tests::World;
use serde_json::json;

#[test]
fn mtime_is_stored_in_the_fingerprint() {
    let world = World::with(&[Fixture::file("/f", "content", 1_600_000_000)]);
    let mount = world.mount();
    mount.sh("touch -d '2011-12-13 14:15:16' f; echo x >new; touch -d '1999-01-01' new");
    assert_eq!(mount.sh("stat -c %Y f new"), "1323785716\n915148800\n");
    mount.unmount();
    assert_eq!(world.node("/f").unwrap().mtime, Some(1_323_785_716));
    assert_eq!(world.node("/new").unwrap().mtime, Some(915_148_800));
    assert_eq!(world.content("/f").unwrap(), b"content");
    assert_eq!(world.paths(), ["/f", "/new"]);
    let mount = world.mount();
    assert_eq!(mount.sh("stat -c %Y f new"), "1323785716\n915148800\n");
    mount.unmount();
}

#[test]
fn a_rename_keeps_unknown_attributes() {
    let world = World::with(&[Fixture::file("/f", "x", 1_600_000_000)]);
    let mut attributes = world.node("/f").unwrap().attributes.unwrap();
    attributes["fav"] = json!(1);
    attributes["lbl"] = json!("3");
    attributes["zz"] = json!({"deep": [1, null, "x"]});
    world.populate(&[Fixture::Attributes {
        path: "/f".into(),
        json: attributes.to_string(),
    }]);
    let mount = world.mount();
    mount.sh("mv f g; touch -d 2020-01-01 g; chmod +x g");
    mount.unmount();
    let after = world.node("/g").unwrap().attributes.unwrap();
    for member in ["fav", "lbl", "zz"] {
        assert_eq!(after[member], attributes[member], "{member}");
    }
}

#[test]
fn symbolic_links_and_executable_bits_survive_a_remount() {
    let world = World::new();
    let mount = world.mount();
    mount.sh("echo '#!/bin/sh' >run; chmod +x run; ./run; mkdir d; ln -s ../run d/link; ln -s nowhere dangling; d/link");
    mount.unmount();
    std::fs::remove_dir_all(world.path("cache")).unwrap();
    let mount = world.mount();
    assert_eq!(mount.sh("readlink d/link dangling"), "../run\nnowhere\n");
    assert_eq!(
        mount.sh("test -x run && stat -c %F dangling"),
        "symbolic link\n"
    );
    mount.sh("./run; chmod -x run");
    assert!(
        mount
            .sh_fails("test ! -x run && ./run")
            .contains("Permission denied")
    );
    mount.unmount();
}

#[test]
fn extended_attributes_survive_a_remount_and_tools_leave_ours_alone() {
    let world = World::with(&[Fixture::file("/f", "x", 1_600_000_000)]);
    let handle = world.node("/f").unwrap().handle;
    let mount = world.mount();
    mount.sh("setfattr -n user.colour -v blue f; mkdir d; setfattr -n user.n -v 1 d");
    assert_eq!(
        mount.sh("getfattr --only-values -n user.mega.handle f"),
        handle
    );
    assert!(
        mount
            .sh_fails("setfattr -n user.mega.handle -v x f")
            .contains("not permitted")
    );
    mount.unmount();
    let mount = world.mount();
    assert_eq!(mount.sh("getfattr --only-values -n user.colour f"), "blue");
    assert_eq!(mount.sh("getfattr d"), "# file: d\nuser.n\n\n");
    assert_eq!(
        mount.sh("getfattr --only-values -n user.mega.state f"),
        "uploaded"
    );
    mount.sh("setfattr -x user.colour f");
    assert!(
        mount
            .sh_fails("getfattr -n user.colour f")
            .contains("No such attribute")
    );
    mount.unmount();
    assert_eq!(world.node("/f").unwrap().handle, handle);
}

#[test]
fn owner_and_permissions_are_as_asked() {
    let world = World::with(&[Fixture::file("/d/f", "x", 1_600_000_000)]);
    let mount = world.mount_with(
        "remote:",
        &["--uid", "1234", "--gid", "5678", "--umask", "027"],
    );
    assert_eq!(
        mount.sh("stat -c '%a %u %g' d d/f"),
        "750 1234 5678\n640 1234 5678\n"
    );
    mount.unmount();
}

#[test]
fn extended_attributes_have_a_limit_per_file() {
    let world = World::new();
    let mount = world.mount();
    mount.sh("echo x >f; setfattr -n user.small -v kept f");
    // base64 of the value, its name and the other attribute make 16 KiB.
    let set = |length: usize| format!("setfattr -n user.large -v {} f", "b".repeat(length));
    mount.sh(&set(11_900));
    assert!(mount.sh_fails(&set(12_300)).contains("No space left"));
    assert!(
        mount
            .sh_fails("setfattr -n trusted.x -v 1 f")
            .contains("not supported")
    );
    mount.unmount();
    let mount = world.mount();
    assert_eq!(
        mount.sh("getfattr --only-values -n user.large f").len(),
        11_900
    );
    assert_eq!(mount.sh("getfattr --only-values -n user.small f"), "kept");
    mount.unmount();
}

#[test]
fn access_and_change_times_are_kept_while_the_file_is_known() {
    let world = World::with(&[Fixture::file("/f", "x", 1_600_000_000)]);
    let mount = world.mount();
    mount.sh("touch -a -d @1000 f; touch -m -d @2000.25 f");
    assert_eq!(mount.sh("stat -c '%X %.2Y' f"), "1000 2000.25\n");
    let changed = |script: &str| {
        let before = mount.sh("stat -c %.9Z f");
        mount.sh(script);
        let after = mount.sh("stat -c %.9Z f");
        let seconds = |text: &str| text.trim().parse::<f64>().unwrap();
        assert!(
            seconds(&after) > seconds(&before),
            "{script}: {before}{after}"
        );
    };
    changed("chmod +x f");
    changed("mv f g; mv g f");
    changed("setfattr -n user.k -v v f");
    changed("touch -m -d @3000 f");
    assert_eq!(mount.sh("stat -c '%X %Y' f"), "1000 3000\n");
    mount.unmount();
    assert_eq!(world.node("/f").unwrap().mtime, Some(3000));
}

#[test]
fn a_directory_counts_the_links_of_those_in_it() {
    let world = World::new();
    let mount = world.mount();
    mount.sh("mkdir -p d/one d/two; touch d/file");
    assert_eq!(
        mount.sh("stat -c %h d; rmdir d/one; stat -c %h d"),
        "4\n3\n"
    );
    mount.unmount();
}

/// `ls -l` asks every file for labels and access lists, unless it is told that there are none.
#[test]
fn other_name_spaces_of_attributes_are_not_supported() {
    let world = World::with(&[Fixture::file("/f", "x", 1_600_000_000)]);
    let mount = world.mount();
    for name in ["system.posix_acl_access", "security.selinux", "trusted.x"] {
        let text = mount.sh_fails(&format!("getfattr -n {name} f"));
        assert!(text.contains("not supported"), "{name}: {text}");
    }
    mount.unmount();
}
