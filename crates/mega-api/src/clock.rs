//! How far this machine's clock is from the service's: two-factor codes are made from the time.

use std::sync::PoisonError;
use std::time::{SystemTime, UNIX_EPOCH};

use reqwest::header::{DATE, HeaderMap};

use crate::api::Api;

const DAY: i64 = 86_400;

impl Api {
    /// By how many seconds this machine's clock was ahead of the service's when it last answered; negative
    /// if it was behind, none if the service tells no time. Exact to about a second.
    #[must_use]
    pub fn clock_skew(&self) -> Option<i64> {
        *self
            .0
            .clock_skew
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note_clock(&self, headers: &HeaderMap) {
        let theirs = headers
            .get(DATE)
            .and_then(|date| parse(date.to_str().ok()?));
        let ours = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        let ours = ours.and_then(|since| i64::try_from(since.as_secs()).ok());
        if let (Some(theirs), Some(ours)) = (theirs, ours) {
            *self
                .0
                .clock_skew
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(ours - theirs);
        }
    }
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`, the form that servers have to send.
fn parse(date: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let mut words = date.split(' ').skip(1);
    let day: i64 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)?;
    let month = i64::try_from(month).ok()? + 1;
    let year: i64 = words.next()?.parse().ok()?;
    let mut time = words
        .next()?
        .split(':')
        .map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    if !(1970..=9999).contains(&year) || !(1..=31).contains(&day) {
        return None;
    }
    // Days of the proleptic Gregorian calendar, with years that begin in March.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let of_era = year % 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(days * DAY + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read() {
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(parse("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(parse("Thu, 29 Feb 2024 23:59:59 GMT"), Some(1_709_251_199));
        for bad in [
            "",
            "now",
            "Sun, 06 Nox 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
