//! One directory as the user sees it.
//!
//! # Names
//! When a directory is built, spellings are given in this order, each taken only when still free:
//! local entries (their name was checked when they were made), nodes with a stored suffix, then all
//! others by (arrival, `ts`, handle): the first of a name gets the plain spelling, and a node really
//! named `a (1).txt` keeps it. Whoever is left counts on from 1 until a spelling is free, and that
//! number is reported so that the caller stores it. Afterwards entries come and go one at a time and
//! never move another entry's spelling. With [`Naming::newest`] it is the last of a name that gets the plain
//! spelling, here and when the caller moves out of the way who has it ([`Directory::in_the_way`]).
//!
//! # Order
//! Every entry has a cookie, given once and growing, so that readdir continues correctly while
//! entries come and go. Insertion, removal and look-up are logarithmic or hashed: nothing here walks
//! the directory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use mega_store::Subject;

use crate::naming::Naming;
use crate::node::{Facts, Shape};
use crate::spelling::{StoredName, suffixed};

/// Cookies below this are `.` and `..`.
pub const FIRST_COOKIE: u64 = 3;

/// What is needed to place something into a directory.
#[derive(Debug, Clone)]
pub struct Child {
    /// Node or local row.
    pub subject: Subject,
    /// Name on Mega (or that it will have there).
    pub stored: StoredName,
    /// Duplicate number assigned earlier, if any.
    pub suffix: Option<u32>,
    /// Attributes for `stat`.
    pub facts: Facts,
}

/// One name in a directory.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Node or local row.
    pub subject: Subject,
    /// What the user sees.
    pub spelling: Arc<str>,
    /// What Mega has.
    pub stored: StoredName,
    /// Duplicate number, when the spelling has one.
    pub suffix: Option<u32>,
    /// Place in the listing.
    pub cookie: u64,
    /// Attributes for `stat`.
    pub facts: Facts,
}

/// A duplicate number that was given and has to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewSuffix {
    /// Whose it is.
    pub subject: Subject,
    /// Its number, from 1.
    pub number: u32,
}

/// A loaded directory.
#[derive(Debug, Default)]
pub struct Directory {
    entries: BTreeMap<u64, Entry>,
    by_name: HashMap<Arc<str>, u64>,
    by_subject: HashMap<Subject, u64>,
    /// How many entries are directories.
    folders: usize,
    next_cookie: u64,
    /// A spelling that is never given.
    reserved: Option<&'static str>,
    /// Where counting on starts for a spelling, so that thousands of equal names stay linear.
    counters: HashMap<Arc<str>, u32>,
    naming: Naming,
    /// The entries of one name when case is ignored; empty where case counts.
    by_fold: HashMap<String, BTreeSet<u64>>,
}

impl Directory {
    /// Builds a directory from all its children; `children` come in (arrival, `ts`, handle) order.
    /// Returns the suffixes that were assigned now and have to be stored.
    #[must_use]
    pub fn build(children: Vec<Child>) -> (Self, Vec<NewSuffix>) {
        Self::build_as(children, Naming::default(), None)
    }

    /// The same with names compared as `naming` says; `reserved` is a spelling that no entry gets, now or later.
    #[must_use]
    pub fn build_as(
        children: Vec<Child>,
        naming: Naming,
        reserved: Option<&'static str>,
    ) -> (Self, Vec<NewSuffix>) {
        let mut directory = Self {
            reserved,
            naming,
            by_name: HashMap::with_capacity(children.len()),
            by_subject: HashMap::with_capacity(children.len()),
            ..Self::default()
        };
        // The listing keeps the order of arrival, whichever pass gives the spelling.
        let base = FIRST_COOKIE;
        directory.next_cookie = base + children.len() as u64;
        let mut waiting = Vec::new();
        let mut later = Vec::new();
        for (cookie, child) in (base..).zip(children) {
            match (child.subject, child.suffix) {
                (Subject::Local(_), _) | (_, Some(_)) => {
                    let plain = naming.spell(&child.stored, child.subject);
                    let spelling = suffixed(&plain, child.suffix.unwrap_or(0));
                    if directory.is_taken(&spelling) {
                        later.push((cookie, child));
                    } else {
                        directory.place(cookie, child, spelling.into());
                    }
                }
                (Subject::Node(_), None) => waiting.push((cookie, child)),
            }
        }
        if naming.newest {
            waiting.reverse();
        }
        for (cookie, child) in waiting {
            let spelling = naming.spell(&child.stored, child.subject);
            if directory.is_taken(&spelling) {
                later.push((cookie, child));
            } else {
                directory.place(cookie, child, spelling.into());
            }
        }
        if naming.newest {
            // The older, the smaller the number.
            later.sort_unstable_by_key(|(cookie, _)| *cookie);
        }
        let mut assigned = Vec::new();
        for (cookie, child) in later {
            assigned.push(directory.place_counting_on(cookie, child));
        }
        (directory, assigned)
    }

    fn is_taken(&self, spelling: &str) -> bool {
        self.reserved == Some(spelling) || self.by_name.contains_key(spelling)
    }

    fn place(&mut self, cookie: u64, child: Child, spelling: Arc<str>) {
        self.by_name.insert(Arc::clone(&spelling), cookie);
        if let Some(fold) = self.naming.folded(&spelling) {
            self.by_fold.entry(fold).or_default().insert(cookie);
        }
        self.by_subject.insert(child.subject, cookie);
        self.folders += usize::from(child.facts.shape == Shape::Directory);
        self.entries.insert(
            cookie,
            Entry {
                subject: child.subject,
                spelling,
                stored: child.stored,
                suffix: child.suffix,
                cookie,
                facts: child.facts,
            },
        );
    }

    fn place_counting_on(&mut self, cookie: u64, mut child: Child) -> NewSuffix {
        let plain: Arc<str> = self.naming.spell(&child.stored, child.subject).into();
        let mut number = self.counters.get(&plain).copied().unwrap_or(1);
        let spelling = loop {
            let candidate = suffixed(&plain, number);
            if !self.is_taken(&candidate) {
                break candidate;
            }
            number = number.saturating_add(1);
        };
        self.counters.insert(plain, number.saturating_add(1));
        child.suffix = Some(number);
        let subject = child.subject;
        self.place(cookie, child, spelling.into());
        NewSuffix { subject, number }
    }

    /// Adds one entry; an entry of the same subject is replaced (keeping its cookie). Returns a
    /// suffix that was assigned and has to be stored.
    pub fn insert(&mut self, child: Child) -> Option<NewSuffix> {
        let cookie = match self.remove(child.subject) {
            Some(old) => old.cookie,
            None => {
                let cookie = self.next_cookie.max(FIRST_COOKIE);
                self.next_cookie = cookie + 1;
                cookie
            }
        };
        let plain = self.naming.spell(&child.stored, child.subject);
        let spelling = suffixed(&plain, child.suffix.unwrap_or(0));
        if self.is_taken(&spelling) {
            Some(self.place_counting_on(cookie, child))
        } else {
            self.place(cookie, child, spelling.into());
            None
        }
    }

    /// The node that has the plain spelling which the last of its name, `child`, is to get; none when it is free,
    /// or a local entry has it.
    #[must_use]
    pub fn in_the_way(&self, child: &Child) -> Option<&Entry> {
        if !self.naming.newest || child.suffix.is_some_and(|number| number > 0) {
            return None;
        }
        let plain = self.naming.spell(&child.stored, child.subject);
        let entry = self.entries.get(self.by_name.get(plain.as_str())?)?;
        let is_plain = entry.suffix.is_none_or(|number| number == 0);
        let is_node = matches!(entry.subject, Subject::Node(_)) && entry.subject != child.subject;
        (is_plain && is_node).then_some(entry)
    }

    /// Gives an entry a number instead of its plain spelling, which becomes free; its place in the listing stays.
    /// The number has to be stored.
    pub fn step_aside(&mut self, subject: Subject) -> Option<NewSuffix> {
        let entry = self.remove(subject)?;
        let child = Child {
            subject,
            stored: entry.stored,
            suffix: None,
            facts: entry.facts,
        };
        Some(self.place_counting_on(entry.cookie, child))
    }

    /// Removes the entry of `subject`.
    pub fn remove(&mut self, subject: Subject) -> Option<Entry> {
        let cookie = self.by_subject.remove(&subject)?;
        let entry = self.entries.remove(&cookie)?;
        self.by_name.remove(&entry.spelling);
        if let Some(fold) = self.naming.folded(&entry.spelling)
            && let Some(cookies) = self.by_fold.get_mut(&fold)
        {
            cookies.remove(&cookie);
            if cookies.is_empty() {
                self.by_fold.remove(&fold);
            }
        }
        self.folders -= usize::from(entry.facts.shape == Shape::Directory);
        if let Some(number) = entry.suffix {
            // A freed number is found again by counting from there.
            let plain: Arc<str> = self.naming.spell(&entry.stored, subject).into();
            if let Some(next) = self.counters.get_mut(&plain) {
                *next = (*next).min(number);
            }
        }
        Some(entry)
    }

    /// The same entry now stands for another subject (our upload was confirmed); name and cookie stay.
    pub fn resubject(&mut self, old: Subject, new: Subject, facts: Facts) -> bool {
        let Some(cookie) = self.by_subject.remove(&old) else {
            return false;
        };
        self.by_subject.insert(new, cookie);
        if let Some(entry) = self.entries.get_mut(&cookie) {
            entry.subject = new;
        }
        self.set_facts(new, facts);
        true
    }

    /// Replaces what `stat` shows of `subject`.
    pub fn set_facts(&mut self, subject: Subject, facts: Facts) {
        if let Some(entry) = self
            .by_subject
            .get(&subject)
            .and_then(|c| self.entries.get_mut(c))
        {
            self.folders -= usize::from(entry.facts.shape == Shape::Directory);
            self.folders += usize::from(facts.shape == Shape::Directory);
            entry.facts = facts;
        }
    }

    /// The entry spelled `name`; where case is ignored, else the first one of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Entry> {
        let typed = self.naming.typed(name);
        let exact = self.by_name.get(typed.as_ref());
        let cookie = exact.or_else(|| {
            let fold = self.naming.folded(&typed)?;
            self.by_fold.get(&fold)?.first()
        });
        cookie.and_then(|cookie| self.entries.get(cookie))
    }

    /// The entry of `subject`.
    #[must_use]
    pub fn of(&self, subject: Subject) -> Option<&Entry> {
        self.by_subject
            .get(&subject)
            .and_then(|cookie| self.entries.get(cookie))
    }

    /// Entries whose cookie is greater than `cookie`, in listing order.
    pub fn after(&self, cookie: u64) -> impl Iterator<Item = &Entry> {
        self.entries
            .range(cookie.saturating_add(1)..)
            .map(|(_, entry)| entry)
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Number of entries that are directories.
    #[must_use]
    pub fn folders(&self) -> usize {
        self.folders
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mega_proto::NodeHandle;
    use mega_store::LocalId;
    use proptest::prelude::*;

    fn child(handle: u64, name: &str) -> Child {
        Child {
            subject: Subject::Node(NodeHandle::from_u48(handle)),
            stored: StoredName::Named(name.to_owned()),
            suffix: None,
            facts: Facts::default(),
        }
    }

    fn names(directory: &Directory) -> Vec<(u64, String)> {
        let mut all: Vec<_> = directory
            .after(0)
            .map(|e| match e.subject {
                Subject::Node(h) => (h.to_u48(), e.spelling.to_string()),
                Subject::Local(id) => (id.0, e.spelling.to_string()),
            })
            .collect();
        all.sort();
        all
    }

    const BOTH: Naming = Naming {
        normalize: true,
        ignore_case: true,
        newest: false,
    };

    #[test]
    fn either_form_of_a_name_finds_it_and_the_composed_one_is_shown() {
        let naming = Naming {
            normalize: true,
            ..Naming::default()
        };
        let children = vec![child(1, "e\u{301}.txt"), child(2, "\u{e9}.txt")];
        let (directory, new) = Directory::build_as(children, naming, None);
        let shown = names(&directory);
        assert_eq!(
            shown,
            [(1, "\u{e9}.txt".into()), (2, "\u{e9} (1).txt".into())]
        );
        assert_eq!(new.len(), 1);
        for name in ["e\u{301}.txt", "\u{e9}.txt"] {
            let found = directory.get(name).unwrap();
            assert_eq!(found.subject, child(1, "").subject, "{name}");
        }
        assert!(directory.get("\u{c9}.txt").is_none());
    }

    #[test]
    fn case_is_ignored_only_where_there_is_no_exact_name() {
        let children = vec![
            child(1, "Readme"),
            child(2, "README"),
            child(3, "\u{3bf}\u{3c2}"),
            child(4, "\u{df}\u{301}"),
        ];
        let (mut directory, _) = Directory::build_as(children, BOTH, None);
        let found = |directory: &Directory, name: &str| match directory.get(name)?.subject {
            Subject::Node(handle) => Some(handle.to_u48()),
            Subject::Local(_) => None,
        };
        assert_eq!(found(&directory, "README"), Some(2));
        assert_eq!(found(&directory, "Readme"), Some(1));
        assert_eq!(found(&directory, "readme"), Some(1), "the first to come");
        assert_eq!(found(&directory, "\u{39f}\u{3a3}"), Some(3));
        assert_eq!(found(&directory, "SS\u{301}"), Some(4));
        directory.remove(child(1, "").subject);
        assert_eq!(found(&directory, "Readme"), Some(2));
        assert_eq!(found(&directory, "other"), None);
    }

    #[test]
    fn the_last_of_a_name_can_have_it() {
        let naming = Naming {
            newest: true,
            ..Naming::default()
        };
        let children = vec![child(1, "a"), child(2, "a"), child(3, "b"), child(4, "a")];
        let (mut directory, assigned) = Directory::build_as(children.clone(), naming, None);
        let first = names(&directory);
        let shown = ["a (1)", "a (2)", "b", "a"];
        assert!(first.iter().map(|(_, name)| name).eq(shown), "{first:?}");
        assert_eq!(assigned.len(), 2);
        // Built again with the numbers that were stored it is the same.
        let numbered = children.into_iter().map(|mut child| {
            let new = assigned.iter().find(|new| new.subject == child.subject);
            child.suffix = new.map(|new| new.number);
            child
        });
        let (again, new) = Directory::build_as(numbered.collect(), naming, None);
        assert_eq!((names(&again), new.len()), (first, 0));
        // Who came before makes way, once.
        let next = child(5, "a");
        let old = directory.in_the_way(&next).unwrap().subject;
        assert_eq!(old, child(4, "").subject);
        assert_eq!(directory.step_aside(old).unwrap().number, 3);
        assert!(directory.insert(next.clone()).is_none());
        let listed = directory.after(0).map(|entry| entry.spelling.to_string());
        assert_eq!(
            listed.collect::<Vec<_>>(),
            ["a (1)", "a (2)", "b", "a (3)", "a"]
        );
        assert!(directory.in_the_way(&next).is_none(), "it is its own");
        // A numbered one looks for no way, and in the other order nobody does.
        let numbered = Child {
            suffix: Some(7),
            ..child(6, "a")
        };
        assert!(directory.in_the_way(&numbered).is_none());
        let (plain, _) = Directory::build(vec![child(1, "a")]);
        assert!(plain.in_the_way(&child(2, "a")).is_none());
    }

    proptest! {
        /// Total, bijective and stable: every entry has a spelling of its own that finds it, in both forms of
        /// Unicode, after a removal as before, and a directory built again is the same one.
        #[test]
        fn other_ways_of_comparing_keep_names_apart(
            stored in proptest::collection::vec("[aAeE\u{301}\u{e9}\u{c9}\u{df}./%]{1,4}", 1..12),
            gone in 0usize..12,
        ) {
            use unicode_normalization::UnicodeNormalization as _;
            let children: Vec<_> = (1..).zip(&stored).map(|(h, name)| child(h, name)).collect();
            let (mut directory, assigned) = Directory::build_as(children.clone(), BOTH, None);
            prop_assert_eq!(directory.len(), children.len());
            let numbered = children.iter().cloned().map(|mut child| {
                let new = assigned.iter().find(|new| new.subject == child.subject);
                child.suffix = new.map(|new| new.number);
                child
            });
            let (again, new) = Directory::build_as(numbered.collect(), BOTH, None);
            prop_assert_eq!(names(&again), names(&directory));
            prop_assert!(new.is_empty());
            if let Some(child) = children.get(gone) {
                directory.remove(child.subject);
            }
            for entry in directory.after(0) {
                let decomposed: String = entry.spelling.nfd().collect();
                for name in [entry.spelling.as_ref(), decomposed.as_str()] {
                    let found = directory.get(name).map(|found| found.subject);
                    prop_assert_eq!(found, Some(entry.subject));
                }
                prop_assert!(directory.get(&entry.spelling.to_uppercase()).is_some());
                prop_assert!(unicode_normalization::is_nfc(&entry.spelling));
            }
        }
    }

    #[test]
    fn duplicates_are_numbered_and_real_names_stay() {
        let (directory, new) = Directory::build(vec![
            child(1, "a.txt"),
            child(2, "a.txt"),
            child(3, "a (1).txt"),
            child(4, "a.txt"),
        ]);
        assert_eq!(
            names(&directory),
            [
                (1, "a.txt"),
                (2, "a (2).txt"),
                (3, "a (1).txt"),
                (4, "a (3).txt")
            ]
            .map(|(h, n)| (h, n.to_owned()))
        );
        assert_eq!(new.len(), 2);
    }

    #[test]
    fn stored_suffixes_survive_the_plain_one_leaving() {
        let mut second = child(2, "a.txt");
        second.suffix = Some(1);
        let (directory, new) = Directory::build(vec![second]);
        assert_eq!(names(&directory), [(2, "a (1).txt".to_owned())]);
        assert!(new.is_empty());
    }

    #[test]
    fn local_entries_keep_their_name_against_arriving_nodes() {
        let local = Child {
            subject: Subject::Local(LocalId(9)),
            ..child(0, "a")
        };
        let (directory, new) = Directory::build(vec![child(1, "a"), local]);
        assert_eq!(
            names(&directory),
            [(1, "a (1)".to_owned()), (9, "a".to_owned())]
        );
        assert_eq!(new.len(), 1);
    }

    proptest! {
        #[test]
        fn spellings_are_unique_and_never_move(ops in proptest::collection::vec((0u64..12, "a( \\([12]\\))?|b/", any::<bool>()), 1..60)) {
            let (mut directory, _) = Directory::build(Vec::new());
            let mut expected: HashMap<u64, String> = HashMap::new();
            for (handle, name, add) in ops {
                let item = child(handle, &name);
                let subject = item.subject;
                if add && directory.of(subject).is_none() {
                    directory.insert(item);
                    expected.insert(handle, directory.of(subject).unwrap().spelling.to_string());
                } else if !add {
                    directory.remove(subject);
                    expected.remove(&handle);
                }
                let mut want: Vec<_> = expected.iter().map(|(h, n)| (*h, n.clone())).collect();
                want.sort();
                prop_assert_eq!(names(&directory), want);
                let mut unique: Vec<_> = expected.values().collect();
                unique.sort();
                unique.dedup();
                prop_assert_eq!(unique.len(), expected.len());
                for (h, n) in &expected {
                    let found = directory.get(n).map(|e| e.subject);
                    prop_assert_eq!(found, Some(Subject::Node(NodeHandle::from_u48(*h))));
                }
            }
        }
    }
}
