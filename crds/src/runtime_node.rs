//! RuntimeNode: one per node, of the same name. The operator writes its spec, the node's agent its status, both only on change.
//!
//! Neither refuses fields that it does not know: operator and agents are of different versions during every upgrade.
//! Times are RFC 3339 in UTC. Must not: hold what grows with a node's pods; an object stays below 4 KiB, or 200 policies decide on its node.
use crate::status::{Condition, Disruption};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a node is to have. The operator writes it, but for `hold`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "kube", derive(kube::CustomResource))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "berth.dev",
        version = "v1alpha1",
        kind = "RuntimeNode",
        plural = "runtimenodes",
        shortname = "rtn",
        category = "berth",
        status = "RuntimeNodeStatus",
        derive = "PartialEq",
        derive = "Default",
        doc = "What one node is to have, and what it has. The operator writes the spec, the node's agent the status.",
        printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
        printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
        printcolumn(name = "Desired", type_ = "string", json_path = ".spec.desiredRevision"),
        printcolumn(name = "Current", type_ = "string", json_path = ".status.currentRevision"),
        printcolumn(name = "Runtime", type_ = "string", json_path = ".status.runtimeVersion"),
        printcolumn(name = "Healthy", type_ = "boolean", json_path = ".status.healthy"),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
        printcolumn(name = "Policy", type_ = "string", json_path = ".status.policyRevision", priority = 1),
        printcolumn(name = "Agent", type_ = "string", json_path = ".spec.agentProblem.reason", priority = 1),
        printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
        selectable = ".spec.desiredRevision",
        selectable = ".status.phase"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeNodeSpec {
    /// Name of the Node; that of this object.
    pub node_name: String,
    /// UID of the Node: another one of the same name is another node.
    #[serde(default, rename = "nodeUID")]
    pub node_uid: String,
    /// The RuntimeRevision of a configuration that the node is to have. Unset: the node is left as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_revision: Option<String>,
    /// When it was last told to have another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_since: Option<String>,
    /// The last good RuntimeRevision, which the node goes back to if the desired one fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback_revision: Option<String>,
    /// The RuntimeRevision of the set of image policies that the node is to enforce, at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_revision: Option<String>,
    /// Leave to interrupt the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<Grant>,
    /// Whether `rollout.controlPlane` asks for nodes of the control plane. Where it does not, a node that runs a part of it is not taken over,
    /// whatever its labels say. Unset: an older operator has told the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<bool>,
    /// Leave this node alone: an administrator sets it. Policies reach it all the same.
    #[serde(default)]
    pub hold: bool,
    /// Its next turn is not before that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postponed_until: Option<String>,
    /// Why, for people: the pods that could not be evicted, or that would have been lost. Without that time it gets no other turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postponed_because: Option<String>,
    /// Leave that ended before anything was begun under it, while the node was well and its agent ran. After three times the node has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused_leave: Option<UnusedLeave>,
    /// What keeps its agent from running, for people. Until that is over, the node is told nothing new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_problem: Option<AgentProblem>,
}

/// What keeps a node's agent from running, as the agent's pod says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentProblem {
    /// The agent's pod, in the operator's namespace.
    pub pod: String,
    /// The container. Empty: the pod itself.
    #[serde(default)]
    pub container: String,
    /// The kubelet's word for it, or the scheduler's: `ImagePullBackOff`, `CreateContainerError`, `CrashLoopBackOff`, `Unschedulable`.
    pub reason: String,
    /// Pod, container, what kubelet or scheduler says itself, and what to do.
    pub message: String,
    /// Since when.
    pub since: String,
}

/// Leave to interrupt a node: for one revision, for one kind of interruption, for a while.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// For which RuntimeRevision.
    pub revision: String,
    /// Most that may be done.
    pub disruption: Disruption,
    /// When it ends. What has begun then is finished or undone; nothing else is begun.
    pub expires_at: String,
}

/// Leave to interrupt a node that its agent did not use. Another revision, or to try the same again, begins a new count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnusedLeave {
    /// For which RuntimeRevision.
    pub revision: String,
    /// How often.
    pub times: u32,
    /// When the last one ended.
    pub at: String,
}

/// What a node has. Its agent writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeNodeStatus {
    /// The generation of the spec that this was written for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// UID of the Node that this was written on.
    #[serde(default, rename = "nodeUID")]
    pub node_uid: String,
    /// Version of the agent.
    #[serde(default)]
    pub agent_version: String,
    /// Version of the runtime that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_version: Option<String>,
    /// The newest version of the runtime that is on the node, whether or not it runs. A revision of a newer one waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_version: Option<String>,
    /// The kernel's boot id.
    #[serde(default, rename = "bootID", skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Who runs the node's pods.
    #[serde(default)]
    pub state: NodeState,
    /// What the agent is at.
    #[serde(default)]
    pub phase: Phase,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase_since: Option<String>,
    /// What there is to say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The leave that it waits for, in the phase `AwaitingGrant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asks: Option<Asks>,
    /// The RuntimeRevision that is applied and verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_revision: Option<String>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_since: Option<String>,
    /// The RuntimeRevision that the daemon itself says it has loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded_revision: Option<String>,
    /// The RuntimeRevision that the node goes back to by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_known_good: Option<String>,
    /// The RuntimeRevision of the set of image policies in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_revision: Option<String>,
    /// The last revision that the agent gave up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<FailedRevision>,
    /// Whether the runtime's probe and the kubelet are well. What is enforced of image policies says `enforcement`: a set that is refused takes
    /// no revision back.
    #[serde(default)]
    pub healthy: bool,
    /// Attempts at the desired revision.
    #[serde(default)]
    pub attempts: u32,
    /// Crashes of the runtime that the agent has counted.
    #[serde(default)]
    pub crash_count: u32,
    /// Files of the product on the host that somebody else changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<Drift>,
    /// What the node can do.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// What the enforcement of image policies says of itself.
    #[serde(default)]
    pub enforcement: Enforcement,
    /// How far the images of `spec.images.prefetch` are; unset without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<PrefetchStatus>,
    /// `Ready`, `Healthy`, `Enforcing`, `Drifted`, and what else the agent has to say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Who runs a node's pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NodeState {
    /// Another runtime.
    #[default]
    Foreign,
    /// This one; the kubelet is on it.
    Managed,
    /// Another runtime again, after this one was told to go.
    Absent,
}

/// What an agent is at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Nothing.
    #[default]
    Idle,
    /// Fetching and checking what is desired.
    Preparing,
    /// Waiting for leave to interrupt the node.
    AwaitingGrant,
    /// Waiting for image policies without which the node is not taken over: they cannot be had, or do not fit. It is given no leave meanwhile,
    /// and the desired revision is not to blame.
    AwaitingPolicies,
    /// Waiting until the node's pods are gone.
    Draining,
    /// Applying.
    Applying,
    /// Looking whether it is well.
    Verifying,
    /// Going back.
    RollingBack,
    /// Both the desired and the last good revision failed: running containers go on, nothing is tried any more.
    Quarantined,
    /// The desired revision says something that this version does not know; the node keeps what it has.
    Unsupported,
}

/// The leave that a node needs, by its own look at the revision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Asks {
    /// For which RuntimeRevision.
    pub revision: String,
    /// `spec.desiredSince` of the order that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_since: Option<String>,
    /// For what.
    pub disruption: Disruption,
}

/// A revision that an agent gave up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailedRevision {
    /// Its name.
    pub revision: String,
    /// Why, as one word.
    pub reason: String,
    /// Why, as a sentence.
    pub message: String,
    /// When.
    pub at: String,
    /// `spec.desiredSince` of the attempt: an attempt from before somebody asked to try the revision again counts for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_since: Option<String>,
}

impl FailedRevision {
    /// The reason of a node that runs a part of the control plane and is not taken over, because nobody asked for such nodes
    /// ([`RuntimeNodeSpec::control_plane`]): it has looked at nothing of the revision.
    pub const CONTROL_PLANE: &'static str = "ControlPlane";
}

/// A file of the product on the host that somebody else changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// Its path.
    pub path: String,
    /// `Changed`, `Missing` or `Replaced`; `Outdated` where the file is as it was left, and the unit of systemd that it overrides starts the
    /// kubelet otherwise since.
    pub kind: String,
}

/// What a node can do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// The kernel's release.
    #[serde(default)]
    pub kernel: String,
    /// Its architecture, as images name it: `amd64`, `arm64`.
    #[serde(default)]
    pub architecture: String,
    /// `v2`, `v1` or `hybrid`.
    #[serde(default)]
    pub cgroups: String,
    /// `systemd` or `cgroupfs`: the driver that the kubelet goes by, on a node that Berth has.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cgroup_driver: String,
    /// Linux security modules that are on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub security_modules: Vec<String>,
    /// Whether pods may have user namespaces.
    #[serde(default)]
    pub user_namespaces: bool,
    /// Runtime handlers that pods may ask for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handlers: Vec<String>,
}

/// What the enforcement of image policies says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Enforcement {
    /// `Enforcing`, `Refused` (the desired set could not be loaded; the one before is in force) or `Unknown`.
    #[serde(default)]
    pub result: String,
    /// Why the desired set was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Decisions by policy, since the runtime started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<PolicyDecisions>,
}

/// How far images are that a node fetches before a pod asks for them. It says little, so that it changes seldom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrefetchStatus {
    /// `Complete`, `Fetching`, or `Failing`: at least one cannot be had and is tried again.
    #[serde(default)]
    pub state: String,
    /// How many are wanted.
    #[serde(default)]
    pub wanted: u32,
    /// How many cannot be had.
    #[serde(default)]
    pub failing: u32,
    /// Why the first of them cannot be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Decisions of one policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyDecisions {
    /// Name of the ImagePolicy.
    pub policy: String,
    /// Images refused.
    #[serde(default)]
    pub denied: u64,
    /// Images warned of.
    #[serde(default)]
    pub warned: u64,
}
