//! A moment, in milliseconds since the Unix epoch, as webhooks and CloudEvents use it.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::{Timestamp, fmt::temporal::DateTimePrinter};
use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub i64);

/// The start of the year 1. RFC 3339 has a year 0, which the calendars of many languages have not.
const MS_MIN: i64 = -62_135_596_800_000;
/// The last moment that `jiff` can write, some hours before the year 10000.
const MS_MAX: i64 = 253_402_207_200_000;
/// Numbers nearer to zero than this are seconds, others milliseconds.
const SECONDS_BELOW: i64 = 100_000_000_000;

static PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));

impl Time {
    /// The wall clock's time.
    pub fn now() -> Self {
        let ms = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(MS_MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(MS_MIN, |ms| -ms),
        };
        Time(ms.clamp(MS_MIN, MS_MAX))
    }

    /// Reads a sender's time: a number of seconds or milliseconds as decimal text, or RFC 3339.
    ///
    /// What is finer than a millisecond is rounded. `None`: not a time, or outside the years 1 to 9999.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_ascii();
        match text.as_bytes().first()? {
            b'-' | b'0'..=b'9' => Self::parse_number(text).or_else(|| Self::from_rfc3339(text)),
            _ => None,
        }
    }

    fn parse_number(text: &str) -> Option<Self> {
        if let Ok(number) = text.parse::<i64>() {
            let seconds = number.checked_abs()? < SECONDS_BELOW;
            return Self::checked(if seconds { number * 1000 } else { number });
        }
        let number = text.parse::<f64>().ok()?;
        let seconds = number.abs() < SECONDS_BELOW as f64;
        let ms = if seconds { number * 1000.0 } else { number }.round();
        // Also false for a number that is infinite.
        if ms.abs() <= MS_MAX as f64 {
            Self::checked(ms as i64)
        } else {
            None
        }
    }

    /// Reads RFC 3339, as an event's times are written. What is finer than a millisecond is rounded.
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let rounded = text.parse::<Timestamp>().ok()?.round(jiff::Unit::Millisecond).ok()?;
        Self::checked(rounded.as_millisecond())
    }

    fn checked(ms: i64) -> Option<Self> {
        (MS_MIN..=MS_MAX).contains(&ms).then_some(Time(ms))
    }

    /// RFC 3339 in UTC with milliseconds: `2021-12-02T16:44:46.359Z`. A time outside the years 1 to 9999 becomes the
    /// nearest one inside.
    pub fn to_rfc3339(self) -> String {
        let timestamp = Timestamp::from_millisecond(self.0.clamp(MS_MIN, MS_MAX)).expect("the limits are jiff's own");
        PRINTER.timestamp_to_string(&timestamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form_that_senders_use() {
        for (text, expected) in [
            ("1638463486489", Some("2021-12-02T16:44:46.489Z")),
            ("1638463486", Some("2021-12-02T16:44:46.000Z")),
            ("1638463486.489", Some("2021-12-02T16:44:46.489Z")),
            ("1638463486489.7", Some("2021-12-02T16:44:46.490Z")),
            ("1.638463486489e12", Some("2021-12-02T16:44:46.489Z")),
            (" 1638463486489 ", Some("2021-12-02T16:44:46.489Z")),
            ("99999999999", Some("5138-11-16T09:46:39.000Z")),
            ("100000000000", Some("1973-03-03T09:46:40.000Z")),
            ("0", Some("1970-01-01T00:00:00.000Z")),
            ("-1", Some("1969-12-31T23:59:59.000Z")),
            ("2021-12-02T16:44:46.359Z", Some("2021-12-02T16:44:46.359Z")),
            ("2021-12-02T17:44:46+01:00", Some("2021-12-02T16:44:46.000Z")),
            ("2021-12-02 16:44:46.3594Z", Some("2021-12-02T16:44:46.359Z")),
            ("2021-12-02T16:44:46", None),
            ("9223372036854775807", None),
            ("-9223372036854775808", None),
            ("1e999", None),
            ("999999999999999999999999", None),
            ("-999999999999999", None),
            ("-62135596800000", Some("0001-01-01T00:00:00.000Z")),
            ("-62135596800001", None),
            ("0000-12-31T23:59:59Z", None),
            ("0001-01-01T00:30:00+01:00", None),
            ("-000001-01-01T00:00:00Z", None),
            ("9999-12-30T22:00:00Z", Some("9999-12-30T22:00:00.000Z")),
            ("9999-12-31T23:59:59Z", None),
            ("+010000-01-01T00:00:00Z", None),
            ("inf", None),
            ("NaN", None),
            ("", None),
            ("yesterday", None),
        ] {
            assert_eq!(Time::parse(text).map(Time::to_rfc3339).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_time_that_no_calendar_has_is_written_as_the_nearest_one_that_it_has() {
        assert_eq!(Time(i64::MAX).to_rfc3339(), "9999-12-30T22:00:00.000Z");
        assert_eq!(Time(i64::MIN).to_rfc3339(), "0001-01-01T00:00:00.000Z");
    }
}
