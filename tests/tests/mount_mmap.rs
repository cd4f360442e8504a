//! Files changed through shared mappings. Python makes them: a mapping is unsafe in Rust.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use mega_emulator::{Fixture, pattern};
use megamount_tests::{Mount, World};

/// Runs a Python program in the mount.
#[track_caller]
fn python(mount: &Mount<'_>, program: &str) -> String {
    mount.sh(&format!(
        "python3 - <<'END'\nimport mmap, os\n{program}\nEND\n"
    ))
}

#[test]
fn what_is_written_through_a_mapping_is_read_and_uploaded() {
    let world = World::with(&[Fixture::pattern("/large", 3_000_000, 6)]);
    let mount = world.mount();
    python(
        &mount,
        "
fd = os.open('large', os.O_RDWR)
view = mmap.mmap(fd, 0)
view[1_500_000:1_500_005] = b'HELLO'
assert os.pread(fd, 5, 1_500_000) == b'HELLO', 'before msync'
view.flush()
# The mapping outlives the descriptor.
os.close(fd)
view[:3] = b'abc'
view[-1:] = b'z'
view.close()
",
    );
    let mut expected = pattern(6, 0, 3_000_000);
    expected[1_500_000..1_500_005].copy_from_slice(b"HELLO");
    expected[..3].copy_from_slice(b"abc");
    expected[2_999_999] = b'z';
    assert!(mount.read("large") == expected);
    mount.unmount();
    assert!(world.content("/large").unwrap() == expected);
}

#[test]
fn a_mapping_of_an_appending_handle_changes_the_file_in_place() {
    let world = World::new();
    let mount = world.mount();
    mount.write("f", [b'x'; 8192]);
    python(
        &mount,
        "
fd = os.open('f', os.O_RDWR | os.O_APPEND)
view = mmap.mmap(fd, 0)
view[4096:4101] = b'HELLO'
view.flush()
os.write(fd, b'tail')
view.close()
os.close(fd)
# The kernel's own pages must not hide what the file has.
os.posix_fadvise(os.open('f', os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)
",
    );
    let mut expected = vec![b'x'; 8192];
    expected[4096..4101].copy_from_slice(b"HELLO");
    expected.extend_from_slice(b"tail");
    assert!(mount.read("f") == expected);
    mount.unmount();
    assert!(world.content("/f").unwrap() == expected);
}

#[test]
fn two_processes_share_a_mapping() {
    let world = World::with(&[Fixture::pattern("/f", 10_000, 7)]);
    let mount = world.mount();
    python(
        &mount,
        "
views = [mmap.mmap(os.open('f', os.O_RDWR), 0) for _ in range(2)]
child = os.fork()
if child == 0:
    views[1][5000:5003] = b'one'
    os._exit(0)
os.waitpid(child, 0)
assert views[0][5000:5003] == b'one'
views[0][0:3] = b'two'
",
    );
    let mut expected = pattern(7, 0, 10_000);
    expected[5000..5003].copy_from_slice(b"one");
    expected[..3].copy_from_slice(b"two");
    mount.unmount();
    assert!(world.content("/f").unwrap() == expected);
}
