//! RuntimeConfig: which nodes each selects, what that makes together, and the revisions of it. Who gets what when is the rollout's.
mod apply;
mod build;
mod report;
mod validate;

pub use build::{Pool, Rendered};

use super::Context;
use super::rollout::Rollouts;
use crate::cluster::World;

/// Renders: every distinct effective configuration has its revision afterwards.
pub async fn reconcile(context: &Context, world: &World) -> Result<Rendered, String> {
    let judged = validate::judge(world);
    let rendered = build::render(world, &judged, &context.runtime_version);
    apply::apply(context, world, &rendered).await?;
    Ok(rendered)
}

/// Says what became of each.
pub async fn report(
    context: &Context,
    world: &World,
    rendered: &Rendered,
    rollouts: &Rollouts,
    now: u64,
) -> Result<(), String> {
    report::report(context, world, rendered, rollouts, now).await
}
