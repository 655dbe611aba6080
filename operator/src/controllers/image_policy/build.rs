//! The set of policies that nodes are to enforce. Pure.
use super::validate::Refusal;
use crate::cluster::World;
use berth_crds::{ImagePolicy, RevisionPolicy, RuntimeRevision, RuntimeRevisionSpec};
use std::collections::BTreeMap;

/// Most policies of a set, as the definition of RuntimeRevision has it.
const MAX_POLICIES: usize = 200;

/// The set, with its name. Of a policy that is refused, what nodes were told of it before stays in it. Errors: why there can be none.
pub(super) fn set(
    world: &World,
    judged: &BTreeMap<String, Result<ImagePolicy, Refusal>>,
) -> Result<RuntimeRevision, Refusal> {
    let before = in_force(world);
    if before == Some(None) && judged.values().any(Result::is_err) {
        let message = "a policy is refused, and the RuntimeRevision with what was in force of it is gone, or not understood; nodes keep what they have until it is mended";
        return Err(Refusal { reason: "SetUnknown", message: message.to_owned() });
    }
    let before = before.flatten().and_then(|revision| revision.spec.policies.clone()).unwrap_or_default();
    let accepted = judged.iter().filter_map(|(name, policy)| policy.as_ref().ok().map(|p| (name.as_str(), &p.spec)));
    let mut spec = RuntimeRevisionSpec::of_policies(accepted);
    let kept = before.into_iter().filter(|policy| judged.get(&policy.name).is_some_and(Result::is_err));
    let list: &mut Vec<RevisionPolicy> = spec.policies.get_or_insert_default();
    list.extend(kept);
    list.sort_by(|a, b| a.name.cmp(&b.name));
    let too_large = |message| Refusal { reason: "SetTooLarge", message };
    let count = list.len();
    if count > MAX_POLICIES {
        let message =
            format!("there are {count} policies, the limit is {MAX_POLICIES}; nodes keep the set that they have");
        return Err(too_large(message));
    }
    let name = spec.name();
    spec.check(&name).map_err(|e| too_large(format!("{e}; nodes keep the set that they have")))?;
    Ok(RuntimeRevision::new(&name, spec))
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
    use berth_crds::{RuntimeNode, RuntimeNodeSpec};
    use kube::ResourceExt;
    use std::sync::Arc;

    #[test]
    fn what_is_refused_stays_as_it_was() {
        let policy = |mode: &str| {
            let text = format!(
                "apiVersion: berth.dev/v1alpha1\nkind: ImagePolicy\nmetadata: {{name: p}}\nspec: {{mode: {mode}}}\n"
            );
            let Some(berth_crds::Document::ImagePolicy(policy)) = berth_crds::parse_documents(&text).unwrap().pop()
            else {
                panic!()
            };
            *policy
        };
        let mut world = World::default();
        let first = set(&world, &BTreeMap::from([("p".to_owned(), Ok(policy("Enforce")))])).unwrap();
        world.revisions.insert(first.name_any(), Arc::new(first.clone()));
        let spec = RuntimeNodeSpec { policy_revision: Some(first.name_any()), ..Default::default() };
        world.runtime_nodes.insert("n".to_owned(), Arc::new(RuntimeNode::new("n", spec)));
        let refused = BTreeMap::from([("p".to_owned(), Err(Refusal { reason: "Invalid", message: String::new() }))]);
        let second = set(&world, &refused).unwrap();
        assert_eq!(second.name_any(), first.name_any(), "refused: as before");
        let gone = set(&world, &BTreeMap::new()).unwrap();
        assert_eq!(gone.spec.policies, Some(Vec::new()), "removed: gone");
        world.revisions.clear();
        assert_eq!(set(&world, &refused).unwrap_err().reason, "SetUnknown", "what was in force of it is not known");
        let many = (0..=MAX_POLICIES).map(|n| (format!("p{n}"), Ok(policy("Audit")))).collect();
        let refusal = set(&world, &many).unwrap_err();
        assert!(refusal.reason == "SetTooLarge" && refusal.message.contains("201"), "{refusal:?}");
    }
}
