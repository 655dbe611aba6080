//! From objects to what the planner is told. Pure.
use super::super::runtime_config::Pool;
use super::super::runtime_node::agents::{self, Agent, Kind, Trouble};
use super::Running;
use super::changes;
use super::drain::Drains;
use crate::cluster::World;
use crate::rollout::{
    AgentState, Beside, ControlPlane, Cordon, Grant, Node, OnFailure, Pods, Revision, Rollout, Share, Strategy,
};
use crate::time;
use berth_crds::{self as crds, IntOrPercent, Phase, RuntimeNode, RuntimeNodeStatus, Verdict};
use k8s_openapi::api::core::v1::{Node as ClusterNode, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Labels of nodes that run a part of the control plane.
const CONTROL_PLANE: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
const ZONE: &str = "topology.kubernetes.io/zone";

/// On a Node: since when this operator has it cordoned. It is set and removed in one change with the cordon, so that a cordon is ours if and
/// only if it is there.
pub const CORDONED: &str = "berth.dev/cordoned-since";

/// A pool's rollout and nodes.
pub(super) fn rollout(world: &World, pool: &Pool, drains: &Drains, now: u64) -> (Rollout, Vec<Node>) {
    let pairs: Vec<_> = world.pairs().filter(|(node, _)| pool.nodes.contains(&node.name_any())).collect();
    let verdicts = |verdict| {
        let of = move |r: &&Arc<crds::RuntimeRevision>| r.status.as_ref().and_then(|s| s.verdict) == Some(verdict);
        world.revisions.values().filter(of).map(|r| Revision(r.name_any())).collect::<BTreeSet<_>>()
    };
    let (good, bad) = (verdicts(Verdict::Good), verdicts(Verdict::Bad));
    let target = Revision(pool.target());
    let came_through = good.contains(&target).then(|| through_since(world, &target, &pool.key())).flatten();
    let last_known_good = last_known_good(&target, &good, pairs.iter().map(|(_, r)| *r));
    let goals: Vec<_> = [Some(&target), last_known_good.as_ref()].into_iter().flatten().map(|r| r.0.clone()).collect();
    let nodes = pairs.iter().map(|(node, runtime_node)| {
        let mut made = one(world, node, runtime_node, now);
        made.pods = drains.get(&made.name).map_or(Pods::Gone, |drain| drain.pods());
        let desired = made.desired.as_ref().map(|(desired, _)| desired.0.clone());
        let ends = goals.iter().cloned().chain(desired);
        made.ways = ends.map(|to| (Revision(to.clone()), changes::way(world, runtime_node, pool, &to))).collect();
        made
    });
    let nodes: Vec<_> = nodes.collect();
    let paused = pool.rollout.paused.unwrap_or(false);
    let (strategy, beside) = (strategy(&pool.rollout), frozen(world, pool, now));
    let rollout = Rollout { target, came_through, last_known_good, bad, paused, strategy, beside };
    (rollout.standing(&nodes), nodes)
}

/// The nodes that are left as they are: whatever they are in the middle of goes on, and takes of the budget.
fn frozen(world: &World, pool: &Pool, now: u64) -> Beside {
    let away = pool.frozen.iter().filter(|name| away(world, name, now)).count();
    Beside { nodes: pool.frozen.len(), away, at_work: 0 }
}

/// Whether a node that is in no rollout is away, or may be at any moment. Of one that cannot be parsed, its Node and its grant say so.
fn away(world: &World, name: &str, now: u64) -> bool {
    let Some(node) = world.nodes.get(name) else { return true };
    let granted = match (world.runtime_nodes.get(name), world.broken_runtime_nodes.get(name)) {
        (Some(runtime_node), _) => {
            let node = one(world, node, runtime_node, now);
            node.granted(now) && !node.settled()
        }
        (None, Some(broken)) => {
            let (grant, current) = (&broken.object["spec"]["grant"], &broken.object["status"]["currentRevision"]);
            let expires = grant["expiresAt"].as_str().and_then(time::seconds);
            expires.is_some_and(|expires| expires > now) && grant["revision"] != *current
        }
        (None, None) => false,
    };
    granted || cordon(node) != Cordon::None || unready_since(node).is_some()
}

/// When a good revision came through, as far as that counts for the pool of that key: what came through for others while its own nodes were on their
/// way says nothing of these. Of one that does not say when, whoever has it counts.
fn through_since(world: &World, revision: &Revision, pool: &str) -> Option<u64> {
    let status = world.revisions.get(&revision.0).and_then(|r| r.status.as_ref());
    match status.and_then(|s| s.under_way.get(pool)) {
        Some(before) => time::seconds(before),
        None => Some(status.and_then(|s| time::of(s.since.as_ref())).unwrap_or(u64::MAX)),
    }
}

/// The other rollouts of a revision that came through for one pool: those that are not through with it, as the revision's status keeps them.
pub(super) fn under_way(all: &[Running], through: &Running) -> BTreeMap<String, String> {
    let target = &through.rollout.target;
    let others = all.iter().filter(|r| r.rollout.target == *target && r.pool.configs != through.pool.configs);
    let open = others.filter(|r| r.rollout.last_known_good.as_ref() != Some(target));
    open.map(|r| (r.pool.key(), r.rollout.came_through.map(time::text).unwrap_or_default())).collect()
}

/// Of the other good ones that nodes have or had, that of most nodes.
fn last_known_good<'a>(
    target: &Revision,
    good: &BTreeSet<Revision>,
    nodes: impl Iterator<Item = &'a RuntimeNode>,
) -> Option<Revision> {
    let mut counts: BTreeMap<Revision, usize> = BTreeMap::new();
    for node in nodes {
        let current = node.status.as_ref().and_then(|s| s.current_revision.clone());
        let names = [current, node.spec.fallback_revision.clone(), node.spec.desired_revision.clone()];
        if let Some(name) = names.into_iter().flatten().map(Revision).find(|name| name != target && good.contains(name))
        {
            *counts.entry(name).or_default() += 1;
        }
    }
    counts.into_iter().max_by(|(a, x), (b, y)| (x, b).cmp(&(y, a))).map(|(name, _)| name)
}

/// What the agent says. What was said on another machine of that name counts for nothing.
pub fn said(runtime_node: &RuntimeNode) -> RuntimeNodeStatus {
    let uid = &runtime_node.spec.node_uid;
    let of_it = |s: &&RuntimeNodeStatus| s.node_uid.is_empty() || s.node_uid == *uid;
    runtime_node.status.as_ref().filter(of_it).cloned().unwrap_or_default()
}

/// A node, without the ways that it may go and its pods.
pub(super) fn one(world: &World, node: &ClusterNode, runtime_node: &RuntimeNode, now: u64) -> Node {
    let (name, spec, status) = (node.name_any(), &runtime_node.spec, said(runtime_node));
    let since = |text: Option<&String>| time::of(text).unwrap_or(0);
    let revision = |name: &Option<String>, since: u64| name.clone().map(|name| (Revision(name), since));
    let told = revision(&spec.desired_revision, since(spec.desired_since.as_ref()));
    // Its clock is the agent's: what it says is no earlier than it was told, and no later than now.
    let earliest =
        if spec.desired_revision == status.current_revision { since(spec.desired_since.as_ref()) } else { 0 };
    let clamped = |at: u64| at.max(earliest).min(now);
    let current = revision(&status.current_revision, clamped(since(status.current_since.as_ref())));
    let retried = |name: &str| world.revisions.get(name)?.status.as_ref().and_then(|s| time::of(s.retried_at.as_ref()));
    let failed = status.failed.as_ref().filter(|failed| {
        let tried = time::of(failed.desired_since.as_ref()).or_else(|| time::seconds(&failed.at)).unwrap_or(0);
        retried(&failed.revision).is_none_or(|again| tried >= again)
    });
    let grant = spec.grant.as_ref().map(grant);
    // What was given up is over, and with it what leave was given for: nothing goes on by it that could be disturbed.
    let over = matches!(status.phase, Phase::Idle | Phase::Quarantined)
        && status.failed.as_ref().is_some_and(|failed| {
            spec.desired_revision.as_ref() == Some(&failed.revision) && failed.desired_since == spec.desired_since
        });
    let leave = !over && grant.as_ref().is_some_and(|grant| grant.expires > now);
    // Told before somebody asked to try again, and nothing came of it: as if it had not been told yet.
    let again = |(name, at): &(Revision, u64)| {
        status.current_revision.as_ref() != Some(&name.0) && !leave && retried(&name.0).is_some_and(|again| *at < again)
    };
    let unhealthy = current.as_ref().filter(|_| !status.healthy).map(|(_, since)| {
        let said = status.conditions.iter().find(|c| c.kind == "Healthy" && c.status == "False");
        said.and_then(|c| time::seconds(&c.last_transition_time)).map_or(*since, clamped)
    });
    // The kubelet's clock is the node's own: what it has now did not make it ill before it had it.
    let had = current.as_ref().map_or(0, |(_, since)| *since);
    let unready = unready_since(node).map(|since| since.max(had).min(now));
    Node {
        zone: node.labels().get(ZONE).cloned().unwrap_or_default(),
        control_plane: CONTROL_PLANE.iter().any(|label| node.labels().contains_key(*label)),
        created: node.creation_timestamp().and_then(|t| u64::try_from(t.0.as_second()).ok()).unwrap_or(0),
        unready_since: unready,
        well_since: well_since(node, &status).min(now),
        unhealthy_since: unhealthy,
        cordon: cordon(node),
        pods: Pods::Gone,
        desired: if told.as_ref().is_some_and(again) { current.clone() } else { told },
        current,
        failed: failed.map(|failed| Revision(failed.revision.clone())),
        crashes: status.crash_count,
        asks: status.phase == Phase::AwaitingGrant,
        begun: status.attempts > 0,
        lacks_policies: status.phase == Phase::AwaitingPolicies,
        agent: agent(world, &name),
        grant,
        hold: spec.hold,
        postponed_until: since(spec.postponed_until.as_ref()),
        ways: BTreeMap::new(),
        name,
    }
}

fn agent(world: &World, node: &str) -> AgentState {
    match world.agents.get(node).map(|pod| agents::agent(pod)) {
        Some(Agent::Down(Trouble { kind: Kind::Image | Kind::Container | Kind::Unschedulable, .. })) => {
            AgentState::CannotStart
        }
        Some(Agent::Down(_)) => AgentState::Crashes,
        Some(Agent::Runs | Agent::Begins) | None => AgentState::Runs,
    }
}

fn cordon(node: &ClusterNode) -> Cordon {
    let unschedulable = node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
    match node.annotations().get(CORDONED) {
        _ if !unschedulable => Cordon::None,
        Some(since) => Cordon::Ours(time::seconds(since).unwrap_or(0)),
        None => Cordon::Foreign,
    }
}

fn ready(node: &ClusterNode) -> Option<&NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == "Ready")
}

fn at(time: Option<&Time>) -> u64 {
    time.and_then(|t| u64::try_from(t.0.as_second()).ok()).unwrap_or(0)
}

/// Since when a node is not Ready. One that has never said anything is not.
fn unready_since(node: &ClusterNode) -> Option<u64> {
    match ready(node) {
        Some(condition) if condition.status == "True" => None,
        Some(condition) => Some(at(condition.last_transition_time.as_ref())),
        None => Some(at(node.metadata.creation_timestamp.as_ref())),
    }
}

/// When a node, or what its agent says of it, last became well.
fn well_since(node: &ClusterNode, status: &RuntimeNodeStatus) -> u64 {
    let ready = ready(node).filter(|c| c.status == "True").map_or(0, |c| at(c.last_transition_time.as_ref()));
    let healthy = status.conditions.iter().find(|c| c.kind == "Healthy" && c.status == "True");
    ready.max(healthy.and_then(|c| time::seconds(&c.last_transition_time)).unwrap_or(0))
}

fn grant(grant: &crds::Grant) -> Grant {
    Grant {
        revision: Revision(grant.revision.clone()),
        disruption: changes::from_crd(grant.disruption),
        expires: time::seconds(&grant.expires_at).unwrap_or(0),
    }
}

fn share(written: IntOrPercent) -> Share {
    match written {
        IntOrPercent::Int(number) => Share::Nodes(usize::try_from(number).unwrap_or(usize::MAX)),
        IntOrPercent::Percent(percent) => Share::Percent(percent),
    }
}

/// What RuntimeConfigs say of the rollout, and the defaults. The rules of RuntimeConfig have accepted every value.
fn strategy(rollout: &crds::Rollout) -> Strategy {
    let default = Strategy::default();
    let seconds = |text: &Option<String>, default: u64| text.as_deref().and_then(crds::seconds).unwrap_or(default);
    let or = |written: Option<IntOrPercent>, default: Share| written.map_or(default, share);
    Strategy {
        waves: rollout.waves.as_ref().map_or(default.waves, |waves| waves.iter().copied().map(share).collect()),
        max_unavailable: or(rollout.max_unavailable, default.max_unavailable),
        max_in_flight: or(rollout.max_in_flight, default.max_in_flight),
        soak_canary: seconds(&rollout.soak.canary, default.soak_canary),
        soak_wave: seconds(&rollout.soak.wave, default.soak_wave),
        failures: or(rollout.max_failures, default.failures),
        node_timeout: seconds(&rollout.node_timeout, default.node_timeout),
        drain_timeout: seconds(&rollout.drain.timeout, default.drain_timeout),
        drain_backoff: seconds(&rollout.drain.retry_after, default.drain_backoff),
        on_failure: rollout.on_failure.map_or(default.on_failure, |on| match on {
            crds::OnFailure::Rollback => OnFailure::Rollback,
            crds::OnFailure::Halt => OnFailure::Halt,
            crds::OnFailure::Continue => OnFailure::Continue,
        }),
        control_plane: rollout.control_plane.map_or(default.control_plane, |what| match what {
            crds::ControlPlane::Exclude => ControlPlane::Exclude,
            crds::ControlPlane::Last => ControlPlane::Last,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of fields tells people the defaults; these are those that count.
    #[test]
    fn the_defaults_are_those_of_the_table() {
        let mut spec = serde_json::json!({});
        for field in crds::all_fields().filter(|f| f.path.starts_with("spec.rollout.")) {
            let crds::Preset::Is(json) = field.default else { panic!("{} has a value", field.path) };
            let mut at = &mut spec;
            for part in field.path.split('.').skip(1) {
                at = &mut at[part];
            }
            *at = serde_json::from_str(json).unwrap();
        }
        let spec: crds::RuntimeConfigSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(strategy(&spec.rollout), Strategy::default());
    }

    #[test]
    fn what_drains_may_lose_is_nothing_by_default() {
        let drain = |json: serde_json::Value| {
            crate::controllers::rollout::drain::MayGo::of(&serde_json::from_value(json).unwrap())
        };
        assert_eq!(drain(serde_json::json!({})), Default::default());
    }

    fn revision(name: &str, status: serde_json::Value) -> crds::RuntimeRevision {
        let mut object = crds::RuntimeRevision::new(name, Default::default());
        object.status = serde_json::from_value(status).unwrap();
        object
    }

    fn made(revisions: &[crds::RuntimeRevision], spec: serde_json::Value, status: serde_json::Value) -> Node {
        seen(revisions, serde_json::json!({}), spec, status)
    }

    /// With that condition `Ready` of its Node.
    fn seen(
        revisions: &[crds::RuntimeRevision],
        ready: serde_json::Value,
        spec: serde_json::Value,
        status: serde_json::Value,
    ) -> Node {
        let mut world = World::default();
        world.revisions.extend(revisions.iter().map(|r| (r.name_any(), Arc::new(r.clone()))));
        let conditions = if ready["type"].is_null() { serde_json::json!([]) } else { serde_json::json!([ready]) };
        let node = serde_json::json!({"metadata": {"name": "n", "uid": "1"}, "status": {"conditions": conditions}});
        let node = serde_json::from_value(node).unwrap();
        let runtime_node = RuntimeNode {
            spec: serde_json::from_value(spec).unwrap(),
            status: serde_json::from_value(status).unwrap(),
            ..Default::default()
        };
        one(&world, &node, &runtime_node, 10_000)
    }

    #[test]
    fn a_retry_makes_failures_from_before_it_count_for_nothing() {
        let told = |at: u64, tried: u64| {
            let spec = serde_json::json!({"nodeName": "n", "nodeUID": "1", "desiredRevision": "r", "desiredSince": time::text(at)});
            // A clock that is ahead by hours says nothing about the order.
            let failed = serde_json::json!({"revision": "r", "reason": "", "message": "", "at": time::text(90_000),
                "desiredSince": time::text(tried)});
            (spec, serde_json::json!({"nodeUID": "1", "currentRevision": "old", "failed": failed}))
        };
        let retried = [revision("r", serde_json::json!({"retriedAt": time::text(5000)}))];
        let (spec, status) = told(4000, 4000);
        let node = made(&[revision("r", serde_json::json!({}))], spec.clone(), status.clone());
        assert!(node.gave_up(), "without a retry it has failed: {node:?}");
        let node = made(&retried, spec, status);
        assert!(
            node.failed.is_none() && node.settled() && node.has(&Revision("old".into())),
            "it can be told anew: {node:?}"
        );
        let (spec, status) = told(6000, 4000);
        let node = made(&retried, spec, status);
        assert!(!node.gave_up() && node.wants(&Revision("r".into())), "it is on its way: {node:?}");
        let (spec, status) = told(6000, 6000);
        assert!(made(&retried, spec, status).gave_up(), "it failed again");
    }

    /// As with the first revision ever, which leaves nothing to go back to: nobody takes the grant back.
    #[test]
    fn a_retry_does_not_wait_for_the_end_of_leave_that_was_used_in_vain() {
        let grant = serde_json::json!({"revision": "r", "disruption": "Drain", "expiresAt": time::text(20_000)});
        let spec = serde_json::json!({"nodeName": "n", "nodeUID": "1", "desiredRevision": "r", "desiredSince": time::text(4000), "grant": grant});
        let retried = [revision("r", serde_json::json!({"retriedAt": time::text(5000)}))];
        let told = |phase: &str, tried: u64| {
            let failed = serde_json::json!({"revision": "r", "reason": "", "message": "", "at": time::text(4500),
                "desiredSince": time::text(tried)});
            let status = serde_json::json!({"nodeUID": "1", "phase": phase, "failed": failed});
            made(&retried, spec.clone(), status).desired.is_some()
        };
        assert!(!told("Idle", 4000), "it can be told anew");
        assert!(told("RollingBack", 4000), "it still goes back");
        assert!(told("Idle", 3000), "it may be about to use its leave");
    }

    /// The phases are those of the agent's test `policies_that_are_edited_while_a_node_waits_for_leave_are_waited_for_too`.
    #[test]
    fn policies_that_a_node_waits_for_end_no_time() {
        let spec = serde_json::json!({"nodeName": "n", "nodeUID": "1", "desiredRevision": "r", "desiredSince": time::text(1000)});
        let in_phase = |phase: &str| {
            let node = made(&[], spec.clone(), serde_json::json!({"nodeUID": "1", "phase": phase}));
            (node.asks, node.lapsed(600, 10_000), node.under_way(600, 10_000))
        };
        assert_eq!(in_phase("AwaitingGrant"), (true, false, true));
        assert_eq!(in_phase("AwaitingPolicies"), (false, false, true), "it is given no leave, and has not failed");
        assert_eq!(in_phase("Preparing"), (false, true, false));
    }

    #[test]
    fn attempts_say_whether_leave_was_used() {
        let grant = serde_json::json!({"revision": "r", "disruption": "Drain", "expiresAt": time::text(2000)});
        let spec = serde_json::json!({"nodeName": "n", "nodeUID": "1", "desiredRevision": "r", "desiredSince": time::text(1000), "grant": grant});
        let lapsed = |attempts: u32| {
            let status = serde_json::json!({"nodeUID": "1", "phase": "AwaitingGrant", "attempts": attempts});
            made(&[], spec.clone(), status).lapsed(600, 10_000)
        };
        assert!(!lapsed(0) && lapsed(1));
    }

    #[test]
    fn no_clock_of_a_node_makes_a_soak_shorter() {
        let at = |current: u64, healthy: bool| {
            let spec = serde_json::json!({"nodeName": "n", "nodeUID": "1", "desiredRevision": "r", "desiredSince": time::text(4000)});
            let conditions = serde_json::json!([{"type": "Healthy", "status": "False", "reason": "", "message": "",
                "lastTransitionTime": time::text(current)}]);
            let status = serde_json::json!({"nodeUID": "1", "currentRevision": "r", "currentSince": time::text(current),
                "healthy": healthy, "conditions": conditions});
            made(&[], spec, status)
        };
        let since = |node: &Node| node.current.as_ref().unwrap().1;
        assert_eq!(since(&at(1000, true)), 4000, "a clock that is behind: not before it was told");
        assert_eq!(since(&at(4100, true)), 4100);
        assert_eq!(since(&at(90_000, true)), 10_000, "a clock that is ahead: not in the future");
        assert_eq!(at(1000, false).unhealthy_since, Some(4000));
        assert_eq!(at(9000, true).unhealthy_since, None);
    }

    #[test]
    fn well_is_what_is_ready_and_healthy_without_a_break() {
        let spec = serde_json::json!({"nodeName": "n", "nodeUID": "1", "desiredRevision": "r", "desiredSince": time::text(4000)});
        let since = |ready: u64, healthy: u64| {
            let said = |kind, at| serde_json::json!({"type": kind, "status": "True", "reason": "", "message": "", "lastTransitionTime": time::text(at)});
            let status = serde_json::json!({"nodeUID": "1", "currentRevision": "r", "currentSince": time::text(4100),
                "healthy": true, "conditions": [said("Healthy", healthy)]});
            seen(&[], said("Ready", ready), spec.clone(), status).well_since
        };
        assert_eq!((since(5000, 100), since(100, 6000), since(90_000, 100)), (5000, 6000, 10_000));
    }

    /// A clock that is behind by hours would have it ill for longer than it had the revision.
    #[test]
    fn a_node_is_not_ill_of_a_revision_before_it_had_it() {
        let spec = serde_json::json!({"nodeName": "n", "nodeUID": "1", "desiredRevision": "r", "desiredSince": time::text(4000)});
        let status = serde_json::json!({"nodeUID": "1", "currentRevision": "r", "currentSince": time::text(4100), "healthy": true});
        let since = |at: u64| {
            let ready = serde_json::json!({"type": "Ready", "status": "False", "lastTransitionTime": time::text(at)});
            seen(&[], ready, spec.clone(), status.clone()).unready_since
        };
        assert_eq!((since(1000), since(5000), since(90_000)), (Some(4100), Some(5000), Some(10_000)));
    }

    #[test]
    fn what_a_node_is_in_the_middle_of_takes_of_the_budget_though_it_cannot_be_parsed() {
        let node = |cordoned: bool| {
            let ready = [serde_json::json!({"type": "Ready", "status": "True"})];
            serde_json::json!({"metadata": {"name": "n"}, "spec": {"unschedulable": cordoned}, "status": {"conditions": ready}})
        };
        let of = |cordoned: bool, expires: u64, current: &str| {
            let mut world = World::default();
            world.nodes.insert("n".to_owned(), Arc::new(serde_json::from_value(node(cordoned)).unwrap()));
            let object = serde_json::json!({"spec": {"grant": {"revision": "r", "disruption": "Drain", "expiresAt": time::text(expires)}},
                "status": {"phase": "Dreaming", "currentRevision": current}});
            let broken = crate::cluster::Broken { name: "n".to_owned(), error: String::new(), object };
            world.broken_runtime_nodes.insert("n".to_owned(), broken);
            away(&world, "n", 1000)
        };
        assert!(of(false, 2000, "old"), "it may be interrupted now");
        assert!(!of(false, 2000, "r"), "it has what it was for");
        assert!(!of(false, 500, "old") && of(true, 500, "old"));
    }

    #[test]
    fn a_cordon_is_ours_if_and_only_if_its_node_says_so() {
        let node = |json: serde_json::Value| cordon(&serde_json::from_value(json).unwrap());
        let annotations = serde_json::json!({CORDONED: time::text(77)});
        assert_eq!(node(serde_json::json!({"metadata": {"annotations": annotations}})), Cordon::None);
        let cordoned = serde_json::json!({"unschedulable": true});
        assert_eq!(node(serde_json::json!({"metadata": {}, "spec": cordoned})), Cordon::Foreign);
        assert_eq!(
            node(serde_json::json!({"metadata": {"annotations": annotations}, "spec": cordoned})),
            Cordon::Ours(77)
        );
    }

    #[test]
    fn what_nodes_go_back_to_is_the_good_one_that_most_have_or_had() {
        let node = |current: &str, fallback: Option<&str>| {
            let mut node = RuntimeNode::default();
            node.spec.fallback_revision = fallback.map(str::to_owned);
            node.status = Some(RuntimeNodeStatus { current_revision: Some(current.to_owned()), ..Default::default() });
            node
        };
        let name = |n: &str| Revision(n.to_owned());
        let nodes = [node("new", Some("a")), node("a", None), node("b", Some("a"))];
        let good = BTreeSet::from([name("a"), name("b")]);
        assert_eq!(last_known_good(&name("new"), &good, nodes.iter()), Some(name("a")));
        assert_eq!(last_known_good(&name("a"), &good, nodes.iter()), Some(name("b")), "another one than the target");
        assert_eq!(last_known_good(&name("new"), &BTreeSet::new(), nodes.iter()), None);
    }
}
