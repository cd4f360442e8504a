//! What counts as the same name, where the user has asked for more than bytes.
//!
//! Normalising: names are shown in the composed form of Unicode (NFC), whichever form Mega has, and typed
//! names are brought into it. Ignoring case: a name that is not there is looked for without regard to case.
//! What is shown stays unique in a directory: two names that become one are duplicates.

use std::borrow::Cow;

use mega_store::Subject;
use unicode_normalization::{UnicodeNormalization as _, is_nfc};

use crate::spelling::{StoredName, spell};

/// How names are compared. By default byte by byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Naming {
    /// Show and store names in NFC.
    pub normalize: bool,
    /// Find a name of another case where there is no exact one.
    pub ignore_case: bool,
    /// Of several of one name the last has the plain name and the others have numbers; else the first has it.
    pub newest: bool,
}

impl Naming {
    /// Whether names are what their bytes are: one entry has one name.
    #[must_use]
    pub const fn is_exact(self) -> bool {
        !self.normalize && !self.ignore_case
    }

    /// As [`spell`], in the form that is shown.
    #[must_use]
    pub fn spell(self, stored: &StoredName, subject: Subject) -> String {
        match stored {
            StoredName::Named(name) if self.normalize && !is_nfc(name) => {
                spell(&StoredName::Named(name.nfc().collect()), subject)
            }
            _ => spell(stored, subject),
        }
    }

    /// A typed name in the form that is shown and stored.
    #[must_use]
    pub fn typed(self, name: &str) -> Cow<'_, str> {
        if self.normalize && !is_nfc(name) {
            Cow::Owned(name.nfc().collect())
        } else {
            Cow::Borrowed(name)
        }
    }

    /// What two names have in common that differ only in case; `None` where case counts.
    #[must_use]
    pub fn folded(self, name: &str) -> Option<String> {
        // By way of the upper case, so that both forms of a final sigma become one.
        self.ignore_case.then(|| {
            let folded = name.chars().flat_map(char::to_uppercase);
            let folded = folded.flat_map(char::to_lowercase);
            // What a letter becomes can be composed in turn: an accent after a sharp s belongs to the second s.
            match self.normalize {
                true => folded.nfc().collect(),
                false => folded.collect(),
            }
        })
    }
}
