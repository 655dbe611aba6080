//! From RuntimeConfigs and nodes to pools: the nodes that are to have the same, and what that is. Pure.
//!
//! A node about which something cannot be understood is in no pool, and counted as one that does not have what it is to have.
use super::frozen::{self, Cause};
use super::together::{Contradiction, contradiction};
use super::validate::Judgement;
use crate::cluster::World;
use berth_crds::{
    Effective, Merged, Rollout, RuntimeConfig, RuntimeConfigSpec, RuntimeNode, RuntimeRevision, RuntimeRevisionSpec,
    merge_keeping,
};
use kube::ResourceExt;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// Names of the RuntimeConfigs that select nodes, and of the revision that these were last told to have.
type Key = (BTreeSet<String>, Option<String>);

/// Nodes that the same RuntimeConfigs select and that are to have the same: one rollout.
#[derive(Debug, Clone)]
pub struct Pool {
    /// Names of the RuntimeConfigs.
    pub configs: BTreeSet<String>,
    /// Names of the nodes.
    pub nodes: BTreeSet<String>,
    /// Names of nodes that the same RuntimeConfigs select and that are left as they are: those that are away take of the budget.
    pub frozen: BTreeSet<String>,
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
    /// Of each of them that objects freeze, these.
    pub frozen_by: BTreeMap<String, BTreeSet<Cause>>,
    /// RuntimeConfigs whose nodes cannot be told what they come to: why, as one word and as a sentence.
    pub left_out: BTreeMap<String, (&'static str, String)>,
}

impl Rendered {
    /// A node keeps what it has.
    fn freeze(&mut self, node: &str, cause: Cause) {
        self.frozen.insert(node.to_owned());
        self.frozen_by.entry(node.to_owned()).or_default().insert(cause);
    }

    /// Notes who selects a node, and who freezes it. `has_of` says whether it has something of a RuntimeConfig of which it is not known whom it
    /// selects. Returns the names of the RuntimeConfigs that it gets its settings of.
    fn select(
        &mut self,
        (name, labels): (&str, &BTreeMap<String, String>),
        has_of: impl Fn(&str) -> bool,
    ) -> BTreeSet<String> {
        let (mut configs, mut selecting, mut causes) = (BTreeSet::new(), Vec::new(), Vec::new());
        for (config, judgement) in &self.judged {
            match judgement {
                Judgement::Good(document)
                    if document.spec.node_selector.as_ref().is_some_and(|s| s.matches(labels)) =>
                {
                    configs.insert(config.clone());
                }
                // Whom it selects is not known: those that have something of it keep it.
                Judgement::Frozen { reason, message, selector }
                    if selector.as_ref().map_or_else(|| has_of(config), |s| s.matches(labels)) =>
                {
                    causes.push(Cause::of("RuntimeConfig", config, &format!("{reason}: {message}")));
                }
                _ => continue,
            }
            selecting.push(config.clone());
        }
        causes.into_iter().for_each(|cause| self.freeze(name, cause));
        for config in selecting {
            self.selected.entry(config).or_default().insert(name.to_owned());
        }
        configs
    }

    /// The nodes of a pool keep what they have.
    pub(super) fn leave_out(&mut self, pool: &Pool, reason: &'static str, message: &str) {
        self.frozen.extend(pool.nodes.iter().cloned());
        self.left_out.extend(pool.configs.iter().map(|config| (config.clone(), (reason, message.to_owned()))));
    }

    /// The nodes of a pool keep what they have. Those of its RuntimeConfigs that contradict each other say so, the others name them.
    fn contradict(&mut self, pool: &Pool, Contradiction { configs, message }: &Contradiction) {
        for config in configs {
            let cause = Cause::of("RuntimeConfig", config, &format!("Contradicts: {message}"));
            pool.nodes.iter().for_each(|node| self.freeze(node, cause.clone()));
            self.left_out.insert(config.clone(), ("Contradicts", message.clone()));
        }
    }
}

/// Renders. `version` is that of the runtime where no RuntimeConfig names one.
pub(super) fn render(world: &World, judged: &BTreeMap<String, Judgement>, version: &str) -> Rendered {
    let mut rendered = Rendered { judged: judged.clone(), ..Default::default() };
    // Most nodes of a cluster are selected by the same and have the same: for all of these it is merged once.
    let mut made: BTreeMap<Key, Option<Made>> = BTreeMap::new();
    let mut left: BTreeMap<BTreeSet<String>, BTreeSet<String>> = BTreeMap::new();
    for (node, runtime_node) in world.pairs() {
        let name = node.name_any();
        let configs = rendered.select((name.as_str(), node.labels()), |config| has_of(world, runtime_node, config));
        frozen::by_revisions(world, runtime_node).into_iter().for_each(|cause| rendered.freeze(&name, cause));
        // A node that nothing selects any more keeps what it has: `state: Absent` is how a node is given back.
        if configs.is_empty() {
            continue;
        }
        if rendered.frozen.contains(&name) {
            left.entry(configs).or_default().insert(name);
            continue;
        }
        let key = (configs, runtime_node.spec.desired_revision.clone());
        if let Some(made) = made.entry(key).or_insert_with_key(|key| make(world, judged, key, version)) {
            made.pool.nodes.insert(name);
        }
    }
    for node in world.unknown() {
        let configs = rendered.select((node.name, &node.labels), |_| false);
        rendered.freeze(node.name, Cause::unknown(node.kind, node.broken));
        left.entry(configs).or_default().insert(node.name.to_owned());
    }
    for mut pool in pools(&mut rendered, &mut left, made.into_values().flatten()) {
        pool.frozen = left.get(&pool.configs).cloned().unwrap_or_default();
        take(world, &mut rendered, pool);
    }
    rendered
}

/// What the same RuntimeConfigs come to on nodes that have the same.
struct Made {
    pool: Pool,
    contradiction: Option<Contradiction>,
}

fn make(world: &World, judged: &BTreeMap<String, Judgement>, (configs, last): &Key, version: &str) -> Option<Made> {
    let document = |config| match judged.get(config) {
        Some(Judgement::Good(document)) => Some(document.as_ref().clone()),
        _ => None,
    };
    let documents: Vec<RuntimeConfig> = configs.iter().filter_map(document).collect();
    let last = last.as_ref().and_then(|name| effective_of(world, name));
    let merged = merge_keeping(&documents, last.as_ref()).ok()?;
    let contradiction = contradiction(&merged.effective.spec, documents, last.as_ref());
    Some(Made { pool: pool(configs.clone(), merged, version), contradiction })
}

/// One for all nodes that are to have the same. Those of what no node takes are `left` as they are.
fn pools(
    rendered: &mut Rendered,
    left: &mut BTreeMap<BTreeSet<String>, BTreeSet<String>>,
    made: impl Iterator<Item = Made>,
) -> Vec<Pool> {
    let mut pools: BTreeMap<(BTreeSet<String>, String), Pool> = BTreeMap::new();
    for Made { pool, contradiction } in made {
        for (field, names) in &pool.conflicts {
            rendered.conflicts.entry(field.clone()).or_default().extend(names.iter().cloned());
        }
        if let Some(contradiction) = contradiction {
            rendered.contradict(&pool, &contradiction);
            left.entry(pool.configs).or_default().extend(pool.nodes);
            continue;
        }
        match pools.entry((pool.configs.clone(), pool.target())) {
            Entry::Occupied(same) => same.into_mut().nodes.extend(pool.nodes),
            Entry::Vacant(none) => drop(none.insert(pool)),
        }
    }
    pools.into_values().collect()
}

/// A pool, unless its nodes keep what they have.
fn take(world: &World, rendered: &mut Rendered, pool: Pool) {
    // What became of the target on other nodes is not known: it may have broken them.
    if let Some(broken) = world.broken_revisions.get(&pool.target()) {
        let cause = Cause::unknown("RuntimeRevision", broken);
        return pool.nodes.iter().for_each(|node| rendered.freeze(node, cause.clone()));
    }
    match pool.target.spec.check(&pool.target()) {
        Ok(()) => rendered.pools.push(pool),
        Err(e) => rendered.leave_out(&pool, "TooLarge", e.message()),
    }
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

fn pool(configs: BTreeSet<String>, Merged { effective, conflicts }: Merged, version: &str) -> Pool {
    let Effective { mut spec, mut sources } = effective;
    // What only the operator follows is no part of what a node gets: changing it must not change a node.
    let rollout = std::mem::take(&mut spec.rollout);
    sources.retain(|field, _| !field.starts_with("spec.rollout."));
    let version = spec.runtime.version.clone().unwrap_or_else(|| version.to_owned());
    let revision = RuntimeRevisionSpec::of_runtime(&version, &spec, sources);
    Pool {
        configs,
        nodes: BTreeSet::new(),
        frozen: BTreeSet::new(),
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
    fn nodes_about_which_something_is_not_understood_are_frozen_and_counted() {
        let broken =
            |name: &str| Broken { name: name.to_owned(), error: "unknown variant".to_owned(), object: json!({}) };
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
}
