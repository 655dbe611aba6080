//! CPU rates of pods: a kubelet computes those of containers by itself, and takes a pod's from the runtime.
//!
//! Owns: two former readings of each pod. Must not: read anything.
use berth_model::{PodId, UnixNanos};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

const SECOND: i64 = 1_000_000_000;
/// A rate is that of at least this time, so that a second reader a moment later does not see noise.
const WINDOW: i64 = 5 * SECOND;

/// CPU time in nanoseconds, used until then.
#[derive(Debug, Clone, Copy)]
struct Reading {
    at: UnixNanos,
    total: u64,
}

/// The last readings of each pod.
#[derive(Default)]
pub(crate) struct Rates(Mutex<HashMap<PodId, [Reading; 2]>>);

impl Rates {
    fn lock(&self) -> MutexGuard<'_, HashMap<PodId, [Reading; 2]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a pod.
    pub(crate) fn forget(&self, id: &PodId) {
        self.lock().remove(id);
    }

    /// Nanoseconds of CPU time a second, over the last five to some seconds; over its whole life for a pod that is read the
    /// first time.
    pub(crate) fn rate(&self, id: &PodId, created_at: UnixNanos, at: UnixNanos, total: u64) -> u64 {
        let mut known = self.lock();
        let birth = Reading { at: created_at, total: 0 };
        let [base, last] = known.entry(id.clone()).or_insert([birth, birth]);
        if at - last.at >= WINDOW {
            *base = *last;
            *last = Reading { at, total };
        }
        let time = u128::try_from(at - base.at).unwrap_or_default().max(1);
        // A sum of containers becomes less when one of them goes.
        let used = u128::from(total.saturating_sub(base.total));
        u64::try_from(used * u128::from(SECOND.unsigned_abs()) / time).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_last_window() {
        let (rates, id) = (Rates::default(), PodId::from_random([1; 32]));
        // Milliseconds in all, milliseconds a second.
        let rate = |seconds: i64, used: u64| rates.rate(&id, 0, seconds * SECOND, used * 1_000_000) / 1_000_000;
        assert_eq!(rate(10, 5000), 500, "over its life");
        assert_eq!(rate(20, 5000), 0, "it has done nothing since");
        assert_eq!(rate(21, 7000), 181, "too soon for a window of its own: two seconds of eleven");
        assert_eq!(rate(30, 25_000), 2000);
        assert_eq!(rate(40, 3000), 0, "a container has gone");
        rates.forget(&id);
        assert_eq!(rate(50, 25_000), 500);
    }
}
