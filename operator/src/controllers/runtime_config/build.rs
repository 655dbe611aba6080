//! From RuntimeConfigs and nodes to pools: the nodes that are to have the same, and what that is. Pure.
use super::validate::Judgement;
use crate::cluster::World;
use berth_crds::{
    Effective, Merged, Rollout, RuntimeConfig, RuntimeConfigSpec, RuntimeNode, RuntimeRevision, RuntimeRevisionSpec,
    merge_keeping,
};
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};

/// Nodes that the same RuntimeConfigs select and that are to have the same: one rollout.
#[derive(Debug, Clone)]
pub struct Pool {
    /// Names of the RuntimeConfigs.
    pub configs: BTreeSet<String>,
    /// Names of the nodes.
    pub nodes: BTreeSet<String>,
    /// What they are to have.
    pub target: RuntimeRevision,
    /// The configuration in it.
    pub config: RuntimeConfigSpec,
    /// How it is to reach them.
    pub rollout: Rollout,
    /// Fields that equals among the RuntimeConfigs set differently, with the names of these.
    pub conflicts: BTreeMap<String, BTreeSet<String>>,
}

impl Pool {
    /// Name of the target.
    pub fn target(&self) -> String {
        self.target.name_any()
    }
}

/// What RuntimeConfigs come to.
#[derive(Debug, Clone, Default)]
pub struct Rendered {
    /// The pools.
    pub pools: Vec<Pool>,
    /// What each RuntimeConfig is.
    pub judged: BTreeMap<String, Judgement>,
    /// Fields that equals set differently, with the names of these.
    pub conflicts: BTreeMap<String, BTreeSet<String>>,
    /// Nodes that each RuntimeConfig selects.
    pub selected: BTreeMap<String, BTreeSet<String>>,
    /// Nodes that are left as they are, because something about them cannot be understood.
    pub frozen: BTreeSet<String>,
    /// Of each of them that a RuntimeConfig freezes, the names of these.
    pub frozen_by: BTreeMap<String, BTreeSet<String>>,
    /// RuntimeConfigs whose nodes cannot be told what they come to: why, as one word and as a sentence.
    pub left_out: BTreeMap<String, (&'static str, String)>,
}

impl Rendered {
    /// The nodes of a pool keep what they have.
    pub(super) fn leave_out(&mut self, pool: &Pool, reason: &'static str, message: &str) {
        self.frozen.extend(pool.nodes.iter().cloned());
        self.left_out.extend(pool.configs.iter().map(|config| (config.clone(), (reason, message.to_owned()))));
    }
}

/// Renders. `version` is that of the runtime where no RuntimeConfig names one.
pub(super) fn render(world: &World, judged: &BTreeMap<String, Judgement>, version: &str) -> Rendered {
    let mut rendered = Rendered { judged: judged.clone(), ..Default::default() };
    let mut pools: BTreeMap<(BTreeSet<String>, String), Pool> = BTreeMap::new();
    for (node, runtime_node) in world.pairs() {
        let (name, labels) = (node.name_any(), node.labels());
        let mut configs = Vec::new();
        for (config, judgement) in judged {
            match judgement {
                Judgement::Good(document)
                    if document.spec.node_selector.as_ref().is_some_and(|s| s.matches(labels)) =>
                {
                    configs.push(document.as_ref().clone());
                }
                // Whom it selects is not known: those that have something of it keep it.
                Judgement::Frozen { selector, .. }
                    if selector.as_ref().map_or_else(|| has_of(world, runtime_node, config), |s| s.matches(labels)) =>
                {
                    rendered.frozen.insert(name.clone());
                    rendered.frozen_by.entry(name.clone()).or_default().insert(config.clone());
                }
                _ => continue,
            }
            rendered.selected.entry(config.clone()).or_default().insert(name.clone());
        }
        // A node that nothing selects any more keeps what it has: `state: Absent` is how a node is given back.
        if configs.is_empty() || rendered.frozen.contains(&name) {
            continue;
        }
        let last = runtime_node.spec.desired_revision.as_ref().and_then(|name| effective_of(world, name));
        let Ok(merged) = merge_keeping(&configs, last.as_ref()) else { continue };
        for (field, names) in &merged.conflicts {
            rendered.conflicts.entry(field.clone()).or_default().extend(names.iter().cloned());
        }
        let pool = pool(&configs, merged, version);
        pools.entry((pool.configs.clone(), pool.target())).or_insert(pool).nodes.insert(name);
    }
    for pool in pools.into_values() {
        match pool.target.spec.check(&pool.target()) {
            Ok(()) => rendered.pools.push(pool),
            Err(e) => rendered.leave_out(&pool, "TooLarge", e.message()),
        }
    }
    rendered
}

/// Whether something that a node was told to have came from that RuntimeConfig.
fn has_of(world: &World, node: &RuntimeNode, config: &str) -> bool {
    let told = [&node.spec.desired_revision, &node.spec.fallback_revision].into_iter().flatten();
    let runtimes = told.filter_map(|name| world.revisions.get(name)?.spec.runtime.as_ref());
    runtimes.into_iter().any(|runtime| runtime.sources.values().any(|source| source == config))
}

/// What a node was last told to have.
fn effective_of(world: &World, revision: &str) -> Option<Effective> {
    let spec = &world.revisions.get(revision)?.spec;
    Some(Effective { spec: spec.config().ok()?, sources: spec.runtime.as_ref()?.sources.clone() })
}

fn pool(configs: &[RuntimeConfig], Merged { effective, conflicts }: Merged, version: &str) -> Pool {
    let Effective { mut spec, mut sources } = effective;
    // What only the operator follows is no part of what a node gets: changing it must not change a node.
    let rollout = std::mem::take(&mut spec.rollout);
    sources.retain(|field, _| !field.starts_with("spec.rollout."));
    let version = spec.runtime.version.clone().unwrap_or_else(|| version.to_owned());
    let revision = RuntimeRevisionSpec::of_runtime(&version, &spec, sources);
    Pool {
        configs: configs.iter().map(|c| c.metadata.name.clone()).collect(),
        nodes: BTreeSet::new(),
        target: RuntimeRevision::new(&revision.name(), revision),
        config: spec,
        rollout,
        conflicts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Broken;
    use berth_crds::{RuntimeConfigObject, RuntimeNodeSpec};
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
        assert_eq!(runtime.sources["spec.runtime.pidsLimit"], "blue");
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
        let sources = [("spec.runtime.turbo".to_owned(), "newer".to_owned())].into();
        let revision = RuntimeRevisionSpec::of_runtime("1", &spec, sources);
        let revision = RuntimeRevision::new(&revision.name(), revision);
        Arc::make_mut(world.runtime_nodes.get_mut("b").unwrap()).spec.desired_revision = Some(revision.name_any());
        world.revisions.insert(revision.name_any(), Arc::new(revision));
        assert_eq!(rendered(&world).frozen, BTreeSet::from(["b".to_owned()]), "who has something of it keeps it");
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
}
