//! The controllers, one directory per kind, each in the same steps: dereference (what else it is about), validate, build (pure: what
//! should be), apply, status.
//!
//! A pass goes through all of them with one look at the cluster, because one's result is the next one's input. Passes are levels, not edges:
//! a pass over what is as it should be writes nothing, and one that is broken off is begun again by whoever leads then.
pub mod image_policy;
mod recorder;
pub mod rollout;
pub mod runtime_config;
pub mod runtime_node;
pub mod status;

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
    /// Version of the runtime that nodes get where no RuntimeConfig names one.
    pub runtime_version: String,
}

/// Longest time between two passes.
const AT_LEAST_EVERY: Duration = Duration::from_secs(30);
/// Pause before a pass, in which changes that come together are gathered.
const GATHER: Duration = Duration::from_millis(200);
/// Longest pause after passes that failed.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// Makes passes while this process leads, until `stop`; a pass under way is finished.
pub async fn run(context: Context, stores: Arc<Stores>, leads: impl Fn() -> bool, mut stop: watch::Receiver<bool>) {
    let mut failures = 0u32;
    let mut again = Duration::ZERO;
    loop {
        let wait = if failures > 0 {
            (GATHER * 2u32.saturating_pow(failures.min(12))).min(MAX_BACKOFF)
        } else {
            again.min(AT_LEAST_EVERY)
        };
        tokio::select! {
            () = stores.changed.notified(), if failures == 0 => {}
            () = tokio::time::sleep(wait.max(GATHER)) => {}
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
            again = Duration::from_secs(1);
            continue;
        }
        context.writes.begin();
        match pass(&context, &stores.world(), context.clock.now()).await {
            Ok(next) => (failures, again) = (0, next.unwrap_or(AT_LEAST_EVERY)),
            Err(e) => {
                failures += 1;
                tracing::warn!(error = %e, failures, "a pass failed and is begun again");
            }
        }
    }
}

/// One pass. Returns when to make the next one though nothing has changed. Errors: the first one; whatever else there was to do had its turn.
pub async fn pass(context: &Context, world: &World, now: u64) -> Result<Option<Duration>, String> {
    let nodes = timed(context, "runtimenode", runtime_node::reconcile(context, world, now)).await;
    let policies = timed(context, "imagepolicy", image_policy::reconcile(context, world, now)).await;
    let mut rendered = runtime_config::render(context, world);
    let configs = timed(context, "runtimeconfig", runtime_config::reconcile(context, world, &mut rendered)).await;
    let (mut rollouts, mut untold) = Default::default();
    let planned = timed(context, "plan", async {
        let (made, result) = rollout::prepare(context, world, &rendered.pools, now).await;
        rollouts = made;
        result
    });
    let planned = planned.await;
    // Before anything is done: what a change takes is to be seen before the first node has it.
    let told = timed(context, "status", async {
        let (names, result) = runtime_config::report(context, world, &rendered, &rollouts, now).await;
        untold = names;
        result
    });
    let told = told.await;
    let rolled = timed(context, "rollout", rollout::carry_out(context, world, &rollouts, &untold, now)).await;
    [nodes, policies, configs, planned, told, rolled].into_iter().collect::<Result<(), String>>()?;
    Ok(rollouts.again)
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
