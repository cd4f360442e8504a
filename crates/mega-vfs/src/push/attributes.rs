//! The attributes a node is to have: what it had, and what its change row asks for.

use mega_crypto::{Attributes, Fingerprint};
use mega_store::ChangeRow;
use mega_tree::node::{format_file_nanos, format_folder_time};

use crate::changes::row_mtime;
use crate::types::Timestamp;

/// Members that belong to the content and are not carried over to new content.
const OF_CONTENT: [&str; 3] = ["c", "c0", "d"];

/// Applies the row's wishes (name and members, not the time) to `attributes`.
pub(crate) fn apply_wishes(attributes: &mut Attributes, row: &ChangeRow) {
    if let Some(place) = &row.place
        && !place.name.is_empty()
    {
        attributes.set("n", &place.name);
    }
    for (name, value) in row.attributes.iter().flatten() {
        if name.starts_with('~') {
            continue;
        }
        match value {
            serde_json::Value::Null => {
                attributes.remove(name);
            }
            other => attributes.set_value(name, other.clone()),
        }
    }
}

/// New content: `c` and the nanoseconds are those of the file now. A row that asks for no time keeps
/// the one that is there.
pub(crate) fn set_content_time(attributes: &mut Attributes, row: &ChangeRow, crc: [u8; 16]) {
    let old = attributes.fingerprint();
    for name in OF_CONTENT {
        attributes.remove(name);
    }
    let mtime = row_mtime(row)
        .or_else(|| old.map(|old| Timestamp::from_secs(old.mtime)))
        .unwrap_or_default();
    let fingerprint = Fingerprint {
        crc,
        mtime: mtime.secs,
    };
    attributes.set_fingerprint(&fingerprint);
    set_nanos(attributes, &fingerprint, mtime.nanos);
}

/// Only the time changes: the checksum stays. Without one, the first 16 bytes of the node key stand
/// in for it (protocol/03 section 8).
pub(crate) fn set_file_time(attributes: &mut Attributes, row: &ChangeRow, key: &[u8]) {
    let Some(mtime) = row_mtime(row) else { return };
    let crc = attributes
        .fingerprint()
        .map(|old| old.crc)
        .or_else(|| key.get(..16).and_then(|bytes| bytes.try_into().ok()));
    let fingerprint = Fingerprint {
        crc: crc.unwrap_or_default(),
        mtime: mtime.secs,
    };
    attributes.set_fingerprint(&fingerprint);
    set_nanos(attributes, &fingerprint, mtime.nanos);
}

fn set_nanos(attributes: &mut Attributes, fingerprint: &Fingerprint, nanos: u32) {
    if nanos == 0 {
        attributes.remove("mmn");
    } else {
        attributes.set("mmn", &format_file_nanos(&fingerprint.to_attr(), nanos));
    }
}

/// A folder's own time.
pub(crate) fn set_folder_time(attributes: &mut Attributes, row: &ChangeRow) {
    if let Some(mtime) = row_mtime(row) {
        attributes.set("mmn", &format_folder_time(mtime.secs, mtime.nanos));
    }
}
