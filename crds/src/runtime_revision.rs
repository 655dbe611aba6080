//! RuntimeRevision: what nodes are to have, rendered once and never changed. Its name is the hash of its content, so that whoever
//! has one knows all of it, and a node can check what it was given.
//!
//! The content is kept as JSON values: a version that does not know all of its fields can still check the hash, and says what it
//! does not know instead of reading something else.
use crate::image_policy::ImagePolicySpec;
use crate::runtime_config::RuntimeConfigSpec;
use crate::status::Condition;
use aws_lc_rs::digest::{SHA256, digest};
use berth_model::{Error, Result};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Bytes of the hash in a name: nobody finds a second content for one of 96 bits.
const NAME_BYTES: usize = 12;
/// Largest content in bytes: an object of the API server ends at 1.5 MiB.
pub const MAX_REVISION: usize = 1 << 20;

/// What nodes are to have: a configuration, or a set of image policies. Immutable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "kube", derive(kube::CustomResource))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "berth.dev",
        version = "v1alpha1",
        kind = "RuntimeRevision",
        plural = "runtimerevisions",
        shortname = "rtrev",
        category = "berth",
        status = "RuntimeRevisionStatus",
        derive = "PartialEq",
        doc = "What nodes are to have, rendered by the operator from RuntimeConfigs or ImagePolicies. Immutable, named by the hash of its content.",
        printcolumn(name = "Version", type_ = "string", json_path = ".spec.runtime.version"),
        printcolumn(name = "Verdict", type_ = "string", json_path = ".status.verdict"),
        printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes"),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
    )
)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeRevisionSpec {
    /// A configuration of the runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RevisionRuntime>,
    /// A set of image policies, by name; an empty one allows everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<Vec<RevisionPolicy>>,
}

/// One effective configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionRuntime {
    /// Version of the runtime.
    pub version: String,
    /// The merged spec of the RuntimeConfigs, without what only the operator follows.
    #[schemars(schema_with = "any_object")]
    pub config: Value,
}

/// One image policy of a set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionPolicy {
    /// Name of the ImagePolicy.
    pub name: String,
    /// Its spec.
    #[schemars(schema_with = "any_object")]
    pub spec: Value,
}

/// Content is not pruned: fields that the API server's schema does not know are part of the hash.
fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// What became of a revision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeRevisionStatus {
    /// What is known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// When somebody asked to try it again: whatever nodes said of attempts before that counts for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retried_at: Option<String>,
    /// Why, for people; of a bad one with the first node that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Nodes that are told to have it.
    #[serde(default)]
    pub nodes: u32,
    /// Path of each field of a configuration that is set, of lists with the entry's key, to the names of the RuntimeConfigs that it comes from,
    /// sorted: several where different ones come to the same configuration. Of one that no RuntimeConfig comes to any more, as it was last. It is no
    /// part of the content: who says the same under another name changes no node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, Vec<String>>,
    /// For whose nodes it came through, and when: the names of the RuntimeConfigs that are about the nodes, sorted, with commas between them, to the
    /// time. For others it has not come through, and for these it is not bad, whatever the verdict is. What is said of names that are gone
    /// counts for the nodes of those that are there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub through_for: BTreeMap<String, String>,
    /// `Good` or `Bad`, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// What is known of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Verdict {
    /// A rollout of it came through: nodes may go back to it.
    Good,
    /// It broke nodes, or somebody took it back. It is never handed out again, but to nodes of RuntimeConfigs for which it came through.
    Bad,
}

impl RuntimeRevisionStatus {
    /// The keys of `through_for` that a RuntimeConfig is part of.
    pub fn through_with<'a>(&'a self, config: &'a str) -> impl Iterator<Item = &'a String> {
        self.through_for.keys().filter(move |key| key.split(',').any(|name| name == config))
    }
}

impl RuntimeRevisionSpec {
    /// A configuration.
    pub fn of_runtime(version: &str, config: &RuntimeConfigSpec) -> Self {
        let config = serde_json::to_value(config).unwrap_or_default();
        let runtime = RevisionRuntime { version: version.to_owned(), config: without_empty(config) };
        Self { runtime: Some(runtime), policies: None }
    }

    /// A set of policies. Their order means nothing.
    pub fn of_policies<'a>(policies: impl IntoIterator<Item = (&'a str, &'a ImagePolicySpec)>) -> Self {
        let one = |(name, spec): (&str, &ImagePolicySpec)| RevisionPolicy {
            name: name.to_owned(),
            spec: without_empty(serde_json::to_value(spec).unwrap_or_default()),
        };
        let mut policies: Vec<_> = policies.into_iter().map(one).collect();
        policies.sort_by(|a, b| a.name.cmp(&b.name));
        Self { runtime: None, policies: Some(policies) }
    }

    /// Its name: `config-HASH` or `policy-HASH`.
    pub fn name(&self) -> String {
        let kind = if self.policies.is_some() { "policy" } else { "config" };
        let mut text = String::new();
        canonical(&serde_json::to_value(self).unwrap_or_default(), &mut text);
        let hash = digest(&SHA256, text.as_bytes());
        hash.as_ref().iter().take(NAME_BYTES).fold(format!("{kind}-"), |mut name, byte| {
            let _ = write!(name, "{byte:02x}");
            name
        })
    }

    /// Checks it against the name that it came under. Errors: `InvalidArgument` if the content is another, too large, or not exactly
    /// one of a configuration and a set of policies.
    pub fn check(&self, name: &str) -> Result<()> {
        let field = format!("RuntimeRevision {name}");
        if self.runtime.is_some() == self.policies.is_some() {
            return Err(Error::invalid(field, "must have spec.runtime or spec.policies, and not both"));
        }
        let size = serde_json::to_vec(self).map_or(usize::MAX, |text| text.len());
        if size > MAX_REVISION {
            return Err(Error::invalid(field, format!("is {size} bytes long, the limit is {MAX_REVISION}")));
        }
        let own = self.name();
        if own == name {
            return Ok(());
        }
        Err(Error::invalid(field, format!("has the content of {own}; it was changed after the operator wrote it")))
    }

    /// The configuration. Errors: `InvalidArgument` naming the field that this version does not know.
    pub fn config(&self) -> Result<RuntimeConfigSpec> {
        let Some(runtime) = &self.runtime else {
            return Err(Error::invalid("RuntimeRevision spec.runtime", "is not there: it is a set of policies"));
        };
        RuntimeConfigSpec::deserialize(&runtime.config)
            .map_err(|e| Error::invalid("RuntimeRevision spec.runtime.config", e))
    }

    /// The policies with their names. Errors: `InvalidArgument` naming the policy and the field that this version does not know.
    pub fn policies(&self) -> Result<Vec<(String, ImagePolicySpec)>> {
        let read = |policy: &RevisionPolicy| match ImagePolicySpec::deserialize(&policy.spec) {
            Ok(spec) => Ok((policy.name.clone(), spec)),
            Err(e) => Err(Error::invalid(format!("RuntimeRevision spec.policies, ImagePolicy {}", policy.name), e)),
        };
        self.policies.iter().flatten().map(read).collect()
    }
}

/// Without objects that say nothing, so that a version with one more struct of settings has the same hash.
fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, without_empty(value)));
            json!(fields.filter(|(_, v)| *v != json!({}) && !v.is_null()).collect::<BTreeMap<_, _>>())
        }
        // Entries of a list keep their places, empty ones too.
        Value::Array(list) => Value::Array(list.into_iter().map(without_empty).collect()),
        other => other,
    }
}

/// JSON with sorted keys and without spaces.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let sorted: BTreeMap<_, _> = fields.iter().collect();
            text.push('{');
            for (i, (name, value)) in sorted.into_iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                let _ = write!(text, "{}:", Value::from(name.as_str()));
                canonical(value, text);
            }
            text.push('}');
        }
        Value::Array(list) => {
            text.push('[');
            for (i, value) in list.iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                canonical(value, text);
            }
            text.push(']');
        }
        other => {
            let _ = write!(text, "{other}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(json: Value) -> RuntimeRevisionSpec {
        let config: RuntimeConfigSpec = serde_json::from_value(json).unwrap();
        RuntimeRevisionSpec::of_runtime("1.2.3", &config)
    }

    #[test]
    fn the_name_is_that_of_the_content() {
        let one = revision(json!({"runtime": {"pidsLimit": 50, "logLevel": "Debug"}}));
        let same = revision(json!({"runtime": {"logLevel": "Debug", "pidsLimit": 50}, "network": {"cni": {}}}));
        assert_eq!(one.name(), same.name(), "neither order nor empty objects count");
        assert_eq!(one.name().len(), "config-".len() + 2 * NAME_BYTES);
        let other = revision(json!({"runtime": {"logLevel": "Debug", "pidsLimit": 51}}));
        assert_ne!(one.name(), other.name());
        assert!(one.check(&one.name()).is_ok());
        let message = one.check(&other.name()).unwrap_err().to_string();
        assert!(message.contains("was changed"), "{message}");
    }

    /// A name that changes between versions rolls every cluster at its upgrade.
    #[test]
    fn the_name_of_a_content_is_the_same_in_every_version() {
        let one = revision(json!({"runtime": {"pidsLimit": 50}, "registries": [{"host": "a.example"}]}));
        assert_eq!(one.name(), "config-c378bc4b87e92ada0ede845f");
        assert_eq!(RuntimeRevisionSpec::of_policies([]).name(), "policy-cd59036f92de48974d69907b");
    }

    #[test]
    fn what_a_version_does_not_know_is_named_and_the_hash_still_checked() {
        let mut newer = revision(json!({}));
        newer.runtime.as_mut().unwrap().config = json!({"runtime": {"turbo": true}});
        assert!(newer.check(&newer.name()).is_ok());
        let message = newer.config().unwrap_err().to_string();
        assert!(message.contains("turbo"), "{message}");
    }

    #[test]
    fn policies_come_in_the_order_of_their_names() {
        let spec: ImagePolicySpec = serde_json::from_value(json!({"mode": "Enforce"})).unwrap();
        let one = RuntimeRevisionSpec::of_policies([("b", &spec), ("a", &spec)]);
        assert_eq!(one.name(), RuntimeRevisionSpec::of_policies([("a", &spec), ("b", &spec)]).name());
        assert_eq!(one.policies().unwrap()[0], ("a".to_owned(), spec));
        assert!(RuntimeRevisionSpec::default().check("config-0").is_err(), "neither");
    }
}
