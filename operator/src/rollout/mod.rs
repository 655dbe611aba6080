//! Rollouts, planned: from what the cluster looks like now to what may be done next.
//!
//! Owns: waves, budgets, failures, rolling back, last known good. Must not: do I/O, read a clock, keep state. Everything is a
//! function of [`Rollout`] and [`Node`]s, so that another leader, or the same one after a crash, plans the same.
//!
//! One rollout is about the nodes that share one effective configuration. Actions are levels, not edges: planned again from
//! a stale view, they are the same actions, and carrying one out twice changes nothing.
mod advance;
mod back;
mod budget;
mod fleet;
mod judge;
mod plan;
mod start;
mod strategy;
mod waves;

pub use advance::leave;
pub use back::{Back, back};
pub use budget::share;
pub use fleet::{AgentState, Beside, Cordon, Disruption, Grant, Node, Pods, Revision, Rollout, UNUSED_LEAVES};
pub use plan::{Action, Plan, Short, Stage, Why, plan};
pub use strategy::{ControlPlane, OnFailure, Share, Strategy};
