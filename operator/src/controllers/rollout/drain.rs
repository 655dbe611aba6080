//! The pods of nodes that are to be drained, as `kubectl drain` sees them. Only those nodes are asked about: pods of a cluster are too many to watch.
use super::super::Context;
use super::super::runtime_config::Pool;
use super::build;
use crate::cluster::World;
use crate::rollout::{Disruption, Pods};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// Taint of an unschedulable node (<https://kubernetes.io/docs/reference/labels-annotations-taints/>).
const CORDONED: &str = "node.kubernetes.io/unschedulable";

/// What drains have to move, by node. A node is in it if there is something.
pub(super) type Drains = BTreeMap<String, Drain>;

/// What a drain of one node has to move.
#[derive(Debug, Clone, Default)]
pub(super) struct Drain {
    /// Pods to evict.
    pub evict: Vec<Pod>,
    /// Pods that would be lost, in words, with what to do.
    pub blocks: Vec<String>,
}

impl Drain {
    pub(super) fn pods(&self) -> Pods {
        if self.blocks.is_empty() { Pods::Evictable } else { Pods::Blocking }
    }

    /// The pods that were not evicted because somebody said no, such as a disruption budget, in words; `None` without any.
    pub(super) fn refused(&self, refusal: impl Fn(&Pod) -> Option<String>) -> Option<String> {
        let told = self.evict.iter().filter_map(|pod| Some(format!("{} ({})", named(pod), refusal(pod)?)));
        let told: Vec<_> = told.take(3).collect();
        (!told.is_empty()).then(|| told.join(", "))
    }

    /// The pods that are still there, in words, each with why it was not evicted where somebody said so.
    pub(super) fn rest(&self, refusal: impl Fn(&Pod) -> Option<String>) -> String {
        let told = |pod: &Pod| match refusal(pod) {
            Some(why) => format!("{} ({why})", named(pod)),
            None => named(pod),
        };
        let mut names: Vec<_> = self.evict.iter().take(5).map(told).collect();
        if self.evict.len() > names.len() {
            names.push(format!("{} others", self.evict.len() - names.len()));
        }
        names.join(", ")
    }
}

/// What somebody said may be lost by a drain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct MayGo {
    bare: bool,
    empty_dirs: bool,
}

impl MayGo {
    pub(super) fn of(rollout: &berth_crds::Rollout) -> Self {
        let drain = &rollout.drain;
        Self { bare: drain.force.unwrap_or(false), empty_dirs: drain.delete_empty_dir.unwrap_or(false) }
    }
}

pub(super) async fn of_pools(context: &Context, world: &World, pools: &[Pool], now: u64) -> Drains {
    let mut drains = Drains::new();
    for pool in pools {
        let (rollout, nodes) = build::rollout(world, pool, &drains, now);
        let timeout = rollout.strategy.node_timeout;
        let may_go = MayGo::of(&pool.rollout);
        let drained = |n: &&crate::rollout::Node| {
            n.way_on() == Disruption::Drain && n.asks && n.under_way(timeout, now) && !n.granted(now)
        };
        for node in nodes.iter().filter(drained) {
            let drain = match context.writes.pods(None, Some(&node.name), |pod| pod).await {
                Ok(pods) => of(pods, may_go, node.unready_since.is_some()),
                // What is not known is no empty node, and one node's trouble is no other's.
                Err(e) => {
                    tracing::warn!(node = node.name, error = %e, "the pods of a node are not known");
                    Some(Drain::default())
                }
            };
            drains.extend(drain.map(|drain| (node.name.clone(), drain)));
        }
    }
    drains
}

/// Of a node that is not Ready nobody says that a pod has ended: one that was told to go is not waited for, or the node could never be mended.
fn of(pods: Vec<Pod>, may_go: MayGo, unready: bool) -> Option<Drain> {
    let waited_for = |pod: &Pod| evicted_by_a_drain(pod) && !(unready && pod.metadata.deletion_timestamp.is_some());
    let evict: Vec<Pod> = pods.into_iter().filter(waited_for).collect();
    let blocks = evict.iter().filter_map(|pod| lost(pod, may_go)).collect();
    (!evict.is_empty()).then_some(Drain { evict, blocks })
}

/// Not what has ended, not what a DaemonSet would put there again at once, not what the kubelet itself runs. Nor what puts up with a cordon: it may be
/// put there again at once too, and on a cluster of one node the operator itself must be able to stay.
fn evicted_by_a_drain(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    let mirror = pod.annotations().contains_key("kubernetes.io/config.mirror");
    let daemon = pod.owner_references().iter().any(|owner| owner.kind == "DaemonSet" && owner.controller == Some(true));
    !matches!(phase, "Succeeded" | "Failed") && !mirror && !daemon && !stays_through_a_cordon(pod)
}

/// Whether it says by name that it tolerates the taint of a cordon. One that tolerates everything may only mean failures.
fn stays_through_a_cordon(pod: &Pod) -> bool {
    let tolerations = pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
    tolerations.into_iter().any(|toleration| toleration.key.as_deref() == Some(CORDONED))
}

/// What would be lost with a pod, and what to do. What goes already is lost already.
fn lost(pod: &Pod, may_go: MayGo) -> Option<String> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let bare = !pod.owner_references().iter().any(|owner| owner.controller == Some(true));
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let empty_dir = volumes.into_iter().any(|volume| volume.empty_dir.is_some());
    if bare && !may_go.bare {
        let remedy = "delete it, or set spec.rollout.drain.force: true";
        return Some(format!("{} has no controller that would make it anew; {remedy}", named(pod)));
    }
    let remedy = "delete it, or set spec.rollout.drain.deleteEmptyDir: true";
    (empty_dir && !may_go.empty_dirs).then(|| format!("{} has data in an emptyDir volume; {remedy}", named(pod)))
}

fn named(pod: &Pod) -> String {
    format!("pod {}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(json: Value) -> Pod {
        serde_json::from_value(json).unwrap()
    }

    fn owned(kind: &str, spec: Value) -> Pod {
        let owner = json!({"apiVersion": "apps/v1", "kind": kind, "name": "d", "uid": "1", "controller": true});
        pod(json!({"metadata": {"name": "a", "namespace": "x", "ownerReferences": [owner]}, "spec": spec}))
    }

    #[test]
    fn what_a_drain_leaves() {
        let cases = [
            (pod(json!({"metadata": {"name": "a"}, "status": {"phase": "Running"}})), true),
            (pod(json!({"metadata": {"name": "a"}, "status": {"phase": "Succeeded"}})), false),
            (pod(json!({"metadata": {"name": "a", "annotations": {"kubernetes.io/config.mirror": "x"}}})), false),
            (owned("DaemonSet", Value::Null), false),
            (owned("ReplicaSet", Value::Null), true),
            (owned("ReplicaSet", json!({"containers": [], "tolerations": [{"operator": "Exists"}]})), true),
            (
                owned(
                    "ReplicaSet",
                    json!({"containers": [], "tolerations": [{"key": CORDONED, "operator": "Exists"}]}),
                ),
                false,
            ),
        ];
        for (pod, evicted) in cases {
            assert_eq!(evicted_by_a_drain(&pod), evicted, "{pod:?}");
        }
    }

    #[test]
    fn what_a_drain_would_lose_blocks_it() {
        let none = MayGo::default();
        let empty_dir = json!({"containers": [], "volumes": [{"name": "v", "emptyDir": {}}]});
        let bare = pod(json!({"metadata": {"name": "a", "namespace": "x"}}));
        let why = lost(&bare, none).unwrap();
        assert!(why.contains("pod x/a") && why.contains("drain.force"), "{why}");
        assert_eq!(lost(&bare, MayGo { bare: true, ..none }), None);
        let with_data = owned("ReplicaSet", empty_dir);
        let why = lost(&with_data, none).unwrap();
        assert!(why.contains("emptyDir") && why.contains("deleteEmptyDir"), "{why}");
        assert_eq!(lost(&with_data, MayGo { empty_dirs: true, ..none }), None);
        assert_eq!(lost(&owned("ReplicaSet", json!({"containers": []})), none), None);
        let going = pod(json!({"metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}}));
        assert_eq!(lost(&going, none), None);
        assert!(of(vec![going.clone()], none, true).is_none(), "its kubelet will never say that it has ended");
        assert_eq!(of(vec![going], none, false).unwrap().pods(), Pods::Evictable, "it is waited for");
        let rest = of(vec![bare.clone()], none, false).unwrap().rest(|_| Some("budget b says no".to_owned()));
        assert_eq!(rest, "pod x/a (budget b says no)");
        let drain = of(vec![bare, with_data], none, true).unwrap();
        assert_eq!(drain.refused(|_| None), None);
        let of_one = drain.refused(|pod| pod.owner_references().is_empty().then(|| "budget b says no".to_owned()));
        assert_eq!(of_one.as_deref(), Some("pod x/a (budget b says no)"));
        assert_eq!((drain.pods(), drain.blocks.len()), (Pods::Blocking, 2));
    }
}
