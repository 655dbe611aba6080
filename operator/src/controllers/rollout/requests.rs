//! What people ask of a rollout by annotations of a RuntimeConfig: to take a revision back, or to try a bad one again. Each is done once and
//! the annotation removed. (A pause is a field: `spec.rollout.paused`.)
use super::super::Context;
use super::super::runtime_config::Pool;
use super::apply::verdict;
use crate::cluster::World;
use berth_crds::Verdict;
use kube::ResourceExt;
use serde_json::json;

/// Names a revision that is to be taken back: from then on it is bad.
const UNDO: &str = "berth.dev/undo";
/// Names a bad revision that may be tried again.
const RETRY: &str = "berth.dev/retry";

pub(super) async fn answer(context: &Context, world: &World, pools: &[Pool], now: u64) -> Result<(), String> {
    for (name, config) in &world.configs {
        for (annotation, then) in [(UNDO, Some(Verdict::Bad)), (RETRY, None)] {
            let Some(revision) = config.annotations().get(annotation) else { continue };
            // Of a revision that is none of its own an object may not decide.
            let own = pools.iter().any(|pool| pool.configs.contains(name) && pool.target() == *revision);
            if own && let Some(object) = world.revisions.get(revision) {
                let message = format!("by the annotation {annotation} of RuntimeConfig {name}");
                verdict(context, object, then, message, now).await?;
            } else {
                let note = format!("{revision} is not what nodes of this RuntimeConfig are to have");
                context.events.warning(config, "UnknownRevision", note).await;
            }
            context.writes.patch(config, json!({"metadata": {"annotations": {annotation: null}}})).await?;
        }
    }
    Ok(())
}
