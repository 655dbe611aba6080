//! Which mirrors failed a short while ago.
//!
//! Owns: the memory of failures and how long it lasts. Must not: decide what counts as one.
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A mirror is left alone for at most so many first pauses.
const MOST: u32 = 64;

#[derive(Debug)]
struct Down {
    until: Instant,
    failures: u32,
    /// Its content was wrong: that a transfer which began before came to its end proves nothing.
    lied: bool,
}

/// Failures by mirror.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<HashMap<String, Down>>);

impl Health {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Down>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when a mirror is left alone; `None` when it may be asked.
    pub fn down_until(&self, mirror: &str) -> Option<Instant> {
        self.lock().get(mirror).map(|down| down.until).filter(|until| *until > Instant::now())
    }

    /// It failed: leaves it alone for `base`, doubled with every failure since it last worked. Returns for how long.
    pub fn failed(&self, mirror: &str, base: Duration) -> Duration {
        let mut all = self.lock();
        let now = Instant::now();
        let down = all.entry(mirror.to_owned()).or_insert(Down { until: now, failures: 0, lied: false });
        // Transfers that ran side by side fail together: that is one failure.
        if down.failures == 0 || down.until <= now {
            let factor = 1u32.checked_shl(down.failures).unwrap_or(MOST).min(MOST);
            down.failures = down.failures.saturating_add(1);
            down.until = now + base.saturating_mul(factor);
        }
        down.until.saturating_duration_since(now)
    }

    /// The same for one whose content was not what its digest says.
    pub fn lied(&self, mirror: &str, base: Duration) -> Duration {
        let pause = self.failed(mirror, base);
        if let Some(down) = self.lock().get_mut(mirror) {
            down.lied = true;
        }
        pause
    }

    /// It works. One that lied stays alone until its time is over all the same.
    pub fn worked(&self, mirror: &str) {
        let mut all = self.lock();
        if all.get(mirror).is_some_and(|down| !down.lied || down.until <= Instant::now()) {
            all.remove(mirror);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end_with_success() {
        let health = Health::default();
        let base = Duration::from_millis(20);
        assert!(health.down_until("m").is_none());
        assert!(health.failed("m", base) <= base);
        assert!(health.down_until("m").is_some() && health.down_until("n").is_none());
        // At once again: the same failure.
        assert!(health.failed("m", base) <= base);
        std::thread::sleep(base * 2);
        assert!(health.down_until("m").is_none());
        assert!(health.failed("m", base) > base);
        health.worked("m");
        assert!(health.down_until("m").is_none());
        // A lie is not made good by a transfer's end.
        health.lied("m", base);
        health.worked("m");
        assert!(health.down_until("m").is_some());
        std::thread::sleep(base * 2);
        health.worked("m");
        assert!(health.failed("m", base) <= base, "its failures are forgotten");
    }
}
