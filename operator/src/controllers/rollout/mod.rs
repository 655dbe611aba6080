//! Carries out what `crate::rollout` plans: one plan for each pool of nodes.
//!
//! Everything that a plan needs is read from the objects, and everything that it does is written to them; nothing is remembered here but what was
//! written a moment ago ([`Written`]).
mod apply;
mod build;
mod changes;
mod drain;
mod requests;

pub use build::{CORDONED, control_plane_by_its_word, heard, said};
pub use changes::{change_between, to_crd};
pub use requests::{Answers, Written, answer, close};

use super::Context;
use super::runtime_config::Pool;
use crate::cluster::World;
use crate::rollout::{Action, Beside, Node, Plan, Revision, Rollout, leave, plan, share};
use apply::Step;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How soon a node that is being drained is looked at again: its pods are not watched.
const DRAINING: Duration = Duration::from_secs(2);

/// The rollout of one pool.
#[derive(Debug, Clone)]
pub struct Running {
    /// The pool.
    pub pool: Pool,
    /// What was planned for.
    pub rollout: Rollout,
    /// The nodes as they were seen.
    pub nodes: Vec<Node>,
    /// The plan.
    pub plan: Plan,
}

/// All rollouts.
#[derive(Debug, Clone, Default)]
pub struct Rollouts {
    /// By pool.
    pub all: Vec<Running>,
    /// When to look again though nothing has changed.
    pub again: Option<Duration>,
    /// By node, why pods are still there that were told to go, where somebody said so.
    pub refused: BTreeMap<String, String>,
    drains: drain::Drains,
}

/// Plans; nothing is begun.
pub async fn prepare(context: &Context, world: &World, pools: &[Pool], now: u64) -> Rollouts {
    let drains = drain::of_pools(context, world, pools, now).await;
    let all = planned(world, pools, &drains, now);
    let times = all.iter().filter_map(|running| running.plan.look_again);
    let again = times.min().map(|at| Duration::from_secs(at.saturating_sub(now)));
    let again = if drains.is_empty() { again } else { Some(again.unwrap_or(DRAINING).min(DRAINING)) };
    let why = |drain: &drain::Drain| drain.refused(|pod| context.writes.refusal(pod));
    let refused = drains.iter().filter_map(|(node, drain)| Some((node.clone(), why(drain)?))).collect();
    Rollouts { all, again, refused, drains }
}

/// Carries the plans out. No node is told the target of a RuntimeConfig of which it could not be said what that does to nodes (`untold`, by
/// name). Nodes that are `frozen` (by name) are told nothing. Errors: the first one; everything else had its turn.
pub async fn carry_out(
    context: &Context,
    world: &World,
    rollouts: &Rollouts,
    untold: &BTreeSet<String>,
    frozen: &BTreeSet<String>,
    now: u64,
) -> Result<(), String> {
    let step = Step { context, world, drains: &rollouts.drains, all: &rollouts.all, now };
    let mut result = Ok(());
    let broke = broke(&rollouts.all);
    for running in &rollouts.all {
        let target = &running.rollout.target;
        let through =
            || world.revisions.get(&target.0).is_some_and(|r| build::is_through_for(world, r, &running.pool.key()));
        let may_tell = running.pool.configs.is_disjoint(untold) && (!broke.contains(target) || through());
        result = result.and(step.carry_out(running, may_tell).await);
    }
    result = result.and(leave_others(&step, &rollouts.all, frozen).await);
    result = result.and(step.unmark().await);
    result.and(apply::counts(context, world).await)
}

/// What some pool finds to be bad now. Another one with the same target has planned without that, which is right only where it came through.
fn broke(all: &[Running]) -> BTreeSet<&Revision> {
    let actions = all.iter().flat_map(|running| &running.plan.actions);
    actions.filter_map(|action| if let Action::MarkBad(revision) = action { Some(revision) } else { None }).collect()
}

/// Plans for each pool. Those of the same RuntimeConfigs (nodes that keep different values of a conflict, or have different versions) share budgets.
fn planned(world: &World, pools: &[Pool], drains: &drain::Drains, now: u64) -> Vec<Running> {
    let built: Vec<_> = pools.iter().map(|pool| build::rollout(world, pool, drains, now)).collect();
    let mut shares: Vec<Beside> = built.iter().map(|(rollout, nodes)| share(rollout, nodes, None, now)).collect();
    let mut all: Vec<Running> = Vec::new();
    for (at, (mut rollout, nodes)) in built.into_iter().enumerate() {
        let pool = &pools[at];
        let beside = pools.iter().zip(&shares).enumerate().filter(|(i, (p, _))| *i != at && p.configs == pool.configs);
        for (_, (_, share)) in beside {
            rollout.beside.nodes += share.nodes;
            rollout.beside.away += share.away;
            rollout.beside.at_work += share.at_work;
        }
        let plan = plan(&rollout, &nodes, now);
        shares[at] = share(&rollout, &nodes, Some(&plan), now);
        all.push(Running { pool: pool.clone(), rollout, nodes, plan });
    }
    all
}

/// Nodes that nothing selects any more are left as they were found: none of them on its way, and none cordoned by us. Of frozen ones the
/// latter holds alone.
async fn leave_others(step: &Step<'_>, all: &[Running], frozen: &BTreeSet<String>) -> Result<(), String> {
    let in_pools: BTreeSet<_> = all.iter().flat_map(|running| &running.pool.nodes).collect();
    let mut result = Ok(());
    for (node, runtime_node) in step.world.pairs().filter(|(node, _)| !in_pools.contains(&node.name_any())) {
        let seen = build::one(step.world, node, runtime_node, step.now, 0);
        if let Some(action) = leave(&seen, frozen.contains(&seen.name), step.now) {
            result = result.and(step.on_node(&action).await);
        }
    }
    result
}

#[cfg(test)]
mod tests;
