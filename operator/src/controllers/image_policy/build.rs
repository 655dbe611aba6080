//! The set of policies that nodes are to enforce. Pure.
use super::room::{Policies, without_room};
use super::validate::Refusal;
use crate::cluster::World;
use berth_crds::{ImagePolicy, RevisionPolicy, RuntimeRevision, RuntimeRevisionSpec};
use kube::ResourceExt;
use std::collections::BTreeMap;

/// The set, with its name. A policy that has no room in it is refused. Of one that is refused, for whatever reason, what nodes were told
/// of it before stays in the set. Errors: why there can be none.
pub(super) fn set(
    world: &World,
    judged: &mut BTreeMap<String, Result<ImagePolicy, Refusal>>,
) -> Result<RuntimeRevision, Refusal> {
    let before = in_force(world);
    let told = before.flatten().and_then(|revision| revision.spec.policies.clone()).unwrap_or_default();
    let mut kept = by_name(told);
    kept.retain(|name, _| judged.contains_key(name));
    let accepted = judged.iter().filter_map(|(name, policy)| policy.as_ref().ok().map(|p| (name.as_str(), &p.spec)));
    let mut fresh = by_name(RuntimeRevisionSpec::of_policies(accepted).policies.unwrap_or_default());
    let refused = without_room(&fresh, &kept, &by_age(world, &fresh));
    for (name, refusal) in refused {
        fresh.remove(&name);
        judged.insert(name, Err(refusal));
    }
    if before == Some(None) && judged.values().any(Result::is_err) {
        let message = "a policy is refused, and the RuntimeRevision with what was in force of it is gone, or not understood; nodes keep what they have until it is mended";
        return Err(Refusal { reason: "SetUnknown", message: message.to_owned() });
    }
    kept.extend(fresh);
    let spec = RuntimeRevisionSpec { runtime: None, policies: Some(kept.into_values().collect()) };
    let name = spec.name();
    // Only where another version had higher limits: what is in force has room otherwise.
    let too_large = |e| Refusal { reason: "SetTooLarge", message: format!("{e}; nodes keep the set that they have") };
    spec.check(&name).map_err(too_large)?;
    Ok(RuntimeRevision::new(&name, spec))
}

fn by_name(policies: Vec<RevisionPolicy>) -> Policies {
    policies.into_iter().map(|policy| (policy.name.clone(), policy)).collect()
}

/// Their names, the oldest first; of one second by name.
fn by_age<'a>(world: &World, policies: &'a Policies) -> Vec<&'a str> {
    let mut names: Vec<&str> = policies.keys().map(String::as_str).collect();
    names.sort_by_key(|name| world.policies.get(*name).and_then(|p| p.creation_timestamp()).map(|t| t.0));
    names
}

/// The set that most nodes were told of, if any were; `None` inside: it is gone, or not understood.
fn in_force(world: &World) -> Option<Option<&RuntimeRevision>> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for node in world.runtime_nodes.values() {
        if let Some(name) = &node.spec.policy_revision {
            *counts.entry(name).or_default() += 1;
        }
    }
    let (name, _) = counts.into_iter().max_by_key(|(name, count)| (*count, *name))?;
    Some(world.revisions.get(name).map(AsRef::as_ref))
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_crds::{
        API_VERSION, Document, ImagePolicyObject, ObjectMeta, RuntimeNode, RuntimeNodeSpec, check_stored,
    };
    use berth_model::Reference;
    use berth_trust::{PolicySet, Stage, Subject};
    use serde_json::{Value, json};
    use std::sync::Arc;

    type Judged = BTreeMap<String, Result<ImagePolicy, Refusal>>;

    fn accepted(name: &str, spec: Value) -> (String, Result<ImagePolicy, Refusal>) {
        let policy = ImagePolicy {
            api_version: API_VERSION.to_owned(),
            kind: "ImagePolicy".to_owned(),
            metadata: ObjectMeta { name: name.to_owned(), ..Default::default() },
            spec: serde_json::from_value(spec).unwrap(),
        };
        (name.to_owned(), Ok(policy))
    }

    /// All nodes are told of a set.
    fn tell(world: &mut World, set: &RuntimeRevision) {
        world.revisions.insert(set.name_any(), Arc::new(set.clone()));
        let spec = RuntimeNodeSpec { policy_revision: Some(set.name_any()), ..Default::default() };
        world.runtime_nodes.insert("n".to_owned(), Arc::new(RuntimeNode::new("n", spec)));
    }

    fn names(set: &RuntimeRevision) -> Vec<&str> {
        set.spec.policies.iter().flatten().map(|policy| policy.name.as_str()).collect()
    }

    #[test]
    fn what_is_refused_stays_as_it_was() {
        let mut world = World::default();
        let first = set(&world, &mut Judged::from([accepted("p", json!({"mode": "Enforce"}))])).unwrap();
        tell(&mut world, &first);
        let refusal = Refusal { reason: "Invalid", message: String::new() };
        let mut refused = Judged::from([("p".to_owned(), Err(refusal))]);
        let second = set(&world, &mut refused).unwrap();
        assert_eq!(second.name_any(), first.name_any(), "refused: as before");
        let gone = set(&world, &mut Judged::new()).unwrap();
        assert_eq!(gone.spec.policies, Some(Vec::new()), "removed: gone");
        world.revisions.clear();
        assert_eq!(set(&world, &mut refused).unwrap_err().reason, "SetUnknown", "what was in force is not known");
    }

    /// Limits come with a version, and the set of before has a policy that is beyond them.
    #[test]
    fn what_is_in_force_beyond_the_limits_of_new_policies_goes_with_every_edit() {
        let hosts: Vec<String> = (0..300).map(|n| format!("h{n}.example")).collect();
        let old = json!({"mode": "Enforce", "registries": {"deny": hosts}});
        let mut world = World::default();
        let first = set(&world, &mut Judged::from([accepted("old", old.clone())])).unwrap();
        tell(&mut world, &first);
        for (name, spec) in [("old", old), ("edited", json!({"mode": "Warn"}))] {
            let object = ImagePolicyObject::new(name, serde_json::from_value(spec).unwrap());
            world.policies.insert(name.to_owned(), Arc::new(object));
        }
        let mut judged = super::super::validate::judge(&world, &Default::default());
        let refusal = judged["old"].as_ref().unwrap_err();
        assert!(refusal.reason == "Invalid" && refusal.message.contains("the limit is 256"), "{refusal:?}");
        let second = set(&world, &mut judged).unwrap();
        assert_eq!(names(&second), ["edited", "old"], "what is in force stays, and the edit is sent");
        // As a node judges it.
        second.spec.check(&second.name_any()).unwrap();
        let of = |policy: &RevisionPolicy| accepted(&policy.name, policy.spec.clone()).1.unwrap();
        let policies: Vec<ImagePolicy> = second.spec.policies.iter().flatten().map(of).collect();
        for policy in &policies {
            check_stored(&Document::ImagePolicy(Box::new(policy.clone()))).unwrap();
        }
        let reference = Reference::parse("h299.example/app:1").unwrap();
        let subject = Subject { references: vec![reference], ..Default::default() };
        assert!(!PolicySet::new(&policies).unwrap().evaluate(Stage::Pull, &subject).permits());
    }

    /// Of so many patterns of 500 bytes.
    fn large(patterns: usize) -> Value {
        json!({"mode": "Enforce", "registries": {"deny": vec!["x".repeat(500); patterns]}})
    }

    #[test]
    fn what_has_no_room_is_refused_by_name_and_the_rest_is_sent() {
        let mut world = World::default();
        for (name, second) in [("a", 3), ("b", 1), ("c", 2)] {
            let spec = serde_json::from_value(json!({"mode": "Enforce"})).unwrap();
            let mut object = ImagePolicyObject::new(name, spec);
            let created = json!(format!("2026-01-01T00:00:0{second}Z"));
            object.metadata.creation_timestamp = serde_json::from_value(created).unwrap();
            world.policies.insert(name.to_owned(), Arc::new(object));
        }
        let all = || [accepted("a", large(1200)), accepted("b", large(1200)), accepted("c", json!({"mode": "Warn"}))];
        let mut judged = Judged::from(all());
        let first = set(&world, &mut judged).unwrap();
        assert_eq!(names(&first), ["b", "c"]);
        assert_eq!(judged["a"].as_ref().unwrap_err().reason, "SetTooLarge", "the youngest");
        tell(&mut world, &first);

        // An edit that has no room leaves what was in force of it, and another one reaches nodes.
        let edits = [accepted("b", large(2200)), accepted("c", json!({"mode": "Enforce"}))];
        let mut judged = Judged::from(edits);
        let second = set(&world, &mut judged).unwrap();
        assert_eq!(names(&second), ["b", "c"]);
        let specs = |set: &RuntimeRevision| set.spec.policies.clone().unwrap_or_default();
        assert_eq!(specs(&second)[0], specs(&first)[0]);
        assert_eq!(specs(&second)[1].spec["mode"], "Enforce");
        assert!(judged["b"].is_err() && judged["c"].is_ok());

        world.revisions.clear();
        assert_eq!(set(&world, &mut Judged::from(all())).unwrap_err().reason, "SetUnknown", "it may be in force");
    }
}
