//! `--bwlimit`: how fast transfers may be, perhaps by the time of the week.
//!
//! Values are rclone's: `10M`, `512k:2M` (up:down), `off`, a number alone in KiB a second; or a timetable,
//! `08:00,512k 19:00,10M:off Sat-00:00,off`, whose last entry holds until the next.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use mega_api::{Api, Bandwidth};
use serde::Deserialize;

use crate::quantity::Size;

/// How often the clock is looked at.
const LOOK: Duration = Duration::from_secs(20);
const MINUTES_A_DAY: u32 = 24 * 60;

/// A limit, or a timetable of limits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct BwLimit {
    text: String,
    /// From which minute of the week on, Monday first; at least one.
    slots: Vec<(u32, Bandwidth)>,
}

impl BwLimit {
    /// What holds at a minute of the week: the last entry, or else that of the end of last week.
    fn at(&self, minute: u32) -> Bandwidth {
        let begun = self.slots.iter().rev().find(|(from, _)| *from <= minute);
        let slot = begun.or(self.slots.last());
        slot.map_or_else(Bandwidth::default, |(_, limit)| *limit)
    }

    fn now(&self) -> Bandwidth {
        let now = TimeZone::try_system()
            .unwrap_or(TimeZone::UTC)
            .to_datetime(Timestamp::now());
        let day = u32::try_from(now.weekday().to_monday_zero_offset()).unwrap_or(0);
        let hour = u32::try_from(now.hour()).unwrap_or(0);
        self.at(day * MINUTES_A_DAY + hour * 60 + u32::try_from(now.minute()).unwrap_or(0))
    }
}

impl fmt::Display for BwLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for BwLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let mut slots = Vec::new();
        if text.contains(',') {
            for entry in text.split([' ', ';']).filter(|entry| !entry.is_empty()) {
                let (when, limit) = entry
                    .split_once(',')
                    .ok_or_else(|| format!("'{entry}' is not TIME,LIMIT, such as 08:00,512k"))?;
                let limit = limits(limit)?;
                slots.extend(moments(when)?.into_iter().map(|from| (from, limit)));
            }
        } else {
            slots.push((0, limits(text)?));
        }
        // Stable: of two entries for one moment the later one holds.
        slots.sort_by_key(|(from, _)| *from);
        Ok(Self {
            text: text.to_owned(),
            slots,
        })
    }
}

impl TryFrom<String> for BwLimit {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// `10M`, `512k:2M`, `off`.
fn limits(text: &str) -> Result<Bandwidth, String> {
    let (up, down) = text.split_once(':').unwrap_or((text, text));
    Ok(Bandwidth {
        up: rate(up)?,
        down: rate(down)?,
    })
}

/// Bytes a second, none for `off` and 0.
fn rate(text: &str) -> Result<Option<u64>, String> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    let bytes = match text.parse::<f64>() {
        Ok(kib) if (0.0..1e12).contains(&kib) => (kib * 1024.0) as u64,
        _ => {
            text.parse::<Size>()
                .map_err(|_| {
                    format!("'{text}' is no bandwidth; 10M, 512k, 2M:off (up:down) and off are")
                })?
                .0
        }
    };
    Ok(Some(bytes).filter(|bytes| *bytes > 0))
}

/// The minutes of the week that `08:00` or `Mon-08:00` stands for.
fn moments(text: &str) -> Result<Vec<u32>, String> {
    let bad = || format!("'{text}' is no time; 08:00 and Mon-08:00 are");
    let (day, time) = match text.split_once('-') {
        Some((day, time)) => (Some(day), time),
        None => (None, text),
    };
    let (hour, minute) = time.split_once(':').ok_or_else(bad)?;
    let part = |text: &str, below: u32| {
        let is_short = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let value = text.parse::<u32>().ok().filter(|_| is_short);
        value.filter(|value| *value < below).ok_or_else(bad)
    };
    let of_day = part(hour, 24)? * 60 + part(minute, 60)?;
    let days = match day {
        None => (0..7).collect(),
        Some(day) => vec![weekday(day).ok_or_else(bad)?],
    };
    Ok(days
        .into_iter()
        .map(|day| day * MINUTES_A_DAY + of_day)
        .collect())
}

fn weekday(text: &str) -> Option<u32> {
    let all = [
        (Weekday::Monday, "monday"),
        (Weekday::Tuesday, "tuesday"),
        (Weekday::Wednesday, "wednesday"),
        (Weekday::Thursday, "thursday"),
        (Weekday::Friday, "friday"),
        (Weekday::Saturday, "saturday"),
        (Weekday::Sunday, "sunday"),
    ];
    let text = text.to_ascii_lowercase();
    let (day, _) = all
        .into_iter()
        .find(|(_, name)| text == *name || Some(text.as_str()) == name.get(..3))?;
    u32::try_from(day.to_monday_zero_offset()).ok()
}

/// Keeps the transfers of a mount to its limit.
#[derive(Debug)]
pub(crate) struct Throttle {
    api: Api,
    limit: Mutex<Option<BwLimit>>,
}

impl Throttle {
    /// Begins; call it on the runtime.
    pub(crate) fn start(api: &Api, limit: Option<BwLimit>) -> Arc<Self> {
        let throttle = Arc::new(Self {
            api: api.clone(),
            limit: Mutex::new(limit),
        });
        throttle.apply();
        let watched = Arc::downgrade(&throttle);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                match watched.upgrade() {
                    Some(throttle) => throttle.apply(),
                    None => return,
                }
            }
        });
        throttle
    }

    /// Another limit from now on, until the mount ends.
    pub(crate) fn set(&self, limit: BwLimit) {
        tracing::info!(%limit, "bandwidth");
        *self.limit.lock().unwrap_or_else(PoisonError::into_inner) = Some(limit);
        self.apply();
    }

    /// The rule, as it was given, and what holds now.
    pub(crate) fn get(&self) -> (String, Bandwidth) {
        let limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        let rule = limit
            .as_ref()
            .map_or_else(|| "off".to_owned(), |limit| limit.text.clone());
        (rule, self.api.bandwidth())
    }

    fn apply(&self) {
        let limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = limit.as_ref().map_or_else(Bandwidth::default, BwLimit::now);
        if self.api.bandwidth() != wanted {
            self.api.set_bandwidth(wanted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, day: u32, hour: u32, minute: u32) -> (Option<u64>, Option<u64>) {
        let limit: BwLimit = text.parse().unwrap();
        let now = limit.at(day * MINUTES_A_DAY + hour * 60 + minute);
        (now.up, now.down)
    }

    #[test]
    fn one_value_is_for_both_directions_and_always() {
        let mib = Some(1 << 20);
        assert_eq!(at("1M", 0, 0, 0), (mib, mib));
        assert_eq!(at("1024", 6, 23, 59), (mib, mib), "KiB");
        assert_eq!(at("512k:1M", 3, 0, 0), (Some(512 << 10), mib));
        assert_eq!(at("off:1M", 3, 0, 0), (None, mib));
        assert_eq!(at("off", 3, 0, 0), (None, None));
        assert_eq!(at("0", 3, 0, 0), (None, None));
    }

    #[test]
    fn a_timetable_holds_around_the_week() {
        let daily = "08:00,512 12:00,10M 13:00,512 18:00,30M 23:00,off";
        assert_eq!(at(daily, 2, 7, 59), (None, None));
        assert_eq!(
            at(daily, 0, 0, 0),
            (None, None),
            "as at the end of last week"
        );
        assert_eq!(at(daily, 2, 8, 0).0, Some(512 << 10));
        assert_eq!(at(daily, 6, 12, 30).0, Some(10 << 20));
        assert_eq!(at(daily, 6, 23, 30), (None, None));
        let weekly = "Mon-00:00,512 Fri-23:59,10M Sat-10:00,1M Sunday-20:00,off:1k";
        assert_eq!(at(weekly, 3, 12, 0).0, Some(512 << 10));
        assert_eq!(at(weekly, 4, 23, 59).0, Some(10 << 20));
        assert_eq!(at(weekly, 5, 9, 59).0, Some(10 << 20));
        assert_eq!(at(weekly, 5, 10, 0).0, Some(1 << 20));
        assert_eq!(at(weekly, 6, 20, 0), (None, Some(1 << 10)));
    }

    #[test]
    fn nonsense_is_explained() {
        for (text, part) in [
            ("fast", "no bandwidth"),
            ("", "no bandwidth"),
            ("-1", "no bandwidth"),
            ("1M:", "no bandwidth"),
            ("8,1M", "no time"),
            ("24:00,1M", "no time"),
            ("08:60,1M", "no time"),
            ("Noday-08:00,1M", "no time"),
            ("08:00,1M 09:00", "is not TIME,LIMIT"),
            ("08:00,fast", "no bandwidth"),
        ] {
            let error = text.parse::<BwLimit>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
