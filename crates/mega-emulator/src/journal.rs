//! Owns durability of the emulator's state: an append-only text file of `kind TAB key TAB json`
//! lines, each handed to the kernel with one `write` before the request is answered. A killed
//! process therefore loses nothing; a crashed machine may (no fsync: this is a test server).
//! A torn last line is ignored. Values are whole records; `null` deletes.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

/// One line of the journal.
pub(crate) struct Record {
    /// Which map of the state.
    pub(crate) kind: String,
    /// Which entry of it.
    pub(crate) key: String,
    /// The entry, `Null` when it was removed.
    pub(crate) value: Value,
}

/// Appends records; in memory mode it does nothing.
pub(crate) struct Journal {
    file: Option<File>,
    dir: Option<PathBuf>,
    /// First failed write, reported by the control interface.
    pub(crate) error: Option<String>,
}

impl Journal {
    /// A journal that forgets.
    pub(crate) fn memory() -> Self {
        Self {
            file: None,
            dir: None,
            error: None,
        }
    }

    /// Opens `dir/journal` and hands every complete record to `apply`, oldest first.
    pub(crate) fn open(dir: &Path, mut apply: impl FnMut(Record)) -> std::io::Result<Self> {
        std::fs::create_dir_all(dir.join("content"))?;
        let path = dir.join("journal");
        let mut kept = 0_u64;
        if path.exists() {
            let mut reader = BufReader::with_capacity(1 << 20, File::open(&path)?);
            let mut line = String::new();
            loop {
                line.clear();
                let n = reader.read_line(&mut line)?;
                if n == 0 || !line.ends_with('\n') {
                    break;
                }
                let mut parts = line.trim_end().splitn(3, '\t');
                let (Some(kind), Some(key), Some(json)) =
                    (parts.next(), parts.next(), parts.next())
                else {
                    break;
                };
                let Ok(value) = serde_json::from_str(json) else {
                    break;
                };
                kept += n as u64;
                apply(Record {
                    kind: kind.to_owned(),
                    key: key.to_owned(),
                    value,
                });
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        // Cut a torn tail, or the next record would be glued to it.
        file.set_len(kept)?;
        Ok(Self {
            file: Some(file),
            dir: Some(dir.to_path_buf()),
            error: None,
        })
    }

    /// The data directory, `None` in memory mode.
    pub(crate) fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// Appends one record.
    pub(crate) fn put(&mut self, kind: &str, key: &str, value: &impl Serialize) {
        let Some(file) = &mut self.file else { return };
        let written = serde_json::to_string(value)
            .map_err(std::io::Error::from)
            .and_then(|json| file.write_all(format!("{kind}\t{key}\t{json}\n").as_bytes()));
        if let Err(e) = written {
            self.error.get_or_insert_with(|| e.to_string());
        }
    }

    /// Appends the removal of a record.
    pub(crate) fn delete(&mut self, kind: &str, key: &str) {
        self.put(kind, key, &Value::Null);
    }

    /// Replaces the whole journal by `records` atomically (used once at start to shed history).
    pub(crate) fn rewrite(
        &mut self,
        records: impl Iterator<Item = (String, String, Value)>,
    ) -> std::io::Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let (new, old) = (dir.join("journal.new"), dir.join("journal"));
        let mut out = std::io::BufWriter::new(File::create(&new)?);
        for (kind, key, value) in records {
            writeln!(out, "{kind}\t{key}\t{value}")?;
        }
        out.flush()?;
        drop(out);
        std::fs::rename(&new, &old)?;
        self.file = Some(OpenOptions::new().append(true).open(&old)?);
        Ok(())
    }
}
