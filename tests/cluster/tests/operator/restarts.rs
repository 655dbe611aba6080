//! What restarts the daemon of every node: a field that takes it, and another version of the runtime. Zone by zone, in waves, within the
//! budget, without moving a pod. All of it is read from what the nodes themselves saw, in the order in which they saw it.
use crate::api::{Api, GROUP};
use crate::reporters::{NEXT, Reporters, Seen, VERSION, Work};
use crate::rollouts::{BUDGET, NODES, complete, config, set};
use berth_cluster_tests::service::Service;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

const ZONE: &str = "topology.kubernetes.io/zone";
/// Nodes of the first zone: fewer than the first two waves have, so that a wave goes on into the next zone.
const FIRST_ZONE: usize = 4;
/// How many nodes were told when each wave but the last one is full, of `[1, "20%", "100%"]`.
const WAVES: [usize; 2] = [1, NODES / 5];

/// The last nodes by name are of the first zone by name, so that names alone give another order.
fn zone(name: &str) -> &'static str {
    let number: usize = name.trim_start_matches("sim-").parse().unwrap();
    if number + FIRST_ZONE >= NODES { "a" } else { ["b", "c"][number % 2] }
}

/// A field for which the daemon starts anew.
pub fn zone_by_zone(api: &Api, reporters: &Reporters) {
    for node in api.get("/api/v1/nodes").unwrap()["items"].as_array().unwrap() {
        let name = node["metadata"]["name"].as_str().unwrap();
        let labels = json!({"metadata": {"labels": {ZONE: zone(name)}}});
        api.patch(&format!("/api/v1/nodes/{name}"), &labels).unwrap();
    }
    // Once it counts every node by that, the operator has seen every zone.
    set(api, &json!({"nodeSelector": {"matchExpressions": [{"key": ZONE, "operator": "Exists"}]}}));
    complete(api);
    reporters.seen.lock().unwrap().work.clear();
    set(api, &json!({"network": {"mode": "Builtin"}}));
    let target = complete(api);
    all_run(api, VERSION, &target);
    let seen = reporters.seen.lock().unwrap();
    in_waves(&seen.work);
    in_zones(&seen.work);
    assert!(most_at_work(&seen.work) > 1, "one after the other: {:?}", seen.work);
    restarted(&seen, &[VERSION]);
}

/// A release that has another version of the runtime, which the agents have staged: the operator's rollout is the switch.
pub fn another_version(api: &Api, reporters: &Reporters, operators: &mut Vec<Service>) {
    let before = config(api)["status"]["targetRevision"].clone();
    reporters.seen.lock().unwrap().work.clear();
    for operator in operators.drain(..) {
        let ended = operator.stop(Duration::from_secs(60));
        assert!(ended.success(), "the operator ends on SIGTERM with {ended}");
    }
    operators.push(api.operator_of("op-c", 8083, NEXT));
    api.wait("it is another revision", || {
        let status = config(api)["status"].clone();
        if status["targetRevision"] == before { Err(status.to_string()) } else { Ok(()) }
    });
    let target = complete(api);
    let revision = api.get(&format!("{GROUP}/runtimerevisions/{target}")).unwrap();
    assert_eq!(revision["spec"]["runtime"]["version"], NEXT);
    all_run(api, NEXT, &target);
    let seen = reporters.seen.lock().unwrap();
    in_waves(&seen.work);
    in_zones(&seen.work);
    restarted(&seen, &[VERSION, NEXT]);
}

fn all_run(api: &Api, version: &str, revision: &str) {
    let nodes = api.get(&format!("{GROUP}/runtimenodes")).unwrap();
    let nodes = nodes["items"].as_array().unwrap();
    assert_eq!(nodes.len(), NODES);
    for node in nodes {
        let status = &node["status"];
        assert!(status["runtimeVersion"] == version && status["currentRevision"] == revision, "{node}");
    }
}

/// Every node's daemon, as these versions and no more often, and never under a cordon.
fn restarted(seen: &Seen, versions: &[&str]) {
    assert_eq!(seen.restarts.len(), NODES);
    assert!(seen.restarts.values().all(|as_versions| as_versions == versions), "{:?}", seen.restarts);
    assert!(seen.needless_cordon.is_empty(), "no pod has to go: {:?}", seen.needless_cordon);
}

/// Every node was at it once; nobody of a wave began before all of the waves before were through, and no more at a time than the budget allows.
pub fn in_waves(work: &[Work]) {
    let began: BTreeSet<_> = beginnings(work).map(|(name, _)| name).collect();
    assert_eq!((began.len(), beginnings(work).count()), (NODES, NODES), "{work:?}");
    for size in WAVES {
        let (next, before) = beginnings(work).nth(size).unwrap();
        assert_eq!(ended(before), size, "{next} began before all of the {size} before it were through: {work:?}");
    }
    let most = most_at_work(work);
    assert!(most <= BUDGET, "{most} nodes were at work at once: {work:?}");
}

/// Those of the first zone begin first, and in the small waves nobody of another one before they are through.
fn in_zones(work: &[Work]) {
    let zones: Vec<_> = beginnings(work).take(WAVES[1]).map(|(name, _)| zone(name)).collect();
    let wanted = [vec!["a"; FIRST_ZONE], vec!["b"; WAVES[1] - FIRST_ZONE]].concat();
    assert_eq!(zones, wanted, "{work:?}");
    let (next, before) = beginnings(work).nth(FIRST_ZONE).unwrap();
    assert_eq!(ended(before), FIRST_ZONE, "{next} began while another zone was at it: {work:?}");
}

/// Who began, and what had happened before that.
fn beginnings(work: &[Work]) -> impl Iterator<Item = (&String, &[Work])> {
    work.iter().enumerate().filter_map(|(at, what)| match what {
        Work::Begins(name) => Some((name, &work[..at])),
        Work::Ends(_) => None,
    })
}

fn ended(work: &[Work]) -> usize {
    work.iter().filter(|what| matches!(what, Work::Ends(_))).count()
}

fn most_at_work(work: &[Work]) -> usize {
    let at_work = |upto: &[Work]| beginnings(upto).count().saturating_sub(ended(upto));
    (0..=work.len()).map(|end| at_work(&work[..end])).max().unwrap_or(0)
}
