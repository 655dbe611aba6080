//! The API server's clock, as its answers tell it. Grants end by that clock: a node's own may be wrong by hours, and a grant that has ended
//! for whoever gave it must not be good on the node.
//!
//! Owns: the difference, measured with each answer. Must not: be asked how long something took.
use crate::time;
use jiff::fmt::rfc2822::DateTimeParser;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The API server's time when it was told last.
#[derive(Debug, Clone, Copy)]
struct Told {
    /// Unix seconds; the header has no fractions.
    at: u64,
    /// When that was, by a clock that nobody sets.
    when: Instant,
}

/// Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Clock(Arc<Mutex<Option<Told>>>);

impl Clock {
    /// Takes in the header `Date` of an answer (RFC 9110, 6.6.1). One that cannot be read is as if there were none.
    pub fn hear(&self, date: &str) {
        let Some(at) = parse(date) else { return };
        *self.told() = Some(Told { at, when: Instant::now() });
    }

    /// The API server's time in Unix seconds, if it ever told it.
    pub fn server(&self) -> Option<u64> {
        let told = *self.told();
        told.map(|told| told.at.saturating_add(told.when.elapsed().as_secs()))
    }

    /// The API server's time if it is known, else the node's own: for what is written down.
    pub fn now(&self) -> u64 {
        self.server().unwrap_or_else(time::now)
    }

    /// A moment of the API server's clock as the node's own clock will show it: for programs of the host, which know no other.
    pub fn local(&self, moment: u64) -> u64 {
        match self.server() {
            Some(server) => time::now().saturating_add(moment).saturating_sub(server),
            None => moment,
        }
    }

    /// By how many seconds the node's own clock is ahead of the API server's.
    pub fn ahead(&self) -> i64 {
        let server = self.server().unwrap_or_else(time::now);
        i64::try_from(time::now()).unwrap_or(0) - i64::try_from(server).unwrap_or(0)
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Option<Told>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(date: &str) -> Option<u64> {
    static PARSER: DateTimeParser = DateTimeParser::new();
    u64::try_from(PARSER.parse_timestamp(date).ok()?.as_second()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_date_counts_and_programs_of_the_host_are_told_their_own() {
        let clock = Clock::default();
        assert_eq!((clock.server(), clock.local(7)), (None, 7));
        clock.hear("soon");
        assert_eq!(clock.server(), None);
        // An hour behind this node.
        let server = time::now() - 3600;
        let date = jiff::Timestamp::from_second(i64::try_from(server).unwrap()).unwrap();
        clock.hear(&date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
        let told = clock.server().unwrap();
        assert!(told.abs_diff(server) <= 2, "{told} {server}");
        assert!(clock.local(server + 60).abs_diff(time::now() + 60) <= 2, "a minute is a minute on both");
        assert!((3598..=3602).contains(&clock.ahead()), "{}", clock.ahead());
    }
}
