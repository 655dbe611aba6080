//! What is found on a node. Plain values; who finds them is a [`crate::node::NodeSide`].
use berth_crds::{Capabilities, Drift, KubeletConfig, PolicyDecisions, PrefetchStatus, SecretCredential};

/// Kind of drift: the file is as it was left, and the unit of systemd that it overrides is not.
pub const OUTDATED: &str = "Outdated";

/// A look at the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The kernel's boot id.
    pub boot_id: String,
    /// Who runs the node's pods.
    pub adoption: Adoption,
    /// The daemon; `None`: it does not answer.
    pub daemon: Option<Daemon>,
    /// The kubelet's process; `None`: none runs.
    pub kubelet: Option<u32>,
    /// It was started before the daemon that runs.
    pub kubelet_is_older: bool,
    /// Nobody would start the daemon again: its supervisor, on a node without a service manager, was killed.
    pub unsupervised: bool,
    /// Whether revisions of a cluster are still applied, or lie on the disk for the daemon's next start.
    pub applied: bool,
    /// What the node can do.
    pub capabilities: Capabilities,
    /// Versions of the runtime that are on the node.
    pub versions: Vec<String>,
    /// Why the programs of the agent's image are not on the node: one word, and a sentence. `None`: they are.
    pub staging: Option<(&'static str, String)>,
}

impl Facts {
    /// Whether something is wrong with the node, which is ours and in no operation.
    pub fn unwell(&self) -> bool {
        let silent_or_troubled = self.daemon.as_ref().is_none_or(|daemon| !daemon.troubles.is_empty());
        self.adoption.phase == AdoptPhase::Adopted && (silent_or_troubled || self.kubelet.is_none())
    }
}

/// What `berth adopt status` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Adoption {
    /// Where it is.
    pub phase: AdoptPhase,
    /// The node was on Berth from the beginning: there is no runtime to give it back to.
    pub native: bool,
    /// Name of the last operation; `None`: nothing is known of one.
    pub operation: Option<String>,
    /// Why that one walks or walked back, or is stuck, or why nothing is known.
    pub message: Option<String>,
    /// That is nothing of what the operation was for: whoever did it was killed, the node was booted, the leave ended.
    pub interrupted: bool,
    /// Files of others that the product has changed and somebody else has changed again, or has made [`OUTDATED`].
    pub drift: Vec<Drift>,
    /// What the product sets of the kubelet's configuration; `None`: nothing is known.
    pub kubelet: Option<KubeletConfig>,
    /// The last operation was a change of that, and was walked back; `message` says why.
    pub kubelet_failed: bool,
}

/// Where an adoption is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AdoptPhase {
    /// Nothing is known.
    #[default]
    Unknown,
    /// The node has another runtime.
    NotAdopted,
    /// An operation goes on.
    Underway,
    /// An operation was left by whoever did it, or cannot go on.
    Left,
    /// The node is ours.
    Adopted,
    /// The node has another runtime again, after it was ours.
    Returned,
}

impl AdoptPhase {
    /// Whether the node has another runtime.
    pub fn foreign(self) -> bool {
        matches!(self, Self::NotAdopted | Self::Returned)
    }
}

/// What the daemon says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Daemon {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Its cgroup driver; empty: an older one that does not say.
    pub cgroup_driver: String,
    /// The revision of a configuration that is applied.
    pub configuration: Option<String>,
    /// The revision of a set of policies in force.
    pub policies: Option<String>,
    /// Credentials that it was handed, and holds.
    pub credentials: Vec<SecretCredential>,
    /// Fields that wait for its next start.
    pub pending: Vec<String>,
    /// What is not well: conditions that are not true, fields that could not be applied.
    pub troubles: Vec<String>,
    /// One of them does not pass by itself: a field could not be applied, or what the network is configured by is not there.
    pub lasting: bool,
    /// The revision that the daemon did not start with, and why; it runs with another one.
    pub not_started: Option<(String, String)>,
    /// How far the images are that it fetches by itself.
    pub prefetch: Option<PrefetchStatus>,
    /// Decisions by policy since it started.
    pub decisions: Vec<PolicyDecisions>,
    /// Files of its own that somebody else has changed.
    pub drift: Vec<Drift>,
}
