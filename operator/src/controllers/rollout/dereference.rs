//! The pods of nodes that are to be drained. Only those nodes are asked about: pods of a cluster are too many to watch.
use super::super::Context;
use super::super::runtime_config::Pool;
use super::{Occupied, build};
use crate::cluster::World;
use crate::rollout::Disruption;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

pub(super) async fn occupied(context: &Context, world: &World, pools: &[Pool]) -> Result<Occupied, String> {
    let mut occupied = Occupied::new();
    for pool in pools {
        let (_, nodes) = build::rollout(world, pool, &occupied);
        let granted = |n: &crate::rollout::Node| match (&n.grant, &n.desired) {
            (Some(grant), Some((desired, _))) => grant.revision == *desired,
            _ => false,
        };
        for node in nodes.iter().filter(|n| n.disruption == Disruption::Drain && n.interrupted() && !granted(n)) {
            let pods = context.writes.pods(None, Some(&node.name)).await?;
            let evictable: Vec<Pod> = pods.into_iter().filter(evicted_by_a_drain).collect();
            if !evictable.is_empty() {
                occupied.insert(node.name.clone(), evictable);
            }
        }
    }
    Ok(occupied)
}

/// As `kubectl drain` sees it: not what has ended, not what a DaemonSet would put there again at once, not what the kubelet itself runs.
fn evicted_by_a_drain(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    let mirror = pod.annotations().contains_key("kubernetes.io/config.mirror");
    let daemon = pod.owner_references().iter().any(|owner| owner.kind == "DaemonSet" && owner.controller == Some(true));
    !matches!(phase, "Succeeded" | "Failed") && !mirror && !daemon
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_drain_leaves() {
        let cases = [
            (json!({"metadata": {"name": "a"}, "status": {"phase": "Running"}}), true),
            (json!({"metadata": {"name": "a"}, "status": {"phase": "Succeeded"}}), false),
            (json!({"metadata": {"name": "a", "annotations": {"kubernetes.io/config.mirror": "x"}}}), false),
            (
                json!({"metadata": {"name": "a", "ownerReferences":
                [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "1", "controller": true}]}}),
                false,
            ),
        ];
        for (pod, evicted) in cases {
            assert_eq!(evicted_by_a_drain(&serde_json::from_value(pod.clone()).unwrap()), evicted, "{pod}");
        }
    }
}
