//! ImagePolicy: all of them as one set, to all nodes at once; never in waves, never paused.
//!
//! A policy that is bad, would shut out the cluster's own images, or has no room in the set is refused with a condition, and what was in force of it stays.
mod apply;
mod build;
mod conflicts;
mod dereference;
mod report;
mod room;
mod validate;

pub use dereference::SystemImages;

use super::Context;
use crate::cluster::World;

/// One pass.
pub async fn reconcile(context: &Context, world: &World, now: u64) -> Result<(), String> {
    let images = dereference::system_images(context, world).await?;
    let mut judged = validate::judge(world, &images);
    let set = build::set(world, &mut judged);
    let applied = match &set {
        Ok(set) => apply::apply(context, world, set).await,
        // Said of each of them: nodes keep the set that they have.
        Err(_) => Ok(()),
    };
    let reported = report::report(context, world, &judged, &set, now).await;
    applied.and(reported)
}
