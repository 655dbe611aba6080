//! Status of each policy: whether it is accepted, on how many nodes it is in force, what it denied.
use super::super::Context;
use super::super::status::{Conditions, holds};
use super::validate::Refusal;
use crate::cluster::World;
use berth_crds::{Condition, ImagePolicy, ImagePolicyObject, ImagePolicyStatus, RuntimeNode, RuntimeRevision};
use kube::ResourceExt;
use serde_json::json;
use std::collections::BTreeMap;

pub(super) async fn report(
    context: &Context,
    world: &World,
    judged: &BTreeMap<String, Result<ImagePolicy, Refusal>>,
    set: &RuntimeRevision,
    now: u64,
) -> Result<(), String> {
    context.metrics.frozen("ImagePolicy", judged.values().filter(|j| j.is_err()).count());
    for (name, judgement) in judged {
        let refusal = judgement.as_ref().err();
        let Some(object) = world.policies.get(name) else {
            not_understood(context, world, name, refusal, now).await?;
            continue;
        };
        let status = of(object, refusal, world, set, now);
        if object.status.as_ref() == Some(&status) {
            continue;
        }
        let before = object.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
        if let Some(refusal) = refusal.filter(|_| before.is_empty() || holds(before, "Accepted")) {
            context.events.warning(object, refusal.reason, refusal.message.clone()).await;
        }
        context.writes.patch_status::<ImagePolicyObject>(name, json!(status)).await?;
    }
    Ok(())
}

/// Of an object that cannot be parsed only this can be said.
async fn not_understood(
    context: &Context,
    world: &World,
    name: &str,
    refusal: Option<&Refusal>,
    now: u64,
) -> Result<(), String> {
    let Some(broken) = world.broken_policies.iter().find(|b| b.name == name) else { return Ok(()) };
    let before: Vec<Condition> =
        serde_json::from_value(broken.object["status"]["conditions"].clone()).unwrap_or_default();
    let mut conditions = Conditions::after(&before, broken.object["metadata"]["generation"].as_i64(), now);
    let (reason, message) = refusal.map_or(("NotUnderstood", String::new()), |r| (r.reason, r.message.clone()));
    conditions.set("Accepted", false, reason, message.clone());
    conditions.set("Ready", false, reason, message);
    let conditions = conditions.finish();
    if conditions == before {
        return Ok(());
    }
    context.writes.patch_status::<ImagePolicyObject>(name, json!({ "conditions": conditions })).await.map(drop)
}

fn of(
    object: &ImagePolicyObject,
    refusal: Option<&Refusal>,
    world: &World,
    set: &RuntimeRevision,
    now: u64,
) -> ImagePolicyStatus {
    let (name, revision) = (object.name_any(), set.name_any());
    let nodes: Vec<&RuntimeNode> = world.pairs().map(|(_, node)| node).collect();
    let enforce = |n: &&&RuntimeNode| n.status.as_ref().and_then(|s| s.policy_revision.as_ref()) == Some(&revision);
    let enforced = count(nodes.iter().filter(enforce).count());
    let decisions = || {
        let all = nodes.iter().filter_map(|n| n.status.as_ref()).flat_map(|s| &s.enforcement.decisions);
        all.filter(|decision| decision.policy == name)
    };
    let target = count(nodes.len());
    let before = object.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let mut conditions = Conditions::after(before, object.metadata.generation, now);
    match refusal {
        Some(refusal) => {
            conditions.set("Accepted", false, refusal.reason, refusal.message.clone());
            conditions.set(
                "Ready",
                false,
                refusal.reason,
                "it was refused; what was in force of it before stays in force",
            );
        }
        None => {
            conditions.set("Accepted", true, "Valid", "");
            let message = format!("{enforced} of {target} nodes enforce it");
            let reason = if enforced == target { "InForce" } else { "Spreading" };
            conditions.set("Ready", enforced == target, reason, message);
        }
    }
    let refused: Vec<_> = nodes
        .iter()
        .filter_map(|n| {
            let enforcement = &n.status.as_ref()?.enforcement;
            (enforcement.result == "Refused").then(|| n.name_any())
        })
        .collect();
    let first = refused.first().cloned().unwrap_or_default();
    let message = if refused.is_empty() {
        String::new()
    } else {
        format!("{} nodes refused the set, {first} among them", refused.len())
    };
    conditions.set(
        "Degraded",
        !refused.is_empty(),
        if refused.is_empty() { "AsExpected" } else { "NodesRefused" },
        message,
    );
    ImagePolicyStatus {
        observed_generation: object.metadata.generation,
        conditions: conditions.finish(),
        policy_revision: Some(revision),
        target_nodes: target,
        enforced_nodes: enforced,
        summary: format!("{enforced}/{target}"),
        denied: decisions().map(|d| d.denied).sum(),
        warned: decisions().map(|d| d.warned).sum(),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
