//! What the operator says of RuntimeConfigs and ImagePolicies. Times are RFC 3339 in UTC.
//!
//! Must not: list nodes. Counts, and a few samples of what is wrong: one object per node has the rest.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One aspect of an object's state, as Kubernetes writes them (apimachinery, meta/v1 `Condition`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which aspect, such as `Ready`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// The generation of the spec that this was found for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the status last changed.
    pub last_transition_time: String,
    /// Why, as one word for programs.
    pub reason: String,
    /// Why, as a sentence for people.
    pub message: String,
}

/// What became of a RuntimeConfig.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeConfigStatus {
    /// The generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`, `Ready`, `Progressing`, `Degraded`, `Conflicted`, `Paused`, `RolledBack`, `AgentsRunning`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The revision that its nodes are to have; where they are to have several, the one of most nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_revision: Option<String>,
    /// Other revisions that its nodes are to have, as where further RuntimeConfigs select some of them: at most 32, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_target_revisions: Vec<String>,
    /// The revision that nodes go back to if the target fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_known_good: Option<String>,
    /// Its nodes, counted.
    #[serde(default)]
    pub nodes: NodeCounts,
    /// Nodes that have their target, of all that it selects: `3/50`.
    #[serde(default)]
    pub summary: String,
    /// Where the rollout stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<WaveStatus>,
    /// What it takes to bring the target to the nodes that do not have it yet; unset when all have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruption: Option<DisruptionStatus>,
    /// Some nodes that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failing_nodes: Vec<FailingNode>,
    /// Fields that another RuntimeConfig of equal priority sets differently. They keep their last applied value; of a rollout's, the condition `Conflicted` says which counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<FieldConflict>,
}

/// Nodes, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCounts {
    /// Selected.
    #[serde(default)]
    pub matched: u32,
    /// Have their target.
    #[serde(default)]
    pub updated: u32,
    /// On their way to what they are told to have.
    #[serde(default)]
    pub updating: u32,
    /// Have their target, and they and their runtime are well.
    #[serde(default)]
    pub ready: u32,
    /// Gave up what they were told to have, or are not well.
    #[serde(default)]
    pub degraded: u32,
    /// Gave up the target and have what they had before.
    #[serde(default)]
    pub rolled_back: u32,
    /// Not Ready, or without an agent that runs, so that nothing is known of them.
    #[serde(default)]
    pub unreachable: u32,
    /// Left alone because somebody asked for it.
    #[serde(default)]
    pub held: u32,
}

/// Where a rollout stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaveStatus {
    /// The wave under way, from 1.
    pub index: u32,
    /// How many there are.
    pub total: u32,
    /// When the next one may begin, if all of this one is through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak_until: Option<String>,
}

/// What a change does to nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DisruptionStatus {
    /// The heaviest that a node needs: of one that is not managed yet, `Drain`.
    pub class: Disruption,
    /// Fields that change, with the class of each: `spec.runtime.logLevel (live)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}

/// What a change does to a node, lightest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Disruption {
    /// Applied while everything runs.
    #[default]
    Live,
    /// Counts for what is started from now on.
    NewPods,
    /// The daemon restarts; containers do not notice.
    DaemonRestart,
    /// The kubelet restarts; containers do not notice.
    KubeletRestart,
    /// The node's pods are moved away first.
    Drain,
}

/// A node that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailingNode {
    /// Its name.
    pub name: String,
    /// What its agent says.
    pub reason: String,
}

/// A field that two RuntimeConfigs of equal priority set differently.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldConflict {
    /// Its path.
    pub field: String,
    /// The other RuntimeConfigs.
    pub with: Vec<String>,
}

/// What became of an ImagePolicy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImagePolicyStatus {
    /// The generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`, `Ready`, `Degraded`, `Conflicted`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The set of policies that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_revision: Option<String>,
    /// Nodes that are to enforce it.
    #[serde(default)]
    pub target_nodes: u32,
    /// Nodes that enforce it.
    #[serde(default)]
    pub enforced_nodes: u32,
    /// Both: `3/50`.
    #[serde(default)]
    pub summary: String,
    /// Images that it refused, as nodes have counted since their runtimes started.
    #[serde(default)]
    pub denied: u64,
    /// Images that it warned of, as nodes have counted since their runtimes started.
    #[serde(default)]
    pub warned: u64,
}
