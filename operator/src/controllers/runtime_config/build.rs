//! From RuntimeConfigs and nodes to pools: the nodes that are to have the same, and what that is. Pure.
//!
//! A node about which something cannot be understood is in no pool, and counted as one that does not have what it is to have.
use super::frozen::{self, Cause};
use super::sources::{self, Sources};
use super::together::{Contradiction, contradiction};
use super::validate::Judgement;
use crate::cluster::World;
use berth_crds::{
    Effective, Merged, Rollout, RuntimeConfig, RuntimeConfigSpec, RuntimeRevision, RuntimeRevisionSpec, merge_keeping,
};
use kube::ResourceExt;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// Names of the RuntimeConfigs that select nodes, and of the revision that these were last told to have.
type Key = (BTreeSet<String>, Option<String>);

/// Nodes that the same RuntimeConfigs select and that are to have the same: one rollout. Pools of different RuntimeConfigs may be to have the same
/// revision: each goes its own way there, and what came through for one stays with it; a bad one is bad for all others.
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
    /// Where each of its fields comes from.
    pub sources: Sources,
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

    /// What tells it from other pools with the same target: the names of its RuntimeConfigs, with commas between them.
    pub fn key(&self) -> String {
        self.configs.iter().map(String::as_str).collect::<Vec<_>>().join(",")
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
        let configs =
            rendered.select((name.as_str(), node.labels()), |config| sources::has_of(world, runtime_node, config));
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
    let pools = pools(&mut rendered, &mut left, made.into_values().flatten());
    let too_large = too_large(&pools);
    for mut pool in pools {
        pool.frozen = left.get(&pool.configs).cloned().unwrap_or_default();
        take(world, &mut rendered, pool, &too_large);
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
    let last = last.as_ref().and_then(|name| sources::effective_of(world, name, configs));
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
            Entry::Occupied(same) => {
                let same = same.into_mut();
                same.nodes.extend(pool.nodes);
                sources::add(&mut same.sources, &pool.sources);
            }
            Entry::Vacant(none) => drop(none.insert(pool)),
        }
    }
    pools.into_values().collect()
}

/// The targets that the API server would not take, and why.
fn too_large(pools: &[Pool]) -> BTreeMap<String, String> {
    let check = |name: &str, target: &RuntimeRevision, sources: &Sources| match target.spec.check(name) {
        Ok(()) => sources::check_room(target, sources),
        Err(e) => Err(e.message().to_owned()),
    };
    let targets = sources::of_targets(pools).into_iter();
    targets
        .filter_map(|(name, (target, sources))| Some((name.clone(), check(&name, target, &sources).err()?)))
        .collect()
}

/// A pool, unless its nodes keep what they have.
fn take(world: &World, rendered: &mut Rendered, pool: Pool, too_large: &BTreeMap<String, String>) {
    // What became of the target on other nodes is not known: it may have broken them.
    if let Some(broken) = world.broken_revisions.get(&pool.target()) {
        let cause = Cause::unknown("RuntimeRevision", broken);
        return pool.nodes.iter().for_each(|node| rendered.freeze(node, cause.clone()));
    }
    match too_large.get(&pool.target()) {
        None => rendered.pools.push(pool),
        Some(why) => rendered.leave_out(&pool, "TooLarge", why),
    }
}

fn pool(configs: BTreeSet<String>, Merged { effective, conflicts }: Merged, version: &str) -> Pool {
    let Effective { mut spec, mut sources } = effective;
    // What only the operator follows is no part of what a node gets: changing it must not change a node.
    let rollout = std::mem::take(&mut spec.rollout);
    sources.retain(|field, _| !field.starts_with("spec.rollout."));
    let sources = sources.into_iter().map(|(field, name)| (field, BTreeSet::from([name]))).collect();
    let version = spec.runtime.version.clone().unwrap_or_else(|| version.to_owned());
    let revision = RuntimeRevisionSpec::of_runtime(&version, &spec);
    Pool {
        configs,
        nodes: BTreeSet::new(),
        frozen: BTreeSet::new(),
        target: RuntimeRevision::new(&revision.name(), revision),
        sources,
        config: spec,
        rollout,
        conflicts,
    }
}

#[cfg(test)]
mod tests;
