//! What the way from one revision to another takes. Pure.
//!
//! A revision may be of a newer operator: its fields are compared as they are written, and one that is not known here is taken for a restart of
//! the daemon, so that an operator that goes back a version drains no fleet.
use super::super::runtime_config::Pool;
use super::build::said;
use crate::cluster::World;
use crate::rollout::Disruption;
use berth_crds::{self as crds, Class, NodeState, Phase, RevisionRuntime, RuntimeConfigSpec, RuntimeNode};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// What it takes for a node to have that revision, or to go back to what it has: by the node itself once it has looked, before that by the table of
/// fields.
pub(super) fn way(world: &World, node: &RuntimeNode, pool: &Pool, to: &str) -> Disruption {
    let runtime = runtime(world, pool, to);
    let table = by_table(world, node, runtime);
    // Before it runs as another version it cannot say what the rest takes.
    let versions = (&said(node).runtime_version, runtime.map(|r| &r.version));
    let knows_all = matches!(versions, (Some(has), Some(to)) if has == to);
    said_by(node, to, table, knows_all)
}

/// What is in a revision, which may be the pool's target, of which there is no object yet.
pub(super) fn runtime<'a>(world: &'a World, pool: &'a Pool, name: &str) -> Option<&'a RevisionRuntime> {
    if pool.target() == name {
        return pool.target.spec.runtime.as_ref();
    }
    world.revisions.get(name).and_then(|r| r.spec.runtime.as_ref())
}

fn said_by(node: &RuntimeNode, to: &str, table: Disruption, knows_all: bool) -> Disruption {
    let (spec, status) = (&node.spec, said(node));
    let this = spec.desired_revision.as_deref() == Some(to) && status.phase == Phase::AwaitingGrant;
    let asks = status.asks.as_ref().filter(|a| this && a.revision == to && a.desired_since == spec.desired_since);
    let granted = spec.grant.as_ref().filter(|grant| grant.revision == to).map(|grant| from_crd(grant.disruption));
    match (asks, granted) {
        (Some(asks), _) if knows_all => from_crd(asks.disruption),
        (Some(asks), _) => table.max(from_crd(asks.disruption)),
        (None, Some(granted)) => table.max(granted),
        (None, None) => table,
    }
}

fn by_table(world: &World, node: &RuntimeNode, runtime: Option<&RevisionRuntime>) -> Disruption {
    let status = said(node);
    // Not known any more: the heaviest that leaves pods in place is not enough.
    let Some(runtime) = runtime else { return Disruption::Drain };
    match &status.current_revision {
        Some(current) => between(world, current, runtime).map_or(Disruption::Drain, |(class, _)| class),
        // Taking a node over, or giving it back, moves all of its pods.
        None if status.state == NodeState::Foreign && runtime.config["state"] == "Absent" => Disruption::None,
        None => Disruption::Drain,
    }
}

/// What the way from a revision to a pool's target takes, and its fields with the class of each. `None`: that revision is not known any more.
pub fn change_between(world: &World, from: &str, pool: &Pool) -> Option<(Disruption, Vec<String>)> {
    between(world, from, pool.target.spec.runtime.as_ref()?)
}

fn between(world: &World, from: &str, new: &RevisionRuntime) -> Option<(Disruption, Vec<String>)> {
    let old = world.revisions.get(from)?.spec.runtime.as_ref()?;
    let changes = differences(&old.config, &new.config);
    let heaviest = changes.iter().map(|(_, class)| from_class(*class)).max().unwrap_or(Disruption::None);
    let class = if old.version == new.version { heaviest } else { heaviest.max(Disruption::DaemonRestart) };
    Some((class, changes.into_iter().map(|(path, class)| format!("{path} ({class})")).collect()))
}

/// The fields that differ. Of settings that this version knows completely, their values count: a default that is written is no difference.
fn differences(old: &Value, new: &Value) -> Vec<(String, Class)> {
    let read = |value: &Value| RuntimeConfigSpec::deserialize(value).ok();
    if let (Some(old), Some(new)) = (read(old), read(new)) {
        return crds::changes(&old, &new).into_iter().map(|change| (change.path.to_owned(), change.class)).collect();
    }
    let mut found = Vec::new();
    written("spec", old, new, &mut found);
    found
}

fn written(path: &str, old: &Value, new: &Value, found: &mut Vec<(String, Class)>) {
    if old == new {
        return;
    }
    if let Some(field) = crds::all_fields().find(|field| field.path == path) {
        found.push((path.to_owned(), field.class));
        return;
    }
    let fields = |value: &Value| match value {
        Value::Object(fields) => Some(fields.clone()),
        Value::Null => Some(Map::new()),
        _ => None,
    };
    let (Some(old), Some(new)) = (fields(old), fields(new)) else {
        return found.push((path.to_owned(), Class::DaemonRestart));
    };
    let known = |path: &str| crds::all_fields().any(|field| field.path.starts_with(&format!("{path}.")));
    if !known(path) {
        return found.push((path.to_owned(), Class::DaemonRestart));
    }
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let of = |fields: &Map<String, Value>, name: &String| fields.get(name).cloned().unwrap_or_default();
    for name in names {
        written(&format!("{path}.{name}"), &of(&old, name), &of(&new, name), found);
    }
}

fn from_class(class: Class) -> Disruption {
    match class {
        Class::Live => Disruption::None,
        Class::NewContainers | Class::NewPods => Disruption::NewPods,
        Class::DaemonRestart => Disruption::DaemonRestart,
        Class::KubeletRestart => Disruption::KubeletRestart,
        Class::Drain => Disruption::Drain,
    }
}

pub(super) fn from_crd(disruption: crds::Disruption) -> Disruption {
    match disruption {
        crds::Disruption::Live => Disruption::None,
        crds::Disruption::NewPods => Disruption::NewPods,
        crds::Disruption::DaemonRestart => Disruption::DaemonRestart,
        crds::Disruption::KubeletRestart => Disruption::KubeletRestart,
        crds::Disruption::Drain => Disruption::Drain,
    }
}

/// As objects have it.
pub fn to_crd(disruption: Disruption) -> crds::Disruption {
    match disruption {
        Disruption::None => crds::Disruption::Live,
        Disruption::NewPods => crds::Disruption::NewPods,
        Disruption::DaemonRestart => crds::Disruption::DaemonRestart,
        Disruption::KubeletRestart => crds::Disruption::KubeletRestart,
        Disruption::Drain => crds::Disruption::Drain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Of what a node asks for counts what it answers, and nothing else: a grant for less begins nothing, one for more drains for nothing.
    #[test]
    fn what_a_node_asks_for_is_what_it_takes() {
        let node = |status: serde_json::Value, grant: serde_json::Value| {
            let spec = json!({"nodeName": "n", "desiredRevision": "r", "desiredSince": "2026-01-01T00:00:02Z", "grant": grant});
            let mut node = RuntimeNode::new("n", serde_json::from_value(spec).unwrap());
            node.status = serde_json::from_value(status).unwrap();
            node
        };
        let asks = |since: &str, phase: &str, class: &str| json!({"phase": phase, "asks": {"revision": "r", "desiredSince": since, "disruption": class}});
        let table = Disruption::KubeletRestart;
        let of = |status: serde_json::Value, grant: serde_json::Value| said_by(&node(status, grant), "r", table, true);
        let now = "2026-01-01T00:00:02Z";
        assert_eq!(of(asks(now, "AwaitingGrant", "Drain"), json!(null)), Disruption::Drain);
        assert_eq!(of(asks(now, "AwaitingGrant", "DaemonRestart"), json!(null)), Disruption::DaemonRestart);
        assert_eq!(of(asks("2026-01-01T00:00:01Z", "AwaitingGrant", "Drain"), json!(null)), table, "another order");
        assert_eq!(of(asks(now, "Preparing", "Drain"), json!(null)), table);
        let other = node(asks(now, "AwaitingGrant", "Drain"), json!(null));
        assert_eq!(said_by(&other, "s", table, true), table, "another revision");
        let less = node(asks(now, "AwaitingGrant", "DaemonRestart"), json!(null));
        assert_eq!(said_by(&less, "r", table, false), table, "it has not looked at all of it");
        let grant = json!({"revision": "r", "disruption": "Drain", "expiresAt": now});
        assert_eq!(of(json!({"phase": "Applying"}), grant), Disruption::Drain, "what was begun under it");
    }

    #[test]
    fn what_a_newer_version_wrote_is_compared_as_it_is_written() {
        let old = json!({"runtime": {"pidsLimit": 100, "turbo": {"on": true}}, "network": {"mtu": 1400}});
        let new = json!({"runtime": {"pidsLimit": 200}, "network": {"mtu": 1400}});
        let class_of = |path: &str| crds::all_fields().find(|f| f.path == path).unwrap().class;
        assert_eq!(
            differences(&old, &new),
            [
                ("spec.runtime.pidsLimit".to_owned(), class_of("spec.runtime.pidsLimit")),
                ("spec.runtime.turbo".to_owned(), Class::DaemonRestart),
            ]
        );
        assert_eq!(differences(&new, &new), []);
        let list = json!({"registries": [{"host": "a.example", "turbo": 1}]});
        assert_eq!(differences(&list, &json!({})), [("spec.registries".to_owned(), class_of("spec.registries"))]);
    }
}
