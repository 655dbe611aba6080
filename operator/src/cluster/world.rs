//! One look at the cluster: what all steps of a pass see. Must not: change while a pass goes on.
use berth_crds::{ImagePolicyObject, RuntimeConfigObject, RuntimeNode, RuntimeRevision};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An object that this version cannot parse.
#[derive(Debug, Clone)]
pub struct Broken {
    /// Name.
    pub name: String,
    /// What is wrong with it.
    pub error: String,
    /// All of it.
    pub object: Value,
}

impl Broken {
    /// The version of it that was seen.
    pub fn version(&self) -> Value {
        self.object["metadata"]["resourceVersion"].clone()
    }
}

/// Everything that is watched, by name.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// Nodes.
    pub nodes: BTreeMap<String, Arc<Node>>,
    /// RuntimeNodes.
    pub runtime_nodes: BTreeMap<String, Arc<RuntimeNode>>,
    /// RuntimeConfigs.
    pub configs: BTreeMap<String, Arc<RuntimeConfigObject>>,
    /// ImagePolicies.
    pub policies: BTreeMap<String, Arc<ImagePolicyObject>>,
    /// RuntimeRevisions.
    pub revisions: BTreeMap<String, Arc<RuntimeRevision>>,
    /// Pods of agents, by the node that each is on: the newest that is not about to go.
    pub agents: BTreeMap<String, Arc<Pod>>,
    /// Names of nodes whose Node or RuntimeNode cannot be parsed; they are left as they are.
    pub broken_nodes: BTreeSet<String>,
    /// RuntimeConfigs that cannot be parsed.
    pub broken_configs: Vec<Broken>,
    /// ImagePolicies that cannot be parsed.
    pub broken_policies: Vec<Broken>,
}

impl World {
    /// The nodes that are looked after: each Node with the RuntimeNode that was made for it.
    pub fn pairs(&self) -> impl Iterator<Item = (&Node, &RuntimeNode)> {
        self.runtime_nodes.iter().filter_map(|(name, runtime_node)| {
            let (node, runtime_node) = (self.nodes.get(name)?.as_ref(), runtime_node.as_ref());
            (node.uid().as_deref() == Some(&runtime_node.spec.node_uid)).then_some((node, runtime_node))
        })
    }
}
