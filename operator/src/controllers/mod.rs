//! The controllers, one directory per kind, each in the same steps: dereference (what else it is about), validate, build (pure: what
//! should be), apply, status.
//!
//! A pass goes through all of them with one look at the cluster, because one's result is the next one's input. Passes are levels, not edges:
//! a pass over what is as it should be writes nothing, and one that is broken off is begun again by whoever leads then.
mod broken;
pub mod image_policy;
mod recorder;
pub mod rollout;
pub mod runtime_config;
pub mod runtime_node;
pub mod status;

pub use broken::Told;
pub use recorder::Events;

use crate::cluster::{Clock, Stores, World, Writes};
use crate::observe::Metrics;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What the controllers work with.
#[derive(Clone)]
pub struct Context {
    /// Changes.
    pub writes: Writes,
    /// Events of objects.
    pub events: Events,
    /// The API server's clock, which everything is planned by: agents judge grants by it.
    pub clock: Clock,
    /// The series.
    pub metrics: Metrics,
    /// Namespaces whose images no policy may shut out: the operator's own, and the system's.
    pub system_namespaces: Vec<String>,
    /// Images of these, as last seen.
    pub system_images: image_policy::SystemImages,
    /// Objects that are not understood, as far as they were told.
    pub told: Told,
    /// Answers to requests that no watch has brought yet.
    pub written: rollout::Written,
    /// Version of the runtime that nodes get where no RuntimeConfig names one.
    pub runtime_version: String,
}

/// Longest time between two passes.
const AT_LEAST_EVERY: Duration = Duration::from_secs(30);
/// Pause before a pass, in which changes that come together are gathered.
const GATHER: Duration = Duration::from_millis(200);
/// Longest pause after passes that failed.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// Pause after a pass in which something failed that the API server did not refuse.
const AFTER_A_FAILURE: Duration = Duration::from_secs(1);

/// When the next pass is due.
#[derive(Debug, Default)]
struct Pace {
    /// Passes in a row in which the API server itself failed.
    failures: u32,
    again: Duration,
}

impl Pace {
    /// After a pass. An API server that fails is asked ever more seldom, whatever changes; what it refuses of one object is asked for when its own
    /// pause (`refused`) is over, and holds up nothing else.
    fn passed(&mut self, passed: &Passed, ails: bool, refused: Option<Duration>) {
        self.failures = if passed.result.is_err() && ails { self.failures.saturating_add(1) } else { 0 };
        let failed = passed.result.is_err().then_some(refused.unwrap_or(AFTER_A_FAILURE));
        self.again = passed.again.into_iter().chain(failed).min().unwrap_or(AT_LEAST_EVERY);
    }

    /// Whether a change begins a pass.
    fn hears(&self) -> bool {
        self.failures == 0
    }

    fn wait(&self) -> Duration {
        let wait = if self.hears() {
            self.again.min(AT_LEAST_EVERY)
        } else {
            (GATHER * 2u32.saturating_pow(self.failures.min(12))).min(MAX_BACKOFF)
        };
        wait.max(GATHER)
    }
}

/// Makes passes while this process leads, until `stop`; a pass under way is finished.
pub async fn run(context: Context, stores: Arc<Stores>, leads: impl Fn() -> bool, mut stop: watch::Receiver<bool>) {
    let mut pace = Pace::default();
    loop {
        tokio::select! {
            () = stores.changed.notified(), if pace.hears() => {}
            () = tokio::time::sleep(pace.wait()) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        tokio::time::sleep(GATHER).await;
        let (leader, fresh) = (leads(), stores.fresh());
        context.metrics.leads(leader);
        context.metrics.clock_ahead(context.clock.ahead());
        if leader && !fresh {
            tracing::warn!("watches fail: nothing is decided on what may be long over");
        }
        if !(leader && fresh && stores.synced()) {
            pace.again = Duration::from_secs(1);
            continue;
        }
        context.writes.begin();
        let passed = pass(&context, &stores.world(), context.clock.now()).await;
        let ails = context.writes.ails();
        pace.passed(&passed, ails, context.writes.next_of_refused());
        if let Err(e) = &passed.result {
            tracing::warn!(error = %e, ails, failures = pace.failures, "a pass failed and is begun again");
        }
    }
}

/// How a pass went.
#[derive(Debug)]
pub struct Passed {
    /// When to make the next one though nothing has changed.
    pub again: Option<Duration>,
    /// The first error; whatever else there was to do had its turn.
    pub result: Result<(), String>,
}

/// One pass.
pub async fn pass(context: &Context, world: &World, now: u64) -> Passed {
    broken::tell(context, world).await;
    let nodes = timed(context, "runtimenode", runtime_node::reconcile(context, world, now)).await;
    let policies = timed(context, "imagepolicy", image_policy::reconcile(context, world, now)).await;
    let mut rendered = runtime_config::render(context, world);
    let configs = timed(context, "runtimeconfig", runtime_config::reconcile(context, world, &mut rendered)).await;
    let (mut answers, mut rollouts, mut untold) = Default::default();
    let planned = timed(context, "plan", async {
        let (made, result) = rollout::answer(context, world, &rendered.pools, now).await;
        answers = made;
        rollouts = rollout::prepare(context, &answers.seen(world), &rendered.pools, now).await;
        result
    });
    let planned = planned.await;
    let seen = answers.seen(world);
    let world = seen.as_ref();
    // Before anything is done: what a change takes is to be seen before the first node has it.
    let told = timed(context, "status", async {
        let (names, result) = runtime_config::report(context, world, &rendered, &rollouts, now).await;
        untold = names;
        result.and(rollout::close(context, world, &answers, &untold).await)
    });
    let told = told.await;
    let carried_out = rollout::carry_out(context, world, &rollouts, &untold, &rendered.frozen, now);
    let rolled = timed(context, "rollout", carried_out).await;
    let result = [nodes, policies, configs, planned, told, rolled].into_iter().collect();
    Passed { again: rollouts.again, result }
}

async fn timed<T>(
    context: &Context,
    controller: &str,
    step: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let began = Instant::now();
    let result = step.await;
    context.metrics.reconciled(controller, began.elapsed().as_secs_f64(), result.is_ok());
    if let Err(e) = &result {
        tracing::warn!(controller, error = %e, "a controller's pass failed");
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_api_server_that_fails_makes_everything_slow() {
        let seconds = Duration::from_secs;
        let failed = Passed { again: None, result: Err("no".to_owned()) };
        let mut pace = Pace::default();
        for _ in 0..50 {
            pace.passed(&failed, false, Some(seconds(60)));
            assert!(pace.hears(), "one object is refused, and a change of another one is no less urgent");
        }
        assert_eq!(pace.wait(), AT_LEAST_EVERY);
        pace.passed(&Passed { again: Some(seconds(2)), result: Err("no".to_owned()) }, false, Some(seconds(60)));
        assert_eq!(pace.wait(), seconds(2), "a rollout keeps its pace");
        pace.passed(&failed, false, None);
        assert_eq!(pace.wait(), AFTER_A_FAILURE);
        (0..50).for_each(|_| pace.passed(&failed, true, None));
        assert!(!pace.hears() && pace.wait() == MAX_BACKOFF, "{pace:?}");
        pace.passed(&Passed { again: None, result: Ok(()) }, false, None);
        assert!(pace.hears() && pace.wait() == AT_LEAST_EVERY, "{pace:?}");
    }
}
