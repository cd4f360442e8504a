//! Values that accept whatever type the server chose today.
//!
//! The service writes some numbers as strings, some booleans as 0/1 (`protocol/README`). Each type here
//! deserialises from *any* JSON value: what does not fit becomes `None`. Only broken JSON is an error.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess};

/// Text, or a number spelled as text. Null, lists and objects are `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LooseText(pub(crate) Option<String>);

impl LooseText {
    /// The text unless it is missing or empty.
    pub(crate) fn filled(self) -> Option<String> {
        self.0.filter(|text| !text.is_empty())
    }
}

/// A whole number: number, numeric string or boolean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LooseInt(pub(crate) Option<i64>);

impl LooseInt {
    /// The value as an unsigned one, if it is there and not negative.
    pub(crate) fn unsigned(self) -> Option<u64> {
        self.0.and_then(|value| u64::try_from(value).ok())
    }

    /// Whether it is there and not zero.
    pub(crate) fn is_set(self) -> bool {
        self.0.is_some_and(|value| value != 0)
    }
}

/// Something spelled as a string, a handle for instance; anything else is `None`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LooseParsed<T>(pub(crate) Option<T>);

impl<T> Default for LooseParsed<T> {
    fn default() -> Self {
        Self(None)
    }
}

/// A list whose elements each decode on their own; anything but a list is empty.
#[derive(Debug, Clone)]
pub(crate) struct LooseList<T>(pub(crate) Vec<T>);

impl<T> Default for LooseList<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

fn drain_seq<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<(), A::Error> {
    while seq.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

fn drain_map<'de, A: MapAccess<'de>>(mut map: A) -> Result<(), A::Error> {
    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}

impl<'de> Deserialize<'de> for LooseText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = LooseText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<LooseText, E> {
                Ok(LooseText(Some(text.to_owned())))
            }
            fn visit_string<E: de::Error>(self, text: String) -> Result<LooseText, E> {
                Ok(LooseText(Some(text)))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<LooseText, E> {
                Ok(LooseText(Some(value.to_string())))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<LooseText, E> {
                Ok(LooseText(Some(value.to_string())))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<LooseText, E> {
                Ok(LooseText(Some(value.to_string())))
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<LooseText, E> {
                Ok(LooseText(Some(u8::from(value).to_string())))
            }
            fn visit_unit<E: de::Error>(self) -> Result<LooseText, E> {
                Ok(LooseText(None))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<LooseText, A::Error> {
                drain_seq(seq).map(|()| LooseText(None))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<LooseText, A::Error> {
                drain_map(map).map(|()| LooseText(None))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The whole number nearest to what a float says, within the range of `i64`.
#[expect(
    clippy::cast_possible_truncation,
    reason = "`as` saturates, which is what is wanted"
)]
fn whole(value: f64) -> Option<i64> {
    value.is_finite().then_some(value as i64)
}

impl<'de> Deserialize<'de> for LooseInt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = LooseInt;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<LooseInt, E> {
                Ok(LooseInt(text.trim().parse().ok()))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<LooseInt, E> {
                Ok(LooseInt(Some(value)))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<LooseInt, E> {
                Ok(LooseInt(Some(i64::try_from(value).unwrap_or(i64::MAX))))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<LooseInt, E> {
                Ok(LooseInt(whole(value)))
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<LooseInt, E> {
                Ok(LooseInt(Some(i64::from(value))))
            }
            fn visit_unit<E: de::Error>(self) -> Result<LooseInt, E> {
                Ok(LooseInt(None))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<LooseInt, A::Error> {
                drain_seq(seq).map(|()| LooseInt(None))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<LooseInt, A::Error> {
                drain_map(map).map(|()| LooseInt(None))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl<'de, T: FromStr> Deserialize<'de> for LooseParsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let LooseText(text) = LooseText::deserialize(deserializer)?;
        Ok(Self(text.and_then(|text| text.parse().ok())))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for LooseList<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = LooseList<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<LooseList<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(element) = seq.next_element()? {
                    list.push(element);
                }
                Ok(LooseList(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<LooseList<T>, A::Error> {
                drain_map(map).map(|()| LooseList::default())
            }
            fn visit_str<E: de::Error>(self, _: &str) -> Result<LooseList<T>, E> {
                Ok(LooseList::default())
            }
            fn visit_i64<E: de::Error>(self, _: i64) -> Result<LooseList<T>, E> {
                Ok(LooseList::default())
            }
            fn visit_u64<E: de::Error>(self, _: u64) -> Result<LooseList<T>, E> {
                Ok(LooseList::default())
            }
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<LooseList<T>, E> {
                Ok(LooseList::default())
            }
            fn visit_bool<E: de::Error>(self, _: bool) -> Result<LooseList<T>, E> {
                Ok(LooseList::default())
            }
            fn visit_unit<E: de::Error>(self) -> Result<LooseList<T>, E> {
                Ok(LooseList::default())
            }
        }
        deserializer.deserialize_any(Visitor(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_value_is_accepted_everywhere() {
        for text in [
            "1",
            "-1",
            "1.5",
            "true",
            "null",
            "\"7\"",
            "\"x\"",
            "[1,[2]]",
            "{\"a\":{}}",
        ] {
            serde_json::from_str::<LooseText>(text).unwrap();
            serde_json::from_str::<LooseInt>(text).unwrap();
            serde_json::from_str::<LooseParsed<crate::NodeHandle>>(text).unwrap();
            serde_json::from_str::<LooseList<LooseInt>>(text).unwrap();
        }
    }

    #[test]
    fn numbers_come_in_any_dress() {
        let int = |text| serde_json::from_str::<LooseInt>(text).unwrap().0;
        assert_eq!(int("\"123\""), Some(123));
        assert_eq!(int("true"), Some(1));
        assert_eq!(int("12.0"), Some(12));
        assert_eq!(int("18446744073709551615"), Some(i64::MAX));
        assert_eq!(int("[]"), None);
        assert_eq!(
            serde_json::from_str::<LooseText>("5").unwrap().0.as_deref(),
            Some("5")
        );
    }
}
