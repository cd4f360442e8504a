//! Values people type: sizes, durations, percentages, permission bits, switches.
//!
//! The command line, the environment and the configuration file all parse through the `FromStr`
//! of these types, so that a value means the same everywhere.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A number of bytes: `10GiB`, `512M`, `1.5T`, `10GB` (decimal), `4096`.
///
/// One letter means the binary unit, as rclone has it; only `KB`, `MB` ... are decimal. A bare
/// number is bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) u64);

/// A length of time: `5s`, `1m30s`, `500ms`, `2h`; a bare number is seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(pub(crate) Duration);

/// A share of a whole, 0 to 100: `5%` or `5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Percent(pub(crate) u8);

/// So many a second: `5`, `0.5`, `off`. In thousandths; 0 is without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rate(pub(crate) u64);

/// Permission bits in octal, as for chmod: `022`, `0644`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mode(pub(crate) u16);

/// Yes or no: `true`/`false`, `yes`/`no`, `on`/`off`, `1`/`0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Switch(pub(crate) bool);

/// Why a value could not be parsed: a sentence without the value itself, which clap shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadQuantity(&'static str);

impl fmt::Display for BadQuantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadQuantity {}

const BAD_SIZE: BadQuantity = BadQuantity("a size is a number and a unit, such as 10GiB or 512M");
const BAD_SPAN: BadQuantity =
    BadQuantity("a duration is a number and a unit, such as 5s, 500ms or 1m30s");
const BAD_PERCENT: BadQuantity = BadQuantity("a percentage is a number from 0 to 100, such as 5%");
const BAD_RATE: BadQuantity =
    BadQuantity("a rate is a number from 0.001 to 100000, such as 5 or 0.5; or off");
const BAD_MODE: BadQuantity = BadQuantity("permissions are octal digits, such as 022 or 0644");
const BAD_SWITCH: BadQuantity = BadQuantity("expected true or false");

/// `text` as a leading decimal number (with an optional fraction) and what follows it.
fn number(text: &str) -> Option<(f64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let value: f64 = digits.parse().ok()?;
    Some((value, rest))
}

impl FromStr for Size {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if let Ok(bytes) = text.parse() {
            return Ok(Self(bytes));
        }
        let (value, unit) = number(text).ok_or(BAD_SIZE)?;
        let scale: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
            "b" => 1,
            "k" | "ki" | "kib" => 1 << 10,
            "m" | "mi" | "mib" => 1 << 20,
            "g" | "gi" | "gib" => 1 << 30,
            "t" | "ti" | "tib" => 1 << 40,
            "p" | "pi" | "pib" => 1 << 50,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            "pb" => 1_000_000_000_000_000,
            _ => return Err(BAD_SIZE),
        };
        let bytes = value * scale as f64;
        // 2^63 and more is a slip of the finger, and would not fit a file offset.
        if !(0.0..9.2e18).contains(&bytes) {
            return Err(BAD_SIZE);
        }
        Ok(Self(bytes as u64))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [
            (50, "PiB"),
            (40, "TiB"),
            (30, "GiB"),
            (20, "MiB"),
            (10, "KiB"),
        ];
        for (shift, unit) in units {
            if self.0 >= 1 << shift && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl FromStr for Span {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(BAD_SPAN);
        }
        let mut seconds = 0.0;
        let mut smallest = f64::INFINITY;
        while !rest.is_empty() {
            let (value, tail) = number(rest).ok_or(BAD_SPAN)?;
            let end = tail
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(tail.len());
            let (unit, next) = tail.split_at(end);
            let scale = match unit {
                "ms" => 0.001,
                "s" | "sec" => 1.0,
                "" if smallest.is_infinite() && next.is_empty() => 1.0,
                "m" | "min" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                _ => return Err(BAD_SPAN),
            };
            // Units go down, each once: "1m30s", never "30s1m".
            if scale >= smallest {
                return Err(BAD_SPAN);
            }
            smallest = scale;
            seconds += value * scale;
            rest = next.trim_start();
        }
        Duration::try_from_secs_f64(seconds)
            .map(Self)
            .map_err(|_| BAD_SPAN)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let (minutes, seconds) = (millis / 60_000, millis % 60_000);
        if millis == 0 {
            return f.write_str("0s");
        }
        if minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        match (seconds / 1000, seconds % 1000) {
            (0, 0) => Ok(()),
            (s, 0) => write!(f, "{s}s"),
            _ => write!(f, "{seconds}ms"),
        }
    }
}

impl FromStr for Percent {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.trim();
        let digits = digits.strip_suffix('%').unwrap_or(digits).trim_end();
        match digits.parse() {
            Ok(value) if value <= 100 => Ok(Self(value)),
            _ => Err(BAD_PERCENT),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl FromStr for Rate {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if matches!(text, "off" | "0") {
            return Ok(Self(0));
        }
        match number(text) {
            Some((value, "")) if (0.001..=100_000.0).contains(&value) => {
                // Not negative and in range: checked above.
                Ok(Self((value * 1000.0).round() as u64))
            }
            _ => Err(BAD_RATE),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 1000, self.0 % 1000) {
            (0, 0) => f.write_str("off"),
            (whole, 0) => write!(f, "{whole}"),
            (whole, rest) => f.write_str(format!("{whole}.{rest:03}").trim_end_matches('0')),
        }
    }
}

impl FromStr for Mode {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.trim();
        let digits = digits.strip_prefix("0o").unwrap_or(digits);
        match u16::from_str_radix(digits, 8) {
            Ok(bits) if bits <= 0o777 && !digits.starts_with('+') => Ok(Self(bits)),
            _ => Err(BAD_MODE),
        }
    }
}

impl FromStr for Switch {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" | "t" | "y" => Ok(Self(true)),
            "false" | "no" | "off" | "0" | "f" | "n" => Ok(Self(false)),
            _ => Err(BAD_SWITCH),
        }
    }
}

/// Deserialises a type from the TOML kinds that `Scalar` takes.
struct Scalar<T> {
    expected: &'static str,
    integers: Option<fn(i64) -> Option<T>>,
    booleans: Option<fn(bool) -> T>,
}

impl<T: FromStr<Err = BadQuantity>> Visitor<'_> for Scalar<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse()
            .map_err(|e| E::custom(format!("'{text}': {e}")))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
        self.integers
            .and_then(|convert| convert(value))
            .ok_or_else(|| E::invalid_value(de::Unexpected::Signed(value), &self))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<T, E> {
        match self.booleans {
            Some(convert) => Ok(convert(value)),
            None => Err(E::invalid_type(de::Unexpected::Bool(value), &self)),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Scalar {
            expected: "a size such as \"10GiB\"",
            integers: Some(|v| u64::try_from(v).ok().map(Size)),
            booleans: None,
        })
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Scalar {
            expected: "a duration such as \"5s\"",
            integers: Some(|v| u64::try_from(v).ok().map(|v| Self(Duration::from_secs(v)))),
            booleans: None,
        })
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Scalar {
            expected: "a percentage such as \"5%\"",
            integers: Some(|v| u8::try_from(v).ok().filter(|v| *v <= 100).map(Percent)),
            booleans: None,
        })
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Scalar {
            expected: "a rate such as 5, \"0.5\" or \"off\"",
            integers: Some(|v| v.to_string().parse().ok()),
            booleans: None,
        })
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Integers are refused: `umask = 22` would silently mean 026.
        deserializer.deserialize_any(Scalar {
            expected: "octal permissions in quotes, such as \"022\"",
            integers: None,
            booleans: None,
        })
    }
}

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Scalar {
            expected: "true or false",
            integers: None,
            booleans: Some(Switch),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(text: &str) -> Option<u64> {
        text.parse::<Size>().ok().map(|s| s.0)
    }

    fn millis(text: &str) -> Option<u128> {
        text.parse::<Span>().ok().map(|s| s.0.as_millis())
    }

    #[test]
    fn sizes() {
        assert_eq!(size("10GiB"), Some(10 << 30));
        assert_eq!(size("10G"), Some(10 << 30));
        assert_eq!(size("10GB"), Some(10_000_000_000));
        assert_eq!(size("1.5T"), Some(3 << 39));
        assert_eq!(size("512 MiB"), Some(512 << 20));
        assert_eq!(size("4096"), Some(4096));
        assert_eq!(size("0"), Some(0));
        assert_eq!(size("64k"), Some(65536));
        assert_eq!(size("18446744073709551615"), Some(u64::MAX));
        for bad in [
            "",
            "G",
            "10X",
            "-1",
            "-1G",
            "1e3",
            "10 G i",
            "99999999P",
            ".",
            "1.2.3M",
        ] {
            assert_eq!(size(bad), None, "{bad}");
        }
        assert_eq!(Size(10 << 30).to_string(), "10GiB");
        assert_eq!(Size(256 << 20).to_string(), "256MiB");
        assert_eq!(Size(0).to_string(), "0B");
        assert_eq!(Size(1000).to_string(), "1000B");
    }

    #[test]
    fn rates() {
        let rate = |text: &str| text.parse::<Rate>().ok().map(|rate| rate.0);
        assert_eq!(rate("5"), Some(5_000));
        assert_eq!(rate("0.5"), Some(500));
        assert_eq!(rate(" off "), Some(0));
        for bad in ["", "-1", "5s", "0.0001", "1e9", "200000", "fast"] {
            assert_eq!(rate(bad), None, "{bad}");
        }
        for text in ["5", "0.5", "0.25", "100", "off"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn durations() {
        assert_eq!(millis("5s"), Some(5_000));
        assert_eq!(millis("1m30s"), Some(90_000));
        assert_eq!(millis("500ms"), Some(500));
        assert_eq!(millis("2h"), Some(7_200_000));
        assert_eq!(millis("5m"), Some(300_000));
        assert_eq!(millis("7"), Some(7_000));
        assert_eq!(millis("0"), Some(0));
        assert_eq!(millis("1.5s"), Some(1_500));
        for bad in [
            "",
            "s",
            "5x",
            "-5s",
            "30s1m",
            "5s5s",
            "1 h x",
            "9999999999999999999h",
        ] {
            assert_eq!(millis(bad), None, "{bad}");
        }
        for text in ["5s", "5m", "1m30s", "500ms", "0s", "30s"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn small_ones() {
        assert_eq!("5%".parse(), Ok(Percent(5)));
        assert_eq!("100".parse(), Ok(Percent(100)));
        assert_eq!("101%".parse::<Percent>(), Err(BAD_PERCENT));
        assert_eq!("022".parse(), Ok(Mode(0o22)));
        assert_eq!("0o755".parse(), Ok(Mode(0o755)));
        assert_eq!("1777".parse::<Mode>(), Err(BAD_MODE));
        assert_eq!("089".parse::<Mode>(), Err(BAD_MODE));
        assert_eq!("Yes".parse(), Ok(Switch(true)));
        assert_eq!("off".parse(), Ok(Switch(false)));
        assert_eq!("maybe".parse::<Switch>(), Err(BAD_SWITCH));
    }

    #[test]
    fn toml_kinds() {
        #[derive(serde::Deserialize)]
        struct All {
            size: Size,
            span: Span,
            switch: Switch,
        }
        let all: All = toml::from_str("size = 4096\nspan = \"5m\"\nswitch = true").unwrap();
        assert_eq!(
            (all.size.0, all.span.0.as_secs(), all.switch.0),
            (4096, 300, true)
        );

        #[derive(serde::Deserialize, Debug)]
        #[expect(dead_code, reason = "only its refusal is looked at")]
        struct Umask {
            umask: Mode,
        }
        let error = toml::from_str::<Umask>("umask = 22")
            .unwrap_err()
            .to_string();
        assert!(error.contains("octal permissions in quotes"), "{error}");
    }
}
