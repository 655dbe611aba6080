//! ImagePolicy: which images may run.
use crate::metadata::ObjectMeta;
#[cfg(feature = "kube")]
use crate::status::ImagePolicyStatus;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which images may run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImagePolicy {
    /// `berth.dev/v1alpha1`.
    pub api_version: String,
    /// `ImagePolicy`.
    pub kind: String,
    /// Name and labels.
    pub metadata: ObjectMeta,
    /// What is demanded.
    pub spec: ImagePolicySpec,
}

/// What is demanded of images. All policies that match an image must pass; adding one never loosens anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "kube", derive(kube::CustomResource))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "berth.dev",
        version = "v1alpha1",
        kind = "ImagePolicy",
        root = "ImagePolicyObject",
        plural = "imagepolicies",
        shortname = "imgpol",
        category = "berth",
        status = "ImagePolicyStatus",
        derive = "PartialEq",
        doc = "Which images may run. All policies that match an image must pass.",
        printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
        printcolumn(name = "Enforced", type_ = "string", json_path = ".status.summary"),
        printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
        printcolumn(name = "Denied", type_ = "integer", json_path = ".status.denied"),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
        printcolumn(name = "Revision", type_ = "string", json_path = ".status.policyRevision", priority = 1),
        printcolumn(
            name = "Message",
            type_ = "string",
            json_path = ".status.conditions[?(@.type==\"Ready\")].message",
            priority = 1
        )
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImagePolicySpec {
    /// What happens to an image that fails.
    pub mode: PolicyMode,
    /// Where decisions are made; default both. Not empty.
    #[serde(default = "both_points")]
    pub enforce_at: Vec<EnforcePoint>,
    /// Which images and namespaces this is about; default all.
    #[serde(default, rename = "match")]
    pub matches: ImageMatch,
    /// Registries.
    #[serde(default)]
    pub registries: Registries,
    /// Form of references.
    #[serde(default)]
    pub references: References,
}

fn both_points() -> Vec<EnforcePoint> {
    vec![EnforcePoint::Pull, EnforcePoint::Create]
}

/// What happens to an image that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum PolicyMode {
    /// It is counted and logged.
    Audit,
    /// And the caller is told.
    Warn,
    /// It is refused.
    Enforce,
}

/// Where a decision is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EnforcePoint {
    /// Before an image is fetched.
    Pull,
    /// Before a container is made of it, whoever brought it.
    Create,
}

/// Which images and namespaces a policy is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageMatch {
    /// Images; empty is all. At most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImagePattern>,
    /// Images that are not meant after all. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<ImagePattern>,
    /// Namespaces, by the label `kubernetes.io/metadata.name`; unset is all. An unknown namespace matches every selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<NamespaceSelector>,
}

/// Images by pattern: `host[/path][:tag|@digest]`. `*` stands for a whole label of the host, for one path component, or at
/// the end of the path for all that follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImagePattern {
    /// The pattern, of at most 512 bytes.
    pub pattern: String,
}

/// A Kubernetes label selector; on a node only the label that carries the namespace's name is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamespaceSelector {
    /// Labels and the values they must have, of at most 63 bytes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Requirements. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<SelectorRequirement>,
}

/// One requirement of a selector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SelectorRequirement {
    /// Label key.
    pub key: String,
    /// Operator.
    pub operator: SelectorOperator,
    /// Values, for `In` and `NotIn`. At most 256, of at most 63 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// Selector operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SelectorOperator {
    /// One of the values.
    In,
    /// None of the values.
    NotIn,
}

/// Registries that images may come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Registries {
    /// Patterns of which one must match; empty is all. At most 256, of at most 512 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Patterns of which none may match; looked at first, beats everything. At most 256, of at most 512 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
}

/// Form of references.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct References {
    /// The user must write a digest.
    #[serde(default)]
    pub require_digest: bool,
    /// Tags that may not be used without a digest, whole and without patterns. At most 64, of at most 128 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forbid_tags: Vec<String>,
}
