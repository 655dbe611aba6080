//! Status of each policy: whether it is accepted, on how many nodes it is in force, what it denied.
use super::super::Context;
use super::super::status::{Conditions, count, holds, not_understood};
use super::conflicts::conflicts;
use super::validate::Refusal;
use crate::cluster::World;
use berth_crds::{
    ImagePolicy, ImagePolicyObject, ImagePolicyStatus, NodeState, Phase, RuntimeNode, RuntimeNodeStatus,
    RuntimeRevision,
};
use kube::ResourceExt;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// What statuses are made of.
#[derive(Clone, Copy)]
struct View<'a> {
    world: &'a World,
    set: &'a Result<RuntimeRevision, Refusal>,
    conflicts: &'a BTreeMap<String, BTreeSet<String>>,
}

pub(super) async fn report(
    context: &Context,
    world: &World,
    judged: &BTreeMap<String, Result<ImagePolicy, Refusal>>,
    set: &Result<RuntimeRevision, Refusal>,
    now: u64,
) -> Result<(), String> {
    context.metrics.frozen("ImagePolicy", judged.values().filter(|j| j.is_err()).count());
    let mut result = Ok(());
    let conflicts = conflicts(judged);
    let view = View { world, set, conflicts: &conflicts };
    for (name, judgement) in judged {
        let refusal = judgement.as_ref().err();
        let told = match (world.policies.get(name), refusal) {
            (Some(object), _) => one(context, object, refusal, view, now).await,
            (None, Some(refusal)) => {
                let Some(broken) = world.broken_policies.iter().find(|b| b.name == *name) else { continue };
                let why = (refusal.reason, refusal.message.as_str());
                not_understood::<ImagePolicyObject>(context, broken, why, now).await.map(drop)
            }
            (None, None) => Ok(()),
        };
        result = result.and(told);
    }
    result
}

async fn one(
    context: &Context,
    object: &ImagePolicyObject,
    refusal: Option<&Refusal>,
    view: View<'_>,
    now: u64,
) -> Result<(), String> {
    let status = of(object, refusal, view, now);
    if object.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let before = object.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    if let Some(refusal) = refusal.filter(|_| before.is_empty() || holds(before, "Accepted")) {
        context.events.warning(object, refusal.reason, refusal.message.clone()).await;
    }
    let conflicted = status.conditions.iter().find(|c| c.kind == "Conflicted" && c.status == "True");
    if let Some(condition) = conflicted.filter(|_| !holds(before, "Conflicted")) {
        context.events.warning(object, &condition.reason, condition.message.clone()).await;
    }
    context.writes.patch_status(object, json!(status)).await.map(drop)
}

fn of(
    object: &ImagePolicyObject,
    refusal: Option<&Refusal>,
    View { world, set, conflicts }: View<'_>,
    now: u64,
) -> ImagePolicyStatus {
    let name = object.name_any();
    let former = || object.status.as_ref().and_then(|s| s.policy_revision.clone());
    let revision = set.as_ref().map_or_else(|_| former(), |set| Some(set.name_any()));
    // On a node of another runtime nothing is enforced, and nobody waits for it.
    let managed = |n: &&RuntimeNode| n.status.as_ref().is_some_and(|s| s.state == NodeState::Managed);
    let nodes: Vec<&RuntimeNode> = world.pairs().map(|(_, node)| node).filter(managed).collect();
    let enforce = |n: &&&RuntimeNode| {
        n.status.as_ref().is_some_and(|s| s.policy_revision.is_some() && s.policy_revision == revision)
    };
    // Of one that is refused, what was in force before, if anything was.
    let nothing = refusal.is_some() && set.as_ref().is_ok_and(|set| !holds_policy(set, &name));
    let enforced = if nothing { 0 } else { count(nodes.iter().filter(enforce).count()) };
    let decisions = || {
        let all = nodes.iter().filter_map(|n| n.status.as_ref()).flat_map(|s| &s.enforcement.decisions);
        all.filter(|decision| decision.policy == name)
    };
    // What a node that cannot be understood enforces is not known, unless it says that it is on another runtime.
    let elsewhere = |state: &serde_json::Value| state.is_null() || state == "Foreign" || state == "Absent";
    let unknown: Vec<_> = world.unknown().filter(|u| !elsewhere(&u.broken.object["status"]["state"])).collect();
    let target = count(nodes.len() + unknown.len());
    let before = object.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let mut conditions = Conditions::after(before, object.metadata.generation, now);
    match (refusal, set) {
        (Some(refusal), _) => {
            conditions.set("Accepted", false, refusal.reason, refusal.message.clone());
            let kept = if nothing { "nothing of it is" } else { "what was in force of it before stays" };
            let message = format!("it was refused, and {kept} in force: {}", refusal.message);
            conditions.set("Ready", false, refusal.reason, message);
        }
        (None, Err(problem)) => {
            conditions.set("Accepted", true, "Valid", "");
            conditions.set("Ready", false, problem.reason, problem.message.clone());
        }
        (None, Ok(_)) => {
            conditions.set("Accepted", true, "Valid", "");
            let unknown = unknown.first().map(|u| format!("; {} {} is not understood", u.kind, u.name));
            let message = format!("{enforced} of {target} nodes enforce it{}", unknown.unwrap_or_default());
            let reason = if enforced == target { "InForce" } else { "Spreading" };
            conditions.set("Ready", enforced == target, reason, message);
        }
    }
    // A node that is not taken over without the set is no target of it, and does not enforce it; that it refused it is told like of the others.
    let asked = |s: &RuntimeNodeStatus| s.state == NodeState::Managed || s.phase == Phase::AwaitingPolicies;
    let refused: Vec<_> = world
        .pairs()
        .filter_map(|(_, n)| {
            let status = n.status.as_ref().filter(|s| asked(s))?;
            (status.enforcement.result == "Refused").then(|| n.name_any())
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
    let with = conflicts.get(&name).map(|names| names.iter().cloned().collect::<Vec<_>>().join(", "));
    let reason = if with.is_some() { "NothingLeft" } else { "AsExpected" };
    let message = with.map(|names| {
        format!(
            "together with {names} it allows nothing of what one of them allows; a node denies what any policy denies"
        )
    });
    conditions.set("Conflicted", message.is_some(), reason, message.unwrap_or_default());
    ImagePolicyStatus {
        observed_generation: object.metadata.generation,
        conditions: conditions.finish(),
        policy_revision: revision,
        target_nodes: target,
        enforced_nodes: enforced,
        summary: format!("{enforced}/{target}"),
        denied: decisions().map(|d| d.denied).sum(),
        warned: decisions().map(|d| d.warned).sum(),
    }
}

fn holds_policy(set: &RuntimeRevision, name: &str) -> bool {
    set.spec.policies.iter().flatten().any(|policy| policy.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_crds::RuntimeRevisionSpec;
    use std::sync::Arc;

    /// A cluster with one node whose agent says this.
    fn world(said: serde_json::Value) -> World {
        let mut world = World::default();
        let node = json!({"metadata": {"name": "n", "uid": "1"}});
        world.nodes.insert("n".to_owned(), Arc::new(serde_json::from_value(node).unwrap()));
        let runtime_node = RuntimeNode {
            spec: serde_json::from_value(json!({"nodeName": "n", "nodeUID": "1"})).unwrap(),
            status: serde_json::from_value(said).unwrap(),
            metadata: kube::api::ObjectMeta { name: Some("n".to_owned()), ..Default::default() },
        };
        world.runtime_nodes.insert("n".to_owned(), Arc::new(runtime_node));
        world
    }

    #[test]
    fn one_that_is_refused_says_why_and_is_in_force_only_where_it_was_before() {
        let spec: berth_crds::ImagePolicySpec = serde_json::from_value(json!({"mode": "Enforce"})).unwrap();
        let refusal = Refusal { reason: "Invalid", message: "spec.registries.deny: no host".to_owned() };
        let status = |former: &[&str]| {
            let content = RuntimeRevisionSpec::of_policies(former.iter().map(|name| (*name, &spec)));
            let set = Ok(RuntimeRevision::new("policy-1", content));
            let world = world(json!({"nodeUID": "1", "state": "Managed", "policyRevision": "policy-1"}));
            let view = View { world: &world, set: &set, conflicts: &BTreeMap::new() };
            let status = of(&ImagePolicyObject::new("p", spec.clone()), Some(&refusal), view, 100);
            let ready = status.conditions.iter().find(|c| c.kind == "Ready").unwrap();
            (status.summary.clone(), ready.message.clone())
        };
        let told = |kept: &str| format!("it was refused, and {kept} in force: spec.registries.deny: no host");
        assert_eq!(status(&["other"]), ("0/1".to_owned(), told("nothing of it is")));
        assert_eq!(status(&["other", "p"]), ("1/1".to_owned(), told("what was in force of it before stays")));
    }

    #[test]
    fn a_node_that_is_not_taken_over_without_the_set_is_told_and_is_no_target() {
        let (set, conflicts) = (Ok(RuntimeRevision::new("policy-1", Default::default())), BTreeMap::new());
        let degraded = |state: &str, phase: &str| {
            let world = world(json!({"nodeUID": "1", "state": state, "phase": phase,
                "enforcement": {"result": "Refused", "message": "turbo"}}));
            let view = View { world: &world, set: &set, conflicts: &conflicts };
            let status = of(
                &ImagePolicyObject::new("p", serde_json::from_value(json!({"mode": "Warn"})).unwrap()),
                None,
                view,
                100,
            );
            let condition = status.conditions.iter().find(|c| c.kind == "Degraded").unwrap();
            (status.target_nodes, condition.status.clone(), condition.message.clone())
        };
        let told = "1 nodes refused the set, n among them".to_owned();
        assert_eq!(degraded("Managed", "Idle"), (1, "True".to_owned(), told.clone()));
        assert_eq!(degraded("Foreign", "AwaitingPolicies"), (0, "True".to_owned(), told));
        assert_eq!(degraded("Absent", "Idle"), (0, "False".to_owned(), String::new()), "it has nothing to enforce");
    }
}
