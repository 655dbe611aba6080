//! A plan's actions, carried out: each is one change of one object or two, and can be done again.
//!
//! A node is marked as cordoned by us before it is, and the mark goes after it is schedulable again: whatever happens in between, no cordon of
//! ours is forgotten, and none of somebody else's is undone.
use super::super::Context;
use super::build::to_crd;
use super::{Occupied, Running};
use crate::cluster::World;
use crate::cluster::writes::Done;
use crate::rollout::{Action, Cordon, Node, Revision};
use crate::time;
use berth_crds::{RuntimeNode, RuntimeRevision, Verdict};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How long a mark may stand on a node that is schedulable: then somebody else has made it so.
const STALE_MARK: u64 = 30;

pub(super) async fn apply(
    context: &Context,
    world: &World,
    running: &Running,
    occupied: &Occupied,
    now: u64,
) -> Result<(), String> {
    let mut failed = Ok(());
    for action in &running.plan.actions {
        // One node's trouble is no other's.
        if let Err(e) = one(context, world, running, occupied, action, now).await {
            failed = Err(e);
        }
    }
    for node in running.nodes.iter().filter(|n| n.cordon == Cordon::None) {
        let Some(object) = world.runtime_nodes.get(&node.name) else { continue };
        if time::of(object.spec.cordoned_since.as_ref()).is_some_and(|since| since + STALE_MARK < now) {
            context.writes.patch(object, json!({"spec": {"cordonedSince": null}})).await?;
        }
    }
    failed
}

async fn one(
    context: &Context,
    world: &World,
    running: &Running,
    occupied: &Occupied,
    action: &Action,
    now: u64,
) -> Result<(), String> {
    tracing::info!(?action, "acts");
    let target = |name: &str| world.runtime_nodes.get(name).ok_or_else(|| format!("RuntimeNode {name} is gone"));
    match action {
        Action::Tell { node, revision } => tell(context, running, target(node)?, revision, now).await,
        Action::Grant { node, grant } => {
            let expires = time::text(grant.expires);
            let grant =
                json!({"revision": grant.revision.0, "disruption": to_crd(grant.disruption), "expiresAt": expires});
            spec(context, target(node)?, json!({ "grant": grant })).await
        }
        Action::Cordon { node } => cordon(context, world, target(node)?, now).await,
        Action::Uncordon { node } => uncordon(context, world, target(node)?).await,
        Action::Evict { node } => {
            for pod in occupied.get(node).into_iter().flatten().filter(|p| p.metadata.deletion_timestamp.is_none()) {
                context.writes.evict(pod).await?;
            }
            Ok(())
        }
        Action::Postpone { node, back_to, until } => {
            let node = target(node)?;
            let note = format!("its pods could not be evicted; it gets another turn at {}", time::text(*until));
            context.events.warning(node, "DrainTimedOut", note).await;
            let back_to = back_to.as_ref().map(|r| &r.0);
            let fields = json!({"desiredRevision": back_to, "desiredSince": time::text(now), "grant": null,
                "postponedUntil": time::text(*until)});
            spec(context, node, fields).await
        }
        Action::MarkBad(revision) => mark_bad(context, world, running, revision, now).await,
        Action::Graduate(revision) => {
            let Some(object) = world.revisions.get(&revision.0) else { return Ok(()) };
            let message =
                format!("{} nodes have come through", running.nodes.iter().filter(|n| n.has(revision)).count());
            for config in running.pool.configs.iter().filter_map(|name| world.configs.get(name)) {
                context.events.normal(config, "RolloutComplete", format!("{revision}: {message}")).await;
            }
            verdict(context, object, Some(Verdict::Good), message, now).await
        }
    }
}

async fn spec(context: &Context, node: &RuntimeNode, fields: Value) -> Result<(), String> {
    context.writes.patch(node, json!({ "spec": fields })).await.map(drop)
}

async fn tell(
    context: &Context,
    running: &Running,
    node: &RuntimeNode,
    revision: &Revision,
    now: u64,
) -> Result<(), String> {
    let fallback = running.rollout.last_known_good.as_ref().filter(|good| *good != revision).map(|good| good.0.clone());
    // What it goes back to stays known while it has nothing better.
    let fallback = fallback.or_else(|| node.spec.fallback_revision.clone().filter(|name| *name != revision.0));
    let fields = json!({"desiredRevision": revision.0, "desiredSince": time::text(now), "fallbackRevision": fallback,
        "grant": null, "postponedUntil": null});
    spec(context, node, fields).await
}

async fn cordon(context: &Context, world: &World, node: &RuntimeNode, now: u64) -> Result<(), String> {
    let Some(object) = world.nodes.get(&node.spec.node_name) else { return Ok(()) };
    if context.writes.patch(node, json!({"spec": {"cordonedSince": time::text(now)}})).await? == Done::Yes {
        // Of that version it was schedulable: a cordon of somebody else makes this fail, and the mark is taken back below as a stale one.
        let done = context.writes.patch(object, json!({"spec": {"unschedulable": true}})).await?;
        if done == Done::Stale {
            unmark(context, node).await?;
        }
    }
    Ok(())
}

/// Takes back a mark without the condition on the version, which the mark itself has changed.
async fn unmark(context: &Context, node: &RuntimeNode) -> Result<(), String> {
    let mut any = node.clone();
    any.metadata.resource_version = None;
    spec(context, &any, json!({"cordonedSince": null})).await
}

async fn uncordon(context: &Context, world: &World, node: &RuntimeNode) -> Result<(), String> {
    let Some(object) = world.nodes.get(&node.spec.node_name) else { return Ok(()) };
    if context.writes.patch(object, json!({"spec": {"unschedulable": null}})).await? == Done::Yes {
        spec(context, node, json!({"cordonedSince": null})).await?;
    }
    Ok(())
}

async fn mark_bad(
    context: &Context,
    world: &World,
    running: &Running,
    revision: &Revision,
    now: u64,
) -> Result<(), String> {
    let Some(object) = world.revisions.get(&revision.0) else { return Ok(()) };
    let failed = running.nodes.iter().filter(|n| n.failed.as_ref() == Some(revision)).min_by_key(|n| n.desired.clone());
    let message = match failed.map(|n: &Node| (&n.name, world.runtime_nodes.get(&n.name))) {
        Some((name, Some(node))) => {
            let why =
                node.status.as_ref().and_then(|s| s.failed.as_ref()).map(|f| f.message.clone()).unwrap_or_default();
            format!("node {name} gave it up: {why}")
        }
        _ => "nodes that were told to have it took too long, or were not well".to_owned(),
    };
    for config in running.pool.configs.iter().filter_map(|name| world.configs.get(name)) {
        context.events.warning(config, "RolledBack", format!("{revision}: {message}")).await;
    }
    verdict(context, object, Some(Verdict::Bad), message, now).await
}

/// Writes what is known of a revision.
pub(super) async fn verdict(
    context: &Context,
    object: &RuntimeRevision,
    verdict: Option<Verdict>,
    message: String,
    now: u64,
) -> Result<(), String> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let status = json!({"verdict": verdict, "since": time::text(now), "message": message});
    context.writes.patch_status::<RuntimeRevision>(&name, status).await.map(drop)
}

/// How many nodes are told to have each revision, in its status.
pub(super) async fn counts(context: &Context, world: &World) -> Result<(), String> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for node in world.runtime_nodes.values() {
        for name in [&node.spec.desired_revision, &node.spec.policy_revision].into_iter().flatten() {
            *counts.entry(name).or_default() += 1;
        }
    }
    let bad = |r: &&RuntimeRevision| r.status.as_ref().and_then(|s| s.verdict) == Some(Verdict::Bad);
    context.metrics.bad_revisions(world.revisions.values().filter(bad).count());
    for (name, revision) in &world.revisions {
        let count = counts.get(name.as_str()).copied().unwrap_or(0);
        if revision.status.as_ref().map_or(0, |s| s.nodes) != count {
            context.writes.patch_status::<RuntimeRevision>(name, json!({ "nodes": count })).await?;
        }
    }
    Ok(())
}
