//! Carries out what `crate::rollout` plans: one plan for each pool of nodes.
//!
//! Everything that a plan needs is read from the objects, and everything that it does is written to them; nothing is remembered here.
mod apply;
mod build;
mod dereference;
mod requests;

pub use build::{change_between, to_crd};

use super::Context;
use super::runtime_config::Pool;
use crate::cluster::World;
use crate::rollout::{Node, Plan, Rollout, plan};
use std::collections::BTreeMap;
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
}

/// One pass.
pub async fn reconcile(context: &Context, world: &World, pools: &[Pool], now: u64) -> Result<Rollouts, String> {
    requests::answer(context, world, pools, now).await?;
    let occupied = dereference::occupied(context, world, pools).await?;
    let mut rollouts = Rollouts::default();
    let mut failed = Ok(());
    for pool in pools {
        let (rollout, nodes) = build::rollout(world, pool, &occupied);
        let plan = plan(&rollout, &nodes, now);
        let running = Running { pool: pool.clone(), rollout, nodes, plan };
        if let Err(e) = apply::apply(context, world, &running, &occupied, now).await {
            failed = Err(e);
        }
        rollouts.all.push(running);
    }
    failed.and(apply::counts(context, world).await)?;
    let times = rollouts.all.iter().filter_map(|running| running.plan.look_again);
    let again = times.min().map(|at| Duration::from_secs(at.saturating_sub(now)));
    rollouts.again = if occupied.is_empty() { again } else { Some(again.unwrap_or(DRAINING).min(DRAINING)) };
    Ok(rollouts)
}

/// Pods to evict, by node. A node is in it if there is at least one.
type Occupied = BTreeMap<String, Vec<k8s_openapi::api::core::v1::Pod>>;
