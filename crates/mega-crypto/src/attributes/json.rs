//! The JSON object of attributes, read so that nothing of it is lost.

use core::fmt;
use std::borrow::Cow;
use std::collections::HashMap;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Member, OWN};

/// Reads an object; `None` if the text is anything else. Of equal names the last value counts.
pub(super) fn parse(text: &str) -> Option<Vec<(String, Member)>> {
    let raw: Entries<'_> = serde_json::from_str(text).ok()?;
    let mut places = HashMap::with_capacity(raw.0.len());
    let mut members: Vec<(String, Member)> = Vec::with_capacity(raw.0.len());
    for (name, value) in raw.0 {
        let member = member(value);
        match places
            .get(&name)
            .and_then(|place: &usize| members.get_mut(*place))
        {
            Some((_, old)) => *old = member,
            None => {
                places.insert(name.clone(), members.len());
                members.push((name, member));
            }
        }
    }
    Some(members)
}

fn member(raw: &RawValue) -> Member {
    if !raw.get().starts_with('"') {
        return Member::Raw(raw.to_owned());
    }
    match serde_json::from_str(raw.get()) {
        Ok(text) => Member::Text(text),
        Err(_) => Member::Broken(raw.to_owned(), lossy(raw.get())),
    }
}

/// A string literal with unpaired surrogates: each becomes U+FFFD.
fn lossy(literal: &str) -> String {
    let mut units: Vec<u16> = Vec::with_capacity(literal.len());
    let mut chars = literal.trim_matches('"').chars();
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next() } else { None };
        match escaped {
            Some('u') => {
                let digits = chars.as_str().get(..4).unwrap_or_default();
                units.push(u16::from_str_radix(digits, 16).unwrap_or(0xfffd));
                chars = chars.as_str().get(4..).unwrap_or_default().chars();
            }
            Some('n') => units.push(u16::from(b'\n')),
            Some('t') => units.push(u16::from(b'\t')),
            Some('r') => units.push(u16::from(b'\r')),
            Some('b') => units.push(8),
            Some('f') => units.push(12),
            Some(other) => units.extend(other.encode_utf16(&mut [0; 2]).iter()),
            None => units.extend(c.encode_utf16(&mut [0; 2]).iter()),
        }
    }
    String::from_utf16_lossy(&units)
}

/// Writes an object in compact form.
pub(super) fn write(members: &[(String, Member)]) -> String {
    let mut out = String::from("{");
    for (place, (name, member)) in members.iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        push_string(&mut out, name);
        out.push(':');
        match member {
            Member::Text(text) => push_string(&mut out, text),
            Member::Broken(raw, _) | Member::Raw(raw) => out.push_str(raw.get()),
        }
    }
    out.push('}');
    out
}

fn push_string(out: &mut String, text: &str) {
    // Escapes quote, backslash and control characters, leaves all else as UTF-8.
    out.push_str(&serde_json::Value::from(text).to_string());
}

/// An object's members as they stand in the text.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(EntriesVisitor)
    }
}

/// The members a listing shows, when they are ordinary strings.
#[derive(Debug, Default)]
pub(super) struct ListingText<'a> {
    pub(super) name: Option<Cow<'a, str>>,
    pub(super) fingerprint: Option<Cow<'a, str>>,
    pub(super) has_own: bool,
}

/// Reads `n` and `c` and skips the rest; `None` when the object needs [`parse`]'s tolerance.
pub(super) fn parse_listing(text: &str) -> Option<ListingText<'_>> {
    serde_json::from_str(text).ok()
}

/// A string, borrowed where it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

impl<'de> Deserialize<'de> for ListingText<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListingVisitor;
        impl<'de> Visitor<'de> for ListingVisitor {
            type Value = ListingText<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut listing = ListingText::default();
                while let Some(Text(name)) = map.next_key()? {
                    match &*name {
                        "n" => listing.name = Some(map.next_value::<Text<'_>>()?.0),
                        "c" => listing.fingerprint = Some(map.next_value::<Text<'_>>()?.0),
                        other => {
                            listing.has_own |= other.starts_with(OWN);
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(listing)
            }
        }
        deserializer.deserialize_map(ListingVisitor)
    }
}
