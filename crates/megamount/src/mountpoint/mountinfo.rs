//! `/proc/self/mountinfo`, as far as it matters here (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mounted file system. The table lists them in the order they were mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountEntry {
    /// Device number, as in `st_dev`.
    pub(super) device: u64,
    /// Where it is mounted.
    pub(super) mount_point: PathBuf,
    /// Its type with subtype, such as `fuse.megamount`.
    pub(super) fs_type: String,
    /// What is mounted.
    pub(super) source: String,
    /// For FUSE: the user whose process serves it.
    pub(super) user: Option<u32>,
}

impl MountEntry {
    /// Whether a FUSE process serves it.
    pub(super) fn is_fuse(&self) -> bool {
        self.fs_type == "fuse" || self.fs_type == "fuseblk" || self.fs_type.starts_with("fuse.")
    }
}

/// The mount table of this process.
pub(super) fn read() -> io::Result<Vec<MountEntry>> {
    // The table is text, but mountpoints may be any bytes.
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(table
        .split(|byte| *byte == b'\n')
        .filter_map(parse)
        .collect())
}

/// Parses one line; lines that are not understood are left out.
fn parse(line: &[u8]) -> Option<MountEntry> {
    // 36 35 98:0 /root /mountpoint rw,noatime optional... - ext3 /dev/root rw,errors=continue
    let mut fields = line.split(|byte| *byte == b' ');
    let number = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = number.split_once(':')?;
    let device = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
    let mount_point = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let mut text = || Some(String::from_utf8_lossy(&unescape(fields.next()?)).into_owned());
    let (fs_type, source) = (text()?, text()?);
    let options = text().unwrap_or_default();
    let user = options
        .split(',')
        .find_map(|option| option.strip_prefix("user_id=")?.parse().ok());
    Some(MountEntry {
        device,
        mount_point,
        fs_type,
        source,
        user,
    })
}

/// Undoes the octal escapes of blanks, newlines and backslashes (`\040`).
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let value = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match value {
            Some(byte) => {
                out.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let line = b"36 35 0:50 / /mnt/my\\040mega rw,nosuid shared:1 master:2 - \
                     fuse.megamount megamount:my\\040remote rw,user_id=1000,group_id=0";
        let entry = parse(line).unwrap();
        assert_eq!(entry.mount_point, PathBuf::from("/mnt/my mega"));
        assert_eq!(entry.fs_type, "fuse.megamount");
        assert_eq!(entry.source, "megamount:my remote");
        assert_eq!(entry.device, rustix::fs::makedev(0, 50));
        assert_eq!(entry.user, Some(1000));
        assert!(entry.is_fuse());
    }

    #[test]
    fn strange_lines_are_left_out() {
        for line in [
            &b""[..],
            b"1 2 3",
            b"36 35 x:y / /m rw - ext4 /dev/x rw",
            b"36 35 8:1 / /m",
        ] {
            assert_eq!(parse(line), None);
        }
        let odd = b"1 2 8:1 / /a\\04 rw - ext4 /dev/x rw";
        assert_eq!(parse(odd).unwrap().mount_point, PathBuf::from("/a\\04"));
    }

    #[test]
    fn the_table_of_this_process_has_a_root() {
        assert!(
            read()
                .unwrap()
                .iter()
                .any(|entry| entry.mount_point.parent().is_none())
        );
    }
}
