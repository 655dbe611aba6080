//! How many attachments are made at a time: a number that may change while some are under way.
//! Must not: know what is done in a place.
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places, given in the order in which they were asked for.
pub(super) struct Places {
    semaphore: Arc<Semaphore>,
    state: Mutex<State>,
}

struct State {
    limit: usize,
    /// Places that are to go as soon as they are free.
    owed: usize,
}

/// A place; it is free again when this is dropped.
pub(super) struct Place<'a> {
    places: &'a Places,
    permit: Option<OwnedSemaphorePermit>,
}

impl Places {
    pub(super) fn new(limit: usize) -> Self {
        Self { semaphore: Arc::new(Semaphore::new(limit)), state: Mutex::new(State { limit, owed: 0 }) }
    }

    /// Another number from now on. Who has a place keeps it.
    pub(super) fn set(&self, limit: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if limit > state.limit {
            let more = limit - state.limit;
            let forgiven = more.min(state.owed);
            state.owed -= forgiven;
            self.semaphore.add_permits(more - forgiven);
        } else {
            let fewer = state.limit - limit;
            state.owed += fewer - self.semaphore.forget_permits(fewer);
        }
        state.limit = limit;
    }

    /// The number.
    pub(super) fn limit(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).limit
    }

    /// A place, waited for that long at most; `None` if there was none.
    pub(super) async fn enter(&self, patience: Duration) -> Option<Place<'_>> {
        let acquired = tokio::time::timeout(patience, self.semaphore.clone().acquire_owned()).await;
        let permit = acquired.ok()?.ok()?;
        Some(Place { places: self, permit: Some(permit) })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.places.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(permit) = self.permit.take()
            && state.owed > 0
        {
            state.owed -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_number_holds_through_its_changes() {
        let places = Places::new(2);
        let short = Duration::from_secs(1);
        let (one, two) = (places.enter(short).await.unwrap(), places.enter(short).await.unwrap());
        assert!(places.enter(short).await.is_none());
        // Two are taken while one is allowed: neither gives its place to a third.
        places.set(1);
        drop(one);
        assert!(places.enter(short).await.is_none());
        drop(two);
        let three = places.enter(short).await.unwrap();
        places.set(3);
        assert_eq!(places.limit(), 3);
        let (four, five) = (places.enter(short).await.unwrap(), places.enter(short).await.unwrap());
        assert!(places.enter(short).await.is_none());
        // Less and more again before anybody has left.
        places.set(1);
        places.set(2);
        drop(three);
        assert!(places.enter(short).await.is_none(), "two still have theirs");
        drop((four, five));
        let all = (places.enter(short).await.unwrap(), places.enter(short).await.unwrap());
        assert!(places.enter(short).await.is_none());
        drop(all);
    }
}
