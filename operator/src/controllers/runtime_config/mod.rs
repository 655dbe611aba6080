//! RuntimeConfig: which nodes each selects, what that makes together, and the revisions of it. Who gets what when is the rollout's.
mod apply;
mod build;
mod conflicts;
mod frozen;
mod report;
mod sources;
mod together;
mod validate;
mod waits;

pub use build::{Pool, Rendered};
pub use frozen::Cause;
pub use sources::Sources;

use super::Context;
use super::rollout::Rollouts;
use crate::cluster::World;
use std::collections::BTreeSet;

/// What RuntimeConfigs come to.
pub fn render(context: &Context, world: &World) -> Rendered {
    build::render(world, &validate::judge(world), &context.runtime_version)
}

/// Every distinct effective configuration has its revision afterwards. A pool whose revision the API server does not take is left out: its nodes
/// keep what they have. Its status says which RuntimeConfigs its fields come from.
pub async fn reconcile(context: &Context, world: &World, rendered: &mut Rendered) -> Result<(), String> {
    apply::apply(context, world, rendered).await
}

/// Says what became of each. Returns the names of those of which it could not be said, too. Errors: the first one; all others had their turn.
pub async fn report(
    context: &Context,
    world: &World,
    rendered: &Rendered,
    rollouts: &Rollouts,
    now: u64,
) -> (BTreeSet<String>, Result<(), String>) {
    report::report(context, world, rendered, rollouts, now).await
}
