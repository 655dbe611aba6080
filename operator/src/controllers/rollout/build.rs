//! From objects to what the planner is told. Pure.
use super::super::runtime_config::Pool;
use super::super::runtime_node::agents::{self, Agent, Kind, Trouble};
use super::changes;
use super::drain::Drains;
use crate::cluster::World;
use crate::rollout::{
    AgentState, Beside, ControlPlane, Cordon, Grant, Node, OnFailure, Pods, Revision, Rollout, Share, Strategy,
    UNUSED_LEAVES,
};
use crate::time;
use berth_crds::{
    self as crds, FailedRevision, IntOrPercent, Phase, RuntimeNode, RuntimeNodeSpec, RuntimeNodeStatus, UnusedLeave,
    Verdict,
};
use k8s_openapi::api::core::v1::{Node as ClusterNode, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Labels of nodes that run a part of the control plane.
const CONTROL_PLANE: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
const ZONE: &str = "topology.kubernetes.io/zone";

/// On a Node: since when this operator has it cordoned. It is set and removed in one change with the cordon, so that a cordon is ours if and
/// only if it is there.
pub const CORDONED: &str = "berth.dev/cordoned-since";

/// A pool's rollout and nodes.
pub(super) fn rollout(world: &World, pool: &Pool, drains: &Drains, now: u64) -> (Rollout, Vec<Node>) {
    let pairs: Vec<_> = world.pairs().filter(|(node, _)| pool.nodes.contains(&node.name_any())).collect();
    let (good, bad) = verdicts(world, &pool.key());
    let target = Revision(pool.target());
    let came_through = through_since(world, &target, &pool.key());
    let last_known_good = last_known_good(&target, &good, pairs.iter().map(|(_, r)| *r));
    let goals: Vec<_> = [Some(&target), last_known_good.as_ref()].into_iter().flatten().map(|r| r.0.clone()).collect();
    let strategy = strategy(&pool.rollout);
    let nodes = pairs.iter().map(|(node, runtime_node)| {
        let mut made = one(world, node, runtime_node, now, strategy.node_timeout);
        made.control_plane &= !asked_anew(node, runtime_node, &target, &strategy);
        made.pods = drains.get(&made.name).map_or(Pods::Gone, |drain| drain.pods());
        let desired = made.desired.as_ref().map(|(desired, _)| desired.0.clone());
        let ends: BTreeSet<String> = goals.iter().cloned().chain(desired).collect();
        let unstaged = ends.iter().filter(|to| unstaged(world, runtime_node, pool, to));
        made.unstaged = unstaged.cloned().map(Revision).collect();
        made.ways =
            ends.into_iter().map(|to| (Revision(to.clone()), changes::way(world, runtime_node, pool, &to))).collect();
        made
    });
    let nodes: Vec<_> = nodes.collect();
    let paused = pool.rollout.paused.unwrap_or(false);
    let beside = frozen(world, pool, now);
    let rollout = Rollout { target, came_through, last_known_good, bad, paused, strategy, beside };
    (rollout.standing(&nodes), nodes)
}

/// Whether a revision's version of the runtime is newer than all that the node's agent has put there: its image is older (a DaemonSet that is updated
/// later, an image that cannot be pulled), or there was no room for the programs. An agent that does not say what is there is taken at its word.
fn unstaged(world: &World, node: &RuntimeNode, pool: &Pool, to: &str) -> bool {
    let status = said(node);
    let runtime = changes::runtime(world, pool, to).filter(|runtime| runtime.config["state"] != "Absent");
    let Some(wanted) = runtime.map(|runtime| &runtime.version) else { return false };
    let refused = || status.conditions.iter().any(|c| c.kind == "Staged" && c.status == "False");
    let newer = |newest: &String| crds::compare_versions(wanted, newest).is_gt();
    status.runtime_version.as_ref() != Some(wanted) && status.newest_version.as_ref().map_or_else(refused, newer)
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
            let node = one(world, node, runtime_node, now, 0);
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

/// The good revisions and the bad ones, for the pool of that key. What came through for it is good there whatever it did to others.
fn verdicts(world: &World, pool: &str) -> (BTreeSet<Revision>, BTreeSet<Revision>) {
    let (mut good, mut bad) = (BTreeSet::new(), BTreeSet::new());
    for (name, object) in &world.revisions {
        let verdict = object.status.as_ref().and_then(|s| s.verdict);
        if verdict == Some(Verdict::Good) || is_through_for(world, object, pool) {
            good.insert(Revision(name.clone()));
        } else if verdict == Some(Verdict::Bad) {
            bad.insert(Revision(name.clone()));
        }
    }
    (good, bad)
}

/// Whether a revision's status says that it came through for the pool of that key, or for one whose heir it is.
pub(super) fn is_through_for(world: &World, revision: &crds::RuntimeRevision, pool: &str) -> bool {
    revision.status.as_ref().is_some_and(|status| came_through_at(world, status, pool).is_some())
}

/// When it came through for the pool of that key. Names are no part of a configuration: a pool whose RuntimeConfigs were renamed, split or joined by
/// others has what those had that are gone, or that it has as well. One whose RuntimeConfigs are there and select other nodes is another pool.
fn came_through_at<'a>(world: &World, status: &'a crds::RuntimeRevisionStatus, pool: &str) -> Option<&'a String> {
    let inherited = || status.through_for.iter().filter(|(key, _)| is_heir(world, pool, key)).map(|(_, at)| at).max();
    status.through_for.get(pool).or_else(inherited)
}

fn is_heir(world: &World, pool: &str, key: &str) -> bool {
    let own = |name: &str| pool.split(',').any(|own| own == name);
    key.split(',').all(|name| own(name) || !is_there(world, name))
}

/// The keys by which a revision came through for the pool of that key: its own, and those whose heir it is.
pub(super) fn through_keys<'a>(world: &World, revision: &'a crds::RuntimeRevision, pool: &str) -> Vec<&'a String> {
    let keys = revision.status.iter().flat_map(|status| status.through_for.keys());
    keys.filter(|key| is_heir(world, pool, key)).collect()
}

/// Whether there is a RuntimeConfig of that name, understood or not.
fn is_there(world: &World, name: &str) -> bool {
    world.configs.contains_key(name) || world.broken_configs.iter().any(|broken| broken.name == name)
}

/// Of these pools those that have a revision from one whose heir they are, to when it came through there. Written down, it outlives the names of
/// before.
pub(super) fn inherited<'a>(
    world: &World,
    revision: &crds::RuntimeRevision,
    pools: impl Iterator<Item = &'a Pool>,
) -> BTreeMap<String, String> {
    let Some(status) = &revision.status else { return BTreeMap::new() };
    let keys = pools.map(Pool::key).filter(|key| !status.through_for.contains_key(key));
    keys.filter_map(|key| Some((key.clone(), came_through_at(world, status, &key)?.clone()))).collect()
}

/// When a revision came through for the pool of that key: for others it may have, while the pool's own nodes were on their way. One that is good and
/// does not say for whom is so for all; where it does not say when either, whoever has it counts.
fn through_since(world: &World, revision: &Revision, pool: &str) -> Option<u64> {
    let status = world.revisions.get(&revision.0)?.status.as_ref()?;
    if status.verdict == Some(Verdict::Good) && status.through_for.is_empty() {
        return Some(time::of(status.since.as_ref()).unwrap_or(u64::MAX));
    }
    time::seconds(came_through_at(world, status, pool)?)
}

/// What a revision's status says from now on when it came through for the pool of that key, as a merge patch. What is bad for others stays that.
pub(super) fn came_through(
    world: &World,
    revision: &crds::RuntimeRevision,
    (pool, since): (&str, u64),
    inherited: BTreeMap<String, String>,
    message: &str,
) -> Value {
    let keys = revision.status.iter().flat_map(|s| s.through_for.keys());
    // Nobody can be asked for these any more.
    let gone = keys.filter(|key| !key.split(',').any(|name| is_there(world, name)));
    let gone = gone.map(|key| (key.clone(), Value::Null));
    let inherited = inherited.into_iter().map(|(key, at)| (key, json!(at)));
    let through = gone.chain(inherited).chain([(pool.to_owned(), json!(time::text(since)))]);
    let through: Map<String, Value> = through.collect();
    if revision.status.as_ref().and_then(|s| s.verdict) == Some(Verdict::Bad) {
        return json!({ "throughFor": through });
    }
    json!({"verdict": Verdict::Good, "since": time::text(since), "message": message, "throughFor": through})
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
    heard(runtime_node).cloned().unwrap_or_default()
}

/// The same, if it has said anything.
pub fn heard(runtime_node: &RuntimeNode) -> Option<&RuntimeNodeStatus> {
    let uid = &runtime_node.spec.node_uid;
    runtime_node.status.as_ref().filter(|status| status.node_uid.is_empty() || status.node_uid == *uid)
}

/// A node, without the ways that it may go, the versions that it lacks, and its pods. `timeout`: how long it may take; what is not judged needs none.
pub(super) fn one(world: &World, node: &ClusterNode, runtime_node: &RuntimeNode, now: u64, timeout: u64) -> Node {
    let (name, spec, status) = (node.name_any(), &runtime_node.spec, said(runtime_node));
    let since = |text: Option<&String>| time::of(text).unwrap_or(0);
    let revision = |name: &Option<String>, since: u64| name.clone().map(|name| (Revision(name), since));
    let told = revision(&spec.desired_revision, since(spec.desired_since.as_ref()));
    let grant = spec.grant.as_ref().map(grant);
    // Its clock is the agent's: what it says is no earlier than it was told, and no later than now.
    let has_it = spec.desired_revision == status.current_revision;
    let earliest = if has_it { since(spec.desired_since.as_ref()) } else { 0 };
    let clamped = |at: u64| at.max(earliest).min(now);
    // Now would be another moment at each look, and a soak that begins then would never end. It had it before its time was over, by our clock.
    let leave_ends =
        grant.as_ref().filter(|g| spec.desired_revision.as_ref() == Some(&g.revision.0)).map(|g| g.expires);
    let latest = earliest.saturating_add(timeout).max(leave_ends.unwrap_or(0));
    let had = |at: u64| if has_it && at > now { at.clamp(earliest, latest) } else { clamped(at) };
    let current = revision(&status.current_revision, had(since(status.current_since.as_ref())));
    let retried = |name: &str| retried(world, name);
    let failed = failed(world, &status);
    let plane = failed.filter(|failed| refuses_as_control_plane(spec, failed));
    let failed = failed.filter(|_| plane.is_none());
    let unused = unused(world, spec);
    // What was given up is over, and with it what leave was given for: nothing goes on by it that could be disturbed.
    let over = matches!(status.phase, Phase::Idle | Phase::Quarantined)
        && status.failed.as_ref().is_some_and(|failed| answers_order(spec, failed));
    let leave = !over && grant.as_ref().is_some_and(|grant| grant.expires > now);
    // Told before somebody asked to try again, and nothing came of it: as if it had not been told yet.
    let again = |(name, at): &(Revision, u64)| {
        status.current_revision.as_ref() != Some(&name.0) && !leave && retried(&name.0).is_some_and(|again| *at < again)
    };
    // Nor is one told that nobody asked for: it has begun nothing, and is told in its turn where somebody asks.
    let unasked = plane.is_some_and(|failed| answers_order(spec, failed));
    let unhealthy = current.as_ref().filter(|_| !status.healthy).map(|(_, since)| {
        let said = status.conditions.iter().find(|c| c.kind == "Healthy" && c.status == "False");
        said.and_then(|c| time::seconds(&c.last_transition_time)).map_or(*since, clamped)
    });
    // The kubelet's clock is the node's own: what it has now did not make it ill before it had it.
    let had = current.as_ref().map_or(0, |(_, since)| *since);
    let unready = unready_since(node).map(|since| since.max(had).min(now));
    Node {
        zone: node.labels().get(ZONE).cloned().unwrap_or_default(),
        control_plane: has_role_label(node) || plane.is_some(),
        created: node.creation_timestamp().and_then(|t| u64::try_from(t.0.as_second()).ok()).unwrap_or(0),
        unready_since: unready,
        well_since: well_since(node, &status, had, now),
        unhealthy_since: unhealthy,
        cordon: cordon(node),
        pods: Pods::Gone,
        desired: if unasked || told.as_ref().is_some_and(again) { current.clone() } else { told },
        current,
        failed: failed_on(spec.desired_revision.as_ref(), failed.map(|f| &f.revision), unused),
        crashes: status.crash_count,
        asks: status.phase == Phase::AwaitingGrant,
        begun: status.attempts > 0,
        lacks_policies: status.phase == Phase::AwaitingPolicies,
        agent: agent(world, &name),
        grant,
        unused: unused.filter(|u| spec.desired_revision.as_ref() == Some(&u.revision)).map_or(0, |u| u.times),
        hold: spec.hold,
        postponed_until: since(spec.postponed_until.as_ref()),
        ways: BTreeMap::new(),
        unstaged: BTreeSet::new(),
        name,
    }
}

/// What the agent gave up, as far as that counts: not from before somebody asked to try the revision again.
fn failed<'a>(world: &World, status: &'a RuntimeNodeStatus) -> Option<&'a FailedRevision> {
    status.failed.as_ref().filter(|failed| {
        let tried = time::of(failed.desired_since.as_ref()).or_else(|| time::seconds(&failed.at)).unwrap_or(0);
        retried(world, &failed.revision).is_none_or(|again| tried >= again)
    })
}

/// Whether that is what became of the order that the node has.
fn answers_order(spec: &RuntimeNodeSpec, failed: &FailedRevision) -> bool {
    spec.desired_revision.as_ref() == Some(&failed.revision) && failed.desired_since == spec.desired_since
}

/// Whether a node has failed at nothing: it was not asked for, and runs a part of the control plane. One that refuses so where it is asked for has
/// failed, or would be told again and again.
fn refuses_as_control_plane(spec: &RuntimeNodeSpec, failed: &FailedRevision) -> bool {
    let asked_for = spec.control_plane == Some(true) && answers_order(spec, failed);
    failed.reason == FailedRevision::CONTROL_PLANE && !asked_for
}

/// Whether a node that called itself a part of the control plane is to be asked about another revision: the pod that it meant may be gone. Where
/// such nodes are taken as well it stays one, for they come last.
fn asked_anew(node: &ClusterNode, object: &RuntimeNode, target: &Revision, strategy: &Strategy) -> bool {
    let about = said(object).failed.map(|failed| failed.revision);
    strategy.control_plane == ControlPlane::Exclude && !has_role_label(node) && about.as_ref() != Some(&target.0)
}

fn has_role_label(node: &ClusterNode) -> bool {
    CONTROL_PLANE.iter().any(|label| node.labels().contains_key(*label))
}

/// What a node says that is left out because it runs a part of the control plane. Of one whose labels say so, everybody knows.
pub fn control_plane_by_its_word(world: &World, node: &str) -> Option<String> {
    let (node, object) = (world.nodes.get(node)?, world.runtime_nodes.get(node)?);
    let status = said(object);
    let failed = failed(world, &status).filter(|failed| refuses_as_control_plane(&object.spec, failed));
    failed.filter(|_| !has_role_label(node)).map(|failed| failed.message.clone())
}

/// When somebody last asked to try a revision again.
fn retried(world: &World, revision: &str) -> Option<u64> {
    world.revisions.get(revision)?.status.as_ref().and_then(|s| time::of(s.retried_at.as_ref()))
}

/// The leave that a node did not use, as far as that counts: not from before somebody asked to try the revision again.
pub(super) fn unused<'a>(world: &World, spec: &'a RuntimeNodeSpec) -> Option<&'a UnusedLeave> {
    let later = |u: &&UnusedLeave| match retried(world, &u.revision) {
        Some(again) => time::seconds(&u.at).is_some_and(|at| at > again),
        None => true,
    };
    spec.unused_leave.as_ref().filter(later)
}

/// What a node has failed on: what its agent gave up, or did not begin however often it had leave. What it is told to have comes first.
fn failed_on(desired: Option<&String>, gave_up: Option<&String>, unused: Option<&UnusedLeave>) -> Option<Revision> {
    let unused = unused.filter(|u| u.times >= UNUSED_LEAVES).map(|u| &u.revision);
    let first = gave_up.filter(|name| Some(*name) == desired);
    first.or(unused).or(gave_up).map(|name| Revision(name.clone()))
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

/// When a node, or what its agent says of it, last became well. A time that is yet to come is of a clock that is ahead, and would be a moment ago at
/// each look until then: nothing is known of it but when the node `had` what it has.
fn well_since(node: &ClusterNode, status: &RuntimeNodeStatus, had: u64, now: u64) -> u64 {
    let known = |at: u64| if at > now { had } else { at };
    let ready = ready(node).filter(|c| c.status == "True").map_or(0, |c| at(c.last_transition_time.as_ref()));
    let healthy = status.conditions.iter().find(|c| c.kind == "Healthy" && c.status == "True");
    known(ready).max(known(healthy.and_then(|c| time::seconds(&c.last_transition_time)).unwrap_or(0)))
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

/// Whether a rollout asks for nodes of the control plane. Its nodes are told: what they run may be a part of it without their labels saying so.
pub(super) fn asks_for_control_plane(rollout: &Rollout) -> bool {
    rollout.strategy.control_plane == ControlPlane::Last
}

#[cfg(test)]
mod tests;
