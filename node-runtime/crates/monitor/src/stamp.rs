//! Time stamps of log records: RFC 3339 in UTC with nine decimals, as the kubelet reads them (`RFC3339Nano`).
//!
//! Owns: formatting, and that time never goes backwards. Must not: read the clock.
use std::time::Duration;

/// Length of a stamp in bytes.
pub const LEN: usize = 30;

/// Formats moments since 1970, each at least as late as the one before, whatever the clock does.
#[derive(Debug, Default)]
pub struct Stamps {
    latest: Duration,
}

impl Stamps {
    /// The stamp of `now`, or of the latest moment so far if that is later.
    pub fn stamp(&mut self, now: Duration) -> [u8; LEN] {
        self.latest = self.latest.max(now);
        format(self.latest)
    }
}

/// Writes a number with leading zeros.
fn digits(out: &mut [u8], mut value: u64) {
    for place in out.iter_mut().rev() {
        *place = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

fn format(since_1970: Duration) -> [u8; LEN] {
    let mut out = *b"0000-00-00T00:00:00.000000000Z";
    let (days, second) = (since_1970.as_secs() / 86_400, since_1970.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    digits(&mut out[0..4], year);
    digits(&mut out[5..7], month);
    digits(&mut out[8..10], day);
    digits(&mut out[11..13], second / 3600);
    digits(&mut out[14..16], second / 60 % 60);
    digits(&mut out[17..19], second % 60);
    digits(&mut out[20..29], since_1970.subsec_nanos().into());
    out
}

/// Year, month and day of a count of days since 1970-01-01 in the Gregorian calendar. Years are counted from March, so that the
/// leap day is a year's last: then a month's first day is a linear function of the month.
fn civil(days: u64) -> (u64, u64, u64) {
    // Days since 0000-03-01, the start of a 400-year era of 146,097 days.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (400 * era + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seconds: u64, nanos: u32) -> String {
        String::from_utf8(format(Duration::new(seconds, nanos)).to_vec()).unwrap()
    }

    #[test]
    fn known_moments() {
        assert_eq!(text(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(text(951_782_399, 999_999_999), "2000-02-28T23:59:59.999999999Z");
        assert_eq!(text(951_782_400, 1), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(text(1_709_164_800, 0), "2024-02-29T00:00:00.000000000Z");
        assert_eq!(text(4_107_542_400, 0), "2100-03-01T00:00:00.000000000Z");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let length = |year: u64, month: u64| match month {
            2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let mut expected = (1970, 1, 1);
        for days in 0..150_000 {
            assert_eq!(civil(days), expected);
            let (year, month, day) = expected;
            expected = if day < length(year, month) {
                (year, month, day + 1)
            } else if month < 12 {
                (year, month + 1, 1)
            } else {
                (year + 1, 1, 1)
            };
        }
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_show() {
        let mut stamps = Stamps::default();
        let first = stamps.stamp(Duration::from_secs(100));
        assert_eq!(stamps.stamp(Duration::from_secs(50)), first);
        assert!(stamps.stamp(Duration::from_secs(101)) > first);
    }
}
