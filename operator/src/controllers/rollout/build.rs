//! From objects to what the planner is told. Pure.
use super::super::runtime_config::Pool;
use super::Occupied;
use crate::cluster::World;
use crate::rollout::{ControlPlane, Cordon, Disruption, Grant, Node, OnFailure, Revision, Rollout, Share, Strategy};
use crate::time;
use berth_crds::{
    self as crds, Class, FieldChange, IntOrPercent, NodeState, RuntimeConfigSpec, RuntimeNode, RuntimeNodeStatus,
    Verdict,
};
use k8s_openapi::api::core::v1::Node as ClusterNode;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};

/// Labels of nodes that run a part of the control plane.
const CONTROL_PLANE: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
const ZONE: &str = "topology.kubernetes.io/zone";

/// A pool's rollout and nodes.
pub(super) fn rollout(world: &World, pool: &Pool, occupied: &Occupied) -> (Rollout, Vec<Node>) {
    let pairs: Vec<_> = world.pairs().filter(|(node, _)| pool.nodes.contains(&node.name_any())).collect();
    let nodes = pairs.iter().map(|(node, runtime_node)| node_of(world, pool, node, runtime_node, occupied)).collect();
    let verdicts = |verdict| {
        let of = move |r: &&crds::RuntimeRevision| r.status.as_ref().and_then(|s| s.verdict) == Some(verdict);
        world.revisions.values().filter(of).map(|r| Revision(r.name_any())).collect::<BTreeSet<_>>()
    };
    let (good, bad) = (verdicts(Verdict::Good), verdicts(Verdict::Bad));
    let target = Revision(pool.target());
    let last_known_good = last_known_good(&target, &good, pairs.iter().map(|(_, r)| *r));
    let paused = pool.rollout.paused.unwrap_or(false);
    (Rollout { target, last_known_good, bad, paused, strategy: strategy(&pool.rollout) }, nodes)
}

/// The target itself once it has come through; else, of the good ones that nodes have or had, that of most nodes.
fn last_known_good<'a>(
    target: &Revision,
    good: &BTreeSet<Revision>,
    nodes: impl Iterator<Item = &'a RuntimeNode>,
) -> Option<Revision> {
    if good.contains(target) {
        return Some(target.clone());
    }
    let mut counts: BTreeMap<Revision, usize> = BTreeMap::new();
    for node in nodes {
        let current = node.status.as_ref().and_then(|s| s.current_revision.clone());
        let names = [current, node.spec.fallback_revision.clone(), node.spec.desired_revision.clone()];
        if let Some(name) = names.into_iter().flatten().map(Revision).find(|name| good.contains(name)) {
            *counts.entry(name).or_default() += 1;
        }
    }
    counts.into_iter().max_by(|(a, x), (b, y)| (x, b).cmp(&(y, a))).map(|(name, _)| name)
}

fn node_of(world: &World, pool: &Pool, node: &ClusterNode, runtime_node: &RuntimeNode, occupied: &Occupied) -> Node {
    let (name, spec) = (node.name_any(), &runtime_node.spec);
    let absent = RuntimeNodeStatus::default();
    // What was said on another machine of that name counts for nothing.
    let status = runtime_node
        .status
        .as_ref()
        .filter(|s| s.node_uid.is_empty() || s.node_uid == spec.node_uid)
        .unwrap_or(&absent);
    let since = |text: Option<&String>| time::of(text).unwrap_or(0);
    let revision = |name: &Option<String>, since: u64| name.clone().map(|name| (Revision(name), since));
    let unschedulable = node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
    Node {
        zone: node.labels().get(ZONE).cloned().unwrap_or_default(),
        control_plane: CONTROL_PLANE.iter().any(|label| node.labels().contains_key(*label)),
        created: node.creation_timestamp().and_then(|t| u64::try_from(t.0.as_second()).ok()).unwrap_or(0),
        unready_since: unready_since(node),
        healthy: status.healthy,
        cordon: match time::of(spec.cordoned_since.as_ref()) {
            _ if !unschedulable => Cordon::None,
            Some(since) => Cordon::Ours(since),
            None => Cordon::Foreign,
        },
        occupied: occupied.contains_key(&name),
        desired: revision(&spec.desired_revision, since(spec.desired_since.as_ref())),
        current: revision(&status.current_revision, since(status.current_since.as_ref())),
        failed: status.failed.as_ref().map(|failed| Revision(failed.revision.clone())),
        crashes: status.crash_count,
        grant: spec.grant.as_ref().map(grant),
        hold: spec.hold,
        postponed_until: since(spec.postponed_until.as_ref()),
        disruption: disruption(world, pool, runtime_node, status),
        name,
    }
}

/// Since when a node is not Ready. One that has never said anything is not.
fn unready_since(node: &ClusterNode) -> Option<u64> {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    let ready = conditions.and_then(|list| list.iter().find(|c| c.type_ == "Ready"));
    let at = |time: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
        time.and_then(|t| u64::try_from(t.0.as_second()).ok()).unwrap_or(0)
    };
    match ready {
        Some(condition) if condition.status == "True" => None,
        Some(condition) => Some(at(condition.last_transition_time.as_ref())),
        None => Some(at(node.metadata.creation_timestamp.as_ref())),
    }
}

fn grant(grant: &crds::Grant) -> Grant {
    Grant {
        revision: Revision(grant.revision.clone()),
        disruption: from_crd(grant.disruption),
        expires: time::seconds(&grant.expires_at).unwrap_or(0),
    }
}

/// What the way to the target takes; of a node that has it already, the way back.
fn disruption(world: &World, pool: &Pool, node: &RuntimeNode, status: &RuntimeNodeStatus) -> Disruption {
    let target = pool.target();
    let absent = pool.config.state == Some(crds::State::Absent);
    let other = match &status.current_revision {
        Some(current) if *current != target => Some(current),
        Some(_) => node.spec.fallback_revision.as_ref(),
        // Taking a node over, or giving it back, moves all of its pods.
        None if status.state == NodeState::Foreign && absent => return Disruption::None,
        None => return Disruption::Drain,
    };
    match other.map(|name| change_between(world, name, pool)) {
        Some(Some((class, _))) => class,
        // Not known any more: the heaviest that leaves pods in place is not enough.
        Some(None) => Disruption::Drain,
        None => Disruption::DaemonRestart,
    }
}

/// What the way from a revision to a pool's target takes, and the fields of it. `None`: that revision is not known any more.
pub fn change_between(world: &World, from: &str, pool: &Pool) -> Option<(Disruption, Vec<FieldChange>)> {
    let revision = &world.revisions.get(from)?.spec;
    let old: RuntimeConfigSpec = revision.config().ok()?;
    let changes = crds::changes(&old, &pool.config);
    let heaviest = changes.iter().map(|change| from_class(change.class)).max().unwrap_or(Disruption::None);
    let same_version =
        revision.runtime.as_ref().map(|r| &r.version) == pool.target.spec.runtime.as_ref().map(|r| &r.version);
    let class = if same_version { heaviest } else { heaviest.max(Disruption::DaemonRestart) };
    Some((class, changes))
}

fn from_class(class: Class) -> Disruption {
    match class {
        Class::Live => Disruption::None,
        Class::NewContainers | Class::NewPods => Disruption::NewPods,
        Class::DaemonRestart => Disruption::DaemonRestart,
        Class::KubeletRestart => Disruption::KubeletRestart,
        Class::Drain => Disruption::Drain,
    }
}

fn from_crd(disruption: crds::Disruption) -> Disruption {
    match disruption {
        crds::Disruption::Live => Disruption::None,
        crds::Disruption::NewPods => Disruption::NewPods,
        crds::Disruption::DaemonRestart => Disruption::DaemonRestart,
        crds::Disruption::KubeletRestart => Disruption::KubeletRestart,
        crds::Disruption::Drain => Disruption::Drain,
    }
}

/// As objects have it.
pub fn to_crd(disruption: Disruption) -> crds::Disruption {
    match disruption {
        Disruption::None => crds::Disruption::Live,
        Disruption::NewPods => crds::Disruption::NewPods,
        Disruption::DaemonRestart => crds::Disruption::DaemonRestart,
        Disruption::KubeletRestart => crds::Disruption::KubeletRestart,
        Disruption::Drain => crds::Disruption::Drain,
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
        let spec: RuntimeConfigSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(strategy(&spec.rollout), Strategy::default());
    }

    #[test]
    fn good_is_the_target_or_what_most_nodes_have() {
        let node = |current: &str, fallback: Option<&str>| {
            let mut node = RuntimeNode::default();
            node.spec.fallback_revision = fallback.map(str::to_owned);
            node.status = Some(RuntimeNodeStatus { current_revision: Some(current.to_owned()), ..Default::default() });
            node
        };
        let name = |n: &str| Revision(n.to_owned());
        let nodes = [node("new", Some("a")), node("a", None), node("b", None)];
        let good = BTreeSet::from([name("a"), name("b")]);
        assert_eq!(last_known_good(&name("new"), &good, nodes.iter()), Some(name("a")));
        assert_eq!(last_known_good(&name("b"), &good, nodes.iter()), Some(name("b")));
        assert_eq!(last_known_good(&name("new"), &BTreeSet::new(), nodes.iter()), None);
    }
}
