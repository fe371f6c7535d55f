//! The times that `--since`, `--until` and `--at` accept.

use jiff::civil::DateTime;
use jiff::{Span, Timestamp, Zoned};

/// Parses a time: RFC 3339, local, a day such as `yesterday`, or a duration such as `2h ago`.
pub fn parse_time(text: &str) -> Result<Timestamp, String> {
    parse_time_at(text, &Zoned::now()).ok_or_else(|| {
        format!(
            "{text:?} is not a time (write 2026-03-01T14:30:00Z, or local '2026-03-01 14:30', \
             'yesterday', '2h ago')"
        )
    })
}

/// Parses a time. Days and durations are relative to `now`.
fn parse_time_at(text: &str, now: &Zoned) -> Option<Timestamp> {
    let time = match text {
        "now" => Ok(now.clone()),
        "today" => now.start_of_day(),
        "yesterday" => now.yesterday().and_then(|time| time.start_of_day()),
        _ if text.ends_with(" ago") => {
            text.parse::<Span>().and_then(|duration| now.checked_add(duration))
        }
        _ => match text.parse() {
            Ok(time) => return Some(time),
            Err(_) => {
                text.parse().and_then(|time: DateTime| time.to_zoned(now.time_zone().clone()))
            }
        },
    };
    time.ok().map(|time| time.timestamp())
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    #[test]
    fn rfc_3339_and_local_times_are_parsed() {
        assert_eq!(parse_time("2026-03-01T14:30:00Z").unwrap().as_second(), 1_772_375_400);
        for text in ["2026-03-01", "2026-03-01 14:30", "2026-03-01 14:30:05"] {
            assert!(parse_time(text).is_ok(), "{text}");
        }
        for text in ["tomorrow", "2h", "ago", "P1D ago", ""] {
            assert!(parse_time(text).unwrap_err().contains("is not a time"), "{text}");
        }
    }

    #[test]
    fn days_and_durations_are_relative_to_the_local_time() {
        let central_europe = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let now: DateTime = "2026-03-30T01:30:00".parse().unwrap();
        let now = now.to_zoned(central_europe).unwrap();
        for (text, expected) in [
            ("now", "2026-03-30T01:30:00+02:00"),
            ("today", "2026-03-30T00:00:00+02:00"),
            // Summer time began later on 2026-03-29, so midnight has the offset of winter.
            ("yesterday", "2026-03-29T00:00:00+01:00"),
            ("30 minutes ago", "2026-03-30T01:00:00+02:00"),
            ("2h ago", "2026-03-29T23:30:00+02:00"),
            ("1 day 1h ago", "2026-03-29T00:30:00+01:00"),
            ("2026-03-28 12:00", "2026-03-28T12:00:00+01:00"),
            ("2026-03-28T12:00:00Z", "2026-03-28T12:00:00Z"),
        ] {
            let expected: Timestamp = expected.parse().unwrap();
            assert_eq!(parse_time_at(text, &now), Some(expected), "{text}");
        }
    }
}
