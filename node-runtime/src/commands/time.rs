//! Times as people and logs write them (RFC 3339), and spans of time. Pure.
use anyhow::{Result, bail};
pub use berth_model::parse_rfc3339;
use std::time::Duration;

const NANOS: i64 = 1_000_000_000;
const DAY: i64 = 86_400;

/// Unix nanoseconds as `2026-01-31T12:00:00.000000000Z`; empty for zero, which means "not yet".
pub fn rfc3339(nanos: i64) -> String {
    if nanos == 0 {
        return String::new();
    }
    let (seconds, fraction) = (nanos.div_euclid(NANOS), nanos.rem_euclid(NANOS));
    let (days, rest) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z")
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Year, month and day of a number of days since 1970-01-01 in the proleptic Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// Now, in Unix nanoseconds.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// The age of something made at `created` (Unix nanoseconds), as kubectl writes it: `42s`, `5m12s`, `3h`, `12d`.
pub fn age(now: i64, created: i64) -> String {
    if created == 0 {
        return "-".to_owned();
    }
    let seconds = (now - created).max(0) / NANOS;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / DAY);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => format!("{minutes}m{}s", seconds % 60),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => format!("{hours}h{}m", minutes % 60),
        28_800..172_800 => format!("{hours}h"),
        _ => format!("{days}d"),
    }
}

/// A span such as `90s`, `15m`, `1h30m` or `2d`; a bare number is seconds.
pub fn parse_span(text: &str) -> Result<Duration> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, unit) = rest.split_at(end);
        let unit_end = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let (unit, next) = unit.split_at(unit_end);
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => bail!("{text:?} is not a span of time; write 90s, 15m, 1h30m or 2d"),
        };
        let Some(part) = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(millis)) else {
            bail!("{text:?} is not a span of time; write 90s, 15m, 1h30m or 2d");
        };
        total = total.saturating_add(Duration::from_millis(part));
        rest = next;
    }
    if text.is_empty() {
        bail!("an empty text is not a span of time");
    }
    Ok(total)
}

/// A moment: RFC 3339, Unix seconds (with a fraction or without), or a span before now, as docker takes them. In Unix nanoseconds.
pub fn parse_moment(text: &str) -> Result<i64> {
    moment(text, now())
}

fn moment(text: &str, now: i64) -> Result<i64> {
    if let Some(at) = parse_rfc3339(text).or_else(|| parse_rfc3339(&format!("{text}Z"))) {
        return Ok(at);
    }
    // A day, and a day with a time of minutes.
    for whole in [format!("{text}T00:00:00Z"), format!("{text}:00Z")] {
        if let Some(at) = parse_rfc3339(&whole).filter(|_| text.contains('-')) {
            return Ok(at);
        }
    }
    // A bare number is a Unix time where it is too large for a span that anybody would mean.
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.len() > 8 && all_digits(whole) && (fraction.is_empty() || all_digits(fraction)) {
        let nanos: i64 = format!("{fraction:0<9}")[..9].parse().unwrap_or(0);
        return whole
            .parse::<i64>()
            .ok()
            .and_then(|s| s.checked_mul(NANOS)?.checked_add(nanos))
            .ok_or_else(|| not_a_moment(text));
    }
    let span = parse_span(text).map_err(|_| not_a_moment(text))?;
    Ok(now - i64::try_from(span.as_nanos()).unwrap_or(i64::MAX))
}

fn not_a_moment(text: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "{text:?} is no moment; write 90s, 15m, 1h30m or 2d for a time ago, 2026-01-02T15:04:05Z, or Unix seconds"
    )
}

/// Microseconds as `850us`, `3.2ms` or `1.25s`.
pub fn micros(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros}us"),
        1000..1_000_000 => format!("{}.{}ms", micros / 1000, micros % 1000 / 100),
        _ => format!("{}.{:02}s", micros / 1_000_000, micros % 1_000_000 / 10_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_written_and_read() {
        let known = [
            (1, "1970-01-01T00:00:00.000000001Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00.000000000Z"),
            (1_767_225_599_999_999_999, "2025-12-31T23:59:59.999999999Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
        ];
        for (nanos, text) in known {
            assert_eq!(rfc3339(nanos), text);
            assert_eq!(parse_rfc3339(text), Some(nanos), "{text}");
        }
        assert_eq!(parse_rfc3339("2000-02-29T02:00:00.5+02:00"), Some(951_782_400_500_000_000));
        assert_eq!(parse_rfc3339("1970-01-01T00:00:00-00:30"), Some(1800 * NANOS));
        let bad = [
            "",
            "2000-02-29",
            "2000-13-01T00:00:00Z",
            "2000-01-01T00:00:00",
            "2000-01-01T00:00:00.Z",
            "ä".repeat(20).as_str(),
        ]
        .map(str::to_owned);
        for text in bad {
            assert_eq!(parse_rfc3339(&text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn times_round_trip(nanos in any::<i64>()) {
            // Four digits of years.
            let nanos = nanos.rem_euclid(253_402_300_799 * 4).max(1);
            prop_assert_eq!(parse_rfc3339(&rfc3339(nanos)), Some(nanos));
        }
        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,40}") {
            let _ = (parse_rfc3339(&text), parse_span(&text));
        }
    }

    #[test]
    fn ages_and_spans_read_well() {
        let ages = [
            (0, "0s"),
            (119, "119s"),
            (130, "2m10s"),
            (700, "11m"),
            (11_000, "3h3m"),
            (90_000, "25h"),
            (200_000, "2d"),
        ];
        for (seconds, text) in ages {
            assert_eq!(age(seconds * NANOS + 1, 1), text);
        }
        assert_eq!((age(5, 0), age(0, NANOS)), ("-".into(), "0s".into()));
        assert_eq!(parse_span("1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(parse_span("15").unwrap(), Duration::from_secs(15));
        assert_eq!(parse_span("250ms").unwrap(), Duration::from_millis(250));
        for bad in ["", "h", "1y", "1h2", "-1s", "1.5h", "99999999999999999999d"] {
            assert!(parse_span(bad).is_err(), "{bad:?}");
        }
        assert_eq!([micros(12), micros(3210), micros(1_250_000)], ["12us", "3.2ms", "1.25s"]);
    }

    #[test]
    fn moments_are_read() {
        let now = 2_000_000_000 * NANOS;
        let table = [
            ("10m", now - 600 * NANOS),
            ("90", now - 90 * NANOS),
            ("1970-01-01T00:00:01Z", NANOS),
            ("1970-01-01T00:00:01", NANOS),
            ("1970-01-02", DAY * NANOS),
            ("1970-01-01T00:01", 60 * NANOS),
            ("1500000000", 1_500_000_000 * NANOS),
            ("1500000000.5", 1_500_000_000 * NANOS + NANOS / 2),
        ];
        for (text, wanted) in table {
            assert_eq!(moment(text, now).unwrap(), wanted, "{text}");
        }
        for bad in ["", "yesterday", "1y", "2026-13-01", "-1s", "99999999999999999999"] {
            assert!(moment(bad, now).is_err(), "{bad:?}");
        }
    }
}
