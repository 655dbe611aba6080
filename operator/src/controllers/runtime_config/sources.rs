//! Which RuntimeConfigs the fields of a revision come from. That is no part of its content: it stands in its status, and follows names and selectors
//! while the revision stays the same. Pure.
use super::build::Pool;
use crate::cluster::World;
use berth_crds::{Effective, RuntimeNode, RuntimeRevision};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Path of each field that is set to the names of the RuntimeConfigs that it comes from.
pub type Sources = BTreeMap<String, BTreeSet<String>>;

/// Most bytes that a content and what is said of its sources may take together. An object of the API server ends at 1.5 MiB (etcd's
/// `DefaultMaxRequestBytes`), and has the rest of the status and some fields more.
const MAX_OBJECT: usize = 1408 << 10;

/// What pools are to have, each revision once, with what all of its pools say of its sources.
pub(super) fn of_targets(pools: &[Pool]) -> BTreeMap<String, (&RuntimeRevision, Sources)> {
    let mut targets: BTreeMap<String, (&RuntimeRevision, Sources)> = BTreeMap::new();
    for pool in pools {
        let (_, sources) = targets.entry(pool.target()).or_insert_with(|| (&pool.target, Sources::new()));
        add(sources, &pool.sources);
    }
    targets
}

/// Adds to what is said already.
pub(super) fn add(sources: &mut Sources, more: &Sources) {
    for (field, names) in more {
        sources.entry(field.clone()).or_default().extend(names.iter().cloned());
    }
}

/// Errors: what is said of the sources does not fit into one object with the content.
pub(super) fn check_room(target: &RuntimeRevision, sources: &Sources) -> Result<(), String> {
    let size = |value: Value| value.to_string().len();
    // Who wrote a field of an object is kept beside it, with the field's name (metadata.managedFields): each is there twice.
    let (content, said) = (size(json!(target.spec)), 2 * size(json!(sources)));
    if content + said <= MAX_OBJECT {
        return Ok(());
    }
    Err(format!(
        "RuntimeRevision {}: its content takes {content} bytes, and the names of the RuntimeConfigs that its fields come from {said}, the limit is \
         {MAX_OBJECT} for both; have fewer RuntimeConfigs of the same content, or give them shorter names",
        target.name_any()
    ))
}

/// What a merge patch (RFC 7396) of the status has to say of a revision's sources; `None`: they stand there. `keep`: what stands there stays.
pub(super) fn change(revision: &RuntimeRevision, sources: &Sources, keep: bool) -> Option<Value> {
    let before: Sources =
        said(revision).map(|(field, names)| (field.clone(), names.iter().cloned().collect())).collect();
    let mut after = sources.clone();
    if keep {
        add(&mut after, &before);
    }
    (after != before).then(|| super::super::status::in_place_of(&before, &after))
}

/// What a node was last told to have. Of several names of a field it has the first of those that select the node now (`configs`).
pub(super) fn effective_of(world: &World, revision: &str, configs: &BTreeSet<String>) -> Option<Effective> {
    let revision = world.revisions.get(revision)?;
    let one = |(field, names): (&String, &Vec<String>)| {
        let name = names.iter().find(|name| configs.contains(*name)).or_else(|| names.first())?;
        Some((field.clone(), name.clone()))
    };
    Some(Effective { spec: revision.spec.config().ok()?, sources: said(revision).filter_map(one).collect() })
}

/// Whether something that a node was told to have came from that RuntimeConfig, or may have.
pub(super) fn has_of(world: &World, node: &RuntimeNode, config: &str) -> bool {
    let told = [&node.spec.desired_revision, &node.spec.fallback_revision].into_iter().flatten();
    told.filter_map(|name| world.revisions.get(name)).any(|revision| {
        let runtime = revision.spec.runtime.as_ref();
        // Not written yet: it may have come from any.
        let unknown = || runtime.and_then(|r| r.config.as_object()).is_some_and(|config| !config.is_empty());
        let mut names = said(revision).flat_map(|(_, names)| names).peekable();
        if names.peek().is_none() { unknown() } else { names.any(|name| name == config) }
    })
}

fn said(revision: &RuntimeRevision) -> impl Iterator<Item = (&String, &Vec<String>)> {
    revision.status.iter().flat_map(|status| &status.sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(sources: Value) -> RuntimeRevision {
        let mut revision = RuntimeRevision::new("config-0", Default::default());
        revision.status = serde_json::from_value(json!({"verdict": "Good", "sources": sources})).unwrap();
        revision
    }

    fn sources(fields: &[(&str, &[&str])]) -> Sources {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        fields.iter().map(|(field, of)| ((*field).to_owned(), names(of))).collect()
    }

    #[test]
    fn what_is_said_is_written_once_and_what_is_over_goes() {
        let now = sources(&[("spec.x", &["b", "a"]), ("spec.y", &["a"])]);
        let fresh = RuntimeRevision::new("config-0", Default::default());
        assert_eq!(change(&fresh, &now, false), Some(json!({"spec.x": ["a", "b"], "spec.y": ["a"]})));
        assert_eq!(change(&fresh, &Sources::new(), false), None);
        assert_eq!(change(&revision(json!({"spec.x": ["a", "b"], "spec.y": ["a"]})), &now, false), None);
        let before = revision(json!({"spec.x": ["c"], "spec.y": ["a"], "spec.z": ["c"]}));
        assert_eq!(change(&before, &now, false), Some(json!({"spec.x": ["a", "b"], "spec.y": ["a"], "spec.z": null})));
        let kept = json!({"spec.x": ["a", "b", "c"], "spec.y": ["a"], "spec.z": ["c"]});
        assert_eq!(change(&before, &now, true), Some(kept.clone()));
        assert_eq!(change(&revision(kept), &now, true), None);
    }

    #[test]
    fn of_several_names_that_of_the_node_counts() {
        let mut world = World::default();
        let mut last = revision(json!({"spec.x": ["a", "b"]}));
        last.spec = berth_crds::RuntimeRevisionSpec::of_runtime("1", &Default::default());
        world.revisions.insert("config-0".to_owned(), last.into());
        let of = |configs: &[&str]| {
            let configs = configs.iter().map(|&name| name.to_owned()).collect();
            effective_of(&world, "config-0", &configs).unwrap().sources["spec.x"].clone()
        };
        assert_eq!((of(&["b", "c"]), of(&["a", "b"]), of(&["c"])), ("b".to_owned(), "a".to_owned(), "a".to_owned()));
    }

    #[test]
    fn what_is_not_written_yet_may_be_of_any() {
        let mut world = World::default();
        let mut node = RuntimeNode::default();
        node.spec.fallback_revision = Some("config-0".to_owned());
        let mut has = |config: Value, sources: Value| {
            let mut last = revision(sources);
            let config = serde_json::from_value(config).unwrap();
            last.spec = berth_crds::RuntimeRevisionSpec::of_runtime("1", &config);
            world.revisions.insert("config-0".to_owned(), last.into());
            has_of(&world, &node, "a")
        };
        let limit = json!({"runtime": {"pidsLimit": 50}});
        assert!(has(limit.clone(), json!({})));
        assert!(has(limit.clone(), json!({"spec.runtime.pidsLimit": ["a", "b"]})));
        assert!(!has(limit, json!({"spec.runtime.pidsLimit": ["b"]})) && !has(json!({}), json!({})));
    }

    #[test]
    fn names_have_room_beside_the_content() {
        let target = RuntimeRevision::new("config-0", Default::default());
        let many = |configs: usize| {
            let names: BTreeSet<String> = (0..configs).map(|n| format!("{n:0>250}")).collect();
            (0..100).map(|n| (format!("spec.registries[{n}.example]"), names.clone())).collect::<Sources>()
        };
        assert_eq!(check_room(&target, &many(25)), Ok(()));
        let refused = check_room(&target, &many(30)).unwrap_err();
        assert!(refused.contains("1441792") && refused.contains("fewer RuntimeConfigs"), "{refused}");
    }
}
