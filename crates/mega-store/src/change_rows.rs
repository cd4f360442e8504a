//! Change rows, layers and attempts as table rows.
//!
//! Names, attributes and error texts go into one encrypted value (`change.private`); inline bytes
//! into another (`extent.inline`). SQLite sees numbers, flags and ranges only.

use std::collections::HashSet;
use std::ops::Range;

use mega_proto::NodeHandle;
use rusqlite::{Connection, OptionalExtension, Row, Rows, params};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::StoreError;
use crate::range_set::RangeSet;
use crate::rows::{AttemptRow, ChangeRow, ChangeState, ContentRow, LayerData, LayerRow, Place};
use crate::subject::{AttemptId, StagingId, Subject};
use crate::truth::{handle_number, kind_from, number_handle};
use crate::vault::{Slot, Vault};

/// What only the user may read.
#[derive(Serialize, Deserialize)]
struct Private {
    #[serde(rename = "n", skip_serializing_if = "Option::is_none", default)]
    name: Option<String>,
    #[serde(rename = "a", skip_serializing_if = "Option::is_none", default)]
    attributes: Option<Map<String, Value>>,
    #[serde(rename = "e", skip_serializing_if = "Option::is_none", default)]
    error: Option<String>,
}

const PENDING: i64 = 0;
const PUSHING: i64 = 1;
const PARKED: i64 = 2;

const DAMAGED: StoreError = StoreError::Damaged {
    what: "a change row",
};

const COLUMNS: &str = "subject, kind, parent, removed, replaces, base, size, generation, synced,
    state, due_ms, attempt, since_ms, private";

struct Stored {
    row: ChangeRow,
    /// The parent of a place, whose name is in `private`.
    parent: Option<Subject>,
    private: Vec<u8>,
}

fn stored_from(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let number = |at| row.get::<_, Option<i64>>(at);
    let content = match number(6)? {
        None => None,
        Some(size) => Some(ContentRow {
            base: number(5)?.map(number_handle),
            size: size.cast_unsigned(),
            generation: row.get::<_, i64>(7)?.cast_unsigned(),
            synced: row.get(8)?,
            layers: Vec::new(),
        }),
    };
    let state = match row.get(9)? {
        PENDING => ChangeState::Pending {
            due_ms: row.get(10)?,
        },
        PUSHING => ChangeState::Pushing {
            attempt: AttemptId(row.get::<_, i64>(11)?.cast_unsigned()),
        },
        PARKED => ChangeState::Parked {
            error: String::new(),
        },
        other => return Err(rusqlite::Error::IntegralValueOutOfRange(9, other)),
    };
    Ok(Stored {
        row: ChangeRow {
            subject: Subject::from_i64(row.get(0)?),
            kind: kind_from(row.get(1)?)?,
            place: None,
            attributes: None,
            content,
            removed: row.get(3)?,
            replaces: number(4)?.map(number_handle),
            state,
            since_ms: row.get(12)?,
        },
        parent: number(2)?.map(Subject::from_i64),
        private: row.get(13)?,
    })
}

/// Decrypts and adds the layers.
fn complete(db: &Connection, vault: &Vault, stored: Stored) -> Result<ChangeRow, StoreError> {
    let Stored {
        mut row,
        parent,
        private,
    } = stored;
    let private = vault.open(Slot::Change(row.subject), &private)?;
    let private: Private = serde_json::from_slice(&private).map_err(|_| DAMAGED)?;
    row.place = match (parent, private.name) {
        (Some(parent), Some(name)) => Some(Place { parent, name }),
        (None, None) => None,
        _ => return Err(DAMAGED),
    };
    row.attributes = private.attributes;
    if let ChangeState::Parked { error } = &mut row.state {
        *error = private.error.unwrap_or_default();
    }
    if let Some(content) = &mut row.content {
        content.layers = layers(db, vault, row.subject)?;
    }
    Ok(row)
}

fn layers(db: &Connection, vault: &Vault, subject: Subject) -> Result<Vec<LayerRow>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT layer, staging, floor, sealed, ranges, inline FROM extent
         WHERE subject = ?1 ORDER BY layer",
    )?;
    let mut rows = statement.query([subject.to_i64()])?;
    let mut layers = Vec::new();
    while let Some(row) = rows.next()? {
        let staging: Option<i64> = row.get(1)?;
        let data = match staging {
            Some(id) => LayerData::File(StagingId(id.cast_unsigned())),
            None => {
                let sealed: Vec<u8> = row.get(5)?;
                LayerData::Inline(vault.open(Slot::Inline(subject, row.get(0)?), &sealed)?)
            }
        };
        let extents =
            RangeSet::decode(row.get_ref(4)?.as_blob().map_err(|_| DAMAGED)?).ok_or(DAMAGED)?;
        layers.push(LayerRow {
            data,
            floor: row.get::<_, i64>(2)?.cast_unsigned(),
            extents: extents.iter().collect(),
            sealed: row.get(3)?,
        });
    }
    Ok(layers)
}

pub(crate) fn change(
    db: &Connection,
    vault: &Vault,
    subject: Subject,
) -> Result<Option<ChangeRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM change WHERE subject = ?1");
    let stored = db
        .prepare_cached(&sql)?
        .query_row([subject.to_i64()], stored_from)
        .optional()?;
    stored.map(|stored| complete(db, vault, stored)).transpose()
}

pub(crate) fn changes(db: &Connection, vault: &Vault) -> Result<Vec<ChangeRow>, StoreError> {
    let mut statement = db.prepare_cached(&format!("SELECT {COLUMNS} FROM change"))?;
    let stored = statement.query_map([], stored_from)?;
    stored.map(|stored| complete(db, vault, stored?)).collect()
}

/// Replaces the row and its layers.
pub(crate) fn put(db: &Connection, vault: &Vault, row: &ChangeRow) -> Result<(), StoreError> {
    let subject = row.subject.to_i64();
    let (state, due, attempt, error) = match &row.state {
        ChangeState::Pending { due_ms } => (PENDING, Some(*due_ms), None, None),
        ChangeState::Pushing { attempt } => (PUSHING, None, Some(attempt.0.cast_signed()), None),
        ChangeState::Parked { error } => (PARKED, None, None, Some(error.clone())),
    };
    let private = Private {
        name: row.place.as_ref().map(|place| place.name.clone()),
        attributes: row.attributes.clone(),
        error,
    };
    let private = serde_json::to_vec(&private).map_err(|_| DAMAGED)?;
    let content = row.content.as_ref();
    db.prepare_cached(&format!(
        "INSERT OR REPLACE INTO change ({COLUMNS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)"
    ))?
    .execute(params![
        subject,
        row.kind.code(),
        row.place.as_ref().map(|place| place.parent.to_i64()),
        row.removed,
        row.replaces.map(handle_number),
        content.and_then(|content| content.base).map(handle_number),
        content.map(|content| content.size.cast_signed()),
        content.map(|content| content.generation.cast_signed()),
        content.map(|content| content.synced),
        state,
        due,
        attempt,
        row.since_ms,
        vault.seal(Slot::Change(row.subject), &private)?,
    ])?;
    delete_layers(db, row.subject)?;
    let layers = content.map_or(&[] as &[LayerRow], |content| &content.layers);
    for (number, layer) in (0_u32..).zip(layers) {
        let (staging, inline) = match &layer.data {
            LayerData::Inline(bytes) => (
                None,
                Some(vault.seal(Slot::Inline(row.subject, number), bytes)?),
            ),
            LayerData::File(id) => (Some(id.0.cast_signed()), None),
        };
        let ranges: RangeSet = layer.extents.iter().map(Range::clone).collect();
        db.prepare_cached("INSERT INTO extent VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
            .execute(params![
                subject,
                number,
                staging,
                layer.floor.min(i64::MAX.cast_unsigned()).cast_signed(),
                layer.sealed,
                ranges.encode(),
                inline,
            ])?;
    }
    Ok(())
}

fn delete_layers(db: &Connection, subject: Subject) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM extent WHERE subject = ?1")?
        .execute([subject.to_i64()])?;
    Ok(())
}

pub(crate) fn delete(db: &Connection, subject: Subject) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM change WHERE subject = ?1")?
        .execute([subject.to_i64()])?;
    delete_layers(db, subject)
}

pub(crate) fn mark_synced(
    db: &Connection,
    subject: Subject,
    generation: u64,
) -> Result<(), StoreError> {
    db.prepare_cached("UPDATE change SET synced = 1 WHERE subject = ?1 AND generation = ?2")?
        .execute(params![subject.to_i64(), generation.cast_signed()])?;
    Ok(())
}

pub(crate) fn retarget_children(
    db: &Connection,
    from: Subject,
    to: Subject,
) -> Result<(), StoreError> {
    db.prepare_cached("UPDATE change SET parent = ?2 WHERE parent = ?1")?
        .execute([from.to_i64(), to.to_i64()])?;
    Ok(())
}

/// Rows whose staged bytes may not have survived a power cut.
pub(crate) fn doubtful(db: &Connection) -> Result<Vec<Subject>, StoreError> {
    let mut statement = db.prepare_cached("SELECT subject FROM change WHERE doubtful = 1")?;
    let rows = statement.query_map([], |row| row.get(0).map(Subject::from_i64))?;
    Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
}

/// After a power cut: bytes in staging files that were never fsynced are in doubt. Inline bytes are
/// in the row itself.
pub(crate) fn doubt_unsynced(db: &Connection) -> Result<usize, StoreError> {
    Ok(db.execute(
        "UPDATE change SET doubtful = 1 WHERE size IS NOT NULL AND synced = 0 AND EXISTS
         (SELECT 1 FROM extent WHERE extent.subject = change.subject AND staging IS NOT NULL)",
        [],
    )?)
}

/// The staging files that some row counts on.
pub(crate) fn staging_in_use(db: &Connection) -> Result<HashSet<StagingId>, StoreError> {
    let mut statement = db.prepare("SELECT staging FROM extent WHERE staging IS NOT NULL")?;
    let rows = statement.query_map([], |row| row.get::<_, i64>(0))?;
    rows.map(|id| Ok(StagingId(id?.cast_unsigned()))).collect()
}

pub(crate) fn attempts(db: &Connection, vault: &Vault) -> Result<Vec<AttemptRow>, StoreError> {
    let mut statement = db.prepare_cached("SELECT id, subject, body FROM attempt")?;
    opened(vault, statement.query([])?)
}

pub(crate) fn attempts_of(
    db: &Connection,
    vault: &Vault,
    subject: Subject,
) -> Result<Vec<AttemptRow>, StoreError> {
    let mut statement =
        db.prepare_cached("SELECT id, subject, body FROM attempt WHERE subject = ?1")?;
    opened(vault, statement.query([subject.to_i64()])?)
}

fn opened(vault: &Vault, mut rows: Rows<'_>) -> Result<Vec<AttemptRow>, StoreError> {
    let mut attempts = Vec::new();
    while let Some(row) = rows.next()? {
        let id = AttemptId(row.get::<_, i64>(0)?.cast_unsigned());
        let sealed: Vec<u8> = row.get(2)?;
        attempts.push(AttemptRow {
            id,
            subject: Subject::from_i64(row.get(1)?),
            body: vault.open(Slot::Attempt(id), &sealed)?,
        });
    }
    Ok(attempts)
}

pub(crate) fn put_attempt(
    db: &Connection,
    vault: &Vault,
    row: &AttemptRow,
) -> Result<(), StoreError> {
    db.prepare_cached("INSERT OR REPLACE INTO attempt VALUES (?1, ?2, ?3)")?
        .execute(params![
            row.id.0.cast_signed(),
            row.subject.to_i64(),
            vault.seal(Slot::Attempt(row.id), &row.body)?,
        ])?;
    Ok(())
}

pub(crate) fn doomed(db: &Connection) -> Result<Vec<NodeHandle>, StoreError> {
    let mut statement = db.prepare_cached("SELECT handle FROM doomed")?;
    let rows = statement.query_map([], |row| row.get(0).map(number_handle))?;
    Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
}
