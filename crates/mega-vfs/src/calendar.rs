//! Civil dates (proleptic Gregorian, UTC) of points in time, for names that people read.

/// The day, `YYYY-MM-DD`.
pub(crate) fn date(secs: i64) -> String {
    let days = secs.div_euclid(86_400) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The second, `YYYY-MM-DDTHH:MM:SSZ`.
pub(crate) fn date_and_time(secs: i64) -> String {
    let in_day = secs.rem_euclid(86_400);
    let (hours, minutes, seconds) = (in_day / 3_600, in_day / 60 % 60, in_day % 60);
    format!("{}T{hours:02}:{minutes:02}:{seconds:02}Z", date(secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_civil() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_795_305_600), "2026-11-22");
        assert_eq!(date(-1), "1969-12-31");
    }

    #[test]
    fn times_are_those_of_the_day() {
        assert_eq!(date_and_time(0), "1970-01-01T00:00:00Z");
        assert_eq!(
            date_and_time(1_795_305_600 + 86_399),
            "2026-11-22T23:59:59Z"
        );
        assert_eq!(date_and_time(-1), "1969-12-31T23:59:59Z");
    }
}
