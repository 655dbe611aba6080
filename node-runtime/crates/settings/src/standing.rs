//! What is in force, what waits for a restart, and what could not be applied: told by `berth info`, `berth config`, the CRI's status and
//! metrics.
//!
//! Must not: apply anything; whoever applies a field says here how it went.
use crate::{Change, Class, Live, Settings, diff};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How documents and daemon agree. Copies are the same.
#[derive(Clone)]
pub struct Standing(Arc<Shared>);

struct Shared {
    live: Live,
    /// What the daemon was started with.
    started: Arc<Settings>,
    problems: Mutex<BTreeMap<String, String>>,
}

impl Standing {
    /// Of a daemon that starts now.
    pub fn new(live: Live) -> Self {
        let started = live.current.borrow().clone();
        Self(Arc::new(Shared { live, started, problems: Mutex::default() }))
    }

    /// What the daemon was started with.
    pub fn started(&self) -> Arc<Settings> {
        self.0.started.clone()
    }

    /// What the documents say.
    pub fn wanted(&self) -> Arc<Settings> {
        self.0.live.current.borrow().clone()
    }

    /// The documents, as they change.
    pub fn live(&self) -> &Live {
        &self.0.live
    }

    /// Changes that wait for the daemon's next start.
    pub fn pending(&self) -> Vec<Change> {
        let changes = diff(&self.0.started, &self.wanted());
        changes.into_iter().filter(|change| change.class == Class::DaemonRestart).collect()
    }

    /// Why the documents on disk are not the ones in force; empty when they are.
    pub fn refused(&self) -> String {
        self.0.live.refused.borrow().clone()
    }

    /// Says that a field could not be applied, and why; `None` that it is. Returns whether that is news.
    pub fn report(&self, field: &str, problem: Option<String>) -> bool {
        let mut problems = self.0.problems.lock().unwrap_or_else(PoisonError::into_inner);
        let former = match &problem {
            Some(text) => problems.insert(field.to_owned(), text.clone()),
            None => problems.remove(field),
        };
        former != problem
    }

    /// Fields that could not be applied, with the reason. What was in force before is in force still.
    pub fn problems(&self) -> BTreeMap<String, String> {
        self.0.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl std::fmt::Debug for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Standing").field("pending", &self.pending()).finish_non_exhaustive()
    }
}
