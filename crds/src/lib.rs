//! RuntimeConfig, ImagePolicy, RuntimeRevision and RuntimeNode: types, defaults, rules, merge. One file per kind.
//!
//! `fields.rs` is the table of RuntimeConfig's fields: merge, comparison and explanation follow from it.
//!
//! The same types read the documents of a node without a cluster and, with the feature `kube`, the API server's objects. Only
//! fields that work are here; any other is refused by name, line and column. `crd` makes the API server's definitions of them.
//! Must not: do I/O. Fuzz target: `documents`.
#![forbid(unsafe_code)]
// Columns of one definition look alike.
#![cfg_attr(feature = "kube", allow(clippy::duplicated_attributes))]

#[cfg(feature = "kube")]
pub mod crd;
mod credential_provider;
mod describe;
mod document;
mod fields;
mod image_policy;
mod kubelet;
mod merge;
mod metadata;
mod pairs;
mod profile;
mod redact;
mod registry;
mod rollout;
mod rules;
mod runtime_config;
mod runtime_node;
mod runtime_revision;
mod selector;
mod shape;
mod sockets;
mod status;
mod storage;
#[cfg(feature = "kube")]
pub mod time;
mod version;

pub use credential_provider::{CredentialProvider, MAX_PROVIDER_CONFIG, ProviderEnv, parse_provider_config};
pub use describe::{Description, descriptions};
pub use document::{
    Document, MAX_DOCUMENT, MAX_DOCUMENTS_IN_FILE, check, check_stored, parse_documents, parse_known_documents,
};
pub use fields::{Audience, Class, Field, FieldChange, Preset, all_fields, changes, fields, for_the_cluster};
#[cfg(feature = "kube")]
pub use image_policy::ImagePolicyObject;
pub use image_policy::{
    EnforcePoint, ImageMatch, ImagePattern, ImagePolicy, ImagePolicySpec, NamespaceSelector, PolicyMode, References,
    Registries, SelectorOperator, SelectorRequirement,
};
pub use kubelet::{Kubelet, KubeletConfig, MAX_KUBELET_CONFIG, kubelet_fields, settable_kubelet_fields};
pub use merge::{Effective, Merged, merge, merge_keeping};
pub use metadata::{API_VERSION, ObjectMeta};
pub use pairs::{check_merged, credential_providers, streaming_tls};
pub use profile::{DefaultProfiles, ProfileSource, ProfileType, SecurityProfile, find_profile};
pub use redact::{REDACTED, redact};
pub use registry::{
    Capability, Credentials, Fallback, MirrorCredentials, Proxy, RegistryHost, RegistryMirror, RegistryTls,
    SecretCredential, Transfer, check_registries, sha256,
};
pub use rollout::{Adopt, AdoptProfile, ControlPlane, Drain, IntOrPercent, OnFailure, Rollout, Soak};
#[cfg(feature = "kube")]
pub use runtime_config::RuntimeConfigObject;
pub use runtime_config::{
    CgroupManager, Cni, IpFamily, Limits, LogLevel, Metrics, Network, NetworkMode, Runtime, RuntimeConfig,
    RuntimeConfigSpec, State, Streaming, seconds,
};
#[cfg(feature = "kube")]
pub use runtime_node::RuntimeNode;
pub use runtime_node::{
    AgentProblem, Asks, Capabilities, Drift, Enforcement, FailedRevision, Grant, NodeState, Phase, PolicyDecisions,
    PrefetchStatus, RuntimeNodeSpec, RuntimeNodeStatus, UnusedLeave,
};
#[cfg(feature = "kube")]
pub use runtime_revision::RuntimeRevision;
pub use runtime_revision::{
    MAX_REVISION, RevisionPolicy, RevisionRuntime, RuntimeRevisionSpec, RuntimeRevisionStatus, Verdict,
};
pub use selector::{LabelOperator, LabelRequirement, LabelSelector};
pub use sockets::{Sockets, check_sockets};
pub use status::{
    Condition, Disruption, DisruptionStatus, FailingNode, FieldConflict, ImagePolicyStatus, NodeCounts,
    RuntimeConfigStatus, WaveStatus,
};
pub use storage::{Images, Storage, StorageGc, bytes};
pub use version::compare_versions;
