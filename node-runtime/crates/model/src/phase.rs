//! Where the time of an operation goes. Shown by the CLI and exported as histograms, so the names of its steps are a closed set;
//! a pull's phases also name its layers, and stay out of the histograms.
use crate::UnixNanos;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One named step: when it began and how long it took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// Step name, such as `run/network` or `start/mounts`. One whose name begins with another's and a slash is a part of it.
    pub name: String,
    /// Its begin, in microseconds since that of its operation. Zero in records of versions that did not keep it.
    #[serde(default)]
    pub at: u64,
    /// Duration in microseconds.
    pub micros: u64,
}

/// The phases of one operation, in the order of their ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases(pub Vec<Phase>);

impl Phases {
    /// Adds a phase that began `at` after its operation.
    pub fn push(&mut self, name: impl Into<String>, at: Duration, took: Duration) {
        self.0.push(Phase { name: name.into(), at: micros(at), micros: micros(took) });
    }

    /// Sum in microseconds.
    pub fn total_micros(&self) -> u64 {
        self.0.iter().map(|p| p.micros).sum()
    }
}

/// One operation: when, how long, and its phases.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// Its begin.
    pub began: UnixNanos,
    /// Its whole time in microseconds, what lies between its phases included.
    pub micros: u64,
    /// Its phases.
    pub phases: Phases,
}

/// A duration in whole microseconds.
pub fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

/// Most phases that one log takes; what comes after them is not kept.
const MOST: usize = 400;

/// Phases that several tasks add to while an operation runs. Clones are the same log; the default one keeps nothing.
#[derive(Debug, Clone, Default)]
pub struct PhaseLog(Option<Arc<(Instant, Mutex<Phases>)>>);

impl PhaseLog {
    /// A log whose offsets count from `begun`.
    pub fn since(begun: Instant) -> Self {
        Self(Some(Arc::new((begun, Mutex::default()))))
    }

    /// Adds a phase from `begun` to `ended`.
    pub fn add(&self, name: impl Into<String>, begun: Instant, ended: Instant) {
        self.add_lasting(name, begun, ended.saturating_duration_since(begun));
    }

    /// Adds a phase that began at `begun` and, all pauses left out, took this long.
    pub fn add_lasting(&self, name: impl Into<String>, begun: Instant, took: Duration) {
        let Some(log) = &self.0 else { return };
        let (origin, phases) = &**log;
        let mut phases = phases.lock().unwrap_or_else(PoisonError::into_inner);
        if phases.0.len() < MOST {
            phases.push(name, begun.saturating_duration_since(*origin), took);
        }
    }

    /// What has been added so far.
    pub fn phases(&self) -> Phases {
        self.0.as_ref().map_or_else(Phases::default, |log| log.1.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_counts_from_its_begin_and_is_bounded() {
        let begun = Instant::now();
        let log = PhaseLog::since(begun);
        let other = log.clone();
        other.add_lasting("fetch", begun + Duration::from_micros(7), Duration::from_micros(5));
        assert_eq!(log.phases().0, [Phase { name: "fetch".into(), at: 7, micros: 5 }]);
        for _ in 0..2 * MOST {
            log.add("more", begun, begun);
        }
        assert_eq!(log.phases().0.len(), MOST);
        let none = PhaseLog::default();
        none.add("x", begun, begun);
        assert_eq!(none.phases(), Phases::default());
    }

    #[test]
    fn phases_of_older_records_have_no_offset() {
        let old: Phase = serde_json::from_str(r#"{"name":"run/network","micros":7}"#).unwrap();
        assert_eq!(old, Phase { name: "run/network".into(), at: 0, micros: 7 });
    }
}
