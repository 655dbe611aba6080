//! One look at the cluster: what all steps of a pass see. Must not: change while a pass goes on.
use berth_crds::{ImagePolicyObject, RuntimeConfigObject, RuntimeNode, RuntimeRevision};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use serde_json::Value;
use std::collections::BTreeMap;
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

/// A node of which something cannot be parsed.
#[derive(Debug, Clone)]
pub struct Unknown<'a> {
    /// Name.
    pub name: &'a str,
    /// Labels of the Node.
    pub labels: BTreeMap<String, String>,
    /// Kind of what cannot be parsed.
    pub kind: &'static str,
    /// What cannot be parsed.
    pub broken: &'a Broken,
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
    /// Nodes that cannot be parsed; they are left as they are.
    pub broken_nodes: BTreeMap<String, Broken>,
    /// RuntimeNodes that cannot be parsed; their nodes are left as they are.
    pub broken_runtime_nodes: BTreeMap<String, Broken>,
    /// RuntimeRevisions that cannot be parsed; what they did to nodes is not known.
    pub broken_revisions: BTreeMap<String, Broken>,
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

    /// The nodes that are to be looked after and cannot be, because their Node or RuntimeNode cannot be parsed.
    pub fn unknown(&self) -> impl Iterator<Item = Unknown<'_>> {
        let nodes = self.broken_nodes.iter().filter(|(name, _)| {
            self.runtime_nodes.contains_key(*name) || self.broken_runtime_nodes.contains_key(*name)
        });
        let nodes = nodes.map(|(name, broken)| {
            let labels = serde_json::from_value(broken.object["metadata"]["labels"].clone()).unwrap_or_default();
            Unknown { name, labels, kind: "Node", broken }
        });
        let runtime_nodes = self.broken_runtime_nodes.iter().filter_map(|(name, broken)| {
            let labels = self.nodes.get(name)?.labels().clone();
            Some(Unknown { name, labels, kind: "RuntimeNode", broken })
        });
        nodes.chain(runtime_nodes)
    }
}
