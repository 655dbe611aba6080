//! The one retry policy: which pause follows which failure.
//!
//! Owns: backoff and the loop. Must not: decide what may be tried again; a [`Failure`] says so.
use crate::error::{Failure, unavailable};
use berth_model::{Error, Result};
use std::time::Duration;

/// When to try again.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// Attempts in all, at least one.
    pub attempts: u32,
    /// Pause after the first failure; it doubles with each further one.
    pub base: Duration,
    /// Longest pause of ours.
    pub cap: Duration,
    /// Longest `Retry-After` that is honoured; a registry that asks for more fails the call at once.
    pub retry_after_cap: Duration,
    /// A number from 0 to 1 that spreads the pauses of many nodes; half of each pause is spread.
    pub jitter: fn() -> f64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 4,
            base: Duration::from_millis(300),
            cap: Duration::from_secs(10),
            retry_after_cap: Duration::from_secs(30),
            jitter: random,
        }
    }
}

fn random() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness nodes would only retry in step; that is no reason to fail.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return 0.5;
    }
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

impl RetryPolicy {
    /// The same with at most so many attempts.
    pub(crate) fn with_attempts(self, most: u32) -> Self {
        Self { attempts: self.attempts.min(most), ..self }
    }

    /// The pause after failure number `failed` (from 1), or `None` when it was the last.
    pub(crate) fn pause(&self, failed: u32, retry_after: Option<Duration>) -> Option<Duration> {
        if failed >= self.attempts {
            return None;
        }
        if let Some(asked) = retry_after {
            return (asked <= self.retry_after_cap).then_some(asked);
        }
        let full = self.base.saturating_mul(1 << failed.saturating_sub(1).min(16)).min(self.cap);
        Some(full.mul_f64(0.5 + 0.5 * (self.jitter)().clamp(0.0, 1.0)))
    }

    /// Sleeps before the next attempt, or gives back the error that ends the call.
    pub(crate) async fn wait(&self, failed: u32, failure: Failure, host: &str) -> Result<()> {
        match failure {
            Failure::Final(e) => Err(e),
            Failure::Again(e, retry_after) | Failure::Limited(e, retry_after) => {
                match self.pause(failed, retry_after) {
                    Some(pause) => {
                        tokio::time::sleep(pause).await;
                        Ok(())
                    }
                    None => Err(last_word(e, retry_after, self, host)),
                }
            }
        }
    }

    /// Runs `attempt` until it succeeds, fails for good, or attempts run out. `again` is called before each further one.
    pub(crate) async fn run<T, F>(&self, host: &str, again: impl Fn(), mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut failed = 0;
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(failure) => {
                    failed += 1;
                    self.wait(failed, failure, host).await?;
                    again();
                }
            }
        }
    }
}

fn last_word(e: Error, retry_after: Option<Duration>, policy: &RetryPolicy, host: &str) -> Error {
    match retry_after {
        Some(asked) if asked > policy.retry_after_cap => unavailable(
            host,
            format!(
                "asks to come back after {} s, longer than the {} s that a pull waits",
                asked.as_secs(),
                policy.retry_after_cap.as_secs()
            ),
        ),
        _ => e,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_the_cap_and_end() {
        let policy = RetryPolicy { attempts: 8, cap: Duration::from_secs(2), jitter: || 1.0, ..RetryPolicy::default() };
        let millis: Vec<_> = (1..=8).map(|n| policy.pause(n, None).map(|d| d.as_millis())).collect();
        assert_eq!(millis, [Some(300), Some(600), Some(1200), Some(2000), Some(2000), Some(2000), Some(2000), None]);
        let low = RetryPolicy { jitter: || 0.0, ..policy };
        assert_eq!(low.pause(1, None), Some(Duration::from_millis(150)));
    }

    #[test]
    fn retry_after_is_honoured_up_to_its_cap() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.pause(1, Some(Duration::from_secs(7))), Some(Duration::from_secs(7)));
        assert_eq!(policy.pause(1, Some(Duration::from_secs(31))), None);
    }
}
