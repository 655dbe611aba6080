//! Pulls in flight: equal ones join.
//!
//! Owns: who waits for which pull, and who hears of its progress. Must not: know what a pull does.
use crate::ImageRecord;
use crate::pull::PullRequest;
use berth_model::{Digest, Error, PullProgress, Reference, Result};
use berth_registry::Auth;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, watch};

type Outcome = Result<Arc<ImageRecord>>;

/// What makes two pulls equal. Credentials are part of it: nobody gets an image by someone else's.
#[derive(Clone, PartialEq)]
struct Key {
    reference: Reference,
    digest: Digest,
    auth: Auth,
    evidence: crate::Evidence,
}

/// Those who hear of a pull's progress. A listener that does not keep up misses some of it.
#[derive(Clone, Default)]
pub struct Listeners(Arc<Mutex<Vec<mpsc::Sender<PullProgress>>>>);

impl Listeners {
    /// Tells all.
    pub fn tell(&self, progress: &PullProgress) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|listener| {
            !matches!(listener.try_send(progress.clone()), Err(mpsc::error::TrySendError::Closed(_)))
        });
    }

    fn add(&self, listener: Option<mpsc::Sender<PullProgress>>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(listener);
    }
}

struct Flight {
    key: Key,
    listeners: Listeners,
    outcome: watch::Receiver<Option<Outcome>>,
}

/// The pulls that run.
#[derive(Default)]
pub struct Flights(Arc<Mutex<Vec<Flight>>>);

impl Flights {
    fn lock(&self) -> MutexGuard<'_, Vec<Flight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins an equal pull, or starts one in a task of its own: when the caller goes away, the pull goes on.
    pub async fn join<F>(&self, request: PullRequest, start: impl FnOnce(PullRequest, Listeners) -> F) -> Outcome
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut outcome = self.enter(request, start);
        match outcome.wait_for(Option::is_some).await {
            Ok(found) => found.clone().unwrap_or_else(|| Err(ended())),
            Err(_) => Err(ended()),
        }
    }

    fn enter<F>(
        &self,
        mut request: PullRequest,
        start: impl FnOnce(PullRequest, Listeners) -> F,
    ) -> watch::Receiver<Option<Outcome>>
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let listener = request.progress.take();
        let PullRequest { reference, digest, auth, evidence, .. } = request.clone();
        let key = Key { reference, digest, auth, evidence };
        let mut all = self.lock();
        if let Some(flight) = all.iter().find(|f| f.key == key) {
            flight.listeners.add(listener);
            return flight.outcome.clone();
        }
        let listeners = Listeners::default();
        listeners.add(listener);
        let (sender, outcome) = watch::channel(None);
        all.push(Flight { key, listeners: listeners.clone(), outcome: outcome.clone() });
        drop(all);
        let landing = Landing { flights: self.0.clone(), outcome: outcome.clone() };
        let pull = start(request, listeners);
        tokio::spawn(async move {
            let found = pull.await;
            // Off the list first, so that whoever comes after this result starts afresh.
            drop(landing);
            sender.send_replace(Some(found));
        });
        outcome
    }
}

/// Takes a flight off the list, also when its task panics.
struct Landing {
    flights: Arc<Mutex<Vec<Flight>>>,
    outcome: watch::Receiver<Option<Outcome>>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut all = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|f| !f.outcome.same_channel(&self.outcome));
    }
}

fn ended() -> Error {
    Error::internal("the pull ended without a result: pull again")
}
