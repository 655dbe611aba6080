//! Whether each policy may be in force. Pure.
use super::dereference::SystemImage;
use crate::cluster::World;
use berth_crds::{API_VERSION, Document, ImagePolicy, ImagePolicyObject, ObjectMeta};
use berth_model::Reference;
use berth_trust::{PolicySet, Stage, Subject};
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};

/// On an ImagePolicy: it may shut out the cluster's own images.
pub(super) const ALLOW_LOCKOUT: &str = "berth.dev/allow-lockout";

/// Why a policy is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// As one word.
    pub reason: &'static str,
    /// As a sentence.
    pub message: String,
}

/// The policies by name; those that this version cannot parse are refused too.
pub(super) fn judge(world: &World, images: &BTreeSet<SystemImage>) -> BTreeMap<String, Result<ImagePolicy, Refusal>> {
    let parsed = world.policies.iter().map(|(name, object)| (name.clone(), one(object, images)));
    let broken = world.broken_policies.iter().map(|broken| {
        let message = format!("this version does not understand it: {}", broken.error);
        (broken.name.clone(), Err(Refusal { reason: "NotUnderstood", message }))
    });
    parsed.chain(broken).collect()
}

fn one(object: &ImagePolicyObject, images: &BTreeSet<SystemImage>) -> Result<ImagePolicy, Refusal> {
    let policy = ImagePolicy {
        api_version: API_VERSION.to_owned(),
        kind: "ImagePolicy".to_owned(),
        metadata: ObjectMeta { name: object.name_any(), ..Default::default() },
        spec: object.spec.clone(),
    };
    let invalid = |e: berth_model::Error| Refusal { reason: "Invalid", message: e.message().to_owned() };
    berth_crds::check(&Document::ImagePolicy(Box::new(policy.clone()))).map_err(invalid)?;
    let set = PolicySet::new(std::slice::from_ref(&policy)).map_err(invalid)?;
    if object.annotations().get(ALLOW_LOCKOUT).map(String::as_str) != Some("true") {
        locked_out(&set, images)?;
    }
    Ok(policy)
}

fn locked_out(set: &PolicySet, images: &BTreeSet<SystemImage>) -> Result<(), Refusal> {
    for (namespace, image) in images {
        // What a node cannot parse it does not run either.
        let Ok(reference) = Reference::parse(image) else { continue };
        let subject = Subject { namespace: Some(namespace.clone()), references: vec![reference], sources: Vec::new() };
        for stage in [Stage::Pull, Stage::Create] {
            let verdict = set.evaluate(stage, &subject);
            if !verdict.permits() {
                let why = verdict.reasons.join("; ");
                let remedy = format!("exclude it, or set the annotation {ALLOW_LOCKOUT}=true");
                let message =
                    format!("it would shut out {image}, which runs in namespace {namespace}: {why}; {remedy}");
                return Err(Refusal { reason: "WouldLockOut", message });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy(spec: serde_json::Value) -> ImagePolicyObject {
        ImagePolicyObject::new("p", serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn what_runs_the_cluster_may_not_be_shut_out() {
        let images = BTreeSet::from([("kube-system".to_owned(), "registry.k8s.io/kube-proxy:v1.37.2".to_owned())]);
        let deny = policy(json!({"mode": "Enforce", "registries": {"deny": ["registry.k8s.io"]}}));
        let refusal = one(&deny, &images).unwrap_err();
        assert_eq!(refusal.reason, "WouldLockOut");
        assert!(refusal.message.contains("kube-proxy") && refusal.message.contains(ALLOW_LOCKOUT), "{refusal:?}");
        assert!(one(&deny, &BTreeSet::new()).is_ok());
        let audit = policy(json!({"mode": "Audit", "registries": {"deny": ["registry.k8s.io"]}}));
        assert!(one(&audit, &images).is_ok());
        let mut anyway = deny;
        anyway.annotations_mut().insert(ALLOW_LOCKOUT.to_owned(), "true".to_owned());
        assert!(one(&anyway, &images).is_ok());
    }

    #[test]
    fn a_pattern_that_no_node_could_compile_is_refused() {
        let bad = policy(json!({"mode": "Enforce", "match": {"images": [{"pattern": "a*b.example/x"}]}}));
        assert_eq!(one(&bad, &BTreeSet::new()).unwrap_err().reason, "Invalid");
    }
}
