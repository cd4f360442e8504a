//! Recognises that a directory is being read file by file, and says which files come next.
//!
//! Programs walk in the order of the listing (`tar`, `find`, `grep -r`) or in that of the names (`rsync`,
//! a shell's `*`, file managers); both are followed, and a few files may be passed over. Owns a picture
//! of the last few directories that were walked; pure bookkeeping, starts nothing itself.

use std::collections::HashMap;

use mega_proto::NodeHandle;
use mega_store::Subject;
use mega_tree::Directory;
use mega_tree::node::Shape;

/// Directories walked at a time.
const WALKS: usize = 4;
/// Larger directories are not pictured.
const LARGEST: usize = 50_000;
/// Files that may be passed over between two that are read.
const GAP: usize = 4;
/// Steps after which it is a walk.
const STEPS: u32 = 2;
/// How many files ahead at first, and at most.
const AHEAD: (usize, usize) = (4, 64);

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Walks {
    recent: Vec<Walk>,
    clock: u64,
}

#[derive(Debug)]
struct Walk {
    directory: Subject,
    used: u64,
    last: NodeHandle,
    /// Made when the second file is read.
    picture: Option<Picture>,
    tracks: [Track; 2],
}

/// The files of a directory in both orders.
#[derive(Debug)]
struct Picture {
    orders: [Vec<NodeHandle>; 2],
    ranks: HashMap<NodeHandle, [usize; 2]>,
}

/// How far one order has been followed.
#[derive(Debug, Clone, Copy, Default)]
struct Track {
    steps: u32,
    /// What comes before this rank was said already.
    said: usize,
}

impl Picture {
    fn of(directory: &Directory) -> Option<Self> {
        if directory.len() > LARGEST {
            return None;
        }
        let mut listed = Vec::with_capacity(directory.len());
        let mut named = Vec::with_capacity(directory.len());
        for entry in directory.after(0) {
            if let (Subject::Node(handle), Shape::File) = (entry.subject, entry.facts.shape) {
                listed.push(handle);
                named.push((&entry.spelling, handle));
            }
        }
        named.sort_unstable();
        let named: Vec<_> = named.into_iter().map(|(_, handle)| handle).collect();
        let mut ranks = HashMap::with_capacity(listed.len());
        for (rank, handle) in listed.iter().enumerate() {
            ranks.insert(*handle, [rank, 0]);
        }
        for (rank, handle) in named.iter().enumerate() {
            if let Some([_, by_name]) = ranks.get_mut(handle) {
                *by_name = rank;
            }
        }
        Some(Self {
            orders: [listed, named],
            ranks,
        })
    }
}

impl Walks {
    /// A file of `directory` is read for the first time since it was opened: the files that will
    /// probably be read next and were not named before. `listing` is asked for the directory when it
    /// is worth looking at.
    pub(crate) fn note<'d>(
        &mut self,
        directory: Subject,
        file: NodeHandle,
        listing: impl FnOnce() -> Option<&'d Directory>,
    ) -> Vec<NodeHandle> {
        self.clock += 1;
        let known = self
            .recent
            .iter()
            .position(|walk| walk.directory == directory);
        let Some(walk) = known.and_then(|at| self.recent.get_mut(at)) else {
            self.begin(directory, file);
            return Vec::new();
        };
        walk.used = self.clock;
        if walk.last == file {
            return Vec::new();
        }
        let last = std::mem::replace(&mut walk.last, file);
        let is_pictured = walk
            .picture
            .as_ref()
            .is_some_and(|picture| picture.ranks.contains_key(&file));
        if !is_pictured {
            walk.picture = listing().and_then(Picture::of);
            walk.tracks = [Track::default(); 2];
        }
        walk.step(last, file)
    }

    fn begin(&mut self, directory: Subject, file: NodeHandle) {
        if self.recent.len() >= WALKS {
            let oldest = (0..self.recent.len())
                .min_by_key(|at| self.recent.get(*at).map_or(u64::MAX, |walk| walk.used));
            if let Some(at) = oldest {
                self.recent.swap_remove(at);
            }
        }
        self.recent.push(Walk {
            directory,
            used: self.clock,
            last: file,
            picture: None,
            tracks: [Track::default(); 2],
        });
    }
}

impl Walk {
    fn step(&mut self, last: NodeHandle, file: NodeHandle) -> Vec<NodeHandle> {
        let Some(picture) = &self.picture else {
            return Vec::new();
        };
        let (Some(from), Some(to)) = (picture.ranks.get(&last), picture.ranks.get(&file)) else {
            return Vec::new();
        };
        for ((track, from), to) in self.tracks.iter_mut().zip(from).zip(to) {
            let is_step = to
                .checked_sub(*from)
                .is_some_and(|by| (1..=GAP).contains(&by));
            if is_step {
                track.steps = track.steps.saturating_add(1);
            } else {
                *track = Track::default();
            }
        }
        let places = self.tracks.iter_mut().zip(&picture.orders).zip(to);
        let Some(((track, order), rank)) = places.max_by_key(|((track, _), _)| track.steps) else {
            return Vec::new();
        };
        if track.steps < STEPS {
            return Vec::new();
        }
        let (least, most) = AHEAD;
        let doubled = least.checked_shl(track.steps - STEPS).unwrap_or(most);
        let window = doubled.clamp(least, most);
        let next = rank + 1;
        let start = track.said.max(next);
        // In few portions: each is one request.
        if start - next > window / 2 {
            return Vec::new();
        }
        let end = (next + window).min(order.len());
        track.said = end;
        order.get(start..end).unwrap_or_default().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mega_tree::node::Facts;
    use mega_tree::{Child, StoredName};

    const TOP: Subject = Subject::Node(NodeHandle([9; 6]));

    /// Files 0 to `count`, listed in order and named in the opposite one.
    fn directory(count: u64) -> Directory {
        let child = |number: u64| Child {
            subject: Subject::Node(NodeHandle::from_u48(number)),
            stored: StoredName::Named(format!("{:05}", count - number)),
            suffix: None,
            facts: Facts::default(),
        };
        Directory::build((0..count).map(child).collect()).0
    }

    fn said(walks: &mut Walks, directory: &Directory, number: u64) -> Vec<u64> {
        let file = NodeHandle::from_u48(number);
        let next = walks.note(TOP, file, || Some(directory));
        next.into_iter().map(NodeHandle::to_u48).collect()
    }

    #[test]
    fn a_walk_is_told_ahead_once_and_in_growing_portions() {
        let directory = directory(1000);
        let mut walks = Walks::default();
        let mut all = Vec::new();
        let mut portions = 0;
        for number in 0..1000 {
            let next = said(&mut walks, &directory, number);
            portions += usize::from(!next.is_empty());
            assert!(
                next.iter()
                    .all(|next| (number + 1..=number + 64).contains(next))
            );
            all.extend(next);
        }
        assert_eq!(all, (3..1000).collect::<Vec<_>>());
        assert!(portions < 40, "{portions}");
    }

    #[test]
    fn names_are_followed_too_with_gaps() {
        let directory = directory(100);
        let mut walks = Walks::default();
        let told: Vec<u64> = (0..20)
            .flat_map(|step| said(&mut walks, &directory, 99 - 2 * step))
            .collect();
        assert_eq!(told.first(), Some(&94));
        assert!(told.windows(2).all(|pair| pair[0] == pair[1] + 1));
    }

    #[test]
    fn jumping_about_is_no_walk() {
        let directory = directory(1000);
        let mut walks = Walks::default();
        for step in 0..500 {
            assert!(said(&mut walks, &directory, step * 377 % 1000).is_empty());
        }
    }

    #[test]
    fn few_walks_are_remembered() {
        let directory = directory(10);
        let mut walks = Walks::default();
        for number in 0..100 {
            let top = Subject::Node(NodeHandle::from_u48(number));
            walks.note(top, NodeHandle::from_u48(1), || Some(&directory));
        }
        assert_eq!(walks.recent.len(), WALKS);
    }
}
