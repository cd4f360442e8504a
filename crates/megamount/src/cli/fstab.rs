//! The words of mount(8) and fstab(5): `-o` lists, and the command line of a mount helper.
//!
//! mount(8) runs `/sbin/mount.TYPE SOURCE DIRECTORY [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]` and hands over what
//! stands in fstab(5), its own words left out only in part. The program under the name `mount.megamount`
//! ([`is_helper`]) is such a helper: it always goes to the background, and its exit codes are those of mount(8).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Words in a list that mean nothing to a helper: mount(8) and systemd have done what they ask, or the mount is
/// like that in any case (set-user-ID programs and devices are never honoured; access times are not kept).
const DONE_ELSEWHERE: &[&str] = &[
    "_netdev",
    "_rnetdev",
    "async",
    "atime",
    "auto",
    "defaults",
    "diratime",
    "exec",
    "group",
    "lazytime",
    "loud",
    "noatime",
    "noauto",
    "nodev",
    "nodiratime",
    "nofail",
    "nolazytime",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nouser",
    "nousers",
    "owner",
    "relatime",
    "rw",
    "silent",
    "strictatime",
    "user",
    "users",
];

/// What one word of a list asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Nothing.
    Nothing,
    /// This long option.
    Option(OsString),
}

/// Reads one word: `ro`, `allow_other`, `write-back=10s`.
pub(super) fn word(word: &OsStr) -> Word {
    let bytes = word.as_bytes();
    let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (bytes.get(..at).unwrap_or_default(), bytes.get(at..)),
        None => (bytes, None),
    };
    let name = String::from_utf8_lossy(name);
    let is_comment = ["x-", "X-"].iter().any(|start| name.starts_with(start)) || name == "comment";
    if is_comment || DONE_ELSEWHERE.contains(&&*name) {
        return Word::Nothing;
    }
    let name = match &*name {
        "ro" => "read-only".to_owned(),
        other => other.replace('_', "-"),
    };
    let mut option = format!("--{name}").into_bytes();
    option.extend(value.unwrap_or_default());
    Word::Option(OsString::from_vec(option))
}

/// The words of a list.
pub(super) fn words(list: &OsStr) -> impl Iterator<Item = &OsStr> {
    list.as_bytes()
        .split(|byte| *byte == b',')
        .filter(|word| !word.is_empty())
        .map(OsStr::from_bytes)
}

/// Whether the program was called as a helper of mount(8), by its first argument.
pub(crate) fn is_helper(program: &OsStr) -> bool {
    Path::new(program)
        .file_name()
        .is_some_and(|name| name.as_bytes().starts_with(b"mount."))
}

/// A helper's command line in our own words.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Helper {
    /// For the ordinary reading of a mount.
    pub(super) args: Vec<OsString>,
    /// `-f`: everything but the mount.
    pub(super) is_fake: bool,
    /// `-s`: unknown options are passed over.
    pub(super) is_sloppy: bool,
}

/// Reads a helper's command line; the first of `args` is the name of the program.
pub(super) fn helper(args: impl IntoIterator<Item = OsString>) -> Helper {
    let mut args = args.into_iter();
    let mut done = Helper {
        args: vec![args.next().unwrap_or_default()],
        ..Helper::default()
    };
    let mut places = vec![];
    while let Some(arg) = args.next() {
        let Some(letters) = arg
            .as_bytes()
            .strip_prefix(b"-")
            .filter(|rest| !rest.is_empty())
        else {
            places.push(arg);
            continue;
        };
        if letters.starts_with(b"-") {
            done.args.push(arg);
            continue;
        }
        for (at, letter) in letters.iter().enumerate() {
            let attached = letters.get(at + 1..).filter(|rest| !rest.is_empty());
            match letter {
                b'f' => done.is_fake = true,
                b's' => done.is_sloppy = true,
                b'n' => {}
                b'v' => done.args.push("-v".into()),
                b'o' | b't' | b'N' => {
                    let value = attached.map(|rest| OsStr::from_bytes(rest).to_owned());
                    let value = value.or_else(|| args.next());
                    if *letter == b'o' {
                        done.args.push("-o".into());
                        done.args.extend(value);
                    }
                    break;
                }
                other => done.args.push(format!("-{}", char::from(*other)).into()),
            }
        }
    }
    if !places.is_empty() {
        // A remote may begin with a dash no more than a mountpoint.
        done.args.push("--".into());
        done.args.extend(places);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Helper {
        helper(line.split(' ').map(OsString::from))
    }

    #[test]
    fn words_of_others_mean_nothing_and_ours_are_options() {
        for nothing in [
            "defaults",
            "_netdev",
            "x-systemd.automount",
            "rw",
            "comment=a",
            "nosuid",
        ] {
            assert_eq!(word(OsStr::new(nothing)), Word::Nothing, "{nothing}");
        }
        for (theirs, ours) in [
            ("ro", "--read-only"),
            ("allow_other", "--allow-other"),
            ("write_back=1m", "--write-back=1m"),
            ("cache-dir=/a_b", "--cache-dir=/a_b"),
            ("vfs_cache_mode=full", "--vfs-cache-mode=full"),
        ] {
            assert_eq!(
                word(OsStr::new(theirs)),
                Word::Option(ours.into()),
                "{theirs}"
            );
        }
    }

    #[test]
    fn a_helper_is_called_by_its_name() {
        for (name, expected) in [
            ("/sbin/mount.megamount", true),
            ("mount.fuse.megamount", true),
            ("/usr/bin/megamount", false),
            ("/mount.d/megamount", false),
        ] {
            assert_eq!(is_helper(OsStr::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn the_line_of_mount_is_understood() {
        let done = of("mount.megamount work:a /mnt -nv -o ro,_netdev -t fuse.megamount");
        assert_eq!(
            done.args,
            [
                "mount.megamount",
                "-v",
                "-o",
                "ro,_netdev",
                "--",
                "work:a",
                "/mnt"
            ]
        );
        assert_eq!((done.is_fake, done.is_sloppy), (false, false));
        let done = of("mount.megamount -sf -oro work: /mnt -N /proc/1/ns/mnt");
        assert_eq!(
            done.args,
            ["mount.megamount", "-o", "ro", "--", "work:", "/mnt"]
        );
        assert_eq!((done.is_fake, done.is_sloppy), (true, true));
    }
}
