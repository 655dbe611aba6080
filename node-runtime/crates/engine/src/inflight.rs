//! Operations in flight, by key: the same request joins, another one is told what holds the key.
//!
//! Each operation runs in a task of its own, so a caller that goes away changes nothing. This is what keeps a kubelet that
//! timed out and asks again from ever hearing that a name is taken (cri-contract 6, RunPodSandbox and CreateContainer).
use berth_model::{Error, ErrorKind, Result};
use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

type Outcome<T> = watch::Receiver<Option<Result<T>>>;
type Running<K, R, T> = Arc<Mutex<HashMap<K, (R, Outcome<T>)>>>;

/// The operations under way for one kind of object.
pub(crate) struct Inflight<K, R, T> {
    running: Running<K, R, T>,
}

impl<K, R, T> Default for Inflight<K, R, T> {
    fn default() -> Self {
        Self { running: Arc::default() }
    }
}

impl<K, R, T> Inflight<K, R, T>
where
    K: Eq + Hash + Clone + Debug + Send + 'static,
    R: PartialEq + Clone + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Joins the operation that runs for `key` with an equal `request`, or starts `operation`.
    /// Errors: `AlreadyExists` when another request runs for the key, else what the operation returns.
    pub(crate) async fn join_or_start<F>(&self, key: K, request: R, operation: impl FnOnce() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut outcome = self.enter(key, request, operation)?;
        let done = outcome.wait_for(Option::is_some).await;
        match done.map(|value| value.clone()) {
            Ok(Some(result)) => result,
            _ => Err(Error::internal("the operation ended without a result; look for a panic in the daemon's log")),
        }
    }

    fn enter<F>(&self, key: K, request: R, operation: impl FnOnce() -> F) -> Result<Outcome<T>>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((first, outcome)) = running.get(&key) {
            if *first == request {
                return Ok(outcome.clone());
            }
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("another request for {key:?} is under way; wait for it, or use another attempt number"),
            ));
        }
        let (tell, outcome) = watch::channel(None);
        running.insert(key.clone(), (request, outcome.clone()));
        drop(running);
        let leave = Leave { running: self.running.clone(), key };
        let work = operation();
        tokio::spawn(async move {
            let _leave = leave;
            let result = work.await;
            // Nobody may be waiting any more; the operation has happened all the same.
            let _ = tell.send(Some(result));
        });
        Ok(outcome)
    }
}

/// Takes the key out when the operation ends, also by a panic.
struct Leave<K: Eq + Hash, R, T> {
    running: Running<K, R, T>,
    key: K,
}

impl<K: Eq + Hash, R, T> Drop for Leave<K, R, T> {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn equal_requests_join_and_others_are_told() {
        let inflight = Arc::new(Inflight::<&str, u32, u32>::default());
        let runs = Arc::new(AtomicU32::new(0));
        let slow = |runs: Arc<AtomicU32>| async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok(runs.fetch_add(1, Ordering::SeqCst))
        };
        let first = inflight.clone();
        let first_runs = runs.clone();
        let abandoned = tokio::spawn(async move { first.join_or_start("pod", 1, || slow(first_runs)).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        abandoned.abort();
        let other = inflight.join_or_start("pod", 2, || slow(runs.clone())).await;
        assert_eq!(other.unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(inflight.join_or_start("pod", 1, || slow(runs.clone())).await, Ok(0));
        assert_eq!(runs.load(Ordering::SeqCst), 1, "the retry joined the operation of the client that went away");
        assert_eq!(inflight.join_or_start("pod", 2, || slow(runs.clone())).await, Ok(1), "the key is free again");
    }
}
