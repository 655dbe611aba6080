//! ImagePolicies that contradict each other: what one allows, another one denies, so that together they allow nothing of it. That is no reason
//! to refuse any of them, because every policy may tighten; it is said of both. Pure.
use super::validate::Refusal;
use berth_crds::{ImagePolicy, PolicyMode};
use berth_model::Reference;
use berth_trust::{PolicySet, Stage, Subject};
use std::collections::{BTreeMap, BTreeSet};

/// Most policies that are named with one.
const NAMES: usize = 10;

/// The policies that leave nothing of what another one allows, with the names of these.
pub(super) fn conflicts(judged: &BTreeMap<String, Result<ImagePolicy, Refusal>>) -> BTreeMap<String, BTreeSet<String>> {
    let everywhere =
        |p: &&ImagePolicy| p.spec.mode == PolicyMode::Enforce && p.spec.matches.namespace_selector.is_none();
    let policies: Vec<&ImagePolicy> = judged.values().filter_map(|j| j.as_ref().ok()).filter(everywhere).collect();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for policy in policies.iter().filter(|p| !p.spec.registries.allow.is_empty()) {
        let Ok(own) = PolicySet::new(std::slice::from_ref(*policy)) else { continue };
        let allowed: Vec<Subject> =
            samples(policy).filter(|subject| own.evaluate(Stage::Pull, subject).permits()).collect();
        for other in policies.iter().filter(|other| other.metadata.name != policy.metadata.name) {
            let Ok(others) = PolicySet::new(std::slice::from_ref(*other)) else { continue };
            let denied = |subject: &Subject| !others.evaluate(Stage::Pull, subject).permits();
            if !allowed.is_empty() && allowed.iter().all(denied) {
                let (one, two) = (&policy.metadata.name, &other.metadata.name);
                for (name, with) in [(one, two), (two, one)] {
                    let names = found.entry(name.clone()).or_default();
                    if names.len() < NAMES {
                        names.insert(with.clone());
                    }
                }
            }
        }
    }
    found
}

/// An image of each place that a policy allows, by digest: no rule about tags is about it.
fn samples(policy: &ImagePolicy) -> impl Iterator<Item = Subject> + '_ {
    policy.spec.registries.allow.iter().filter_map(|place| {
        let place = place.strip_prefix("*.").map_or_else(|| place.clone(), |domain| format!("any.{domain}"));
        let digest = "0".repeat(64);
        let reference = Reference::parse(&format!("{place}/any@sha256:{digest}")).ok()?;
        Some(Subject { namespace: Some("default".to_owned()), references: vec![reference], sources: Vec::new() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_crds::{API_VERSION, ObjectMeta};
    use serde_json::{Value, json};

    fn found(policies: Value) -> Vec<String> {
        let policies = policies.as_object().unwrap().iter().map(|(name, spec)| {
            let policy = ImagePolicy {
                api_version: API_VERSION.to_owned(),
                kind: "ImagePolicy".to_owned(),
                metadata: ObjectMeta { name: name.clone(), ..Default::default() },
                spec: serde_json::from_value(spec.clone()).unwrap(),
            };
            (name.clone(), Ok(policy))
        });
        conflicts(&policies.collect()).into_keys().collect()
    }

    #[test]
    fn what_one_allows_and_another_denies_is_a_contradiction() {
        let allow = |places: Value| json!({"mode": "Enforce", "registries": {"allow": places}});
        let deny = |place: &str| json!({"mode": "Enforce", "registries": {"deny": [place]}});
        assert_eq!(found(json!({"a": allow(json!(["a.example"])), "b": allow(json!(["b.example"]))})), ["a", "b"]);
        assert_eq!(found(json!({"a": allow(json!(["a.example/team"])), "b": deny("a.example")})), ["a", "b"]);
        assert_eq!(found(json!({"a": allow(json!(["*.a.example"])), "b": allow(json!(["b.example"]))})), ["a", "b"]);
        let none: [&str; 0] = [];
        assert_eq!(found(json!({"a": allow(json!(["a.example"])), "b": deny("a.example/other")})), none, "it tightens");
        assert_eq!(
            found(json!({"a": allow(json!(["a.example", "b.example"])), "b": allow(json!(["b.example"]))})),
            none
        );
        let warns = json!({"mode": "Warn", "registries": {"deny": ["a.example"]}});
        assert_eq!(found(json!({"a": allow(json!(["a.example"])), "b": warns})), none);
    }
}
