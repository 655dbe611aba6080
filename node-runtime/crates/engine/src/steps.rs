//! Walks named steps: each is timed, may leave an undo, and can be held by a test.
use crate::metrics::Metrics;
use berth_model::{Error, Phases, Result};
use futures_util::future::BoxFuture;
use std::future::Future;
use std::time::Instant;

type Undo = Box<dyn FnOnce() -> BoxFuture<'static, Result<()>> + Send>;

/// One operation on its way through its steps.
pub(crate) struct Walk {
    operation: &'static str,
    metrics: Metrics,
    phases: Phases,
    undo: Vec<(&'static str, Undo)>,
}

/// What is left of a walk that failed: the error, and whether everything was undone.
pub(crate) struct Unwound {
    pub(crate) error: Error,
    pub(crate) clean: bool,
}

impl Walk {
    pub(crate) fn new(operation: &'static str, metrics: &Metrics) -> Self {
        Self { operation, metrics: metrics.clone(), phases: Phases::default(), undo: Vec::new() }
    }

    /// Runs one step. The error tells the step's name.
    pub(crate) async fn step<T>(&mut self, name: &'static str, action: impl Future<Output = Result<T>>) -> Result<T> {
        hold(self.operation, name, "enter").await;
        let begun = Instant::now();
        let result = action.await;
        let took = begun.elapsed();
        hold(self.operation, name, "leave").await;
        self.phases.push(format!("{}/{name}", self.operation), took);
        self.metrics.phase(self.operation, name, took);
        result
    }

    /// Adds phases that another process measured inside a step.
    pub(crate) fn adopt(&mut self, step: &str, inner: Phases) {
        for phase in inner.0 {
            self.metrics.inner_phase(self.operation, &phase);
            self.phases
                .0
                .push(berth_model::Phase { name: format!("{}/{step}/{}", self.operation, phase.name), ..phase });
        }
    }

    /// Leaves an undo for what the last step did.
    pub(crate) fn undo<F>(&mut self, name: &'static str, undo: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.undo.push((name, Box::new(move || Box::pin(undo()))));
    }

    /// All steps are done.
    pub(crate) fn finish(self) -> Phases {
        self.phases
    }

    /// A step failed: undoes the others, last one first. An undo that fails is logged, and the remaining ones still run.
    pub(crate) async fn unwind(self, error: Error) -> Unwound {
        let mut clean = true;
        for (name, undo) in self.undo.into_iter().rev() {
            if let Err(e) = undo().await {
                clean = false;
                tracing::error!(operation = self.operation, step = name, error = %e, "undo failed");
            }
        }
        Unwound { error, clean }
    }
}

/// With the feature `failpoints`: if `BERTH_HOLD=<operation>/<step>/<enter|leave>=<file>` names this place, creates
/// `<file>.reached` and waits while `<file>` exists.
#[cfg(feature = "failpoints")]
async fn hold(operation: &str, step: &str, edge: &str) {
    let Some(wish) = std::env::var_os("BERTH_HOLD").and_then(|v| v.into_string().ok()) else { return };
    let place = format!("{operation}/{step}/{edge}=");
    let Some(file) = wish.strip_prefix(&place) else { return };
    if !std::path::Path::new(file).exists() {
        return;
    }
    if let Err(e) = std::fs::write(format!("{file}.reached"), place.as_bytes()) {
        tracing::error!(error = %e, "cannot tell that a hold was reached");
    }
    while std::path::Path::new(file).exists() {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

#[cfg(not(feature = "failpoints"))]
async fn hold(_operation: &str, _step: &str, _edge: &str) {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[tokio::test]
    async fn a_failed_walk_undoes_what_was_done_in_reverse() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut walk = Walk::new("run", &Metrics::new().unwrap());
        for name in ["record", "monitor"] {
            let log_do = log.clone();
            walk.step(name, async move {
                log_do.lock().unwrap().push(format!("do {name}"));
                Ok(())
            })
            .await
            .unwrap();
            let log_undo = log.clone();
            walk.undo(name, move || async move {
                log_undo.lock().unwrap().push(format!("undo {name}"));
                if name == "monitor" { Err(Error::internal("stuck")) } else { Ok(()) }
            });
        }
        let failed = walk.step("network", async { Err::<(), _>(Error::internal("no address")) }).await;
        let unwound = walk.unwind(failed.unwrap_err()).await;
        assert_eq!(unwound.error.message(), "no address");
        assert!(!unwound.clean, "an undo failed");
        assert_eq!(*log.lock().unwrap(), ["do record", "do monitor", "undo monitor", "undo record"]);
    }
}
