//! What the API server refused of single objects (a webhook, a rule, a right that is missing): each is asked for again ever more seldom, by itself,
//! so that it holds up nothing else. Kept in memory: whoever leads next asks once more.
//!
//! Must not: ask, or know what a change is about.
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Pause after the first refusal; each further one doubles it.
const FIRST: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(60);
/// What was not refused for so long is not asked for any more.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// Changes that were refused, by what tells them apart.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    all: BTreeMap<String, Refused>,
}

#[derive(Debug)]
struct Refused {
    times: u32,
    last: Instant,
    until: Instant,
    why: String,
}

impl Refusals {
    /// It was refused, and is not asked for again for a while.
    pub(super) fn put_off(&mut self, key: &str, why: &str, now: Instant) {
        let times = self.all.get(key).map_or(0, |refused| refused.times).saturating_add(1);
        let pause = (FIRST * 2u32.saturating_pow((times - 1).min(12))).min(LONGEST);
        self.all.insert(key.to_owned(), Refused { times, last: now, until: now + pause, why: why.to_owned() });
    }

    /// It was refused for now: what it waits for may come at any time.
    pub(super) fn not_now(&mut self, key: &str, why: &str, now: Instant) {
        self.all.insert(key.to_owned(), Refused { times: 0, last: now, until: now, why: why.to_owned() });
    }

    /// It was taken, or what it was about is gone.
    pub(super) fn over(&mut self, key: &str) {
        self.all.remove(key);
    }

    /// Why it was refused last.
    pub(super) fn why(&self, key: &str) -> Option<&str> {
        self.all.get(key).map(|refused| refused.why.as_str())
    }

    /// Why it is not asked for now, if it is not.
    pub(super) fn holds(&self, key: &str, now: Instant) -> Option<&str> {
        self.all.get(key).filter(|refused| refused.until > now).map(|refused| refused.why.as_str())
    }

    /// When the next one is to be asked for again.
    pub(super) fn next(&self, now: Instant) -> Option<Duration> {
        self.all.values().filter(|refused| refused.until > now).map(|refused| refused.until - now).min()
    }

    /// Forgets what nobody asks for any more.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.all.retain(|_, refused| now.duration_since(refused.last) < FORGOTTEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_put_off_by_itself_ever_longer() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        refusals.put_off("a", "no", at(0));
        assert_eq!((refusals.holds("a", at(0)), refusals.holds("b", at(0))), (Some("no"), None));
        assert_eq!(refusals.holds("a", at(1)), None);
        assert_eq!(refusals.why("a"), Some("no"), "it is known all the same");
        refusals.put_off("a", "no", at(1));
        refusals.not_now("c", "a budget", at(1));
        assert_eq!(
            refusals.next(at(1)),
            Some(Duration::from_secs(2)),
            "what waits for a budget is asked for each time"
        );
        (0..20).for_each(|_| refusals.put_off("a", "no", at(10)));
        assert_eq!(refusals.next(at(10)), Some(LONGEST));
        refusals.over("a");
        assert_eq!((refusals.next(at(10)), refusals.holds("a", at(10))), (None, None));
        refusals.sweep(at(700));
        assert_eq!(refusals.why("c"), None);
    }
}
