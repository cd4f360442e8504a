//! How a stored name is spelled on Linux, and back.
//!
//! Mega stores any Unicode string as a name: empty, `.`, with `/` or NUL, longer than 255 bytes, and
//! several siblings may share one (protocol/03 section 12). The mapping here is the one promised in
//! docs/SEMANTICS.md:
//!
//! * `/` is spelled `%2f` and NUL `%00`; the whole names `.` and `..` are `%2e` and `%2e%2e`.
//! * A `%` is escaped (as `%25`) only where the text would otherwise read as one of these escapes, so
//!   `100%.txt` and `100%25.txt` both keep their spelling.
//! * A node without a name is `NO_NAME_<handle>`, one that cannot be decrypted `NO_KEY_<handle>`.
//! * A spelling longer than 255 bytes is cut and gets `~<handle>` before its extension.
//! * The n-th further sibling of one name gets ` (n)` before its extension.
//!
//! [`escape`] and [`unescape`] are inverse to each other on all names that are not synthesised. This
//! module never looks at other nodes; [`crate::directory`] does.

use mega_store::Subject;

/// Longest name Linux takes, in bytes.
pub const NAME_MAX: usize = 255;

/// What a node is really called on Mega.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoredName {
    /// The attribute `n`, not empty.
    Named(String),
    /// The attributes were readable but `n` is missing or empty.
    Nameless,
    /// The node could not be decrypted.
    NoKey,
}

impl StoredName {
    /// The name as stored, when there is one.
    #[must_use]
    pub fn as_named(&self) -> Option<&str> {
        match self {
            Self::Named(name) => Some(name),
            Self::Nameless | Self::NoKey => None,
        }
    }

    /// Wraps a decrypted attribute `n`.
    #[must_use]
    pub fn from_attribute(name: Option<&str>) -> Self {
        Self::from_owned(name.map(str::to_owned))
    }

    /// As [`from_attribute`](Self::from_attribute), of a name that nobody else needs.
    #[must_use]
    pub fn from_owned(name: Option<String>) -> Self {
        match name {
            Some(name) if !name.is_empty() => Self::Named(name),
            _ => Self::Nameless,
        }
    }
}

/// The spelling of a stored name when no sibling has the same one.
#[must_use]
pub fn spell(stored: &StoredName, subject: Subject) -> String {
    match stored {
        StoredName::Named(name) => {
            let escaped = escape(name);
            if escaped.len() <= NAME_MAX {
                escaped
            } else {
                let (stem, extension) = split_extension(&escaped);
                let mark = format!("~{}", subject_mark(subject));
                cut(stem, NAME_MAX.saturating_sub(mark.len() + extension.len())).to_owned()
                    + &mark
                    + extension
            }
        }
        StoredName::Nameless => format!("NO_NAME_{}", subject_mark(subject)),
        StoredName::NoKey => format!("NO_KEY_{}", subject_mark(subject)),
    }
}

/// The spelling of the `number`-th further sibling called like `spelling`, at most 255 bytes.
#[must_use]
pub fn suffixed(spelling: &str, number: u32) -> String {
    if number == 0 {
        return spelling.to_owned();
    }
    let (stem, extension) = split_extension(spelling);
    let suffix = format!(" ({number})");
    let room = NAME_MAX.saturating_sub(suffix.len() + extension.len());
    format!("{}{suffix}{extension}", cut(stem, room))
}

fn subject_mark(subject: Subject) -> String {
    match subject {
        Subject::Node(handle) => handle.to_string(),
        Subject::Local(id) => format!("local{}", id.0),
    }
}

/// Splits before the last dot, unless the dot is first, or what follows is no plausible extension.
fn split_extension(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(at) if at > 0 && name.len() - at <= 32 && at + 1 < name.len() => name.split_at(at),
        _ => (name, ""),
    }
}

fn cut(text: &str, room: usize) -> &str {
    let mut end = room.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or("")
}

/// Strips leading `25`s and tells what an escape that begins after a `%` stands for, with its length.
fn escape_token(after_percent: &str) -> Option<(usize, Token)> {
    let mut depth = 0;
    let mut rest = after_percent;
    while let Some(shorter) = rest.strip_prefix("25") {
        // `%2525...` is only an escape when it ends in a real one.
        depth += 1;
        rest = shorter;
    }
    for (text, character) in [("2f", '/'), ("00", '\0')] {
        if rest.starts_with(text) {
            return Some((depth * 2 + 2, Token { depth, character }));
        }
    }
    None
}

struct Token {
    depth: usize,
    character: char,
}

/// `Some(depth)` when the whole name is `%(25)*2e` or `%(25)*2e%2e`.
fn whole_dots(name: &str) -> Option<(usize, usize)> {
    let mut rest = name.strip_prefix('%')?;
    let mut depth = 0;
    while let Some(shorter) = rest.strip_prefix("25") {
        depth += 1;
        rest = shorter;
    }
    match rest {
        "2e" => Some((depth, 1)),
        "2e%2e" => Some((depth, 2)),
        _ => None,
    }
}

/// Spells a stored name with characters that Linux takes. The result may exceed [`NAME_MAX`].
#[must_use]
pub fn escape(stored: &str) -> String {
    match stored {
        "." => return "%2e".to_owned(),
        ".." => return "%2e%2e".to_owned(),
        _ => {}
    }
    if whole_dots(stored).is_some() {
        return format!("%25{}", stored.trim_start_matches('%'));
    }
    if !stored.contains(['/', '\0', '%']) {
        return stored.to_owned();
    }
    let mut spelled = String::with_capacity(stored.len() + 8);
    for (at, character) in stored.char_indices() {
        match character {
            '/' => spelled.push_str("%2f"),
            '\0' => spelled.push_str("%00"),
            '%' => {
                spelled.push('%');
                let rest = stored.get(at + 1..).unwrap_or("");
                if escape_token(rest).is_some() {
                    spelled.push_str("25");
                }
            }
            other => spelled.push(other),
        }
    }
    spelled
}

/// What a spelling typed by the user is stored as: the inverse of [`escape`].
#[must_use]
pub fn unescape(spelled: &str) -> String {
    match whole_dots(spelled) {
        Some((0, 1)) => return ".".to_owned(),
        Some((0, _)) => return "..".to_owned(),
        Some(_) => return format!("%{}", spelled.get(3..).unwrap_or("")),
        None => {}
    }
    if !spelled.contains('%') {
        return spelled.to_owned();
    }
    let mut stored = String::with_capacity(spelled.len());
    let mut rest = spelled;
    while let Some(at) = rest.find('%') {
        let (before, from) = rest.split_at(at);
        stored.push_str(before);
        let after = from.get(1..).unwrap_or("");
        match escape_token(after) {
            Some((length, token)) => {
                if token.depth == 0 {
                    stored.push(token.character);
                } else {
                    stored.push('%');
                    stored.push_str(after.get(2..length).unwrap_or(""));
                }
                rest = after.get(length..).unwrap_or("");
            }
            None => {
                stored.push('%');
                rest = after;
            }
        }
    }
    stored.push_str(rest);
    stored
}

#[cfg(test)]
mod tests {
    use super::*;
    use mega_proto::NodeHandle;
    use proptest::prelude::*;

    fn node() -> Subject {
        Subject::Node(NodeHandle::from_u48(0x0102_0304_0506))
    }

    #[test]
    fn ordinary_names_are_spelled_as_they_are() {
        for name in [
            "a.txt",
            "100%.txt",
            "100%25.txt",
            "%2E",
            "50%2",
            "a b",
            "...",
            "%",
            "%25",
        ] {
            assert_eq!(escape(name), name);
            assert_eq!(unescape(name), name);
        }
    }

    #[test]
    fn illegal_names_have_the_documented_escapes() {
        for (stored, spelled) in [
            ("a/b", "a%2fb"),
            ("a%2fb", "a%252fb"),
            ("a%252fb", "a%25252fb"),
            (".", "%2e"),
            ("..", "%2e%2e"),
            ("%2e", "%252e"),
            ("%2e%2e", "%252e%2e"),
            ("a\0b", "a%00b"),
            ("/", "%2f"),
            ("%/", "%%2f"),
            ("%25/", "%25%2f"),
        ] {
            assert_eq!(escape(stored), spelled);
            assert_eq!(unescape(spelled), stored);
        }
    }

    #[test]
    fn suffix_goes_before_the_extension() {
        assert_eq!(suffixed("a.txt", 1), "a (1).txt");
        assert_eq!(suffixed("a", 2), "a (2)");
        assert_eq!(suffixed(".bashrc", 1), ".bashrc (1)");
        assert_eq!(suffixed("a.", 1), "a. (1)");
    }

    #[test]
    fn long_names_are_cut_at_a_character() {
        let long = "\u{e9}".repeat(200) + ".jpeg";
        let spelled = spell(&StoredName::Named(long), node());
        assert!(spelled.len() <= NAME_MAX);
        assert!(spelled.ends_with(".jpeg"));
        assert!(suffixed(&spelled, 12).len() <= NAME_MAX);
        assert!(suffixed(&spelled, 12).ends_with(" (12).jpeg"));
    }

    proptest! {
        #[test]
        fn escape_is_reversible(name in "[%/\u{0}a.25feE0\u{e9}]{1,12}") {
            let spelled = escape(&name);
            prop_assert!(!spelled.contains(['/', '\0']));
            prop_assert!(spelled != "." && spelled != "..");
            prop_assert_eq!(unescape(&spelled), name);
        }

        #[test]
        fn every_spelling_a_user_can_type_is_shown_again(typed in "[%a.25feE0\u{e9}]{1,12}") {
            prop_assume!(typed != "." && typed != "..");
            prop_assert_eq!(escape(&unescape(&typed)), typed);
        }
    }
}
