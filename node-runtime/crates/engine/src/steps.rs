//! Walks named steps: each is timed, may leave an undo, and can be held by a test.
use crate::metrics::Metrics;
use berth_model::{Error, PhaseLog, Phases, Result, Timeline, UnixNanos, micros};
use futures_util::future::BoxFuture;
use std::future::Future;
use std::time::{Duration, Instant};

type Undo = Box<dyn FnOnce() -> BoxFuture<'static, Result<()>> + Send>;

/// A wait before the first step shorter than this is no wait, only the scheduler's grain.
const WORTH_TELLING: Duration = Duration::from_micros(500);

/// One operation on its way through its steps.
pub(crate) struct Walk {
    operation: &'static str,
    metrics: Metrics,
    began: UnixNanos,
    begun: Instant,
    phases: Phases,
    parts: PhaseLog,
    undo: Vec<(&'static str, Undo)>,
}

/// What is left of a walk that failed: the error, and whether everything was undone.
pub(crate) struct Unwound {
    pub(crate) error: Error,
    pub(crate) clean: bool,
}

impl Walk {
    pub(crate) fn new(operation: &'static str, metrics: &Metrics) -> Self {
        let begun = Instant::now();
        Self {
            operation,
            metrics: metrics.clone(),
            began: crate::clock::now(),
            begun,
            phases: Phases::default(),
            parts: PhaseLog::since(begun),
            undo: Vec::new(),
        }
    }

    /// Where parts of steps are noted that only people look at; their names begin with the step's.
    pub(crate) fn parts(&self) -> PhaseLog {
        self.parts.clone()
    }

    /// Notes time that passed since the operation's begin before its first step: it waited for another one.
    pub(crate) fn waited(&mut self) {
        let took = self.begun.elapsed();
        if took >= WORTH_TELLING {
            self.phases.push(format!("{}/wait", self.operation), Duration::ZERO, took);
        }
    }

    /// Runs one step. The error tells the step's name.
    pub(crate) async fn step<T>(&mut self, name: &'static str, action: impl Future<Output = Result<T>>) -> Result<T> {
        hold(self.operation, name, "enter").await;
        let begun = Instant::now();
        let result = action.await;
        let took = begun.elapsed();
        hold(self.operation, name, "leave").await;
        let at = begun.saturating_duration_since(self.begun);
        self.phases.push(format!("{}/{name}", self.operation), at, took);
        self.metrics.phase(self.operation, name, took);
        result
    }

    /// Adds phases that another process measured inside a step; their offsets count from `origin`.
    pub(crate) fn adopt(&mut self, step: &str, origin: Instant, inner: Phases) {
        let origin = micros(origin.saturating_duration_since(self.begun));
        let whole = format!("{}/{step}", self.operation);
        // The process is at work before its spawn has returned; a part is told within its whole all the same.
        let first = self.phases.0.iter().rfind(|p| p.name == whole).map_or(0, |p| p.at);
        for phase in inner.0 {
            self.metrics.inner_phase(self.operation, &phase);
            let (name, at) = (format!("{whole}/{}", phase.name), origin.saturating_add(phase.at).max(first));
            self.phases.0.push(berth_model::Phase { name, at, ..phase });
        }
    }

    /// Leaves an undo for what the last step did.
    pub(crate) fn undo<F>(&mut self, name: &'static str, undo: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.undo.push((name, Box::new(move || Box::pin(undo()))));
    }

    /// All steps are done, or the walk is over: its time, phases by their begin, a whole before its parts.
    pub(crate) fn timeline(&self) -> Timeline {
        let mut phases = self.phases.clone();
        phases.0.extend(self.parts.phases().0);
        phases.0.sort_by_key(|p| (p.at, std::cmp::Reverse(p.micros)));
        Timeline { began: self.began, micros: micros(self.begun.elapsed()), phases }
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
    async fn phases_have_their_place_in_the_operation() {
        let mut walk = Walk::new("start", &Metrics::new().unwrap());
        let parts = walk.parts();
        let slept = walk.step("setup", async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let begun = Instant::now();
            tokio::time::sleep(Duration::from_millis(5)).await;
            parts.add("start/setup/systemd", begun, Instant::now());
            Ok(begun)
        });
        let origin = slept.await.unwrap();
        let inner = berth_model::Phase { name: "mounts".into(), at: 10, micros: 20 };
        walk.adopt("setup", origin, Phases(vec![inner]));
        walk.step("exec", async { Ok(()) }).await.unwrap();
        // Began while `setup` was under way.
        walk.adopt("exec", origin, Phases(vec![berth_model::Phase { name: "early".into(), at: 0, micros: 0 }]));
        let timeline = walk.timeline();
        let names: Vec<_> = timeline.phases.0.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(
            names,
            ["start/setup", "start/setup/systemd", "start/setup/mounts", "start/exec", "start/exec/early"]
        );
        let [setup, systemd, mounts, exec, _] = &timeline.phases.0[..] else { panic!("five phases") };
        assert!(setup.at < 5000 && systemd.at >= 5000 && mounts.at == systemd.at + 10, "{timeline:?}");
        assert!(exec.at >= setup.at + setup.micros && timeline.micros >= exec.at, "{timeline:?}");
        assert!(timeline.began > 0);
    }

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
