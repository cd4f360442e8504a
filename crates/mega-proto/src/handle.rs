//! Handles: opaque names of things on the server (`protocol/README`).
//!
//! They are kept as raw bytes, shown and serialised as base64. Their order is the order of the bytes
//! and means nothing to the server.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::b64;

/// The text is not a handle of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a handle")]
pub struct HandleError;

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $chars:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// The raw bytes, as they stand on the wire under the base64.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&b64::encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = HandleError;

            fn from_str(text: &str) -> Result<Self, HandleError> {
                if text.len() != $chars {
                    return Err(HandleError);
                }
                b64::decode_array(text).map(Self).map_err(|_| HandleError)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("a handle of ", stringify!($chars), " characters"))
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }
    };
}

handle! {
    /// A node of the tree: 6 bytes, 8 characters.
    NodeHandle, 6, 8
}
handle! {
    /// A public link: 6 bytes, 8 characters, an id space of its own.
    PublicHandle, 6, 8
}
handle! {
    /// A user: 8 bytes, 11 characters.
    UserHandle, 8, 11
}

impl NodeHandle {
    /// The handle as a number below 2^48 (big-endian), for databases and inode numbers.
    #[must_use]
    pub const fn to_u48(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    /// The inverse of [`to_u48`](Self::to_u48); bits above the 48th are ignored.
    #[must_use]
    pub const fn from_u48(number: u64) -> Self {
        let [_, _, a, b, c, d, e, f] = number.to_be_bytes();
        Self([a, b, c, d, e, f])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_number_round_trip() {
        let handle: NodeHandle = "AQIAAABl".parse().unwrap();
        assert_eq!(handle.0, [1, 2, 0, 0, 0, 0x65]);
        assert_eq!(handle.to_string(), "AQIAAABl");
        assert_eq!(handle.to_u48(), 0x0102_0000_0065);
        assert_eq!(NodeHandle::from_u48(handle.to_u48()), handle);
        assert_eq!(format!("{handle:?}"), "NodeHandle(AQIAAABl)");
        let user: UserHandle = "Kbocb5Q6ti4".parse().unwrap();
        assert_eq!(serde_json::to_string(&user).unwrap(), "\"Kbocb5Q6ti4\"");
        assert_eq!(
            serde_json::from_str::<UserHandle>("\"Kbocb5Q6ti4\"").unwrap(),
            user
        );
    }

    #[test]
    fn other_lengths_are_refused() {
        for text in ["", "AQIAAAB", "AQIAAABlA", "AQIAAAB!", "AQIAAA=="] {
            assert!(text.parse::<NodeHandle>().is_err(), "{text}");
        }
        assert!(serde_json::from_str::<NodeHandle>("12345678").is_err());
    }
}
