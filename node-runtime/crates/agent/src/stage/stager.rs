//! When it is staged: at the agent's start, and again until it came off. Must not: hold up the agent's loop by reading programs again and again.
use super::{Problem, Staging};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How soon what was refused is looked at again: comparing programs takes a moment.
const SELDOM: Duration = Duration::from_secs(60);
/// How often versions that nobody needs any more are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(600);
/// How soon a full disk is.
const SOON: Duration = Duration::from_secs(5);

/// Stages, once.
#[derive(Debug)]
pub struct Stager {
    staging: Staging,
    /// Why it did not come off, and when; `None`: it was not tried.
    last: Mutex<Option<(Option<Problem>, Instant)>>,
    /// When old versions were looked for last.
    tidied: Mutex<Option<Instant>>,
}

impl Stager {
    /// Of that image and node.
    pub fn new(staging: Staging) -> Self {
        Self { staging, last: Mutex::new(None), tidied: Mutex::default() }
    }

    /// Stages, unless it did, and removes old versions from time to time. What is in the way, if something is.
    pub async fn ensure(&self) -> Option<Problem> {
        let problem = self.staged().await;
        if problem.is_none() {
            self.tidy().await;
        }
        problem
    }

    async fn tidy(&self) {
        let mut tidied = self.tidied.lock().await;
        if tidied.is_some_and(|when| when.elapsed() < TIDY_EVERY) {
            return;
        }
        let staging = self.staging.clone();
        match tokio::task::spawn_blocking(move || staging.remove_old(Path::new("/proc"))).await {
            Ok(Ok(removed)) if removed.is_empty() => {}
            Ok(Ok(removed)) => {
                tracing::info!(versions = ?removed, "versions that nothing runs and nobody goes back to are removed")
            }
            Ok(Err(problem)) => tracing::warn!(error = %problem, "old versions could not be removed"),
            Err(e) => tracing::warn!(error = %e, "old versions could not be removed"),
        }
        *tidied = Some(Instant::now());
    }

    async fn staged(&self) -> Option<Problem> {
        let mut last = self.last.lock().await;
        match &*last {
            Some((None, _)) => return None,
            Some((Some(problem), when)) => {
                let pause = if matches!(problem, Problem::Refused(_)) { SELDOM } else { SOON };
                if when.elapsed() < pause {
                    return Some(problem.clone());
                }
            }
            None => {}
        }
        let staging = self.staging.clone();
        let done = tokio::task::spawn_blocking(move || staging.ensure()).await;
        let problem = match done.unwrap_or_else(|e| Err(Problem::Failed(e.to_string()))) {
            Ok(versions) => {
                tracing::info!(?versions, "the programs are staged");
                None
            }
            Err(problem) => {
                tracing::warn!(reason = problem.reason(), error = %problem, "the programs are not staged; it is tried again");
                Some(problem)
            }
        };
        *last = Some((problem.clone(), Instant::now()));
        problem
    }
}
