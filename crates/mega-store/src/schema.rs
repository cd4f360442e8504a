//! The tables of `state.db`. `docs/STATE.md` explains every column.
//!
//! An unknown format is refused: this program never guesses at another version's rows.

use rusqlite::{Connection, OptionalExtension};

use crate::error::StoreError;

/// The version of everything in the state and cache directories.
pub(crate) const FORMAT: u32 = 1;

/// `mgst` in the file's header, so that `file` and a curious user can tell what it is.
const APPLICATION_ID: i32 = 0x6d67_7374;

/// The columns of a table of nodes, clustered by parent; `node` and the loader's `node_next`.
const NODE_COLUMNS: &str = "(
    parent INTEGER NOT NULL,
    handle INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    owner INTEGER,
    size INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    key TEXT NOT NULL,
    attrs BLOB NOT NULL,
    fa TEXT,
    arrival INTEGER NOT NULL,
    suffix INTEGER,
    PRIMARY KEY (parent, handle)
) WITHOUT ROWID";

/// The columns of `node_parent`, which finds a node by its handle. It is a table and not an index
/// of `node`, so that a loader can fill it in its own order.
const PARENT_COLUMNS: &str = "(handle INTEGER PRIMARY KEY, parent INTEGER NOT NULL)";

/// The columns of `node_size`, which finds larger files by their size. A table for the same reason.
const SIZE_COLUMNS: &str =
    "(size INTEGER NOT NULL, handle INTEGER NOT NULL, PRIMARY KEY (size, handle)) WITHOUT ROWID";

const SHARE_COLUMNS: &str = "(
    handle INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    user INTEGER NOT NULL,
    key TEXT NOT NULL,
    access INTEGER,
    extra TEXT,
    PRIMARY KEY (handle, kind, user)
) WITHOUT ROWID";

const OTHER_TABLES: &str = "
CREATE TABLE change (
    subject INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    parent INTEGER,
    removed INTEGER NOT NULL,
    replaces INTEGER,
    base INTEGER,
    size INTEGER,
    generation INTEGER,
    synced INTEGER,
    state INTEGER NOT NULL,
    due_ms INTEGER,
    attempt INTEGER,
    since_ms INTEGER NOT NULL,
    doubtful INTEGER NOT NULL DEFAULT 0,
    private BLOB NOT NULL
);
CREATE INDEX change_parent ON change (parent) WHERE parent IS NOT NULL;
CREATE TABLE extent (
    subject INTEGER NOT NULL,
    layer INTEGER NOT NULL,
    staging INTEGER,
    floor INTEGER NOT NULL,
    sealed INTEGER NOT NULL,
    ranges BLOB NOT NULL,
    inline BLOB,
    PRIMARY KEY (subject, layer)
) WITHOUT ROWID;
CREATE TABLE doomed (handle INTEGER PRIMARY KEY);
CREATE TABLE attempt (
    id INTEGER PRIMARY KEY,
    subject INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE blob (
    handle INTEGER PRIMARY KEY,
    size INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    units BLOB NOT NULL,
    synced BLOB NOT NULL,
    macs BLOB NOT NULL,
    verified INTEGER NOT NULL,
    active INTEGER NOT NULL,
    doubtful INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    last_use INTEGER NOT NULL
);
CREATE INDEX blob_lru ON blob (last_use, bytes);
CREATE INDEX blob_active ON blob (active) WHERE active = 1;
";

/// Creates the tables in an empty database, checks the format in any other.
pub(crate) fn prepare(connection: &Connection) -> Result<(), StoreError> {
    let is_new = !has_table(connection, "meta")?;
    if is_new {
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE;
             PRAGMA application_id = {APPLICATION_ID};
             CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
             INSERT INTO meta VALUES ('store.format', {FORMAT});
             CREATE TABLE node {NODE_COLUMNS};
             CREATE TABLE node_parent {PARENT_COLUMNS};
             CREATE TABLE node_size {SIZE_COLUMNS};
             CREATE TABLE share {SHARE_COLUMNS};
             {OTHER_TABLES}
             COMMIT;"
        ))?;
        return Ok(());
    }
    let found: Option<i64> = connection
        .query_row(
            "SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'store.format'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    if found == Some(i64::from(FORMAT)) {
        return Ok(());
    }
    Err(StoreError::UnknownFormat {
        found: found.map_or_else(|| "(none)".to_owned(), |number| number.to_string()),
        expected: FORMAT,
    })
}

/// Creates an empty `node_size`; states of the first versions have none.
pub(crate) fn create_sizes(connection: &Connection) -> Result<(), StoreError> {
    connection.execute_batch(&format!("CREATE TABLE node_size {SIZE_COLUMNS}"))?;
    Ok(())
}

/// Creates the loader's empty tables.
pub(crate) fn create_next(connection: &Connection) -> Result<(), StoreError> {
    connection.execute_batch(&format!(
        "DROP TABLE IF EXISTS share_next;
         CREATE TABLE node_next {NODE_COLUMNS};
         CREATE TABLE node_parent_next {PARENT_COLUMNS};
         CREATE TABLE node_size_next {SIZE_COLUMNS};
         CREATE TABLE share_next {SHARE_COLUMNS};"
    ))?;
    Ok(())
}

/// Puts the loader's tables in the place of the truth; the former nodes stay as `node_old`,
/// `node_parent_old` and `node_size_old`, which the loader deletes bit by bit. Only renames, so it is quick whatever the
/// size.
pub(crate) fn swap_next(connection: &Connection) -> Result<(), StoreError> {
    connection.execute_batch(
        "ALTER TABLE node RENAME TO node_old;
         ALTER TABLE node_next RENAME TO node;
         ALTER TABLE node_parent RENAME TO node_parent_old;
         ALTER TABLE node_parent_next RENAME TO node_parent;
         ALTER TABLE node_size RENAME TO node_size_old;
         ALTER TABLE node_size_next RENAME TO node_size;
         DROP TABLE share;
         ALTER TABLE share_next RENAME TO share;",
    )?;
    Ok(())
}

/// Drops what [`swap_next`] left.
pub(crate) fn drop_old(connection: &Connection) -> Result<(), StoreError> {
    connection.execute_batch(
        "DROP TABLE node_old; DROP TABLE node_parent_old; DROP TABLE node_size_old;",
    )?;
    Ok(())
}

/// Whether a table exists.
pub(crate) fn has_table(connection: &Connection, name: &str) -> Result<bool, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1")?;
    Ok(statement.exists([name])?)
}
