//! What nodes come to have of RuntimeConfigs, and what keeps them from it.
use super::*;
use crate::cluster::Broken;
use berth_crds::{RuntimeConfigObject, RuntimeNode, RuntimeNodeSpec};
use serde_json::json;
use std::sync::Arc;

fn world(configs: serde_json::Value) -> World {
    let mut world = World::default();
    for (name, pool) in [("a", "blue"), ("b", "blue"), ("c", "green")] {
        let node = json!({"metadata": {"name": name, "uid": name, "labels": {"pool": pool}}});
        world.nodes.insert(name.to_owned(), Arc::new(serde_json::from_value(node).unwrap()));
        let spec = RuntimeNodeSpec { node_name: name.to_owned(), node_uid: name.to_owned(), ..Default::default() };
        world.runtime_nodes.insert(name.to_owned(), Arc::new(RuntimeNode::new(name, spec)));
    }
    for (name, spec) in configs.as_object().unwrap() {
        let object = RuntimeConfigObject::new(name, serde_json::from_value(spec.clone()).unwrap());
        world.configs.insert(name.clone(), Arc::new(object));
    }
    world
}

fn rendered(world: &World) -> Rendered {
    render(world, &super::super::validate::judge(world), "1.0.0")
}

fn named(fields: &[(&str, &[&str])]) -> Sources {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    fields.iter().map(|(field, of)| ((*field).to_owned(), names(of))).collect()
}

#[test]
fn a_pool_for_each_distinct_configuration() {
    let world = world(json!({
        "all": {"nodeSelector": {}, "runtime": {"pidsLimit": 100}, "rollout": {"paused": true}},
        "blue": {"nodeSelector": {"matchLabels": {"pool": "blue"}}, "priority": 200, "runtime": {"pidsLimit": 200}},
        "nobody": {"runtime": {"logLevel": "Debug"}},
    }));
    let found = rendered(&world);
    assert_eq!(found.pools.len(), 2);
    let blue = found.pools.iter().find(|p| p.configs.len() == 2).unwrap();
    assert_eq!(blue.nodes, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    assert_eq!(blue.config.runtime.pids_limit, Some(200));
    assert_eq!(blue.rollout.paused, Some(true));
    let runtime = blue.target.spec.runtime.as_ref().unwrap();
    assert_eq!(blue.sources, named(&[("spec.runtime.pidsLimit", &["blue"])]));
    assert!(!runtime.config.to_string().contains("rollout"), "{}", runtime.config);
    assert!(!found.selected.contains_key("nobody"), "without a selector it is nobody");
}

#[test]
fn what_is_not_understood_freezes_its_nodes_alone() {
    let mut world = world(json!({"all": {"nodeSelector": {}}}));
    let object = json!({"spec": {"turbo": true, "nodeSelector": {"matchLabels": {"pool": "green"}}}});
    world.broken_configs.push(Broken { name: "newer".to_owned(), error: "unknown field".to_owned(), object });
    let found = rendered(&world);
    assert_eq!(found.frozen, BTreeSet::from(["c".to_owned()]));
    assert_eq!(found.pools[0].nodes.len(), 2);
    world.broken_configs[0].object = json!({"spec": {"nodeSelector": 5}});
    assert_eq!(
        rendered(&world).frozen,
        BTreeSet::new(),
        "whom it is about is not known, and nobody has anything of it"
    );
    let spec = RuntimeConfigSpec { priority: Some(1), ..Default::default() };
    let revision = RuntimeRevisionSpec::of_runtime("1", &spec);
    let mut revision = RuntimeRevision::new(&revision.name(), revision);
    revision.status = serde_json::from_value(json!({"sources": {"spec.runtime.turbo": ["newer"]}})).unwrap();
    Arc::make_mut(world.runtime_nodes.get_mut("b").unwrap()).spec.desired_revision = Some(revision.name_any());
    world.revisions.insert(revision.name_any(), Arc::new(revision));
    assert_eq!(rendered(&world).frozen, BTreeSet::from(["b".to_owned()]), "who has something of it keeps it");
}

#[test]
fn nodes_about_which_something_is_not_understood_are_frozen_and_counted() {
    let broken = |name: &str| Broken { name: name.to_owned(), error: "unknown variant".to_owned(), object: json!({}) };
    let all = json!({"all": {"nodeSelector": {}, "runtime": {"pidsLimit": 100}}});
    // A phase that this version does not know.
    let mut one = world(all.clone());
    one.runtime_nodes.remove("a");
    one.broken_runtime_nodes.insert("a".to_owned(), broken("a"));
    let found = rendered(&one);
    assert_eq!(found.selected["all"].len(), 3, "it is selected as before");
    assert_eq!((&found.frozen, &found.pools[0].frozen), (&BTreeSet::from(["a".to_owned()]), &found.frozen));
    assert_eq!(found.pools[0].nodes.len(), 2);
    let told = super::super::frozen::told(&found, "all").unwrap();
    assert!(
        told.starts_with("1 nodes keep what they have: node a, because of RuntimeNode a: NotUnderstood: "),
        "{told}"
    );
    // A verdict that it does not know, of what nodes have, are to have, or are to go back to.
    let mut two = world(all.clone());
    two.broken_revisions.insert("config-odd".to_owned(), broken("config-odd"));
    let odd = || Some("config-odd".to_owned());
    let object = |node: &str| two.runtime_nodes[node].as_ref().clone();
    let (mut a, mut b, mut c) = (object("a"), object("b"), object("c"));
    a.spec.desired_revision = odd();
    b.spec.fallback_revision = odd();
    c.status = serde_json::from_value(json!({"currentRevision": "config-odd"})).unwrap();
    for node in [a, b, c] {
        two.runtime_nodes.insert(node.name_any(), Arc::new(node));
    }
    let found = rendered(&two);
    assert!(found.frozen.len() == 3 && found.pools.is_empty() && found.selected["all"].len() == 3, "{found:?}");
    // Of what they are to have: perhaps it broke others.
    let mut three = world(all);
    let target = rendered(&three).pools[0].target();
    three.broken_revisions.insert(target.clone(), broken(&target));
    let found = rendered(&three);
    assert!(found.frozen.len() == 3 && found.pools.is_empty(), "{found:?}");
    let told = super::super::frozen::told(&found, "all").unwrap();
    assert!(
        told.starts_with("3 nodes") && told.contains(&format!("RuntimeRevision {target}: NotUnderstood")),
        "{told}"
    );
}

#[test]
fn what_is_too_large_for_an_object_freezes_its_pool_alone() {
    let long = "x".repeat(200_000);
    let profiles: Vec<_> =
        (0..6).map(|n| json!({"name": format!("p{n}"), "type": "AppArmor", "source": {"inline": long}})).collect();
    let world = world(json!({
        "large": {"nodeSelector": {"matchLabels": {"pool": "blue"}}, "profiles": profiles},
        "small": {"nodeSelector": {"matchLabels": {"pool": "green"}}},
    }));
    let found = rendered(&world);
    assert_eq!(found.frozen.len(), 2);
    assert_eq!(found.pools.iter().flat_map(|p| &p.nodes).collect::<Vec<_>>(), ["c"]);
    let (reason, message) = &found.left_out["large"];
    assert!(*reason == "TooLarge" && message.contains("1048576"), "{message}");
}

#[test]
fn those_that_contradict_each_other_freeze_the_nodes_that_they_share_alone() {
    let blue = json!({"matchLabels": {"pool": "blue"}});
    let mut world = world(json!({
        "all": {"nodeSelector": {}, "runtime": {"pidsLimit": 100}},
        "high": {"nodeSelector": {}, "runtime": {"storage": {"gc": {"high": 70}}}},
        "low": {"nodeSelector": blue, "runtime": {"storage": {"gc": {"low": 80}}}},
    }));
    let found = rendered(&world);
    assert_eq!(found.pools.iter().flat_map(|p| &p.nodes).collect::<Vec<_>>(), ["c"], "{:?}", found.pools);
    assert_eq!(found.frozen, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    assert_eq!(found.left_out.keys().collect::<Vec<_>>(), ["high", "low"], "the third one is good");
    let (reason, message) = &found.left_out["low"];
    assert!(*reason == "Contradicts" && message.contains("gc.low: is 80, must be below gc.high"), "{message}");
    let told = super::super::frozen::told(&found, "all").unwrap();
    assert!(told.starts_with("2 nodes") && told.contains("RuntimeConfig high: Contradicts: "), "{told}");
    // What a node has is no way around it, and one that has what it is to have is left alone as well.
    let good = rendered(&world_without(&world, "low")).pools[0].target.clone();
    Arc::make_mut(world.runtime_nodes.get_mut("a").unwrap()).spec.desired_revision = Some(good.name_any());
    world.revisions.insert(good.name_any(), Arc::new(good));
    assert_eq!(rendered(&world).frozen, found.frozen);
}

fn world_without(world: &World, config: &str) -> World {
    let mut world = world.clone();
    world.configs.remove(config);
    world
}

/// Nodes share a pool by what they are to have, whatever they had.
#[test]
fn what_nodes_had_before_makes_no_pools() {
    let mut world = world(json!({"all": {"nodeSelector": {}, "runtime": {"pidsLimit": 100}}}));
    let old = rendered(&self::world(json!({"all": {"nodeSelector": {}}}))).pools[0].target.clone();
    Arc::make_mut(world.runtime_nodes.get_mut("a").unwrap()).spec.desired_revision = Some(old.name_any());
    Arc::make_mut(world.runtime_nodes.get_mut("b").unwrap()).spec.desired_revision = Some("config-gone".to_owned());
    world.revisions.insert(old.name_any(), Arc::new(old));
    let found = rendered(&world);
    assert!(found.pools.len() == 1 && found.pools[0].nodes.len() == 3, "{:?}", found.pools);
}

#[test]
fn of_a_conflict_each_node_keeps_what_it_has() {
    let one = world(json!({"x": {"nodeSelector": {}, "runtime": {"pidsLimit": 100}}}));
    let target = rendered(&one).pools[0].target.clone();
    let mut two = world(json!({
        "x": {"nodeSelector": {}, "runtime": {"pidsLimit": 100}},
        "y": {"nodeSelector": {}, "runtime": {"pidsLimit": 200}},
    }));
    two.revisions.insert(target.name_any(), Arc::new(target.clone()));
    Arc::make_mut(two.runtime_nodes.get_mut("a").unwrap()).spec.desired_revision = Some(target.name_any());
    let found = rendered(&two);
    assert_eq!(found.conflicts["spec.runtime.pidsLimit"].len(), 2);
    let of = |node: &str| found.pools.iter().find(|p| p.nodes.contains(node)).unwrap().config.runtime.pids_limit;
    assert_eq!((of("a"), of("b")), (Some(100), None));
}

/// A revision does not keep a rollout: what was last applied of it is nowhere.
#[test]
fn a_pause_that_an_equal_contradicts_holds() {
    for (x, y) in [(true, false), (false, true)] {
        let mut world = world(json!({
            "x": {"nodeSelector": {}, "rollout": {"paused": x}},
            "y": {"nodeSelector": {}, "rollout": {"paused": y}},
        }));
        let target = rendered(&world).pools[0].target.clone();
        world.revisions.insert(target.name_any(), Arc::new(target.clone()));
        for node in world.runtime_nodes.values_mut() {
            Arc::make_mut(node).spec.desired_revision = Some(target.name_any());
        }
        let found = rendered(&world);
        assert_eq!(found.pools.len(), 1);
        assert_eq!(found.pools[0].rollout.paused, Some(true), "x: {x}, y: {y}");
        assert_eq!(found.pools[0].conflicts, found.conflicts);
        assert_eq!(found.conflicts["spec.rollout.paused"].len(), 2);
    }
}

/// Names of RuntimeConfigs are no part of a configuration: no node has anything to do where only they change.
#[test]
fn who_says_it_changes_no_revision() {
    let (limit, level) = ("spec.runtime.pidsLimit", "spec.runtime.logLevel");
    let both = |name: &str| json!({name: {"nodeSelector": {}, "runtime": {"pidsLimit": 100, "logLevel": "Debug"}}});
    let apart = |one: &str, other: &str| json!({one: {"nodeSelector": {}, "runtime": {"pidsLimit": 100}}, other: {"nodeSelector": {}, "runtime": {"logLevel": "Debug"}}});
    let told = |configs: serde_json::Value| {
        let found = rendered(&world(configs));
        assert_eq!(found.pools.len(), 1);
        (found.pools[0].target(), found.pools[0].sources.clone())
    };
    let (target, sources) = told(both("fleet"));
    assert_eq!(sources, named(&[(limit, &["fleet"]), (level, &["fleet"])]));
    let cases = [
        (both("workers"), named(&[(limit, &["workers"]), (level, &["workers"])])),
        (apart("limits", "logs"), named(&[(limit, &["limits"]), (level, &["logs"])])),
        (apart("logs", "limits"), named(&[(limit, &["logs"]), (level, &["limits"])])),
    ];
    for (configs, sources) in cases {
        assert_eq!(told(configs), (target.clone(), sources), "renamed, split, and a field moved");
    }
}

/// RuntimeConfigs of one content that select different nodes: one revision, and each its own way there.
#[test]
fn pools_of_one_content_share_their_revision_alone() {
    let select = |pool: &str, paused: bool| {
        let selector = json!({"matchLabels": {"pool": pool}});
        json!({"nodeSelector": selector, "runtime": {"pidsLimit": 100}, "rollout": {"paused": paused}})
    };
    let found = rendered(&world(json!({"x": select("blue", true), "y": select("green", false)})));
    let ways: Vec<_> = found.pools.iter().map(|pool| (pool.key(), pool.nodes.len(), pool.rollout.paused)).collect();
    assert_eq!(ways, [("x".to_owned(), 2, Some(true)), ("y".to_owned(), 1, Some(false))]);
    let targets = sources::of_targets(&found.pools);
    let (_, sources) = &targets[&found.pools[0].target()];
    assert_eq!((targets.len(), sources), (1, &named(&[("spec.runtime.pidsLimit", &["x", "y"])])));
}

/// Of a kept value nobody says it now: whom it came from stands in the status of what was applied last.
#[test]
fn a_kept_field_is_of_whom_it_was_applied_from() {
    let mut world = world(json!({
        "x": {"nodeSelector": {}, "runtime": {"pidsLimit": 200}},
        "y": {"nodeSelector": {}, "runtime": {"pidsLimit": 300}},
    }));
    let mut last = rendered(&self::world(json!({"y": {"nodeSelector": {}, "runtime": {"pidsLimit": 100}}}))).pools[0]
        .target
        .clone();
    last.status = serde_json::from_value(json!({"sources": {"spec.runtime.pidsLimit": ["other", "y"]}})).unwrap();
    for node in world.runtime_nodes.values_mut() {
        Arc::make_mut(node).spec.desired_revision = Some(last.name_any());
    }
    world.revisions.insert(last.name_any(), Arc::new(last.clone()));
    let found = rendered(&world);
    assert_eq!((found.pools.len(), found.pools[0].target()), (1, last.name_any()));
    assert_eq!(found.pools[0].sources, named(&[("spec.runtime.pidsLimit", &["y"])]));
}
