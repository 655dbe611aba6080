//! The API server's clock, as its answers tell it. Grants end by that clock on every node: planned with a clock of one's own that is behind,
//! each would be over before it is used, and nodes would be taken for failed.
//!
//! Owns: the difference, measured with each answer. Must not: be asked how long something took.
use crate::time;
use jiff::fmt::rfc2822::DateTimeParser;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The API server's time when it was told last: Unix seconds (the header has no fractions), and when that was, by a clock that nobody sets.
type Told = (u64, Instant);

/// Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Clock(Arc<Mutex<Option<Told>>>);

impl Clock {
    /// Takes in the header `Date` of an answer (RFC 9110, 6.6.1). One that cannot be read is as if there were none.
    pub fn hear(&self, date: &str) {
        static PARSER: DateTimeParser = DateTimeParser::new();
        let Some(at) = PARSER.parse_timestamp(date).ok().and_then(|t| u64::try_from(t.as_second()).ok()) else {
            return;
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, Instant::now()));
    }

    /// The API server's time in Unix seconds; before its first answer, this process's own.
    pub fn now(&self) -> u64 {
        let told = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.map_or_else(time::now, |(at, when)| at.saturating_add(when.elapsed().as_secs()))
    }

    /// By how many seconds this process's own clock is ahead of the API server's.
    pub fn ahead(&self) -> i64 {
        i64::try_from(time::now()).unwrap_or(0).saturating_sub(i64::try_from(self.now()).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_date_counts() {
        let clock = Clock::default();
        clock.hear("soon");
        assert!(clock.now().abs_diff(time::now()) <= 1 && clock.ahead().abs() <= 1, "nothing was told");
        clock.hear("Thu, 01 Jan 2026 00:00:00 GMT");
        assert!(clock.now().abs_diff(1_767_225_600) <= 2, "{}", clock.now());
        let ahead = i64::try_from(time::now()).unwrap() - 1_767_225_600;
        assert!((clock.ahead() - ahead).abs() <= 2, "{}", clock.ahead());
    }
}
