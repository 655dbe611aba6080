//! Pulls in flight: equal ones join, and one that nobody waits for any more is told so.
//!
//! Owns: who waits for which pull, and who hears of its progress. Must not: know what a pull does, or stop one.
use crate::ImageRecord;
use crate::pull::PullRequest;
use berth_model::{Digest, Error, PullProgress, Reference, Result};
use berth_registry::{Auth, Platform};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::{mpsc, watch};

type Outcome = Result<Arc<ImageRecord>>;

/// What makes two pulls equal. Credentials are part of it: nobody gets an image by someone else's.
#[derive(Clone, PartialEq)]
struct Key {
    reference: Reference,
    digest: Digest,
    auth: Auth,
    evidence: crate::Evidence,
    platform: Platform,
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

    /// Adds one.
    pub fn add(&self, listener: Option<mpsc::Sender<PullProgress>>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(listener);
    }
}

/// Held by everyone who waits for one pull. With the last of them goes the wish for it.
pub struct Wish(watch::Sender<bool>);

/// A wish of its own, for what nobody else can join.
pub fn wish() -> (Wish, Wanted) {
    let (wanted, told) = watch::channel(true);
    (Wish(wanted), Wanted(told))
}

impl Drop for Wish {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

/// Tells a pull whether somebody waits for it.
#[derive(Clone)]
pub struct Wanted(watch::Receiver<bool>);

impl Wanted {
    /// Whether nobody does any more.
    pub fn is_given_up(&self) -> bool {
        !*self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Returns when nobody does any more.
    pub async fn given_up(&mut self) {
        // An error is the sender's end, which tells the same.
        let _ = self.0.wait_for(|wanted| !wanted).await;
    }
}

struct Flight {
    key: Key,
    listeners: Listeners,
    wish: Weak<Wish>,
    outcome: watch::Receiver<Option<Outcome>>,
}

/// The pulls that run.
#[derive(Default)]
pub struct Flights(Arc<Mutex<Vec<Flight>>>);

impl Flights {
    fn lock(&self) -> MutexGuard<'_, Vec<Flight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins an equal pull, or starts one in a task of its own. When a caller goes away the pull goes on for the others; when
    /// the last one does, the pull is told, and ends where it can.
    pub async fn join<F>(
        &self,
        request: PullRequest,
        start: impl FnOnce(PullRequest, Listeners, Wanted) -> F,
    ) -> Outcome
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let (_wish, mut outcome) = self.enter(request, start);
        match outcome.wait_for(Option::is_some).await {
            Ok(found) => found.clone().unwrap_or_else(|| Err(ended())),
            Err(_) => Err(ended()),
        }
    }

    fn enter<F>(
        &self,
        mut request: PullRequest,
        start: impl FnOnce(PullRequest, Listeners, Wanted) -> F,
    ) -> (Arc<Wish>, watch::Receiver<Option<Outcome>>)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let listener = request.progress.take();
        let PullRequest { reference, digest, auth, evidence, platform, .. } = request.clone();
        let key = Key { reference, digest, auth, evidence, platform };
        let mut all = self.lock();
        // One that nobody wants is about to end, so it cannot be joined.
        let equal = all.iter().filter(|f| f.key == key).find_map(|f| Some((f.wish.upgrade()?, f)));
        if let Some((wish, flight)) = equal {
            flight.listeners.add(listener);
            return (wish, flight.outcome.clone());
        }
        let listeners = Listeners::default();
        listeners.add(listener);
        let (sender, outcome) = watch::channel(None);
        let (wish, told) = wish();
        let wish = Arc::new(wish);
        let flight =
            Flight { key, listeners: listeners.clone(), wish: Arc::downgrade(&wish), outcome: outcome.clone() };
        all.push(flight);
        drop(all);
        let landing = Landing { flights: self.0.clone(), outcome: outcome.clone() };
        let pull = start(request, listeners, told);
        tokio::spawn(async move {
            let found = pull.await;
            // Off the list first, so that whoever comes after this result starts afresh.
            drop(landing);
            sender.send_replace(Some(found));
        });
        (wish, outcome)
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
