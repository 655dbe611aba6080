//! Which RuntimeNodes there should be. Pure.
use crate::cluster::World;
use berth_crds::{RuntimeNode, RuntimeNodeSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;

/// A change.
#[derive(Debug)]
pub(super) enum Change {
    /// A node has none.
    Create(Box<RuntimeNode>),
    /// Its node is gone, or another one.
    Delete(Box<RuntimeNode>),
}

/// All changes.
pub(super) fn changes(world: &World) -> Vec<Change> {
    let missing = world.nodes.iter().filter(|(name, node)| {
        let there = world.runtime_nodes.contains_key(*name) || world.broken_runtime_nodes.contains_key(*name);
        !there && runs_linux(node)
    });
    let create = missing.map(|(_, node)| Change::Create(Box::new(of(node))));
    let delete = world.runtime_nodes.iter().filter(|(name, object)| match world.nodes.get(*name) {
        Some(node) => node.uid().is_some_and(|uid| uid != object.spec.node_uid),
        None => !world.broken_nodes.contains_key(*name),
    });
    delete.map(|(_, object)| Change::Delete(Box::new(object.as_ref().clone()))).chain(create).collect()
}

fn runs_linux(node: &Node) -> bool {
    node.labels().get("kubernetes.io/os").is_none_or(|os| os == "linux")
}

/// The RuntimeNode of a node, which the API server removes with it. It blocks nobody: no finalizer, no `blockOwnerDeletion`.
fn of(node: &Node) -> RuntimeNode {
    let (name, uid) = (node.name_any(), node.uid().unwrap_or_default());
    let spec = RuntimeNodeSpec { node_name: name.clone(), node_uid: uid.clone(), ..Default::default() };
    let mut object = RuntimeNode::new(&name, spec);
    let owner =
        OwnerReference { api_version: "v1".to_owned(), kind: "Node".to_owned(), name, uid, ..Default::default() };
    object.metadata.owner_references = Some(vec![owner]);
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Broken;
    use std::sync::Arc;

    fn node(name: &str, uid: &str, os: &str) -> Node {
        let json = serde_json::json!({"metadata": {"name": name, "uid": uid, "labels": {"kubernetes.io/os": os}}});
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn one_for_each_node_and_another_for_another() {
        let mut world = World::default();
        for node in [
            node("new", "1", "linux"),
            node("replaced", "2", "linux"),
            node("w", "3", "windows"),
            node("kept", "4", "linux"),
        ] {
            world.nodes.insert(node.name_any(), Arc::new(node));
        }
        for old in [node("replaced", "old", "linux"), node("gone", "5", "linux"), node("kept", "4", "linux")] {
            world.runtime_nodes.insert(old.name_any(), Arc::new(of(&old)));
        }
        let told: Vec<_> = changes(&world)
            .iter()
            .map(|change| match change {
                Change::Create(object) => format!("+{}", object.name_any()),
                Change::Delete(object) => format!("-{}", object.name_any()),
            })
            .collect();
        assert_eq!(told, ["-gone", "-replaced", "+new"]);
        let broken = Broken { name: "new".to_owned(), error: String::new(), object: serde_json::json!({}) };
        world.broken_runtime_nodes.insert("new".to_owned(), broken.clone());
        world.nodes.remove("kept");
        world.broken_nodes.insert("kept".to_owned(), Broken { name: "kept".to_owned(), ..broken });
        assert_eq!(changes(&world).len(), 2, "what cannot be parsed is there: {:?}", changes(&world));
    }
}
