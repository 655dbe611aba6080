//! What is in force, what waits for a restart, and what could not be applied: told by `berth info`, `berth config`, the CRI's status and
//! metrics.
//!
//! Must not: apply anything; whoever applies a field says here how it went.
use crate::{Change, Live, Settings, diff};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How documents and daemon agree. Copies are the same.
#[derive(Clone)]
pub struct Standing(Arc<Shared>);

struct Shared {
    live: Live,
    /// What the daemon was started with.
    started: Arc<Settings>,
    problems: Mutex<BTreeMap<String, String>>,
    parts: Mutex<Vec<watch::Receiver<Option<Arc<Settings>>>>>,
}

/// A part of the daemon that follows the settings by itself.
pub struct Part(watch::Sender<Option<Arc<Settings>>>);

impl Part {
    /// Says that it follows these settings, or has told why not.
    pub fn follows(&self, settings: Arc<Settings>) {
        self.0.send_replace(Some(settings));
    }
}

impl Standing {
    /// Of a daemon that starts now.
    pub fn new(live: Live) -> Self {
        let started = live.current.borrow().clone();
        Self(Arc::new(Shared { live, started, problems: Mutex::default(), parts: Mutex::default() }))
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

    /// A further part that follows the settings: whoever changes them waits for it. What has gone is not waited for.
    pub fn part(&self) -> Part {
        let (tell, told) = watch::channel(None);
        self.parts().push(told);
        Part(tell)
    }

    fn parts(&self) -> MutexGuard<'_, Vec<watch::Receiver<Option<Arc<Settings>>>>> {
        self.0.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all parts follow what is wanted now, so that [`Self::problems`] has what they have to say of it. Returns whether they do.
    pub async fn followed(&self, limit: Duration) -> bool {
        let parts = self.parts().clone();
        let all = async {
            for mut part in parts {
                let there =
                    |told: &Option<Arc<Settings>>| told.as_ref().is_some_and(|told| Arc::ptr_eq(told, &self.wanted()));
                let _ = part.wait_for(there).await;
            }
        };
        tokio::time::timeout(limit, all).await.is_ok()
    }

    /// Changes that wait for the daemon's next start.
    pub fn pending(&self) -> Vec<Change> {
        let changes = diff(&self.0.started, &self.wanted());
        changes.into_iter().filter(Change::waits_for_start).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch as watch_documents;

    #[tokio::test]
    async fn whoever_changes_settings_can_wait_for_all_parts() {
        let dir = tempfile::tempdir().unwrap();
        let live =
            watch_documents(dir.path().join("etc"), dir.path().join("accepted.json"), Arc::new(|_| Ok(()))).unwrap();
        let standing = Standing::new(live);
        let moment = Duration::from_millis(20);
        assert!(standing.followed(moment).await, "without parts there is nobody to wait for");
        let (one, other) = (standing.part(), standing.part());
        one.follows(standing.wanted());
        assert!(!standing.followed(moment).await, "the other one is late");
        other.follows(Arc::new(Settings::clone(&standing.wanted())));
        assert!(!standing.followed(moment).await, "it follows something else");
        other.follows(standing.wanted());
        assert!(standing.followed(moment).await);
        let third = standing.part();
        drop(third);
        assert!(standing.followed(moment).await, "what has gone says nothing any more");
    }
}
