//! Pauses between two attempts at what an API server, or something before it, did not do: growing, with a limit, and not the same on all
//! nodes. Must not: decide what an attempt is.
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;
use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(1);
/// Longest pause, but for its spread by a quarter.
pub(crate) const MOST: Duration = Duration::from_secs(30);

/// Of one thing that is asked for.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    pause: Duration,
    until: Option<Instant>,
    /// Why the last attempt came to nothing.
    pub(crate) why: String,
}

impl Backoff {
    /// An attempt came to nothing.
    pub(crate) fn failed(&mut self, why: &str) {
        self.pause = (self.pause * 2).clamp(FIRST, MOST);
        let spread = u32::try_from(RandomState::new().build_hasher().finish() % 512).unwrap_or(0);
        self.until = Some(Instant::now() + self.pause * (768 + spread) / 1024);
        why.clone_into(&mut self.why);
    }

    /// How long nothing is asked yet; `None`: it may be.
    pub(crate) fn rest(&self) -> Option<Duration> {
        self.until?.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_limit_and_end() {
        let mut backoff = Backoff::default();
        assert!(backoff.rest().is_none());
        let mut before = Duration::ZERO;
        for attempt in 0..10 {
            backoff.failed("429");
            let rest = backoff.rest().unwrap();
            assert!(
                rest <= MOST * 5 / 4 && (rest > before || before > MOST / 2),
                "{attempt}: {rest:?} after {before:?}"
            );
            before = rest;
            tokio::time::advance(rest).await;
            assert!(backoff.rest().is_none());
        }
        assert!(before >= MOST * 3 / 4);
    }
}
