//! Pools of different RuntimeConfigs that are to have the same revision: each goes there in its own waves, and what became of it counts for all.
use super::build::under_way;
use super::*;
use crate::rollout::Stage;
use crate::time;
use berth_crds::{RuntimeConfigSpec, RuntimeNode, RuntimeRevision, RuntimeRevisionSpec};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const NOW: u64 = 10_000;

fn target() -> RuntimeRevision {
    let config: RuntimeConfigSpec = serde_json::from_value(json!({"runtime": {"pidsLimit": 100}})).unwrap();
    let spec = RuntimeRevisionSpec::of_runtime("1", &config);
    RuntimeRevision::new(&spec.name(), spec)
}

/// One whose canary soaks for ten minutes.
fn pool(config: &str, nodes: &[&str]) -> Pool {
    let target = target();
    Pool {
        configs: BTreeSet::from([config.to_owned()]),
        nodes: nodes.iter().map(|&name| name.to_owned()).collect(),
        frozen: BTreeSet::new(),
        config: target.spec.config().unwrap(),
        target,
        sources: Default::default(),
        rollout: serde_json::from_value(json!({"waves": [1], "soak": {"canary": "10m", "wave": "1m"}})).unwrap(),
        conflicts: BTreeMap::new(),
    }
}

/// Nodes with when each was told to have the target, which it has since; `None`: it has nothing yet. And what is said of the target.
fn world(nodes: &[(&str, Option<u64>)], status: Value) -> World {
    let mut world = World::default();
    let mut revision = target();
    let name = revision.name_any();
    revision.status = serde_json::from_value(status).unwrap();
    for (node, told) in nodes {
        let told = told.map(time::text);
        let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": time::text(1)}]);
        let object = json!({"metadata": {"name": node, "uid": node}, "status": {"conditions": ready}});
        world.nodes.insert((*node).to_owned(), Arc::new(serde_json::from_value(object).unwrap()));
        let has = told.as_ref().map(|_| &name);
        let spec = json!({"nodeName": node, "nodeUID": node, "desiredRevision": has, "desiredSince": told});
        let mut object = RuntimeNode::new(node, serde_json::from_value(spec).unwrap());
        let status = json!({"nodeUID": node, "currentRevision": has, "currentSince": told, "healthy": true});
        object.status = serde_json::from_value(status).unwrap();
        world.runtime_nodes.insert((*node).to_owned(), Arc::new(object));
    }
    world.revisions.insert(name, Arc::new(revision));
    world
}

fn all(world: &World) -> [Running; 2] {
    let pools = [pool("x", &["x1"]), pool("y", &["y1", "y2"])];
    planned(world, &pools, &Default::default(), NOW).try_into().unwrap()
}

fn told(running: &Running) -> Vec<&str> {
    let tells = running.plan.actions.iter().filter(|action| matches!(action, Action::Tell { .. }));
    tells.filter_map(Action::node).collect()
}

#[test]
fn each_goes_in_its_own_waves() {
    let [x, y] = all(&world(&[("x1", None), ("y1", None), ("y2", None)], json!({})));
    assert_eq!((told(&x), told(&y)), (vec!["x1"], vec!["y1"]));
}

#[test]
fn what_is_known_to_be_bad_is_handed_out_under_no_name() {
    let [x, y] = all(&world(&[("x1", None), ("y1", None), ("y2", None)], json!({"verdict": "Bad"})));
    assert!(told(&x).is_empty() && told(&y).is_empty(), "{:?} {:?}", x.plan, y.plan);
}

#[test]
fn what_came_through_for_one_ends_no_soak_of_another() {
    let nodes = [("x1", Some(9000)), ("y1", Some(9900)), ("y2", None)];
    let open = all(&world(&nodes, json!({})));
    let graduates = |r: &Running| r.plan.actions.iter().any(|action| matches!(action, Action::Graduate(_)));
    assert!(graduates(&open[0]) && !graduates(&open[1]));
    let said = under_way(&open, &open[0]);
    assert_eq!(said, BTreeMap::from([("y".to_owned(), String::new())]));

    let status = json!({"verdict": "Good", "since": time::text(9950), "underWay": said});
    let through = all(&world(&nodes, status));
    let [x, y] = &through;
    assert_eq!((&x.plan.stage, told(y)), (&Stage::Complete, vec![]));
    assert!(matches!(y.plan.stage, Stage::Wave { index: 0, soak_until: Some(_), .. }), "{:?}", y.plan.stage);
    assert_eq!(under_way(&through, y), BTreeMap::new(), "the other one is through");

    // A canary that is ill says as much of it as before.
    let mut ill = world(&nodes, json!({"verdict": "Good", "since": time::text(9950), "underWay": said}));
    let node = Arc::make_mut(ill.runtime_nodes.get_mut("y1").unwrap());
    let failed = json!({"revision": target().name_any(), "reason": "", "message": "", "at": time::text(9920)});
    node.status.as_mut().unwrap().failed = serde_json::from_value(failed).unwrap();
    let running = all(&ill);
    assert_eq!(broke(&running), BTreeSet::from([&Revision(target().name_any())]), "{:?}", running[1].plan);
}

/// It came through for both long ago, for one of them once more since, while the other one had nodes on their way.
#[test]
fn what_came_through_before_still_counts_for_those_that_had_it() {
    let status = json!({"verdict": "Good", "since": time::text(9500), "underWay": {"y": time::text(5000)}});
    let [_, y] = all(&world(&[("x1", Some(9000)), ("y1", Some(4000)), ("y2", None)], status));
    assert_eq!((y.rollout.came_through, told(&y)), (Some(5000), vec!["y2"]), "half of them have it for long");
}
