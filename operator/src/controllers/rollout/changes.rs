//! What the way from one revision to another takes. Pure.
//!
//! A revision may be of a newer operator: its fields are compared as they are written, and one that is not known here is taken for a restart of
//! the daemon, so that an operator that goes back a version drains no fleet.
use super::super::runtime_config::Pool;
use super::build::said;
use crate::cluster::World;
use crate::rollout::Disruption;
use berth_crds::{self as crds, Class, NodeState, RevisionRuntime, RuntimeConfigSpec, RuntimeNode};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// What it takes for a node to have that revision, or to go back to what it has.
pub(super) fn way(world: &World, node: &RuntimeNode, pool: &Pool, to: &str) -> Disruption {
    let status = said(node);
    let runtime = if pool.target() == to {
        pool.target.spec.runtime.as_ref()
    } else {
        world.revisions.get(to).and_then(|r| r.spec.runtime.as_ref())
    };
    // Not known any more: the heaviest that leaves pods in place is not enough.
    let Some(runtime) = runtime else { return Disruption::Drain };
    match &status.current_revision {
        Some(current) => between(world, current, runtime).map_or(Disruption::Drain, |mut changes| {
            changes
                .fields
                .iter_mut()
                .for_each(|change| same_driver(change, runtime, &status.capabilities.cgroup_driver));
            changes.heaviest()
        }),
        // Taking a node over, or giving it back, moves all of its pods.
        None if status.state == NodeState::Foreign && runtime.config["state"] == "Absent" => Disruption::None,
        None => Disruption::Drain,
    }
}

/// What the way from a revision to a pool's target takes, and its fields with the class of each. `None`: that revision is not known any more.
pub fn change_between(world: &World, from: &str, pool: &Pool) -> Option<(Disruption, Vec<String>)> {
    let changes = between(world, from, pool.target.spec.runtime.as_ref()?)?;
    Some((changes.heaviest(), changes.fields.iter().map(|(path, class)| format!("{path} ({class})")).collect()))
}

struct Changes {
    /// Fields that differ, by path.
    fields: Vec<(String, Class)>,
    other_version: bool,
}

impl Changes {
    fn heaviest(&self) -> Disruption {
        let fields = self.fields.iter().map(|(_, class)| from_class(*class));
        let version = if self.other_version { Disruption::DaemonRestart } else { Disruption::None };
        fields.chain([version]).max().unwrap_or(version)
    }
}

fn between(world: &World, from: &str, new: &RevisionRuntime) -> Option<Changes> {
    let old = world.revisions.get(from)?.spec.runtime.as_ref()?;
    Some(Changes { fields: differences(&old.config, &new.config), other_version: old.version != new.version })
}

/// Where a revision names the driver that the node's kubelet goes by anyway, no pod has to go.
fn same_driver((path, class): &mut (String, Class), new: &RevisionRuntime, has: &str) {
    let named = new.config["runtime"]["cgroupManager"].as_str();
    if path == "spec.runtime.cgroupManager" && named.is_some_and(|named| named.to_lowercase() == has) {
        *class = Class::DaemonRestart;
    }
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

    #[test]
    fn to_name_the_driver_that_a_node_has_drains_nobody() {
        let new = |config: serde_json::Value| RevisionRuntime { config, ..RevisionRuntime::default() };
        let class = |new: &RevisionRuntime, has: &str| {
            let fields = differences(&json!({}), &new.config);
            let mut changes = Changes { fields, other_version: false };
            changes.fields.iter_mut().for_each(|change| same_driver(change, new, has));
            changes.heaviest()
        };
        let systemd = new(json!({"runtime": {"cgroupManager": "Systemd"}}));
        assert_eq!(class(&systemd, "systemd"), Disruption::DaemonRestart);
        assert_eq!(class(&systemd, "cgroupfs"), Disruption::Drain);
        assert_eq!(class(&systemd, ""), Disruption::Drain, "nothing is known of it");
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
