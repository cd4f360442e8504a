//! Times as rclone prints them, in the local time zone.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A modification time: seconds since 1970, nanoseconds.
pub(super) type Moment = (i64, u32);

/// The local time zone, looked up once.
#[derive(Debug)]
pub(super) struct Clock(TimeZone);

impl Clock {
    /// The time zone of `TZ`, else of the system, else UTC.
    pub(super) fn local() -> Self {
        Self(TimeZone::try_system().unwrap_or(TimeZone::UTC))
    }

    fn show(&self, (seconds, nanos): Moment, format: &str) -> String {
        let nanos = i32::try_from(nanos).unwrap_or(0);
        // What no calendar has is shown as 1970.
        let at = Timestamp::new(seconds, nanos).unwrap_or(Timestamp::UNIX_EPOCH);
        at.to_zoned_datetime(self.0.clone())
            .strftime(format)
            .to_string()
    }

    /// As `lsl` prints it.
    pub(super) fn long(&self, at: Moment) -> String {
        self.show(at, "%Y-%m-%d %H:%M:%S.%9f")
    }

    /// As `lsd` prints it.
    pub(super) fn short(&self, at: Moment) -> String {
        self.show(at, "%Y-%m-%d %H:%M:%S")
    }

    /// RFC 3339, as `lsjson` prints it.
    pub(super) fn rfc(&self, at: Moment) -> String {
        let format = if at.1 == 0 {
            "%Y-%m-%dT%H:%M:%S%:z"
        } else {
            "%Y-%m-%dT%H:%M:%S.%9f%:z"
        };
        let text = self.show(at, format);
        match text.strip_suffix("+00:00") {
            Some(text) => format!("{text}Z"),
            None => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_rclones_forms() {
        let clock = Clock(TimeZone::UTC);
        let at = (1_714_564_800, 123_456_789);
        assert_eq!(clock.long(at), "2024-05-01 12:00:00.123456789");
        assert_eq!(clock.short(at), "2024-05-01 12:00:00");
        assert_eq!(clock.rfc(at), "2024-05-01T12:00:00.123456789Z");
        assert_eq!(clock.rfc((at.0, 0)), "2024-05-01T12:00:00Z");
        let clock = Clock(TimeZone::fixed(jiff::tz::offset(2)));
        assert_eq!(clock.rfc((at.0, 0)), "2024-05-01T14:00:00+02:00");
        assert_eq!(clock.long((0, 5)), "1970-01-01 02:00:00.000000005");
        assert_eq!(clock.short((i64::MAX, 0)), "1970-01-01 02:00:00");
    }
}
