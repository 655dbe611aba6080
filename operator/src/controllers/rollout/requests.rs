//! What people ask of a rollout by annotations of a RuntimeConfig: to take a revision back, or to try one again that failed. Each is done once
//! and the annotation removed. (A pause is a field: `spec.rollout.paused`.)
use super::super::Context;
use super::super::runtime_config::Pool;
use crate::cluster::World;
use crate::cluster::writes::Done;
use crate::time;
use berth_crds::{RuntimeConfigObject, RuntimeRevision, Verdict};
use kube::ResourceExt;
use serde_json::{Value, json};

/// Names a revision that is to be taken back: from then on it is bad.
const UNDO: &str = "berth.dev/undo";
/// Names a revision that is to be tried again: a bad one by all, another one by the nodes that it failed on.
const RETRY: &str = "berth.dev/retry";

pub(super) async fn answer(context: &Context, world: &World, pools: &[Pool], now: u64) -> Result<(), String> {
    let mut failed = Ok(());
    for (name, config) in &world.configs {
        for annotation in [UNDO, RETRY] {
            let Some(revision) = config.annotations().get(annotation) else { continue };
            // Of a revision that is none of its own an object may not decide.
            let own = pools.iter().any(|pool| pool.configs.contains(name) && pool.target() == *revision);
            let object = world.revisions.get(revision).map(AsRef::as_ref).filter(|_| own);
            // One object's trouble is no other's.
            if let Err(e) = one(context, config.as_ref(), annotation, object, now).await {
                failed = Err(format!("{annotation} of RuntimeConfig {name}: {e}"));
            }
        }
    }
    failed
}

async fn one(
    context: &Context,
    config: &RuntimeConfigObject,
    annotation: &str,
    object: Option<&RuntimeRevision>,
    now: u64,
) -> Result<(), String> {
    if let Some(object) = object {
        let status = asked(annotation, &config.name_any(), object, now);
        if context.writes.patch_status(object, status).await? == Done::Stale {
            // The request stays until it is answered.
            return Ok(());
        }
    } else {
        let revision = config.annotations().get(annotation).cloned().unwrap_or_default();
        let note = format!("{revision} is not what nodes of this RuntimeConfig are to have");
        context.events.warning(config, "UnknownRevision", note).await;
    }
    context.writes.patch(config, json!({"metadata": {"annotations": {annotation: null}}})).await.map(drop)
}

/// What an annotation makes of a revision's status.
fn asked(annotation: &str, config: &str, object: &RuntimeRevision, now: u64) -> Value {
    let message = format!("by the annotation {annotation} of RuntimeConfig {config}");
    if annotation == UNDO {
        return json!({"verdict": Verdict::Bad, "since": time::text(now), "message": message});
    }
    match object.status.as_ref().and_then(|s| s.verdict) {
        // It came through: only those that it failed on try it again.
        Some(Verdict::Good) => json!({"retriedAt": time::text(now), "message": message}),
        _ => json!({"verdict": null, "since": time::text(now), "retriedAt": time::text(now), "message": message}),
    }
}
