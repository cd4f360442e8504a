//! Sorting more rows than memory holds: sorted runs in one file without a name, merged at the end.
//!
//! The file is removed from its directory as soon as it is open, so a crash leaves nothing behind.
//! What is written there is what the database would hold: the server's ciphertext.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::durable;
use crate::error::StoreError;

/// Bytes read of each run at once. A tree of ten million nodes makes some hundred runs.
const READ: usize = 64 << 10;

/// What can be sorted.
pub(super) trait Record: Sized {
    /// The order. Equal keys keep the order in which they came.
    type Key: Ord + Copy + std::fmt::Debug;

    fn key(&self) -> Self::Key;
    /// Rough memory it takes.
    fn weight(&self) -> usize;
    fn encode(&self, out: &mut Vec<u8>);
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// Takes records in any order.
#[derive(Debug)]
pub(super) struct Sorter<R> {
    dir: PathBuf,
    /// Memory before a run is written out.
    limit: usize,
    batch: Vec<R>,
    weight: usize,
    spill: Option<Spill>,
}

/// The file and where each run ends in it.
#[derive(Debug)]
struct Spill {
    file: File,
    path: PathBuf,
    ends: Vec<u64>,
}

fn too_long() -> StoreError {
    StoreError::Damaged {
        what: "a row too long to sort",
    }
}

impl<R: Record> Sorter<R> {
    pub(super) fn new(dir: &Path, limit: usize) -> Self {
        Self {
            dir: dir.to_path_buf(),
            limit,
            batch: Vec::new(),
            weight: 0,
            spill: None,
        }
    }

    pub(super) fn push(&mut self, record: R) -> Result<(), StoreError> {
        self.weight += record.weight();
        self.batch.push(record);
        if self.weight >= self.limit {
            self.write_run()
        } else {
            Ok(())
        }
    }

    fn write_run(&mut self) -> Result<(), StoreError> {
        self.batch.sort_by_key(Record::key);
        if self.spill.is_none() {
            self.spill = Some(Spill::create(&self.dir)?);
        }
        let Some(spill) = &mut self.spill else {
            return Ok(());
        };
        let mut at = spill.ends.last().copied().unwrap_or(0);
        let mut out = Vec::with_capacity(1 << 20);
        let mut body = Vec::new();
        for record in self.batch.drain(..) {
            body.clear();
            record.encode(&mut body);
            let length = u32::try_from(body.len()).map_err(|_| too_long())?;
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(&body);
            if out.len() >= 1 << 20 {
                spill.write(&out, at)?;
                at += out.len() as u64;
                out.clear();
            }
        }
        spill.write(&out, at)?;
        spill.ends.push(at + out.len() as u64);
        self.weight = 0;
        Ok(())
    }

    /// Everything in order.
    pub(super) fn sorted(mut self) -> Result<Sorted<R>, StoreError> {
        if self.spill.is_none() {
            self.batch.sort_by_key(Record::key);
            return Ok(Sorted::Memory(self.batch.into_iter()));
        }
        if !self.batch.is_empty() {
            self.write_run()?;
        }
        // Its memory is needed elsewhere now.
        self.batch = Vec::new();
        let Some(spill) = self.spill else {
            return Ok(Sorted::Memory(Vec::new().into_iter()));
        };
        let mut merge = Merge {
            runs: Vec::new(),
            heap: BinaryHeap::new(),
            spill,
        };
        let mut start = 0;
        for (number, end) in merge.spill.ends.clone().into_iter().enumerate() {
            merge.runs.push(Run {
                at: start,
                end,
                buffer: Vec::new(),
                used: 0,
                next: None,
            });
            merge.advance(number)?;
            start = end;
        }
        Ok(Sorted::Merge(merge))
    }
}

impl Spill {
    fn create(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("load.tmp");
        let open = || {
            let file = durable::private_file()
                .create(true)
                .truncate(true)
                .open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        };
        let file = open().map_err(|source| StoreError::io(&path, source))?;
        Ok(Self {
            file,
            path,
            ends: Vec::new(),
        })
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<(), StoreError> {
        self.file
            .write_all_at(bytes, at)
            .map_err(|source| StoreError::io(&self.path, source))
    }
}

/// Records in order.
#[derive(Debug)]
pub(super) enum Sorted<R: Record> {
    Memory(std::vec::IntoIter<R>),
    Merge(Merge<R>),
}

impl<R: Record> Sorted<R> {
    pub(super) fn next(&mut self) -> Result<Option<R>, StoreError> {
        match self {
            Self::Memory(rows) => Ok(rows.next()),
            Self::Merge(merge) => merge.next(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Merge<R: Record> {
    runs: Vec<Run<R>>,
    /// The next key of each run that has one; of equal keys the earlier run comes first.
    heap: BinaryHeap<Reverse<(R::Key, usize)>>,
    spill: Spill,
}

#[derive(Debug)]
struct Run<R> {
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    used: usize,
    next: Option<R>,
}

impl<R: Record> Merge<R> {
    fn next(&mut self) -> Result<Option<R>, StoreError> {
        let Some(Reverse((_, number))) = self.heap.pop() else {
            return Ok(None);
        };
        let record = self.runs.get_mut(number).and_then(|run| run.next.take());
        self.advance(number)?;
        Ok(record)
    }

    /// Brings the next record of a run up.
    fn advance(&mut self, number: usize) -> Result<(), StoreError> {
        let Some(run) = self.runs.get_mut(number) else {
            return Ok(());
        };
        let fail = |source| StoreError::io(&self.spill.path, source);
        if let Some(record) = run.read(&self.spill.file).map_err(fail)? {
            self.heap.push(Reverse((record.key(), number)));
            run.next = Some(record);
        }
        Ok(())
    }
}

impl<R: Record> Run<R> {
    fn read(&mut self, file: &File) -> io::Result<Option<R>> {
        let Some(length) = self.take(file, 4)? else {
            return Ok(None);
        };
        let length = length.try_into().map(u32::from_le_bytes);
        let length = length.map_err(|_| io::ErrorKind::InvalidData)? as usize;
        let body = self
            .take(file, length)?
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        R::decode(body)
            .map(Some)
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The next `length` bytes of the run; `None` at its end.
    fn take(&mut self, file: &File, length: usize) -> io::Result<Option<&[u8]>> {
        if self.buffer.len() - self.used < length {
            self.buffer.drain(..self.used);
            self.used = 0;
            let kept = self.buffer.len();
            let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
            let more = left.min(READ.max(length));
            self.buffer.resize(kept + more, 0);
            let (_, fresh) = self.buffer.split_at_mut(kept);
            file.read_exact_at(fresh, self.at)?;
            self.at += more as u64;
        }
        let start = self.used;
        if self.buffer.len() - start < length {
            return Ok(None);
        }
        self.used += length;
        Ok(self.buffer.get(start..self.used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Word(u8, String);

    impl Record for Word {
        type Key = u8;

        fn key(&self) -> u8 {
            self.0
        }

        fn weight(&self) -> usize {
            self.1.len() + 1
        }

        fn encode(&self, out: &mut Vec<u8>) {
            out.push(self.0);
            out.extend_from_slice(self.1.as_bytes());
        }

        fn decode(bytes: &[u8]) -> Option<Self> {
            let (key, text) = bytes.split_first()?;
            Some(Self(*key, String::from_utf8(text.to_vec()).ok()?))
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn equals_a_stable_sort(
            words in prop::collection::vec((any::<u8>(), "[a-z]{0,40}"), 0..400),
            limit in 10_usize..5000,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut expected: Vec<Word> = words.into_iter().map(|(key, text)| Word(key, text)).collect();
            let mut sorter = Sorter::new(dir.path(), limit);
            for word in &expected {
                sorter.push(word.clone()).unwrap();
            }
            expected.sort_by_key(Record::key);
            let mut sorted = sorter.sorted().unwrap();
            let mut found = Vec::new();
            while let Some(word) = sorted.next().unwrap() {
                found.push(word);
            }
            prop_assert_eq!(found, expected);
            prop_assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn records_longer_than_a_buffer() {
        let dir = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::new(dir.path(), 10);
        for key in [3, 1, 2] {
            sorter
                .push(Word(key, "x".repeat(3 * READ + usize::from(key))))
                .unwrap();
        }
        let mut sorted = sorter.sorted().unwrap();
        for key in 1..=3 {
            let word = sorted.next().unwrap().unwrap();
            assert_eq!((word.0, word.1.len()), (key, 3 * READ + usize::from(key)));
        }
        assert!(sorted.next().unwrap().is_none());
    }
}
