//! Pools of different RuntimeConfigs that are to have the same revision: each goes there in its own waves, and what
//! came through for one stays with it.
use super::build::{came_through, inherited};
use super::*;
use crate::rollout::Stage;
use crate::time;
use berth_crds::{RuntimeConfigObject, RuntimeConfigSpec, RuntimeNode, RuntimeRevision, RuntimeRevisionSpec};
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
    for name in ["x", "y"] {
        let config = RuntimeConfigObject::new(name, RuntimeConfigSpec::default());
        world.configs.insert(name.to_owned(), Arc::new(config));
    }
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

/// Of the version before, which its agent has put there, or of none for want of room.
#[test]
fn a_node_without_the_version_is_told_nothing_of_it() {
    let first = |status: Value| {
        let mut world = world(&[("x1", None), ("y1", None), ("y2", None)], json!({}));
        let node = Arc::make_mut(world.runtime_nodes.get_mut("y1").unwrap());
        node.status = serde_json::from_value(status).unwrap();
        let [_, y] = all(&world);
        told(&y).first().map(|&name| name.to_owned()).unwrap()
    };
    let staged = |status: &str| json!([{"type": "Staged", "status": status, "reason": "", "message": "", "lastTransitionTime": ""}]);
    assert_eq!(first(json!({"newestVersion": "0.9.0"})), "y2");
    assert_eq!(first(json!({"newestVersion": "1"})), "y1");
    assert_eq!(first(json!({"newestVersion": "1.0.1"})), "y1", "its agent says whether it can go back");
    assert_eq!(first(json!({"newestVersion": "0.9.0", "runtimeVersion": "1"})), "y1", "somebody else has put it there");
    assert_eq!(first(json!({ "conditions": staged("False") })), "y2");
    assert_eq!(first(json!({ "conditions": staged("True") })), "y1", "it does not say what is there");
}

#[test]
fn what_is_known_to_be_bad_is_handed_out_under_no_name() {
    let [x, y] = all(&world(&[("x1", None), ("y1", None), ("y2", None)], json!({"verdict": "Bad"})));
    assert!(told(&x).is_empty() && told(&y).is_empty(), "{:?} {:?}", x.plan, y.plan);
}

fn bad(world: &World) -> bool {
    let running = all(world);
    let found = broke(&running);
    found == BTreeSet::from([&Revision(target().name_any())])
}

/// The node's agent gave the target up.
fn fails(world: &mut World, node: &str) {
    let node = Arc::make_mut(world.runtime_nodes.get_mut(node).unwrap());
    let failed = json!({"revision": target().name_any(), "reason": "", "message": "", "at": time::text(9920)});
    node.status.as_mut().unwrap().failed = serde_json::from_value(failed).unwrap();
}

/// The canary was told, and runs a part of the control plane without a label that says so.
#[test]
fn a_node_of_the_control_plane_that_nobody_asked_for_makes_way_and_stops_nobody() {
    let with = |asked: Value| {
        let mut world = world(&[("x1", None), ("y1", None), ("y2", None)], json!({}));
        let (name, since) = (target().name_any(), time::text(9900));
        let node = Arc::make_mut(world.runtime_nodes.get_mut("y1").unwrap());
        let failed = json!({"revision": name, "reason": "ControlPlane", "message": "", "at": time::text(9920), "desiredSince": since});
        (node.spec.desired_revision, node.spec.desired_since) = (Some(name), Some(since));
        node.spec.control_plane = Some(false);
        node.status = serde_json::from_value(json!({"nodeUID": "y1", "healthy": true, "failed": failed})).unwrap();
        let mut pool = pool("y", &["y1", "y2"]);
        pool.rollout.control_plane = serde_json::from_value(asked).unwrap();
        (world, pool)
    };
    let told_of = |world: &World, pool: &Pool| {
        let [y] = planned(world, std::slice::from_ref(pool), &Default::default(), NOW).try_into().unwrap();
        assert!(broke(std::slice::from_ref(&y)).is_empty(), "{:?}", y.plan);
        (told(&y).join(","), y.rollout.group(&y.nodes).count(), y.plan.stage)
    };
    for (asked, group) in [(json!("Exclude"), 1), (json!("Last"), 2)] {
        let (mut world, pool) = with(asked.clone());
        let (next, members, _) = told_of(&world, &pool);
        assert_eq!((next.as_str(), members), ("y2", group), "{asked}");
        let done = super::tests::world(&[("y2", Some(4000))], json!({}));
        world.runtime_nodes.extend(done.runtime_nodes);
        let (next, _, stage) = told_of(&world, &pool);
        let last = if group == 2 { "y1" } else { "" };
        assert_eq!((next.as_str(), stage == Stage::Complete), (last, group == 1), "{asked}: {stage:?}");
    }
}

/// The pod that it meant may be gone; where it is not, it refuses again. Where such nodes are taken it comes last, whatever it refused.
#[test]
fn a_node_that_called_itself_one_of_the_control_plane_is_asked_about_the_next_revision() {
    let first = |asked: &str| {
        let mut world = world(&[("y1", None), ("y2", None)], json!({}));
        let node = Arc::make_mut(world.runtime_nodes.get_mut("y1").unwrap());
        let since = time::text(9000);
        let failed =
            json!({"revision": "former", "reason": "ControlPlane", "message": "", "at": since, "desiredSince": since});
        (node.spec.desired_revision, node.spec.desired_since) = (Some("former".to_owned()), Some(since));
        node.status = serde_json::from_value(json!({"nodeUID": "y1", "healthy": true, "failed": failed})).unwrap();
        let mut pool = pool("y", &["y1", "y2"]);
        pool.rollout.control_plane = serde_json::from_value(json!(asked)).unwrap();
        let [y] = planned(&world, &[pool], &Default::default(), NOW).try_into().unwrap();
        told(&y).join(",")
    };
    assert_eq!((first("Exclude").as_str(), first("Last").as_str()), ("y1", "y2"));
}

fn alone(key: &str, since: u64) -> Value {
    json!({"verdict": "Good", "since": time::text(since), "throughFor": {key: time::text(since)}})
}

#[test]
fn what_came_through_for_one_ends_no_soak_of_another() {
    let nodes = [("x1", Some(9000)), ("y1", Some(9900)), ("y2", None)];
    let open = all(&world(&nodes, json!({})));
    let graduates = |r: &Running| r.plan.actions.iter().any(|action| matches!(action, Action::Graduate(_)));
    assert!(graduates(&open[0]) && !graduates(&open[1]));

    // Nothing is said of `y`: it may not have been planned in that pass, or have another name since.
    let mut through = world(&nodes, alone("x", 9950));
    let [x, y] = all(&through);
    assert_eq!((&x.plan.stage, told(&y)), (&Stage::Complete, vec![]));
    assert!(matches!(y.plan.stage, Stage::Wave { index: 0, soak_until: Some(_), .. }), "{:?}", y.plan.stage);

    // A canary that is ill says as much of it as before.
    fails(&mut through, "y1");
    assert!(bad(&through), "{:?}", all(&through));
}

#[test]
fn a_clock_that_is_ahead_holds_up_no_soak() {
    let mut world = world(&[("x1", None), ("y1", Some(9800)), ("y2", None)], json!({}));
    let node = Arc::make_mut(world.runtime_nodes.get_mut("y1").unwrap());
    node.status.as_mut().unwrap().current_since = Some(time::text(NOW + 86_400));
    let at = |now: u64| {
        let [y] = planned(&world, &[pool("y", &["y1", "y2"])], &Default::default(), now).try_into().unwrap();
        (told(&y).join(","), y.plan.stage)
    };
    let soaks = |until| (String::new(), Stage::Wave { index: 0, total: 1, soak_until: Some(until) });
    // Told at 9800, it may take a quarter of an hour; then ten minutes.
    assert_eq!((at(NOW), at(11_299)), (soaks(11_300), soaks(11_300)));
    assert_eq!(at(11_300).0, "y2");
}

/// It came through for both long ago, for one of them once more since, while the other one had nodes on their way.
#[test]
fn what_came_through_before_still_counts_for_those_that_had_it() {
    let through = json!({"x": time::text(9500), "y": time::text(5000)});
    let status = json!({"verdict": "Good", "since": time::text(9500), "throughFor": through});
    let [_, y] = all(&world(&[("x1", Some(9000)), ("y1", Some(4000)), ("y2", None)], status));
    assert_eq!((y.rollout.came_through, told(&y)), (Some(5000), vec!["y2"]), "half of them have it for long");
}

/// Nodes that are ill for long say nothing of what they have had for longer, and a new name is no news of it.
#[test]
fn who_is_renamed_or_joined_keeps_what_came_through() {
    let nodes = [("x1", Some(9000)), ("y1", Some(4000)), ("y2", Some(4000))];
    let before =
        |key: &str| json!({"verdict": "Good", "since": time::text(5000), "throughFor": {key: time::text(5000)}});
    // `former` is gone, `y` and one that is gone were one pool, and `x` is there and somebody else.
    for (key, through) in [("former", true), ("former,y", true), ("x", false), ("x,y", false)] {
        let mut world = world(&nodes, before(key));
        fails(&mut world, "y1");
        let [_, y] = all(&world);
        assert_eq!((y.rollout.came_through.is_some(), bad(&world)), (through, !through), "{key}: {:?}", y.plan);
    }
    let mut world = world(&nodes, before("former"));
    let pools = [pool("x", &["x1"]), pool("y", &["y1", "y2"])];
    let object = Arc::clone(&world.revisions[&target().name_any()]);
    let found = inherited(&world, &object, pools.iter());
    assert_eq!(found.into_keys().collect::<Vec<_>>(), ["x", "y"], "written down before the former name is forgotten");
    world.configs.clear();
    assert!(inherited(&world, &target(), pools.iter()).is_empty(), "nothing is said of it");
}

/// It is judged anew there: who of `y` had it when it came through for `x`, and who was told by `y` itself and may be ill of it, nobody can tell.
/// Those that have had it for long are its canary, and others follow at once.
#[test]
fn nodes_that_another_one_takes_over_with_what_they_have_need_no_canary() {
    let through = alone("x", 5000);
    let graduates = |r: &Running| r.plan.actions.iter().any(|action| matches!(action, Action::Graduate(_)));
    let [_, y] = all(&world(&[("x1", Some(4000)), ("y1", Some(4000)), ("y2", Some(4000))], through.clone()));
    assert_eq!((&y.plan.stage, graduates(&y)), (&Stage::Complete, true));
    let [_, y] = all(&world(&[("x1", Some(4000)), ("y1", Some(4000)), ("y2", None)], through.clone()));
    assert_eq!((told(&y), y.rollout.came_through), (vec!["y2"], None));
    let [_, y] = all(&world(&[("x1", Some(4000)), ("y1", None), ("y2", None)], through));
    assert_eq!(told(&y), ["y1"], "it came through on none of them: a canary");
}

/// Nobody writes that any more.
#[test]
fn what_is_good_and_does_not_say_for_whom_is_so_for_all() {
    let status = json!({"verdict": "Good", "since": time::text(9950)});
    let [x, y] = all(&world(&[("x1", Some(9000)), ("y1", Some(9900)), ("y2", None)], status));
    assert_eq!((&x.plan.stage, told(&y)), (&Stage::Complete, vec!["y2"]));
}

/// A canary of `y` gave up what all nodes of `x` have.
#[test]
fn what_came_through_stays_where_it_did_whomever_it_breaks() {
    let mut status = alone("x", 9500);
    status["verdict"] = json!("Bad");
    let mut world = world(&[("x1", Some(9000)), ("y1", Some(9900)), ("y2", None)], status);
    fails(&mut world, "y1");
    let [x, y] = all(&world);
    assert_eq!((&x.plan.stage, &y.plan.stage), (&Stage::Complete, &Stage::NothingToGoBackTo));
    assert!(x.rollout.bad.is_empty() && y.rollout.bad.contains(&y.rollout.target), "{:?} {:?}", x.rollout, y.rollout);

    // And it is what `x` goes back to from something else, and nobody else.
    let next: RuntimeConfigSpec = serde_json::from_value(json!({"runtime": {"pidsLimit": 200}})).unwrap();
    let next = RuntimeRevisionSpec::of_runtime("1", &next);
    let pools = [pool("x", &["x1"]), pool("y", &["y1", "y2"])]
        .map(|pool| Pool { target: RuntimeRevision::new(&next.name(), next.clone()), ..pool });
    let [x, y]: [Running; 2] = planned(&world, &pools, &Default::default(), NOW).try_into().unwrap();
    assert_eq!(x.rollout.last_known_good.map(|r| r.0), Some(target().name_any()));
    assert_eq!(y.rollout.last_known_good, None);
}

#[test]
fn whom_it_came_through_for_is_kept_while_there_is_somebody() {
    let mut world = World::default();
    let config = RuntimeConfigObject::new("y", RuntimeConfigSpec::default());
    world.configs.insert("y".to_owned(), Arc::new(config));
    let (error, object) = (String::new(), Value::Null);
    world.broken_configs.push(crate::cluster::Broken { name: "newer".to_owned(), error, object });
    let mut revision = target();
    let through = json!({"gone": "t", "gone,y": "t", "newer": "t", "z": "t"});
    for (verdict, message) in [(Value::Null, json!("m")), (json!("Good"), json!("m")), (json!("Bad"), Value::Null)] {
        revision.status = serde_json::from_value(json!({"verdict": verdict, "throughFor": through})).unwrap();
        let status = came_through(&world, &revision, ("y", 9950), BTreeMap::new(), "m");
        assert_eq!(status["throughFor"], json!({"gone": null, "z": null, "y": time::text(9950)}));
        let good = if verdict == "Bad" { Value::Null } else { json!("Good") };
        assert_eq!((&status["verdict"], &status["message"]), (&good, &message), "bad for others it stays");
    }
}
